//! An operator's view: the status page and `/status` are correct, only for permitted clients, and work in a real browser.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::dns::NAME;
use crate::support::http::{Browser, get, get_by, png_size, status};
use crate::support::program::SIGHUP;
use crate::support::{
    Collector, Docker, Door, Format, Framing, NameServer, Relay, Setup, eventually, says, says_at_length,
};

const COUNTED: &str = "framing = \"octet-counting\"";

fn setup(collector: &Collector) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), COUNTED)
}

/// Waits until the first forward has this state, and returns it.
#[track_caller]
fn forward(relay: &Relay, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
    eventually(what, || Some(status(relay)["forwards"][0].clone()).filter(&mut is))
}

/// The page's text without tags, blanks and line ends, so that words can be searched for together.
fn words(page: &str) -> String {
    let mut text = String::new();
    let main = page.split_once("<main>").expect("a beginning").1.split_once("</main>").expect("an end").0;
    for piece in main.split('<') {
        let words = piece.split_once('>').map_or(piece, |(_, words)| words);
        text.extend(words.split_whitespace().flat_map(|word| [word, " "]));
    }
    text
}

/// A probable mistake is logged once, and shown until the configuration is reloaded.
#[test]
fn a_tag_that_fits_no_template_is_told() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen_with("udp://127.0.0.1:0", "from = \"docker\"").forward(&collector.url());
    let setup = setup.section("[syslog]\ntag-template = \"{{.Name}}/{{.ID}}\"");
    let relay = setup.start();
    let mistakes = |relay: &Relay| status(relay)["mistakes"].as_array().expect("a list").clone();
    assert!(mistakes(&relay).is_empty());
    let mut wire = relay.door().connect();
    let stamp = chrono::Utc::now().format("%b %e %H:%M:%S");
    for tag in ["web", "web", "api/x", "web/2a9052a5c36e"] {
        wire.send(format!("<30>{stamp} {tag}[812]: hello").as_bytes());
    }
    relay.counts("syslog_unmatched_tags_total", 3);
    relay.counts("listen_received_total", 4);
    let told = "the tag `web` of a container does not fit `tag-template` ({{.Name}}/{{.ID}})";
    let shown = mistakes(&relay);
    assert!(shown.len() == 1 && shown[0].as_str().expect("text").contains(told), "{shown:?}");
    assert!(get(&relay, "/").body.contains("does not fit"));
    relay.signal(SIGHUP);
    relay.counts("config_reloads_total", 1);
    assert!(mistakes(&relay).is_empty());
    assert_eq!(relay.stops().stderr.matches("does not fit").count(), 1);
}

/// Each kind of invalid message has a name and an explanation.
#[test]
fn what_was_refused_is_shown_by_its_name() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new().listen("gelf+tcp://127.0.0.1:0").forward_with(&collector.url(), COUNTED).start();
    let shown = |reason: &str| {
        let losses = status(&relay)["losses"].as_array().expect("a list").clone();
        losses.into_iter().find(|loss| loss["reason"] == reason)
    };
    assert_eq!((shown("no-short-message"), shown("max-wait").expect("a row")["count"].as_u64()), (None, Some(0)));
    let mut wire = relay.door().connect();
    wire.send(b"{\"version\":\"1.1\"}\0{}\0");
    let both = eventually("both are counted", || shown("no-short-message").filter(|loss| loss["count"] == 2));
    // Of the messages of one read the last refusal is named.
    wire.send(b"[]\0");
    eventually("the other is counted", || shown("no-object"));
    assert_eq!((&both["count"], &both["unit"]), (&Value::from(2), &Value::from("connections and messages")));
    assert_eq!(both["says"], "a message has no short_message that is a text");
    let page = words(&get(&relay, "/").body);
    assert!(page.contains("no-short-message 2 connections and messages"), "{page}");
    // The page lists the peer once for each reason.
    let refused = &status(&relay)["listeners"][0]["refused_peers"];
    let seen = |at: usize| (refused[at]["address"].as_str(), refused[at]["reason"].as_str());
    assert_eq!(refused.as_array().map(Vec::len), Some(2), "{refused}");
    assert_eq!(seen(0), (Some("127.0.0.1"), Some("no-object")), "{refused}");
    assert_eq!(seen(1), (Some("127.0.0.1"), Some("no-short-message")), "{refused}");
    assert!(page.contains("Refused peers: 2") && page.contains("127.0.0.1 , no-short-message, "), "{page}");
}

