//! SIGHUP: the relay reads its configuration again, and applies or rejects it while messages flow.

use std::collections::BTreeSet;
use std::net::TcpListener;

use crate::support::http::{get, status};
use crate::support::program::{SIGHUP, SIGTERM};
use crate::support::{
    Certs, Collector, Docker, Door, Format, Framing, Metrics, Relay, RelpPeer, Setup, TlsClient, eventually, says,
    says_at_length,
};

fn forward(name: &str, to: &Collector) -> String {
    let keys = "framing = \"octet-counting\"\nmax-backoff = \"200ms\"\nreplay-for = \"1s\"";
    format!("[[forward]]\nname = \"{name}\"\nto = \"{}\"\n{keys}", to.url())
}

fn setup(forwards: &[String]) -> Setup {
    forwards.iter().fold(Setup::new().listen("tcp://127.0.0.1:0"), |setup, forward| setup.section(forward))
}

/// Writes the config of the running `relay`, and reloads it.
fn reloads(relay: &Relay, old: &Setup, new: &Setup) {
    let before = relay.metrics();
    let done = |metrics: &Metrics| metrics.sum("config_reloads_total");
    new.replaces(old);
    relay.signal(SIGHUP);
    eventually("a reload", || (done(&relay.metrics()) > done(&before)).then_some(()));
}

#[test]
fn a_forward_that_changes_goes_on_where_it_was() {
    let (first, second) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let old = setup(&[forward("central", &first)]);
    let relay = old.start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    for number in 0..2000 {
        wire.says(&container, format!("{number}").as_bytes());
        if number == 1000 {
            reloads(&relay, &old, &setup(&[forward("central", &second)]));
        }
    }
    eventually("all lines", || (first.count() + second.count() >= 2000).then_some(()));
    let both: Vec<usize> = first.numbers().into_iter().chain(second.numbers()).collect();
    assert!(both.into_iter().eq(0..2000), "nothing is lost, nothing comes twice, and one connection carried it all");
    assert_eq!(relay.metrics().sum("listen_accepted_total"), 1);
    relay.has_delivered(2000, 0);
    relay.stops();
}

#[test]
fn forwards_and_listeners_come_and_go() {
    let (first, second) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let old = setup(&[forward("central", &first)]);
    let relay = old.start();
    says(&relay, 0..10);
    first.frames(10);
    reloads(&relay, &old, &setup(&[forward("central", &first), forward("copy", &second)]).listen("udp://127.0.0.1:0"));
    assert_eq!(status(&relay)["listeners"].as_array().map(Vec::len), Some(2));
    says(&relay, 10..20);
    first.frames(20);
    // A new forward starts with the oldest line in the spool.
    eventually("the copy", || second.numbers().ends_with(&(10..20).collect::<Vec<_>>()).then_some(()));
    reloads(&relay, &old, &setup(&[forward("copy", &second)]));
    // A removed forward must not stay in the metrics as not connected, not even after a request for the status.
    eventually("the listener and the forward are gone", || {
        let now = status(&relay);
        let metrics = get(&relay, "/metrics").body;
        let has = |name: &str| metrics.contains(&format!("logferry_forward_connected{{forward=\"{name}\"}} "));
        let listeners = now["listeners"].as_array().map(Vec::len);
        (listeners == Some(1) && has("copy") && !has("central")).then_some(())
    });
    says(&relay, 20..30);
    eventually("the copy", || second.numbers().ends_with(&(10..30).collect::<Vec<_>>()).then_some(()));
    assert_eq!(first.count(), 20);
    relay.stops();
}

/// Messages that are logged once in a while, or once per peer, are not repeated after a reload.
#[test]
fn a_reload_says_nothing_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new()
        .listen_with("tcp://127.0.0.1:0", "max-frame = 480")
        .listen_with("tcp://127.0.0.1:0", "allow = \"127.0.0.2\"");
    let setup = setup.section(&forward("central", &collector));
    let relay = setup.start();
    let json = format!("{{\"text\":\"{}\"}}\n", "x".repeat(480));
    let last_refused = || status(&relay)["listeners"][1]["last_refused"]["reason"].clone();
    for time in 1..=2 {
        relay.doors()[0].connect().send(json.as_bytes());
        relay.counts("listen_received_total", time);
        relay.doors()[1].connect().is_closed();
        relay.counts("listen_refused_total", time);
        eventually("the refusal is shown", || (last_refused() == "allow").then_some(()));
        relay.signal(SIGHUP);
        relay.counts("config_reloads_total", time);
        assert_eq!(last_refused(), "allow", "a reload forgets no refusal");
    }
    let said = relay.stops().stderr;
    for text in [
        "JSON without a syslog priority comes from 127.0.0.1",
        "the rest of a message from 127.0.0.1 is thrown away",
        "127.0.0.1 was refused: its address is not in `allow`",
    ] {
        assert_eq!(said.matches(text).count(), 1, "{text}: {said}");
    }
}

