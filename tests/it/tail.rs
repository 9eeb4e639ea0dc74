//! The live tail: permission to watch passing lines, the output for a viewer, and that a viewer never blocks the relay.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::support::http::{Browser, get};
use crate::support::{Collector, Framing, PATIENCE, Relay, Setup, says_at_length};

const ON: &str = "tail = true";
const BEGINS: &str = "# lines from now on";

fn setup(keys: &str, collector: &Collector) -> Setup {
    let setup = Setup::new().admin(keys).listen("tcp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// A viewer of the live tail.
struct Viewer(BufReader<TcpStream>);

impl Viewer {
    /// Sends a request, and reads the head of the answer. HTTP/1.0, so that the body has the lines without chunk headers.
    #[track_caller]
    fn asks(relay: &Relay, query: &str, headers: &str) -> (u16, Self) {
        let mut stream = TcpStream::connect(relay.admin()).expect("the admin port accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        write!(stream, "GET /tail{query} HTTP/1.0\r\n{headers}\r\n").expect("a request");
        let mut viewer = Self(BufReader::new(stream));
        let status = viewer.line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        while !viewer.line().trim().is_empty() {}
        (status, viewer)
    }

    /// Starts to watch.
    #[track_caller]
    fn watches(relay: &Relay, query: &str) -> Self {
        let (status, mut viewer) = Self::asks(relay, query, "");
        assert_eq!((status, &*viewer.line()), (200, BEGINS));
        viewer
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.truncate(line.trim_end().len());
        line
    }

    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("the end in time");
        rest
    }
}

#[test]
fn a_container_s_line_is_seen_while_it_passes() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup(ON, &collector).start();
    let mut all = Viewer::watches(&relay, "");
    let mut web = Viewer::watches(&relay, "?name=web-*&text=GET+%2Fa");
    let mut wire = relay.door().connect();
    let line = |app: &str, text: &str| format!("<14>1 2026-01-02T03:04:05Z host {app} - - - {text}\n");
    for (app, text) in [("db", "GET /a"), ("web-1", "POST /a"), ("web-1", "GET /a <b>\u{1b}[31m")] {
        wire.send(line(app, text).as_bytes());
    }
    let shown = "2026-01-02T03:04:05Z host web-1 info GET /a <b>#033[31m";
    assert_eq!(web.line(), shown);
    let seen = [all.line(), all.line(), all.line()];
    assert!(seen[0].ends_with("host db info GET /a") && seen[2] == shown, "{seen:?}");
    assert!(get(&relay, "/").body.contains("href=\"tail\""));
    relay.has_delivered(3, 0);
    relay.stops();
    assert_eq!(web.rest(), "");
}

#[test]
fn who_may_watch_is_asked() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let off = setup("", &collector).start();
    let (status, viewer) = Viewer::asks(&off, "", "");
    assert_eq!((status, &*viewer.rest()), (404, "the live tail is off; write `tail = true` in [admin]\n"));
    assert!(!get(&off, "/").body.contains("href=\"tail\""));
    off.stops();

    let setup = setup(&format!("{ON}\ntail-token-file = \"{{dir}}/token\""), &collector);
    fs::write(setup.path("token"), "hunter2\n").expect("a file");
    let relay = setup.start();
    let check = |query: &str, headers: &str, expected: u16, says: &str| {
        let (status, mut viewer) = Viewer::asks(&relay, query, headers);
        let line = viewer.line();
        assert!(status == expected && line.contains(says), "{query} {headers}: {status} {line}");
    };
    let token = "Authorization: Bearer hunter2\r\n";
    check("", "", 401, "the token is missing or wrong");
    check("", "Authorization: Bearer hunter\r\n", 401, "the token is missing or wrong");
    check("", "Authorization: Basic hunter2\r\n", 401, "the token is missing or wrong");
    check("", token, 200, BEGINS);
    check("?app=x", token, 400, "`app` is no filter");
    check("", &format!("{token}Sec-Fetch-Site: cross-site\r\n"), 403, "another web page asks");
    check("", &format!("{token}Host: evil.example\r\n"), 421, "ask for this page");
    // A renewed token is used at once.
    fs::write(setup.path("token"), "renewed").expect("a file");
    check("", token, 401, "the token is missing or wrong");
    fs::remove_file(setup.path("token")).expect("it is there");
    check("", token, 503, "cannot read the secret");
    // The page itself contains no lines.
    let page = Viewer::asks(&relay, "", "Accept: text/html\r\n").1.rest();
    assert!(page.contains("Live tail") && page.contains("name=\"token\""), "{page}");
    assert!(!relay.stderr().contains("hunter2"));
    relay.stops();
}

