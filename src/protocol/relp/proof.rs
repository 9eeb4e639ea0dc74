//! A sender proves that its lines are numbered by the owner of a key: it signs the nonce that the receiver generated for this session. The
//! caller supplies the signing and the verification.
//!
//! ```text
//! open  stream=SPOOL/FORWARD key=KEY                →  rsp  stream=SPOOL/FORWARD nonce=NONCE
//! open  stream=SPOOL/FORWARD key=KEY proof=PROOF    →  rsp  stream=SPOOL/FORWARD
//! ```
//!
//! The stream's lines are then known under the name of the key. An older sender offers no key, and the receiver asks it for no proof. An
//! older receiver sends no nonce, and gets no proof.

use std::sync::Arc;

use super::LONGEST_STREAM;

pub type Key = [u8; 32];
pub type Nonce = [u8; 32];
pub type Signature = [u8; 64];

/// The names of proven streams begin with this, and no other name may.
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
    /// Whether to tell the collector the numbers, if it keeps such.
    pub is_told: bool,
}

/// The streams whose numbers are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumberedStreams {
    /// Also streams without a proof. Anyone who has read a session of such a stream can send in its name.
    #[default]
    Any,
    /// Only streams for which a key has signed. The lines of other streams are accepted without their numbers.
    Proven,
}

/// How a receiver verifies the numbering of a session's lines.
#[derive(Clone, Copy, Debug)]
pub struct Proofs {
    pub streams: NumberedStreams,
    /// Generated for this session.
    pub nonce: Nonce,
    /// The name of the key that has signed the statement. `None`: the signature or the key is not valid.
    pub signer: fn(&Key, &[u8], &Signature) -> Option<String>,
}

/// The statement to sign: its purpose, the session, and the stream.
pub fn statement(nonce: &Nonce, stream: &str) -> Vec<u8> {
    [b"logferry numbered lines 1\n", &nonce[..], stream.as_bytes()].concat()
}

/// The name of a proven stream. `name`: the name of its key; `stream`: its name without a proof.
pub fn proven_name(name: &str, stream: &str) -> Option<String> {
    let forward = stream.rsplit('/').next().unwrap_or(stream);
    let proven = format!("{PROVEN}{name}/{forward}");
    (proven.len() <= LONGEST_STREAM).then_some(proven)
}
