//! A body, piece by piece: passes on its events and lines as messages, in order. A compressed body is kept until it is complete.

use super::event::Event;
use super::lines::Lines;
use super::objects::Objects;
use super::record::{Message, Said};
use super::{Post, Refused};
use crate::protocol::held::hold;
use crate::protocol::inflate::{BadDeflate, Inflater};
use crate::protocol::syslog::Senders;

/// Limits on a body. A body without compression may have any length: only an unfinished event is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size of an event as JSON, in bytes. Docker's driver encodes 16 KiB of text in up to 96 KiB, and adds labels.
    pub max_event: usize,
    /// The maximum bytes of a text, or of a line, that are kept.
    pub max_message: usize,
    /// The maximum size of a compressed body, before and after inflating, in bytes. Docker's driver sends up to 1000 events in one body,
    /// and each may have 16 KiB of text.
    pub max_body: usize,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Body {
    post: Post,
    limits: Limits,
    senders: Senders,
    framer: Framer,
    /// The compressed body so far, and later the inflated one; and the number of inflated bytes that were read.
    kept: Vec<u8>,
    read: usize,
    is_compressed: bool,
    found: u64,
}

#[derive(Debug)]
enum Framer {
    Events(Objects),
    Lines(Lines),
}

/// The maximum bytes of an inflated body that are read in one turn.
const TURN: usize = 256 << 10;

impl Body {
    pub fn new(post: Post, limits: Limits, senders: Senders) -> Self {
        let framer = match post.is_raw {
            true => Framer::Lines(Lines::new(limits.max_message)),
            false => Framer::Events(Objects::new(limits.max_event)),
        };
        let is_compressed = post.is_gzip;
        Self { post, limits, senders, framer, kept: Vec::new(), read: 0, is_compressed, found: 0 }
    }

    /// Takes the next piece, and passes on each message that ends in it. After an error, nothing more may be fed. Messages that were passed
    /// on before the error count.
    pub fn feed(&mut self, piece: &[u8], take: impl FnMut(&Message<'_>)) -> Result<(), Refused> {
        if !self.is_compressed {
            return self.read(piece, take);
        }
        if self.kept.len() + piece.len() > self.limits.max_body {
            return Err(Refused::TooLarge);
        }
        hold(&mut self.kept, piece, self.limits.max_body);
        Ok(())
    }

    /// Ends the body. True: more messages are left, and the caller has to call this again. Other connections get their turn between.
    pub fn finish(&mut self, mut take: impl FnMut(&Message<'_>)) -> Result<bool, Refused> {
        if self.is_compressed && !self.kept.is_empty() {
            self.inflate()?;
        }
        let inflated = std::mem::take(&mut self.kept);
        let turn = &inflated[self.read..inflated.len().min(self.read + TURN)];
        self.read(turn, &mut take)?;
        self.read += turn.len();
        if self.read < inflated.len() {
            self.kept = inflated;
            return Ok(true);
        }
        let Self { post, limits, senders, framer, found, .. } = self;
        match framer {
            Framer::Events(objects) => objects.finish()?,
            Framer::Lines(lines) => lines.finish(|line, is_cut| {
                *found += 1;
                take(&Message::new(Said::Line(line, is_cut), &post.given, *senders, limits.max_message));
            }),
        }
        if *found == 0 { Err(Refused::NoData) } else { Ok(false) }
    }

    /// The number of messages that were passed on.
    pub fn found(&self) -> u64 {
        self.found
    }

    pub fn post(&self) -> &Post {
        &self.post
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        let begun = match &self.framer {
            Framer::Events(objects) => objects.held(),
            Framer::Lines(lines) => lines.held(),
        };
        begun + self.kept.capacity()
    }

    fn read(&mut self, bytes: &[u8], mut take: impl FnMut(&Message<'_>)) -> Result<(), Refused> {
        let Self { post, limits, senders, framer, found, .. } = self;
        let mut hand_on = |said: Said<'_>| {
            *found += 1;
            take(&Message::new(said, &post.given, *senders, limits.max_message));
        };
        match framer {
            Framer::Events(objects) => objects.feed(bytes, |json| {
                hand_on(Said::Event(Event::read(json)?));
                Ok(())
            }),
            Framer::Lines(lines) => {
                lines.feed(bytes, |line, is_cut| hand_on(Said::Line(line, is_cut)));
                Ok(())
            }
        }
    }

    fn inflate(&mut self) -> Result<(), Refused> {
        self.is_compressed = false;
        let inflated = Inflater::default().gzip(&self.kept, self.limits.max_body);
        self.kept = inflated.map_err(|why| match why {
            BadDeflate::Damaged => Refused::BadGzip,
            BadDeflate::TooLong => Refused::TooLarge,
        })?;
        Ok(())
    }
}
