//! Lines that a collector has refused for good.

use super::*;

/// The lines of the dead letters of `a`.
fn letters(home: &Home) -> Vec<u64> {
    let text = fs::read(dead_letters::path(home.dir.path(), "a")).unwrap_or_default();
    let letters = text.split_inclusive(|byte| *byte == b'\n').map(|letter| DeadLetter::read(letter).unwrap());
    letters.map(|letter| number(&letter.line)).collect()
}

/// Reads everything, and rejects the lines that `refused` selects. Returns the end of the last chunk.
fn read_and_reject(spool: &mut Open, refused: impl Fn(u64) -> bool) -> Position {
    let chunks = spool.read(0, 300);
    for chunk in &chunks {
        for (line, behind) in chunk.lines().filter(|(line, _)| refused(number(line))) {
            now(spool.readers[0].reject((chunk.session, behind.line - 1), "550 no", line)).unwrap();
        }
    }
    chunks.last().unwrap().end
}

#[test]
fn a_rejected_line_counts_when_it_is_passed_and_is_written_once() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..20);
    read_and_reject(&mut spool, |line| line % 5 == 0);
    spool.check_books();
    assert_eq!((spool.rejected(0), letters(&home)), (0, vec![0, 5, 10, 15]));
    // The connection breaks before all lines are retired.
    let chunk_end = Position { segment: 1, offset: 64, line: 7 };
    spool.readers[0].acknowledge(chunk_end);
    spool.check_books();
    assert_eq!((spool.rejected(0), spool.delivered(0)), (2, 5));
    spool.readers[0].rewind();
    let end = read_and_reject(&mut spool, |line| line % 5 == 0);
    spool.readers[0].retire(end);
    spool.check_books();
    assert_eq!((spool.rejected(0), spool.delivered(0), letters(&home)), (4, 16, vec![0, 5, 10, 15]));
}

#[test]
fn a_crash_between_letter_and_cursor_writes_nothing_twice() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..20);
    read_and_reject(&mut spool, |line| line == 3 || line == 9);
    let crashed = home.crashed();
    let mut spool = crashed.open();
    assert!(spool.metrics.forward("a").dead_letter_bytes.get() > 0, "it is known from the start");
    let end = read_and_reject(&mut spool, |line| [3, 9, 11].contains(&line));
    spool.readers[0].retire(end);
    spool.check_books();
    assert_eq!((spool.rejected(0), spool.delivered(0), letters(&crashed)), (3, 17, vec![3, 9, 11]));
}

#[test]
fn dead_letters_are_a_part_of_what_the_spool_may_take() {
    const MAX: u64 = 128 << 10;
    let home = Home::with(|options| options.max_bytes = MAX);
    let mut spool = home.open();
    spool.append(0..2);
    let session = spool.readers[0].next(1).unwrap().unwrap().session;
    let (file, long) = (dead_letters::path(home.dir.path(), "a"), "x".repeat(10_000));
    let reject = |spool: &mut Open, number| now(spool.readers[0].reject((session, number), "550 no", long.as_bytes()));
    (0..3).for_each(|number| reject(&mut spool, number).unwrap());
    let bytes = fs::metadata(&file).unwrap().len();
    assert_eq!(spool.metrics.spool().max_bytes.get() as u64, MAX - bytes);
    // Dead letters may take a quarter of the limit.
    let full = reject(&mut spool, 3).unwrap_err();
    assert!(full.to_string().contains("a.jsonl is full"), "{full}");
    for number in 2..3000 {
        spool.append(number..number + 1);
        assert!(home.segment_bytes() + bytes <= MAX);
    }
    assert!(spool.evicted(0) > 0);
    // When the file is out of the way, the letter is written.
    fs::remove_file(&file).unwrap();
    reject(&mut spool, 3).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), bytes / 3);
}
