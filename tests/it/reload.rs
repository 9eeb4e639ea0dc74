//! SIGHUP: the configuration is read again, and taken over or refused while messages flow.

use crate::support::http::{get, status};
use crate::support::program::SIGHUP;
use crate::support::{Certs, Collector, Docker, Format, Framing, Relay, Setup, eventually, says, says_at_length};

fn forward(name: &str, to: &Collector) -> String {
    let keys = "framing = \"octet-counting\"\nmax-backoff = \"200ms\"\nreplay-for = \"1s\"";
    format!("[[forward]]\nname = \"{name}\"\nto = \"{}\"\n{keys}", to.url())
}

fn setup(forwards: &[String]) -> Setup {
    forwards.iter().fold(Setup::new().listen("tcp://127.0.0.1:0"), |setup, forward| setup.section(forward))
}

/// Writes the config that `relay` will read, and tells it to.
fn reloads(relay: &Relay, old: &Setup, new: &Setup) {
    let before = relay.metrics();
    let done = |metrics: &crate::support::Metrics| metrics.sum("config_reloads_total");
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
    relay.says("listening on udp://");
    says(&relay, 10..20);
    first.frames(20);
    // A new forward begins with the oldest line there is.
    eventually("the copy", || second.numbers().ends_with(&(10..20).collect::<Vec<_>>()).then_some(()));
    reloads(&relay, &old, &setup(&[forward("copy", &second)]));
    relay.says("forward central: no longer configured");
    relay.says("is no longer listened on");
    // Of one that is gone nothing says that it has no connection, also not when somebody has looked.
    status(&relay);
    let metrics = get(&relay, "/metrics").body;
    let has = |name: &str| metrics.contains(&format!("logferry_forward_connected{{forward=\"{name}\"}} "));
    assert!(has("copy") && !has("central"), "{metrics}");
    says(&relay, 20..30);
    eventually("the copy", || second.numbers().ends_with(&(10..30).collect::<Vec<_>>()).then_some(()));
    assert_eq!(first.count(), 20);
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

/// Who raises it looks at the metric to see whether it was of use.
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
    // Less than what everybody is granted.
    reloads(&relay, &old, &with("receive-buffer = \"64KiB\""));
    eventually("less", || (granted() < before).then_some(()));
    assert!(granted() >= 64 << 10);
    relay.stops();
}

/// Nothing in the configuration has changed, but what is in the files that it names.
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
    relay.says("TLS with 127.0.0.1: ");
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
    refused(elsewhere, "[log] has changed, and that needs a restart");
    // An address that is taken.
    let taken = setup(&[forward("central", &collector)]).listen(&format!("tcp://127.0.0.1:{}", collector.port()));
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
