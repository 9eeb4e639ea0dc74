//! Routing: forwards with a filter, rules that drop, a limit per container, and pieces of a long line.

use std::collections::BTreeMap;

use crate::support::program::SIGHUP;
use crate::support::{
    Certs, Collector, Docker, Format, Framing, Line, Relay, RelpCollector, RelpPeer, Setup, Wire, eventually,
};

const COUNTED: &str = "framing = \"octet-counting\"";

fn container(name: &str) -> Docker {
    Docker::new(Format::Rfc5424Micro, name)
}

/// The messages with their container: `web: hello`.
fn messages(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| format!("{}: {}", line.app, String::from_utf8_lossy(&line.message))).collect()
}

/// Waits until each forward has handled everything, and checks the counters.
fn is_done(relay: &Relay, received: u64) {
    relay.counts("listen_received_total", received);
    eventually("nothing waits", || (relay.metrics().sum("forward_waiting") == 0).then_some(()));
    relay.balances(0);
}

/// A relay with two forwards, one for everything and one with the filter `rule`.
fn two_forwards(setup: Setup, rule: &str) -> (Collector, Collector, Relay) {
    let (all, some) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let keys = |name: &str, more: &str| format!("name = \"{name}\"\n{COUNTED}\n{more}");
    let setup = setup.forward_with(&all.url(), &keys("all", "")).forward_with(&some.url(), &keys("some", rule));
    let relay = setup.start();
    (all, some, relay)
}

#[test]
fn a_forward_gets_the_lines_it_matches() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let rule =
        "match = [{ name = \"web-*\", severity = \"warning or worse\" }, { image = \"*/team/*\", name = \"api\" }]";
    let (all, some, relay) = two_forwards(setup, rule);
    let mut wire = relay.door().connect();
    for _ in 0..50 {
        wire.says(&container("web-1"), b"information");
        wire.says(&container("web-1").severity(3), b"an error");
        wire.says(&container("api"), b"an answer");
        wire.says(&container("db"), b"a query");
    }
    assert_eq!(all.lines(200).len(), 200);
    let expected = ["web-1: an error", "api: an answer"];
    assert_eq!(messages(&some.lines(100)), expected.repeat(50));
    is_done(&relay, 200);
    let metrics = relay.metrics();
    assert_eq!(metrics.with("forward_delivered_total", "some"), 100);
    assert_eq!(metrics.with("forward_unwanted_total", "some"), 100);
    assert_eq!((some.count(), metrics.with("forward_unwanted_total", "all")), (100, 0));
    relay.stops();
}

#[test]
fn what_nobody_wants_holds_nothing_up() {
    let setup = Setup::new().spool("max-size = \"1MiB\"").listen("tcp://127.0.0.1:0");
    let (all, some, relay) = two_forwards(setup, "match = { name = \"nobody\" }");
    let mut wire = relay.door().connect();
    for round in 1..=4 {
        (0..200).for_each(|_| wire.says(&container("web"), &[b'x'; 4000]));
        assert_eq!(all.lines(round * 200).len(), round * 200);
        is_done(&relay, round as u64 * 200);
    }
    wire.says(&container("nobody"), b"at last");
    assert_eq!(messages(&some.lines(1)), ["nobody: at last"]);
    is_done(&relay, 801);
    assert_eq!(relay.metrics().sum("forward_evicted_total"), 0);
    relay.stops();
}

#[test]
fn what_nobody_wants_waits_for_no_collector_either() {
    let setup = Setup::new().spool("max-size = \"1MiB\"").listen("tcp://127.0.0.1:0");
    let (all, mut away) = (Collector::tcp(Framing::OctetCounting), Collector::tcp_away(Framing::OctetCounting));
    let keys = |name: &str, more: &str| format!("name = \"{name}\"\n{COUNTED}\n{more}");
    let setup = setup.forward_with(&all.url(), &keys("all", ""));
    let urgent = keys("urgent", "match = { severity = \"crit or worse\" }");
    let relay = setup.forward_with(&away.url(), &urgent).start();
    let mut wire = relay.door().connect();
    for round in 1..=4 {
        (0..200).for_each(|_| wire.says(&container("web"), &[b'x'; 4000]));
        assert_eq!(all.lines(round * 200).len(), round * 200);
        is_done(&relay, round as u64 * 200);
    }
    assert_eq!(relay.metrics().sum("forward_evicted_total"), 0);
    // The first line that matches the filter waits, and so do the lines after it.
    wire.says(&container("web").severity(2), b"help");
    wire.says(&container("web"), b"nothing much");
    relay.counts("listen_received_total", 802);
    eventually("two lines wait", || (relay.metrics().with("forward_waiting", "urgent") == 2).then_some(()));
    away.comes();
    assert_eq!(messages(&away.lines(1)), ["web: help"]);
    is_done(&relay, 802);
    assert_eq!(relay.metrics().with("forward_resent_total", "urgent"), 0);
    relay.stops();
}

