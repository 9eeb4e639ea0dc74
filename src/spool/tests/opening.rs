//! Opening the spool again after a clean end, a crash, or a power cut.

use super::*;

#[test]
fn a_crash_at_any_moment_loses_nothing() {
    let home = Home::new();
    let mut spool = home.open();
    for step in 0..60 {
        spool.append(step * 3..step * 3 + 3);
        if step % 4 == 3 {
            let chunk = spool.readers[0].next(200).unwrap().unwrap();
            spool.readers[0].retire(chunk.end);
        }
        let retired = spool.readers[0].position().line;
        let crashed = home.crashed();
        let mut after = crashed.open();
        let read = after.read_numbers(0);
        assert_eq!(read, range(read[0]..step * 3 + 3));
        assert!(read[0] <= retired, "lines {retired}..{} are lost", read[0]);
        assert_eq!(after.report.torn_bytes, 0);
    }
}

#[test]
fn a_segment_cut_at_any_byte_gives_a_prefix_and_goes_on() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..8);
    let segment = home.files(".seg").remove(0);
    let whole = fs::read(&segment).unwrap();
    drop(spool);
    let end_of = |n| HEADER_LEN as usize + (0..=n).map(|n| RECORD_HEADER + line(n).len()).sum::<usize>();
    let ends: Vec<usize> = (0..8).map(end_of).collect();
    for zeros in [0, 100] {
        for cut in 0..whole.len() {
            let home = home.crashed();
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            fs::write(&home.files(".seg")[0], &bytes).unwrap();
            let mut spool = home.open();
            let read = spool.read_numbers(0);
            let whole_lines = ends.iter().take_while(|&&end| end <= cut).count() as u64;
            assert_eq!(read, range(0..whole_lines), "cut {cut}");
            if cut > HEADER_LEN as usize {
                assert!(spool.report.damaged.is_empty(), "cut {cut}");
                let good = whole_lines.checked_sub(1).map_or(HEADER_LEN as usize, end_of);
                assert_eq!(spool.report.torn_bytes as usize, bytes.len() - good, "cut {cut}");
                assert_eq!(home.segment_bytes() as usize, good, "cut {cut}");
            }
            spool.append(100..103);
            assert_eq!(spool.read_numbers(0), range(100..103), "cut {cut}");
            drop(spool);
            let mut spool = home.open();
            assert_eq!(spool.report.torn_bytes, 0, "cut {cut}: repaired once and for all");
            assert_eq!(spool.read_numbers(0), [read, range(100..103)].concat(), "cut {cut}");
        }
    }
}

#[test]
fn lines_that_a_power_cut_takes_back_do_not_make_the_cursor_skip_new_ones() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    spool.retire_all(0);
    drop(spool);
    let segment = home.files(".seg").remove(0);
    let half = fs::metadata(&segment).unwrap().len() / 2;
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(half).unwrap();
    // Twice: a cursor that is ahead of the lines must not become valid later, when new lines have reached its number.
    let mut spool = home.open();
    assert_eq!(spool.readers[0].unretired(), 0);
    spool.append(100..120);
    let crashed = home.crashed();
    let mut again = crashed.open();
    assert_eq!(again.read_numbers(0), range(100..120));
    assert_eq!(spool.read_numbers(0), range(100..120));
}

#[test]
fn a_second_relay_is_refused_until_the_first_is_gone() {
    let home = Home::new();
    let spool = home.open();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(home.dir.path().to_str().unwrap()), "{error}");
    drop(spool);
    home.open();
}

#[test]
fn the_id_and_the_numbers_last() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.retire_all(0);
    let id = spool.report.id;
    drop(spool);
    for restart in 1..5 {
        let mut spool = home.open();
        assert_eq!((spool.report.id, spool.writer.end.line), (id, restart * 5));
        assert_eq!(home.files(".seg").len(), 1, "a restart leaves files behind");
        spool.append(0..5);
        spool.retire_all(0);
    }
    assert_ne!(Home::new().open().report.id, id);
}

#[test]
fn a_new_forward_starts_at_the_oldest_line() {
    let mut home = Home::new();
    home.open().append(0..10);
    home.options.forwards.push("b".into());
    let mut spool = home.open();
    assert_eq!((spool.readers[1].unretired(), spool.read_numbers(1)), (10, range(0..10)));
}

#[test]
fn the_slowest_forward_holds_the_segments_and_a_removed_one_does_not() {
    let mut home = Home::with(|options| options.forwards = vec!["a".into(), "b".into()]);
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    let segments = home.files(".seg").len();
    assert_eq!(spool.read_numbers(0), range(0..100));
    spool.retire_all(0);
    assert_eq!(home.files(".seg").len(), segments);
    assert_eq!(spool.read_numbers(1), range(0..100));
    let chunk_end = Position { line: 1, ..spool.writer.end };
    spool.readers[1].retire(chunk_end);
    drop(spool);

    home.options.forwards.pop();
    let spool = home.open();
    assert_eq!(spool.report.stale_cursors, ["cursor.b"]);
    assert_eq!(home.files(".seg").len(), 1);
}

/// Directories exist under the names of files kept aside.
#[test]
fn a_segment_that_cannot_be_kept_aside_keeps_no_spool_from_opening() {
    let home = Home::new();
    home.open().append(0..5);
    let path = home.dir.path().join("00000000000000000099.seg");
    fs::write(&path, [7; 200]).unwrap();
    for number in 90..95 {
        fs::create_dir(home.dir.path().join(format!("000000000000000000{number}.seg.damaged"))).unwrap();
    }
    let mut spool = home.open();
    assert_eq!(spool.report.damaged, [path.with_extension("seg.damaged")]);
    assert_eq!(spool.read_numbers(0), range(0..5));
    spool.append(5..10);
    assert_eq!(spool.read_numbers(0), range(5..10));
}
