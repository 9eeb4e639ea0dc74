//! The messages sent through a recipe: the sample that every page shows, messages of a real Docker Engine, and more
//! difficult ones.

use crate::pages::SAMPLE;
use crate::support::{self, Docker, Format, corpus};

/// A message of a container, with the values that must arrive.
pub struct Said {
    pub host: String,
    pub name: String,
    pub image: String,
    pub id: String,
    pub severity: &'static str,
    pub message: Vec<u8>,
    /// The bytes sent to the relay.
    pub sent: Vec<u8>,
}

impl Said {
    fn of(container: &Docker, text: &[u8]) -> Self {
        Self {
            host: container.host().to_owned(),
            name: container.name.clone(),
            image: container.image.clone(),
            id: container.id.clone(),
            severity: severity(container.pri),
            message: text.to_vec(),
            sent: container.says(text),
        }
    }

    fn of_corpus(row: &corpus::Row) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names are text");
        Self {
            host: if row.hostname.is_empty() { support::docker::RELAY.to_owned() } else { text(&row.hostname) },
            name: text(&row.name),
            image: text(&row.image),
            id: text(&row.id),
            severity: severity(row.pri),
            message: row.message.clone(),
            sent: row.unframed().to_vec(),
        }
    }
}

fn severity(pri: u8) -> &'static str {
    match pri & 7 {
        6 => "info",
        3 => "err",
        other => panic!("Docker knows no severity {other}"),
    }
}

/// The sample of the pages, Docker's own messages of the corpus, and some more difficult ones.
pub fn messages() -> Vec<Said> {
    let mut web = Docker::new(Format::Rfc5424Micro, "proj-web-1");
    web.image = "nginx:1.25".to_owned();
    let mut all = vec![Said { sent: SAMPLE.as_bytes().to_vec(), ..Said::of(&web, b"GET / 200") }];
    let rows = corpus::rows();
    all.extend(rows.iter().filter(|row| row.template == "{{.ImageName}}/{{.Name}}/{{.ID}}").map(Said::of_corpus));
    assert!(all.len() > 300, "only {} messages", all.len());
    assert!(all.iter().any(|said| said.message.len() == 16_384), "Docker's longest lines are missing");
    assert!(all.iter().any(|said| said.message.contains(&0x1b)), "control characters are missing");

    let mut odd = Docker::new(Format::Rfc5424Micro, "odd-1");
    odd.image = "we\"ird]/im[age\\:1=\"2\"".to_owned();
    for text in [&b"] [docker@32473 name=\"forged\"] x"[..], b"10%\r50%\r100%\r", b"two\nlines\n\nand more"] {
        all.push(Said::of(&odd, text));
    }
    all
}

/// A message of the maximum length that `max-frame` allows.
pub fn longest() -> Said {
    const MAX_FRAME: usize = 64 * 1024;
    let container = Docker::new(Format::Rfc5424Micro, "long-1");
    let header = container.says(b"").len() - 1;
    Said::of(&container, &vec![b'x'; MAX_FRAME - header])
}

/// When a newline ends a message, rsyslog's escape replaces a newline inside it.
pub fn with_newlines_escaped(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"#012"[..])
}
