//! Entries that are recognized when they come again, and entries that are not.

use core::net::IpAddr;

use super::*;

const SENDER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7));

fn cursor(family: u8, number: u64) -> Option<Cursor> {
    written_at(family, number, number.saturating_add(1000))
}

fn written_at(family: u8, number: u64, time: u64) -> Option<Cursor> {
    let text = format!("s={family:032x};i={number:x};b={:032x};m=7;t={time:x};x=9", 1);
    Some(Cursor::read(text.as_bytes()).expect("a cursor"))
}

/// The numbers of the new entries.
fn sends(cursors: &Cursors, upload: &mut Upload, family: u8, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    numbers.into_iter().filter(|number| cursors.take(upload, cursor(family, *number))).collect()
}

/// A request whose entries reach the spool, and which gets no answer.
fn cut(cursors: &mut Cursors, family: u8, numbers: impl IntoIterator<Item = u64>) -> (Upload, Vec<u64>) {
    let mut upload = cursors.begin(SENDER);
    let new = sends(cursors, &mut upload, family, numbers);
    cursors.spooled(&upload.batch());
    (upload, new)
}

#[test]
fn what_is_no_cursor_of_systemd_s_is_none() {
    let good = format!("s={:032x};i=1a;b={:032x};m=1;t=6615c2b9f275d;x=36", 1, 2);
    assert!(Cursor::read(good.as_bytes()).is_some());
    assert!(Cursor::read(format!("{good};p=system.journal").as_bytes()).is_some());
    for part in ["s=", "i=", "b=", "t="] {
        assert_eq!(Cursor::read(good.replace(part, "y=").as_bytes()), None, "{part}");
        assert_eq!(Cursor::read(good.replace(part, &format!("{part}x")).as_bytes()), None, "{part}");
    }
    assert_eq!(Cursor::read(b""), None);
    assert_eq!(Cursor::read(b"\xff"), None);
    let (cursors, mut upload) = (Cursors::default(), Cursors::default().begin(SENDER));
    assert!(cursors.take(&mut upload, None) && cursors.take(&mut upload, None));
}

#[test]
fn what_was_cut_is_known_as_far_as_it_is_in_the_spool() {
    let mut cursors = Cursors::default();
    let mut upload = cursors.begin(SENDER);
    assert_eq!(sends(&cursors, &mut upload, 1, 1..=5), [1, 2, 3, 4, 5]);
    let first = upload.batch();
    assert_eq!(sends(&cursors, &mut upload, 1, 6..=9), [6, 7, 8, 9]);
    cursors.spooled(&first);
    drop(upload);
    assert_eq!(cut(&mut cursors, 1, 1..=12).1, [6, 7, 8, 9, 10, 11, 12]);
    // Once more, while the request before is still open at our end.
    assert_eq!(cut(&mut cursors, 1, 1..=14).1, [13, 14]);
    // Another machine, and another address.
    assert_eq!(cut(&mut cursors, 2, 1..=2).1, [1, 2]);
    let mut other = cursors.begin("192.0.2.8".parse().expect("an address"));
    assert_eq!(sends(&cursors, &mut other, 1, 1..=2), [1, 2]);
}

#[test]
fn an_answer_that_did_not_arrive_makes_all_of_it_known() {
    let mut cursors = Cursors::default();
    let (upload, _) = cut(&mut cursors, 1, 1..=5);
    cursors.answered(&upload);
    let (upload, new) = cut(&mut cursors, 1, 1..=7);
    assert_eq!(new, [6, 7]);
    cursors.answered(&upload);
    // The third request begins behind the second, so the second was answered: its entries are forgotten once the third is answered.
    let (upload, new) = cut(&mut cursors, 1, 8..=9);
    assert_eq!(new, [8, 9]);
    cursors.answered(&upload);
    assert_eq!(cut(&mut cursors, 1, 5..=9).1, [5, 6, 7]);
}

#[test]
fn who_has_heard_the_answer_begins_with_its_last_entry_and_may_send_the_others_on_purpose() {
    let mut cursors = Cursors::default();
    let (upload, _) = cut(&mut cursors, 1, 1..=5);
    cursors.answered(&upload);
    cursors.confirmed(&upload);
    assert_eq!(cut(&mut cursors, 1, 5..=7).1, [6, 7]);
    let (upload, new) = cut(&mut cursors, 1, 1..=7);
    assert_eq!(new, [1, 2, 3, 4]);
    cursors.answered(&upload);
    cursors.confirmed(&upload);
    // A request without entries does not affect others.
    let (upload, _) = cut(&mut cursors, 1, []);
    cursors.answered(&upload);
    cursors.confirmed(&upload);
    assert_eq!(cut(&mut cursors, 1, 6..=7).1, [6]);
}

#[test]
fn a_machine_behind_the_same_address_is_not_concerned() {
    let mut cursors = Cursors::default();
    cut(&mut cursors, 1, 1..=5);
    let (upload, _) = cut(&mut cursors, 2, 1..=5);
    cursors.answered(&upload);
    cursors.confirmed(&upload);
    assert_eq!(cut(&mut cursors, 1, 1..=6).1, [6]);
}

#[test]
fn a_lower_number_that_was_not_sent_is_new() {
    let mut cursors = Cursors::default();
    assert_eq!(cut(&mut cursors, 1, [1, 2, 9, 4, 10, 3]).1, [1, 2, 9, 4, 10, 3]);
    assert_eq!(cut(&mut cursors, 1, 1..=12).1, [5, 6, 7, 8, 11, 12]);
    // A machine that was reset to a snapshot of itself writes the same numbers again.
    let mut upload = cursors.begin(SENDER);
    let again = (10..=13).filter(|number| cursors.take(&mut upload, written_at(1, *number, 5000 + number)));
    assert_eq!(again.count(), 4);
    // The highest number has no successor.
    let ends = [u64::MAX - 1, u64::MAX, 0];
    assert_eq!(cut(&mut cursors, 3, ends).1, ends);
    assert!(cut(&mut cursors, 3, ends).1.is_empty());
}

#[test]
fn a_long_backlog_costs_next_to_nothing_and_the_rest_is_bounded() {
    let mut cursors = Cursors::default();
    let (upload, _) = cut(&mut cursors, 1, 1..=100_000);
    assert!(cursors.memory() < 2000 && upload.memory() < 1000, "{} and {}", cursors.memory(), upload.memory());
    assert!(cut(&mut cursors, 1, 1..=100_000).1.is_empty());
    // Every second number, from more addresses than there is room for.
    for sender in 0..40_u8 {
        let mut upload = cursors.begin(IpAddr::from([192, 0, 2, sender]));
        sends(&cursors, &mut upload, 1, (1..=4000).map(|number| 2 * number));
        cursors.spooled(&upload.batch());
        assert!(
            cursors.memory() < 7 << 20 && upload.memory() < 1 << 19,
            "{} and {}",
            cursors.memory(),
            upload.memory()
        );
    }
    // The oldest senders are evicted first. Of the last sender, the highest numbers are known.
    let mut last = cursors.begin(IpAddr::from([192, 0, 2, 39]));
    let new = sends(&cursors, &mut last, 1, (1..=4000).map(|number| 2 * number));
    assert!(new.into_iter().eq((1..=4000 - 1024).map(|number| 2 * number)));
    assert_eq!(cut(&mut cursors, 1, 1..=3).1, [1, 2, 3]);
}