/// A changed `max-backoff` makes a reload replace the forward, and has no other effect here.
fn setup_with_backoff(collector: &Collector, keys: &str, backoff: &str) -> Setup {
    let keys = format!("framing = \"octet-counting\"\nmax-backoff = \"{backoff}\"\n{keys}");
    setup(&[format!("[[forward]]\nname = \"central\"\nto = \"{}\"\n{keys}", collector.url())])
}

/// A relay whose messages are acknowledged by a collector that never closes its side of a connection.
fn starts_and_is_acknowledged(setup: &Setup, collector: &Collector, messages: usize) -> Relay {
    collector.stays();
    let relay = setup.start();
    says(&relay, 0..messages);
    collector.frames(messages);
    relay.counts("forward_pending", 0);
    relay
}

/// A collector that does not close its side after the relay has closed its own may still read: nothing is sent again unless the connection
/// breaks.
#[test]
fn reloads_send_nothing_again_to_a_collector_that_does_not_close_its_side() {
    const MESSAGES: usize = 200;
    let mut collector = Collector::tcp(Framing::OctetCounting);
    let old = setup_with_backoff(&collector, "", "200ms");
    let relay = starts_and_is_acknowledged(&old, &collector, MESSAGES);
    for (number, backoff) in ["201ms", "202ms", "203ms"].into_iter().enumerate() {
        reloads(&relay, &old, &setup_with_backoff(&collector, "", backoff));
        relay.counts("forward_connected", 1);
        let message = MESSAGES + number;
        says(&relay, message..message + 1);
        collector.frames(message + 1);
        relay.counts("forward_half_closed", number as u64 + 1);
    }
    assert!(collector.numbers().into_iter().eq(0..MESSAGES + 3), "nothing comes twice");
    assert_eq!((collector.accepted(), relay.metrics().sum("forward_resent_total")), (4, 0));
    // At last the collector closes its sides.
    collector.goes();
    relay.counts("forward_half_closed", 0);
    relay.kill();
}

/// A forward reconnects only if its own settings have changed.
#[test]
fn a_reload_that_changes_no_forward_leaves_its_connection() {
    const MESSAGES: usize = 10;
    let collector = Collector::tcp(Framing::OctetCounting);
    let with =
        |limit: u32| setup(&[forward("central", &collector)]).section(&format!("[syslog]\nrate-limit = \"{limit}/s\""));
    let old = with(1000);
    let relay = starts_and_is_acknowledged(&old, &collector, MESSAGES);
    for limit in [2000, 3000, 3000] {
        reloads(&relay, &old, &with(limit));
    }
    says(&relay, MESSAGES..MESSAGES + 1);
    collector.frames(MESSAGES + 1);
    assert_eq!((collector.accepted(), relay.metrics().sum("forward_connects_total")), (1, 1));
    relay.kill();
}

/// Lines that a collector had not read before it died are sent to the forward's new target, even if the relay had left that connection
/// before.
#[test]
fn what_a_collector_had_not_read_when_it_was_left_is_sent_again() {
    const MESSAGES: usize = 20;
    let (mut first, second) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let with = |to: &Collector| setup_with_backoff(to, "", "200ms");
    let old = with(&first);
    let relay = starts_and_is_acknowledged(&old, &first, MESSAGES);
    first.hangs();
    // The collector's thread is blocked in read already; this line completes that call.
    says(&relay, MESSAGES..MESSAGES + 1);
    first.frames(MESSAGES + 1);
    says(&relay, MESSAGES + 1..2 * MESSAGES);
    relay.counts("forward_delivered_total", 2 * MESSAGES as u64);
    reloads(&relay, &old, &with(&second));
    relay.counts("forward_half_closed", 1);
    says(&relay, 2 * MESSAGES..3 * MESSAGES);
    second.frames(MESSAGES);
    assert!(second.numbers().into_iter().eq(2 * MESSAGES..3 * MESSAGES));
    first.goes_unread();
    eventually("what the first one had not read", || {
        let came: BTreeSet<_> = second.numbers().into_iter().collect();
        (MESSAGES + 1..3 * MESSAGES).all(|number| came.contains(&number)).then_some(())
    });
    relay.fails_because("an old connection broke");
    relay.counts("forward_half_closed", 0);
    relay.balances(0);
    relay.kill();
}

