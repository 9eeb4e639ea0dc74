//! What the name server says: one name has one address, and moves; another one has many, and tells two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use super::support::script::{self, NXDOMAIN, Question, Reply, ScriptedServer};
use super::support::{dns, eventually};

/// The name with many addresses. `.test` never exists outside (RFC 6761).
pub const MANY: &str = "many.test";

const ADDRESSES: [&str; 8] =
    ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9"];
/// Of them, so many are in an answer.
const TOLD: usize = 2;
/// While answers rotate, each address is told so often at least.
const ROUNDS: usize = 2;
/// Seconds. Without it, a relay asks as often as it is told to.
const TTL: u32 = 1;

/// Between two look-ups what the relay has open is looked at again and again, and should be the same.
const QUICK: &str = "min-ttl = \"500ms\"\nmax-ttl = \"500ms\"";

pub struct Names {
    server: ScriptedServer,
    answers: Arc<Answers>,
}

struct Answers {
    /// The last byte of the address of the name that moves, on loopback.
    place: AtomicU8,
    rotate: AtomicBool,
    /// Answers with addresses since they began to rotate.
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

    /// For a while; then they are again as they were.
    pub fn rotate(&self) {
        self.answers.rotate.store(true, Ordering::Relaxed);
        let (enough, turn) = (ROUNDS * ADDRESSES.len() / TOLD, &self.answers.turn);
        eventually("the relay hears other addresses", || (turn.load(Ordering::Relaxed) > enough).then_some(()));
        self.answers.rotate.store(false, Ordering::Relaxed);
        turn.store(0, Ordering::Relaxed);
    }

    /// The section of a relay's config that makes it ask here. `quick`: for impatient tests.
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
