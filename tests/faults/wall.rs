//! Firewall rules that drop packets.

use std::net::SocketAddr;
use std::process::Command;

/// The packets that a wall drops.
#[derive(Clone, Copy)]
pub enum Stops {
    /// Packets to this address.
    To(SocketAddr),
    /// Packets to and from this address: the link is cut.
    Both(SocketAddr),
}

/// Drops packets until it is dropped itself, even by a panic.
pub struct Wall {
    rules: Vec<Vec<String>>,
}

impl Wall {
    /// Whether this test may build a wall: that needs iptables and root.
    pub fn can_be_built() -> bool {
        nix::unistd::geteuid().is_root() && run(&["-w".to_owned(), "-nL".to_owned(), "INPUT".to_owned()])
    }

    pub fn build(stops: Stops, transports: &[&str]) -> Self {
        let mut wall = Self { rules: Vec::new() };
        for transport in transports {
            let rule = |address: &str, port: &str, at: SocketAddr| {
                let words =
                    [address, &at.ip().to_string(), "-p", transport, port, &at.port().to_string(), "-j", "DROP"];
                words.map(str::to_owned).to_vec()
            };
            match stops {
                Stops::To(at) => wall.adds(rule("-d", "--dport", at)),
                Stops::Both(at) => {
                    wall.adds(rule("-d", "--dport", at));
                    wall.adds(rule("-s", "--sport", at));
                }
            }
        }
        wall
    }

    fn adds(&mut self, rule: Vec<String>) {
        assert!(change("-I", &rule), "iptables refuses {rule:?}");
        self.rules.push(rule);
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        for rule in &self.rules {
            if !change("-D", rule) {
                eprintln!("iptables: cannot remove {rule:?}");
            }
        }
    }
}

fn change(how: &str, rule: &[String]) -> bool {
    run(&[&["-w".to_owned(), how.to_owned(), "INPUT".to_owned()], rule].concat())
}

fn run(arguments: &[String]) -> bool {
    let places = ["iptables", "/usr/sbin/iptables", "/sbin/iptables"];
    let output = places.iter().find_map(|program| Command::new(program).args(arguments).output().ok());
    output.is_some_and(|output| output.status.success())
}
