//! The last collector: a program that reads, buffers some lines for a while, hangs, stops and dies. Over plain TCP it
//! sends no answers. Over plain RELP it permanently rejects some lines.

use std::collections::VecDeque;

use logferry::internals::protocol::relp::{self, Command, Decoder};

use crate::chance::Chance;
use crate::network::{Heard, Network, Place, Socket};

/// The most bytes that the program has read and not processed. It is less than the forward's `replay`.
const MAX_IN_HANDS: usize = 8 << 10;
/// The longest time that the program buffers lines, in milliseconds.
const IN_HANDS: u64 = 40;
/// The text of a rejected line.
pub const POISON: &str = "poison";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Tcp,
    Relp,
}

pub struct Collector {
    place: Place,
    pub speaks: Speaks,
    connections: Vec<Talk>,
    /// The processed lines, including repeated ones.
    pub lines: Vec<Vec<u8>>,
    down_until: Option<u64>,
    hangs_until: u64,
    /// When the program processes its buffered lines.
    works_at: u64,
}

struct Talk {
    socket: Socket,
    /// An incomplete line.
    begun: Vec<u8>,
    in_hands: VecDeque<Vec<u8>>,
    decoder: Decoder,
    answers: Vec<u8>,
}

impl Collector {
    pub fn new(place: Place, speaks: Speaks) -> Self {
        let (connections, lines) = (Vec::new(), Vec::new());
        Self { place, speaks, connections, lines, down_until: None, hangs_until: 0, works_at: 0 }
    }

    pub fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    /// The time of its next action that does not depend on input.
    pub fn next_deed(&self, now: u64) -> Option<u64> {
        let hangs = (self.hangs_until > now).then_some(self.hangs_until);
        let works = self.connections.iter().any(|talk| !talk.in_hands.is_empty()).then_some(self.works_at);
        self.down_until.or(hangs).or(works)
    }

    /// Does everything that can be done now. Returns whether anything was done.
    pub fn step(&mut self, network: &mut Network, now: u64, chance: &mut Chance) -> bool {
        if let Some(until) = self.down_until {
            if now >= until {
                self.down_until = None;
            }
            return now >= until;
        }
        let mut has_done = false;
        while let Some(socket) = network.accept(self.place, now) {
            let (begun, in_hands, decoder) = (Vec::new(), VecDeque::new(), Decoder::new(64 << 10));
            self.connections.push(Talk { socket, begun, in_hands, decoder, answers: Vec::new() });
            has_done = true;
        }
        if now < self.hangs_until {
            return has_done;
        }
        if now >= self.works_at {
            self.works_at = now + chance.between(1, IN_HANDS);
            self.connections.iter_mut().for_each(|talk| self.lines.extend(talk.in_hands.drain(..)));
        }
        let Self { connections, lines, speaks, .. } = self;
        connections.retain_mut(|talk| {
            let goes_on = match speaks {
                Speaks::Tcp => talk.reads(lines, network, now, chance, &mut has_done),
                Speaks::Relp => talk.answers(lines, network, now, chance, &mut has_done),
            };
            if !goes_on {
                network.close(talk.socket, true, now, chance);
                has_done = true;
            }
            goes_on
        });
        has_done
    }

    pub fn hangs(&mut self, now: u64, chance: &mut Chance) {
        self.hangs_until = now + chance.between(100, 20_000);
    }

    /// Ends the program, which restarts later. Lines in the kernel that the program has not read are lost, and then the
    /// connection is reset. `dies`: the lines that the program has buffered are lost too.
    pub fn ends(&mut self, dies: bool, network: &mut Network, now: u64, chance: &mut Chance) {
        if !self.is_up() {
            return;
        }
        for mut talk in self.connections.drain(..) {
            if !dies {
                self.lines.extend(talk.in_hands.drain(..));
            }
            let has_read_all = network.unread(talk.socket, now) == 0;
            network.close(talk.socket, has_read_all, now, chance);
        }
        network.refuse_all(self.place, now, chance);
        self.down_until = Some(now + chance.pick(&[1, 500, 10_000]));
        self.hangs_until = 0;
    }
}

impl Talk {
    /// Reads lines that end with a newline. Returns false when the connection has ended.
    fn reads(
        &mut self,
        lines: &mut Vec<Vec<u8>>,
        network: &mut Network,
        now: u64,
        chance: &mut Chance,
        has_done: &mut bool,
    ) -> bool {
        match network.read(self.socket, now, chance) {
            Heard::Nothing => {}
            Heard::End { .. } => {
                lines.extend(self.in_hands.drain(..));
                return false;
            }
            Heard::Bytes(bytes) => {
                *has_done = true;
                self.begun.extend_from_slice(&bytes);
                while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                    let rest = self.begun.split_off(end + 1);
                    let mut line = std::mem::replace(&mut self.begun, rest);
                    line.pop();
                    self.in_hands.push_back(line);
                }
                while self.in_hands.iter().map(Vec::len).sum::<usize>() + self.begun.len() > MAX_IN_HANDS {
                    lines.extend(self.in_hands.pop_front());
                }
            }
        }
        true
    }

    fn answers(
        &mut self,
        lines: &mut Vec<Vec<u8>>,
        network: &mut Network,
        now: u64,
        chance: &mut Chance,
        has_done: &mut bool,
    ) -> bool {
        let heard = network.read(self.socket, now, chance);
        let mut is_over = matches!(heard, Heard::End { .. });
        if let Heard::Bytes(bytes) = heard {
            *has_done = true;
            let answers = &mut self.answers;
            let fed: Result<(), relp::BadFrame> = self.decoder.feed(&bytes, |frame| {
                let mut answer = |text: &[u8]| relp::append(frame.txnr, "rsp", text, answers);
                match frame.command {
                    Command::Open => answer(b"200 OK\nrelp_version=0\ncommands=syslog"),
                    Command::Close => {
                        answer(b"");
                        is_over = true;
                    }
                    _ if is_poison(frame.data) => answer(b"500 no such line here"),
                    _ => {
                        lines.push(frame.data.to_vec());
                        answer(b"200 OK");
                    }
                }
                Ok(())
            });
            fed.expect("RELP");
        }
        let written = network.write(self.socket, &self.answers, now);
        self.answers.drain(..written);
        *has_done |= written > 0;
        !is_over
    }
}

pub fn is_poison(line: &[u8]) -> bool {
    line.windows(POISON.len()).any(|part| part == POISON.as_bytes())
}
