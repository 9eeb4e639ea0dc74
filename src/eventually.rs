//! How a unit test waits: for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `is_so`. `what` says what was waited for in vain.
pub async fn eventually(is_so: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        sleep(Duration::from_millis(1)).await;
    }
}
