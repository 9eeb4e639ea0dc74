//! Finds where an entry ends in a stream that may be cut anywhere, and reads its fields.
//!
//! The memory for an entry is bounded for any fields and any declared lengths. A MESSAGE that is too large is cut, and any other field that
//! is too large is left out. The excess is skipped as it arrives.

use memchr::{memchr, memchr2};

use super::{MAX_ENTRY, MAX_FIELDS, MAX_NAME, MAX_VALUE, Refused};
use crate::protocol::held::hold;
use crate::record::MAX_FIELD_BYTES;

/// The maximum bytes held of the fields of an entry beside its MESSAGE. A record has less room, but the record decides which fields it
/// wants only at the end of the entry.
const MAX_OTHERS: usize = 4 * MAX_FIELD_BYTES;
/// The memory that a request keeps between two entries, in bytes and in fields.
const KEPT: usize = 64 << 10;
const KEPT_FIELDS: usize = 64;
pub(super) const MESSAGE: &str = "MESSAGE";

/// Finds the entries of one request.
#[derive(Debug)]
pub struct ExportReader {
    /// The maximum length of a MESSAGE that is kept, in bytes.
    max_message: usize,
    state: State,
    /// Names and values of the entry.
    held: Vec<u8>,
    /// The fields that are complete.
    fields: Vec<Place>,
    /// The field that has begun.
    field: Begun,
    /// Fields that have begun; `count <= MAX_FIELDS`.
    count: usize,
    /// Bytes of the entry; `len <= MAX_ENTRY`.
    len: u64,
    /// Names and values in `held` beside the message; `others <= MAX_OTHERS`.
    others: usize,
    left_out: u32,
    has_message: bool,
    cut: bool,
}

/// One entry. At least one of its fields says more than the journal's address of the entry (the names with `__`, and `_BOOT_ID`).
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    held: &'a [u8],
    fields: &'a [Place],
    left_out: u32,
    cut: bool,
}

/// The place of a field in `held`: its name, and its value behind the name.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: usize,
    value: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Name,
    /// In a value that ends at LF.
    Text,
    /// In a length; `got` of its bytes have arrived.
    Length {
        value: u64,
        got: u32,
    },
    /// In a value that lacks so many bytes.
    Binary(u64),
    /// Behind a value with a length.
    Newline,
}

#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// Where the name and the value begin in `held`.
    name: usize,
    value: usize,
    /// The maximum bytes of the value that are held.
    room: usize,
    is_message: bool,
    /// The rest of the value is skipped.
    passed: bool,
    /// The field is not kept.
    nothing: bool,
}

impl ExportReader {
    /// Keeps `max_message` bytes of a MESSAGE.
    pub fn new(max_message: usize) -> Self {
        Self {
            max_message,
            state: State::Name,
            held: Vec::new(),
            fields: Vec::new(),
            field: Begun::default(),
            count: 0,
            len: 0,
            others: 0,
            left_out: 0,
            has_message: false,
            cut: false,
        }
    }

