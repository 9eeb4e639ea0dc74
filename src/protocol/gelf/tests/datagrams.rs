//! The UDP transport: chunks of many senders, each message compressed in its own way.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::protocol::gelf::{Datagrams, MAX_JSON, Message, Refused};
use crate::record::UnixMicros;

/// Room for some messages that lack chunks.
const ROOM: usize = 64 << 10;
const LIFETIME: Duration = Duration::from_secs(5);

/// A socket, and the time.
struct Rig {
    datagrams: Datagrams,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self { datagrams: Datagrams::new(ROOM), now: Instant::now() }
    }

    /// The text of the message that a datagram from this port is, or completes.
    fn takes(&mut self, port: u16, datagram: &[u8]) -> Result<Option<String>, Refused> {
        let mut text = None;
        let from = SocketAddr::from(([192, 0, 2, 7], port));
        let taken = self.datagrams.take(from, datagram, self.now, |json| {
            let message = Message::read(json)?;
            let record = message.record(UnixMicros(1_796_000_000_000_000));
            text = Some(String::from_utf8_lossy(record.message.unwrap_or_default()).into_owned());
            Ok(())
        });
        taken.map(|()| text)
    }

    /// The messages that these datagrams complete.
    #[track_caller]
    fn take_all<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a (u16, Vec<u8>)>) -> Vec<String> {
        let take = |(port, datagram): &(u16, Vec<u8>)| self.takes(*port, datagram).expect("a good datagram");
        datagrams.into_iter().filter_map(take).collect()
    }

    fn lost(&mut self) -> Vec<(Refused, u64)> {
        self.datagrams.give_up(self.now).collect()
    }
}

