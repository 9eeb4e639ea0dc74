//! Damaged bytes on the disk: the readable lines are delivered, the others are counted, and the file is kept.

use super::segment::MAX_DAMAGED;
use super::*;

/// Flips every bit of `whole` from byte `from` on, in turn.
fn flips(whole: &[u8], from: usize) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (from * 8..whole.len() * 8).map(|bit| {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, bytes)
    })
}

/// The offset in a file at which each of these consecutive lines begins, and the end of the last one.
fn places(lines: std::ops::Range<u64>) -> Vec<usize> {
    let mut places = vec![HEADER_LEN as usize];
    lines.for_each(|n| places.push(places.last().unwrap() + RECORD_HEADER + line(n).len()));
    places
}

#[test]
fn a_bit_flipped_in_the_newest_segment_costs_one_line() {
    let home = Home::new();
    home.open().append(0..8);
    let whole = fs::read(&home.files(".seg")[0]).unwrap();
    let places = places(0..8);
    for (at, bytes) in flips(&whole, 0) {
        let home = home.crashed();
        fs::write(&home.files(".seg")[0], &bytes).unwrap();
        let mut spool = home.open();
        let read = spool.read_numbers(0);
        let hit = places.iter().rposition(|&place| place <= at).map(|hit| hit as u64);
        let expected = hit.map_or(Vec::new(), |hit| (0..8).filter(|&n| n != hit).collect());
        assert_eq!(read, expected, "byte {at}");
        // A damaged last line looks like an unfinished write.
        let torn = hit == Some(7);
        spool.retire_all(0);
        assert_eq!(spool.damaged(0), u64::from(hit.is_some() && !torn), "byte {at}");
        assert_eq!(spool.report.torn_bytes > 0, torn, "byte {at}");
        if !torn {
            let kept = home.files(".damaged");
            assert_eq!(kept, spool.report.damaged, "byte {at}");
            assert_eq!(fs::read(&kept[0]).unwrap(), bytes, "byte {at}");
        }
        spool.append(100..103);
        assert_eq!(spool.read_numbers(0), range(100..103), "byte {at}");
        drop(spool);
        let mut spool = home.open();
        assert_eq!(spool.read_numbers(0), range(100..103), "byte {at}: repaired once and for all");
        assert!(spool.report.damaged.is_empty() && home.files(".damaged").len() == usize::from(!torn), "byte {at}");
    }
}

#[test]
fn a_bit_flipped_in_an_older_segment_costs_one_line_and_no_number() {
    let home = Home::with(|options| options.segment_bytes = 300);
    let mut spool = home.open();
    spool.append(0..5);
    spool.append(5..10);
    spool.append(10..15);
    let segment = home.files(".seg").remove(1);
    let whole = fs::read(&segment).unwrap();
    for (at, bytes) in flips(&whole, HEADER_LEN as usize) {
        let home = home.crashed();
        fs::write(home.dir.path().join(segment.file_name().unwrap()), &bytes).unwrap();
        let mut spool = home.open();
        let hit = 5 + places(5..10).iter().rposition(|&place| place <= at).unwrap() as u64;
        for _ in 0..2 {
            let chunks = spool.read(0, 100);
            let lines = chunks.iter().flat_map(|chunk| chunk.lines().map(|(line, end)| (number(line), end.line)));
            assert!(lines.eq((0..15).filter(|&n| n != hit).map(|n| (n, n + 1))), "byte {at}");
            spool.readers[0].rewind();
        }
        spool.read_numbers(0);
        spool.retire_all(0);
        assert_eq!((spool.delivered(0), spool.damaged(0)), (14, 1), "byte {at}");
        assert_eq!(fs::read(&home.files(".damaged")[0]).unwrap(), bytes, "byte {at}");
    }
}

/// The numbers of lines between two damaged places are unknown.
#[test]
fn no_line_gets_a_number_that_may_be_wrong() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    spool.append(0..10);
    spool.writer.current = None;
    spool.append(10..15);
    let places = places(0..10);
    let segment = home.files(".seg").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[places[2]..places[4] + 3].fill(0xa5);
    bytes[places[6] + 20] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let chunks = spool.read(0, 1 << 18);
    let lines = chunks.iter().flat_map(|chunk| chunk.lines().map(|(line, end)| (number(line), end.line)));
    assert!(lines.eq([0, 1].into_iter().chain(7..15).map(|n| (n, n + 1))));
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), spool.damaged(0)), (10, 5));
}

