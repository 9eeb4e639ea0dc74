//! docker/seccomp.json: what is not in it is refused, and what is in it is enough. The other stories run in it as well.

use super::docker::{Images, docker, try_docker};
use super::host::{self, Need, say};
use super::relay::{LOCKED, SECCOMP};

/// What nobody needs privileges for, and a relay does not do. Each ends well where it is let.
const NOT_OURS: [(&str, &[&str]); 5] = [
    ("unshare: a namespace in which it is root", &["unshare", "--user", "/bin/busybox", "true"]),
    ("sched_setaffinity", &["taskset", "1", "/bin/busybox", "true"]),
    ("symlink", &["ln", "-s", "/etc/shadow", "/tmp/link"]),
    ("mknod", &["mkfifo", "/tmp/pipe"]),
    ("a netlink socket", &["ip", "link"]),
];

/// busybox as the relay's user, locked up as the relay is, but for these options.
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
    // Without `no-new-privileges` the runtime has more to do after the filter is in place.
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

/// Threads, sockets, names, TLS, files, signals, a relay that is started anew: the demo has them all.
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
    // Nothing but the image's volume can be written.
    let demo = ["demo", "--messages", "3000", "--rate", "3000"];
    let report = logferry(&LOCKED, &demo);
    assert!(report.contains("sent        3000"), "{report}");
    let with_tmp: Vec<&str> = LOCKED.into_iter().chain(["--tmpfs", "/tmp:mode=1777"]).collect();
    let made = logferry(&with_tmp, &["certs", "--out", "/tmp/certs", "--name", "127.0.0.1"]);
    assert!(made.contains("server-key.pem"), "{made}");
    assert!(logferry(&LOCKED, &["check", "--print"]).contains("[spool]"));
    assert!(logferry(&LOCKED, &["spool", "ls", "--help"]).contains("Usage"));
}
