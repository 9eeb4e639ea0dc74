//! What is in the memory of this process, private keys and other people's logs, is for nobody else: no core file, no look
//! through `/proc/PID/mem` or `environ`, no debugger, but for root's.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::complain;

/// From here on. Nothing is wrong with the rest where a sandbox does not let us, so that is said and no more.
pub fn keep_private() {
    // The kernel asks the first, also before it pipes a core to a program; the second is what is left to be seen, and for
    // whoever makes the process dumpable again.
    let (undumpable, coreless) = (prctl::set_dumpable(false), setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = undumpable.and(coreless) {
        complain(&format!("cannot keep the memory of this process private: {error}; a core file could hold keys"));
    }
}
