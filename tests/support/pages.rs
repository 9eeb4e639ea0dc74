//! Pages of `docs` whose blocks are run: each block with its mark in the line above.
//!
//! A mark is an HTML comment in the line above a fence:
//!
//! - `run: NAME`            a part of the config, or a query, that a test runs; `run: rsyslog-*` of each recipe with this prefix. In
//!   docs/missing-line.md the words after the name are a part of the commands' output
//! - `arrives: NAME FILE`   the program's output in that file
//! - `check: NAME`          our own settings for a program that cannot run here; `wire: NAME` a line as it is sent
//! - `compose: NAME`        a file that docker-compose reads
//! - `not run: NAME`        that program's config, or a query that only that program can answer
//!
//! A block inside a list is indented, and its mark too.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Run,
    Arrives,
    Check,
    Wire,
    Compose,
    NotRun,
}

#[derive(Debug)]
pub struct Block {
    /// Page and line.
    pub at: String,
    pub verb: Verb,
    /// The name of a recipe, or a prefix followed by `*`.
    pub name: String,
    /// The word after the name, if any.
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

/// All blocks of all pages in a folder. Fails on fewer than `least`, and on a block without a mark.
#[track_caller]
pub fn blocks_in(folder: &str, least: usize) -> Vec<Block> {
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect(folder);
    let mut pages: Vec<_> = pages.map(|page| page.expect("a page").path()).collect();
    pages.sort();
    assert!(pages.len() >= least, "only {} pages in {folder}", pages.len());
    pages.iter().flat_map(|page| blocks_of(page)).collect()
}

/// The blocks of one page that have a mark.
#[track_caller]
pub fn marked_blocks(page: &str) -> Vec<Block> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    read(&page, |_| ())
}

fn blocks_of(page: &Path) -> Vec<Block> {
    read(page, |at| panic!("{at}: a block without a mark"))
}

/// Calls `unmarked` with the place of each block that has no mark.
fn read(page: &Path, unmarked: impl Fn(&str)) -> Vec<Block> {
    let name = page.file_name().expect("a file").to_string_lossy();
    let text = fs::read_to_string(page).expect("a page in UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let is_fence = |number: &usize| lines[*number].trim_start().starts_with("```");
    let fences: Vec<usize> = (0..lines.len()).filter(is_fence).collect();
    assert!(fences.len().is_multiple_of(2), "{name}: a fence without an end");
    let mut blocks = Vec::new();
    for pair in fences.chunks_exact(2) {
        let at = format!("{name}:{}", pair[0] + 1);
        let Some((verb, what)) = mark(lines[pair[0].saturating_sub(1)].trim_start()) else {
            unmarked(&at);
            continue;
        };
        let (name, file) = what.split_once(' ').unwrap_or((what, ""));
        let indent = lines[pair[0]].len() - lines[pair[0]].trim_start().len();
        let text = lines[pair[0] + 1..pair[1]].iter().map(|line| line.get(indent..).unwrap_or("").to_owned() + "\n");
        blocks.push(Block {
            at,
            verb,
            name: name.to_owned(),
            file: file.to_owned(),
            language: lines[pair[0]].trim_start().trim_start_matches('`').to_owned(),
            text: text.collect(),
        });
    }
    blocks
}

fn mark(line: &str) -> Option<(Verb, &str)> {
    let (verb, what) = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.split_once(": ")?;
    let verb = match verb {
        "run" => Verb::Run,
        "arrives" => Verb::Arrives,
        "check" => Verb::Check,
        "wire" => Verb::Wire,
        "compose" => Verb::Compose,
        "not run" => Verb::NotRun,
        _ => return None,
    };
    Some((verb, what))
}

/// The concatenated blocks of this kind and language; fails if there are none.
#[track_caller]
pub fn text(blocks: &[Block], recipe: &str, verb: Verb, language: &str) -> String {
    let of = |block: &&Block| block.verb == verb && block.language == language && block.is_of(recipe);
    let texts: Vec<&str> = blocks.iter().filter(of).map(|block| block.text.as_str()).collect();
    assert!(!texts.is_empty(), "no page has a {language} block for {recipe}");
    texts.concat()
}
