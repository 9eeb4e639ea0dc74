//! A sender over plain RELP, as a container's host may use one. It keeps each message until the relay acknowledges it,
//! and sends unacknowledged messages again after its connection ends. Its lines may arrive twice, and none may be lost.

use std::collections::VecDeque;

use logferry::internals::protocol::relp::{self, Decoder};

use crate::chance::Chance;
use crate::network::{Heard, Network, Place, Socket};

/// The time limits for opening the session and for an answer, as in rsyslog.
const OPENS_WITHIN: u64 = 30_000;
const PATIENCE: u64 = 90_000;

pub struct Sender {
    to: Place,
    /// Messages without an answer.
    unanswered: VecDeque<Vec<u8>>,
    pub answered: Vec<Vec<u8>>,
    window: usize,
    connection: Option<Talk>,
    /// When to connect again.
    again: u64,
}

struct Talk {
    socket: Socket,
    decoder: Decoder,
    is_open: bool,
    /// How many of the unanswered messages are sent. The answers come in order.
    sent: usize,
    txnr: u32,
    first: u32,
    output: Vec<u8>,
    heard: u64,
}

impl Sender {
    pub fn new(to: Place, messages: VecDeque<Vec<u8>>, chance: &mut Chance) -> Self {
        let window = chance.pick(&[1, 7, 128]);
        Self { to, unanswered: messages, answered: Vec::new(), window, connection: None, again: chance.below(500) }
    }

    pub fn is_done(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The time of its next action that does not depend on input.
    pub fn next_deed(&self) -> Option<u64> {
        match &self.connection {
            Some(talk) => Some(talk.gives_up_at()),
            None => (!self.is_done()).then_some(self.again),
        }
    }

    /// Does everything that can be done now. Returns whether anything was done.
    pub fn step(&mut self, network: &mut Network, now: u64, chance: &mut Chance) -> bool {
        let Some(talk) = &mut self.connection else {
            if self.is_done() || now < self.again {
                return false;
            }
            let mut output = Vec::new();
            relp::append(1, "open", b"relp_version=0\ncommands=syslog", &mut output);
            let socket = network.connect(self.to, now, chance);
            let decoder = Decoder::new(4096);
            self.connection =
                Some(Talk { socket, decoder, is_open: false, sent: 0, txnr: 1, first: 2, output, heard: now });
            return true;
        };
        let mut has_done = false;
        let heard = network.read(talk.socket, now, chance);
        let mut is_over = now >= talk.gives_up_at();
        match heard {
            Heard::Nothing => {}
            Heard::End { .. } => is_over = true,
            Heard::Bytes(bytes) => {
                (talk.heard, has_done) = (now, true);
                let Talk { decoder, is_open, sent, first, .. } = talk;
                let fed: Result<(), relp::BadFrame> = decoder.feed(&bytes, |frame| {
                    if frame.txnr == 1 {
                        *is_open = true;
                    } else if frame.txnr == 0 {
                        is_over = true;
                    } else {
                        assert_eq!(frame.txnr, *first, "an answer that nobody waits for");
                        assert!(*sent > 0 && frame.data.starts_with(b"200"), "{frame:?}");
                        *first += 1;
                        *sent -= 1;
                        self.answered.extend(self.unanswered.pop_front());
                    }
                    Ok(())
                });
                fed.expect("RELP");
            }
        }
        while talk.is_open && talk.sent < self.window.min(self.unanswered.len()) {
            talk.txnr += 1;
            relp::append(talk.txnr, "syslog", &self.unanswered[talk.sent], &mut talk.output);
            talk.sent += 1;
        }
        if !talk.output.is_empty() {
            let written = network.write(talk.socket, &talk.output, now);
            talk.output.drain(..written);
            has_done |= written > 0;
        }
        if is_over || (self.unanswered.is_empty() && talk.output.is_empty()) {
            network.close(talk.socket, !is_over, now, chance);
            (self.connection, self.again, has_done) = (None, now + chance.between(1, 2_000), true);
        }
        has_done
    }
}

impl Talk {
    fn gives_up_at(&self) -> u64 {
        self.heard + if self.is_open { PATIENCE } else { OPENS_WITHIN }
    }
}
