//! RELP, syslog with acknowledgements: the frames of both directions, as bytes. Pure: no socket, no clock, no async.
//!
//! ```text
//! frame    = TXNR SP COMMAND SP DATALEN [SP DATA] LF      DATA and the blank before it only where DATALEN > 0
//! open     → rsp "200 OK" and the receiver's offers       features of both sides
//! syslog   → rsp "200 OK" | "500 …"                       one message
//! numbered → rsp "200 OK"                                 lines from another logferry, see [`Numbered`]
//! close    → rsp, then the hint `0 serverclose 0`
//! ```
//!
//! Source: librelp, doc/relp.md. Both sides list their features as offers in `open`. Unknown offers are ignored, so that only two
//! logferries use `numbered`.

mod proof;
pub mod properties;
mod session;
#[cfg(test)]
mod tests;

use crate::hex;
use crate::protocol::held::hold;
pub use proof::{Key, Nonce, NumberedStreams, Numbering, Proofs, Prover, Signature, statement};
pub use session::RelpSession;

/// The transaction numbers of a session run from 1 to this, and then from 1 again. 0 is for hints, which have no answer.
const LAST_TXNR: u32 = 999_999_999;
/// The maximum number of digits in a transaction number or a length.
const DIGITS: usize = 9;
/// The maximum number of letters in a command, as in librelp.
const COMMAND_LETTERS: usize = 32;
/// The longest frame without its data: `TXNR SP COMMAND SP DATALEN SP`.
const LONGEST_HEADER: usize = DIGITS + 1 + COMMAND_LETTERS + 1 + DIGITS + 1;
/// The maximum bytes of a stream's name: spool ID, slash, forward.
const LONGEST_STREAM: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Open,
    Close,
    Syslog,
    Numbered,
    Rsp,
    Serverclose,
    /// Any other command. The answer to it is an error.
    Unknown,
}

const COMMANDS: [(&str, Command); 6] = [
    ("syslog", Command::Syslog),
    ("rsp", Command::Rsp),
    ("numbered", Command::Numbered),
    ("open", Command::Open),
    ("close", Command::Close),
    ("serverclose", Command::Serverclose),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub txnr: u32,
    pub command: Command,
    pub data: &'a [u8],
    /// The data is longer than the limit, and only its start is here.
    pub cut: bool,
    /// The data's length, from the header.
    pub length: usize,
}

/// The bytes are not RELP. There is no way to find the next frame: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no RELP: {0}")]
pub struct BadFrame(&'static str);

impl BadFrame {
    /// The error of a well-formed frame with invalid content.
    pub fn new(what: &'static str) -> Self {
        Self(what)
    }
}

impl From<BadFrame> for String {
    fn from(bad: BadFrame) -> Self {
        bad.to_string()
    }
}

/// Finds the frames of one direction of a connection. The result does not depend on where the bytes are cut.
#[derive(Debug)]
pub struct Decoder {
    /// The maximum bytes of a frame's data that are kept.
    limit: usize,
    state: State,
    /// The start of the header or of the data in which the last feed ended. Never longer than the limit or a header.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// In the data of a frame; `left` bytes are missing.
    Data {
        header: Header,
        left: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Header {
    txnr: u32,
    command: Command,
    /// Bytes before the data; before the LF, if there is no data.
    bytes: usize,
    /// Bytes of data.
    length: usize,
}

impl Decoder {
    pub fn new(limit: usize) -> Self {
        Self { limit, state: State::Header, held: Vec::new() }
    }

    /// Raises the limit, from the next frame on. A smaller limit changes nothing.
    pub fn raise_limit(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// Takes the next bytes, and passes on each frame that ends in them. After an error, ours or of `on_frame`, the connection has to end:
    /// there is no way to find the next frame.
    pub fn feed<E: From<BadFrame>>(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            bytes = self.step(bytes, &mut on_frame)?;
        }
        Ok(())
    }

    /// Takes some of the next bytes, at most to the end of one frame, and returns the rest. So the caller may use the decoder between any
    /// two frames, wherever the bytes are cut.
    fn step<'a, E: From<BadFrame>>(
        &mut self,
        bytes: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        match self.state {
            State::Header => self.header(bytes, on_frame),
            State::Data { header, left } => self.data(header, left, bytes, on_frame),
        }
    }

    fn header<'a, E: From<BadFrame>>(
        &mut self,
        bytes: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        let held = self.held.len();
        let parsed = if held == 0 {
            parse_header(bytes)?
        } else {
            let wanted = LONGEST_HEADER + 1 - held;
            self.held.extend_from_slice(&bytes[..wanted.min(bytes.len())]);
            parse_header(&self.held)?
        };
        let Some(header) = parsed else {
            if held == 0 {
                self.held.extend_from_slice(bytes);
            }
            return Ok(&[]);
        };
        self.held = Vec::new();
        let rest = &bytes[header.bytes - held..];
        // The complete frame is here, as nearly always: nothing is copied.
        if header.length <= self.limit && rest.len() > header.length {
            emit(header, &rest[..header.length], rest[header.length], on_frame)?;
            return Ok(&rest[header.length + 1..]);
        }
        self.state = State::Data { header, left: header.length };
        Ok(rest)
    }

    fn data<'a, E: From<BadFrame>>(
        &mut self,
        header: Header,
        left: usize,
        bytes: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        if left == 0 {
            let data = std::mem::take(&mut self.held);
            self.state = State::Header;
            emit(header, &data, bytes[0], on_frame)?;
            return Ok(&bytes[1..]);
        }
        let come = left.min(bytes.len());
        let kept = come.min(self.limit.saturating_sub(self.held.len()));
        hold(&mut self.held, &bytes[..kept], self.limit.min(header.length));
        self.state = State::Data { header, left: left - come };
        Ok(&bytes[come..])
    }

    /// Bytes of memory that an unfinished frame takes.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Whether a frame has begun that has not ended.
    pub fn unfinished(&self) -> bool {
        !self.held.is_empty() || matches!(self.state, State::Data { .. })
    }
}

