//! docker/seccomp.json refuses all calls that are not listed, and the listed ones suffice. The other tests run with it
//! as well.

use super::docker::{Images, docker, try_docker};
use super::host::{self, Need, say};
use super::relay::{LOCKED, SECCOMP};

/// Commands that need no privileges and that a relay does not use. Each succeeds without the profile.
const NOT_OURS: [(&str, &[&str]); 5] = [
    ("unshare: a namespace in which it is root", &["unshare", "--user", "/bin/busybox", "true"]),
    ("sched_setaffinity", &["taskset", "1", "/bin/busybox", "true"]),
    ("symlink", &["ln", "-s", "/etc/shadow", "/tmp/link"]),
    ("mknod", &["mkfifo", "/tmp/pipe"]),
    ("a netlink socket", &["ip", "link"]),
];

/// Runs busybox as the relay's user, with the relay's restrictions and these options.
fn busybox(images: &Images, options: &[&str], command: &[&str]) -> Result<String, String> {
    let mut args = vec!["run", "--rm", "--log-driver", "none", "--network", "none", "--user", "65534:65534"];
    args.extend(["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]);
    args.extend(options);
    args.extend([images.talker.as_str(), "/bin/busybox"]);
    args.extend(command);
    try_docker(args)
}

#[test]
fn what_a_relay_does_not_call_is_refused() {
    if !host::has(&[Need::Docker, Need::Busybox]) {
        return;
    }
    let images = Images::shared();
    // Without `no-new-privileges`, the runtime makes more calls after it has installed the filter.
    for profile in
        [&["--security-opt", SECCOMP][..], &["--security-opt", SECCOMP, "--security-opt", "no-new-privileges"]]
    {
        busybox(&images, profile, &["true"]).unwrap_or_else(|error| panic!("{profile:?}: {error}"));
    }
    let mut refused = 0;
    for (what, command) in NOT_OURS {
        if let Err(error) = busybox(&images, &["--security-opt", "seccomp=unconfined"], command) {
            say(&format!("{what}: not possible here in any case: {error}"));
            continue;
        }
        let said = busybox(&images, &["--security-opt", SECCOMP], command).expect_err(what);
        assert!(said.contains("Operation not permitted"), "{what}: {said}");
        refused += 1;
    }
    assert!(refused >= 3, "only {refused} of {} could be tried", NOT_OURS.len());
}

/// The demo uses threads, sockets, names, TLS, files, signals, and a restart of the relay.
#[test]
fn the_commands_have_what_they_need() {
    if !host::has(&[Need::Docker, Need::Busybox]) {
        return;
    }
    let images = Images::shared();
    let logferry = |options: &[&str], command: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(options);
        args.push(&images.relay);
        args.extend(command);
        docker(args)
    };
    // Only the image's volume is writable.
    let demo = ["demo", "--messages", "3000", "--rate", "3000"];
    let report = logferry(&LOCKED, &demo);
    assert!(report.contains("sent        3000"), "{report}");
    let with_tmp: Vec<&str> = LOCKED.into_iter().chain(["--tmpfs", "/tmp:mode=1777"]).collect();
    let made = logferry(&with_tmp, &["certs", "--out", "/tmp/certs", "--name", "127.0.0.1"]);
    assert!(made.contains("server-key.pem"), "{made}");
    assert!(logferry(&LOCKED, &["check", "--print"]).contains("[spool]"));
    assert!(logferry(&LOCKED, &["spool", "ls", "--help"]).contains("Usage"));
}
