//! tests/corpus-drivers: messages of Docker's other logging drivers, and the values that `index.tsv` expects of each. Its README has the
//! columns.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::corpus::unescape;

/// A message.
pub struct Sent {
    pub file: String,
    pub bytes: Vec<u8>,
    columns: HashMap<String, String>,
}

/// The bytes of one connection or of one socket: a file of the corpus.
pub struct Recording {
    pub file: String,
    pub messages: Vec<Sent>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-drivers")
}

/// All recordings whose name begins with `prefix`, in the index's order. Fails on fewer than `least`.
pub fn recordings(prefix: &str, least: usize) -> Vec<Recording> {
    let index = fs::read_to_string(folder().join("index.tsv")).expect("the index");
    let mut lines = index.split_terminator('\n');
    let names: Vec<_> = lines.next().expect("a head").split('\t').map(str::to_owned).collect();
    let mut recordings: Vec<Recording> = Vec::new();
    for line in lines {
        let columns: HashMap<_, _> = names.iter().cloned().zip(line.split('\t').map(str::to_owned)).collect();
        let file = columns["file"].clone();
        if !file.starts_with(prefix) {
            continue;
        }
        let [offset, length] = ["offset", "length"].map(|name| columns[name].parse::<usize>().expect("a number"));
        let bytes = fs::read(folder().join(&file)).expect("a file of the index")[offset..][..length].to_vec();
        let sent = Sent { file: file.clone(), bytes, columns };
        match recordings.last_mut().filter(|last| last.file == file) {
            Some(last) => last.messages.push(sent),
            None => recordings.push(Recording { file, messages: vec![sent] }),
        }
    }
    assert!(recordings.len() >= least, "only {} recordings {prefix}*", recordings.len());
    recordings
}

impl Recording {
    pub fn is_udp(&self) -> bool {
        self.messages[0].of("transport") == "udp"
    }

    /// All messages, as one connection sent them.
    pub fn stream(&self) -> Vec<u8> {
        self.messages.iter().flat_map(|sent| sent.bytes.clone()).collect()
    }
}

impl Sent {
    pub fn of(&self, column: &str) -> &str {
        &self.columns[column]
    }

    /// The value that a correct reader finds; empty if the column has none.
    pub fn expected(&self, column: &str) -> Vec<u8> {
        let text = self.of(column);
        if text == "-" && column != "exp_message" { Vec::new() } else { unescape(text.as_bytes()) }
    }

    pub fn text(&self, column: &str) -> String {
        String::from_utf8(self.expected(column)).expect("UTF-8")
    }

    /// Additional fields.
    pub fn extra(&self) -> BTreeMap<String, Value> {
        match self.of("exp_extra") {
            "-" => BTreeMap::new(),
            json => serde_json::from_str(json).expect("JSON"),
        }
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> Vec<&[u8]> {
        let mut rest = &self.bytes[..];
        let cut = |length: &str| {
            let (datagram, behind) = rest.split_at(length.parse().expect("a length"));
            rest = behind;
            datagram
        };
        let datagrams = self.of("datagrams").split(',').map(cut).collect();
        assert!(rest.is_empty(), "{}", self.file);
        datagrams
    }
}
