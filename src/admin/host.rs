//! The check of the Host header: the names by which the page may be requested.
//!
//! The port has no authentication; listening on loopback keeps strangers out. A web page that the operator visits can get around
//! that: its name is made to point to 127.0.0.1 (DNS rebinding), the browser takes the relay for the page's own server, and the page
//! can read the answers. But the browser always sends the page's own name as `Host`, and a registered name has a dot. So
//! addresses, `localhost`, names without a dot (a compose service, a container) and the `hostname` of the config may ask for
//! the page and for `/status`, which name collectors and their addresses, containers and errors. `/metrics`, `/live` and
//! `/ready` answer by any name: they are scraped by names with dots in a cluster. So a foreign page can read them, and with
//! the counts of `/metrics` their labels: what is listened on, what forwards are called, and containers where `[admin]
//! containers` asks for them. `/ready` says why the spool cannot be written, and with it where it is.

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
        // HTTP/1.0: no browser.
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
