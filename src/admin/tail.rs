//! The live tail: shows passing lines as text, to a browser or `curl`. A slow viewer misses lines and is told how many. The relay
//! waits for no viewer. Each viewer has a thread that selects and writes its lines, so that the runtime does not.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Request, StatusCode};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::config::{Secret, SecretError};
use crate::protocol::splunk::Tokens;
use crate::record::{Patterns, Record, append_escaped, render_text};
use crate::spool::{Batch, Batches, Tap, Watching};
use crate::tasks::spawn_blocking;

/// The most viewers at a time.
pub const MAX_VIEWERS: usize = 4;
/// The longest time that one answer lasts.
pub const TAIL_TIMEOUT: Duration = Duration::from_secs(3600);
/// The most lines that a viewer is shown in a second.
const MAX_SHOWN: u64 = 1000;
/// The most lines that are compared with a viewer's filter in a second. A batch is compared whole.
const MAX_COMPARED: u64 = 50_000;
/// The longest line that is shown, in bytes. A longer one is cut.
const MAX_LINE: usize = 8 << 10;
/// Bytes of text that are handed to a connection at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks that wait for a slow connection.
const MAX_CHUNKS: usize = 2;
/// The stack of a viewer's thread, in bytes.
const STACK: usize = 128 << 10;

/// The source of the lines, and the token that a viewer needs.
pub struct Tail {
    pub tap: Tap,
    /// `None`: viewers need no token.
    pub token: Option<Secret>,
    /// The SD-ID under which a line has the image, name and ID of its container.
    pub sd_id: String,
}

/// Which lines a viewer wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The container's name, or the APP-NAME of other senders.
    name: Patterns,
    /// Text that the message contains.
    text: String,
}

/// Why a request for the tail is refused.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("the token is missing or wrong; send the one of `tail-token-file` as `Authorization: Bearer TOKEN`")]
    Token,
    #[error("the token cannot be compared: {0}")]
    Unreadable(String),
    #[error("another web page asks; open the tail from the status page, or use curl")]
    Foreign,
    #[error("{0}")]
    Filter(String),
    #[error("{0} viewers watch already, which is the maximum; close one of them")]
    Viewers(usize),
    #[error("the system has no thread left: {0}")]
    Thread(io::Error),
}

