//! Waiting in unit tests: for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The deadline. Only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `is_so` holds. After the deadline it panics with the text of `what`.
pub async fn eventually(is_so: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        sleep(Duration::from_millis(1)).await;
    }
}
