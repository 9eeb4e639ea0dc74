//! The relay's secrets: its memory, its keys, and its files on disk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc::{SIGABRT, SIGSEGV};
use tempfile::TempDir;

use crate::support::{Certs, Collector, Framing, Program, Setup, eventually, relay::logferry, says, skip};

const NOBODY: u32 = 65_534;

/// The same command, started by a shell that runs `first` before it.
pub fn after(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$@\""), "sh"]).arg(command.get_program()).args(command.get_args());
    with_variables_of(shell, command)
}

fn with_variables_of(mut command: Command, other: &Command) -> Command {
    command.env_clear().envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Files of /proc that need the right to trace the process: the errors when another process of the same user opens them.
fn refusals(process: u32) -> Vec<Result<(), String>> {
    let look = |file| {
        let mut dd = Command::new("dd");
        dd.args([&format!("if=/proc/{process}/{file}"), "count=0"]).uid(NOBODY).gid(NOBODY);
        let output = dd.output().expect("dd is everywhere");
        let says = || String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(says()) }
    };
    ["mem", "environ"].map(look).into()
}

#[track_caller]
fn is_closed_to_its_own_user(process: u32) {
    for refusal in refusals(process) {
        let says = refusal.expect_err("it may be read");
        assert!(says.contains("Permission denied"), "{says}");
    }
}

#[test]
fn no_process_of_the_same_user_reads_its_memory() {
    let dir = TempDir::new().expect("a directory");
    let Some(mut other) = crate::support::as_nobody(&dir) else { return };
    let binary = other.get_program().to_owned();
    // Another program of that user must be readable, otherwise the test proves nothing.
    let sleeper = Program::start(Command::new("sleep").arg("1000").uid(NOBODY).gid(NOBODY));
    if let Some(Err(says)) = refusals(sleeper.id()).into_iter().find(Result::is_err) {
        return skip("memory of others", &format!("here no process may read another one's memory: {says}"));
    }

    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("stdout:");
    fs::set_permissions(setup.dir().path(), fs::Permissions::from_mode(0o777)).expect("our directory");
    let mut command = with_variables_of(Command::new(binary), &setup.command());
    let relay = setup.start_with(command.uid(NOBODY).gid(NOBODY));
    is_closed_to_its_own_user(relay.id());
    // The relay still has access to everything that it needs.
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    relay.stops();

    // Other commands, which also read keys, are protected too: this one waits for its stdin.
    let mut explain = other.args(["explain"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    eventually("it is closed", || refusals(explain.id()).iter().all(Result::is_err).then_some(()));
    is_closed_to_its_own_user(explain.id());
    drop(explain.stdin.take());
    assert!(explain.wait().expect("a child of ours").success());
}

/// Whether the program wrote a core dump when this signal killed it.
fn dumps_core(program: &mut Program, signal: i32) -> bool {
    program.signal(signal);
    let status = program.ends();
    assert_eq!(status.signal(), Some(signal), "{status}");
    status.core_dumped()
}

#[test]
fn a_crash_leaves_no_core_file_with_keys_in_it() {
    const LET_IT: &str = "ulimit -c unlimited && cd \"$0\"";
    let dir = TempDir::new().expect("a directory");
    let in_dir = |command: &Command| {
        let mut command = after(&LET_IT.replace("$0", dir.path().to_str().expect("UTF-8")), command);
        command.stderr(Stdio::null());
        command
    };
    let mut sleep = Command::new("sleep");
    let mut sleeper = Program::start(&mut in_dir(sleep.arg("1000")));
    eventually("it sleeps", || name_of(sleeper.id(), "sleep").then_some(()));
    if !dumps_core(&mut sleeper, SIGSEGV) {
        return skip("core files", "here no crash leaves a core file (ulimit -c, or kernel.core_pattern)");
    }
    for file in fs::read_dir(dir.path()).expect("our directory").flatten() {
        fs::remove_file(file.path()).expect("a core");
    }

    let setup = Setup::new().listen("udp://127.0.0.1:0");
    for signal in [SIGSEGV, SIGABRT] {
        let mut relay = setup.start_with(&mut in_dir(&setup.command()));
        // Rust's handler takes the first SIGSEGV (to detect a stack overflow), and the next one has the default action.
        let status = eventually("it is killed", || {
            relay.signal(signal);
            relay.has_ended()
        });
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal), false));
        assert_eq!(fs::read_dir(dir.path()).expect("our directory").count(), 0);
    }
    let relay = setup.start_with(&mut in_dir(&setup.command()));
    let limits = fs::read_to_string(format!("/proc/{}/limits", relay.id())).expect("it runs");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("proc(5)");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

/// Whether the shell has executed the program.
fn name_of(process: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name)
}

/// The modes of a directory and of everything in it, as `name mode`, except sockets.
fn modes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).expect("it is there");
        if about.is_dir() {
            left.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
        let kind = if about.is_dir() { "dir" } else { "file" };
        found.push(format!("{kind} {:o} {}", about.permissions().mode() & 0o777, path.display()));
    }
    found.sort();
    found
}