#[test]
fn rules_hold_for_relp_and_its_numbers() {
    // Two logferries: the second one gets each line with its number, despite the gaps.
    let away = Collector::tcp_away(Framing::OctetCounting);
    let central = Setup::new().listen("relp://127.0.0.1:0").forward_with(&away.url(), COUNTED).start();
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let to = format!("relp://127.0.0.1:{}", central.door().port());
    let relay = setup.forward_with(&to, "match = { name = [\"web\", \"!noisy\"], severity = \"err\" }").start();
    let mut wire = relay.door().connect();
    for number in 0..300 {
        let severity = if number % 3 == 0 { 3 } else { 6 };
        wire.says(&container("web").severity(severity), number.to_string().as_bytes());
    }
    is_done(&relay, 300);
    central.has_spooled(100);
    assert_eq!(relay.metrics().sum("forward_unwanted_total"), 200);
    let mut away = away;
    away.comes();
    let expected: Vec<usize> = (0..300).step_by(3).collect();
    away.lines(100);
    assert_eq!(away.numbers(), expected);
    relay.stops();
    central.stops();
}

#[test]
fn answers_retire_what_is_not_wanted_between_them() {
    let collector = RelpCollector::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "match = { name = \"web\" }").start();
    // One write is one batch. In a batch of its own, a line's acknowledgement would also retire the unwanted lines after it.
    let lines = ["db", "web", "db", "web", "db"].map(|name| container(name).says(b"x")).concat();
    relay.door().connect().send(&lines);
    relay.has_spooled(5);
    let mut peer = collector.opens_numbered();
    let numbered: Vec<_> = (0..2).map(|_| peer.frame().expect("a frame")).collect();
    let numbers = numbered.iter().map(|frame| String::from_utf8_lossy(&frame.data).lines().next().map(str::to_owned));
    let numbers: Vec<String> = numbers.map(|line| line.expect("session and number")).collect();
    assert!(numbers[0].ends_with(" 1") && numbers[1].ends_with(" 3"), "{numbers:?}");
    peer.answers(numbered[0].txnr, "200 OK");
    relay.counts("forward_waiting", 3);
    peer.answers(numbered[1].txnr, "200 OK");
    is_done(&relay, 5);
    relay.stops();
}

#[test]
fn what_is_dropped_is_counted_and_not_told() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let drop = "[[drop]]\nname = \"noisy-*\"\nseverity = \"info or milder\"\n[[drop]]\nhost = \"old-*\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen("relp://127.0.0.1:0").section(drop);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let mut wire = relay.doors()[0].connect();
    for _ in 0..20 {
        wire.says(&container("noisy-1"), b"noise");
        wire.says(&container("noisy-1").severity(4), b"a warning");
        wire.says(&container("web"), b"hello");
        wire.send(b"<13>1 2026-11-20T22:27:33Z old-7 app - - - not a container's\n");
    }
    let mut peer = RelpPeer::opened(&relay.doors()[1]);
    peer.says(2, "syslog", &container("noisy-2").says(b"noise"));
    peer.says(3, "syslog", &container("web").says(b"by RELP"));
    peer.says(4, "syslog", &container("noisy-2").says(b"noise"));
    let answers: Vec<u32> = peer.frames(3).iter().map(|frame| frame.txnr).collect();
    assert_eq!(answers, [2, 3, 4], "what is dropped is answered too, in its turn");
    let lines = messages(&collector.lines(41));
    assert_eq!(lines[..40], ["noisy-1: a warning", "web: hello"].repeat(20));
    assert_eq!(lines[40], "web: by RELP");
    is_done(&relay, 83);
    let metrics = relay.metrics();
    assert_eq!(metrics.with("spool_dropped_total", "rule"), 42);
    assert_eq!(metrics.sum("spool_dropped_total"), 42);
    relay.stops();
    assert_eq!(collector.count(), 41, "nobody is told of what nobody wanted");
}

