//! Reading, retiring and going back, without failures.

use super::*;
use crate::spool::fresh::FRESH_BYTES;

#[test]
fn lines_come_back_in_order_over_many_segments() {
    let home = Home::new();
    let mut spool = home.open();
    for start in (0..200).step_by(5) {
        spool.append(start..start + 5);
    }
    assert!(home.files(".seg").len() > 5, "no segment was rolled");
    for max_bytes in [0, 100, 1 << 18] {
        let chunks = spool.read(0, max_bytes);
        let lines: Vec<u64> = chunks.iter().flat_map(|c| c.run.lines().map(number)).collect();
        assert_eq!(lines, range(0..200));
        assert!(chunks.windows(2).all(|pair| pair[0].end.line == pair[1].start.line));
        assert_eq!(spool.readers[0].rewind(), 200);
    }
    spool.read_numbers(0);
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), home.files(".seg").len()), (200, 1));
}

#[test]
fn a_chunk_can_be_retired_in_the_middle() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    let chunk = spool.readers[0].next(1 << 18).unwrap().unwrap();
    let (line, after) = chunk.lines().nth(3).unwrap();
    assert_eq!((number(line), after.line), (3, 4));
    spool.readers[0].retire(after);
    assert_eq!((spool.delivered(0), spool.readers[0].unretired()), (4, 6));
    spool.readers[0].retire(chunk.start);
    assert_eq!(spool.delivered(0), 4, "a cursor went backwards");
    assert_eq!(spool.readers[0].rewind(), 6);
    assert_eq!(spool.read_numbers(0), range(4..10));
    drop(spool);
    let mut spool = home.open();
    assert_eq!(spool.read_numbers(0), range(4..10), "after a restart");
}

#[test]
fn what_is_retired_after_a_rewind_is_not_read_again() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    let chunk = spool.readers[0].next(100).unwrap().unwrap();
    assert_eq!(spool.readers[0].rewind(), chunk.run.line_count());
    spool.readers[0].retire(chunk.end);
    assert_eq!(spool.read_numbers(0), range(chunk.end.line..10));
    // A position that was never given out changes nothing.
    spool.readers[0].retire(Position { line: 11, ..chunk.end });
    assert_eq!(spool.readers[0].position(), chunk.end);
    spool.check_books();
}

#[test]
fn files_are_closed_when_they_are_read_or_evicted() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.sync = Sync::Every(Duration::from_secs(3 << 24));
    });
    let open_files = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        fds.filter(|path| path.starts_with(home.dir.path()) && path.to_str().unwrap().contains(".seg")).count()
    };
    let mut spool = home.open().reading_back();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    spool.readers[0].next(100).unwrap().unwrap();
    let segments = home.files(".seg").len();
    assert_eq!(open_files(), segments + 1, "those that wait to be synced, the one read from");
    (0..300).for_each(|step| spool.append(step * 5..step * 5 + 5));
    assert!(spool.evicted(0) > 0);
    let segments = home.files(".seg").len();
    assert_eq!(open_files(), segments, "an evicted file that is open gives no room back");
    spool.read_numbers(0);
    assert!(open_files() <= segments + 1);
}

/// The test cuts the lines off in the file, so that only memory has them.
#[test]
fn what_was_just_written_is_not_read_back() {
    let home = Home::with(|options| options.forwards.push("b".into()));
    let mut spool = home.open();
    spool.append(0..5);
    let whole = fs::metadata(&home.files(".seg")[0]).unwrap().len();
    spool.append(5..20);
    fs::OpenOptions::new().write(true).open(&home.files(".seg")[0]).unwrap().set_len(whole).unwrap();
    // The chunk ends inside a batch.
    let first = spool.readers[0].next(100).unwrap().unwrap();
    assert!(first.end.line < 5);
    assert_eq!(spool.read_numbers(0), range(first.end.line..20));
    assert_eq!(spool.writer.log.fresh().1, 2, "the other reader has read nothing yet");
    assert_eq!(spool.read_numbers(1), range(0..20));
    assert_eq!(spool.writer.log.fresh(), (0, 0), "read by all");
    spool.append(20..22);
    assert_eq!((spool.read_numbers(0), spool.read_numbers(1)), (range(20..22), range(20..22)));
    spool.retire_all(0);
    spool.retire_all(1);
}

#[test]
fn a_reader_that_is_behind_reads_back_and_catches_up() {
    const LINES: u64 = 200;
    let home = Home::with(|options| {
        options.max_bytes = 64 << 20;
        options.segment_bytes = 8 << 20;
    });
    let mut spool = home.open();
    let append = |spool: &mut Open, numbers: std::ops::Range<u64>| {
        let long: Vec<String> = numbers.map(|n| format!("{}{}", line(n), "x".repeat(1000))).collect();
        spool.writer.append(&mut [batch(&long)]);
    };
    let batches = 2 * FRESH_BYTES as u64 / (LINES * 1000);
    (0..batches).for_each(|n| append(&mut spool, n * LINES..(n + 1) * LINES));
    let (bytes, kept) = spool.writer.log.fresh();
    assert!(bytes <= FRESH_BYTES && 0 < kept && (kept as u64) < batches, "{bytes} bytes, {kept}");
    assert_eq!(spool.read(0, 70_000).iter().map(|chunk| chunk.run.line_count()).sum::<u64>(), batches * LINES);
    assert_eq!(spool.readers[0].unretired(), batches * LINES);
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), spool.damaged(0)), (batches * LINES, 0));
}

#[test]
fn strings_shows_the_lines() {
    let home = Home::new();
    home.open().append(0..2);
    let text = String::from_utf8_lossy(&fs::read(&home.files(".seg")[0]).unwrap()).into_owned();
    assert!(text.contains(&line(0)) && text.contains(&line(1)));
}

#[test]
fn what_is_acknowledged_counts_once_and_comes_again_until_it_is_retired() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..20);
    let ends: Vec<Position> = spool.read(0, 1).iter().map(|chunk| chunk.end).collect();
    spool.readers[0].acknowledge(ends[9]);
    spool.readers[0].retire(ends[4]);
    spool.check_books();
    let left = |spool: &Open| (spool.readers[0].pending(), spool.readers[0].replayable());
    assert_eq!((spool.delivered(0), left(&spool)), (10, (10, 5)));
    // The connection breaks: lines that are not retired are sent again, and no line is counted twice.
    assert_eq!(spool.readers[0].rewind(), 15);
    assert_eq!(spool.read_numbers(0), range(5..20));
    spool.readers[0].acknowledge(ends[7]);
    spool.readers[0].acknowledge(ends[11]);
    spool.check_books();
    assert_eq!((spool.delivered(0), left(&spool)), (12, (8, 7)));
    // A restart has the same effect.
    drop(spool);
    let mut spool = home.open();
    assert_eq!((spool.delivered(0), left(&spool)), (0, (8, 7)));
    assert_eq!(spool.read_numbers(0), range(5..20));
    spool.readers[0].acknowledge(ends[11]);
    spool.check_books();
    assert_eq!(spool.delivered(0), 0);
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), left(&spool)), (8, (0, 0)));
}

#[test]
fn the_oldest_pending_line_is_behind_what_is_acknowledged() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    let chunk = spool.readers[0].next(1).unwrap().unwrap();
    spool.readers[0].acknowledge(chunk.end);
    for _ in 0..2 {
        assert_eq!(number(&spool.handle.oldest_line("a").expect("a line")), 1);
        spool.writer.log.forget_fresh();
    }
}
