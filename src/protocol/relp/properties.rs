//! The decoder's property as a function. It makes a unit test, a property test and a fuzz target one line each.

use super::{BadFrame, COMMAND_LETTERS, COMMANDS, Command, DIGITS, Decoder, LONGEST_HEADER, Numbered, Offers, is_ok};

/// Transaction number, command, data, and whether the data was cut.
pub type Frame = (u32, Command, Vec<u8>, bool);

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// Inside a frame.
    Open,
    /// The bytes are not RELP.
    Bad,
}

/// The frames of a stream that is fed in pieces of the given lengths. The last piece is the rest.
pub fn frames(stream: &[u8], limit: usize, pieces: impl IntoIterator<Item = usize>) -> (Vec<Frame>, End) {
    let mut decoder = Decoder::new(limit);
    let mut found = Vec::new();
    let mut rest = stream;
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        let fed = decoder.feed(now, |frame| {
            found.push((frame.txnr, frame.command, frame.data.to_vec(), frame.cut));
            Ok::<_, BadFrame>(())
        });
        if fed.is_err() {
            return (found, End::Bad);
        }
        rest = later;
        assert!(decoder.held.len() <= limit.max(LONGEST_HEADER), "more is held than a header, or the limit");
    }
    (found, if decoder.unfinished() { End::Open } else { End::Whole })
}

/// The frames of a stream, found as directly as possible: all bytes are present, so that no state is needed.
fn by_the_book(stream: &[u8], limit: usize) -> (Vec<Frame>, End) {
    let mut found = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        match first(rest, limit) {
            Ok((frame, length)) => {
                found.push(frame);
                rest = &rest[length..];
            }
            Err(end) => return (found, end),
        }
    }
    (found, End::Whole)
}

/// The frame at the start of some bytes, and its length.
fn first(bytes: &[u8], limit: usize) -> Result<(Frame, usize), End> {
    let (txnr, rest) = word(bytes, u8::is_ascii_digit, DIGITS)?;
    let (name, rest) = word(follows(rest, b' ')?, u8::is_ascii_alphabetic, COMMAND_LETTERS)?;
    let (length, rest) = word(follows(rest, b' ')?, u8::is_ascii_digit, DIGITS)?;
    let (txnr, length) = (txnr.parse().expect("nine digits fit"), length.parse::<usize>().expect("nine digits fit"));
    let rest = if length == 0 && rest.first() == Some(&b'\n') { rest } else { follows(rest, b' ')? };
    let data = rest.get(..length).filter(|_| length < rest.len()).ok_or(End::Open)?;
    let behind = follows(&rest[length..], b'\n')?;
    let command = COMMANDS.iter().find(|(known, _)| *known == name).map_or(Command::Unknown, |(_, command)| *command);
    let kept = length.min(limit);
    Ok(((txnr, command, data[..kept].to_vec(), kept < length), bytes.len() - behind.len()))
}

/// One to `most` of such bytes as text, and the rest, which has at least one byte.
fn word(bytes: &[u8], such: impl Fn(&u8) -> bool, most: usize) -> Result<(&str, &[u8]), End> {
    let length = bytes.iter().take_while(|byte| such(byte)).count();
    match length {
        _ if length > most => Err(End::Bad),
        _ if length == bytes.len() => Err(End::Open),
        0 => Err(End::Bad),
        _ => Ok((std::str::from_utf8(&bytes[..length]).expect("ASCII"), &bytes[length..])),
    }
}

fn follows(bytes: &[u8], byte: u8) -> Result<&[u8], End> {
    match bytes.split_first() {
        None => Err(End::Open),
        Some((first, rest)) if *first == byte => Ok(rest),
        Some(_) => Err(End::Bad),
    }
}

/// Panics unless the frames of `stream`, cut into these pieces, are the frames of the whole.
pub fn any_cut(stream: &[u8], limit: usize, pieces: &[usize]) {
    assert_eq!(
        frames(stream, limit, pieces.iter().copied()),
        by_the_book(stream, limit),
        "limit {limit}, pieces {pieces:?}, stream {:?}",
        String::from_utf8_lossy(stream)
    );
}

/// [`any_cut`] with bytes that choose the limit, the number of cuts, the cuts, and the stream. The bytes are also read as the data of a
/// frame: if they are valid, they are the same after a round trip.
pub fn any_bytes(data: &[u8]) {
    if let [limit, cuts, rest @ ..] = data {
        let (cuts, stream) = rest.split_at(usize::from(cuts % 16).min(rest.len()));
        any_cut(stream, usize::from(*limit), &cuts.iter().map(|&cut| usize::from(cut)).collect::<Vec<_>>());
    }
    if let Ok(numbered) = Numbered::read(data) {
        let mut written = Vec::new();
        Numbered::write(numbered.session, numbered.first_line, numbered.lines().flatten(), &mut written);
        let again = Numbered::read(&written).expect("what we have written");
        assert_eq!((again.session, again.first_line), (numbered.session, numbered.first_line));
        assert!(again.lines().eq(numbered.lines()));
    }
    let offers = Offers::read(data);
    let mut written = Vec::new();
    offers.write(&mut written);
    assert_eq!(Offers::read(&written), offers);
    if let Err(says) = is_ok(data) {
        assert!(!says.is_empty() && !says.contains(char::is_control), "{says:?} is for the log");
    }
}
