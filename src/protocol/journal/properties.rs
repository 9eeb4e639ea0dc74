//! Properties that must hold for all bytes that may be a journal. As functions, they make a unit test, a property test and a fuzz target
//! one line each.

use std::collections::{BTreeMap, BTreeSet};

use core::net::{IpAddr, Ipv4Addr};

use super::{Cursor, Cursors, Entry, ExportReader, MAX_FIELDS, MAX_NAME, MAX_VALUE, Refused, Taken, Upload};
use crate::record::properties::any_record;
use crate::record::{LineOptions, UnixMicros};

/// The contents of an entry, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub fields: Vec<(String, Vec<u8>)>,
    pub left_out: u32,
    pub cut: bool,
}

/// The maximum memory of a reader beside the message, in bytes: fields and names, the table of fields, and the spare capacity of each
/// `Vec`.
const MOST: usize = 64 * 1024 + 2 * MAX_FIELDS * 24 + 1024;

/// The entries of a body that is fed in pieces of the given lengths, and how the body ends. The last piece is the rest.
pub fn entries(
    body: &[u8],
    max_message: usize,
    pieces: impl IntoIterator<Item = usize>,
) -> (Vec<Found>, Result<(), Refused>) {
    let mut reader = ExportReader::new(max_message);
    let mut all = Vec::new();
    let mut rest = body;
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        rest = later;
        let fed = reader.feed(now, &mut |entry| all.push(Found::of(entry)));
        assert!(reader.memory() <= max_message + MOST, "{} bytes are held", reader.memory());
        if fed.is_err() {
            return (all, fed);
        }
    }
    (all, reader.finish())
}

/// Panics unless the record of an entry comes back from its line.
pub fn any_entry(entry: Entry<'_>) {
    let record = entry.record(UnixMicros(1_795_898_357_000_000));
    assert!(record.timestamp.is_some() && record.severity <= 7 && record.facility <= 23);
    any_record(&record, &LineOptions { sd_id: "docker@32473".to_owned(), peer: true });
    assert!(entry.part().is_none_or(|part| part.id.is_some() || !part.is_last));
    entry.get("__CURSOR").map(Cursor::read);
}

/// Panics unless the entries are the same wherever the body is cut, and the same as those of a stateless reader.
pub fn any_cut(body: &[u8], max_message: usize, pieces: &[usize]) {
    let whole = entries(body, max_message, []);
    assert_eq!(entries(body, max_message, pieces.iter().copied()), whole, "cut after {pieces:?} of {}", body.len());
    assert_eq!(whole, by_the_book(body, max_message));
}

/// Panics unless the record of each entry comes back from its line.
pub fn any_body(body: &[u8], max_message: usize) {
    // Entries in front of a refused one count too.
    let _ = ExportReader::new(max_message).feed(body, &mut any_entry);
}

/// Any bytes as a body, and as the actions of senders. The bytes in front of the body choose limit and cuts.
pub fn any_bytes(data: &[u8]) {
    let [max_message, cuts, rest @ ..] = data else { return };
    if *max_message == u8::MAX {
        return any_senders(rest);
    }
    let (cuts, body) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
    let cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    any_cut(body, usize::from(*max_message), &cuts);
    any_body(body, usize::from(*max_message));
}

/// The entries of a body that is present as a whole.
fn by_the_book(mut body: &[u8], max_message: usize) -> (Vec<Found>, Result<(), Refused>) {
    let mut all = Vec::new();
    while !body.is_empty() {
        match entry_by_the_book(body, max_message) {
            Ok((found, rest)) => {
                let says_nothing = |(name, _): &(String, Vec<u8>)| name.starts_with("__") || name == "_BOOT_ID";
                if found.left_out > 0 || !found.fields.iter().all(says_nothing) {
                    all.push(found);
                }
                body = rest;
            }
            Err(why) => return (all, Err(why)),
        }
    }
    (all, Ok(()))
}

