//! A tunnel through a proxy: CONNECT asks the proxy to connect us to the server, and then the proxy only passes bytes on (RFC 9110 9.3.6).

use std::any::Any;
use std::io;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper_util::rt::TokioIo;

use super::client::Unanswered;
use super::secrets::{basic, sensitive};
use crate::config::Proxy;
use crate::forward::tcp::CountedStream;
use crate::http::Carrier;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum NoTunnel {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("it answers CONNECT {0} with {1}{hint}", hint = hint(*.1))]
    Refused(String, u16),
    /// The request cannot be written in HTTP.
    #[error(transparent)]
    Unsaid(#[from] io::Error),
    #[error("it says more than an answer to CONNECT")]
    Talks,
}

fn hint(status: u16) -> &'static str {
    match status {
        407 => "; it wants a user and a password: proxy = \"${VARIABLE}\", which says http://USER:PASSWORD@HOST:PORT",
        403 | 405 => "; it has to allow this server and its port",
        _ => "",
    }
}

/// Asks a proxy for a tunnel to `server`, which is `host:port`.
pub async fn dig(stream: CountedStream, proxy: &Proxy, server: &str) -> Result<CountedStream, NoTunnel> {
    // The type of the requests' own connections, so that the binary has the generic code once.
    let carrier: Box<dyn Carrier> = Box::new(stream);
    let (mut sender, connection) = http1::handshake(TokioIo::new(carrier)).await.map_err(Unanswered::of)?;
    let request = connect_request(proxy, server)?;
    let asked = async {
        let status = sender.send_request(request).await.map_err(Unanswered::of)?.status();
        // A proxy may keep a connection open on which no tunnel begins.
        if status.is_success() { Ok(()) } else { Err(NoTunnel::Refused(server.to_owned(), status.as_u16())) }
    };
    let handed_back = async { Ok(connection.without_shutdown().await.map_err(Unanswered::of)?) };
    let ((), parts) = tokio::try_join!(asked, handed_back)?;
    let carrier: Box<dyn Any> = parts.io.into_inner();
    match carrier.downcast() {
        // With TLS the client speaks first, so the proxy must not have sent any more bytes.
        Ok(stream) if parts.read_buf.is_empty() => Ok(*stream),
        _ => Err(NoTunnel::Talks),
    }
}

fn connect_request(proxy: &Proxy, server: &str) -> io::Result<Request<Full<Bytes>>> {
    let mut request = Request::connect(server).header(HOST, server);
    if let Some(credentials) = proxy.credentials() {
        request = request.header(PROXY_AUTHORIZATION, sensitive(&basic(&credentials))?);
    }
    request.body(Full::default()).map_err(io::Error::other)
}
