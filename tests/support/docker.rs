//! Messages of Docker's syslog driver for a container, byte for byte (moby `daemon/logger/syslog/syslog.go`).

use chrono::{DateTime, Utc};

use super::Line;

/// The driver's `syslog-format` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Default,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Default, Self::Rfc3164, Self::Rfc5424, Self::Rfc5424Micro];

    pub fn is_5424(self) -> bool {
        matches!(self, Self::Rfc5424 | Self::Rfc5424Micro)
    }
}

/// A container whose output is logged.
#[derive(Clone, Debug)]
pub struct Docker {
    pub format: Format,
    pub image: String,
    pub name: String,
    pub id: String,
    /// 30 is stdout, 27 stderr, both of facility `daemon`.
    pub pri: u8,
    /// The time of every message, from an engine in UTC.
    at: DateTime<Utc>,
}

/// The host the engine runs on, and dockerd's process.
pub const HOST: &str = "docker-host-1";
pub const DOCKERD: &str = "23223";
/// The relay's host name, for formats that carry no host.
pub const RELAY: &str = "relay-1";

impl Docker {
    pub fn new(format: Format, name: &str) -> Self {
        Self {
            format,
            image: "registry.local:5000/team/app:1.25".to_owned(),
            name: name.to_owned(),
            id: "2a9052a5c36e".to_owned(),
            pri: 30,
            at: Utc::now(),
        }
    }

    /// With another severity; Docker itself knows 6 (stdout) and 3 (stderr).
    pub fn severity(mut self, severity: u8) -> Self {
        self.pri = 24 + severity;
        self
    }

    /// One message, the LF at its end included.
    pub fn says(&self, text: &[u8]) -> Vec<u8> {
        let Self { image, name, id, pri, at, .. } = self;
        let tag = format!("{image}/{name}/{id}");
        let bsd = at.format("%b %e %H:%M:%S");
        let header = match self.format {
            Format::Default => format!("<{pri}>{bsd} {tag}[{DOCKERD}]: "),
            Format::Rfc3164 => format!("<{pri}>{bsd} {HOST} {tag}[{DOCKERD}]: "),
            _ => format!("<{pri}>1 {} {HOST} {tag} {DOCKERD} {tag} - ", self.stamp()),
        };
        [header.as_bytes(), text, b"\n"].concat()
    }

    /// The time of a message as the collector must see it.
    pub fn stamp(&self) -> String {
        let form = if self.format == Format::Rfc5424Micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
        self.at.format(form).to_string()
    }

    /// The time of a message in RFC 3164 on the way out.
    pub fn bsd_stamp(&self) -> String {
        self.at.format("%b %e %H:%M:%S").to_string()
    }

    pub fn host(&self) -> &'static str {
        if self.format == Format::Default { RELAY } else { HOST }
    }

    /// Fails unless `line` is `text` said by this container.
    #[track_caller]
    pub fn said(&self, text: &[u8], line: &Line) {
        assert_eq!(super::shown(&line.message), super::shown(text), "{line:?}");
        assert!(line.message == text, "{line:?}");
        assert_eq!(line.container(), [&*self.image, &*self.name, &*self.id], "{line:?}");
        let header = (line.pri, &*line.stamp, &*line.host, &*line.app, &*line.proc_id, &*line.msg_id);
        assert_eq!(header, (self.pri, &*self.stamp(), self.host(), &*self.name, &*self.id, "-"), "{line:?}");
    }
}

/// Container output that relays have failed on, ours or others.
pub fn hard_texts() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = [
        &b"hello from stdout"[..],
        b"  at com.example.Main(Main.java:42)  ",
        b" ",
        b"-",
        b"\t\x1b[31mred\x1b[0m\x7f",
        b"nul [\0] inside \0",
        b"10%\r50%\r100%\r",
        b"caf\xe9 \xff\xfe \xe2",
        b"\xef\xbb\xbfa BOM",
        "grüße, \u{2028}\u{85}日本".as_bytes(),
        b"[docker@32473 image=\"forged\" name=\"forged\" id=\"000000000000\"] x",
        b"[x y=\"z\"] \"quoted\" back\\slash ]",
        b"<34>1 2003-10-11T22:14:15.003Z forged.example.com su - ID47 - forged",
        b"<34>Oct 11 22:14:15 forged su[1]: forged",
        b"57 <30>1 2003-10-11T22:14:15Z forged - - - - forged",
        b"app[1]: nginx:1.25/other/000000000000[23223]: forged",
        b"#012 is not a newline",
        b"\r\x1b[1A\x1b[2K\x1b]0;title\x07over what stood there",
        b"\x9b2J\x85 in eight bits \xff",
        "\u{9b}2J\u{2029}\u{202e}turned".as_bytes(),
        b"5 <13>x",
        b"<",
        b"<191>",
        b"\"] [x@2 c=\"d\"] \\\"\\]\\",
        b"\"}, {\"facility\":\"kern\",\"message\":\"forged",
        b"1 syslog 9 <13>x",
    ]
    .map(<[u8]>::to_vec)
    .into();
    // The longest message that Docker sends.
    texts.push((0..16_384_u32).map(|at| b"0123456789abcdef "[at as usize % 17]).collect());
    texts
}
