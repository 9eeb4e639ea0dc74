//! NKEYs: ed25519 keys in the notation of NATS, and the signature of a server's nonce. All cryptography is ring's.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The first byte of a seed. Its lower three bits are the start of the role.
const SEED: u8 = 18 << 3;
/// The role of a key: a user.
const USER: u8 = 20 << 3;
/// The length of a seed: prefix and role, key, checksum.
const SEED_BYTES: usize = 2 + 32 + 2;

/// A key of a user.
pub struct Nkey(Ed25519KeyPair);

/// The contents of a credentials file.
pub struct Creds {
    pub jwt: String,
    pub key: Nkey,
}

/// Does not show the input, which is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("there is no seed in it: a line that begins with SU")]
    NoSeed,
    #[error("its seed is damaged: the checksum is another")]
    Damaged,
    #[error("its key is no user's: a user's seed begins with SU")]
    NoUser,
    #[error("there is no JWT in it, between BEGIN and END NATS USER JWT")]
    NoJwt,
}

impl Nkey {
    /// Reads the first seed in a text. The seed has a line of its own.
    pub fn read(text: &str) -> Result<Self, BadKey> {
        let seed = text.lines().map(str::trim).find(|line| line.starts_with('S')).ok_or(BadKey::NoSeed)?;
        let bytes = BASE32_NOPAD.decode(seed.as_bytes()).map_err(|_| BadKey::Damaged)?;
        let bytes: [u8; SEED_BYTES] = bytes.try_into().map_err(|_| BadKey::Damaged)?;
        let (content, checksum) = bytes.split_at(SEED_BYTES - 2);
        if crc16(content).to_le_bytes() != checksum {
            return Err(BadKey::Damaged);
        }
        // Five bits for the seed, and the next eight for the role.
        let (kind, role) = (content[0] & 0xf8, content[0] << 5 | content[1] >> 3);
        if (kind, role) != (SEED, USER) {
            return Err(BadKey::NoUser);
        }
        Ed25519KeyPair::from_seed_unchecked(&content[2..]).map(Self).map_err(|_| BadKey::Damaged)
    }

    /// The public key, as in a server's configuration.
    pub fn public(&self) -> String {
        let mut bytes = vec![USER];
        bytes.extend_from_slice(self.0.public_key().as_ref());
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        BASE32_NOPAD.encode(&bytes)
    }

    /// The signature of a server's nonce, as CONNECT needs it.
    pub fn sign(&self, nonce: &str) -> String {
        BASE64URL_NOPAD.encode(self.0.sign(nonce.as_bytes()).as_ref())
    }
}

impl Creds {
    pub fn read(text: &str) -> Result<Self, BadKey> {
        let mut lines = text.lines().map(str::trim);
        let jwt = lines.by_ref().skip_while(|line| !line.contains("BEGIN NATS USER JWT")).nth(1);
        let jwt = jwt.filter(|jwt| !jwt.is_empty() && !jwt.starts_with('-')).ok_or(BadKey::NoJwt)?.to_owned();
        let seed = lines.skip_while(|line| !line.contains("BEGIN USER NKEY SEED")).nth(1).ok_or(BadKey::NoSeed)?;
        Ok(Self { jwt, key: Nkey::read(seed)? })
    }
}

/// CRC-16 of XMODEM: the polynomial 0x1021, from 0.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 },
        )
    })
}

impl fmt::Debug for Nkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
