//! Lines that another relay has numbered: each is stored once, however often it is sent and wherever a crash has cut.

use super::*;

fn from(stream: &str, first_line: u64) -> Option<Origin> {
    Some(Origin { stream: stream.into(), session: 1, first_line, was: None })
}

impl Open {
    /// Delivers the stream's lines of these numbers. The texts of different streams have numbers that are 1000 apart.
    pub(super) fn deliver_from(&mut self, stream: &str, lines: std::ops::Range<u64>) -> Answer {
        let base = 1000 * stream.bytes().map(u64::from).sum::<u64>();
        let origin = from(stream, lines.start);
        let texts: Vec<String> = lines.map(|number| line((base + number) % 1_000_000)).collect();
        let answer = Answer::of(self.writer.deliver(batch(&texts), origin));
        self.check_books();
        answer
    }

    fn repeated(&self) -> u64 {
        self.metrics.spool().dropped_repeated.get()
    }
}

/// The numbers of `stream` among those that were read.
fn of(stream: &str, read: &[u64]) -> Vec<u64> {
    let base = 1000 * stream.bytes().map(u64::from).sum::<u64>();
    read.iter().filter(|&&number| (base..base + 1000).contains(&number)).map(|number| number - base).collect()
}

#[test]
fn what_is_sent_again_is_here_once() {
    let home = Home::new();
    let mut spool = home.open();
    for (lines, repeated) in [(0..10, 0), (0..10, 10), (5..15, 15), (15..20, 15), (3..4, 16), (30..40, 16)] {
        assert_eq!(spool.deliver_from("a", lines.clone()).now(), Some(Ok(())), "{lines:?}");
        assert_eq!(spool.repeated(), repeated, "{lines:?}");
    }
    let newer = Some(Origin { session: 2, ..from("a", 0).unwrap() });
    spool.writer.deliver(batch(&[line(2)]), newer);
    spool.writer.deliver(batch(&[line(3)]), from("b", 0));
    assert_eq!(spool.deliver_from("a", 0..2).now(), Some(Ok(())), "of the session before");
    let read = spool.read_numbers(0);
    assert_eq!(of("a", &read), [range(0..20), range(30..40)].concat());
    assert_eq!((&read[30..], spool.repeated()), (&[2, 3][..], 18));
}

/// Lines that another relay delivers are read from memory like all others, together with the marks between them, and
/// not from the disk.
#[test]
fn what_is_delivered_is_read_from_memory() {
    let home = Home::new();
    let mut spool = home.open();
    spool.deliver_from("a", 0..10);
    spool.append(0..3);
    spool.deliver_from("b", 0..10);
    // Reading from the disk would find no lines.
    for file in home.files(".seg") {
        fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
    }
    let read = spool.read_numbers(0);
    assert_eq!((of("a", &read), of("b", &read), read.len()), (range(0..10), range(0..10), 23));
    assert_eq!(spool.damaged(0), 0);
    spool.retire_all(0);
    assert_eq!(spool.writer.log.fresh(), (0, 0), "read by all");
}

#[test]
fn a_name_that_is_too_long_is_no_origin() {
    let home = Home::new();
    let mut spool = home.open();
    for length in [128, 129] {
        let name = "n".repeat(length);
        (0..2).for_each(|_| drop(spool.writer.deliver(batch(&[line(1)]), from(&name, 0))));
    }
    assert_eq!((spool.spooled(), spool.repeated()), (3, 1));
}

#[test]
fn the_ledger_lasts_as_long_as_the_spool() {
    let home = Home::with(|options| options.max_bytes = 64 << 10);
    let mut spool = home.open();
    spool.deliver_from("a", 0..10);
    for round in 0..6 {
        // Far more lines than fit: the segments with the stream's lines are evicted, or retired and removed.
        (0..100).for_each(|step| spool.append(step * 10..step * 10 + 10));
        if round % 2 == 0 {
            spool.read_numbers(0);
            spool.retire_all(0);
        }
        assert_eq!(spool.deliver_from("b", round * 10..round * 10 + 10).now().is_some(), round % 2 == 0);
        spool.read_numbers(0);
        spool.retire_all(0);
        spool.again();
        drop(spool);
        spool = home.open();
        spool.deliver_from("a", 0..10);
        spool.deliver_from("b", 0..round * 10 + 10);
        assert_eq!((spool.spooled(), spool.repeated()), (0, round * 10 + 20), "round {round}");
    }
    drop(spool);
    // A restart without any lines leaves one segment, which has no lines, and the ledger in it.
    (0..3).for_each(|_| drop(home.open()));
    let mut spool = home.open();
    spool.deliver_from("a", 0..10);
    assert_eq!((spool.spooled(), spool.repeated()), (0, 10));
}