impl TailError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Foreign => StatusCode::FORBIDDEN,
            Self::Filter(_) => StatusCode::BAD_REQUEST,
            Self::Unreadable(_) | Self::Viewers(_) | Self::Thread(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A viewer's chunks of text. Dropping this ends the tail.
pub struct Shown {
    pub chunks: Receiver<Bytes>,
    pub watching: Watching,
}

impl Tail {
    /// Whether this request may watch.
    pub async fn admit<B>(&self, request: &Request<B>) -> Result<(), TailError> {
        // A page of another site cannot read the answer, but could use up the viewers.
        let is_foreign = |site: &[u8]| matches!(site, b"cross-site" | b"same-site");
        if request.headers().get("sec-fetch-site").is_some_and(|site| is_foreign(site.as_bytes())) {
            return Err(TailError::Foreign);
        }
        let Some(token) = self.token.clone() else { return Ok(()) };
        let read = spawn_blocking(move || token.read());
        let unreadable = |error: SecretError| TailError::Unreadable(error.to_string());
        let token = read.await.map_err(|error| TailError::Unreadable(error.to_string()))?.map_err(unreadable)?;
        match bearer(request.headers()) {
            Some(given) if Tokens::list(vec![token]).has(given) => Ok(()),
            _ => Err(TailError::Token),
        }
    }

    /// Begins to watch.
    pub fn show(&self, filter: Filter, max_viewers: usize) -> Result<Shown, TailError> {
        let (watching, batches) = self.tap.watch(max_viewers).ok_or(TailError::Viewers(max_viewers))?;
        let (sender, chunks) = channel(MAX_CHUNKS);
        let writer = Writer { filter, sd_id: self.sd_id.clone(), sender, text: Vec::new(), pace: Pace::default() };
        let thread = thread::Builder::new().name("tail".to_owned()).stack_size(STACK);
        thread.spawn(move || writer.run(&batches)).map_err(TailError::Thread)?;
        Ok(Shown { chunks, watching })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl Filter {
    /// Parses a query such as `name=web-*&text=error`. An empty value is no filter.
    pub fn of(query: &str) -> Result<Self, TailError> {
        let mut filter = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*key, value.is_empty()) {
                ("name", false) => {
                    let names = value.split(',').map(|name| name.trim().to_owned()).collect();
                    filter.name = Patterns::new(names).map_err(|error| TailError::Filter(error.to_string()))?;
                }
                ("text", false) => filter.text = value.into_owned(),
                ("name" | "text", true) => {}
                _ => return Err(TailError::Filter(format!("`{key}` is no filter; write name=PATTERN or text=TEXT"))),
            }
        }
        Ok(filter)
    }

    fn matches(&self, record: &Record<'_>) -> bool {
        let message = record.message.unwrap_or_default();
        self.name.match_bytes(&record.sender_name())
            && (self.text.is_empty() || memchr::memmem::find(message, self.text.as_bytes()).is_some())
    }
}

/// A viewer's thread.
struct Writer {
    filter: Filter,
    sd_id: String,
    sender: Sender<Bytes>,
    text: Vec<u8>,
    pace: Pace,
}

/// The viewer has left.
struct Left;

impl Writer {
    fn run(mut self, batches: &Batches) {
        // Shows at once that the tail works.
        self.text.extend_from_slice(b"# lines from now on\n");
        let mut sent = self.send();
        while let (Ok(()), Some((batch, missed))) = (sent, batches.next()) {
            self.pace.missed += missed;
            sent = self.write(&batch);
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Left> {
        let now = Instant::now();
        if !self.pace.compares(batch.line_count(), now) {
            return Ok(());
        }
        self.say_missed();
        for line in batch.lines() {
            let record = Record::from_line(line, &self.sd_id);
            if !self.filter.matches(&record) || !self.pace.shows() {
                continue;
            }
            let mut shown = Vec::new();
            render_text(&record, &mut shown);
            let is_cut = shown.len() > MAX_LINE;
            shown.truncate(MAX_LINE);
            append_escaped(&shown, &mut self.text);
            self.text.extend_from_slice(if is_cut { "…\n".as_bytes() } else { b"\n" });
            if self.text.len() >= CHUNK_BYTES {
                self.send()?;
            }
        }
        self.send()
    }

    fn say_missed(&mut self) {
        match std::mem::take(&mut self.pace.missed) {
            0 => {}
            missed => {
                self.text.extend_from_slice(format!("# {missed} lines were not shown: too many at once\n").as_bytes())
            }
        }
    }

    /// Sends the text. This waits for a slow connection; meanwhile batches queue, and the tap drops those beyond its limit.
    fn send(&mut self) -> Result<(), Left> {
        if self.text.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(std::mem::take(&mut self.text).into()).map_err(|_| Left)
    }
}

/// The lines compared and shown in the current second.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    compared: u64,
    shown: u64,
    /// Lines that were not shown, and that the viewer has not been told of.
    missed: u64,
}

impl Pace {
    /// Whether `lines` lines may be compared. If not, they are counted as missed.
    fn compares(&mut self, lines: u64, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.compared, self.shown) = (Some(now), 0, 0);
        }
        let compares = self.compared < MAX_COMPARED;
        if compares {
            self.compared += lines
        } else {
            self.missed += lines
        }
        compares
    }

    /// Whether one more line may be shown. If not, it is counted as missed.
    fn shows(&mut self) -> bool {
        let shows = self.shown < MAX_SHOWN;
        if shows {
            self.shown += 1
        } else {
            self.missed += 1
        }
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 3] = [
        "<30>1 2026-01-02T03:04:05Z host web-1 17 - [docker@32473 image=\"nginx\" name=\"web-1\"] GET /a 200",
        "<27>1 2026-01-02T03:04:06Z host db 18 - [docker@32473 name=\"db\"] <b>\u{1b}[31m slow",
        "<13>1 2026-01-02T03:04:07Z switch kernel - - - link down",
    ];

    /// The text that a viewer with this filter gets.
    fn shown(query: &str, lines: impl IntoIterator<Item = String>) -> String {
        let (sender, mut chunks) = channel(64);
        let mut batch = Batch::new();
        lines.into_iter().for_each(|line| batch.push(|out| out.extend_from_slice(line.as_bytes())));
        let filter = Filter::of(query).expect("a filter");
        let sd_id = "docker@32473".to_owned();
        let mut writer = Writer { filter, sd_id, sender, text: Vec::new(), pace: Pace::default() };
        assert!(writer.write(&batch).is_ok());
        writer.say_missed();
        assert!(writer.send().is_ok());
        let mut text = Vec::new();
        while let Ok(chunk) = chunks.try_recv() {
            assert!(chunk.len() <= CHUNK_BYTES + 4 * MAX_LINE, "{}", chunk.len());
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn lines_are_selected_by_name_and_text_and_cannot_drive_a_terminal() {
        let check =
            |query: &str, expected: &str| assert_eq!(shown(query, LINES.map(str::to_owned)), expected, "{query}");
        let web = "2026-01-02T03:04:05Z host web-1 info GET /a 200\n";
        check("name=web-*", web);
        check("name=web-*&text=GET+%2Fa", web);
        check("name=web-*&text=POST", "");
        check("text=slow", "2026-01-02T03:04:06Z host db err <b>#033[31m slow\n");
        check("name=!web-1,!db&text=", "2026-01-02T03:04:07Z switch kernel notice link down\n");
        assert_eq!(shown("", LINES.map(str::to_owned)).lines().count(), 3);
        for (query, says) in [("app=x", "`app` is no filter"), ("name=!", "a pattern must not be empty")] {
            let error = Filter::of(query).expect_err(query).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_viewer_reads_how_many_lines_were_too_many() {
        let lines = (0..MAX_SHOWN + 5).map(|at| format!("<13>1 - - app - - - {at}"));
        let text = shown("", lines);
        assert!(text.ends_with("# 5 lines were not shown: too many at once\n"), "{text}");
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!([pace.compares(MAX_COMPARED, now), pace.compares(7, now), pace.missed == 7], [true, false, true]);
        assert!(pace.compares(1, now + Duration::from_secs(1)), "another second");
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = shown("", [format!("<13>1 - - app - - - {}", "x".repeat(2 * MAX_LINE))]);
        assert!(text.ends_with("x…\n") && text.len() < MAX_LINE + 8, "{}", text.len());
    }
}
