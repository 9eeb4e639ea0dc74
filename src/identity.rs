//! The identity of a relay: an ed25519 key in its spool. Its signature proves to a receiver that the same relay numbered these
//! lines and the lines before them. All cryptographic primitives are ring's. The other modules that use them are
//! `protocol::fluent::handshake`, `protocol::nats::nkey` and `protocol::sigv4`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::protocol::relp::{Key, Nonce, Prover, Signature};
use crate::{files, hex};

/// The key's file in the spool's directory.
const FILE: &str = "relay.key";
/// The key's file while it is being written.
const BESIDE: &str = "relay.key.new";
/// Only the owner may read the key.
const MODE: u32 = 0o600;
/// Bytes of the longest file that is read as a key.
const MAX_BYTES: u64 = 4096;
/// Bytes of a key's hash that name a stream.
const NAME_BYTES: usize = 16;

pub struct Identity(Ed25519KeyPair);

impl Identity {
    /// The path of the key of the spool in `dir`.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Reads the key of the spool in `dir`, or makes one if there is none. A file that is no key is replaced.
    pub fn of_spool(dir: &Path) -> io::Result<Self> {
        let path = Self::path(dir);
        match Self::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(dir),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::FileTooLarge) => {
                tracing::warn!(
                    "spool: {}: {error}; a new key is made, and receivers may get lines twice once",
                    path.display()
                );
                Self::make(dir)
            }
            read => read,
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        Self::of(&files::read(path, MAX_BYTES)?)
    }

    fn of(pkcs8: &[u8]) -> io::Result<Self> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8);
        key.map(Self).map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("this is no key: {error}")))
    }

    /// Makes a key. It is written to another file, synced and renamed, so that a crash leaves a whole key or none.
    fn make(dir: &Path) -> io::Result<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let beside = dir.join(BESIDE);
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
        file.write_all(pkcs8.as_ref())?;
        file.sync_all()?;
        fs::rename(&beside, Self::path(dir))?;
        File::open(dir)?.sync_all()?;
        Self::of(pkcs8.as_ref())
    }
}

impl Prover for Identity {
    fn key(&self) -> Key {
        // An ed25519 key has 32 bytes.
        self.0.public_key().as_ref().try_into().unwrap_or_default()
    }

    fn sign(&self, statement: &[u8]) -> Signature {
        self.0.sign(statement).as_ref().try_into().unwrap_or([0; 64])
    }
}

/// The name of the key that has signed the statement; `None`: the signature is not valid.
pub fn signer(key: &Key, statement: &[u8], signature: &Signature) -> Option<String> {
    UnparsedPublicKey::new(&ED25519, key).verify(statement, signature).ok()?;
    Some(hex::encode(&digest(&SHA256, key).as_ref()[..NAME_BYTES]))
}

/// Random bytes that a session asks its sender to sign. Each session uses new ones.
pub fn nonce() -> Nonce {
    rand::random()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_spool_keeps_its_key() {
        let dir = TempDir::new().expect("a directory");
        let key = Identity::of_spool(dir.path()).expect("made").key();
        assert_eq!(Identity::of_spool(dir.path()).expect("read").key(), key);
        let mode = fs::metadata(dir.path().join(FILE)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let other = TempDir::new().expect("a directory");
        assert_ne!(Identity::of_spool(other.path()).expect("made").key(), key);
    }

    #[test]
    fn what_is_no_key_is_replaced() {
        let dir = TempDir::new().expect("a directory");
        for text in [&b""[..], b"no key", &[b'x'; 10_000]] {
            fs::write(dir.path().join(FILE), text).expect("written");
            let key = Identity::of_spool(dir.path()).expect("made").key();
            assert_eq!(Identity::of_spool(dir.path()).expect("read").key(), key);
        }
    }

    /// A file that is too long for a key is not read, and takes no memory.
    #[test]
    fn a_file_that_is_too_long_for_a_key_is_not_read() {
        let dir = TempDir::new().expect("a directory");
        let path = Identity::path(dir.path());
        Identity::make(dir.path()).expect("made");
        let file = OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(MAX_BYTES + 1).expect("longer");
        let error = Identity::read(&path).err().expect("no key");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
    }

    #[test]
    fn a_signature_is_for_one_key_and_one_statement() {
        let dirs = [(); 2].map(|()| TempDir::new().expect("a directory"));
        let [one, other] = dirs.each_ref().map(|dir| Identity::of_spool(dir.path()).expect("made"));
        let signature = one.sign(b"statement");
        let name = signer(&one.key(), b"statement", &signature).expect("it is signed");
        assert_eq!(name.len(), 2 * NAME_BYTES);
        assert_eq!(signer(&one.key(), b"another", &signature), None);
        assert_eq!(signer(&other.key(), b"statement", &signature), None);
        assert_ne!(signer(&other.key(), b"statement", &other.sign(b"statement")), Some(name));
    }
}
