//! The lines of one batch, and the verdict on each. The cursor passes a line when all lines before it have their verdict. Pure.

use std::collections::VecDeque;

use crate::forward::delivery::{Progress, Reason, Rejected};
use crate::forward::filtered_chunk::FilteredChunk;
use crate::protocol::api::LineId;
use crate::spool::Position;

/// Lines that were taken from the spool for one or more requests.
pub struct Batch {
    chunks: Vec<FilteredChunk>,
    /// Bytes of the lines, as they are in the spool.
    bytes: usize,
}

/// The verdicts on the lines of a batch.
pub struct Verdicts {
    /// By the line's place in the batch; `None`: no verdict yet.
    lines: Vec<Option<Settled>>,
    /// By the line's place: whether it was last sent with the time of sending.
    restamped: Vec<bool>,
    /// How many lines from the start have a verdict that was reported.
    told: usize,
    /// The requests that are still to be sent, each with the places of its lines.
    requests: VecDeque<Vec<usize>>,
}

/// Why a line will never be taken.
#[derive(Clone, Debug)]
pub struct Poison {
    pub reason: Reason,
    /// The server's own words.
    pub why: String,
}

enum Settled {
    Delivered,
    Poison(Poison),
}

impl Batch {
    pub fn new() -> Self {
        Self { chunks: Vec::new(), bytes: 0 }
    }

    pub fn push(&mut self, chunk: FilteredChunk) {
        self.bytes += chunk.byte_len();
        self.chunks.push(chunk);
    }

    pub fn byte_len(&self) -> usize {
        self.bytes
    }

    /// The lines to send, each with its permanent name and the position behind it.
    pub fn lines(&self) -> impl Iterator<Item = (LineId, &[u8], Position)> {
        self.chunks.iter().flat_map(|chunk| chunk.lines().map(|(line, behind)| (chunk.id(behind), line, behind)))
    }

    /// Bytes of the lines at these places.
    pub fn bytes_at(&self, places: &[usize]) -> usize {
        let sizes: Vec<_> = self.lines().map(|(_, line, _)| line.len()).collect();
        places.iter().map(|place| sizes[*place]).sum()
    }

    /// The position that is reached when all lines have their verdict.
    pub fn end(&self) -> Option<Position> {
        self.chunks.last().map(FilteredChunk::end)
    }
}

impl Verdicts {
    /// All lines of a batch are to be sent, in one request.
    pub fn new(batch: &Batch) -> Self {
        let all: Vec<_> = (0..batch.lines().count()).collect();
        Self::arranged(if all.is_empty() { Vec::new() } else { vec![all] })
    }

    /// All lines of a batch are to be sent in these requests, each line in one of them.
    pub fn arranged(requests: Vec<Vec<usize>>) -> Self {
        let count = requests.iter().map(Vec::len).sum();
        Self {
            lines: (0..count).map(|_| None).collect(),
            restamped: vec![false; count],
            told: 0,
            requests: requests.into(),
        }
    }

    /// The lines of the next request. The request stays in the queue.
    pub fn next(&self) -> Option<&[usize]> {
        self.requests.front().map(Vec::as_slice)
    }

    /// The next request has delivered its lines.
    pub fn delivered(&mut self) {
        for place in self.requests.pop_front().unwrap_or_default() {
            self.lines[place] = Some(Settled::Delivered);
        }
    }

    /// Splits the next request into two halves. False: it has only one line.
    pub fn halve(&mut self) -> bool {
        self.divide(2)
    }

    /// Splits the next request into this many parts of equal length, at least two. False: it has only one line.
    pub fn divide(&mut self, parts: usize) -> bool {
        let Some(request) = self.pop_several() else { return false };
        for part in request.chunks(request.len().div_ceil(parts.max(2))).rev() {
            self.requests.push_front(part.to_vec());
        }
        true
    }

    /// Takes the next request out of the queue, if it has several lines.
    fn pop_several(&mut self) -> Option<Vec<usize>> {
        if self.next()?.len() > 1 { self.requests.pop_front() } else { None }
    }

    /// Splits the next request into the lines before this one, this line alone, and the lines behind it. False: it is alone already.
    pub fn isolate(&mut self, line: usize) -> bool {
        let Some(mut before) = self.pop_several() else { return false };
        let mut alone = before.split_off(line.min(before.len()));
        let behind = alone.split_off(alone.len().min(1));
        for part in [behind, alone, before].into_iter().filter(|part| !part.is_empty()) {
            self.requests.push_front(part);
        }
        true
    }

    /// Sets the verdict on a line of the next request. `None`: it is delivered; `Some`: why it will never be taken.
    pub fn settle(&mut self, place: usize, poison: Option<Poison>) {
        self.lines[place] = Some(poison.map_or(Settled::Delivered, Settled::Poison));
    }

    /// Notes that these lines of the next request are sent with the time of sending, and the others are not.
    pub fn restamp(&mut self, places: &[usize]) {
        for place in self.requests.front().into_iter().flatten() {
            self.restamped[*place] = false;
        }
        places.iter().for_each(|place| self.restamped[*place] = true);
    }

    /// The next request is sent again with its lines that have no verdict.
    pub fn keep_rest(&mut self) {
        let Some(mut rest) = self.requests.pop_front() else { return };
        rest.retain(|place| self.lines[*place].is_none());
        if !rest.is_empty() {
            self.requests.push_front(rest);
        }
    }

