//! How a session with a NATS server begins: the server sends INFO, TLS follows, and then we log in. `delivery::nats` does the rest of
//! the session.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::delivery::{Delivery, NatsDelivery, Publishing};
use super::dial::{ConnectError, Dialer};
use super::link::Link;
use super::names::Endpoint;
use super::stall::Standstill;
use super::tcp::{self, CountedStream, Stream};
use crate::config::{NatsLogin, NatsTarget, Secret, Target};
use crate::hex;
use crate::protocol::nats::{BadKey, BadOp, Creds, Decoder, Info, Login, Nkey, Op, SubjectTemplate, words};
use crate::tasks::spawn_blocking;

/// Bytes of the server's greeting that are read at once.
const READ: usize = 4096;
/// Random bytes in the name of an inbox, which must not be guessable.
const RANDOM_BYTES: usize = 16;

/// Why a server's greeting begins no session.
#[derive(Debug, thiserror::Error)]
pub enum BadGreeting {
    #[error("{0}; is that a NATS port?")]
    NoNats(BadOp),
    #[error(
        "it says nothing within {0:?}; is that a NATS port? One where TLS comes first (handshake_first) is not spoken"
    )]
    Silent(Duration),
    #[error("it hung up before it said anything")]
    Closed,
    #[error("the server refuses the connection: {0}")]
    Refused(String),
    #[error("it speaks TLS alone; write nats+tls://")]
    NeedsTls,
    #[error("it speaks no TLS; write nats:// if the network is to be trusted")]
    NoTls,
    #[error("it takes no headers, without which a line that comes twice is there twice; it needs NATS 2.2 or newer")]
    NoHeaders,
    #[error("it asks for no signature, though one is configured")]
    NoNonce,
    #[error("its first message is not INFO, or another follows at once")]
    NoInfo,
}

impl From<BadOp> for BadGreeting {
    fn from(bad: BadOp) -> Self {
        Self::NoNats(bad)
    }
}

/// A session that has begun: the server has sent its INFO, and we have not logged in.
pub struct Begun {
    pub stream: Stream,
    pub info: Info,
    pub login: Login,
    /// The subject for answers. Each session has a new one.
    pub inbox: String,
}

/// Connects to one endpoint of a target. `limits`: when the connection is given up.
pub async fn connect(
    dialer: &Dialer,
    target: &Target,
    settings: &NatsTarget,
    endpoint: &Endpoint,
    limits: Standstill,
) -> Result<Link, ConnectError> {
    let Begun { stream, info, login, inbox } = begin(dialer, target, settings, endpoint).await?;
    let publishing = Publishing {
        subject: SubjectTemplate::new(&settings.subject),
        sd_id: dialer.sd_id().to_owned(),
        stream: dialer.numbering.stream.clone(),
        inbox,
    };
    let (says, waits) = ((&login, target.address.is_tls()), (settings.window, limits.silent));
    let delivery = NatsDelivery::new(publishing, info, says, waits, Instant::now());
    dialer.open(endpoint, stream, Delivery::Nats(Box::new(delivery)), limits).await
}

/// Connects, reads the server's INFO, and begins TLS where the target speaks it.
pub async fn begin(
    dialer: &Dialer,
    target: &Target,
    settings: &NatsTarget,
    endpoint: &Endpoint,
) -> Result<Begun, ConnectError> {
    let within = dialer.settings.connect_timeout;
    let mut stream = tcp::connect(endpoint.peer, within).await?;
    let info = timeout(within, greeting(&mut stream)).await.map_err(|_| BadGreeting::Silent(within))??;
    match (target.address.is_tls(), info.needs_tls, info.has_tls) {
        (false, true, _) => return Err(BadGreeting::NeedsTls.into()),
        (true, false, false) => return Err(BadGreeting::NoTls.into()),
        _ if !info.has_headers => return Err(BadGreeting::NoHeaders.into()),
        _ if info.nonce.is_empty() && matches!(settings.login, NatsLogin::Nkey(_) | NatsLogin::Creds(_)) => {
            return Err(BadGreeting::NoNonce.into());
        }
        _ => {}
    }
    let stream = dialer.secured(target, endpoint, stream).await?;
    let (login, nonce) = (settings.login.clone(), info.nonce.clone());
    // Files are read anew for each connection, so that renewed secrets count at once.
    let login = spawn_blocking(move || known_by(&login, &nonce)).await.map_err(io::Error::other)??;
    let inbox = format!("_INBOX.{}", hex::encode(&rand::random::<[u8; RANDOM_BYTES]>()));
    Ok(Begun { stream, info, login, inbox })
}

/// Reads the server's INFO. TLS may begin right behind it, so any further byte is an error.
async fn greeting(stream: &mut CountedStream) -> Result<Info, ConnectError> {
    let (mut decoder, mut info, mut bytes) = (Decoder::default(), None, [0; READ]);
    while info.is_none() {
        let length = stream.read(&mut bytes).await?;
        if length == 0 {
            return Err(BadGreeting::Closed.into());
        }
        decoder.feed(&bytes[..length], |op| match (op, &info) {
            (Op::Info(json), None) => {
                info = Some(Info::read(json).ok_or(BadGreeting::NoInfo)?);
                Ok(())
            }
            (Op::Err(said), _) => Err(BadGreeting::Refused(words(said))),
            _ => Err(BadGreeting::NoInfo),
        })?;
    }
    info.filter(|_| decoder.is_between()).ok_or_else(|| BadGreeting::NoInfo.into())
}

/// How we log in to the server. Reads the file with the secret.
fn known_by(login: &NatsLogin, nonce: &str) -> io::Result<Login> {
    Ok(match login {
        NatsLogin::Nobody => Login::Nobody,
        NatsLogin::Token(token) => Login::Token(token.read()?),
        NatsLogin::User(name, password) => Login::User { name: name.clone(), password: password.read()? },
        NatsLogin::Nkey(file) => {
            let key = Nkey::read(&file.read()?).map_err(|bad| unusable(file, bad))?;
            Login::Nkey { public: key.public(), signature: key.sign(nonce) }
        }
        NatsLogin::Creds(file) => {
            let Creds { jwt, key } = Creds::read(&file.read()?).map_err(|bad| unusable(file, bad))?;
            Login::Jwt { jwt, signature: key.sign(nonce) }
        }
    })
}

fn unusable(secret: &Secret, bad: BadKey) -> io::Error {
    let file = secret.file().map(|path| path.display().to_string()).unwrap_or_default();
    io::Error::new(io::ErrorKind::InvalidData, format!("{file}: {bad}"))
}