/// Mainly for health checks.
#[test]
fn a_message_is_dropped_by_its_text() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let drop = "[[drop]]\nmessage = \"*GET /healthz*\"\n\
                [[drop]]\nname = \"web\"\nmessage-regex = 'status=(200|204)\\b'\n\
                [[drop]]\nseverity = \"debug\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen_with("tcp://127.0.0.2:0", "multiline = \"indented\"");
    let relay =
        setup.section(drop).section("[syslog]\nrejoin = \"256KiB\"").forward_with(&collector.url(), COUNTED).start();
    let mut wire = relay.doors()[0].connect();
    let long = [&[b'x'; 16_384][..], b" GET /healthz"].concat();
    for _ in 0..10 {
        wire.says(&container("web"), b"GET /healthz HTTP/1.1");
        wire.says(&container("web"), b"status=200 ok");
        wire.says(&container("api"), b"status=200 ok");
        wire.says(&container("web"), b"status=2001");
        wire.send(b"<13>1 2026-11-20T22:27:33Z proxy app - - - GET /healthz of no container\n");
        wire.send(b"<13>1 2026-11-20T22:27:33Z proxy app - - - GET /other\n");
        // A line's pieces are joined before the rule tests the text.
        says_in_pieces(&mut wire, &container("web"), &long);
    }
    let expected = ["api: status=200 ok", "web: status=2001", "app: GET /other"].repeat(10);
    assert_eq!(messages(&collector.lines(30)), expected);
    // Multi-line messages are joined before the rule tests the text.
    let mut wire = relay.doors()[1].connect();
    for text in ["GET /healthz", "  of the first", "GET /", "  GET /healthz", "GET /", "  of all"] {
        wire.says(&container("web"), text.as_bytes());
    }
    assert_eq!(messages(&collector.lines(31))[30], "web: GET /\n  of all");
    relay.counts("forward_pending", 0);
    relay.balances(0);
    assert_eq!(relay.metrics().with("spool_dropped_total", "rule"), 42);
    relay.stops();
}

#[test]
fn a_forward_wants_lines_by_their_text() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let rule =
        "match = [{ message = [\"*timeout*\", \"!*retry*\"] }, { message-regex = '^panic: ' }, { driver = \"gelf\" }]";
    let (all, some, relay) = two_forwards(setup, rule);
    let mut wire = relay.door().connect();
    for text in ["a timeout", "a timeout, retry 3", "panic: no", "no panic: yet", ""] {
        wire.says(&container("web"), text.as_bytes());
    }
    assert_eq!(all.lines(5).len(), 5);
    assert_eq!(messages(&some.lines(2)), ["web: a timeout", "web: panic: no"]);
    is_done(&relay, 5);
    relay.stops();
}

#[test]
fn numbered_lines_that_are_dropped_leave_gaps_in_the_numbers() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let drop = "[[drop]]\nname = \"noisy\"";
    let central = Setup::new().listen("relp://127.0.0.1:0").section(drop).forward_with(&collector.url(), COUNTED);
    let central = central.start();
    let to = format!("relp://127.0.0.1:{}", central.door().port());
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward(&to).start();
    let mut wire = relay.door().connect();
    for number in 0..90 {
        let name = if number % 3 == 0 { "web" } else { "noisy" };
        wire.says(&container(name), number.to_string().as_bytes());
    }
    collector.lines(30);
    assert_eq!(collector.numbers(), (0..90).step_by(3).collect::<Vec<_>>());
    relay.has_delivered(90, 0);
    is_done(&central, 90);
    assert_eq!(central.metrics().with("spool_dropped_total", "repeated"), 0);
    relay.stops();
    central.stops();
}

#[test]
fn what_is_sent_again_is_known_again_though_some_of_it_is_dropped() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("relp://127.0.0.1:0").section("[[drop]]\nname = \"noisy\"");
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let lines = ["noisy", "web", "noisy", "noisy", "web", "web", "noisy"].map(|name| {
        let line = format!("<30>1 2026-11-20T22:27:33Z h {name} - - [docker@32473 name=\"{name}\"] hello");
        format!("{} {line}", line.len())
    });
    // The second session starts at the fourth line: the sender knows that the first lines have arrived.
    for from in [0, 3] {
        let mut peer = RelpPeer::connects(relay.door());
        peer.says(1, "open", b"relp_version=0\ncommands=syslog,numbered\nstream=somebody/else");
        peer.says(2, "numbered", format!("7 {}\n{}", 1 + from, lines[from..].concat()).as_bytes());
        assert!(peer.frames(2).iter().all(|answer| answer.is_ok()));
    }
    is_done(&relay, 11);
    assert_eq!(messages(&collector.lines(3)), ["web: hello"; 3]);
    let metrics = relay.metrics();
    let dropped = |reason: &str| metrics.with("spool_dropped_total", reason);
    assert_eq!((dropped("rule"), dropped("repeated")), (6, 2));
    relay.stops();
}

