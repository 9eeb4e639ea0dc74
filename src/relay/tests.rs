//! Reloads that a config file cannot bring about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::config::Overrides;

fn config(dir: &std::path::Path, forwards: &[&str]) -> Config {
    let mut text = format!(
        "[spool]\ndir = \"{}\"\n[admin]\nlisten = \"off\"\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n",
        dir.join("spool").display()
    );
    for name in forwards {
        text += &format!("[[forward]]\nname = \"{name}\"\nto = \"tcp://127.0.0.1:1\"\n");
    }
    Config::parse(None, &text, &Overrides::default(), &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

async fn eventually(seen: impl Fn() -> bool) {
    let wait = async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it should have come");
}

/// A forward that has no place in the spool sends nothing: the reload is refused, and nothing of it is in force.
#[tokio::test]
async fn a_forward_that_cannot_be_started_refuses_the_reload() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::bind(config(dir.path(), &["central"])).unwrap();
    let (metrics, spool) = (relay.metrics(), relay.spool_handle.clone());
    let taken = spool.add_reader("copy", &metrics).unwrap();
    let (changed, configs) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = AtomicBool::new(false);
    let running = async {
        relay.run(Box::pin(async move { drop(stopped.await) }), configs).await.unwrap();
        ended.store(true, Ordering::Relaxed);
    };
    let story = async {
        changed.send(Ok(config(dir.path(), &["central", "other", "copy"]))).await.unwrap();
        eventually(|| metrics.reloads_refused.get() == 1).await;
        assert_eq!(metrics.reloads_applied.get(), 0);
        // The other one has given its place up again.
        drop((spool.add_reader("other", &metrics).unwrap(), taken));
        changed.send(Ok(config(dir.path(), &["central", "other", "copy"]))).await.unwrap();
        eventually(|| metrics.reloads_applied.get() == 1).await;
        drop(stop);
    };
    tokio::join!(running, story);
    assert!(ended.load(Ordering::Relaxed));
}