/// On a full disk, a retired segment is cut to make room for the next one. The ledger was in it.
#[test]
fn the_ledger_outlives_a_segment_that_is_given_back() {
    let home = Home::new();
    let mut spool = home.open();
    spool.deliver_from("a", 0..10);
    spool.read_numbers(0);
    (0..spool.readers.len()).for_each(|reader| spool.retire_all(reader));
    let full = home.segment_bytes();
    assert!(spool.writer.recycle() && home.segment_bytes() < full);
    spool.check_books();
    // A crash before another segment has begun.
    let mut again = home.crashed().open();
    again.deliver_from("a", 0..10);
    assert_eq!(again.repeated(), 10);
}

#[test]
fn a_write_that_fails_is_not_in_the_ledger() {
    let home = Home::new();
    let mut spool = home.open();
    spool.deliver_from("a", 0..5);
    spool.writer.faults.extend([ErrorKind::Other; 3]);
    let mut answer = spool.deliver_from("a", 5..10);
    let mut again = spool.deliver_from("a", 5..10);
    assert_eq!((answer.now(), again.now(), spool.repeated()), (None, None, 0));
    (0..2).for_each(|_| spool.again());
    assert_eq!((answer.now(), again.now(), spool.repeated()), (Some(Ok(())), Some(Ok(())), 5));
    assert_eq!(of("a", &spool.read_numbers(0)), range(0..10));
}

/// Cuts the newest segment at every byte behind `from`, and has both relays send everything again.
fn cut_anywhere(deliver: impl Fn(&mut Open)) {
    let home = Home::with(|options| options.segment_bytes = 64 << 10);
    let mut spool = home.open();
    spool.deliver_from("a", 0..3);
    spool.deliver_from("b", 0..3);
    let before = fs::metadata(&home.files(".seg")[0]).unwrap().len() as usize;
    deliver(&mut spool);
    let whole = fs::read(&home.files(".seg")[0]).unwrap();
    for cut in before..=whole.len() {
        let home = home.crashed();
        fs::write(&home.files(".seg")[0], &whole[..cut]).unwrap();
        let mut spool = home.open();
        assert!(spool.report.damaged.is_empty(), "cut {cut}");
        let there = spool.readers[0].unretired();
        // Twice, and once more after another crash: the ledger neither forgets nor invents lines.
        for _ in 0..2 {
            spool.deliver_from("a", 0..9);
            spool.deliver_from("b", 0..9);
        }
        let crashed = home.crashed();
        drop(spool);
        let mut spool = crashed.open();
        spool.deliver_from("a", 0..9);
        spool.deliver_from("b", 0..9);
        assert_eq!(spool.spooled(), 0, "cut {cut}");
        let read = spool.read_numbers(0);
        assert_eq!((of("a", &read), of("b", &read)), (range(0..9), range(0..9)), "cut {cut} with {there} lines");
    }
}

#[test]
fn a_crash_at_any_byte_leaves_lines_and_ledger_in_agreement() {
    cut_anywhere(|spool| {
        spool.deliver_from("a", 3..6);
        spool.deliver_from("b", 3..6);
    });
}

#[test]
fn lines_without_an_origin_count_for_nobody() {
    cut_anywhere(|spool| {
        spool.deliver_from("a", 3..6);
        spool.append(0..3);
        spool.deliver(3..6);
        spool.deliver_from("b", 3..6);
    });
}

