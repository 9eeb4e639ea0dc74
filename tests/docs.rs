//! Checks the pages: each link has a target, `docs/SUMMARY.md` and the index reach every page, and sentences stay
//! short.
//!
//! `cargo test --test docs -- --nocapture` prints each text that is too long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// How many texts may be too long. Shorten your text; never raise these numbers.
const LONG_SENTENCES: usize = 3;
const LONG_PARAGRAPHS: usize = 3;
const LONG_CELLS: usize = 3;

/// Limits in words. A piece of code is one word.
const SENTENCE: usize = 30;
const PARAGRAPH: usize = 70;
const CELL: usize = 25;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A parsed page: its anchors, its links and its texts, each with its first line.
#[derive(Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<(usize, String)>,
    paragraphs: Vec<(usize, String)>,
    cells: Vec<(usize, String)>,
}

/// All pages of the repository, by their paths from its root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() && name != "target" && name != "book" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && name.ends_with(".md") {
                let text = fs::read_to_string(&path).expect("a page in UTF-8");
                found.insert(path.strip_prefix(root()).expect("a path below the root").to_owned(), read(&text));
            }
        }
    }
    assert!(found.len() > 40, "only {} pages", found.len());
    found
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading = String::new();
    let mut block = String::new();
    let (mut in_heading, mut in_code) = (false, false);
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = || text[..range.start].matches('\n').count() + 1;
        match event {
            Event::Start(Tag::Heading { .. }) => {
                in_heading = true;
                heading.clear();
            }
            Event::End(TagEnd::Heading(_)) => {
                in_heading = false;
                page.add_anchor(&slug(&heading));
            }
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => {
                in_code = false;
                block.clear();
            }
            // In a tight list, an item's text has no paragraph around it, so the start of any block ends the previous
            // one.
            Event::Start(Tag::Paragraph | Tag::Item | Tag::List(_) | Tag::Table(_) | Tag::TableCell)
            | Event::End(TagEnd::Paragraph | TagEnd::Item) => page.end_paragraph(line(), &mut block),
            Event::End(TagEnd::TableCell) => page.cells.push((line(), std::mem::take(&mut block))),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push((line(), dest_url.into_string()));
            }
            Event::Html(html) | Event::InlineHtml(html) => page.read_html(line(), &html),
            Event::Text(words) if in_heading => heading.push_str(&words),
            Event::Code(words) if in_heading => heading.push_str(&words),
            Event::Text(words) if !in_code => block.push_str(&words),
            Event::Code(_) => block.push_str("code"),
            Event::SoftBreak | Event::HardBreak => block.push(' '),
            _ => {}
        }
    }
    page
}

impl Page {
    fn end_paragraph(&mut self, line: usize, block: &mut String) {
        let text = std::mem::take(block);
        if !text.trim().is_empty() {
            self.paragraphs.push((line, text));
        }
    }

    /// Numbers repeated headings as GitHub and mdBook do.
    fn add_anchor(&mut self, slug: &str) {
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let mut names = std::iter::once(slug.to_owned()).chain(numbered);
        names.find(|name| self.anchors.insert(name.clone()));
    }

    fn read_html(&mut self, line: usize, html: &str) {
        let values = |key: &str| {
            let start = format!(" {key}=\"");
            html.split(&start).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect::<Vec<_>>()
        };
        self.anchors.extend(values("id"));
        self.links.extend(["href", "src", "srcset"].into_iter().flat_map(values).map(|link| (line, link)));
    }
}

/// The anchor of a heading, as GitHub and mdBook write it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

/// A path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(tidy.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            other => tidy.push(other),
        }
    }
    tidy
}

/// The target of a link on this page, and its anchor. `None` if the link leads out of the repository.
fn target(page: &Path, link: &str) -> Option<(PathBuf, String)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_owned(),
        path => tidy(&page.parent().expect("a page is in a folder").join(path)),
    };
    Some((target, anchor.to_owned()))
}