fn emit<E: From<BadFrame>>(
    header: Header,
    data: &[u8],
    end: u8,
    on_frame: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if end != b'\n' {
        return Err(BadFrame("no LF where the data ends").into());
    }
    let Header { txnr, command, length, .. } = header;
    on_frame(Frame { txnr, command, data, cut: data.len() < length, length })
}

/// `None`: more bytes are needed.
fn parse_header(bytes: &[u8]) -> Result<Option<Header>, BadFrame> {
    let Some((txnr, after)) = number(bytes, "a transaction number")? else { return Ok(None) };
    if bytes[after] != b' ' {
        return Err(BadFrame("no blank behind the transaction number"));
    }
    let start = after + 1;
    let name = &bytes[start..];
    let letters = name.iter().position(|byte| !byte.is_ascii_alphabetic());
    let letters = match letters {
        Some(letters @ 1..=COMMAND_LETTERS) if name[letters] == b' ' => letters,
        None if name.len() <= COMMAND_LETTERS => return Ok(None),
        _ => return Err(BadFrame("no command")),
    };
    let command = COMMANDS.iter().find(|(word, _)| word.as_bytes() == &name[..letters]);
    let command = command.map_or(Command::Unknown, |(_, command)| *command);
    let start = start + letters + 1;
    let Some((length, after)) = number(&bytes[start..], "a length")? else { return Ok(None) };
    let end = start + after;
    let bytes = match bytes[end] {
        b' ' => end + 1,
        b'\n' if length == 0 => end,
        _ => return Err(BadFrame("no blank behind the length")),
    };
    Ok(Some(Header { txnr, command, bytes, length: length as usize }))
}