#[test]
fn the_page_and_the_json_say_what_flows() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let containers = Setup::new().listen_with("tcp://127.0.0.1:0", "name = \"containers\"");
    let relay = containers.forward_with(&collector.url(), COUNTED).start();
    says(&relay, 0..1234);
    relay.has_delivered(1234, 0);
    let now = status(&relay);
    assert_eq!((&now["ready"], &now["hostname"]), (&Value::from(true), &Value::from(crate::support::docker::RELAY)));
    let central = &now["forwards"][0];
    assert_eq!((&central["state"], &central["waiting"]), (&Value::from("connected"), &Value::from(0)));
    assert_eq!((&central["delivered"], &central["oldest_waiting_seconds"]), (&Value::from(1234), &Value::Null));
    assert_eq!(format!("tcp://{}", central["address"].as_str().expect("an address")), collector.url());
    // A literal address has no TTL.
    assert_eq!((&central["ttl_left_seconds"], &central["last_error"]), (&Value::Null, &Value::Null));
    let listener = &now["listeners"][0];
    assert_eq!(listener["address"], format!("tcp://127.0.0.1:{}", relay.door().port()));
    assert_eq!(listener["name"], "containers");
    assert_eq!((&listener["received"], &listener["accepted"]), (&Value::from(1234), &Value::from(1)));
    assert!(now["losses"].as_array().expect("losses").iter().all(|loss| loss["count"] == 0));
    eventually("the last minutes", || {
        let rates = status(&relay)["history"]["received_per_second"].as_array().expect("rates").clone();
        rates.iter().any(|rate| rate.as_f64() > Some(0.0)).then_some(())
    });
    let page = words(&get(&relay, "/").body);
    for text in ["Connected", "Nothing was dropped.", &collector.url()] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.contains(&format!("tcp://127.0.0.1:{} containers ", relay.door().port())), "{page}");
    assert_eq!(page.matches("1,234").count(), 3, "delivered, received, and of one container: {page}");
    assert_eq!(now["containers"][0], serde_json::json!({ "name": "web", "received": 1234, "limited": 0 }));
    relay.stops();
}

#[test]
fn a_collector_that_is_away_is_said_with_its_error_and_what_waits() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup(&collector).start();
    let mut wire = relay.door().connect();
    // The line's timestamp is an hour and a half old.
    let made = (std::time::SystemTime::now() - std::time::Duration::from_secs(5400))
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    wire.send(format!("<14>1 {} host app - - - first\n", rfc3339(made.as_secs())).as_bytes());
    relay.has_spooled(1);
    says(&relay, 0..9);
    relay.has_spooled(10);
    let away = forward(&relay, "its error", |forward| forward["last_error"]["text"].is_string());
    assert!(away["last_error"]["text"].as_str().is_some_and(|text| text.contains("refused")), "{away}");
    assert!(matches!(away["state"].as_str(), Some("waits-to-retry" | "connecting")), "{away}");
    assert_eq!((&away["waiting"], &away["address"]), (&Value::from(10), &Value::Null));
    let oldest = away["oldest_waiting_seconds"].as_u64().expect("an age");
    assert!((5400..5460).contains(&oldest), "{away}");
    let page = words(&get(&relay, "/").body);
    assert!(page.contains("Collector not connected") && page.contains("Connection refused"), "{page}");
    assert!(page.contains("1 h 30 min"), "{page}");
    // An outage of the collector does not make the relay unready.
    assert_eq!(get(&relay, "/ready").status, 200);
    collector.comes();
    let here = forward(&relay, "all delivered", |forward| forward["waiting"] == 0);
    assert_eq!((&here["state"], &here["oldest_waiting_seconds"]), (&Value::from("connected"), &Value::Null));
    assert!(here["last_error"]["text"].is_string(), "what was stays to be seen");
    relay.stops();
}

/// After a restart the relay has no lines in memory, so it reads the age from the segment's file.
#[test]
fn the_oldest_line_is_found_on_the_disk() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    relay.door().connect().send(b"<14>1 2001-01-01T00:00:00+01:00 host app - - - first\n");
    relay.has_spooled(1);
    relay.kill();
    let relay = setup.start();
    let waits = forward(&relay, "what waits", |forward| forward["waiting"] == 1);
    assert!(waits["oldest_waiting_seconds"].as_u64() > Some(20 * 365 * 86_400), "{waits}");
    collector.comes();
    forward(&relay, "delivered", |forward| forward["oldest_waiting_seconds"].is_null());
    relay.stops();
}

