//! The framer's property as a function, so that a unit test, a property test and a fuzz target are one line each.

use super::{Framer, SMALLEST_LIMIT};

/// A frame and whether it was cut.
pub type Frame = (Vec<u8>, bool);

/// The frames of a stream fed in pieces of the given lengths, the last one taking what is left; then whether the
/// stream ended inside a frame; then the frames its clean end adds.
pub fn frames(stream: &[u8], limit: usize, pieces: impl IntoIterator<Item = usize>) -> (Vec<Frame>, bool, Vec<Frame>) {
    let mut framer = Framer::new(limit);
    let mut found = Vec::new();
    let mut rest = stream;
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        framer.feed(now, |frame, cut| found.push((frame.to_vec(), cut)));
        rest = later;
        assert!(framer.partial.capacity() <= framer.limit, "the partial frame outgrew the limit");
        assert!(framer.unfinished() || framer.partial.capacity() == 0, "memory is held between frames");
    }
    let unfinished = framer.unfinished();
    let mut last = Vec::new();
    framer.finish(|frame, cut| last.push((frame.to_vec(), cut)));
    (found, unfinished, last)
}

/// What a stream holds, written down as directly as possible: everything is there, so nothing needs a state.
fn by_the_book(stream: &[u8], limit: usize) -> (Vec<Frame>, bool, Vec<Frame>) {
    let mut found = Vec::new();
    let mut rest = stream;
    while let Some(first) = rest.iter().position(|&byte| byte != b'\n') {
        rest = &rest[first..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let counted = rest[0] != b'0' && (1..=9).contains(&digits) && rest.get(digits) == Some(&b' ');
        let (start, end, next) = if counted {
            let octets: usize = String::from_utf8_lossy(&rest[..digits]).parse().expect("nine digits fit");
            (digits + 1, digits + 1 + octets, digits + 1 + octets)
        } else {
            let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(usize::MAX - 1);
            (0, end, end + 1)
        };
        let body = &rest[start..end.min(rest.len())];
        let whole = end <= rest.len();
        if end - start > limit && body.len() >= limit && (counted || body.len() > limit) {
            found.push((body[..limit].to_vec(), true));
        } else if whole {
            found.push((body.to_vec(), false));
        } else {
            let last = if body.is_empty() { vec![] } else { vec![(body.to_vec(), counted)] };
            return (found, true, last);
        }
        rest = &rest[next.min(rest.len())..];
    }
    (found, false, vec![])
}

/// Panics unless the frames of `stream`, cut into these pieces, are the frames of the whole.
pub fn any_cut(stream: &[u8], limit: usize, pieces: &[usize]) {
    let limit = limit.max(SMALLEST_LIMIT);
    assert_eq!(
        frames(stream, limit, pieces.iter().copied()),
        by_the_book(stream, limit),
        "limit {limit}, pieces {pieces:?}, stream {:?}",
        String::from_utf8_lossy(stream)
    );
}

/// Checks a stream that `bytes` describe whole: a limit, the count of cuts, the cuts, and the stream.
pub fn any_bytes(data: &[u8]) {
    let [limit, cuts, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(cuts % 16).min(rest.len()));
    any_cut(stream, usize::from(*limit), &cuts.iter().map(|&cut| usize::from(cut)).collect::<Vec<_>>());
}