/// Viewers that do not read miss lines, and affect nothing else.
#[test]
fn nobody_waits_for_a_viewer() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup(ON, &collector).start();
    let mut viewers: Vec<Viewer> = (0..4).map(|_| Viewer::watches(&relay, "")).collect();
    let (status, fifth) = Viewer::asks(&relay, "", "");
    assert_eq!((status, &*fifth.rest()), (503, "4 viewers watch already, which is the maximum; close one of them\n"));
    // More than the kernel and the relay buffer for a viewer.
    says_at_length(&relay, 0..20_000, 2048);
    relay.has_delivered(20_000, 0);
    for path in ["/ready", "/metrics", "/status"] {
        assert_eq!(get(&relay, path).status, 200, "{path}");
    }
    // A viewer that leaves makes room for another.
    drop(viewers.pop());
    crate::support::eventually("there is room for another viewer", || {
        (Viewer::asks(&relay, "", "").0 == 200).then_some(())
    });
    let slow = &mut viewers[0];
    let missed = loop {
        let line = slow.line();
        if let Some(rest) = line.strip_prefix("# ") {
            break rest.to_owned();
        }
        assert!(line.contains(" host ") || line.contains(" info ") || line.len() > 100, "{line}");
    };
    assert!(missed.ends_with("lines were not shown: too many at once"), "{missed}");
    relay.stops();
}

/// In a real browser: the script shows the lines as text, and not as HTML.
#[test]
fn a_browser_shows_the_lines() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup(ON, &collector).start();
    let Some(browser) = Browser::get() else { return };
    let (status, _) = Viewer::asks(&relay, "", "Host: localhost\r\nAccept: text/html\r\n");
    assert_eq!(status, 200);
    let between = until(relay.admin(), relay.door().port(), "the last one");
    let dom = browser.dom(&format!("http://{between}/tail?name=web&text=one"), true);
    assert!(dom.contains("&lt;img src=x&gt; the first one\n") && dom.contains("the last one\n"), "{dom}");
    assert!(!dom.contains("<img") && !dom.contains("two") && dom.contains("The relay ended the tail."), "{dom}");
    let dom = browser.dom(&format!("http://{between}/tail"), false);
    assert!(dom.contains("This page needs JavaScript.") && dom.contains("curl -N"), "{dom}");
    relay.stops();
}

/// A proxy for the admin port. Once a viewer watches, a container sends three lines; after the `last` one the proxy ends the tail, because
/// virtual time in the browser stops while a request is pending.
fn until(admin: SocketAddr, door: u16, last: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let pass = move |mut here: TcpStream| -> std::io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let length = here.read(&mut buffer)?;
        let mut there = TcpStream::connect(admin)?;
        there.write_all(&buffer[..length])?;
        let (mut seen, mut speaks) = (Vec::new(), None);
        while !(String::from_utf8_lossy(&seen).contains(last) && seen.ends_with(b"\r\n")) {
            let length = there.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            here.write_all(&buffer[..length])?;
            seen.extend_from_slice(&buffer[..length]);
            if speaks.is_none() && String::from_utf8_lossy(&seen).contains(BEGINS) {
                let mut wire = TcpStream::connect(("127.0.0.1", door))?;
                for text in ["<img src=x> the first one", "number two", last] {
                    writeln!(wire, "<14>1 2026-01-02T03:04:05Z host web - - - {text}")?;
                }
                speaks = Some(wire);
            }
        }
        // End with the last chunk: a browser may discard the lines of an incomplete answer.
        here.write_all(if speaks.is_some() { b"0\r\n\r\n" } else { b"" })
    };
    thread::spawn(move || {
        for here in listener.incoming().flatten() {
            // A browser opens connections in advance: a silent connection must not block the next one.
            thread::spawn(move || pass(here));
        }
    });
    address
}
