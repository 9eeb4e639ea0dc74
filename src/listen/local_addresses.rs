//! The addresses of this machine, from the kernel: of its interfaces, of its default routes, and of Docker's bridges. They change
//! whenever a network is created, so they are read periodically, on a thread that carries no messages.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::interfaces::{Interface, interfaces};
use crate::protocol::syslog::LocalAddresses;
use crate::record::AddressRange;
use crate::tasks::{spawn, spawn_blocking};

/// How often the kernel is asked. Until then, messages of senders in a new Docker network may have the sender's address as
/// HOSTNAME.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Bytes that are read of a routing table. Default routes are among the first entries.
const MAX_ROUTES: u64 = 256 * 1024;

/// The addresses at this moment. Missing information is no error: the addresses only give names to senders.
pub fn local_addresses() -> LocalAddresses {
    let mut local = LocalAddresses::default();
    for Interface { name, address, netmask } in interfaces() {
        local.own.push(address);
        let range = || AddressRange::around(address, netmask?);
        local.bridges.extend(is_docker_s(&name).then(range).flatten());
    }
    local.gateways.extend(read("/proc/net/route").lines().filter_map(gateway_v4).map(IpAddr::V4));
    local.gateways.extend(read("/proc/net/ipv6_route").lines().filter_map(gateway_v6).map(IpAddr::V6));
    local
}

/// Sends the addresses whenever they differ from the last ones, until the receiver is dropped. Must be called inside the runtime.
pub fn watch_local_addresses(mut known: LocalAddresses) -> mpsc::Receiver<LocalAddresses> {
    let (changes, changed) = mpsc::channel(1);
    spawn(async move {
        loop {
            tokio::select! {
                () = changes.closed() => return,
                () = sleep(ASK_EVERY) => {}
            }
            let Ok(now) = spawn_blocking(local_addresses).await else { return };
            if now != known {
                known.clone_from(&now);
                if changes.send(now).await.is_err() {
                    return;
                }
            }
        }
    });
    changed
}

/// Whether an interface has a name that Docker gives to its default bridge or to the bridge of a network.
fn is_docker_s(interface: &str) -> bool {
    interface == "docker0" || interface.starts_with("br-")
}

fn read(table: &str) -> String {
    let mut text = String::new();
    // A kernel without IPv4 or IPv6 has no table for it.
    if let Ok(file) = File::open(table) {
        let _ = file.take(MAX_ROUTES).read_to_string(&mut text);
    }
    text
}

/// The gateway of a default route in `/proc/net/route`: `eth0 00000000 0100000A 0003 0 0 0 00000000 …`, that is interface,
/// destination, gateway, flags, three numbers, mask. Each address is a number in the machine's byte order.
fn gateway_v4(route: &str) -> Option<Ipv4Addr> {
    let fields: Vec<&str> = route.split_whitespace().collect();
    let [_, "00000000", gateway, _, _, _, _, "00000000", ..] = fields[..] else { return None };
    let number = u32::from_str_radix(gateway, 16).ok().filter(|number| *number != 0)?;
    Some(Ipv4Addr::from(number.to_ne_bytes()))
}

/// The gateway of a default route in `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, all in
/// hexadecimal.
fn gateway_v6(route: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = route.split_whitespace().collect();
    let [destination, "00", _, _, gateway, ..] = fields[..] else { return None };
    let number = |text| u128::from_str_radix(text, 16).ok();
    number(destination).filter(|destination| *destination == 0)?;
    number(gateway).filter(|gateway| *gateway != 0).map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_loopback_and_its_names_are_read() {
        let local = local_addresses();
        assert!(local.own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{local:?}");
        assert!(["docker0", "br-1a2b3c"].into_iter().all(is_docker_s));
        assert!(!["eth0", "docker_gwbridge", "veth1", "br0", "lo"].into_iter().any(is_docker_s));
    }

    #[test]
    fn default_routes_are_found_among_others() {
        let gateway = u32::from_ne_bytes([10, 0, 0, 1]);
        let v4 = |destination: &str, gateway: u32, mask: &str| {
            gateway_v4(&format!("eth0\t{destination}\t{gateway:08X}\t0003\t0\t0\t0\t{mask}\t0\t0\t0"))
        };
        assert_eq!(v4("00000000", gateway, "00000000"), Some(Ipv4Addr::new(10, 0, 0, 1)));
        for (destination, gateway, mask) in
            [("0000000A", gateway, "000000FF"), ("00000000", 0, "00000000"), ("00000000", gateway, "00000080")]
        {
            assert_eq!(v4(destination, gateway, mask), None);
        }
        assert_eq!(
            gateway_v4("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"),
            None
        );
        let v6 = |destination: u128, len: &str, gateway: u128| {
            gateway_v6(&format!("{destination:032x} {len} {:032x} 00 {gateway:032x} 00000400 0 0 00000003 eth0", 0))
        };
        let router: Ipv6Addr = "fe80::1".parse().expect("an address");
        assert_eq!(v6(0, "00", router.to_bits()), Some(router));
        assert_eq!(v6(0, "00", 0), None);
        assert_eq!(v6(0, "60", router.to_bits()), None);
        assert_eq!(gateway_v6(""), None);
    }
}
