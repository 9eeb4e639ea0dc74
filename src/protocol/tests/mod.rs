//! Access to tests/corpus-drivers for the tests of the protocols: recordings of Docker's other drivers, and the expected messages in
//! `index.tsv`. The README there describes the columns.

mod outlined;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A row of `index.tsv`: its columns by name.
pub type Row = HashMap<String, String>;

/// A file of the corpus.
pub fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).expect("a file of the index")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-drivers")
}

/// The wanted rows in the index's order. Checks their number.
pub fn rows(count: usize, is_wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
    let rows = rows_any(is_wanted);
    assert_eq!(rows.len(), count, "rows");
    rows
}

fn rows_any(is_wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
    let index = fs::read_to_string(folder().join("index.tsv")).expect("the index");
    let mut lines = index.split_terminator('\n').map(|line| line.split('\t').map(str::to_owned));
    let names: Vec<_> = lines.next().expect("a head").collect();
    let rows = lines.map(|fields| names.iter().cloned().zip(fields).collect::<Row>());
    rows.filter(is_wanted).collect()
}

/// The bytes of a row in its file.
pub fn sent<'f>(row: &Row, file: &'f [u8]) -> &'f [u8] {
    let [offset, length] = ["offset", "length"].map(|name| row[name].parse::<usize>().expect("a number"));
    &file[offset..][..length]
}

/// The value of a column: `-` is none; `(empty)` is an empty message.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = match text {
        "-" => return None,
        "(empty)" => return Some(out),
        text => text.bytes(),
    };
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().expect("an escape") {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [(); 2].map(|()| bytes.next().expect("a digit"));
                    u8::from_str_radix(std::str::from_utf8(&digits).expect("digits"), 16).expect("digits")
                }
                other => other,
            },
            byte => byte,
        });
    }
    Some(out)
}
