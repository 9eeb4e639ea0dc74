//! Short connections: some end in good order, some are reset, some end in the middle of a frame, and some never
//! complete their handshake.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::senders::Shared;
use super::support::{RelpPeer, TlsClient, Wire};
use super::tally::Stream;
use super::world::Doors;

/// Time between two checks of the clock.
const TICK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
enum Guest {
    Says,
    SaysByTls,
    SaysByRelp,
    IsReset,
    /// Ends in the middle of a counted frame, in good order.
    IsCut,
    /// Ends in the middle of a frame, without the protocol's close.
    LeavesTls,
    LeavesRelp,
    /// Sends half a ClientHello, then nothing.
    Hesitates,
}

const ALL: [Guest; 8] = [
    Guest::Says,
    Guest::SaysByTls,
    Guest::SaysByRelp,
    Guest::IsReset,
    Guest::IsCut,
    Guest::LeavesTls,
    Guest::LeavesRelp,
    Guest::Hesitates,
];

/// Starts `rate` guests per second, each kind in turn, until the load is over. The latest `most_half_open` connections
/// with half a ClientHello stay open.
pub fn come(doors: &Doors, shared: &Shared, rate: usize, most_half_open: usize) {
    let mut half_open: VecDeque<Wire> = VecDeque::new();
    let (start, hello) = (Instant::now(), TlsClient::ANONYMOUS.hello());
    let mut kinds = ALL.iter().cycle();
    let mut come = 0;
    while !shared.is_over() {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as usize;
        while come < due && !shared.is_over() {
            come += 1;
            let guest = kinds.next().expect("it begins again");
            half_open.extend(guest.comes(doors, shared, &hello));
            half_open.drain(..half_open.len().saturating_sub(most_half_open));
        }
        // This sleep sets a pace and waits for no event.
        std::thread::sleep(TICK);
    }
}

impl Guest {
    /// Connects, sends and leaves. A returned connection stays open for a while.
    fn comes(self, doors: &Doors, shared: &Shared, hello: &[u8]) -> Option<Wire> {
        match self {
            Self::Says => {
                let mut wire = doors.tcp.connect();
                wire.send(&shared.message(Stream::GuestsByTcp));
                shared.was_sent(Stream::GuestsByTcp);
                wire.close();
            }
            Self::SaysByTls => {
                let mut wire = doors.connect_tls();
                wire.send_counted(&shared.message(Stream::GuestsByTls));
                shared.was_sent(Stream::GuestsByTls);
                wire.close();
            }
            Self::SaysByRelp => {
                let mut peer = RelpPeer::opened(&doors.relp);
                peer.says(2, "syslog", &shared.message(Stream::GuestsByRelp));
                assert!(peer.frame().is_some_and(|answer| answer.is_ok()), "refused");
                shared.was_sent(Stream::GuestsByRelp);
                peer.says(3, "close", b"");
                peer.frame();
            }
            Self::IsReset => {
                let mut wire = doors.tcp.connect();
                wire.send(b"<30>Nov 20 17:28:47 a line that may be lost\n<30>Nov 20 17:28:47 the start of");
                wire.breaks();
            }
            Self::IsCut => {
                let mut wire = doors.tcp.connect();
                wire.send(b"900 <30>Nov 20 17:28:47 the start of a counted message");
                wire.close();
            }
            Self::LeavesTls => {
                let mut wire = doors.connect_tls();
                wire.send(b"900 <30>Nov 20 17:28:47 the start of a counted message");
            }
            Self::LeavesRelp => {
                let mut peer = RelpPeer::opened(&doors.relp);
                peer.sends(b"2 syslog 900 <30>Nov 20 17:28:47 the start of a message");
            }
            Self::Hesitates => {
                let mut wire = doors.tcp.connect();
                wire.send(&hello[..hello.len() / 2]);
                return Some(wire);
            }
        }
        None
    }
}
