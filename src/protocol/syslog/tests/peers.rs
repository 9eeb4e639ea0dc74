//! The sender's address in a line, and HOSTNAME if the sender gives none.

use core::net::IpAddr;

use super::*;

const DEVICE: &str = "192.0.2.7";
const OTHER: &str = "192.0.2.8";
/// A sender on this machine.
const LOCAL: &str = "127.0.0.1";

/// A listener with any number of senders.
struct Heard(Translator);

impl Heard {
    fn by(listening: Listening) -> Self {
        let mut translator = Translator::new(Arc::new(settings()));
        translator.listen_to(listening);
        Self(translator)
    }

    /// The part of the line after its stamp.
    fn from(&mut self, peer: &str, frame: &str) -> String {
        let mut line = Vec::new();
        self.0.set_peer(peer.parse::<IpAddr>().ok());
        self.0.translate(&Frame { bytes: frame.as_bytes(), cut: false, received: NOW }, &mut line);
        let line = String::from_utf8(line).expect("text");
        line.splitn(3, ' ').nth(2).expect("a stamp").to_owned()
    }
}

fn docker(text: &str) -> String {
    format!("<30>Nov 20 22:28:47 nginx:1.25/web/{ID}[23223]: {text}")
}

/// A relay's line of a container, without a HOSTNAME.
fn relayed(text: &str) -> String {
    format!("<30>1 2026-11-20T22:28:47Z - web {ID} - {SD} {text}")
}

const NAMELESS: &str = "<13>1 2026-11-20T22:28:47Z - app - - - x";
const NAMED: &str = "<13>1 2026-11-20T22:28:47Z core-sw app - - - x";

#[test]
fn who_names_no_host_has_its_address() {
    let mut heard = Heard::by(Listening::default());
    let said = |peer: &str| format!("{peer} app - - [logferry@32473 peer=\"{peer}\"] x");
    assert_eq!(heard.from(DEVICE, NAMELESS), said(DEVICE));
    assert_eq!(heard.from(OTHER, NAMELESS), said(OTHER));
    assert_eq!(heard.from("::ffff:192.0.2.7", NAMELESS), said(DEVICE));
    assert_eq!(heard.from("2001:db8::7", NAMELESS), said("2001:db8::7"));
    assert_eq!(heard.from(LOCAL, NAMELESS), format!("relay-1 app - - [logferry@32473 peer=\"{LOCAL}\"] x"));
    assert_eq!(heard.from("no address", NAMELESS), "relay-1 app - - - x");
    assert_eq!(heard.from(DEVICE, NAMED), "core-sw app - - - x");
    let nothing = format!("{DEVICE} - - - [logferry@32473 peer=\"{DEVICE}\"]");
    assert_eq!(heard.from(DEVICE, "Link is up"), format!("{nothing} Link is up"));
    let busybox = heard.from(DEVICE, "<13>Nov 20 22:28:47 root: x");
    assert_eq!(busybox, format!("{DEVICE} root - - [logferry@32473 peer=\"{DEVICE}\"] x"));
    // The host of Docker's messages is the relay, whichever sender forwards them.
    assert_eq!(heard.from(DEVICE, &docker("x")), format!("relay-1 web {ID} - {SD} x"));
}

#[test]
fn the_next_sender_of_the_same_header_is_another_one() {
    let with_peer = |peer: &str| SD.to_owned() + &format!("[logferry@32473 peer=\"{peer}\"]");
    let mut heard = Heard::by(Listening { writes_peer: true, ..Listening::default() });
    for peer in [DEVICE, OTHER, DEVICE, DEVICE, "::ffff:192.0.2.8"] {
        let shown = peer.trim_start_matches("::ffff:");
        for text in ["one", "two"] {
            assert_eq!(heard.from(peer, &docker(text)), format!("relay-1 web {ID} - {} {text}", with_peer(shown)));
        }
    }
    let mut heard = Heard::by(Listening::default());
    for peer in [DEVICE, OTHER, DEVICE] {
        for text in ["one", "two"] {
            assert_eq!(heard.from(peer, &relayed(text)), format!("{peer} web {ID} - {} {text}", with_peer(peer)));
            assert_eq!(heard.from(peer, &docker(text)), format!("relay-1 web {ID} - {SD} {text}"));
        }
    }
}

/// If anything depends on the sender, each sender has its own cached header. Otherwise all senders share one.
#[test]
fn a_header_is_one_for_all_senders_unless_somebody_asks() {
    for (asks_peer, headers) in [(false, 1), (true, 2)] {
        let mut heard = Heard::by(Listening { asks_peer, ..Listening::default() });
        let frame = docker("x");
        let frame = Frame { bytes: frame.as_bytes(), cut: false, received: NOW };
        let ids: std::collections::BTreeSet<String> = [DEVICE, OTHER, DEVICE, OTHER]
            .map(|peer| {
                heard.from(peer, &docker("x"));
                format!("{:?}", heard.0.find(&frame).expect("it came before").header)
            })
            .into();
        assert_eq!(ids.len(), headers);
    }
}

#[test]
fn a_listener_says_whose_word_the_host_is() {
    let host = |source: HostSource, peer: &str, frame: &str| {
        let mut heard = Heard::by(Listening { host: source, ..Listening::default() });
        heard.0.set_names(Arc::new(|peer, name| {
            name.push_str("switch-7");
            peer.to_string() == DEVICE
        }));
        let line = heard.from(peer, frame);
        line.split(' ').next().expect("a host").to_owned()
    };
    let dmz = || HostSource::Text("dmz".to_owned());
    for frame in [NAMELESS, NAMED] {
        assert_eq!(host(HostSource::Address, DEVICE, frame), DEVICE);
        assert_eq!(host(HostSource::Address, LOCAL, frame), "relay-1");
        assert_eq!(host(HostSource::Name, DEVICE, frame), "switch-7");
        assert_eq!(host(HostSource::Name, OTHER, frame), OTHER);
        assert_eq!([DEVICE, LOCAL].map(|peer| host(dmz(), peer, frame)), ["dmz", "dmz"]);
    }
    let named = "<30>1 2026-11-20T22:28:47Z docker-host a/web/2a9052a5c36e 7 a/web/2a9052a5c36e - x";
    for source in [HostSource::Address, HostSource::Name, dmz()] {
        assert_eq!(host(source.clone(), DEVICE, &docker("x")), "relay-1");
        assert_eq!(host(source, DEVICE, named), "docker-host");
    }
}

/// The name of a sender may become known after its first messages.
#[test]
fn a_name_is_not_remembered_with_a_header() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut heard = Heard::by(Listening { host: HostSource::Name, ..Listening::default() });
    let is_known = Arc::new(AtomicBool::new(false));
    let known = is_known.clone();
    heard.0.set_names(Arc::new(move |_, name| {
        name.push_str("switch-7");
        known.load(Ordering::Relaxed)
    }));
    assert!(heard.from(DEVICE, &relayed("x")).starts_with("192.0.2.7 web"));
    is_known.store(true, Ordering::Relaxed);
    assert!(heard.from(DEVICE, &relayed("x")).starts_with("switch-7 web"));
}

/// On a listener for Docker only, all messages count as Docker's, even in other shapes.
#[test]
fn where_only_docker_sends_nobody_is_an_address() {
    let mut heard = Heard::by(Listening { senders: Senders::Docker, ..Listening::default() });
    assert_eq!(heard.from(DEVICE, "text"), "relay-1 - - - - text");
}
