//! Streams: framing per frame, every kind of end, limits, and a shutdown that loses nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::watch;

use super::{Taken, Trial, bound, ingest, limited, listen, listen_with, loopbacks, options, start};
use crate::config::Limits;
use crate::listen::KEEPALIVE_IDLE;
use crate::listen::Rules;
use crate::listen::stream::accepted::{AcceptedSocket, StreamSocket};
use crate::listen::stream::driver::serve;
use crate::listen::stream::{Budget, SenderChunks};
use crate::metrics::Metrics;
use crate::skip::has_ipv6;

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    stream
}

/// Connects from the address `host`.
fn connect_from(host: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn say(mut to: impl Write, text: &str) {
    to.write_all(text.as_bytes()).unwrap();
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads in another thread (the relay needs this one), and returns how the connection ends.
async fn end_of(mut stream: TcpStream) -> Result<usize, ErrorKind> {
    let read = move || stream.read(&mut [0; 16]).map_err(|error| error.kind());
    tokio::task::spawn_blocking(read).await.unwrap()
}

async fn until_bytes(trial: &Trial, bytes: usize) {
    trial.until("the bytes to be read", |trial| trial.metrics.bytes.get() == bytes as u64).await;
}

#[tokio::test]
async fn both_framings_on_one_connection() {
    for host in loopbacks() {
        let trial = listen(&format!("tcp://{host}:0"));
        let stream = connect(trial.at());
        say(&stream, "<30>one\n10 <30>1 two\n\n<30>th");
        trial.expect(&["<30>one", "<30>1 two"]).await;
        say(&stream, "ree\n");
        trial.expect(&["<30>one", "<30>1 two", "<30>three"]).await;
        assert_eq!(trial.metrics.connections.get(), 1);
        drop(stream);
        trial.until("the end", |trial| trial.metrics.connections.get() == 0).await;
        assert_eq!((trial.metrics.accepted.get(), trial.metrics.unfinished.get()), (1, 0));
        trial.stopped().await;
    }
}

#[tokio::test]
async fn no_host_means_both_families() {
    let trial = listen("tcp://:0");
    say(connect(([127, 0, 0, 1], trial.at().port()).into()), "four\n");
    trial.expect(&["four"]).await;
    if !has_ipv6() {
        return;
    }
    say(connect((std::net::Ipv6Addr::LOCALHOST, trial.at().port()).into()), "six\n");
    trial.expect(&["four", "six"]).await;
}

#[tokio::test]
async fn unix_streams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let trial = listen(&format!("unix://{}", path.display()));
    let stream = UnixStream::connect(&path).unwrap();
    say(&stream, "<30>one\n<30>two");
    drop(stream);
    trial.expect(&["<30>one", "<30>two"]).await;
    let (one, two) = (UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap());
    say(&one, "<30>three\n");
    say(&two, "<30>four\n");
    let mut frames = trial.stopped().await;
    frames[2..].sort();
    assert_eq!(frames, ["<30>one", "<30>two", "<30>four", "<30>three"]);
    assert_eq!((&one).write(b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_clean_end_ends_the_last_line() {
    let trial = listen("tcp://127.0.0.1:0");
    say(connect(trial.at()), "<30>whole\n<30>printf | nc");
    trial.expect(&["<30>whole", "<30>printf | nc"]).await;
    say(connect(trial.at()), "100 <30>half of a counted frame");
    trial.expect(&["<30>whole", "<30>printf | nc", "<30>half of a counted frame~"]).await;
    assert_eq!(trial.metrics.cut.connection_end.get(), 1);
}

#[tokio::test]
async fn a_broken_connection_drops_its_tail_and_counts_it() {
    let trial = listen("tcp://127.0.0.1:0");
    for (round, tail) in ["<30>tai", "12", "100 <30>tail"].into_iter().enumerate() {
        let before = trial.metrics.bytes.get() as usize;
        let stream = connect(trial.at());
        say(&stream, &format!("<30>whole\n{tail}"));
        until_bytes(&trial, before + 10 + tail.len()).await;
        reset(stream);
        trial.until("the tail", |trial| trial.metrics.unfinished.get() == round as u64 + 1).await;
    }
    trial.expect(&["<30>whole"; 3]).await;
    let stream = connect(trial.at());
    say(&stream, "<30>whole\n");
    trial.expect(&["<30>whole"; 4]).await;
    reset(stream);
    trial.until("the end", |trial| trial.metrics.connections.get() == 0).await;
    assert_eq!(trial.metrics.unfinished.get(), 3);
}

#[tokio::test]
async fn oversized_frames_are_cut_and_forge_nothing() {
    let trial = listen_with(limited("tcp://127.0.0.1:0", Limits { max_frame: 100, ..Limits::default() }));
    let body = "<30>".to_owned() + &"x".repeat(150) + "\n<13>forged\n" + &"x".repeat(400_000);
    let stream = connect(trial.at());
    let message = format!("{} {body}<30>next\n{}\n<30>last\n", body.len(), "y".repeat(300_000));
    let writer = tokio::task::spawn_blocking(move || say(&stream, &message));
    let first = "<30>".to_owned() + &"x".repeat(96) + "~";
    trial.expect(&[&first, "<30>next", &("y".repeat(100) + "~"), "<30>last"]).await;
    writer.await.unwrap();
    assert_eq!(trial.metrics.cut.max_frame.get(), 2);
    assert_eq!(trial.metrics.skipped.max_frame.get(), 54 + 12 + 400_000 + 299_900);
}

#[tokio::test]
async fn many_connections_at_once() {
    const CONNECTIONS: usize = 500;
    const ROUNDS: usize = 20;
    let trial = listen("tcp://127.0.0.1:0");
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| connect(trial.at())).collect();
    for round in 0..ROUNDS {
        for (number, stream) in streams.iter().enumerate() {
            say(stream, &format!("<30>{number} says {round}\n<30>{number} ha"));
            say(stream, "lf\n");
        }
    }
    trial.until("all", |trial| trial.count() == CONNECTIONS * ROUNDS * 2).await;
    assert_eq!(trial.metrics.connections.get(), CONNECTIONS as i64);
    let frames = trial.stopped().await;
    for number in 0..CONNECTIONS {
        let mine = |frame: &&String| frame.starts_with(&format!("<30>{number} s"));
        let expected: Vec<_> = (0..ROUNDS).map(|round| format!("<30>{number} says {round}")).collect();
        assert_eq!(frames.iter().filter(mine).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let trial = listen_with(limited("tcp://127.0.0.1:0", Limits { max_connections: 2, ..Limits::default() }));
    let (first, _second) = (connect(trial.at()), connect(trial.at()));
    trial.until("two", |trial| trial.metrics.connections.get() == 2).await;
    assert_eq!(end_of(connect(trial.at())).await, Err(ErrorKind::ConnectionReset));
    assert_eq!((trial.metrics.accepted.get(), trial.metrics.refused.max_connections.get()), (3, 1));
    drop(first);
    trial.until("a free place", |trial| trial.metrics.connections.get() == 1).await;
    say(connect(trial.at()), "<30>in again\n");
    trial.expect(&["<30>in again"]).await;
}

#[tokio::test]
async fn one_address_does_not_take_the_places_of_all() {
    let limits = Limits { max_connections: 4, max_connections_per_address: 2, ..Limits::default() };
    let trial = listen_with(limited("tcp://127.0.0.1:0", limits));
    let (first, _second) = (connect(trial.at()), connect(trial.at()));
    trial.until("two", |trial| trial.metrics.connections.get() == 2).await;
    assert_eq!(end_of(connect(trial.at())).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(trial.metrics.refused.max_connections_per_address.get(), 1);
    say(connect_from([127, 0, 0, 2], trial.at()), "<30>from elsewhere\n");
    trial.expect(&["<30>from elsewhere"]).await;
    drop(first);
    trial.until("a free place", |trial| trial.metrics.connections.get() == 1).await;
    say(connect(trial.at()), "<30>in again\n");
    trial.expect(&["<30>from elsewhere", "<30>in again"]).await;
    assert_eq!(trial.metrics.refused.max_connections.get(), 0);
}

#[tokio::test]
async fn who_is_not_allowed_is_refused() {
    let allow = |range: &str| Limits { allow: vec![range.parse().unwrap()], ..Limits::default() };
    let trial = listen_with(limited("tcp://[::]:0", allow("127.0.0.2")));
    let at = |host: [u8; 4]| SocketAddr::from((host, trial.at().port()));
    assert_eq!(end_of(connect(at([127, 0, 0, 1]))).await, Err(ErrorKind::ConnectionReset));
    assert_eq!((trial.metrics.accepted.get(), trial.metrics.refused.allow.get()), (1, 1));
    say(connect_from([127, 0, 0, 2], at([127, 0, 0, 1])), "<30>welcome\n");
    trial.expect(&["<30>welcome"]).await;
    // The new setting applies to new connections.
    trial.running.change(limited("tcp://[::]:0", allow("127.0.0.0/8")), trial.metrics.clone());
    say(connect(at([127, 0, 0, 1])), "<30>welcome too\n");
    trial.expect(&["<30>welcome", "<30>welcome too"]).await;
}

#[tokio::test]
async fn a_frame_without_an_end_is_waited_for_only_so_long() {
    let limits = Limits { frame_timeout: Duration::from_millis(1), ..Limits::default() };
    let trial = listen_with(limited("tcp://127.0.0.1:0", limits));
    let (line, counted, silent) = (connect(trial.at()), connect(trial.at()), connect(trial.at()));
    say(&line, "<30>whole\n<30>slow");
    trial.expect(&["<30>whole", "<30>slow~"]).await;
    // While only a count has come, no message is held.
    say(&counted, "14");
    until_bytes(&trial, 20).await;
    say(&counted, " <30>sl");
    trial.expect(&["<30>whole", "<30>slow~", "<30>sl~"]).await;
    say(&line, "er than that\n<30>next\n");
    say(&counted, "ow\n<30>f7 <30>two");
    say(&silent, "<30>three\n");
    trial.until("those after them", |trial| trial.count() == 6).await;
    let mut last = trial.frames().split_off(3);
    last.sort();
    assert_eq!(last, ["<30>next", "<30>three", "<30>two"]);
    assert_eq!((trial.metrics.cut.frame_timeout.get(), trial.metrics.cut.max_frame.get()), (2, 0));
}

#[tokio::test]
async fn frames_without_an_end_take_so_much_memory_in_all() {
    // Connections from one address may hold half of it.
    let trial = listen_with(limited("tcp://127.0.0.1:0", Limits { max_unfinished: 16_000, ..Limits::default() }));
    let (first, second) = (connect(trial.at()), connect(trial.at()));
    say(&first, &"a".repeat(9000));
    until_bytes(&trial, 9000).await;
    assert_eq!(trial.metrics.received.get(), 0, "it may hold so much");
    say(&second, &"b".repeat(1000));
    until_bytes(&trial, 10_000).await;
    assert_eq!(trial.metrics.received.get(), 0, "a little is everybody's");
    say(&second, &"b".repeat(3000));
    trial.expect(&[&("b".repeat(4000) + "~")]).await;
    let neighbour = connect_from([127, 0, 0, 2], trial.at());
    say(&neighbour, &"n".repeat(9000));
    until_bytes(&trial, 22_000).await;
    assert_eq!(trial.metrics.received.get(), 1, "it has a share of its own");
    say(&second, " skipped\n<30>next\n");
    say(&first, "\n");
    trial.until("the others", |trial| trial.count() == 3).await;
    assert!(trial.frames().contains(&"a".repeat(9000)), "the first one is whole");
    assert!(trial.frames().contains(&"<30>next".to_owned()));
    assert_eq!(trial.metrics.cut.max_unfinished.get(), 1);
    // Released memory is available again.
    say(&second, &"c".repeat(9000));
    say(&second, "\n");
    trial.until("the last", |trial| trial.count() == 4).await;
    assert_eq!(trial.frames()[3], "c".repeat(9000));
}

/// The runtime does not run between the writes and the shutdown, so all bytes are still in the kernel.
#[tokio::test]
async fn what_was_sent_before_a_shutdown_is_read_and_then_the_connection_is_reset() {
    let trial = listen("tcp://127.0.0.1:0");
    let known = connect(trial.at());
    trial.until("the connection", |trial| trial.metrics.connections.get() == 1).await;
    // No more than the smallest receive window, so that the receiving kernel holds all of it.
    let text = "<30>a line of some length, to fill some kilobytes\n".repeat(1000);
    say(&known, &text);
    say(&known, "<30>unfini");
    let waiting = connect(trial.at());
    say(&waiting, "<30>not accepted yet\n");
    let metrics = trial.metrics.clone();
    let frames = trial.stopped().await;
    assert_eq!(frames.len(), 1001);
    assert_eq!(frames.iter().filter(|frame| *frame == "<30>not accepted yet").count(), 1);
    assert_eq!((metrics.accepted.get(), metrics.unfinished.get()), (2, 1));
    for stream in [known, waiting] {
        assert_eq!(end_of(stream).await, Err(ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn a_shutdown_before_the_start_is_one_too() {
    let (bound, metrics) = bound(options("tcp://127.0.0.1:0"));
    let at = bound.address().socket_address().expect("tcp");
    say(connect(at), "<30>early\n");
    assert_eq!(start(bound, metrics).stopped().await, ["<30>early"]);
}

/// A sender that never pauses must not keep the relay from stopping.
#[tokio::test]
async fn a_shutdown_is_not_held_up_by_a_busy_sender() {
    let trial = listen("tcp://127.0.0.1:0");
    let stream = connect(trial.at());
    let line = "<30>more and more and more and more\n".repeat(2000);
    let writer = tokio::task::spawn_blocking(move || while (&stream).write_all(line.as_bytes()).is_ok() {});
    trial.until("some", |trial| trial.count() > 10_000).await;
    trial.stopped().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn accepted_connections_inherit_keepalive() {
    let (bound, _) = bound(options("tcp://127.0.0.1:0"));
    let at = bound.address().socket_address().expect("tcp");
    let _stream = connect(at);
    let (accepted, _) = bound.socket.accept().unwrap();
    assert!(accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
}

/// An answer that waits for the acknowledgement of the one before is a round trip late.
#[tokio::test]
async fn answers_are_sent_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _sender = connect(listener.local_addr().unwrap());
    let accepted = listener.accept().await.unwrap().0;
    let same = Socket::from(accepted.as_fd().try_clone_to_owned().unwrap());
    let (options, metrics) = (options("relp://127.0.0.1:0"), Metrics::new().listener("trial"));
    let rules =
        Rules::new(options.address.clone(), &options, metrics.clone(), (&Default::default(), &Default::default()));
    let (reservation, chunks) = (Budget::default().reservation(None), SenderChunks::default());
    let socket = AcceptedSocket::new(StreamSocket::Tcp(accepted));
    let ingest = Box::new(ingest(Taken::new().0));
    let conversation = (rules.session().unwrap(), ingest, reservation);
    let _served = serve(socket, (&rules, &metrics), &chunks, conversation, watch::channel(false).1);
    assert!(same.tcp_nodelay().unwrap());
}

/// This future is most of the memory of an idle connection, of which there may be ten thousand.
#[test]
fn an_idle_connection_is_small() {
    let options = options("tcp://127.0.0.1:0");
    let metrics = Metrics::new().listener("trial");
    let rules =
        Rules::new(options.address.clone(), &options, metrics.clone(), (&Default::default(), &Default::default()));
    let (inlet, chunks) = (Taken::new().0, SenderChunks::default());
    let serve = |socket| {
        let reservation = Budget::default().reservation(None);
        let conversation = (rules.session().unwrap(), Box::new(ingest(inlet.clone())), reservation);
        serve(socket, (&rules, &metrics), &chunks, conversation, watch::channel(false).1)
    };
    let size = size_of_result(serve);
    assert!(size <= 1024, "{size} bytes");
}

fn size_of_result<A, R>(_: impl Fn(A) -> R) -> usize {
    size_of::<R>()
}

/// Descriptors belong to the whole process, so the test runs in a process of its own.
#[test]
fn running_out_of_descriptors_only_delays() {
    let mut test = Command::new("sh");
    let name = "listen::tests::stream::out_of_descriptors";
    test.args(["-c", "ulimit -n 40 && exec \"$0\" --ignored --exact \"$1\""]);
    let output = test.arg(std::env::current_exe().unwrap()).arg(name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by running_out_of_descriptors_only_delays"]
async fn out_of_descriptors() {
    let trial = listen("tcp://127.0.0.1:0");
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
        assert!(hoard.len() < 100, "there is no limit here");
    }
    hoard.pop();
    let stream = connect(trial.at());
    say(&stream, "<30>patience\n");
    // A failing accept has no visible effect, except that the process survives.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((trial.metrics.accepted.get(), trial.count()), (0, 0));
    drop(hoard);
    trial.expect(&["<30>patience"]).await;
    trial.stopped().await;
}
