//! The recipes of `docs/recipes`: their blocks, each with the mark that stands above it, and what is filled in before one runs.
//!
//! A mark is an HTML comment in the line above a fence:
//!
//! - `run: NAME`            a part of the config that a test runs; `run: rsyslog-*` of each recipe that begins so
//! - `arrives: NAME FILE`   what the program writes into that file of [`SAMPLE`]
//! - `check: NAME`          our own settings for a program that cannot run here; `wire: NAME` [`SAMPLE`] as it is sent
//! - `not run: NAME`        that program's config

use std::fs;
use std::path::Path;

use crate::support::Certs;

/// The message that every recipe shows, as Docker sends it.
pub const SAMPLE: &str = "<30>1 2026-11-20T22:27:33.081562Z docker-host-1 nginx:1.25/proj-web-1/2a9052a5c36e 23223 \
                          nginx:1.25/proj-web-1/2a9052a5c36e - GET / 200\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Run,
    Arrives,
    Check,
    Wire,
    NotRun,
}

#[derive(Debug)]
pub struct Block {
    /// Page and line.
    pub at: String,
    pub verb: Verb,
    /// A recipe, or the beginning of some with a `*`.
    pub name: String,
    /// The word behind it, if any.
    pub file: String,
    pub language: String,
    pub text: String,
}

impl Block {
    pub fn is_of(&self, recipe: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => recipe.starts_with(start),
            None => self.name == recipe,
        }
    }
}

/// All blocks of all pages. One without a mark is a mistake.
pub fn blocks() -> Vec<Block> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes");
    let mut pages: Vec<_> =
        fs::read_dir(folder).expect("docs/recipes").map(|page| page.expect("a page").path()).collect();
    pages.sort();
    assert!(pages.len() >= 10, "only {} pages in docs/recipes", pages.len());
    pages.iter().flat_map(|page| blocks_of(page)).collect()
}

fn blocks_of(page: &Path) -> Vec<Block> {
    let name = page.file_name().expect("a file").to_string_lossy();
    let text = fs::read_to_string(page).expect("a page in UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let fences: Vec<usize> = (0..lines.len()).filter(|number| lines[*number].starts_with("```")).collect();
    assert!(fences.len().is_multiple_of(2), "{name}: a fence without an end");
    let pairs = fences.chunks_exact(2);
    pairs
        .map(|pair| {
            let at = format!("{name}:{}", pair[0] + 1);
            let (verb, what) =
                mark(lines[pair[0].saturating_sub(1)]).unwrap_or_else(|| panic!("{at}: a block without a mark"));
            let (name, file) = what.split_once(' ').unwrap_or((what, ""));
            Block {
                at,
                verb,
                name: name.to_owned(),
                file: file.to_owned(),
                language: lines[pair[0]].trim_start_matches('`').to_owned(),
                text: lines[pair[0] + 1..pair[1]].join("\n") + "\n",
            }
        })
        .collect()
}

fn mark(line: &str) -> Option<(Verb, &str)> {
    let (verb, what) = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.split_once(": ")?;
    let verb = match verb {
        "run" => Verb::Run,
        "arrives" => Verb::Arrives,
        "check" => Verb::Check,
        "wire" => Verb::Wire,
        "not run" => Verb::NotRun,
        _ => return None,
    };
    Some((verb, what))
}

/// The blocks of this kind and language, one after the other; at least one there must be.
#[track_caller]
pub fn text(blocks: &[Block], recipe: &str, verb: Verb, language: &str) -> String {
    let of = |block: &&Block| block.verb == verb && block.language == language && block.is_of(recipe);
    let texts: Vec<&str> = blocks.iter().filter(of).map(|block| block.text.as_str()).collect();
    assert!(!texts.is_empty(), "docs/recipes has no {language} block for {recipe}");
    texts.concat()
}

/// The scheme and port of our own settings.
#[track_caller]
pub fn target(toml: &str) -> (&str, &str) {
    let url = toml.split("to = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a target");
    let (scheme, rest) = url.split_once("://").expect("a URL");
    (scheme, rest.rsplit(':').next().expect("a port"))
}

/// Our own settings with what a test has: its port, loopback for the server, its certificates, and no time to wait until
/// what was acknowledged is old enough to be forgotten.
pub fn ours(toml: &str, port: u16) -> String {
    let (_, documented) = target(toml);
    let here = toml.replace("logs.example.com", "127.0.0.1");
    let here = here.replace(&format!(":{documented}\""), &format!(":{port}\""));
    with_certs(&here) + "replay-for = \"1s\"\n"
}

/// A program's settings with the test's port, certificates and files.
#[track_caller]
pub fn theirs(conf: &str, documented: &str, port: u16, dir: &Path) -> String {
    let forms = [("\"", "\""), ("(", ")"), (":", "\"")];
    let mut filled = conf.to_owned();
    for (before, after) in forms {
        filled = filled.replace(&format!("{before}{documented}{after}"), &format!("{before}{port}{after}"));
    }
    assert!(filled != conf, "port {documented} does not occur:\n{conf}");
    let filled = filled.replace("[::]", "127.0.0.1").replace("/var/log/", &format!("{}/", dir.display()));
    with_certs(&filled)
}

fn with_certs(text: &str) -> String {
    text.replace("/certs/", &Certs::get().path(""))
}
