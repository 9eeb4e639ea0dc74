//! The network: connections between places, each with two pipes. A pipe delivers its bytes in order, in pieces and with
//! delays. Each side learns of the end of a connection at its own time. So one side may long have connected elsewhere
//! while the other still reads from the pipe. Real kernels behave like this.

use std::collections::{BTreeMap, VecDeque};

use crate::chance::Chance;

/// Bytes that a pipe buffers before its writer must wait.
const SEND_BUFFER: usize = 16 << 10;

pub type Place = usize;

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    connection: u64,
    /// 0: the side that connected. 1: the side that accepted.
    side: usize,
}

/// The result of a read from a socket.
#[derive(Debug)]
pub enum Heard {
    Nothing,
    Bytes(Vec<u8>),
    /// `clean`: closed in good order. Otherwise the connection was reset or broke.
    End {
        clean: bool,
    },
}

/// One direction of one connection.
#[derive(Default)]
struct Pipe {
    /// Pieces in transit, each with its time of arrival.
    pieces: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    arrived: u64,
    /// Bytes that the reader's kernel has acknowledged, as far as the writer knows.
    acknowledged: u64,
    /// When the reader learns of the end, and whether it is in good order.
    end: Option<(u64, bool)>,
    /// Bytes written from now on never arrive.
    is_dead: bool,
    last: u64,
}

struct Connection {
    pipes: [Pipe; 2],
    is_closed: [bool; 2],
    /// The minimum delay of a piece in milliseconds, and the rate in bytes per millisecond.
    delay: u64,
    rate: u64,
}

impl Pipe {
    fn unread(&self, now: u64) -> usize {
        self.pieces.iter().take_while(|(at, _)| *at <= now).map(|(_, piece)| piece.len()).sum()
    }

    fn acknowledge(&mut self, now: u64) {
        if !self.is_dead {
            self.acknowledged = self.acknowledged.max(self.arrived + self.unread(now) as u64);
        }
    }
}

#[derive(Default)]
pub struct Network {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// Connections not yet accepted, by place, each with its time of arrival there.
    waiting: BTreeMap<Place, VecDeque<(u64, Socket)>>,
}

impl Network {
    /// Opens a connection to a place. The place sees it later.
    pub fn connect(&mut self, to: Place, now: u64, chance: &mut Chance) -> Socket {
        let (connection, delay) = (self.next, chance.pick(&[0, 1, 5, 40, 150]));
        self.next += 1;
        let pipes = [Pipe::default(), Pipe::default()];
        self.connections.insert(
            connection,
            Connection { pipes, is_closed: [false; 2], delay, rate: chance.pick(&[4, 100, 10_000]) },
        );
        self.waiting.entry(to).or_default().push_back((now + delay, Socket { connection, side: 1 }));
        Socket { connection, side: 0 }
    }

    pub fn accept(&mut self, place: Place, now: u64) -> Option<Socket> {
        let waiting = self.waiting.get_mut(&place)?;
        waiting.front().filter(|(at, _)| *at <= now)?;
        waiting.pop_front().map(|(_, socket)| socket)
    }

    /// Closes the waiting connections of a place that can no longer accept.
    pub fn refuse_all(&mut self, place: Place, now: u64, chance: &mut Chance) {
        for (_, socket) in self.waiting.remove(&place).unwrap_or_default() {
            self.close(socket, false, now, chance);
        }
    }

    /// Writes as many bytes as fit and returns their number.
    pub fn write(&mut self, socket: Socket, bytes: &[u8], now: u64) -> usize {
        let Some(connection) = self.connections.get_mut(&socket.connection) else { return bytes.len() };
        let (delay, rate) = (connection.delay, connection.rate);
        let pipe = &mut connection.pipes[socket.side];
        if pipe.is_dead || pipe.end.is_some() {
            return bytes.len();
        }
        let taken = bytes.len().min(SEND_BUFFER.saturating_sub(pipe.bytes));
        if taken > 0 {
            pipe.last = pipe.last.max(now + delay) + taken as u64 / rate;
            pipe.pieces.push_back((pipe.last, bytes[..taken].to_vec()));
            pipe.bytes += taken;
        }
        taken
    }