    /// Reports the verdicts from the first line on, each once. Returns how many lines were delivered with the time of sending.
    pub fn tell(&mut self, batch: &Batch, progress: &mut Progress) -> u64 {
        let mut restamped = 0;
        let settled = self.lines[self.told..].iter_mut().zip(batch.lines().skip(self.told));
        for (settled, (id, line, behind)) in settled {
            match settled.take() {
                None => break,
                Some(Settled::Delivered) => {
                    progress.delivered = true;
                    restamped += u64::from(self.restamped[self.told]);
                }
                Some(Settled::Poison(Poison { reason, why })) => {
                    let (LineId { session, .. }, number) = (id, behind.line - 1);
                    progress.rejected.push_back(Rejected { session, line: number, reason, why, bytes: line.to_vec() });
                }
            }
            progress.safe = Some(behind);
            self.told += 1;
        }
        if self.told == self.lines.len() {
            // Filtered lines may follow the last line.
            progress.safe = batch.end();
        }
        restamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;
    use crate::spool::Chunk;

    fn batch(lines: usize) -> Batch {
        let texts: Vec<_> = (0..lines).map(|line| format!("line {line}").into_bytes()).collect();
        let mut batch = Batch::new();
        let chunk = Chunk::of(7, 100, texts.iter().map(Vec::as_slice));
        batch.push(FilteredChunk::new(chunk, &Shape::of_rules(Vec::new(), "docker@32473")));
        batch
    }

    fn poison() -> Poison {
        Poison { reason: Reason::Refused, why: "no".to_owned() }
    }

    /// How far the cursor may go, and the numbers of dead letters.
    fn told(verdicts: &mut Verdicts, batch: &Batch) -> (Option<u64>, Vec<u64>) {
        let mut progress = Progress::default();
        verdicts.tell(batch, &mut progress);
        (progress.safe.map(|position| position.line), progress.rejected.iter().map(|rejected| rejected.line).collect())
    }

    #[test]
    fn halves_find_the_line_that_is_to_blame() {
        let batch = batch(5);
        let mut verdicts = Verdicts::new(&batch);
        let mut requests = 0;
        while let Some(places) = verdicts.next().map(<[usize]>::to_vec) {
            requests += 1;
            match (places.contains(&3), places.len()) {
                (false, _) => verdicts.delivered(),
                (true, 1) => {
                    verdicts.settle(3, Some(poison()));
                    verdicts.keep_rest();
                }
                (true, _) => assert!(verdicts.halve()),
            }
        }
        assert_eq!(requests, 5, "[01234] [012] [34] [3] [4]");
        assert_eq!(told(&mut verdicts, &batch), (Some(105), vec![103]));
    }

    /// The number of lines in each request.
    fn requests(verdicts: &Verdicts) -> Vec<usize> {
        verdicts.requests.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_request_is_divided_in_order() {
        let batch = batch(7);
        for (parts, expected) in [
            (2, vec![4, 3]),
            (3, vec![3, 3, 1]),
            (7, vec![1; 7]),
            (100, vec![1; 7]),
            (0, vec![4, 3]),
            (usize::MAX, vec![1; 7]),
        ] {
            let mut verdicts = Verdicts::new(&batch);
            assert!(verdicts.divide(parts));
            assert_eq!(requests(&verdicts), expected, "{parts}");
            assert_eq!(verdicts.requests.iter().flatten().copied().collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_is_set_apart() {
        let batch = batch(4);
        for (line, expected) in [(0, vec![1, 3]), (2, vec![2, 1, 1]), (3, vec![3, 1])] {
            let mut verdicts = Verdicts::new(&batch);
            assert!(verdicts.isolate(line));
            assert_eq!(requests(&verdicts), expected, "{line}");
        }
        let mut verdicts = Verdicts::new(&batch);
        assert!(verdicts.isolate(0));
        assert!(!verdicts.isolate(0), "it is alone");
        assert_eq!(requests(&verdicts), [1, 3]);
    }

    #[test]
    fn the_cursor_waits_for_the_first_line_without_a_verdict() {
        let batch = batch(4);
        let mut verdicts = Verdicts::new(&batch);
        verdicts.settle(0, None);
        verdicts.settle(1, Some(poison()));
        verdicts.settle(3, Some(poison()));
        verdicts.keep_rest();
        assert_eq!(told(&mut verdicts, &batch), (Some(102), vec![101]));
        assert_eq!(told(&mut verdicts, &batch), (None, vec![]), "each is told once");
        assert_eq!(verdicts.next(), Some(&[2][..]));
        assert!(!verdicts.halve());
        verdicts.delivered();
        assert_eq!(told(&mut verdicts, &batch), (Some(104), vec![103]));
        assert_eq!(verdicts.next(), None);
    }

    #[test]
    fn what_was_sent_with_another_time_counts_when_it_is_delivered() {
        let batch = batch(4);
        let mut verdicts = Verdicts::new(&batch);
        verdicts.restamp(&[0, 1, 2]);
        // In the next request line 1 is sent with its own time.
        verdicts.restamp(&[0, 2]);
        verdicts.settle(0, Some(poison()));
        verdicts.keep_rest();
        assert_eq!(verdicts.tell(&batch, &mut Progress::default()), 0);
        verdicts.restamp(&[2]);
        verdicts.delivered();
        assert_eq!(verdicts.tell(&batch, &mut Progress::default()), 1);
        assert_eq!(verdicts.tell(&batch, &mut Progress::default()), 0, "each is told once");
    }

    #[test]
    fn a_batch_without_lines_is_passed() {
        let batch = batch(0);
        let mut verdicts = Verdicts::new(&batch);
        assert_eq!(verdicts.next(), None);
        assert_eq!(told(&mut verdicts, &batch), (Some(100), vec![]));
    }
}