fn entry_by_the_book(mut body: &[u8], max_message: usize) -> Result<(Found, &[u8]), Refused> {
    let mut found = Found::default();
    let (mut others, mut count) = (0, 0);
    loop {
        let end = body.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap_or(body.len());
        if end > MAX_NAME {
            return Err(Refused::BadName);
        }
        let (name, rest) = body.split_at(end);
        let (separator, rest) = rest.split_first().ok_or(Refused::Unfinished)?;
        let name = std::str::from_utf8(name).unwrap_or("no name");
        let is_binary = *separator == b'\n';
        if name.is_empty() && is_binary {
            return Ok((found, rest));
        }
        let first = name.chars().next().unwrap_or('0');
        let is_name = !first.is_ascii_digit() && name.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '_'));
        if is_binary && !is_name {
            return Err(Refused::BadName);
        }
        count += 1;
        if count > MAX_FIELDS {
            return Err(Refused::TooManyFields);
        }
        let (value, rest) = if is_binary { binary(rest)? } else { text(rest)? };
        body = rest;
        let is_message = name == "MESSAGE" && !found.fields.iter().any(|(name, _)| name == "MESSAGE");
        if !is_name {
            continue;
        }
        let len = name.len() + value.len();
        if is_message {
            found.cut |= value.len() > max_message;
            found.fields.push((name.to_owned(), value[..value.len().min(max_message)].to_vec()));
        } else if value.len() <= 16 * 1024 && others + len <= 64 * 1024 {
            others += len;
            found.fields.push((name.to_owned(), value.to_vec()));
        } else {
            found.left_out += 1;
        }
    }
}

fn text(body: &[u8]) -> Result<(&[u8], &[u8]), Refused> {
    let end = body.iter().position(|byte| *byte == b'\n').ok_or(Refused::Unfinished)?;
    Ok((&body[..end], &body[end + 1..]))
}

fn binary(body: &[u8]) -> Result<(&[u8], &[u8]), Refused> {
    let (len, rest) = body.split_first_chunk().ok_or(Refused::Unfinished)?;
    let len = u64::from_le_bytes(*len);
    if len > MAX_VALUE {
        return Err(Refused::LongValue);
    }
    let (value, rest) = rest.split_at_checked(len as usize).ok_or(Refused::Unfinished)?;
    match rest {
        [] => Err(Refused::Unfinished),
        [b'\n', rest @ ..] => Ok((value, rest)),
        _ => Err(Refused::BadLength),
    }
}

impl Found {
    pub fn of(entry: Entry<'_>) -> Self {
        let fields = entry.fields().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        Self { fields, left_out: entry.left_out(), cut: entry.is_cut() }
    }
}

/// A sender in the model.
struct Model {
    upload: Upload,
    /// Entries on their way to the spool.
    batch: Vec<String>,
    /// Some of its entries did not reach the spool.
    failed: bool,
    answered: bool,
}

/// Panics if an entry is known that its sender has not sent before or that is not in the spool, or if memory is not bounded. Each two bytes
/// are one action: the sender and the action, and the number of the entry.
pub fn any_senders(data: &[u8]) {
    let mut cursors = Cursors::default();
    let mut spooled = BTreeSet::new();
    let mut models = BTreeMap::new();
    for step in data.chunks_exact(2) {
        let (sender, what, number) = (step[0] >> 6, step[0] & 0x3f, step[1]);
        let begin = || Model::new(cursors.begin(IpAddr::V4(Ipv4Addr::new(192, 0, 2, sender))));
        let model = models.entry(sender).or_insert_with(begin);
        match what {
            0 => {
                models.remove(&sender);
            }
            1..4 => model.commit(sender, &mut cursors, &mut spooled),
            4 => {
                model.failed |= !model.batch.is_empty();
                model.batch.clear();
                model.upload.batch();
            }
            5 | 6 if !model.failed => {
                model.commit(sender, &mut cursors, &mut spooled);
                cursors.answered(&model.upload);
                model.answered = true;
            }
            7 if model.answered => {
                cursors.confirmed(&model.upload);
                models.remove(&sender);
            }
            _ => {
                // Times rise with numbers, except for the numbers that a machine writes again.
                let time = u32::from(number) + u32::from(what & 1) * 1000;
                let text = format!("s={:032x};i={number:x};b={:032x};m=1;t={time:x};x=1", what >> 4, what >> 2 & 1);
                let cursor = Cursor::read(text.as_bytes());
                assert!(cursor.is_some(), "{text}");
                model.answered = false;
                match cursors.take(&mut model.upload, cursor) {
                    true => model.batch.push(text),
                    // A span does not keep the times of single entries.
                    false => assert!(spooled.contains(&(sender, place(&text))), "{text} was never taken"),
                }
            }
        }
        assert!(cursors.memory() < 1 << 20);
    }
}

impl Model {
    fn new(upload: Upload) -> Self {
        Self { upload, batch: Vec::new(), failed: false, answered: false }
    }

    fn commit(&mut self, sender: u8, cursors: &mut Cursors, spooled: &mut BTreeSet<(u8, String)>) {
        spooled.extend(self.batch.drain(..).map(|text| (sender, place(&text))));
        let taken: Taken = self.upload.batch();
        cursors.spooled(&taken);
    }
}

fn place(cursor: &str) -> String {
    cursor.split(';').take(3).collect::<Vec<_>>().join(";")
}
