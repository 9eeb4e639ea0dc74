//! Whether a name has moved away from an address, or its answers only rotate: some name servers give a few of many addresses, others
//! each time. An answer without the connected address is a move when the next answer confirms it. It is no move if such an answer was
//! followed before by one that has the address again. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::answer::{Answer, Endpoint};

/// An address that was in an answer within this time still belongs to a name whose answers rotate. If each answer, every 30 s, has 3
/// of 40 addresses, nearly every address (99 of 100) comes again within this time.
pub const RECENT: Duration = Duration::from_secs(30 * 60);

/// How a name's answers rotate. It outlives the connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// When an address last came back that an earlier answer had left out.
    seen: Option<Instant>,
}

/// One address while it is connected.
#[derive(Debug)]
pub struct Whereabouts {
    endpoint: Endpoint,
    /// When the address was last in an answer.
    told: Instant,
    /// The addresses of the last answer, if it left the address out.
    elsewhere: Option<BTreeSet<SocketAddr>>,
}

impl Rotation {
    fn is_known(self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.duration_since(seen) < RECENT)
    }
}

impl Whereabouts {
    /// The whereabouts of an address that was in an answer just now.
    pub fn new(endpoint: Endpoint, now: Instant) -> Self {
        Self { endpoint, told: now, elsewhere: None }
    }

    /// Whether the name has moved away from the address. `is_stalled`: the connection makes no progress, so one answer is enough.
    pub fn has_moved(&mut self, answer: &Answer, is_stalled: bool, rotation: &mut Rotation, now: Instant) -> bool {
        let before = self.elsewhere.take();
        if !answer.excludes(&self.endpoint) {
            if before.is_some() {
                rotation.seen = Some(now);
            }
            self.told = now;
            return false;
        }
        let told: BTreeSet<SocketAddr> = answer.endpoints.iter().map(|endpoint| endpoint.peer).collect();
        let is_confirmed = is_stalled || before.as_ref() == Some(&told);
        self.elsewhere = Some(told);
        (is_confirmed && !rotation.is_known(now)) || now.duration_since(self.told) >= RECENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    struct Name {
        rotation: Rotation,
        now: Instant,
        /// Where the connection is.
        at: u8,
        whereabouts: Whereabouts,
        moves: usize,
    }

    fn endpoint(last: u8) -> Endpoint {
        Endpoint { peer: SocketAddr::from(([10, 0, 0, last], 514)), host: "collector".to_owned(), priority: 0 }
    }

    impl Name {
        fn at(last: u8) -> Self {
            let now = Instant::now();
            let whereabouts = Whereabouts::new(endpoint(last), now);
            Self { rotation: Rotation::default(), now, at: last, whereabouts, moves: 0 }
        }

        /// A connection follows each move.
        fn answers(&mut self, addresses: &[u8], is_stalled: bool) {
            self.now += TTL;
            let endpoints: Vec<Endpoint> = addresses.iter().copied().map(endpoint).collect();
            let answer = Answer { endpoints, ttl: TTL, unanswered: Vec::new() };
            if self.whereabouts.has_moved(&answer, is_stalled, &mut self.rotation, self.now) {
                self.at = addresses[0];
                self.whereabouts = Whereabouts::new(endpoint(self.at), self.now);
                self.moves += 1;
            }
        }

        fn all(&mut self, answers: &[&[u8]]) -> (u8, usize) {
            answers.iter().for_each(|addresses| self.answers(addresses, false));
            (self.at, self.moves)
        }
    }

    #[test]
    fn a_move_is_one_that_the_next_answer_confirms() {
        assert_eq!(Name::at(1).all(&[&[1], &[1], &[2]]), (1, 0));
        assert_eq!(Name::at(1).all(&[&[1], &[2], &[2]]), (2, 1));
        // There and back again.
        assert_eq!(Name::at(1).all(&[&[2], &[2], &[1], &[1], &[2], &[2]]), (2, 3));
        // Answers with more addresses, the connected one among them.
        assert_eq!(Name::at(1).all(&[&[2, 1], &[3, 2, 1], &[2], &[2]]), (2, 1));
    }

    #[test]
    fn a_stall_needs_no_second_answer() {
        let mut name = Name::at(1);
        name.answers(&[1], true);
        name.answers(&[2], true);
        assert_eq!((name.at, name.moves), (2, 1));
    }

    /// Each answer has three of forty addresses, others each time.
    #[test]
    fn answers_that_rotate_are_no_move() {
        let mut name = Name::at(0);
        let mut lot = 1u32;
        for _ in 0..20_000 {
            let told = [(); 3].map(|()| {
                lot = lot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (lot >> 16) as u8 % 40
            });
            name.answers(&told, false);
        }
        assert_eq!(name.moves, 0);
    }

    /// Each answer has one of two addresses at random. That may look like a move, until the address comes back.
    #[test]
    fn what_was_seen_to_rotate_stays_so_for_a_while() {
        let mut name = Name::at(1);
        assert_eq!(name.all(&[&[2], &[1], &[2], &[2], &[2], &[1], &[2]]), (1, 0));
        // The address stays away for good.
        let quiet = (RECENT.as_secs() / TTL.as_secs()) as usize;
        (0..quiet - 2).for_each(|_| name.answers(&[2], false));
        assert_eq!(name.moves, 0);
        (0..2).for_each(|_| name.answers(&[2], false));
        assert_eq!((name.at, name.moves), (2, 1));
        // The rotation outlives the connection, though not for ever.
        assert!(!name.rotation.is_known(name.now));
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        let mut name = Name::at(1);
        let family = super::super::answer::Family::V4;
        let unanswered = vec![super::super::answer::Unanswered { host: "collector".to_owned(), family }];
        let half = Answer { endpoints: vec![endpoint(2)], ttl: TTL, unanswered };
        for _ in 0..3 {
            assert!(!name.whereabouts.has_moved(&half, true, &mut name.rotation, name.now));
        }
    }
}