#[test]
fn where_only_docker_sends_nobody_else_names_a_container() {
    let (docker_s, plain) = ("unix://{dir}/docker.sock", "tcp://127.0.0.1:0");
    let setup = Setup::new().listen_with(docker_s, "name = \"containers\"\nfrom = \"docker\"").listen(plain);
    let (all, web, relay) = two_forwards(setup, "match = { name = \"web\" }");
    let forged = |text: &str| {
        let element = "[docker@32473 image=\"nginx\" name=\"web\" id=\"2a9052a5c36e\"]";
        format!("<30>1 2026-11-20T22:27:33Z n7 web 2a9052a5c36e - {element} {text}")
    };
    let mut wires: Vec<Wire> = relay.doors().iter().map(|door| door.connect()).collect();
    wires[0].says(&container("web"), b"from web");
    // A container's output, and another program's messages.
    wires[0].says(&container("db"), forged("printed").as_bytes());
    wires[0].send(format!("{}\n", forged("sent")).as_bytes());
    wires[1].send(format!("{}\n", forged("elsewhere")).as_bytes());
    let lines = all.lines(4);
    let said = |end: &str| lines.iter().find(|line| line.message.ends_with(end.as_bytes())).expect("it has come");
    assert_eq!(said("printed").container()[1], "db");
    assert_eq!(said("printed").message, forged("printed").as_bytes());
    let sent = said("sent");
    assert_eq!((sent.container(), &*sent.app, sent.pri), (Default::default(), "-", 30));
    assert_eq!(sent.message, forged("sent").strip_prefix("<30>").expect("a priority").as_bytes());
    assert_eq!(sent.param("logferry@32473", "listener"), "containers");
    assert_eq!(said("elsewhere").container(), <[String; 3]>::default());
    assert_eq!(messages(&web.lines(1)), ["web: from web"]);
    is_done(&relay, 4);
    relay.stops();
}

/// Common values for `tag`: the name only, or with the ID.
#[test]
fn a_container_has_its_name_by_any_usual_tag() {
    let setup = Setup::new().listen_with("udp://127.0.0.1:0", "from = \"docker\"").listen("udp://127.0.0.2:0");
    let (all, web, relay) = two_forwards(setup, "match = { name = \"web\" }");
    let stamp = chrono::Utc::now().format("%b %e %H:%M:%S");
    let mut sent = 0;
    for (door, tag) in [(0, "web"), (0, "web/2a9052a5c36e"), (0, "2a9052a5c36e"), (1, "web"), (1, "web/2a9052a5c36e")] {
        relay.doors()[door].connect().send(format!("<30>{stamp} {tag}[812]: {tag} at {door}").as_bytes());
        sent += 1;
        all.lines(sent);
    }
    let texts: Vec<_> =
        web.lines(3).into_iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect();
    assert_eq!(texts, ["web at 0", "web/2a9052a5c36e at 0", "web/2a9052a5c36e at 1"]);
    let by_id = &all.lines(5)[2];
    assert_eq!(by_id.container(), ["", "", "2a9052a5c36e"]);
    is_done(&relay, 5);
    relay.stops();
}