#[test]
fn a_collector_that_hangs_is_said_to_stand_still() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), &format!("{COUNTED}\ndead-after = \"20s\"")).start();
    forward(&relay, "connected", |forward| forward["state"] == "connected");
    collector.hangs();
    says_at_length(&relay, 0..1500, 8192);
    forward(&relay, "it is stalled", |forward| forward["state"] == "stalled");
    assert!(words(&get(&relay, "/").body).contains("Stalled"));
    collector.goes_on();
    forward(&relay, "it goes on", |forward| forward["state"] == "connected" && forward["waiting"] == 0);
    relay.stops();
}

#[test]
fn a_name_that_moves_is_followed_on_the_page() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let local = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    let relay = setup.forward_with(&collectors[0].url_as(NAME), COUNTED).start();
    let before = forward(&relay, "connected", |forward| forward["state"] == "connected");
    assert!(before["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.2:")), "{before}");
    assert!(before["ttl_left_seconds"].is_u64() && before["target"] == before["to"][0], "{before}");
    names.moves_to("127.0.0.3");
    let there = |forward: &Value| forward["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.3:"));
    // The move is counted before the old connection is closed, and shown after that.
    let after = forward(&relay, "it has moved", |forward| there(forward) && forward["state"] == "connected");
    assert_eq!(after["moves"], 1, "{after}");
    assert!(words(&get(&relay, "/").body).contains("127.0.0.3:"));
    relay.stops();
}

#[test]
fn what_was_dropped_is_said_with_its_reason() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let keys = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"off\"";
    let relay = setup(&collector).spool(keys).start();
    says_at_length(&relay, 0..400, 4096);
    let dropped = eventually("all is spooled or dropped", || {
        let metrics = relay.metrics();
        let dropped = metrics.sum("spool_dropped_total");
        (metrics.sum("spool_spooled_total") + dropped >= 400).then_some(dropped)
    });
    let losses = status(&relay)["losses"].clone();
    let of = |reason: &str| losses.as_array().into_iter().flatten().find(|loss| loss["reason"] == reason).cloned();
    assert!(dropped > 100);
    assert_eq!(of("full").map(|loss| loss["count"].clone()), Some(Value::from(dropped)));
    let page = words(&get(&relay, "/").body);
    assert!(
        page.contains(&format!("full {dropped} lines")) && page.contains(" of loss that never happened "),
        "{page}"
    );
    assert_eq!(get(&relay, "/ready").status, 200, "a spool that is full by its own measure can be written");
    relay.stops();
}

#[test]
fn listeners_and_forwards_come_and_go_on_the_page() {
    let (first, second) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let section = |name: &str, to: &Collector| format!("[[forward]]\nname = \"{name}\"\nto = \"{}\"", to.url());
    let old = Setup::new().listen("tcp://127.0.0.1:0").section(&section("first", &first));
    let relay = old.start();
    let shown = |list: &str, key: &str| -> Vec<String> {
        let entries = status(&relay)[list].as_array().expect("a list").clone();
        entries.iter().map(|entry| entry[key].as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(shown("forwards", "name"), ["first"]);
    let new = Setup::new().listen("udp://127.0.0.1:0").section(&section("second", &second));
    new.replaces(&old);
    relay.signal(SIGHUP);
    eventually("the second alone", || (shown("forwards", "name") == ["second"]).then_some(()));
    let listeners = shown("listeners", "address");
    assert!(listeners.len() == 1 && listeners[0].starts_with("udp://127.0.0.1:"), "{listeners:?}");
    assert!(!listeners[0].ends_with(":0"), "the real port");
    relay.stops();
}

/// DNS rebinding: a foreign page's host name resolves to this address, and must be rejected.
#[test]
fn a_foreign_name_gets_no_page() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup(&collector).start();
    for path in ["/", "/status", "/status/dead-letters"] {
        assert_eq!(get_by(relay.admin(), "evil.example:9514", path).status, 421, "{path}");
        assert_eq!(get_by(relay.admin(), "relay:9514", path).status, 200, "{path}");
    }
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(get_by(relay.admin(), "logferry.logging.svc.cluster.local", path).status, 200, "{path}");
    }
    let page = get(&relay, "/");
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(page.head.contains(header), "{header}: {}", page.head);
    }
    assert_eq!(get(&relay, "/nowhere").status, 404);
    relay.stops();
}