/// The segment is still written to.
#[test]
fn damage_in_front_of_lines_that_still_come_moves_no_number() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    spool.append(0..5);
    let segment = home.files(".seg").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[places(0..5)[2] + 12] ^= 1;
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    for end in [5, 7, 9] {
        let chunks = spool.read(0, 1 << 18);
        let lines = chunks.iter().flat_map(|chunk| chunk.lines().map(|(line, end)| (number(line), end.line)));
        assert!(lines.eq((0..end).filter(|&n| n != 2).map(|n| (n, n + 1))));
        spool.readers[0].rewind();
        spool.append(end..end + 2);
    }
}

#[test]
fn lines_behind_damage_get_a_new_session_and_no_old_number() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..8);
    let session = spool.read(0, 1 << 18)[0].session;
    drop(spool);
    let segment = home.files(".seg").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let places = places(0..8);
    bytes[places[1]..places[3] + 5].fill(0);
    bytes[places[5] + 10] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let mut spool = home.open();
    spool.append(8..9);
    let chunks = spool.read(0, 1 << 18);
    let found: Vec<Vec<u64>> = chunks.iter().map(|chunk| chunk.run.lines().map(number).collect()).collect();
    assert_eq!(found, [vec![0], vec![4, 6, 7], vec![8]]);
    let sessions: Vec<u32> = chunks.iter().map(|chunk| chunk.session).collect();
    assert!(sessions[0] == session && !sessions[1..].contains(&session) && sessions[1] != sessions[2], "{sessions:?}");
    assert!(chunks[1].start.line > chunks[0].end.line);
    spool.retire_all(0);
    assert_eq!(spool.damaged(0), 2, "at least one line at each of the places");
}

/// The next relay may have received the lines behind a gap, and would take lines from the gap for repeated ones.
#[test]
fn what_was_passed_over_once_is_passed_over_again() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    spool.append(0..8);
    let segment = home.files(".seg").remove(0);
    let sound = fs::read(&segment).unwrap();
    let mut bytes = sound.clone();
    bytes[places(0..8)[3] + 10] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let found = [range(0..3), range(4..8)].concat();
    assert_eq!(spool.read_numbers(0), found);
    fs::write(&segment, &sound).unwrap();
    for _ in 0..3 {
        spool.readers[0].rewind();
        assert_eq!(spool.read_numbers(0), found);
    }
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), spool.damaged(0)), (7, 1));
}

#[test]
fn damage_in_what_was_delivered_brings_nothing_back() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..8);
    let chunk = spool.readers[0].next(1 << 18).unwrap().unwrap();
    let behind = chunk.lines().nth(5).unwrap().1;
    spool.readers[0].retire(behind);
    drop(spool);
    let segment = home.files(".seg").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[places(0..8)[2] + 10] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let mut spool = home.open();
    assert_eq!((spool.readers[0].unretired(), spool.read_numbers(0)), (2, vec![6, 7]));
    spool.retire_all(0);
    assert_eq!(spool.damaged(0), 0);
}

#[test]
fn a_bit_flipped_among_marks_loses_no_line_that_is_sent_again() {
    let home = Home::new();
    let mut spool = home.open();
    let origin = |first_line| Some(Origin { stream: "relay".into(), session: 1, first_line, was: None });
    let texts = |lines: std::ops::Range<u64>| batch(&lines.map(line).collect::<Vec<_>>());
    spool.writer.deliver(texts(0..3), origin(0));
    spool.writer.deliver(texts(3..6), origin(3));
    drop(spool);
    let whole = fs::read(&home.files(".seg")[0]).unwrap();
    for (at, bytes) in flips(&whole, HEADER_LEN as usize) {
        let home = home.crashed();
        fs::write(&home.files(".seg")[0], &bytes).unwrap();
        let mut spool = home.open();
        // The sender repeats the lines without a receipt.
        spool.writer.deliver(texts(2..8), origin(2));
        let mut read = spool.read_numbers(0);
        read.sort_unstable();
        read.dedup();
        let lost: Vec<u64> = (0..8).filter(|n| !read.contains(n)).collect();
        assert!(lost.iter().all(|&n| n < 2) && lost.len() < 2, "byte {at}: {lost:?}");
        spool.check_books();
    }
}