/// Marks are trusted from known relays, and from all senders as long as no rule depends on them.
#[test]
fn marks_are_believed_of_relays_and_of_others_while_nothing_asks() {
    let certs = Certs::get();
    let mutual = format!("{}client-ca = \"{}\"\n", certs.listen(), certs.path("ca.pem"));
    let setup = || {
        let setup = Setup::new().listen("tcp://127.0.0.1:0").listen_with("tcp://127.0.0.2:0", "marks = \"keep\"");
        setup.listen_with("tcp+tls://127.0.0.1:0", &mutual).listen("relp://127.0.0.1:0")
    };
    let sent = |text: &str| {
        let marks = "[docker@32473 name=\"web\"][fields@32473 a=\"b\"][logferry@32473 peer=\"192.0.2.7\"][x y=\"z\"]";
        format!("<30>1 2026-11-20T22:27:33Z n7 app - - {marks} {text}").into_bytes()
    };
    let say_all = |relay: &Relay| {
        let [plain, kept, tls, relp] = relay.doors() else { panic!("four listeners") };
        plain.connect().send_counted(&sent("plain"));
        kept.connect().send_counted(&sent("kept"));
        let tls =
            tls.connect_tls(crate::support::TlsClient { identified: true, ..crate::support::TlsClient::ANONYMOUS });
        let mut tls = tls;
        tls.send_counted(&sent("mutual"));
        let mut peer = RelpPeer::connects(relp);
        peer.says(1, "open", b"relp_version=0\ncommands=syslog");
        peer.says(2, "syslog", &sent("relp"));
        assert!(peer.frames(2).iter().all(|answer| answer.is_ok()));
        tls
    };
    let believed = |lines: Vec<Line>| {
        let mut texts: Vec<String> = lines
            .into_iter()
            .filter_map(|line| {
                assert_eq!(line.param("x", "y"), "z", "{line:?}");
                let claims = [("docker@32473", "name"), ("fields@32473", "a"), ("logferry@32473", "peer")];
                let there = claims.iter().filter(|(id, name)| !line.param(id, name).is_empty()).count();
                assert!(there == 0 || there == 3, "{line:?}");
                (there == 3).then(|| String::from_utf8_lossy(&line.message).into_owned())
            })
            .collect();
        texts.sort();
        texts
    };
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup().forward_with(&collector.url(), COUNTED).start();
    let _tls = say_all(&relay);
    assert_eq!(believed(collector.lines(4)), ["kept", "mutual", "plain", "relp"]);
    relay.stops();
    let (all, web, relay) = two_forwards(setup(), "match = { name = \"web\" }");
    let _tls = say_all(&relay);
    assert_eq!(believed(all.lines(4)), ["kept", "mutual", "relp"]);
    assert_eq!(web.lines(3).len(), 3);
    is_done(&relay, 4);
    relay.stops();
}

#[test]
fn a_line_says_by_which_listener_it_came_and_nobody_else_can() {
    let (tls, plain) = ("tcp+tls://127.0.0.1:0", "tcp://127.0.0.1:0");
    let setup = Setup::new().listen_with(tls, &format!("name = \"dmz\"\n{}", Certs::get().listen())).listen(plain);
    let (all, dmz, relay) = two_forwards(setup, "match = { listener = \"dmz\" }");
    let tls = crate::support::TlsClient::ANONYMOUS;
    let mut theirs = relay.doors()[0].connect_tls(tls);
    theirs.says(&container("web"), b"from the dmz");
    theirs.send_counted(
        b"<13>1 2026-11-20T22:27:33Z h app - - [x@1 a=\"b\"][logferry@32473 cut=\"true\" listener=\"inside\"] lies",
    );
    let mut wire = relay.doors()[1].connect();
    wire.says(&container("api"), b"from inside");
    wire.send(b"<13>1 2026-11-20T22:27:33Z h app - - [logferry@32473 listener=\"dmz\"] more lies\n");
    // Malformed, but some parsers accept it.
    let malformed = b"[logferry@32473 listener=\"dmz\" ] the same";
    wire.send(&[b"<13>1 2026-11-20T22:27:33Z h app - - ", &malformed[..], b"\n"].concat());
    let by_message: BTreeMap<Vec<u8>, Line> =
        all.lines(5).into_iter().map(|line| (line.message.clone(), line)).collect();
    let listener = |message: &[u8]| by_message[message].param("logferry@32473", "listener");
    assert_eq!(["from the dmz", "lies"].map(|text| listener(text.as_bytes())), ["dmz", "dmz"]);
    assert_eq!([b"from inside", &b"more lies"[..], malformed].map(listener), ["", "", ""]);
    let lies = &by_message[&b"lies"[..]];
    assert_eq!((lies.param("x@1", "a"), lies.param("logferry@32473", "cut")), ("b".to_owned(), String::new()));
    assert_eq!(messages(&dmz.lines(2)), ["web: from the dmz", "app: lies"]);
    is_done(&relay, 5);
    relay.stops();
    drop((theirs, wire));
}

