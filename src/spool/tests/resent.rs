//! Dead letters that are sent again.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::spool::resend::{ResendError, ResendReader, begin};

/// A spool with `count` dead letters of `a`, which are to be sent again.
fn refused(home: &Home, count: u64) -> Open {
    let mut spool = home.open();
    spool.append(0..count);
    for chunk in spool.read(0, 300) {
        for (line, behind) in chunk.lines() {
            now(spool.readers[0].reject((chunk.session, behind.line - 1), "550 no", line)).unwrap();
        }
        spool.readers[0].retire(chunk.end);
    }
    begin(home.dir.path(), "a").unwrap();
    spool
}

fn open(spool: &Open) -> Option<ResendReader> {
    now(spool.readers[0].resends().open(&Counter::default(), &Gauge::default())).unwrap()
}

/// The next letters, as the numbers of their lines, and the position that retires all of them.
fn next(resend: &mut ResendReader) -> (Vec<u64>, Position) {
    assert!(now(resend.wait()));
    let (chunk, ids) = resend.next(1 << 20).unwrap().expect("letters");
    let lines: Vec<_> = chunk.lines().map(|(line, _)| number(line)).collect();
    assert!(ids.iter().map(|(_, number)| *number).eq(lines.iter().copied()), "{ids:?}");
    (lines, chunk.end)
}

fn files(home: &Home) -> usize {
    fs::read_dir(home.dir.path().join("dead-letter")).unwrap().count()
}

#[test]
fn what_is_passed_is_passed_for_good_and_the_rest_comes_again() {
    let home = Home::new();
    let spool = refused(&home, 5);
    let mut resend = open(&spool).expect("letters");
    let (lines, end) = next(&mut resend);
    assert_eq!((lines, resend.remaining()), (vec![0, 1, 2, 3, 4], 5));
    assert_eq!(resend.retire(Position { line: 2, ..end }), 2);
    assert!(!now(resend.wait()), "nothing more will come");
    // The connection breaks.
    resend.rewind();
    assert_eq!(next(&mut resend).0, [2, 3, 4]);
    // The relay is killed, and the next one opens the file.
    drop(resend);
    let mut resend = open(&spool).expect("letters");
    let (lines, end) = next(&mut resend);
    assert_eq!((lines, resend.remaining()), (vec![2, 3, 4], 3));
    // The line is a dead letter again, although it was one before.
    now(resend.reject(1, "551 no")).unwrap();
    let text = fs::read(dead_letters::path(home.dir.path(), "a")).unwrap();
    let letter = DeadLetter::read(&text).unwrap();
    assert_eq!((letter.number, &*letter.why), (3, "551 no"));
    assert!(!now(resend.finish()).unwrap(), "it is not done with");
    resend.retire(end);
    assert!(!now(resend.wait()));
    assert!(now(resend.finish()).unwrap());
    assert_eq!(files(&home), 1, "what was refused again");
    assert!(open(&spool).is_none());
}

/// A letter may be on its way to the file when the file is renamed.
#[test]
fn a_file_that_has_grown_is_not_removed() {
    let home = Home::new();
    let spool = refused(&home, 2);
    let path = home.dir.path().join("dead-letter/a.resend");
    let text = fs::read(&path).unwrap();
    let mut resend = open(&spool).expect("letters");
    let (_, end) = next(&mut resend);
    resend.retire(end);
    assert!(!now(resend.wait()));
    let half = text.len() / 4;
    fs::write(&path, [&text, &text[..half]].concat()).unwrap();
    assert!(!now(resend.finish()).unwrap());
    // A torn line is no letter.
    let mut resend = open(&spool).expect("a file");
    assert!(!now(resend.wait()));
    fs::write(&path, [&text[..], &text].concat()).unwrap();
    assert!(!now(resend.finish()).unwrap());
    let mut resend = open(&spool).expect("a file");
    let (lines, end) = next(&mut resend);
    assert_eq!(lines, [0, 1]);
    resend.retire(end);
    assert!(!now(resend.wait()));
    assert!(now(resend.finish()).unwrap());
    assert_eq!(files(&home), 0);
}

#[test]
fn a_cursor_that_says_nothing_costs_duplicates_alone() {
    let home = Home::new();
    let spool = refused(&home, 3);
    for cursor in ["", "x\n", "99999999999999999999\n", "99999\n"] {
        fs::write(home.dir.path().join("dead-letter/a.resend-cursor"), cursor).unwrap();
        assert_eq!(next(&mut open(&spool).expect("letters")).0, [0, 1, 2], "{cursor:?}");
    }
}

#[test]
fn a_resend_begins_with_letters_and_not_beside_another() {
    let home = Home::new();
    let spool = refused(&home, 1);
    let begins = || begin(home.dir.path(), "a");
    assert!(matches!(begins(), Err(ResendError::UnderWay(_))));
    fs::remove_file(home.dir.path().join("dead-letter/a.resend")).unwrap();
    assert!(matches!(begins(), Err(ResendError::Nothing(_))));
    // The cursor of an earlier file does not count.
    fs::write(home.dir.path().join("dead-letter/a.resend-cursor"), "10\n").unwrap();
    fs::write(dead_letters::path(home.dir.path(), "a"), "no letter\n").unwrap();
    begins().unwrap();
    let mut resend = open(&spool).expect("a file");
    assert!(!now(resend.wait()), "what is no letter is left out");
    assert!(now(resend.finish()).unwrap());
    assert_eq!(files(&home), 0);
}