#[test]
fn damage_in_an_older_segment_is_skipped_counted_and_kept() {
    let home = Home::new();
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    let segments = home.files(".seg");
    let mut bytes = fs::read(&segments[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segments[1], &bytes).unwrap();
    fs::remove_file(&segments[3]).unwrap();
    drop(spool);

    let mut spool = home.open();
    let read = spool.read_numbers(0);
    let missing = 100 - read.len() as u64;
    assert!(read.is_sorted() && read.first() == Some(&0) && read.last() == Some(&99) && missing == 16, "{read:?}");
    spool.check_books();
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), spool.damaged(0), spool.readers[0].unretired()), (100 - missing, missing, 0));
    // The damaged segment is kept, and also the one before the hole, because it is unknown which of the two has lost
    // lines.
    let kept: Vec<String> =
        home.files(".damaged").iter().map(|path| path.to_str().unwrap().replace(".damaged", "")).collect();
    assert_eq!(kept, [segments[1].to_str().unwrap(), segments[2].to_str().unwrap()]);
    assert_eq!(fs::read(&home.files(".damaged")[0]).unwrap(), bytes);
}

#[test]
fn damage_met_again_after_a_rewind_counts_once() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    fs::write(&home.files(".seg")[2], b"nothing of it is left").unwrap();
    let first = spool.read_numbers(0);
    spool.readers[0].rewind();
    spool.check_books();
    assert_eq!(spool.read_numbers(0), first);
    spool.retire_all(0);
    assert_eq!(spool.damaged(0), 100 - first.len() as u64);
}

#[test]
fn what_cannot_be_read_is_tried_again_and_then_skipped() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    // A directory can be opened and not read, like a file on a bad block.
    let bad = &home.files(".seg")[0];
    fs::remove_file(bad).unwrap();
    fs::create_dir(bad).unwrap();
    assert!(spool.readers[0].next(100).is_err());
    assert!(spool.readers[0].next(100).is_err());
    let read = spool.read_numbers(0);
    assert_eq!(read, range(read[0]..100));
    assert_eq!(spool.damaged(0), read[0]);
    spool.check_books();
}

#[test]
fn damaged_segments_kept_aside_have_a_limit() {
    let home = Home::new();
    let mut spool = home.open().reading_back();
    (0..60).for_each(|step| spool.append(step * 5..step * 5 + 5));
    for segment in home.files(".seg").iter().take(10) {
        fs::write(segment, b"nothing of it is left").unwrap();
    }
    spool.read_numbers(0);
    spool.retire_all(0);
    assert_eq!(home.files(".damaged").len(), MAX_DAMAGED);
}

#[test]
fn a_newer_format_is_refused_and_strangers_are_put_aside() {
    let home = Home::new();
    let mut spool = home.open();
    (0..10).for_each(|step| spool.append(step * 5..step * 5 + 5));
    drop(spool);
    let other = Home::new();
    other.open().append(0..5);
    fs::copy(&other.files(".seg")[0], &home.files(".seg")[0]).unwrap();
    let spool = home.open();
    assert_eq!(spool.report.damaged, home.files(".damaged"));
    assert_eq!(spool.report.damaged.len(), 1);
    drop(spool);

    let segment = home.files(".seg").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 3;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&segment, bytes).unwrap();
    assert!(matches!(home.try_open().err(), Some(OpenError::Version { version: 3, .. })));
}

#[test]
fn what_a_failed_write_left_behind_is_never_read() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    // Simulates a failed cut after a failed write: whole records, which were dropped and counted.
    let mut left = fs::read(&home.files(".seg")[0]).unwrap();
    let mut behind = batch(&[line(77), line(78)]);
    behind.seal(spool.writer.key);
    left.extend_from_slice(behind.as_bytes());
    fs::write(&home.files(".seg")[0], &left).unwrap();
    spool.writer.current = None;
    spool.append(5..10);
    assert_eq!(spool.read_numbers(0), range(0..10));
    let crashed = home.crashed();
    let mut again = crashed.open();
    assert_eq!(again.read_numbers(0), range(0..10));
    again.retire_all(0);
    assert_eq!((again.delivered(0), again.damaged(0)), (10, 0));
}
