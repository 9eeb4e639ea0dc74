//! Datagrams: each is one message.

use std::cell::Cell;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::{bound, limited, listen, listen_with, loopbacks, options, start};
use crate::config::{Limits, ListenTransport};
use crate::listen::Options;
use crate::skip::has_ipv6;

fn sender(to: &str) -> UdpSocket {
    let sender = UdpSocket::bind(if to.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
    sender.connect(to).unwrap();
    sender
}

#[tokio::test]
async fn who_is_not_allowed_is_not_heard() {
    let allow = |range: &str| Limits { allow: vec![range.parse().unwrap()], ..Limits::default() };
    let trial = listen_with(limited("udp://[::]:0", allow("127.0.0.2")));
    let sender = |from: &str| {
        let sender = UdpSocket::bind((from, 0)).unwrap();
        sender.connect(("127.0.0.1", trial.at().port())).unwrap();
        sender
    };
    sender("127.0.0.1").send(b"<30>stranger").unwrap();
    sender("127.0.0.2").send(b"<30>friend").unwrap();
    trial.expect(&["<30>friend"]).await;
    assert_eq!(trial.metrics.refused.allow.get(), 1);
    trial.until("the refusal is shown", |trial| trial.running.state().last_refused().is_some()).await;
    let refused = trial.running.state().last_refused().expect("it is shown");
    assert_eq!((refused.reason, refused.address), ("allow", Some(Ipv4Addr::LOCALHOST.into())));
    trial.running.change(limited("udp://[::]:0", allow("127.0.0.0/8")), trial.metrics.clone());
    sender("127.0.0.1").send(b"<30>no stranger any more").unwrap();
    trial.expect(&["<30>friend", "<30>no stranger any more"]).await;
}

#[tokio::test]
async fn one_datagram_is_one_message() {
    for host in loopbacks() {
        let trial = listen(&format!("udp://{host}:0"));
        let sender = sender(&trial.at().to_string());
        for text in ["<30>one\n", "", "\n", "<30>two\nstill two\n", "9 <30>three"] {
            sender.send(text.as_bytes()).unwrap();
        }
        trial.expect(&["<30>one", "<30>two\nstill two", "9 <30>three"]).await;
        assert_eq!(trial.metrics.bytes.get(), 8 + 1 + 18 + 11);
        trial.stopped().await;
    }
}

#[tokio::test]
async fn no_host_means_both_families() {
    let trial = listen("udp://:0");
    let port = trial.at().port();
    sender(&format!("127.0.0.1:{port}")).send(b"four").unwrap();
    trial.expect(&["four"]).await;
    if !has_ipv6() {
        return;
    }
    sender(&format!("[::1]:{port}")).send(b"six").unwrap();
    trial.expect(&["four", "six"]).await;
}

#[tokio::test]
async fn long_datagrams_are_cut_at_the_limit() {
    let trial = listen_with(limited("udp://127.0.0.1:0", Limits { max_frame: 1000, ..Limits::default() }));
    let sender = sender(&trial.at().to_string());
    for length in [999, 1000, 1001, 60_000] {
        sender.send(&vec![b'x'; length]).unwrap();
    }
    let whole = "x".repeat(1000);
    let cut = whole.clone() + "~";
    trial.expect(&[&whole[1..], &whole, &cut, &cut]).await;
    assert_eq!(trial.metrics.cut.max_frame.get(), 2);
}

#[tokio::test]
async fn the_longest_datagram_there_is() {
    let trial = listen("udp://127.0.0.1:0");
    let longest = "y".repeat(65_507);
    sender(&trial.at().to_string()).send(longest.as_bytes()).unwrap();
    trial.expect(&[&longest]).await;
    assert_eq!(trial.metrics.cut.max_frame.get(), 0);
}

#[tokio::test]
async fn unix_datagrams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let trial = listen(&format!("unixgram://{}", path.display()));
    assert_eq!(trial.address.transport(), &ListenTransport::Unixgram(path.clone()));
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    for text in ["<30>one\n", "", "<30>two\n"] {
        sender.send(text.as_bytes()).unwrap();
    }
    // A datagram longer than the listener's buffer: the kernel reports that it was cut.
    let long = "z".repeat(70_000);
    sender.send(long.as_bytes()).unwrap();
    trial.expect(&["<30>one", "<30>two", &(long[..65_536].to_owned() + "~")]).await;
    assert_eq!(trial.metrics.cut.max_frame.get(), 1);
    trial.stopped().await;
    assert!(sender.send(b"too late").is_err());
}

#[tokio::test]
async fn what_was_sent_before_a_shutdown_is_read() {
    for round in 0..20 {
        let (bound, metrics) = bound(options("udp://127.0.0.1:0"));
        let at = bound.address().socket_address().expect("udp");
        let sender = sender(&at.to_string());
        let sent: Vec<String> = (0..150).map(|number| format!("<30>round {round} message {number}")).collect();
        for text in &sent {
            sender.send(text.as_bytes()).unwrap();
        }
        let trial = start(bound, metrics);
        assert_eq!(trial.stopped().await, sent);
    }
}

/// A thread that blocks in the kernel must notice the shutdown: in tests its timeout is an hour.
#[tokio::test]
async fn an_idle_listener_stops() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let udp = listen("udp://127.0.0.1:0");
        sender(&udp.at().to_string()).send(b"awake").unwrap();
        udp.expect(&["awake"]).await;
        udp.stopped().await;
        listen(&format!("unixgram://{}/{round}", dir.path().display())).stopped().await;
    }
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted() {
    const BURST: u64 = 3000;
    let (bound, metrics) = bound(Options { receive_buffer: 4096, ..options("udp://127.0.0.1:0") });
    assert!(metrics.receive_buffer.get() > 0 && metrics.receive_buffer.get() < 65_536);
    let at = bound.address().socket_address().expect("udp");
    let sender = sender(&at.to_string());
    for _ in 0..BURST {
        sender.send(b"burst").unwrap();
    }
    let trial = start(bound, metrics);
    // The count comes with a later datagram, which a buffer this small may have no room for either.
    let sent = Cell::new(BURST);
    trial
        .until("received + dropped = sent", |trial| {
            let conserved = trial.count() as u64 + trial.metrics.kernel_drops.get() == sent.get();
            if !conserved {
                sender.send(b"later").unwrap();
                sent.set(sent.get() + 1);
            }
            conserved
        })
        .await;
    assert!(trial.metrics.kernel_drops.get() > BURST / 2);
}

#[tokio::test]
async fn a_large_receive_buffer_is_granted_and_told() {
    let (_bound, metrics) = bound(Options { receive_buffer: 100_000, ..options("udp://127.0.0.1:0") });
    assert_eq!(metrics.receive_buffer.get(), 200_000);
}

/// A socket that was handed over is not shut down, so its idle thread needs another sign of the stop.
#[tokio::test]
async fn an_idle_socket_that_was_handed_over_ends_at_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unixgram://{}/socket", dir.path().display());
    let any = ["udp://0.0.0.0:0".to_owned(), "udp://:0".to_owned(), unix];
    let own = loopbacks().iter().map(|host| format!("udp://{host}:0"));
    for address in own.chain(any) {
        let (mut bound, metrics) = bound(options(&address));
        bound.handed_over = true;
        // Its owner keeps its name.
        let _name = bound.file.take();
        let trial = start(bound, metrics);
        trial.stopped().await;
    }
}