#[test]
fn each_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, page) in &pages {
        for (line, link) in &page.links {
            let Some((target, anchor)) = target(path, link) else { continue };
            seen += 1;
            let has_anchor = || pages.get(&target).is_none_or(|page| page.anchors.contains(&anchor));
            if !root().join(&target).exists() || (!anchor.is_empty() && !has_anchor()) {
                broken.push(format!("{}:{line}: {link}", path.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The pages that a page links to.
fn linked(pages: &BTreeMap<PathBuf, Page>, from: &Path) -> BTreeSet<PathBuf> {
    let links = pages[from].links.iter().filter_map(|(_, link)| target(from, link));
    links.map(|(path, _)| if path.extension().is_none() { path.join("README.md") } else { path }).collect()
}

/// The pages of the book: all of `docs` but its table of contents.
fn in_book(pages: &BTreeMap<PathBuf, Page>) -> BTreeSet<PathBuf> {
    let of_docs = pages.keys().filter(|path| path.starts_with("docs") && *path != Path::new("docs/SUMMARY.md"));
    of_docs.cloned().collect()
}

#[test]
fn the_book_has_each_page_once() {
    let pages = pages();
    let summary = Path::new("docs/SUMMARY.md");
    assert_eq!(linked(&pages, summary), in_book(&pages), "docs/SUMMARY.md, and the pages that there are");
    assert_eq!(pages[summary].links.len(), in_book(&pages).len(), "docs/SUMMARY.md names a page twice");
}

#[test]
fn the_index_reaches_each_page_in_two_clicks() {
    let pages = pages();
    let index = Path::new("docs/README.md");
    let first = linked(&pages, index);
    let second = first.iter().filter(|path| pages.contains_key(*path)).flat_map(|path| linked(&pages, path));
    let reached: BTreeSet<PathBuf> = first.iter().cloned().chain(second).chain([index.to_owned()]).collect();
    let book = in_book(&pages);
    let lost: Vec<&PathBuf> = book.difference(&reached).collect();
    assert!(lost.is_empty(), "docs/README.md does not reach these in two clicks: {lost:?}");
}

/// Counts words. Punctuation alone is not a word.
fn words(text: &str) -> usize {
    text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count()
}

/// A sentence ends with a full stop and a blank. A bracket or a quote may stand between them.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '\n'])
        .scan(0, {
            let mut start = 0;
            move |end, word| {
                *end += word.len();
                let is_last =
                    word.trim_end().trim_end_matches([')', '"', '*']).ends_with(['.', '!', '?']) || *end == text.len();
                let sentence = &text[start..*end];
                start = if is_last { *end } else { start };
                Some(is_last.then_some(sentence))
            }
        })
        .flatten()
}

/// Prints the texts that are too long, and fails if there are more than the ceiling.
#[track_caller]
fn hold(what: &str, ceiling: usize, long: &[String]) {
    println!("{what}: {}, at most {ceiling}", long.len());
    long.iter().for_each(|place| println!("  {place}"));
    assert!(
        long.len() <= ceiling,
        "{what}: {} of them, {ceiling} are allowed. Shorten what you have written.",
        long.len()
    );
}

fn place(path: &Path, line: usize, text: &str) -> String {
    let start: String = text.trim().chars().take(60).collect();
    format!("{}:{line}: {} words: {start}…", path.display(), words(text))
}

#[test]
fn texts_are_short() {
    let pages = pages();
    let (mut long_sentences, mut long_paragraphs, mut long_cells) = (Vec::new(), Vec::new(), Vec::new());
    for (path, page) in pages.iter().filter(|(path, _)| *path != Path::new("CHANGELOG.md")) {
        for (line, text) in &page.paragraphs {
            let long = sentences(text).filter(|sentence| words(sentence) > SENTENCE);
            long_sentences.extend(long.map(|sentence| place(path, *line, sentence)));
            if words(text) > PARAGRAPH {
                long_paragraphs.push(place(path, *line, text));
            }
        }
        let long = page.cells.iter().filter(|(_, text)| words(text) > CELL);
        long_cells.extend(long.map(|(line, text)| place(path, *line, text)));
    }
    hold("sentences over 30 words", LONG_SENTENCES, &long_sentences);
    hold("paragraphs over 70 words", LONG_PARAGRAPHS, &long_paragraphs);
    hold("cells over 25 words", LONG_CELLS, &long_cells);
}

#[test]
fn slugs_are_those_of_github() {
    let check = |heading, expected| assert_eq!(slug(heading), expected);
    check("Which line goes where", "which-line-goes-where");
    check("What is promised, by transport", "what-is-promised-by-transport");
    check("`/ready` & the log", "ready--the-log");
}

#[test]
fn sentences_end_with_a_stop() {
    let check = |text, expected: &[&str]| {
        assert_eq!(sentences(text).map(str::trim).collect::<Vec<_>>(), expected);
    };
    check("One. Two and 2.5 more! Three", &["One.", "Two and 2.5 more!", "Three"]);
    check("(One.) Two: three", &["(One.)", "Two: three"]);
    check("", &[]);
}
