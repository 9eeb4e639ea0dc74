//! Protects the memory of this process, because it contains private keys and other people's logs: no core file, no access
//! through `/proc/PID/mem` or `environ`, no debugger, except for root.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::complain;

/// Protects the memory from now on. In a sandbox that forbids this, the process prints a warning and continues.
pub fn keep_private() {
    // The first setting is decisive, also for a core that the kernel pipes to a program. The second one is visible in
    // `/proc/PID/limits`, and stays in force if another program makes the process dumpable again.
    let (undumpable, coreless) = (prctl::set_dumpable(false), setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = undumpable.and(coreless) {
        complain(&format!("cannot keep the memory of this process private: {error}; a core file could hold keys"));
    }
}
