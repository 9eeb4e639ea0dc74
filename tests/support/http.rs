//! HTTP answers of the relay's admin port, and a real browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Door, Relay, Wire, installed};

/// An answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Requests `path` with the address as the host.
#[track_caller]
pub fn get(relay: &Relay, path: &str) -> Answer {
    get_by(relay.admin(), &relay.admin().to_string(), path)
}

/// Requests `path` with another `Host`.
#[track_caller]
pub fn get_by(admin: SocketAddr, host: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(admin).expect("the admin port accepts");
    stream.set_read_timeout(Some(super::PATIENCE)).expect("a socket option");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// A connection that sends requests one by one, and waits for each answer.
pub struct HttpPeer(Wire);

impl HttpPeer {
    #[track_caller]
    pub fn connects(door: &Door) -> Self {
        Self::on(door.connect())
    }

    pub fn on(wire: Wire) -> Self {
        Self(wire.with_patience())
    }

    /// Sends bytes as they are.
    pub fn sends(&mut self, bytes: &[u8]) {
        self.0.send(bytes);
    }

    /// Sends bytes. False: the connection is broken.
    pub fn tries(&mut self, bytes: &[u8]) -> bool {
        let Wire::Tcp(stream) = &mut self.0 else { panic!("only TCP is tried") };
        stream.write_all(bytes).is_ok()
    }

    /// Sends a request with a body, and waits for its answer.
    #[track_caller]
    pub fn asks(&mut self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.sends(&[&head(request, headers, body.len()), body].concat());
        self.hears().expect("an answer")
    }

    /// The next answer except `100 Continue`; `None`: the connection ends without an answer.
    #[track_caller]
    pub fn hears(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.0.hears(&mut byte) {
                0 => return None,
                _ => head.push(byte[0]),
            }
        }
        let head = String::from_utf8(head).expect("UTF-8").to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        if status == 100 {
            return self.hears();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.trim().parse().expect("a number")];
        let mut rest = &mut body[..];
        while !rest.is_empty() {
            let length = self.0.hears(rest);
            rest = Some(&mut rest[length..]).filter(|_| length > 0)?;
        }
        Some(Answer { status, head, body: String::from_utf8(body).expect("UTF-8") })
    }

    /// Resets the connection.
    pub fn breaks(self) {
        self.0.breaks();
    }

    /// Closes the connection in good order.
    pub fn leaves(self) {
        self.0.close();
    }
}

/// The head of a request with a body of `length` bytes.
pub fn head(request: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{request} HTTP/1.1\r\nHost: relay\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes()
}

/// `/status`.
#[track_caller]
pub fn status(relay: &Relay) -> serde_json::Value {
    let answer = get(relay, "/status");
    assert_eq!(answer.status, 200, "{}", answer.head);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// A real browser, with a profile of its own.
pub struct Browser {
    program: PathBuf,
    profile: tempfile::TempDir,
}

impl Browser {
    /// `None`: it is not installed, and the test reported that it was skipped.
    pub fn get() -> Option<Self> {
        let program = installed("chromium", "chromium")?;
        Some(Self { program, profile: tempfile::TempDir::new().expect("a directory") })
    }

    /// The DOM of the page in the browser. Without `scripts`, JavaScript is off.
    #[track_caller]
    pub fn dom(&self, url: &str, scripts: bool) -> String {
        let mut command = self.command();
        if scripts {
            // Virtual time passes at once, until no request is pending and the script has polled again.
            command.arg("--virtual-time-budget=8000");
        } else {
            let settings = self.profile.path().join("Default");
            std::fs::create_dir_all(&settings).expect("a directory");
            let no_scripts = r#"{"profile":{"default_content_setting_values":{"javascript":2}}}"#;
            std::fs::write(settings.join("Preferences"), no_scripts).expect("its settings");
        }
        let output = command.args(["--dump-dom", url]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The DOM of the page in a window of this size, after its scripts have run.
    #[track_caller]
    pub fn dom_as(&self, url: &str, size: (u32, u32), dark: bool) -> String {
        let mut command = self.looks(size, dark);
        let output = command.args(["--virtual-time-budget=2000", "--dump-dom", url]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A picture of the page, as bytes of a PNG.
    #[track_caller]
    pub fn picture(&self, url: &str, size: (u32, u32), dark: bool) -> Vec<u8> {
        let file = self.profile.path().join("picture.png");
        let mut command = self.looks(size, dark);
        command.arg(format!("--screenshot={}", file.display())).arg(url);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(&file).expect("a picture")
    }

    fn looks(&self, (width, height): (u32, u32), dark: bool) -> Command {
        let mut command = self.command();
        command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
        command.arg(format!("--window-size={width},{height}"));
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking"]);
        command.arg(format!("--user-data-dir={}", Path::display(self.profile.path())));
        command
    }
}

/// Width and height from a PNG's header.
pub fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..16)?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some((number(0), number(4)))
}