#[test]
fn a_loud_container_takes_nothing_from_the_others() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen("udp://127.0.0.1:0");
    let limit = "[syslog]\nrate-limit = \"1/s\"\nrate-burst = 100";
    let relay = setup.section(limit).forward_with(&collector.url(), COUNTED).start();
    let mut wires = [relay.doors()[0].connect(), relay.doors()[1].connect()];
    for number in 0..1000 {
        wires[0].says(&container("loud"), b"me me me");
        // A message at another listener with the quiet container's name does not use up its limit.
        wires[1].says(&container("quiet"), b"forged");
        if number % 20 == 0 {
            wires[0].says(&container("quiet"), b"hello");
        }
    }
    eventually("all is received", || (relay.metrics().sum("listen_received_total") >= 2050).then_some(()));
    let cut = relay.metrics().with("spool_dropped_total", "rate");
    assert!((1..=1800).contains(&cut), "{cut}");
    // The rest has arrived, and a notice about the dropped lines.
    let told = eventually("what was cut is told", || {
        let lines: Vec<Line> = collector.frames(0).iter().map(|frame| Line::read(frame)).collect();
        let gaps = lines.iter().filter(|line| line.param("gap@32473", "reason") == "rate");
        let told: i64 = gaps.map(|gap| gap.param("gap@32473", "lines").parse::<i64>().expect("a number")).sum();
        (told == cut).then_some(lines)
    });
    let of = |text: &[u8]| told.iter().filter(|line| line.message == text).count();
    let limited = of(b"me me me") + of(b"forged");
    assert_eq!((of(b"hello"), limited as i64), (50, 2000 - cut));
    relay.balances(0);
    relay.stops();
}

#[test]
fn a_limit_can_be_changed_while_it_runs() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = || {
        let setup = Setup::new().listen("tcp://127.0.0.1:0");
        setup.forward_with(&collector.url(), COUNTED)
    };
    let old = setup().section("[[drop]]\nname = \"web\"");
    let relay = old.start();
    let mut wire = relay.door().connect();
    wire.says(&container("web"), b"dropped");
    relay.counts("spool_dropped_total", 1);
    setup().section("[[drop]]\nname = \"api\"").replaces(&old);
    relay.signal(SIGHUP);
    relay.counts("config_reloads_total", 1);
    wire.says(&container("web"), b"taken");
    wire.says(&container("api"), b"dropped");
    assert_eq!(messages(&collector.lines(1)), ["web: taken"]);
    relay.counts("spool_dropped_total", 2);
    relay.stops();
}

/// Sends a line as Docker does: in pieces of 16 KiB.
fn says_in_pieces(wire: &mut Wire, container: &Docker, text: &[u8]) {
    text.chunks(16 * 1024).for_each(|piece| wire.says(container, piece));
}

#[test]
fn pieces_become_one_line_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen("udp://127.0.0.1:0");
    let setup = setup
        .section("[syslog]\nrejoin = \"256KiB\"\n[[drop]]\nname = \"secret\"")
        .forward_with(&collector.url(), COUNTED);
    let relay = setup.start();
    let text = |length: usize| -> Vec<u8> { (0..length).map(|at| b'a' + (at % 23) as u8).collect() };
    let long = [40_000, 100_000, 16_385, 16_383].map(text);
    let mut wires = [relay.doors()[0].connect(), relay.doors()[1].connect()];
    for (wire, name) in wires.iter_mut().zip(["by-tcp", "by-udp"]) {
        for text in &long {
            says_in_pieces(wire, &container(name), text);
        }
    }
    for line in collector.lines(8) {
        assert!(long.contains(&line.message), "{} bytes", line.message.len());
    }
    // A line with exactly the length of a piece arrives, too, after a short wait.
    let exact = text(16 * 1024);
    wires[0].says(&container("by-tcp"), &exact);
    assert_eq!(collector.lines(9)[8].message, exact);
    // A rule also drops lines that have waited.
    wires[0].says(&container("secret"), &exact);
    relay.counts("spool_dropped_total", 1);
    // A line that still waits is delivered when the relay stops.
    wires[0].says(&container("by-tcp"), &exact);
    let metrics = relay.metrics();
    let pieces = long.iter().map(|text| text.chunks(16 * 1024).count()).sum::<usize>() as i64;
    assert_eq!(metrics.with("syslog_joined_total", ""), 2 * (pieces - long.len() as i64));
    relay.counts("listen_received_total", 2 * pieces as u64 + 3);
    relay.stops();
    assert_eq!(collector.lines(10)[9].message, exact);
}