/// The port stays open; only new connections use the new protocol.
#[test]
fn a_listener_speaks_another_protocol_on_its_own_port() {
    // A separate loopback address, so that no other test takes the port.
    let host = "127.16.2.1";
    let port = TcpListener::bind((host, 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
    let dir = tempfile::TempDir::new().expect("a directory");
    let certs = Certs::made(&dir.path().join("certs"), &["--name", host]);
    let pair = format!("cert = \"{}\"\nkey = \"{}\"", certs.path("server.pem"), certs.path("server-key.pem"));
    let collector = Collector::tcp(Framing::OctetCounting);
    let url = |scheme: &str| format!("{scheme}://{host}:{port}");
    let door = |scheme: &str| Door::parse(&url(scheme));
    let setup = |scheme: &str| {
        let keys = if scheme.ends_with("+tls") { &pair } else { "" };
        Setup::new().listen_with(&url(scheme), keys).section(&forward("central", &collector))
    };
    let becomes = |relay: &Relay, old: &Setup, scheme: &str| {
        reloads(relay, old, &setup(scheme));
        assert_eq!(relay.metrics().with("config_reloads_total", "refused"), 0, "{scheme}");
    };
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let old = setup("tcp");
    let relay = old.start();
    let mut plain = door("tcp").connect();
    plain.says(&container, b"0");
    collector.frames(1);

    becomes(&relay, &old, "tcp+tls");
    let mut secure = door("tcp+tls").connect_tls_as(TlsClient::ANONYMOUS, &certs, None);
    secure.says(&container, b"1");
    collector.frames(2);
    plain.says(&container, b"2");
    collector.frames(3);
    let mut refused = door("tcp").connect();
    refused.send(b"<30>plain");
    refused.is_closed();

    becomes(&relay, &old, "relp");
    let mut peer = RelpPeer::opened(&door("relp"));
    peer.says(2, "syslog", &container.says(b"3"));
    assert!(peer.frame().expect("an answer").is_ok());
    collector.frames(4);
    secure.says(&container, b"4");
    collector.frames(5);

    becomes(&relay, &old, "relp+tls");
    let mut refused = door("relp").connect();
    refused.send(b"1 open 0 \n");
    refused.is_closed();

    becomes(&relay, &old, "tcp");
    door("tcp").connect().says(&container, b"5");
    collector.frames(6);
    assert!(collector.numbers().into_iter().eq(0..6));
    let metrics = relay.metrics();
    let received = |scheme| metrics.with("listen_received_total", &format!("listener=\"{}\"", url(scheme)));
    assert_eq!(["tcp", "tcp+tls", "relp", "relp+tls"].map(received), [3, 2, 1, 0]);
    assert_eq!(metrics.with("config_reloads_total", "applied"), 4);
    relay.stops();
}

#[test]
fn a_forward_that_is_cut_off_is_not_connected_any_more() {
    let (hangs, away) = (Collector::tcp(Framing::OctetCounting), Collector::tcp_away(Framing::OctetCounting));
    let old = setup(&[forward("central", &hangs)]);
    let relay = old.start();
    relay.counts("forward_connected", 1);
    hangs.hangs();
    says_at_length(&relay, 0..1500, 8192);
    reloads(&relay, &old, &setup(&[forward("central", &away)]));
    relay.says("forward central: cut off in the middle");
    relay.counts("forward_connected", 0);
    relay.kill();
}

/// A stop does not wait for connections that a reload waits for.
#[test]
fn a_relay_stops_in_the_middle_of_a_reload() {
    let (hangs, away) = (Collector::tcp(Framing::OctetCounting), Collector::tcp_away(Framing::OctetCounting));
    let old = setup(&[forward("central", &hangs)]).listen("udp://127.0.0.1:0");
    let relay = old.start();
    relay.counts("forward_connected", 1);
    hangs.hangs();
    says_at_length(&relay, 0..1500, 8192);
    setup(&[forward("central", &away)]).replaces(&old);
    relay.signal(SIGHUP);
    relay.says("is no longer listened on");
    relay.signal(SIGTERM);
    relay.says("forward central: cut off in the middle");
    let said = relay.stderr();
    let at = |text| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(at("stopping: reading out the listeners") < at("cut off in the middle"), "{said}");
    relay.kill();
}

/// An operator who raises the buffer checks the metric to see the effect.
#[test]
fn a_receive_buffer_that_has_changed_is_measured() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let with = |keys: &str| {
        let setup = Setup::new().listen_with("udp://127.0.0.1:0", keys);
        setup.section(&forward("central", &collector))
    };
    let old = with("");
    let relay = old.start();
    let granted = || relay.metrics().sum("listen_receive_buffer_bytes");
    let before = granted();
    // Less than every user is granted.
    reloads(&relay, &old, &with("receive-buffer = \"64KiB\""));
    eventually("less", || (granted() < before).then_some(()));
    assert!(granted() >= 64 << 10);
    relay.stops();
}

/// The configuration is unchanged, but the files that it names have new contents.
#[test]
fn certificates_are_read_again() {
    let collector = Collector::tls(Framing::OctetCounting, true);
    let dir = tempfile::TempDir::new().expect("a directory");
    let others = tempfile::TempDir::new().expect("a directory");
    let others = Certs::others(&others);
    let files = ["ca.pem", "client.pem", "client-key.pem"];
    let puts = |certs: &Certs| {
        for name in files {
            std::fs::copy(certs.path(name), dir.path().join(name)).expect("a copy");
        }
    };
    puts(&others);
    let [ca, cert, key] = files.map(|name| dir.path().join(name).display().to_string());
    let keys = format!("ca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"");
    let relay = setup(&[format!("{}\n{keys}", forward("central", &collector))]).start();
    says(&relay, 0..10);
    relay.fails_because("TLS with 127.0.0.1: ");
    assert_eq!(collector.count(), 0);
    puts(Certs::get());
    relay.signal(SIGHUP);
    collector.frames(10);
    relay.has_delivered(10, 0);
    relay.stops();
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let old = setup(&[forward("central", &collector)]);
    let relay = old.start();
    let refused = |new: Setup, says: &str| {
        new.replaces(&old);
        relay.signal(SIGHUP);
        relay.says(says);
    };
    refused(setup(&["nonsense = 1".to_owned()]), "config: not reloaded, the old one stays in force: ");
    let elsewhere = setup(&[forward("central", &collector)]).section("[log]\nlevel = \"debug\"");
    refused(elsewhere, "[log] level has changed, and that needs a restart");
    // An address in use.
    let taken = setup(&[forward("central", &collector)]).listen(&collector.url());
    refused(taken, "in use");
    let no_ca = forward("central", &collector).replace("tcp://", "tcp+tls://") + "\nca = \"/nowhere.pem\"";
    refused(setup(&[no_ca]), "/nowhere.pem");
    says(&relay, 0..10);
    collector.frames(10);
    assert!(collector.numbers().into_iter().eq(0..10));
    let reloads = |result| relay.metrics().with("config_reloads_total", result);
    assert_eq!((reloads("refused"), reloads("applied")), (4, 0));
    relay.stops();
}

/// A smaller `max-size` frees the room at once, and not with the next line.
#[test]
fn a_spool_that_is_made_smaller_gives_room_back_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let with = |size: &str| {
        let forward = format!("[[forward]]\nto = \"tcp://{nobody}\"\nmax-backoff = \"200ms\"");
        setup(&[forward]).spool(&format!("max-size = \"{size}\""))
    };
    let old = with("16MiB");
    let relay = old.start();
    says_at_length(&relay, 0..4000, 600);
    let bytes = |relay: &Relay| relay.metrics().sum("spool_bytes");
    eventually("it is large", || (bytes(&relay) > 2_000_000).then_some(()));
    reloads(&relay, &old, &with("1MiB"));
    eventually("it is small", || (bytes(&relay) <= 1_048_576).then_some(()));
    assert!(relay.metrics().sum("forward_evicted_total") > 0);
    relay.stops();
}
