//! Keeps the memory of this process private, because private keys and other people's logs are in it: no core file, no access through
//! `/proc/PID/mem` or `environ`, no debugger, except for root.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::complain;

/// Closes the memory from here on. In a sandbox that forbids this, the process warns and goes on.
pub fn keep_private() {
    // The first setting decides, also when the kernel pipes a core to a program. The second one is visible in `/proc/PID/limits`, and
    // holds when another program makes the process dumpable again.
    let (undumpable, coreless) = (prctl::set_dumpable(false), setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = undumpable.and(coreless) {
        complain(&format!("cannot keep the memory of this process private: {error}; a core file could hold keys"));
    }
}