    /// Reads bytes that have arrived, cut at a random position.
    pub fn read(&mut self, socket: Socket, now: u64, chance: &mut Chance) -> Heard {
        let Some(connection) = self.connections.get_mut(&socket.connection) else { return Heard::End { clean: false } };
        let pipe = &mut connection.pipes[1 - socket.side];
        let has_arrived = pipe.pieces.front().is_some_and(|(at, _)| *at <= now);
        let Some((_, mut piece)) = has_arrived.then(|| pipe.pieces.pop_front()).flatten() else {
            return match pipe.end {
                Some((at, clean)) if at <= now && pipe.pieces.is_empty() => Heard::End { clean },
                _ => Heard::Nothing,
            };
        };
        if piece.len() > 1 && chance.one_in(3) {
            let rest = piece.split_off(chance.between(1, piece.len() as u64 - 1) as usize);
            pipe.pieces.push_front((now, rest));
        }
        pipe.bytes -= piece.len();
        pipe.arrived += piece.len() as u64;
        Heard::Bytes(piece)
    }

    /// Whether the other side has ended the connection. For a side that does not read.
    pub fn has_left(&self, socket: Socket, now: u64) -> bool {
        let connection = self.connections.get(&socket.connection);
        connection.is_none_or(|connection| connection.pipes[1 - socket.side].end.is_some_and(|(at, _)| at <= now))
    }

    /// The other side's kernel reports to the writer how many bytes have arrived, and how many more it can buffer. It
    /// does not matter whether the program has read them.
    pub fn acknowledged(&mut self, socket: Socket, now: u64) -> (u64, u64) {
        let Some(connection) = self.connections.get_mut(&socket.connection) else { return (0, 0) };
        let pipe = &mut connection.pipes[socket.side];
        pipe.acknowledge(now);
        (pipe.acknowledged, SEND_BUFFER.saturating_sub(pipe.unread(now)) as u64)
    }

    /// Bytes that have arrived at this socket and are unread.
    pub fn unread(&self, socket: Socket, now: u64) -> usize {
        let connection = self.connections.get(&socket.connection);
        connection.map_or(0, |connection| connection.pipes[1 - socket.side].unread(now))
    }

    /// Closes a side. Its written bytes arrive, and later the end. Bytes in transit to it are lost.
    pub fn close(&mut self, socket: Socket, clean: bool, now: u64, chance: &mut Chance) {
        let Some(connection) = self.connections.get_mut(&socket.connection) else { return };
        let later = chance.pick(&[0, 0, 10, 300, 5_000, 20_000]);
        let delay = connection.delay;
        let own = &mut connection.pipes[socket.side];
        own.end.get_or_insert((own.last.max(now + delay) + later, clean));
        let other = &mut connection.pipes[1 - socket.side];
        other.acknowledge(now);
        (other.is_dead, other.bytes) = (true, 0);
        other.pieces.clear();
        connection.is_closed[socket.side] = true;
        if connection.is_closed == [true; 2] {
            self.connections.remove(&socket.connection);
        }
    }

    /// Cuts a random connection. The bytes in transit arrive up to a random position, and no others. Each side learns
    /// of the end at its own time.
    pub fn cut_one(&mut self, now: u64, chance: &mut Chance) {
        let alive: Vec<u64> = self.connections.keys().copied().collect();
        if alive.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get_mut(&chance.pick(&alive)) else { return };
        for pipe in &mut connection.pipes {
            pipe.acknowledge(now);
            let arrives = chance.below(pipe.pieces.len() as u64 + 1) as usize;
            for (_, piece) in pipe.pieces.drain(arrives..) {
                pipe.bytes -= piece.len();
            }
            if let Some((_, last)) = pipe.pieces.back_mut()
                && chance.one_in(2)
            {
                let kept = chance.between(0, last.len() as u64) as usize;
                pipe.bytes -= last.len() - kept;
                last.truncate(kept);
                if kept == 0 {
                    pipe.pieces.pop_back();
                }
            }
            pipe.is_dead = true;
            pipe.end = Some((now + chance.pick(&[0, 5, 100, 3_000, 20_000, 40_000]), false));
        }
    }

    /// The time of the next arrival, if anything is in transit.
    pub fn next_arrival(&self) -> Option<u64> {
        let of_pipes = self.connections.values().flat_map(|connection| &connection.pipes).flat_map(|pipe| {
            let end = pipe.end.filter(|_| pipe.pieces.is_empty()).map(|(at, _)| at);
            pipe.pieces.front().map(|(at, _)| *at).into_iter().chain(end)
        });
        of_pipes.chain(self.waiting.values().flatten().map(|(at, _)| *at)).min()
    }
}
