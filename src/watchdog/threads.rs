//! Threads of this process in an uninterruptible wait in the kernel (state D in `ps`). A thread waits for a working disk in that
//! state for milliseconds, and for a hanging one until it goes on.
//!
//! The states are in `/proc/self/task`, which is no disk. In a sandbox without `/proc` no thread is found.

use std::collections::HashMap;
use std::fs;

use nix::unistd::Pid;

/// The threads that waited at the last look, by their IDs.
#[derive(Default)]
pub struct ThreadWatch(HashMap<i32, Waiting>);

/// A thread in an uninterruptible wait.
#[derive(Clone, Copy)]
struct Waiting {
    /// How often the thread has left the processor by itself (`voluntary_ctxt_switches`). While the count does not grow, the
    /// thread is in one wait.
    switches: u64,
    looks: u32,
}

impl ThreadWatch {
    /// Returns each waiting thread's name, its place in the kernel, and the number of looks of its wait. Of several threads with one
    /// name the one is returned that has waited longest.
    pub fn look(&mut self) -> Vec<(String, String, u32)> {
        let before = std::mem::take(&mut self.0);
        let mut found: HashMap<String, (String, u32)> = HashMap::new();
        for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            let Some((name, 'D')) = name_and_state(id) else { continue };
            let Some(switches) = switches(id) else { continue };
            let same = before.get(&id).filter(|before| before.switches == switches);
            let looks = same.map_or(0, |before| before.looks + 1);
            self.0.insert(id, Waiting { switches, looks });
            let longest = found.entry(name).or_default();
            if longest.0.is_empty() || looks > longest.1 {
                *longest = (place(Pid::from_raw(id)), looks);
            }
        }
        found.into_iter().map(|(name, (place, looks))| (name, place, looks)).collect()
    }
}

/// What a thread waits for: a function of the kernel, or its own computing.
pub fn place(thread: Pid) -> String {
    let id = thread.as_raw();
    let function = fs::read_to_string(format!("/proc/self/task/{id}/wchan")).unwrap_or_default();
    match (name_and_state(id), function.trim()) {
        (Some((_, 'R')), _) => "its own thread, which computes".to_owned(),
        (Some((_, state)), "" | "0") => format!("the kernel (state {state})"),
        (Some((_, state)), function) => format!("the kernel (state {state}, in {function})"),
        (None, _) => "what is not known".to_owned(),
    }
}

/// Reads `ID (NAME) STATE …` of proc(5), where a name may hold any character.
fn name_and_state(id: i32) -> Option<(String, char)> {
    let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    Some((name.to_owned(), rest.chars().next()?))
}

fn switches(id: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/self/task/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use nix::unistd::gettid;

    use super::*;

    #[test]
    fn a_thread_that_rests_is_read_and_not_found() {
        let (tell, told) = channel();
        let (release, released) = channel::<()>();
        let run = move || {
            tell.send(gettid()).unwrap();
            let _ = released.recv();
        };
        // A name that contains the delimiter behind names, `) `.
        let thread = thread::Builder::new().name("a) D b".to_owned()).spawn(run).unwrap();
        let id = told.recv().unwrap();
        let (name, state) = name_and_state(id.as_raw()).unwrap();
        assert!(name == "a) D b" && "RS".contains(state), "{name} {state}");
        assert!(switches(id.as_raw()).is_some());
        let mut watch = ThreadWatch::default();
        assert!(watch.look().iter().all(|(name, ..)| name != "a) D b"));
        release.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!((name_and_state(0), place(Pid::from_raw(0)).as_str()), (None, "what is not known"));
    }
}
