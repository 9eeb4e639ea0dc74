//! The check of the Host header: the names by which the page may be requested.
//!
//! The port has no authentication; listening on loopback keeps strangers out. A web page that the operator visits can get around
//! that: the page's name is made to point to 127.0.0.1 (DNS rebinding), the browser takes the relay for the page's own server, and
//! the page can read the answers. But the browser always sends the page's own name as `Host`, and a registered name has a dot.
//!
//! So only these names may request the page, `/status`, `/status/dead-letters` and `/tail`, which show collectors and their
//! addresses, containers, errors and lines: addresses, `localhost` and names under it, names without a dot (a compose service, a
//! container), and the `hostname` of the config. `/metrics`, `/live` and `/ready` answer by any name, because in a cluster they are
//! scraped by names with dots. A foreign page can therefore read them: `/metrics` has, beside the counts, the addresses of
//! listeners, the names of forwards, and names of containers if `[admin] containers` exports them; `/ready` says why the spool
//! cannot be written, and so the spool's path.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;

pub const NOT_BY_THIS_NAME: &str = "ask for this page by an IP address, localhost, a name without a dot or our `hostname`; a proxy in \
                                    front must set `Host: localhost` (this keeps foreign web pages from reading it)\n";

/// May a request with this `Host` see the page? `own` is the `hostname` of the config.
pub fn may_ask<B>(request: &Request<B>, own: &str) -> bool {
    let host = match (request.uri().authority(), request.headers().get(HOST)) {
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(host)) => host.to_str(),
        // HTTP/1.0: the client is no browser.
        (None, None) => return true,
    };
    host.map(without_port).is_ok_and(|host| is_near(host) || (!own.is_empty() && host.eq_ignore_ascii_case(own)))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_near(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.parse::<IpAddr>().is_ok() || (!host.is_empty() && !host.contains('.')) || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(host: &str) -> bool {
        may_ask(&Request::builder().uri("/").header(HOST, host).body(()).expect("a request"), "node-7.example")
    }

    #[test]
    fn addresses_and_near_names_may_ask() {
        for host in [
            "127.0.0.1:9514",
            "127.0.0.1",
            "[::1]:9514",
            "[::1]",
            "localhost:9514",
            "relay",
            "Node-7.example:9514",
            "a.localhost",
        ] {
            assert!(asks(host), "{host}");
        }
        assert!(may_ask(&Request::builder().uri("/").body(()).expect("a request"), ""));
    }

    #[test]
    fn names_of_strangers_may_not() {
        for host in ["evil.example", "evil.example:9514", "127.0.0.1.evil.example", "localhost.", "", "a.b:x", ":80"] {
            assert!(!asks(host), "{host:?}");
        }
        let proxied = Request::builder().uri("http://evil.example/").header(HOST, "localhost").body(());
        assert!(!may_ask(&proxied.expect("a request"), ""), "the target is what counts");
    }
}
