//! The status page: renders a `Status` as one HTML page, with its style, drawings and script inside. The page loads nothing from
//! elsewhere, and the Content-Security-Policy enforces that.
//!
//! The markup is `page.html` beside this file. The template escapes every value, wherever it comes from: names, addresses, texts of
//! errors. Only our own style and script are inserted unescaped.

use askama::Template;

use super::draw::{self, HEIGHT, WIDTH};
use super::letters::ForwardLetters;
use super::status::{Loss, State, Status};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const TAIL_SCRIPT: &str = include_str!("page/tail.js");

/// The Content-Security-Policy: a browser may use this style and these scripts, and may fetch from the admin port itself. The
/// hashes are those of page.css, page.js and page/tail.js; a test fails with the right ones.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-cJnB/IRUjtAJmjFmiBqAz09Ch6cBEtZJVYTOw/8DCKI='; script-src 'sha256-rW72Dne8TCNvq0SYJ4Rn2a6vN8A/Nq9YnzrKT6DgECo=' 'sha256-a6Vi/pkS1r5mLgkwBbNsnwdgaWMNI3x3jnXoAn3cEJ4='; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The docs of this version.
const DOCS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/v", env!("CARGO_PKG_VERSION"), "/docs/README.md");

/// Values of a drawn line: five minutes, one every two seconds.
const POINTS: usize = 150;

/// Characters of a collector's answer that are shown.
const MAX_ANSWER: usize = 200;

/// The text for a missing value: an en dash.
const NONE: &str = "\u{2013}";

#[derive(Template)]
#[template(path = "page.html", config = "src/admin/askama.toml", whitespace = "minimize")]
struct Page<'a> {
    status: &'a Status,
    /// Forwards that are not connected.
    disconnected: usize,
    /// Lines pending for the forward that is furthest behind.
    pending: u64,
    /// The age of the oldest pending line, in seconds.
    oldest_pending: Option<u64>,
    /// How full the spool is, 0 to 100.
    spool_percent: u64,
    /// Whether the live tail can be watched.
    has_tail: bool,
    /// Messages a second, in and out.
    traffic: Drawing,
    /// Lines pending.
    depth: Drawing,
    /// Losses that have happened.
    losses: Vec<&'a Loss>,
    /// The reasons of losses that have not happened.
    never: Vec<&'a str>,
}

/// A drawing of the last minutes.
struct Drawing {
    /// The value at the upper edge.
    top: f64,
    /// For each path its CSS class and its data.
    paths: [(&'static str, String); 2],
}

#[derive(Template)]
#[template(path = "page/letters.html", config = "src/admin/askama.toml", whitespace = "minimize")]
struct LettersPage<'a> {
    hostname: &'a str,
    forwards: Vec<ForwardLetters>,
}

#[derive(Template)]
#[template(path = "page/tail.html", config = "src/admin/askama.toml", whitespace = "minimize")]
struct TailPage<'a> {
    hostname: &'a str,
    needs_token: bool,
}

/// Renders the page that shows the live tail.
pub fn tail(hostname: &str, needs_token: bool) -> String {
    TailPage { hostname, needs_token }.render().expect("writing to a String cannot fail")
}

/// Renders the page of dead letters.
pub fn dead_letters(hostname: &str, forwards: Vec<ForwardLetters>) -> String {
    LettersPage { hostname, forwards }.render().expect("writing to a String cannot fail")
}

/// Renders the page.
pub fn render(status: &Status, has_tail: bool) -> String {
    let (losses, never) = losses(&status.losses);
    let page = Page {
        status,
        disconnected: status.forwards.iter().filter(|forward| forward.state != State::Connected).count(),
        pending: status.pending(),
        oldest_pending: status.oldest_pending(),
        spool_percent: (status.spool.bytes * 100).checked_div(status.spool.max_bytes).unwrap_or(0).min(100),
        has_tail,
        traffic: traffic(status),
        depth: depth(status),
        losses,
        never,
    };
    page.render().expect("writing to a String cannot fail")
}

fn traffic(status: &Status) -> Drawing {
    let (received, delivered) = (&status.history.received_per_second, &status.history.delivered_per_second);
    let top = draw::top(received.iter().chain(delivered).copied());
    Drawing { top, paths: [("in", draw::line(received, POINTS, top)), ("out", draw::line(delivered, POINTS, top))] }
}

fn depth(status: &Status) -> Drawing {
    let pending: Vec<f64> = status.history.pending.iter().map(|lines| *lines as f64).collect();
    let top = draw::top(pending.iter().copied());
    Drawing { top, paths: [("area", draw::area(&pending, POINTS, top)), ("in", draw::line(&pending, POINTS, top))] }
}

/// The losses that have happened, and the reasons of those that have not.
fn losses(losses: &[Loss]) -> (Vec<&Loss>, Vec<&str>) {
    let (none, some): (Vec<&Loss>, Vec<&Loss>) = losses.iter().partition(|loss| loss.count == 0);
    let mut never: Vec<&str> = none.iter().map(|loss| loss.reason).collect();
    never.retain(|reason| !some.iter().any(|loss| loss.reason == *reason));
    never.sort_unstable();
    never.dedup();
    (some, never)
}

/// The template's filters, for example `{{ forward.delivered|grouped }}`.
mod filters {
    // askama's macro puts braces around a body that is one expression.
    #![allow(unused_braces)]

    use askama::{Result, Values};

    #[askama::filter_fn]
    pub fn grouped(number: &u64, _: &dyn Values) -> Result<String> {
        Ok(super::grouped(*number))
    }

    #[askama::filter_fn]
    pub fn rate(rate: &f64, _: &dyn Values) -> Result<String> {
        Ok(super::rate(*rate))
    }

    #[askama::filter_fn]
    pub fn times(count: &u64, _: &dyn Values) -> Result<String> {
        Ok(if *count == 1 { "once".to_owned() } else { super::grouped(*count) + " times" })
    }

    #[askama::filter_fn]
    pub fn verdict(word: &str, _: &dyn Values) -> Result<&'static str> {
        Ok(match word {
            "delivered" => "delivered",
            "short" => "with lines that are missing",
            "again" => "to be sent again",
            "poison" => "with refused lines",
            "stop" => "refused for the settings",
            _ => "without an answer",
        })
    }

    #[askama::filter_fn]
    pub fn brief(text: &str, _: &dyn Values) -> Result<String> {
        let brief: String = text.chars().take(super::MAX_ANSWER).collect();
        Ok(if brief.len() < text.len() { brief + "…" } else { brief })
    }

    #[askama::filter_fn]
    pub fn list(words: &[&str], _: &dyn Values) -> Result<String> {
        Ok(words.join(", "))
    }

    #[askama::filter_fn]
    pub fn size(bytes: &u64, _: &dyn Values) -> Result<String> {
        Ok(super::size(*bytes))
    }

    #[askama::filter_fn]
    pub fn span(seconds: &u64, _: &dyn Values) -> Result<String> {
        Ok(super::span(*seconds))
    }
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate, with a decimal when it is small.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 && rate.fract() != 0.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A duration in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |count: u64, unit: &str, rest: u64, smaller: &str| match rest {
        0 => format!("{count} {unit}"),
        _ if count >= 10 => format!("{count} {unit}"),
        rest => format!("{count} {unit} {rest} {smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests;
