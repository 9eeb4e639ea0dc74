//! The recipes of `docs/recipes`, and the values that replace the documented ones before a block runs.

use std::path::Path;

use crate::support::Certs;
pub use crate::support::pages::{Block, Verb, blocks_in, text};

/// The message that every recipe uses as its sample, as Docker sends it.
pub const SAMPLE: &str = "<30>1 2026-11-20T22:27:33.081562Z docker-host-1 nginx:1.25/proj-web-1/2a9052a5c36e 23223 \
                          nginx:1.25/proj-web-1/2a9052a5c36e - GET / 200\n";

/// All blocks of `docs/recipes`.
pub fn blocks() -> Vec<Block> {
    blocks_in("docs/recipes", 10)
}

/// The scheme and port of the target in the relay's config.
#[track_caller]
pub fn target(toml: &str) -> (&str, &str) {
    let url = toml.split("to = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a target");
    let (scheme, rest) = url.split_once("://").expect("a URL");
    (scheme, rest.rsplit(':').next().expect("a port"))
}

/// The relay's config with the test's values: port, loopback as the server, certificates, and a short replay window, so
/// that the relay soon drops acknowledged lines.
pub fn ours(toml: &str, port: u16) -> String {
    let (_, documented) = target(toml);
    let here = toml.replace("logs.example.com", "127.0.0.1");
    let here = here.replace(&format!(":{documented}\""), &format!(":{port}\""));
    with_certs(&here) + "replay-for = \"1s\"\n"
}

/// A program's config with the test's port, certificates and files.
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

pub fn with_certs(text: &str) -> String {
    text.replace("/certs/", &Certs::get().path(""))
}
