//! The newest dead letters of each forward, for a page of their own. The page shows no text of a line, because it needs no login.

use super::RequestContext;
use crate::record::{Record, escape};
use crate::spool::DeadLetter;

/// Dead letters of one forward on the page.
const MAX_LETTERS: usize = 50;
/// The length of a time of RFC 3339 down to its seconds.
const SECONDS: usize = "2026-01-01T00:00:00".len();

/// The dead letters of one forward.
pub struct ForwardLetters {
    pub forward: String,
    pub bytes: u64,
    /// Newest first. An error says why they cannot be read.
    pub letters: Result<Vec<Letter>, String>,
}

pub struct Letter {
    pub time: String,
    pub number: u64,
    /// The container, or the APP-NAME of another sender.
    pub who: String,
    /// The collector's own words.
    pub why: String,
}

/// Reads the files of all forwards.
pub async fn collect(context: &RequestContext) -> Vec<ForwardLetters> {
    let sources = &context.sources;
    let sd_id = sources.sd_id.clone();
    let names: Vec<String> = sources.registry.topology().forwards.into_iter().map(|forward| forward.name).collect();
    let forwards = names.clone();
    let letters = context.read_spool(move |spool| {
        let read = |forward: &String| {
            let letters = spool.dead_letters(forward, MAX_LETTERS).map_err(|error| error.to_string())?;
            Ok(letters.into_iter().map(|letter| Letter::of(letter, &sd_id)).collect())
        };
        forwards.iter().map(read).collect()
    });
    let late = || names.iter().map(|_| Err("the disk does not answer; try again".to_owned())).collect();
    let letters: Vec<Result<Vec<Letter>, String>> = letters.await.unwrap_or_else(late);
    let of = |(forward, letters): (String, _)| {
        let bytes = sources.metrics.forward_metrics(&forward).dead_letter_bytes.get().unsigned_abs();
        ForwardLetters { forward, bytes, letters }
    };
    names.into_iter().zip(letters).map(of).collect()
}

impl Letter {
    fn of(letter: DeadLetter, sd_id: &str) -> Self {
        let DeadLetter { mut time, number, why, line, .. } = letter;
        time.truncate(SECONDS);
        let record = Record::from_line(&line, sd_id);
        let who = escape(&record.sender_name()).to_string();
        Self { time, number, who, why }
    }
}
