//! TLS: versions, client certificates, plain text and TLS on one port, and refused senders.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::{Trial, limited, listen_with, options};
use crate::config::Limits;
use crate::listen::Options;
use crate::tls::Credentials;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.as_ref().der().clone()).unwrap();
    Arc::new(roots)
}

fn certificate(authority: &Authority) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["relay.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// The listener's side. With `clients`, senders need a certificate.
fn acceptor(authority: &Authority, clients: bool) -> TlsAcceptor {
    let (chain, key) = certificate(authority);
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if clients {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.send_tls13_tickets = 0;
    TlsAcceptor::from(Arc::new(config))
}

/// The sender's side.
fn client(authority: &Authority, version: &'static SupportedProtocolVersion, certified: bool) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots(authority));
    if certified {
        let (chain, key) = certificate(authority);
        builder.with_client_auth_cert(chain, key).unwrap()
    } else {
        builder.with_no_client_auth()
    }
}

fn credentials(acceptor: TlsAcceptor) -> Credentials {
    Credentials { tls: Some(acceptor), ..Credentials::none() }
}

fn listen(acceptor: TlsAcceptor, plaintext: bool) -> Trial {
    listen_with(Options { credentials: credentials(acceptor), plaintext, ..options("tcp://127.0.0.1:0") })
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects and writes in another thread, because the relay needs this one. Returns the open connection.
async fn say(trial: &Trial, config: ClientConfig, text: &str) -> std::io::Result<Stream> {
    let (at, text) = (trial.at(), text.to_owned());
    let connect = move || {
        let name = ServerName::try_from("relay.test").unwrap();
        let socket = TcpStream::connect(at)?;
        socket.set_read_timeout(Some(super::PATIENCE))?;
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
        stream.write_all(text.as_bytes())?;
        stream.flush()?;
        Ok(stream)
    };
    tokio::task::spawn_blocking(connect).await.unwrap()
}

fn close(mut stream: Stream) {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

/// The result of a plain sender's read.
async fn answer(mut stream: TcpStream) -> Result<usize, ErrorKind> {
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    let read = move || stream.read(&mut [0; 64]).map_err(|error| error.kind());
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn both_versions_with_and_without_client_certificates() {
    let authority = authority();
    for clients in [false, true] {
        for version in [&TLS12, &TLS13] {
            let trial = listen(acceptor(&authority, clients), true);
            let stream =
                say(&trial, client(&authority, version, clients), "10 <30>1 one\n<30>two\n<30>tail").await.unwrap();
            trial.expect(&["<30>1 one", "<30>two"]).await;
            close(stream);
            trial.expect(&["<30>1 one", "<30>two", "<30>tail"]).await;
            trial.stopped().await;
        }
    }
}

#[tokio::test]
async fn handshakes_wait_for_their_turn() {
    let authority = authority();
    let limits = Limits { max_handshakes: 1, ..Limits::default() };
    let trial = listen_with(Options {
        credentials: credentials(acceptor(&authority, false)),
        ..limited("tcp://127.0.0.1:0", limits)
    });
    let half = TcpStream::connect(trial.at()).unwrap();
    (&half).write_all(&[0x16, 3, 1]).unwrap();
    trial.until("the first", |trial| trial.metrics.connections.get() == 1).await;
    let (at, config) = (trial.at(), client(&authority, &TLS13, false));
    let whole = tokio::task::spawn_blocking(move || {
        let name = ServerName::try_from("relay.test").unwrap();
        let socket = TcpStream::connect(at).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
        stream.write_all(b"<30>by TLS\n").unwrap();
        stream
    });
    trial.until("the second", |trial| trial.metrics.connections.get() == 2).await;
    // Plain text passes the waiting handshake, so often that the second handshake would have ended if it could.
    let plain: Vec<String> = (0..100).map(|number| format!("<30>plain {number}")).collect();
    for (number, line) in plain.iter().enumerate() {
        let mut stream = TcpStream::connect(trial.at()).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        trial.until("it to be read", |trial| trial.count() > number).await;
    }
    assert_eq!(trial.frames(), plain);
    drop(half);
    let _open = whole.await.unwrap();
    trial.until("the one by TLS", |trial| trial.count() > plain.len()).await;
    assert_eq!((trial.frames()[plain.len()].as_str(), trial.metrics.handshake_failures.get()), ("<30>by TLS", 1));
}

#[tokio::test]
async fn plain_text_and_tls_on_one_port() {
    let authority = authority();
    let trial = listen(acceptor(&authority, false), true);
    // A silent connection is still served when it sends.
    let silent = TcpStream::connect(trial.at()).unwrap();
    let _tls = say(&trial, client(&authority, &TLS13, false), "<30>in secret\n").await.unwrap();
    trial.expect(&["<30>in secret"]).await;
    (&silent).write_all(b"<30>in public\n").unwrap();
    trial.expect(&["<30>in secret", "<30>in public"]).await;
    assert_eq!(trial.metrics.connections.get(), 2);
    let metrics = trial.metrics.clone();
    trial.stopped().await;
    assert_eq!((metrics.refused.plaintext.get(), metrics.handshake_failures.get()), (0, 0));
}

#[tokio::test]
async fn plain_text_is_refused_where_it_is_not_wanted() {
    let authority = authority();
    for (address, plaintext) in [("tcp://127.0.0.1:0", false), ("tcp+tls://127.0.0.1:0", true)] {
        let credentials = credentials(acceptor(&authority, false));
        let trial = listen_with(Options { credentials, plaintext, ..options(address) });
        let mut plain = TcpStream::connect(trial.at()).unwrap();
        plain.write_all(b"<30>in public\n").unwrap();
        assert_eq!(answer(plain).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(trial.metrics.refused.plaintext.get(), 1);
        let _tls = say(&trial, client(&authority, &TLS13, false), "<30>in secret\n").await.unwrap();
        trial.expect(&["<30>in secret"]).await;
    }
}

#[tokio::test]
async fn strangers_are_counted() {
    let (ours, theirs) = (authority(), authority());
    for version in [&TLS12, &TLS13] {
        let trial = listen(acceptor(&ours, true), true);
        // A sender without a certificate, and one with a certificate of another CA. With TLS 1.3 the sender does not notice the
        // refusal.
        let _ = say(&trial, client(&ours, version, false), "<30>no\n").await;
        trial.until("one", |trial| trial.metrics.handshake_failures.get() == 1).await;
        let mut stranger = client(&theirs, version, true);
        stranger.dangerous().set_certificate_verifier(trusting());
        let _ = say(&trial, stranger, "<30>no\n").await;
        trial.until("two", |trial| trial.metrics.handshake_failures.get() == 2).await;
        trial.until("the end", |trial| trial.metrics.connections.get() == 0).await;
        assert_eq!(trial.count(), 0);
    }
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let authority = authority();
    for (plaintext, first) in [(true, &b"\x16\x03"[..]), (false, b"\x16"), (false, b"")] {
        let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
        let credentials = credentials(acceptor(&authority, false));
        let options = Options { credentials, plaintext, ..limited("tcp://127.0.0.1:0", limits) };
        let trial = listen_with(options);
        let mut stream = TcpStream::connect(trial.at()).unwrap();
        stream.write_all(first).unwrap();
        trial.until("the deadline", |trial| trial.metrics.handshake_failures.get() == 1).await;
        trial.until("the end", |trial| trial.metrics.connections.get() == 0).await;
    }
}

#[tokio::test]
async fn an_end_without_a_word_keeps_whole_frames_only() {
    let authority = authority();
    let trial = listen(acceptor(&authority, false), true);
    let stream = say(&trial, client(&authority, &TLS13, false), "<30>whole\n<30>ta").await.unwrap();
    trial.expect(&["<30>whole"]).await;
    drop(stream.sock);
    trial.until("the tail", |trial| trial.metrics.unfinished.get() == 1).await;
    trial.expect(&["<30>whole"]).await;
}

/// The text is more than TLS decodes at once, and the runtime does not run between the last write and the shutdown.
#[tokio::test]
async fn a_shutdown_reads_out_what_was_sent() {
    let authority = authority();
    let trial = listen(acceptor(&authority, false), true);
    let mut plain = TcpStream::connect(trial.at()).unwrap();
    let mut stream = say(&trial, client(&authority, &TLS13, false), "<30>first\n").await.unwrap();
    trial.expect(&["<30>first"]).await;
    trial.until("both", |trial| trial.metrics.connections.get() == 2).await;
    for _ in 0..3 {
        stream.write_all("<30>a line of some length, to fill more than one record\n".repeat(300).as_bytes()).unwrap();
    }
    stream.flush().unwrap();
    plain.write_all(b"<30>never heard of before\n").unwrap();
    let frames = trial.stopped().await;
    assert_eq!(frames.len(), 1 + 900 + 1);
    assert_eq!(frames.iter().filter(|frame| *frame == "<30>never heard of before").count(), 1);
    for socket in [stream.sock, plain] {
        assert_eq!(answer(socket).await, Err(ErrorKind::ConnectionReset));
    }
}

/// A verifier that accepts any certificate, like Docker's `syslog-tls-skip-verify`.
fn trusting() -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::UnixTime;
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Trusting;

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    Arc::new(Trusting)
}
