//! The pages of the admin port under axe-core, in a real browser: names, roles and contrast, on a phone and a desktop, light and dark.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use crate::support::http::Browser;
use crate::support::{Collector, Docker, Format, Framing, Setup, skip};

/// The path where `.ci/run` puts axe-core. It has another licence than this project, so it is not in the repository.
const AXE: &str = ".ci/cache/axe/axe_playwright_python/axe.min.js";
/// The script that runs axe and appends its report to the page.
const REPORT: &str = r#"axe.run().then(({ violations, passes }) => {
    const report = document.createElement("pre");
    report.id = "axe";
    report.textContent = passes.length + " rules hold\n" +
        violations.map(({ id, help, nodes }) => id + " (" + help + "): " + nodes.map((node) => node.html).join(" ")).join("\n");
    document.documentElement.append(report);
});"#;

#[test]
fn no_page_violates_a_rule_of_accessibility() {
    let Some(browser) = Browser::get() else { return };
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join(AXE);
    let Ok(axe) = fs::read_to_string(axe) else {
        let how = "pip install --no-deps --target .ci/cache/axe axe-playwright-python==0.1.8";
        return skip("axe-core", &format!("axe-core is not there ({how})"));
    };
    let (here, away) = (Collector::tcp(Framing::OctetCounting), Collector::tcp_away(Framing::OctetCounting));
    let setup = Setup::new().admin("tail = true\ntail-token-file = \"{dir}/token\"");
    fs::write(setup.path("token"), "token").expect("a file");
    let forward = |name: &str, to: &Collector| format!("[[forward]]\nname = \"{name}\"\nto = \"{}\"", to.url());
    let setup = setup.listen_with("tcp://127.0.0.1:0", "allow = [\"10.0.0.0/8\"]").listen("udp://127.0.0.1:0");
    let relay = setup.section(&forward("here", &here)).section(&forward("away", &away)).start();
    // A refused peer, and a container.
    drop(TcpStream::connect(("127.0.0.1", relay.doors()[0].port())));
    relay.doors()[1].connect().says(&Docker::new(Format::Default, "web"), b"hello");
    relay.counts("listen_received_total", 1);
    let between = with_script(relay.admin(), format!("{axe};{REPORT}"));
    for (path, size, dark) in [
        ("/", (390, 2400), false),
        ("/", (1280, 1000), true),
        ("/", (1280, 1000), false),
        ("/tail", (390, 900), true),
        ("/tail", (1280, 900), false),
        ("/status/dead-letters", (390, 900), false),
        ("/status/dead-letters", (1280, 900), true),
    ] {
        let dom = browser.dom_as(&format!("http://{between}{path}"), size, dark);
        let report = dom.split_once("<pre id=\"axe\">").expect("it has run").1.split_once("</pre>").expect("an end").0;
        let (rules, violations) = report.split_once(" rules hold\n").expect("a report");
        assert!(rules.parse::<usize>().is_ok_and(|rules| rules > 10), "{path}: {report}");
        assert_eq!(violations, "", "{path} {size:?}, dark: {dark}");
    }
    relay.stops();
}

/// A proxy for the admin port that adds a script to each page and removes the content security policy.
fn with_script(admin: SocketAddr, script: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let pass = move |mut here: TcpStream, script: &str| -> std::io::Result<()> {
        let (mut request, mut answer) = (vec![0; 16 * 1024], String::new());
        let length = here.read(&mut request)?;
        let mut there = TcpStream::connect(admin)?;
        there.write_all(&request[..length])?;
        there.read_to_string(&mut answer)?;
        let (_, page) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let page = page.replace("</html>", &format!("<script>{script}</script></html>"));
        write!(here, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}", page.len())
    };
    thread::spawn(move || {
        thread::scope(|scope| {
            for here in listener.incoming().flatten() {
                let script = &script;
                scope.spawn(move || pass(here, script));
            }
        });
    });
    address
}
