//! The name server's answers. One name has one address, and moves. Another name has many addresses, and each answer has
//! two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use super::support::script::{self, NXDOMAIN, Question, Reply, ScriptedServer};
use super::support::{dns, eventually};

/// The name with many addresses. RFC 6761 reserves `.test`, so it never exists in public DNS.
pub const MANY: &str = "many.test";

const ADDRESSES: [&str; 8] =
    ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9"];
/// How many of the addresses are in an answer.
const TOLD: usize = 2;
/// How often each address is in an answer while answers rotate, at least.
const ROUNDS: usize = 2;
/// The TTL of answers, in seconds. With default settings, a relay repeats its queries at this interval.
const TTL: u32 = 1;

/// An interval for tests. It is long enough to compare the relay's open descriptors several times between two queries.
const QUICK: &str = "min-ttl = \"500ms\"\nmax-ttl = \"500ms\"";

pub struct Names {
    server: ScriptedServer,
    answers: Arc<Answers>,
}

struct Answers {
    /// The last byte of the moving name's loopback address.
    place: AtomicU8,
    rotate: AtomicBool,
    /// How many answers with addresses were sent since they began to rotate.
    turn: AtomicUsize,
}

impl Names {
    pub fn start(place: u8) -> Self {
        let (rotate, turn) = (AtomicBool::new(false), AtomicUsize::new(0));
        let answers = Arc::new(Answers { place: AtomicU8::new(place), rotate, turn });
        let script = answers.clone();
        Self { server: ScriptedServer::start(move |question| script.reply(question)), answers }
    }

    pub fn moves_to(&self, place: u8) {
        self.answers.place.store(place, Ordering::Relaxed);
    }

    /// Rotates the answers for a while, then restores the original ones.
    pub fn rotate(&self) {
        self.answers.rotate.store(true, Ordering::Relaxed);
        let (enough, turn) = (ROUNDS * ADDRESSES.len() / TOLD, &self.answers.turn);
        eventually("the relay hears other addresses", || (turn.load(Ordering::Relaxed) > enough).then_some(()));
        self.answers.rotate.store(false, Ordering::Relaxed);
        turn.store(0, Ordering::Relaxed);
    }

    /// The config section that makes a relay use this name server. `quick`: short intervals for tests.
    pub fn section(&self, quick: bool) -> String {
        self.server.section_with(if quick { QUICK } else { "" })
    }
}

impl Answers {
    fn reply(&self, question: &Question) -> Reply {
        match question.name.as_str() {
            dns::NAME => {
                let address = format!("127.0.0.{}", self.place.load(Ordering::Relaxed));
                script::addresses(question, TTL, &[&address])
            }
            MANY => {
                let rotates = self.rotate.load(Ordering::Relaxed) && question.kind == script::A;
                let turn = if rotates { 1 + self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
                let first = turn * TOLD % ADDRESSES.len();
                script::addresses(question, TTL, &ADDRESSES[first..first + TOLD])
            }
            _ => Reply::Code(NXDOMAIN),
        }
    }
}
