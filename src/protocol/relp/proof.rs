//! How a sender proves that its lines are numbered by the one who numbered those before: it signs what the receiver has
//! made up for this session. Who can sign and who can tell is handed in.
//!
//! ```text
//! open  stream=SPOOL/FORWARD key=KEY                →  rsp  stream=SPOOL/FORWARD nonce=NONCE
//! open  stream=SPOOL/FORWARD key=KEY proof=PROOF    →  rsp  stream=SPOOL/FORWARD
//! ```
//!
//! Its lines are then known under the name of the key. An older sender offers no key and is asked for nothing; an older
//! receiver makes up nothing and is shown no proof.

use std::sync::Arc;

use super::LONGEST_STREAM;

pub type Key = [u8; 32];
pub type Nonce = [u8; 32];
pub type Signature = [u8; 64];

/// Names of proven streams begin so, and no other name may.
pub const PROVEN: &str = "key:";

/// The owner of a key that signs for a stream.
pub trait Prover: Send + Sync {
    fn key(&self) -> Key;
    fn sign(&self, statement: &[u8]) -> Signature;
}

/// The stream that numbers a sender's lines.
#[derive(Clone)]
pub struct Numbering {
    /// The name of the stream: `SPOOL/FORWARD`.
    pub stream: String,
    /// `None`: there is no key.
    pub prover: Option<Arc<dyn Prover>>,
    /// The collector is told the numbers, if it keeps such.
    pub is_told: bool,
}

/// Which streams of numbered lines are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumberedStreams {
    /// Streams without a proof too. Whoever has read a session of such a stream can send in its name.
    #[default]
    Any,
    /// Only streams that a key has signed for; the lines of others are taken without their numbers.
    Proven,
}

/// How a receiver finds out who numbers the lines of a session.
#[derive(Clone, Copy, Debug)]
pub struct Proofs {
    pub streams: NumberedStreams,
    /// Made up for this session.
    pub nonce: Nonce,
    /// What the key is called that has signed the statement.
    pub signer: fn(&Key, &[u8], &Signature) -> Option<String>,
}

/// What is signed: for what, for which session, and in whose place.
pub fn statement(nonce: &Nonce, stream: &str) -> Vec<u8> {
    [b"logferry numbered lines 1\n", &nonce[..], stream.as_bytes()].concat()
}

/// The name of a proven stream. `name`: its key's; `stream`: what it is called without a proof.
pub fn proven_name(name: &str, stream: &str) -> Option<String> {
    let forward = stream.rsplit('/').next().unwrap_or(stream);
    let proven = format!("{PROVEN}{name}/{forward}");
    (proven.len() <= LONGEST_STREAM).then_some(proven)
}
