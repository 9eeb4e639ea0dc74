//! Properties that must hold for all bytes. As functions, they make a unit test, a property test and a fuzz target one line each.

use super::*;
use crate::record::Record;

/// An operation, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Info(Vec<u8>),
    /// Subject, headers, payload.
    Message(Vec<u8>, Vec<u8>, Vec<u8>),
    Ping,
    Pong,
    Ok,
    Err(Vec<u8>),
    Bad(BadOp),
}

/// The operations in a stream that comes in pieces of these lengths. The last piece is the rest.
pub fn found(stream: &[u8], pieces: impl IntoIterator<Item = usize>) -> Vec<Found> {
    let (mut decoder, mut found, mut rest) = (Decoder::default(), Vec::new(), stream);
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        let fed = decoder.feed(now, |op| {
            found.push(match op {
                Op::Info(json) => Found::Info(json.to_vec()),
                Op::Message(Message { subject, headers, payload, .. }) => {
                    Found::Message(subject.to_vec(), headers.to_vec(), payload.to_vec())
                }
                Op::Ping => Found::Ping,
                Op::Pong => Found::Pong,
                Op::Ok => Found::Ok,
                Op::Err(words) => Found::Err(words.to_vec()),
            });
            Ok::<_, BadOp>(())
        });
        if let Err(bad) = fed {
            found.push(Found::Bad(bad));
            return found;
        }
        assert!(decoder.held.len() < MAX_LINE + MAX_MESSAGE + 2, "more is held than one op");
        rest = later;
    }
    found
}

/// Panics if the operations depend on where a stream is cut, or if a text of the server is not fit for the log.
pub fn any_cut(stream: &[u8], pieces: &[usize]) {
    let whole = found(stream, []);
    assert_eq!(
        found(stream, pieces.iter().copied()),
        whole,
        "pieces {pieces:?} of {:?}",
        stream.escape_ascii().to_string()
    );
    for found in whole {
        match found {
            Found::Info(json) => drop(Info::read(&json)),
            Found::Err(said) => assert_is_for_the_log(&words(&said)),
            Found::Message(subject, headers, payload) => {
                let answer =
                    Answer::read(&Message { subject: &subject, reply: b"", headers: &headers, payload: &payload });
                if let Answer::Again(why) | Answer::Poison(why) | Answer::Stop(why) = answer {
                    assert_is_for_the_log(&why);
                }
                let _ = answered(&subject, "_INBOX.1");
            }
            Found::Ping | Found::Pong | Found::Ok | Found::Bad(_) => {}
        }
    }
}

fn assert_is_for_the_log(words: &str) {
    assert!(!words.contains(char::is_control) && words.len() < 4 * MAX_WORDS, "{words:?}");
}

/// [`any_cut`] with bytes that choose the number of cuts, the cuts and the stream. The bytes are also read as the payload of an answer and
/// as key files, and as a line for its subject.
pub fn any_bytes(data: &[u8]) {
    if let [cuts, rest @ ..] = data {
        let (cuts, stream) = rest.split_at(usize::from(cuts % 16).min(rest.len()));
        any_cut(stream, &cuts.iter().map(|&cut| usize::from(cut)).collect::<Vec<_>>());
    }
    let payload = format!("MSG _INBOX.1.7 1 {}\r\n", data.len());
    any_cut(&[payload.as_bytes(), data, b"\r\n"].concat(), &[]);
    let text = String::from_utf8_lossy(data);
    let _ = (Nkey::read(&text), Creds::read(&text));
    any_line(data);
}

/// Panics unless the subject of a line has the tokens of its template, each token is legal, and a server can read the publication back.
pub fn any_line(line: &[u8]) {
    let record = Record::from_line(line, "docker@32473");
    let mut subject = Vec::new();
    SubjectTemplate::new("logs.{host}.{name}-{app}.{image}{id}").fill(&record, &mut subject);
    assert!(subject.iter().all(|byte| byte.is_ascii_graphic() && !b"*>$".contains(byte)), "{}", subject.escape_ascii());
    let tokens: Vec<_> = subject.split(|byte| *byte == b'.').collect();
    assert!(tokens.len() == 4 && tokens.iter().all(|token| !token.is_empty()), "{}", subject.escape_ascii());
    let publication =
        Publication { subject: &subject, inbox: "_INBOX.1", number: 7, id: b"5b00/central-1-7", payload: line };
    let mut written = Vec::new();
    publication.append(&mut written);
    // As a subscriber receives it, from a server that inserts the SID.
    let head = written.iter().position(|byte| *byte == b'\n').expect("a line");
    let text = String::from_utf8(written[..head].to_vec()).expect("ASCII");
    let (subject_said, rest) = text.strip_prefix("HPUB ").and_then(|rest| rest.split_once(' ')).expect("a subject");
    let received = [format!("HMSG {subject_said} 1 {rest}\n").as_bytes(), &written[head + 1..]].concat();
    if publication.byte_len() <= MAX_MESSAGE {
        let headers = b"NATS/1.0\r\nNats-Msg-Id: 5b00/central-1-7\r\n\r\n".to_vec();
        assert_eq!(found(&received, []), [Found::Message(subject, headers, line.to_vec())]);
    }
}
