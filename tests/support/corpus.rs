//! The corpus: messages as a real Docker engine sent them, and the values that `index.tsv` expects of each.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// One row of `index.tsv`, unescaped; a `-` is an empty field.
pub struct Row {
    pub file: String,
    /// The framed message.
    pub bytes: Vec<u8>,
    pub framing: String,
    pub format: String,
    pub template: String,
    pub container_name: Vec<u8>,
    pub pri: u8,
    pub stamp_form: String,
    pub stamp: String,
    pub hostname: Vec<u8>,
    pub tag: Vec<u8>,
    pub image: Vec<u8>,
    pub name: Vec<u8>,
    pub id: Vec<u8>,
    pub pid: Vec<u8>,
    pub message: Vec<u8>,
}

impl Row {
    /// The message without its octet count.
    pub fn unframed(&self) -> &[u8] {
        if self.framing != "octet-count" {
            return &self.bytes;
        }
        let blank = self.bytes.iter().position(|b| *b == b' ').unwrap();
        let count: usize = std::str::from_utf8(&self.bytes[..blank]).unwrap().parse().unwrap();
        assert_eq!(self.bytes.len(), blank + 1 + count, "{}", self.file);
        &self.bytes[blank + 1..]
    }
}

/// All rows, in the index's order.
pub fn rows() -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "raw"));
    assert!(files.count() > 200, "the corpus is not there");
    let index = fs::read_to_string(folder.join("index.tsv")).unwrap();
    let mut lines = index.split_terminator('\n');
    let names: Vec<_> = lines.next().unwrap().split('\t').collect();
    let rows: Vec<_> = lines
        .map(|line| {
            let fields: HashMap<_, _> = names.iter().copied().zip(line.split('\t')).collect();
            let bytes = |name: &str| if fields[name] == "-" { Vec::new() } else { unescape(fields[name].as_bytes()) };
            let text = |name: &str| String::from_utf8(bytes(name)).unwrap();
            let number = |name: &str| fields[name].parse::<usize>().unwrap();
            let file = fs::read(folder.join(fields["file"])).unwrap();
            // A message can be a single dash; its length distinguishes it from an empty field.
            let message =
                if number("exp_message_len") == 0 { Vec::new() } else { unescape(fields["exp_message"].as_bytes()) };
            assert_eq!(message.len(), number("exp_message_len"), "{}", fields["file"]);
            Row {
                file: text("file"),
                bytes: file[number("offset")..][..number("length")].to_vec(),
                framing: text("framing"),
                format: text("format"),
                template: text("tag_template"),
                container_name: bytes("name"),
                pri: number("exp_pri").try_into().unwrap(),
                stamp_form: text("exp_ts_form"),
                stamp: text("exp_ts"),
                hostname: bytes("exp_hostname"),
                tag: bytes("exp_tag"),
                image: bytes("exp_image"),
                name: bytes("exp_name"),
                id: bytes("exp_id"),
                pid: bytes("exp_pid"),
                message,
            }
        })
        .collect();
    assert!(rows.len() > 400, "only {} rows", rows.len());
    rows
}

/// Undoes `\\`, `\t`, `\r`, `\n` and `\xNN`.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => match bytes.next().unwrap() {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                b'\\' => b'\\',
                other => panic!("\\{} in the index", char::from(other)),
            },
            byte => byte,
        };
        out.push(byte);
    }
    out
}