/// A number and the count of its digits. At least one byte follows them. `None`: more bytes are needed.
fn number(bytes: &[u8], what: &'static str) -> Result<Option<(u32, usize)>, BadFrame> {
    let digits = bytes.iter().take(DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    match digits {
        0 if !bytes.is_empty() => Err(BadFrame(what)),
        _ if digits > DIGITS => Err(BadFrame(what)),
        _ if digits == bytes.len() => Ok(None),
        // Up to nine digits fit.
        _ => Ok(Some((bytes[..digits].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')), digits))),
    }
}

/// Numbers a session's transactions.
#[derive(Debug, Default)]
pub struct Transactions(u32);

impl Transactions {
    pub fn next_number(&mut self) -> u32 {
        self.0 = self.0 % LAST_TXNR + 1;
        self.0
    }
}

/// Appends a frame.
pub fn append(txnr: u32, command: &str, data: &[u8], out: &mut Vec<u8>) {
    append_header(txnr, command, data.len(), out);
    out.extend_from_slice(data);
    out.push(b'\n');
}

/// Appends the answer to a frame that was accepted.
pub fn append_ok(txnr: u32, out: &mut Vec<u8>) {
    append(txnr, "rsp", b"200 OK", out);
}

fn append_header(txnr: u32, command: &str, length: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(txnr).as_bytes());
    out.push(b' ');
    out.extend_from_slice(command.as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(length).as_bytes());
    if length > 0 {
        out.push(b' ');
    }
}

/// Whether an answer accepts the frame. The error is the answer's text.
pub fn is_ok(answer: &[u8]) -> Result<(), String> {
    if answer.starts_with(b"200") {
        return Ok(());
    }
    Err(said(answer).unwrap_or_else(|| "an empty answer".to_owned()))
}

/// The first line of a peer's text, without control characters; `None`: it is empty.
pub fn said(data: &[u8]) -> Option<String> {
    let first = data.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let shown: String = String::from_utf8_lossy(first).chars().filter(|c| !c.is_control()).take(100).collect();
    (!shown.is_empty()).then_some(shown)
}

/// The offers that the sides of a session exchange first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The name under which the sender's lines are numbered: its spool and its forward. A sender offers it only if it can number its lines.
    /// A receiver returns it only if it keeps such numbers.
    pub stream: Option<String>,
    /// The sender's key, if the sender can prove that it numbers these lines.
    pub key: Option<Key>,
    /// The receiver's nonce, for a sender that offers a key.
    pub nonce: Option<Nonce>,
    /// The sender's signature, see [`proof`].
    pub proof: Option<Signature>,
}

impl Offers {
    pub fn write(&self, out: &mut Vec<u8>) {
        let commands = if self.stream.is_some() { "syslog,numbered" } else { "syslog" };
        let version = env!("CARGO_PKG_VERSION");
        let offers = format!("relp_version=0\nrelp_software=logferry,{version}\ncommands={commands}");
        out.extend_from_slice(offers.as_bytes());
        if let Some(stream) = &self.stream {
            out.extend_from_slice(b"\nstream=");
            out.extend_from_slice(stream.as_bytes());
        }
        let bytes = [
            ("key", self.key.as_ref().map(|key| &key[..])),
            ("nonce", self.nonce.as_ref().map(|nonce| &nonce[..])),
            ("proof", self.proof.as_ref().map(|proof| &proof[..])),
        ];
        for (name, bytes) in bytes {
            if let Some(bytes) = bytes {
                out.extend_from_slice(format!("\n{name}={}", hex::encode(bytes)).as_bytes());
            }
        }
    }

    /// Reads offers. Unknown offers are ignored, and so is a stream without the command `numbered`.
    pub fn read(data: &[u8]) -> Self {
        let value = |name: &str| {
            let mut lines = data.split(|&byte| byte == b'\n');
            lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        };
        let commands = value("commands").unwrap_or_default();
        let numbered = commands.split(|&byte| byte == b',').any(|command| command == b"numbered");
        let stream = value("stream").and_then(|stream| std::str::from_utf8(stream).ok());
        let legal = |stream: &&str| {
            (1..=LONGEST_STREAM).contains(&stream.len())
                && stream.bytes().all(|byte| byte.is_ascii_graphic())
                // An offer cannot claim to be proven.
                && !stream.starts_with(proof::PROVEN)
        };
        Self {
            stream: stream.filter(legal).filter(|_| numbered).map(str::to_owned),
            key: value("key").and_then(hex::decode),
            nonce: value("nonce").and_then(hex::decode),
            proof: value("proof").and_then(hex::decode),
        }
    }
}

/// The data of a `numbered` frame: `SESSION SP FIRST LF` and the lines, each as `LENGTH SP LINE`. The first line has the number FIRST in
/// the session SESSION of the sender's spool, the second has FIRST + 1, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    pub session: u32,
    pub first_line: u64,
    lines: &'a [u8],
}

impl<'a> Numbered<'a> {
    pub fn write<'l>(session: u32, first_line: u64, lines: impl Iterator<Item = &'l [u8]>, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(session).as_bytes());
        out.push(b' ');
        out.extend_from_slice(digits.format(first_line).as_bytes());
        out.push(b'\n');
        for line in lines {
            out.extend_from_slice(digits.format(line.len()).as_bytes());
            out.push(b' ');
            out.extend_from_slice(line);
        }
    }

    pub fn read(data: &'a [u8]) -> Result<Self, BadFrame> {
        let parsed = (|| {
            let end = data.iter().position(|&byte| byte == b'\n')?;
            let (session, first_line) = std::str::from_utf8(&data[..end]).ok()?.split_once(' ')?;
            let numbered =
                Self { session: session.parse().ok()?, first_line: first_line.parse().ok()?, lines: &data[end + 1..] };
            // The number behind the last line must exist too.
            numbered.first_line.checked_add(data.len() as u64)?;
            numbered.lines().all(|line| line.is_some_and(|line| !line.is_empty())).then_some(numbered)
        })();
        parsed.ok_or(BadFrame("a numbered frame that does not hold what it says"))
    }

    /// The lines of the frame. After [`read`](Self::read), none of them is `None`.
    pub fn lines(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let line = number(rest, "a length").ok().flatten().and_then(|(length, digits)| {
                let line = rest[digits..].strip_prefix(b" ")?.get(..length as usize)?;
                rest = &rest[digits + 1 + line.len()..];
                Some(line)
            });
            if line.is_none() {
                rest = &[];
            }
            Some(line)
        })
    }
}
