//! Reloads that a config file alone cannot cause.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Overrides;
use crate::eventually::eventually;

fn config(dir: &std::path::Path, forwards: &[&str]) -> Config {
    let mut text = format!(
        "[spool]\ndir = \"{}\"\n[admin]\nlisten = \"off\"\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n",
        dir.join("spool").display()
    );
    for name in forwards {
        text += &format!("[[forward]]\nname = \"{name}\"\nto = \"tcp://127.0.0.1:1\"\n");
    }
    parsed(&text)
}

fn parsed(text: &str) -> Config {
    Config::parse(None, text, &Overrides::default(), &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

/// A forward without a reader in the spool sends nothing. The reload is refused, and no part of it is in force.
#[tokio::test]
async fn a_forward_that_cannot_be_started_refuses_the_reload() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::bind(config(dir.path(), &["central"])).unwrap();
    let (metrics, spool) = (relay.metrics.clone(), relay.spool_handle.clone());
    let taken = spool.add_reader("copy", &metrics).await.unwrap();
    let (changed, configs) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = AtomicBool::new(false);
    let running = async {
        relay.run(Box::pin(async move { drop(stopped.await) }), configs).await.unwrap();
        ended.store(true, Ordering::Relaxed);
    };
    let story = async {
        changed.send(Ok(config(dir.path(), &["central", "other", "copy"]))).await.unwrap();
        eventually(|| metrics.reloads_refused.get() == 1, || "a refusal".to_owned()).await;
        assert_eq!(metrics.reloads_applied.get(), 0);
        // The reader of `other` is free again.
        drop((spool.add_reader("other", &metrics).await.unwrap(), taken));
        changed.send(Ok(config(dir.path(), &["central", "other", "copy"]))).await.unwrap();
        eventually(|| metrics.reloads_applied.get() == 1, || "a reload".to_owned()).await;
        drop(stop);
    };
    tokio::join!(running, story);
    assert!(ended.load(Ordering::Relaxed));
}

/// Opens a RELP session and then acknowledges nothing, so that a forward cannot leave it in good order. Sets `sent` when something
/// arrives.
async fn opens_only(listener: TcpListener, sent: &AtomicBool) -> io::Result<()> {
    let (mut session, _) = listener.accept().await?;
    let _ = session.read(&mut [0; 4096]).await?;
    session.write_all(b"1 rsp 6 200 OK\n").await?;
    while session.read(&mut [0; 4096]).await? > 0 {
        sent.store(true, Ordering::Relaxed);
    }
    std::future::pending().await
}

/// A forward that was stopped for a change finds its reader taken. The rest of the reload is in force, and another reload starts
/// the forward.
#[tokio::test]
async fn a_reload_is_partly_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = collector.local_addr().unwrap();
    let forwards = |format: &str| {
        let to =
            |name: &str, url: &str| format!("[[forward]]\nname = \"{name}\"\nto = \"{url}\"\nformat = \"{format}\"\n");
        let [slow, central] = [to("slow", &format!("relp://{slow}")), to("central", "tcp://127.0.0.1:1")];
        let spool = dir.path().join("spool");
        let (spool, head) =
            (spool.display(), "[admin]\nlisten = \"off\"\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n");
        parsed(&format!("[spool]\ndir = \"{spool}\"\n{head}{slow}{central}"))
    };
    let relay = Relay::bind(forwards("rfc5424")).unwrap();
    let (metrics, spool) = (relay.metrics.clone(), relay.spool_handle.clone());
    let door: SocketAddr = relay.addresses()[0].socket_address().unwrap();
    let (changed, configs) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let sent = AtomicBool::new(false);
    let story = async {
        let mut sender = TcpStream::connect(door).await.unwrap();
        sender.write_all(b"<13>a line that is never answered\n").await.unwrap();
        eventually(|| sent.load(Ordering::Relaxed), || "a line".to_owned()).await;
        changed.send(Ok(forwards("json"))).await.unwrap();
        // The reload waits for `slow`, and `central` has ended already.
        let taken = async {
            loop {
                match spool.add_reader("central", &metrics).await {
                    Ok(reader) => break reader,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                }
            }
        };
        let taken = taken.await;
        eventually(|| metrics.reloads_refused.get() == 1, || "a reload that is partly in force".to_owned()).await;
        drop(taken);
        changed.send(Ok(forwards("json"))).await.unwrap();
        eventually(|| metrics.reloads_applied.get() == 1, || "a reload".to_owned()).await;
        assert!(spool.add_reader("central", &metrics).await.is_err(), "it is at work again");
        drop(stop);
    };
    let running = relay.run(Box::pin(async move { drop(stopped.await) }), configs);
    tokio::select! {
        (ended, ()) = async { tokio::join!(running, story) } => ended.unwrap(),
        failed = opens_only(collector, &sent) => failed.unwrap(),
    }
}
