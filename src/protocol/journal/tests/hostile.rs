//! Bodies of hostile senders: each is refused by its name, at once and at no cost, or left out.

use super::super::properties::{Found, any_cut, entries};
use super::*;
use crate::record::MAX_FIELD_BYTES;

/// The number of entries in front of the error, and the error, are the same at every cut.
#[track_caller]
fn refused(body: &[u8], before: usize, why: Refused) {
    let (found, end) = entries(body, MAX_MESSAGE, []);
    assert_eq!((found.len(), end), (before, Err(why)), "{}", body[..body.len().min(200)].escape_ascii());
    (0..body.len().min(100)).for_each(|cut| any_cut(body, MAX_MESSAGE, &[cut, 1]));
    assert!(!why.name().is_empty());
}

fn binary(name: &str, declared: u64, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"\n", &declared.to_le_bytes(), value].concat()
}

#[test]
fn what_is_no_journal_is_refused_by_name() {
    refused(b"hello\n", 0, Refused::BadName);
    refused(b"MESSAGE=a\n\n{\"a\":\n", 1, Refused::BadName);
    refused(b"lower\n\x01\0\0\0\0\0\0\0a\n\n", 0, Refused::BadName);
    refused(b"9A\n\0\0\0\0\0\0\0\0\n\n", 0, Refused::BadName);
    refused(&[b'A'; MAX_NAME + 1], 0, Refused::BadName);
    refused(&[&[b'A'; MAX_NAME + 1][..], b"=a\n\n"].concat(), 0, Refused::BadName);
    refused(&binary("MESSAGE", 1, b"ab\n\n"), 0, Refused::BadLength);
    refused(&binary("MESSAGE", 0, b"a\n\n"), 0, Refused::BadLength);
    refused(&binary("MESSAGE", MAX_VALUE + 1, b""), 0, Refused::LongValue);
    refused(&binary("MESSAGE", u64::MAX, b"a"), 0, Refused::LongValue);
    refused(&[&b"A=\n".repeat(MAX_FIELDS)[..], b"A="].concat(), 0, Refused::TooManyFields);
    for body in [&b"A"[..], b"A=", b"A=\n", b"A\n", b"A\n\x01\0\0", b"A\n\x01\0\0\0\0\0\0\0", b"A\n\x01\0\0\0\0\0\0\0a"]
    {
        refused(body, 0, Refused::Unfinished);
        refused(&[b"MESSAGE=a\n\n\n", body].concat(), 1, Refused::Unfinished);
    }
    assert_eq!(entries(&[&[b'A'; MAX_NAME][..], b"=a\n\n"].concat(), 0, []).0.len(), 1);
}

#[test]
fn what_says_nothing_is_no_entry() {
    for body in [
        &b""[..],
        b"\n",
        b"\n\n\n",
        b"__CURSOR=x\n__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=x\n\n",
        b"a=b\nc=d\n\n",
        b"=\n\n",
    ] {
        any_cut(body, MAX_MESSAGE, &[body.len() / 2]);
        assert_eq!(entries(body, MAX_MESSAGE, []), (vec![], Ok(())), "{}", body.escape_ascii());
    }
}

#[test]
fn what_is_declared_costs_no_memory() {
    let mut reader = ExportReader::new(MAX_MESSAGE);
    for name in ["MESSAGE", "OTHER"] {
        assert_eq!(reader.feed(&binary(name, 3, b"abc\n"), &mut |_| panic!("an entry")), Ok(()));
    }
    assert_eq!(reader.feed(&binary("LAST", MAX_VALUE, b"abc"), &mut |_| panic!("an entry")), Ok(()));
    assert!(reader.memory() < 1000, "{} bytes", reader.memory());
    assert!(reader.is_inside());
}

#[test]
fn an_entry_of_which_all_is_too_large_is_one() {
    let body = [b"LARGE=", &vec![b'x'; MAX_FIELD_BYTES + 1][..], b"\n\n"].concat();
    assert_eq!(entries(&body, MAX_MESSAGE, []), (vec![Found { left_out: 1, ..Found::default() }], Ok(())));
}

/// A value that is too large is skipped, and the reader goes on behind it.
#[test]
fn what_is_too_large_is_cut_or_left_out_and_nothing_stands_in_the_way() {
    let large = vec![b'x'; 1 << 20];
    for text in [true, false] {
        let field = |name: &str, value: &[u8]| match text {
            true => [name.as_bytes(), b"=", value, b"\n"].concat(),
            false => [&binary(name, value.len() as u64, value)[..], b"\n"].concat(),
        };
        let parts = [
            field("MESSAGE", &large),
            field("LARGE", &large),
            field("FITS", &large[..MAX_FIELD_BYTES]),
            field("DOES_NOT", &large[..MAX_FIELD_BYTES + 1]),
            b"\n".to_vec(),
            field("MESSAGE", b"next"),
            b"\n".to_vec(),
        ];
        let body = parts.concat();
        any_cut(&body, 1000, &[500, 700, 1 << 20, 3]);
        let (found, end) = entries(&body, 1000, []);
        let named = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let first = Found {
            fields: vec![named("MESSAGE", &large[..1000]), named("FITS", &large[..MAX_FIELD_BYTES])],
            left_out: 2,
            cut: true,
        };
        let second = Found { fields: vec![named("MESSAGE", b"next")], ..Found::default() };
        assert_eq!((found, end), (vec![first, second], Ok(())));
    }
}

#[test]
fn many_fields_are_held_within_a_bound_and_a_record_has_its_own() {
    let value = "x".repeat(1000);
    let body: String = (0..MAX_FIELDS).map(|n| format!("F{n}={value}\n")).collect::<String>() + "\n";
    let mut seen = 0;
    let mut reader = ExportReader::new(MAX_MESSAGE);
    let fed = reader.feed(body.as_bytes(), &mut |entry| {
        seen += 1;
        let record = entry.record(RECEIVED);
        let (held, carried) = (entry.fields().count(), record.fields.iter().count());
        assert!((60..70).contains(&held) && (15..17).contains(&carried), "{held} held, {carried} carried");
        assert_eq!(carried + record.fields.left_out() as usize, MAX_FIELDS);
    });
    assert_eq!((fed, seen), (Ok(()), 1));
    any_cut(body.as_bytes(), MAX_MESSAGE, &[100_000]);
}

/// Idle requests hold almost no memory.
#[test]
fn what_an_entry_took_is_given_back() {
    let mut reader = ExportReader::new(1 << 20);
    let body = [&b"MESSAGE="[..], &vec![b'x'; 1 << 20], b"\n\n"].concat();
    let mut seen = 0;
    assert_eq!(reader.feed(&body, &mut |entry| seen += entry.get("MESSAGE").map_or(0, <[u8]>::len)), Ok(()));
    assert_eq!((seen, reader.is_inside()), (1 << 20, false));
    assert!(reader.memory() <= 70_000, "{} bytes", reader.memory());
}