    /// Passes each complete entry to `found`, in order. After an error the request has to end.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut dyn FnMut(Entry<'_>)) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let (taken, ends) = match self.state {
                State::Name => self.name(bytes)?,
                State::Text => (self.text(bytes), false),
                State::Length { value, got } => (self.length(bytes, value, got)?, false),
                State::Binary(missing) => (self.binary(bytes, missing), false),
                State::Newline if bytes[0] == b'\n' => {
                    self.end_field();
                    (1, false)
                }
                State::Newline => return Err(Refused::BadLength),
            };
            self.len += taken as u64;
            if self.len > MAX_ENTRY {
                return Err(Refused::LongEntry);
            }
            bytes = &bytes[taken..];
            if ends {
                self.end_entry(found);
            }
        }
        Ok(())
    }

    /// Ends a request that was received completely.
    pub fn finish(&self) -> Result<(), Refused> {
        if self.is_inside() { Err(Refused::Unfinished) } else { Ok(()) }
    }

    /// Whether an entry has begun that has not ended.
    pub fn is_inside(&self) -> bool {
        self.len > 0
    }

    /// Held memory, in bytes.
    pub fn memory(&self) -> usize {
        self.held.capacity() + self.fields.capacity() * size_of::<Place>()
    }

    /// Takes the next bytes of a name. True: they were the empty line that ends an entry.
    fn name(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refused> {
        let held = self.held.len() - self.field.name;
        // One byte more than the longest name, so that its delimiter is found.
        let window = &bytes[..bytes.len().min(MAX_NAME + 1 - held)];
        let Some(at) = memchr2(b'=', b'\n', window) else {
            if held + window.len() > MAX_NAME {
                return Err(Refused::BadName);
            }
            self.hold(window);
            return Ok((window.len(), false));
        };
        self.hold(&window[..at]);
        let is_text = window[at] == b'=';
        if self.held.len() == self.field.name && !is_text {
            return Ok((at + 1, true));
        }
        self.begin_value(is_text)?;
        Ok((at + 1, false))
    }

    fn begin_value(&mut self, is_text: bool) -> Result<(), Refused> {
        let name = &self.held[self.field.name..];
        let is_name = is_name(name);
        if !is_name && !is_text {
            // A length or a line may follow here. journal-remote expects a line, and so reads entries out of values.
            return Err(Refused::BadName);
        }
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(Refused::TooManyFields);
        }
        self.field.is_message = !self.has_message && name == MESSAGE.as_bytes();
        self.field.value = self.held.len();
        let room = match self.field.is_message {
            true => Some(self.max_message),
            false => MAX_OTHERS.checked_sub(self.others + name.len()).map(|room| room.min(MAX_FIELD_BYTES)),
        };
        match room {
            // journal-remote ignores fields with such a name too.
            _ if !is_name => self.pass_over(),
            Some(room) => self.field.room = room,
            None => self.leave_out(),
        }
        self.has_message |= self.field.is_message;
        self.state = if is_text { State::Text } else { State::Length { value: 0, got: 0 } };
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> usize {
        match memchr(b'\n', bytes) {
            Some(at) => {
                self.keep(&bytes[..at]);
                self.end_field();
                at + 1
            }
            None => {
                self.keep(bytes);
                bytes.len()
            }
        }
    }

    fn length(&mut self, bytes: &[u8], mut value: u64, mut got: u32) -> Result<usize, Refused> {
        let taken = bytes.len().min((u64::BITS / 8 - got) as usize);
        for byte in &bytes[..taken] {
            value |= u64::from(*byte) << (8 * got);
            got += 1;
        }
        self.state = match got * 8 {
            u64::BITS if value > MAX_VALUE => return Err(Refused::LongValue),
            u64::BITS if value == 0 => State::Newline,
            u64::BITS => State::Binary(value),
            _ => State::Length { value, got },
        };
        Ok(taken)
    }

    fn binary(&mut self, bytes: &[u8], missing: u64) -> usize {
        let taken = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        self.keep(&bytes[..taken]);
        self.state = match missing - taken as u64 {
            0 => State::Newline,
            missing => State::Binary(missing),
        };
        taken
    }

    /// Keeps a piece of a value, as far as there is room for it.
    fn keep(&mut self, piece: &[u8]) {
        if self.field.passed {
            return;
        }
        let room = self.field.room - (self.held.len() - self.field.value);
        if piece.len() <= room {
            self.hold(piece);
        } else if self.field.is_message {
            self.hold(&piece[..room]);
            self.cut = true;
            self.field.passed = true;
        } else {
            self.leave_out();
        }
    }

    fn leave_out(&mut self) {
        self.left_out += 1;
        self.pass_over();
    }

    fn pass_over(&mut self) {
        self.held.truncate(self.field.name);
        self.field.passed = true;
        self.field.nothing = true;
    }

    fn end_field(&mut self) {
        let Begun { name, value, is_message, nothing, .. } = self.field;
        let end = self.held.len();
        if !nothing {
            self.fields.push(Place { name, value, end });
        }
        if !is_message {
            self.others += end - name;
        }
        self.field = Begun { name: end, ..Begun::default() };
        self.state = State::Name;
    }

    fn end_entry(&mut self, found: &mut dyn FnMut(Entry<'_>)) {
        let Self { left_out, cut, .. } = *self;
        let entry = Entry { held: &self.held, fields: &self.fields, left_out, cut };
        // Drops a superfluous empty line. Also drops the fields that an uploader sends of an entry that journald has not written yet.
        if !entry.says_nothing() {
            found(entry);
        }
        self.held.clear();
        self.held.shrink_to(KEPT);
        self.fields.clear();
        self.fields.shrink_to(KEPT_FIELDS);
        *self = Self {
            held: std::mem::take(&mut self.held),
            fields: std::mem::take(&mut self.fields),
            ..Self::new(self.max_message)
        };
    }

    fn hold(&mut self, bytes: &[u8]) {
        // `MAX_NAME` is for the name of the field that has begun.
        hold(&mut self.held, bytes, MESSAGE.len() + self.max_message + MAX_OTHERS + MAX_NAME);
    }
}

/// systemd's `journal_field_valid`.
fn is_name(name: &[u8]) -> bool {
    let is_legal = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    (1..=MAX_NAME).contains(&name.len()) && name.iter().all(is_legal) && !name[0].is_ascii_digit()
}

impl<'a> Entry<'a> {
    /// Names and values, in order. A name may come several times.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let held = self.held;
        self.fields.iter().map(move |place| {
            let name = std::str::from_utf8(&held[place.name..place.value]);
            (name.expect("a name is ASCII"), &held[place.value..place.end])
        })
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The number of fields that were too large.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Whether MESSAGE is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn says_nothing(&self) -> bool {
        self.left_out == 0 && self.fields().all(|(name, _)| name.starts_with("__") || name == "_BOOT_ID")
    }
}
