//! Resolves the names of forwards, and warns of plain text to public addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::{Failure, runtime};
use super::Report;
use crate::config::{self, Destination, ForwardAddress, Host, HostPort, ListenAddress};
use crate::forward::{Endpoint, Patience, Resolver};
use crate::loops::own_listener;

/// Resolves the names of a forward. An unresolvable name causes only a warning, because a relay starts and asks again.
pub fn look_up(
    resolve: &config::Resolve,
    settings: &config::Forward,
    listeners: &[ListenAddress],
    report: &mut Report,
) -> Result<(), Failure> {
    let resolver = Resolver::new(resolve.clone());
    let runtime = runtime()?;
    for target in &settings.to {
        let Some(to) = target.reached_at() else { continue };
        match runtime.block_on(resolver.resolve(to, Patience::BothFamilies)) {
            Ok(answer) => {
                if !matches!(to, Destination::Host(HostPort { host: Host::Address(_), .. })) {
                    let displayed: Vec<String> =
                        answer.endpoints.iter().map(|endpoint| displayed(endpoint, to)).collect();
                    report.note(format!(
                        "forward {}: {to} is {} (for {:?})",
                        settings.name,
                        displayed.join(", "),
                        answer.ttl
                    ));
                }
                warn_of_plain_text(&settings.name, &target.address, &answer.endpoints, report);
                warn_of_loop(&settings.name, &target.address, (&answer.endpoints, listeners), report);
            }
            Err(error) => report.warning(format!(
                "forward {}: {to} does not resolve now: {error}; a relay would spool and keep asking",
                settings.name
            )),
        }
    }
    Ok(())
}

fn warn_of_plain_text(name: &str, target: &ForwardAddress, endpoints: &[Endpoint], report: &mut Report) {
    let public = endpoints.iter().map(|endpoint| endpoint.peer.ip()).find(|address| is_public(*address));
    if let Some(address) = public.filter(|_| !target.is_tls()) {
        report.warning(format!(
            "forward {name}: {target} goes as plain text to {address}, a public address: whoever is on the way can read it; \
             use tcp+tls://, relp+tls://, https://, s3://, nats+tls://, fluent+tls:// or gelf+tls://"
        ));
    }
}

fn warn_of_loop(
    name: &str,
    target: &ForwardAddress,
    (endpoints, listeners): (&[Endpoint], &[ListenAddress]),
    report: &mut Report,
) {
    let own = |endpoint: &Endpoint| own_listener(listeners, endpoint.peer, target.is_udp());
    if let Some(listener) = endpoints.iter().find_map(own) {
        report.warning(format!(
            "forward {name}: {target} is this relay's own listener {listener}: a line would go round for ever, so a relay sends \
             nothing there; change `to`"
        ));
    }
}

/// The address of an endpoint. An SRV record also shows the host and the port, which are not in the config.
fn displayed(endpoint: &Endpoint, to: &Destination) -> String {
    match to {
        Destination::Host(_) => endpoint.peer.ip().to_string(),
        Destination::Service(_) => {
            format!("{} ({}, priority {})", endpoint.peer, endpoint.host, endpoint.priority)
        }
    }
}

/// Is the address public? Addresses of RFC 1918, RFC 6598 (carriers, and most VPNs), RFC 4193 and link-local addresses are not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| is_public_v6(v6), is_public_v4),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    !(address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified() || is_shared)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_ours = address.is_loopback() || address.is_unspecified();
    !(is_ours || address.is_unique_local() || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public() {
        for own in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(own.parse().expect(own)), "{own}");
        }
        for public in
            ["8.8.8.8", "172.32.0.1", "192.169.0.1", "100.128.0.1", "203.0.113.9", "2001:db8::1", "::ffff:8.8.8.8"]
        {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }
}
