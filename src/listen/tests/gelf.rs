//! GELF by UDP: messages in datagrams and in chunks.

use std::net::UdpSocket;

use super::{Trial, limited, listen, listen_with, options};
use crate::config::Limits;

const GELF: &str = "gelf+udp://127.0.0.1:0";

fn sender(trial: &Trial) -> UdpSocket {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(trial.at()).unwrap();
    sender
}

fn message(text: &str) -> Vec<u8> {
    format!(r#"{{"short_message":"{text}"}}"#).into_bytes()
}

/// One of two chunks.
fn half(id: u8, number: u8, text: &str) -> Vec<u8> {
    let whole = message(text);
    let halves = whole.split_at(10);
    let data = if number == 0 { halves.0 } else { halves.1 };
    [b"\x1e\x0f", &[id; 8][..], &[number, 2], data].concat()
}

#[tokio::test]
async fn a_datagram_is_a_message_or_a_chunk_of_one() {
    let trial = listen(GELF);
    let (one, other) = (sender(&trial), sender(&trial));
    for (sender, datagram) in [
        (&one, message("whole")),
        (&one, half(7, 1, "in two chunks")),
        (&other, half(7, 0, "of another sender")),
        (&other, b"\n\0".to_vec()),
        (&other, message("ends in NUL").into_iter().chain([0]).collect()),
        (&one, half(7, 0, "in two chunks")),
        (&other, half(7, 1, "of another sender")),
        (&other, b"<30>no GELF".to_vec()),
        (&other, message("last")),
    ] {
        sender.send(&datagram).unwrap();
    }
    trial.expect(&["whole", "ends in NUL", "in two chunks", "of another sender", "last"]).await;
    assert_eq!(trial.metrics.refused.of_protocol("not-json").get(), 1);
    let refused = trial.running.state().last_refused().expect("it is shown");
    assert_eq!((refused.reason, refused.address), ("not-json", Some([127, 0, 0, 1].into())));
    trial.stopped().await;
}

#[tokio::test]
async fn a_long_text_is_cut_and_marked() {
    let trial = listen_with(limited(GELF, Limits { max_frame: 1000, ..Limits::default() }));
    let sender = sender(&trial);
    for length in [1000, 1001] {
        sender.send(&message(&"x".repeat(length))).unwrap();
    }
    let whole = "x".repeat(1000);
    trial.expect(&[&whole, &format!("{whole}~")]).await;
    assert_eq!(trial.metrics.cut.max_frame.get(), 1);
}

#[tokio::test]
async fn a_reload_changes_what_is_spoken_and_counts_what_lacks_chunks() {
    let trial = listen("udp://127.0.0.1:0");
    let sender = sender(&trial);
    sender.send(b"<30>syslog").unwrap();
    trial.expect(&["<30>syslog"]).await;
    trial.running.change(options(GELF), trial.metrics.clone());
    sender.send(&half(7, 0, "never whole")).unwrap();
    sender.send(&message("GELF")).unwrap();
    trial.expect(&["<30>syslog", "GELF"]).await;
    assert_eq!(trial.metrics.unfinished.get(), 0);
    trial.running.change(options("udp://127.0.0.1:0"), trial.metrics.clone());
    sender.send(&message("text")).unwrap();
    trial.expect(&["<30>syslog", "GELF", r#"{"short_message":"text"}"#]).await;
    assert_eq!(trial.metrics.unfinished.get(), 1);
    trial.running.change(options(GELF), trial.metrics.clone());
    sender.send(&half(7, 1, "never whole")).unwrap();
    let metrics = trial.metrics.clone();
    assert_eq!(trial.stopped().await.len(), 3);
    assert_eq!(metrics.unfinished.get(), 2);
}

/// The client in the proxy's header is the sender of a chunk, whatever socket of the proxy it comes from.
#[tokio::test]
async fn behind_a_proxy_two_senders_may_have_one_id() {
    let limits = Limits { proxy_protocol: true, allow: vec!["127.0.0.1".parse().unwrap()], ..Limits::default() };
    let trial = listen_with(limited(GELF, limits));
    let proxy = sender(&trial);
    let of = |client: u8, datagram: Vec<u8>| {
        let addresses = [192, 0, 2, client, 192, 0, 2, 1, 0x30, 0x39, 2, 2];
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c"[..], &addresses, &datagram].concat()
    };
    for (client, number, text) in [(7, 0, "one"), (8, 0, "two"), (8, 1, "two"), (7, 1, "one")] {
        proxy.send(&of(client, half(7, number, text))).unwrap();
    }
    trial.expect(&["two", "one"]).await;
    assert_eq!(trial.metrics.refused.of_protocol("contradiction").get(), 0);
}
