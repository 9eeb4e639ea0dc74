//! The admin port, asked over TCP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::spool::{Options, Spool};

async fn asks(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn the_loopback_of_a_container_is_said_to_be_inside() {
    for (address, in_container, expected) in
        [("127.0.0.1:0", true, true), ("127.0.0.1:0", false, false), ("0.0.0.0:0", true, false)]
    {
        let admin = bind(address.parse().unwrap(), None, in_container).unwrap();
        assert_eq!(admin.is_in_container, expected, "{address} {in_container}");
    }
}

#[tokio::test]
async fn a_disk_that_hangs_delays_nobody_who_needs_none() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let spool = Spool::open(Options::new(dir.path(), 1 << 20, Vec::new()), &metrics).unwrap();
    let (prober, _hung) = Prober::of_a_hung_disk();
    let (standstills, ready) = (Standstills::default(), vec![ReadyCheck::Spool]);
    let mistakes = Mistakes::default();
    let (registry, spool) = (Arc::default(), spool.handle);
    let sources =
        Sources { metrics, registry, spool, prober, standstills, mistakes, sd_id: String::new(), ready, tail: None };
    let admin = bind((std::net::Ipv4Addr::LOCALHOST, 0).into(), None, false).unwrap();
    let address = admin.address;
    let serving = tokio::spawn(admin.serve(sources));
    let mut waiting = Vec::new();
    for _ in 0..2 * MAX_SPOOL_REQUESTS {
        waiting.push(asks(address, "/ready").await);
    }
    for path in ["/metrics", "/live"] {
        let answer = answer(asks(address, path).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    for stream in &waiting {
        assert!(stream.try_read(&mut [0]).is_err(), "/metrics was answered after it");
    }
    for stream in waiting {
        let answer = answer(stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("stalled"), "{answer}");
    }
    serving.abort();
}