#[test]
fn others_do_not_read_what_it_writes_whatever_the_umask() {
    for (umask, dir_mode, file_mode) in [("0", "dir 750 ", "file 640 "), ("077", "dir 700 ", "file 600 ")] {
        let setup = Setup::new().listen("udp://127.0.0.1:0").forward("file://{dir}/logs/{name}/today.log");
        let relay = setup.start_with(&mut after(&format!("umask {umask}"), &setup.command()));
        says(&relay, 0..10);
        relay.has_delivered(10, 0);
        relay.stops();
        let (spool, logs) = (modes(&setup.path("spool")), modes(&setup.path("logs")));
        // At least a segment, the lock and the cursor in the spool; a directory per container in the logs.
        assert!(spool.len() >= 4 && logs.len() == 3, "{spool:?} {logs:?}");
        for found in spool.iter().chain(&logs) {
            // The key is private to its owner with any umask.
            let file_mode = if found.ends_with("/relay.key") { "file 600 " } else { file_mode };
            assert!(found.starts_with(dir_mode) || found.starts_with(file_mode), "umask {umask}: {found}");
        }
    }
}

#[test]
fn what_is_there_keeps_its_mode() {
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("file://{dir}/logs/all.log");
    let mode = |path: &str, mode| fs::set_permissions(setup.path(path), fs::Permissions::from_mode(mode));
    for dir in ["spool", "logs"] {
        fs::create_dir(setup.path(dir)).expect("a fresh directory");
        mode(dir, 0o777).expect("ours");
    }
    fs::write(setup.path("logs/all.log"), "").expect("a fresh directory");
    mode("logs/all.log", 0o666).expect("ours");
    let relay = setup.start();
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    relay.stops();
    assert_eq!(modes(&setup.path("spool"))[0], format!("dir 777 {}", setup.path("spool").display()));
    let logs = [("dir 777", "logs"), ("file 666", "logs/all.log")];
    assert_eq!(modes(&setup.path("logs")), logs.map(|(mode, path)| format!("{mode} {}", setup.path(path).display())));
}

/// One line of each key's PEM: output with any of these lines leaks a key.
fn secrets(certs: &Certs) -> Vec<String> {
    let names = ["server-key.pem", "client-key.pem", "ca-key.pem"];
    let pem = names.map(|name| fs::read_to_string(certs.path(name)).expect("a key"));
    let lines = pem.iter().flat_map(|pem| pem.lines()).filter(|line| !line.starts_with("-----"));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(lines.len() >= 6 && lines.iter().all(|line| line.len() > 30), "{}", lines.len());
    lines
}

#[track_caller]
fn tells_no_secret(certs: &Certs, said: &[u8]) {
    let said = String::from_utf8_lossy(said);
    for line in secrets(certs) {
        assert!(!said.contains(&line), "{said}");
    }
}

fn said_by(command: &mut Command) -> Vec<u8> {
    let output = crate::support::run(command);
    [output.stdout, output.stderr].concat()
}

#[test]
fn keys_are_in_nothing_that_is_shown() {
    let certs = Certs::get();
    let collector = Collector::tls(Framing::OctetCounting, true);
    let tls = |kind: &str| {
        format!(
            "cert = \"{}\"\nkey = \"{}\"",
            certs.path(&format!("{kind}.pem")),
            certs.path(&format!("{kind}-key.pem"))
        )
    };
    let setup = Setup::new()
        .listen_with("tcp+tls://127.0.0.1:0", &tls("server"))
        .forward_with(&collector.url(), &format!("{}\n{}", tls("client"), Certs::trusted("x+tls://")))
        .section("[log]\nlevel = \"debug\"");
    let relay = setup.start();
    for path in ["/", "/status", "/metrics", "/ready"] {
        tells_no_secret(certs, crate::support::http::get(&relay, path).body.as_bytes());
    }
    for command in [&["check", "--print"][..], &["explain"]] {
        tells_no_secret(certs, &said_by(setup.command().args(command)));
    }
    tells_no_secret(certs, relay.stops().stderr.as_bytes());
}

/// Users may put a file's content where its path is expected.
#[test]
fn a_key_that_is_given_for_its_path_is_not_told() {
    let certs = Certs::get();
    let pem = fs::read_to_string(certs.path("server-key.pem")).expect("a key");
    let mut in_one_line = pem.replace('\n', "\\n");
    in_one_line.truncate(200);
    let given: [(&str, &OsStr); 4] = [
        ("LOGFERRY_TLS_KEY", pem.as_ref()),
        ("LOGFERRY_TLS_KEY", in_one_line.as_ref()),
        ("LOGFERRY_CONFIG", pem.as_ref()),
        ("LOGFERRY_TLS_CERT", pem.as_ref()),
    ];
    for (name, value) in given {
        for command in ["check", "run"] {
            let mut logferry = logferry();
            logferry.env("LOGFERRY_LISTEN", "tcp+tls://127.0.0.1:0").env("LOGFERRY_ADMIN", "off");
            logferry
                .env("LOGFERRY_TLS_CERT", certs.path("server.pem"))
                .env("LOGFERRY_TLS_KEY", certs.path("server-key.pem"));
            let said = said_by(logferry.env(name, value).arg(command));
            tells_no_secret(certs, &said);
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("this is what is in a PEM file; write the file's name"), "{said}");
        }
    }
    // A key file instead of a config.
    tells_no_secret(certs, &said_by(logferry().args(["check", "--config", &certs.path("server-key.pem")])));
    tells_no_secret(
        certs,
        &said_by(logferry().args([
            "check",
            "--ca",
            &certs.path("server-key.pem"),
            "--forward",
            "tcp+tls://127.0.0.1:1",
        ])),
    );
}