#[test]
fn a_browser_shows_the_page_and_looks_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector).listen("unixgram://{dir}/<img src=x>&.sock");
    let relay = setup.start();
    says(&relay, 0..77);
    relay.has_delivered(77, 0);
    let (between, pages) = between(relay.admin());
    let url = format!("http://{between}/");
    for scripts in [false, true] {
        let Some(browser) = Browser::get() else { return };
        let before = pages.load(Ordering::Relaxed);
        let dom = browser.dom(&url, scripts);
        let shown = words(&dom);
        assert!(shown.contains("Connected") && shown.contains(&collector.url()), "{dom}");
        assert!(shown.contains("&lt;img src=x&gt;&amp;.sock") && !dom.contains("<img"), "{dom}");
        assert!(dom.contains("<table>") && dom.contains("<tbody>"), "{dom}");
        let looked = pages.load(Ordering::Relaxed) - before;
        assert!(if scripts { looked > 1 } else { looked == 1 }, "asked for {looked} times, with scripts: {scripts}");
        assert!(!scripts || dom.contains("hidden=\"\""), "it was answered: {dom}");
    }
    for (size, dark) in [((360, 1600), false), ((360, 1600), true), ((1200, 900), false), ((1200, 900), true)] {
        let Some(browser) = Browser::get() else { return };
        let picture = browser.picture(&url, size, dark);
        assert_eq!(png_size(&picture), Some(size));
        assert!((10_000..1_000_000).contains(&picture.len()), "{} bytes: is it empty?", picture.len());
    }
    relay.stops();
}

/// A proxy for the admin port that counts requests for the page. It runs until the process ends.
fn between(admin: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, pages) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
    let counter = pages.clone();
    thread::spawn(move || {
        for mut here in listener.incoming().flatten() {
            let counter = counter.clone();
            // A browser opens connections in advance: a silent connection must not block the next one.
            thread::spawn(move || {
                let mut request = vec![0; 16 * 1024];
                let Ok(length @ 1..) = here.read(&mut request) else { return };
                counter.fetch_add(usize::from(request.starts_with(b"GET / ")), Ordering::Relaxed);
                let Ok(mut there) = TcpStream::connect(admin) else { return };
                let mut answer = Vec::new();
                if there.write_all(&request[..length]).and_then(|()| there.read_to_end(&mut answer)).is_ok() {
                    let _ = here.write_all(&answer);
                }
            });
        }
    });
    (address, pages)
}

/// Far more silent connections than are served at once: if the relay waited for them, the answer would be late.
#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup(&collector).start();
    let connect = |_| TcpStream::connect(relay.admin()).expect("the kernel accepts");
    let mut silent: Vec<TcpStream> = (0..400).map(connect).collect();
    assert_eq!(get(&relay, "/live").status, 200);
    // The relay has answered before the timeout of the silent connections.
    let last = silent.last_mut().expect("one");
    last.set_nonblocking(true).expect("a socket option");
    let open = last.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(open, Err(ErrorKind::WouldBlock), "it is still open");
    // More than the maximum number of connections: the oldest ones are closed.
    silent.extend((0..200).map(connect));
    assert_eq!(get(&relay, "/live").status, 200);
    relay.stops();
}

fn rfc3339(seconds: u64) -> String {
    chrono::DateTime::from_timestamp(seconds as i64, 0)
        .expect("a time")
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// With port 0 everywhere, the file has the admin address, and `/status` has the listeners' addresses.
#[test]
fn the_address_file_leads_to_every_port() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen("tcp://127.0.0.1:0").forward("stdout:");
    let relay = setup.start();
    let file = setup.path("admin");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), format!("{}\n", relay.admin()));
    let ports: Vec<u16> = relay.doors().iter().map(Door::port).collect();
    assert!(ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");
    for door in relay.doors() {
        door.connect().says(&Docker::new(Format::Default, "web"), b"hello");
    }
    let listeners = || status(&relay)["listeners"].clone();
    eventually("both are heard", || (listeners()[0]["accepted"] == 2).then_some(()));
    relay.stops();
    assert!(!file.exists(), "nobody answers there any more");
}
