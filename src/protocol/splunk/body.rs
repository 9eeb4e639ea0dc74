//! A body, piece after piece: its events and lines as messages, in order. One that is compressed is kept until it is all there.

use super::event::Event;
use super::lines::Lines;
use super::objects::Objects;
use super::record::{Message, Said};
use super::{Post, Refused};
use crate::protocol::held::hold;
use crate::protocol::inflate::{BadDeflate, Inflater};
use crate::protocol::syslog::Senders;

/// What a body may take. One that is not compressed may be of any length: nothing of it is kept but an event that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size of an event as JSON, in bytes. Docker's driver writes 16 KiB of text in up to 96 KiB, and labels beside it.
    pub max_event: usize,
    /// Bytes of a text, or of a line, that are kept.
    pub max_message: usize,
    /// The maximum size of a compressed body, before and after, in bytes. Docker's driver sends up to 1000 events in one, of which
    /// each may have 16 KiB of text.
    pub max_body: usize,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Body {
    post: Post,
    limits: Limits,
    senders: Senders,
    framer: Framer,
    /// What is there of a body that is compressed, and how much of it was read once it is inflated.
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

/// How much of an inflated body is read in one turn, in bytes.
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

    /// Takes the next piece, and hands on each message that ends in it. An error: nothing more may be fed. What was handed on
    /// before counts.
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

    /// The body has ended. True: there is more of it, and this is to be called again; so others have their turn between.
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

    /// How many messages were handed on.
    pub fn found(&self) -> u64 {
        self.found
    }

    pub fn post(&self) -> &Post {
        &self.post
    }

    /// What is kept, in bytes.
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