#[test]
fn a_crash_between_two_segments_loses_no_ledger() {
    let home = Home::new();
    let mut spool = home.open();
    spool.deliver_from("a", 0..9);
    let first = home.files(".seg").remove(0);
    while home.files(".seg").len() < 2 {
        spool.append(0..5);
    }
    let second = home.files(".seg").remove(1);
    let whole = fs::read(&second).unwrap();
    for cut in 0..=whole.len() {
        let home = home.crashed();
        fs::write(home.dir.path().join(second.file_name().unwrap()), &whole[..cut]).unwrap();
        let mut spool = home.open();
        spool.deliver_from("a", 0..9);
        assert_eq!(spool.repeated(), 9, "cut {cut}");
    }
    assert!(first.exists());
}

#[test]
fn marks_are_no_lines() {
    let home = Home::new();
    let mut spool = home.open();
    for n in 0..7 {
        spool.deliver_from(["a", "b"][n % 2], n as u64 * 5..n as u64 * 5 + 5);
        spool.append(0..2);
    }
    for max_bytes in [0, 1, 100, 1 << 18] {
        let chunks = spool.read(0, max_bytes);
        let ends: Vec<Position> = chunks.iter().flat_map(|chunk| chunk.lines().map(|(_, end)| end)).collect();
        assert!(ends.iter().map(|end| end.line).eq(1..=49));
        assert_eq!(spool.readers[0].rewind(), 49);
    }
    // Continuing behind any line, after a restart, reads exactly the rest.
    let all = spool.read(0, 1 << 18);
    let texts: Vec<Vec<u8>> = all.iter().flat_map(|chunk| chunk.run.lines().map(<[u8]>::to_vec)).collect();
    for (at, end) in all.iter().flat_map(|chunk| chunk.lines().map(|(_, end)| end)).enumerate() {
        spool.readers[0].retire(end);
        let crashed = home.crashed();
        let there = progress::Positions { acknowledged: end, retired: end };
        cursor::CursorFile::load(crashed.dir.path(), "a", spool.report.id).write(there).unwrap();
        let mut again = crashed.open();
        let rest: Vec<Vec<u8>> =
            again.read(0, 300).iter().flat_map(|chunk| chunk.run.lines().map(<[u8]>::to_vec)).collect();
        assert_eq!(rest, texts[at + 1..]);
    }
}

#[test]
fn a_line_has_a_name_for_good() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    let id: String = spool.report.id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(spool.readers[0].stream(), format!("{id}/a"));
    let first = spool.read(0, 1 << 18).remove(0).session;
    drop(spool);
    let mut spool = home.open();
    spool.append(5..10);
    let sessions: Vec<u32> = spool.read(0, 1 << 18).iter().map(|chunk| chunk.session).collect();
    assert!(sessions.len() == 2 && sessions[0] == first && sessions[1] != first, "{sessions:?}");
}

/// A segment in format version 1: segment 7 of session 3, with the lines 40 and 41.
const VERSION_1: &str = "\
4c465350 4f4f4c0a 01000000 40000000 00010203 04050607 \
    08090a0b 0c0d0e0f 07000000 00000000 28000000 00000000 \
    00f15365 00000000 03000000 557d976c 12000000 05d5defa \
    3c31343e 31206c69 6e652030 30303034 30201300 00001cf7 \
    a54c3c31 343e3120 6c696e65 20303030 30343120 78";

#[test]
fn a_spool_of_an_older_version_is_read_and_gone_on_with() {
    let digits: Vec<u8> = VERSION_1.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let home = Home::new();
    fs::write(home.dir.path().join("00000000000000000007.seg"), &bytes).unwrap();
    let mut spool = home.open();
    assert_eq!((spool.report.damaged.len(), spool.report.torn_bytes), (0, 0));
    spool.deliver_from("a", 0..5);
    let read = spool.read_numbers(0);
    assert_eq!((&read[..2], of("a", &read)), (&[40, 41][..], range(0..5)));
    assert_eq!(fs::read(&home.files(".seg")[0]).unwrap(), bytes, "it was appended to");
    drop(spool);
    let mut spool = home.open();
    spool.deliver_from("a", 0..5);
    assert_eq!((spool.repeated(), spool.read_numbers(0)), (5, read));
}