fn json(text: &str) -> Vec<u8> {
    format!(r#"{{"short_message":"{text}"}}"#).into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Splits a payload as Docker's driver does: a payload that is a multiple of `size` gets an empty last chunk.
fn chunks(id: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len() / size + 1;
    let chunk = |number: usize| {
        let data = &payload[number * size..payload.len().min((number + 1) * size)];
        [b"\x1e\x0f", &[id; 8][..], &[number as u8, count as u8], data].concat()
    };
    (0..count).map(chunk).collect()
}

#[test]
fn chunks_come_from_two_senders_with_one_id_in_any_order_and_twice() {
    let texts = ["of the first sender, in four chunks", "of the second sender, and compressed"];
    let sent = [json(texts[0]), gzip(&json(texts[1]))];
    let of = |port: u16| chunks(7, &sent[usize::from(port) - 1], 16).into_iter().map(move |chunk| (port, chunk));
    let all: Vec<_> = of(1).chain(of(2)).collect();
    // Every step that visits each chunk once.
    for step in (1..all.len()).filter(|step| (2..=*step).all(|by| step % by > 0 || all.len() % by > 0)) {
        let mut rig = Rig::new();
        let mixed = (0..all.len()).map(|nth| &all[nth * step % all.len()]);
        let mut found = rig.take_all(mixed.flat_map(|chunk| [chunk, chunk]).take(2 * all.len() - 1));
        found.sort();
        assert_eq!(found, texts, "{step}");
        // A chunk that is repeated behind the last one begins a message that is never completed.
        rig.now += LIFETIME;
        assert!(rig.lost().iter().all(|(why, _)| *why == Refused::Expired));
    }
}

#[test]
fn each_message_is_compressed_in_its_own_way() {
    let mut rig = Rig::new();
    let text = "a".repeat(200);
    for size in [usize::MAX, 16, 1] {
        for (id, payload) in (0..).zip([json(&text), gzip(&json(&text)), zlib(&json(&text))]) {
            let datagrams = match size {
                usize::MAX => vec![payload],
                1 if payload.len() >= 128 => continue,
                size => chunks(id, &payload, size),
            };
            let datagrams: Vec<_> = datagrams.into_iter().map(|datagram| (1, datagram)).collect();
            assert_eq!(rig.take_all(&datagrams), [&*text], "{size}, {id}");
        }
    }
    assert_eq!(rig.lost(), []);
}

#[test]
fn an_empty_last_chunk_is_waited_for() {
    let mut rig = Rig::new();
    let text = "so long that it makes four by sixteen bytes.";
    let payload = json(text);
    assert_eq!(payload.len() % 16, 0, "{}", payload.len());
    let mut sent = chunks(7, &payload, 16);
    let last = sent.pop().expect("chunks");
    assert_eq!(last.len(), 12);
    for chunk in sent {
        assert_eq!(rig.takes(1, &chunk), Ok(None));
    }
    assert_eq!(rig.takes(1, &last), Ok(Some(text.to_owned())));
}

#[test]
fn what_contradicts_or_is_damaged_is_refused_and_the_message_is_whole_in_spite_of_it() {
    let mut rig = Rig::new();
    let good = chunks(7, &json("whole"), 16);
    assert_eq!(rig.takes(1, &good[0]), Ok(None));
    let mut other = good[1].clone();
    other[11] += 1;
    assert_eq!(rig.takes(1, &other), Err(Refused::Contradiction));
    assert_eq!(rig.takes(1, &good[1][..11]), Err(Refused::ShortChunk));
    assert_eq!(rig.takes(1, &good[1]), Ok(Some("whole".to_owned())));
    // A complete payload that is not a message is refused once, and the next message is read.
    for (payload, why) in [
        (&b"not JSON"[..], Refused::NotJson),
        (b"{}", Refused::NoShortMessage),
        (&gzip(b"[]"), Refused::NoObject),
        (&gzip(&json("a"))[..20], Refused::BadGzip),
        (&zlib(&json("a"))[..20], Refused::BadZlib),
    ] {
        assert_eq!(rig.takes(1, payload), Err(why));
        let sent = chunks(8, payload, 5);
        let (last, before) = sent.split_last().expect("chunks");
        before.iter().for_each(|chunk| assert_eq!(rig.takes(1, chunk), Ok(None)));
        assert_eq!(rig.takes(1, last), Err(why));
        assert_eq!(rig.takes(1, &json("next")), Ok(Some("next".to_owned())));
    }
    rig.now += LIFETIME;
    assert_eq!(rig.lost(), []);
}

#[test]
fn messages_whose_chunks_do_not_come_are_told_once() {
    let mut rig = Rig::new();
    let (first, second) = (chunks(7, &json("first"), 16), chunks(8, &json("second"), 16));
    rig.takes(1, &first[0]).expect("a chunk");
    rig.now += LIFETIME / 2;
    rig.takes(1, &second[0]).expect("a chunk");
    rig.takes(2, &second[0]).expect("a chunk");
    assert_eq!(rig.lost(), []);
    rig.now += LIFETIME / 2;
    assert_eq!(rig.lost(), [(Refused::Expired, 1)]);
    assert_eq!(rig.lost(), []);
    assert_eq!(rig.takes(1, &second[1]), Ok(Some("second".to_owned())));
    rig.now += LIFETIME;
    assert_eq!(rig.lost(), [(Refused::Expired, 1)]);
}

#[test]
fn the_oldest_messages_are_given_up_where_there_is_no_room_for_more() {
    let mut rig = Rig::new();
    let long = chunks(7, &json(&"x".repeat(3000)), 1408);
    for port in 1..=200 {
        rig.takes(port, &long[0]).expect("a chunk");
    }
    let lost = rig.lost();
    assert!(matches!(lost[..], [(Refused::Evicted, 150..200)]), "{lost:?}");
    assert_eq!(rig.lost(), []);
    // After a reload there may be less room.
    rig.datagrams.keep_at_most(ROOM / 8);
    rig.takes(1000, &chunks(9, &json("small"), 16)[0]).expect("a chunk");
    assert!(rig.datagrams.unfinished() < 10, "{}", rig.datagrams.unfinished());
    // The newest messages are still held.
    assert_eq!(rig.takes(200, &long[1]), Ok(None));
    assert!(rig.takes(200, &long[2]).expect("the last chunk").is_some());
}

#[test]
fn what_inflates_beyond_the_limit_is_refused_and_the_next_message_is_not() {
    let mut rig = Rig::new();
    let most = json(&"x".repeat(MAX_JSON - json("").len()));
    let more = [&most[..], b" "].concat();
    for compress in [gzip, zlib] {
        assert_eq!(rig.takes(1, &compress(&most)).map(|text| text.map(|text| text.len())), Ok(Some(most.len() - 20)));
        let bomb = compress(&more);
        assert_eq!(rig.takes(1, &bomb), Err(Refused::TooLong));
        let sent = chunks(7, &bomb, 100);
        let (last, before) = sent.split_last().expect("chunks");
        before.iter().for_each(|chunk| assert_eq!(rig.takes(1, chunk), Ok(None)));
        assert_eq!(rig.takes(1, last), Err(Refused::TooLong));
        assert_eq!(rig.takes(1, &json("next")), Ok(Some("next".to_owned())));
    }
}
