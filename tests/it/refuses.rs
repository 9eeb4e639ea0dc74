//! A user's mistake gets a one-line error: its place, the problem and the correction. Also the output of the other commands.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::program::SIGHUP;
use crate::support::relay::logferry;
use crate::support::{Certs, Collector, Docker, Format, Setup, eventually, run, skip};

/// Exit codes from sysexits.h.
const USAGE: i32 = 64;
const CONFIG: i32 = 78;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Fails unless `command` ends with `code` and its last line, the only one that is not a log line, says `says`.
#[track_caller]
fn is_refused(command: &mut Command, code: i32, says: &str) {
    let output = run(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let (last, before) =
        said.lines().rev().collect::<Vec<_>>().split_first().map(|(l, b)| (*l, b.to_vec())).expect(says);
    assert!(before.iter().all(|line| line.contains(" INFO ") || line.contains(" WARN ")), "more than one line: {said}");
    assert_eq!(last, format!("logferry: {says}"));
}

/// Like [`is_refused`], for `logferry check`, which prints more and ends with a summary.
#[track_caller]
fn is_found(command: &mut Command, says: &str) {
    let output = run(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    let problems: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("problem: ")).collect();
    assert_eq!(problems, [says], "{said}");
    assert!(said.lines().last().is_some_and(|last| last.starts_with("1 problem, ")), "{said}");
}

/// A config that both `logferry` and `logferry check` reject. `{file}` is its path.
#[track_caller]
fn bad_config(text: &str, says: &str) {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("logferry.toml");
    fs::write(&file, text).expect("written");
    let says = says.replace("{file}", file.to_str().expect("UTF-8"));
    is_found(logferry().arg("check").arg("--config").arg(&file), &says);
    is_refused(logferry().arg("--config").arg(&file), CONFIG, &says);
}

/// An error quotes arbitrary input; control characters in it have no effect on a terminal.
#[test]
fn a_complaint_is_text() {
    let says = r"spool: /no/\u{1b}[2Jwhere is not there; name the spool's directory, or a --config";
    is_refused(logferry().args(["spool", "ls", "/no/\u{1b}[2Jwhere"]), CONFIG, says);
}

#[test]
fn unknown_keys() {
    bad_config("\nhostnam = \"x\"\n", "{file}:2: unknown key `hostnam`; did you mean `hostname`?");
    bad_config("[[listen]]\nadress = \"udp://[::]:0\"\n", "{file}:2: unknown key `adress`; did you mean `address`?");
    bad_config("[spol]\n", "{file}:1: unknown key `spol`; did you mean `spool`?");
}

#[test]
fn bad_values() {
    bad_config(
        "[spool]\n\nmax-size = \"1 gigabyte\"\n",
        "{file}:3: spool.max-size: `1 gigabyte`: write a size such as \"64KiB\", \"512MiB\" or \"1GiB\"",
    );
    bad_config("[spool]\nmax-size = \"10KiB\"\n", "{file}:2: spool.max-size: `10KiB`: from 1MiB to 1PiB");
    bad_config(
        "grace = 5\n",
        "{file}:1: grace: `5`: write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\"",
    );
    bad_config(
        "[[forward]]\nto = \"tls://logs.example.com\"\n",
        "{file}:2: forward.to: `tls://logs.example.com`: write tcp+tls:// for TLS, as Docker does",
    );
    bad_config(
        "[[listen]]\naddress = \"udp://localhost:514\"\n",
        "{file}:2: listen.address: `udp://localhost:514`: a listener needs an IP address, not the name `localhost`; \
         127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address, [::] every address",
    );
    bad_config(
        "[[forward]]\nto = \"tcp://${COLLECTOR}:514\"\n",
        "{file}:2: forward.to: `tcp://${COLLECTOR}:514`: the variable COLLECTOR is not set",
    );
}

#[test]
fn what_belongs_together() {
    bad_config(
        "[[listen]]\naddress = \"tcp+tls://0.0.0.0:6514\"\n",
        "{file}:2: listen.address: `tcp+tls://0.0.0.0:6514`: TLS needs `cert` and `key` (PEM files)",
    );
    bad_config(
        "[[forward]]\nto = \"stdout:\"\nname = \"a\"\n[[forward]]\nto = \"file:///a\"\nname = \"a\"\n",
        "{file}:6: forward.name: `a`: another forward has this name already",
    );
    let listener = |keys: &str| format!("[[listen]]\naddress = \"tcp+tls://0.0.0.0:6514\"\n{keys}\n");
    bad_config(
        &listener("client-names = [\"node-7\"]\ncert = \"a\"\nkey = \"b\""),
        "{file}:3: listen.client-names: `node-7`: `client-names` needs `client-ca`: anybody can write any name into a \
         certificate",
    );
    bad_config(
        "[[listen]]\naddress = \"tcp://[::]:0\"\nmultiline = \"first\"\n",
        "{file}:3: listen.multiline: `first`: write \"off\", \"indented\", or how the first line of a message begins, as a \
         regular expression with ^ in front: '^\\d{4}-'",
    );
    bad_config(
        "[[listen]]\naddress = \"tcp://[::]:0\"\nmultiline = '^(\\d'\n",
        "{file}:3: listen.multiline: `^(\\d`: the pattern cannot be used: found open group without closing ')'",
    );
    bad_config(
        "[[listen]]\naddress = \"tcp://0.0.0.0:514\"\nclient-fingerprint = \"sha-256:00\"\n",
        "{file}:3: listen.client-fingerprint: `sha-256:00`: `client-fingerprint` needs `cert` and `key`",
    );
    let sha1 = "sha-1:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64:36:0B:08:4B:7A:F1:9E:9D";
    bad_config(
        &format!("[[forward]]\nto = \"tcp+tls://a\"\nserver-fingerprint = [\"{sha1}\"]\n"),
        &format!(
            "{{file}}:3: forward.server-fingerprint: `{sha1}`: a SHA-1 fingerprint can be forged; write \"sha-256:…\"; \
             `openssl x509 -noout -fingerprint -sha256 -in FILE` tells it"
        ),
    );
    bad_config(
        "[[forward]]\nto = \"tcp://a\"\nserver-fingerprint = \"sha-256:00\"\n",
        "{file}:3: forward.server-fingerprint: `sha-256:00`: no target of `to` speaks TLS; write tcp+tls://, relp+tls://, https://, s3://, nats+tls://, fluent+tls:// or gelf+tls://",
    );
}

/// Every command reports all mistakes of a config at once.
#[test]
fn five_mistakes_are_named_at_once() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("logferry.toml");
    let text = "\
hostnam = \"node-7\"

[[listen]]
address = \"udp://localhost:514\"

[spool]
max-size = \"1 gigabyte\"
when-ful = \"drop-newest\"

[[forward]]
to = \"tls://logs.example.com\"
";
    fs::write(&file, text).expect("written");
    let named = [
        (1, "unknown key `hostnam`; did you mean `hostname`?"),
        (4, "listen.address: `udp://localhost:514`: "),
        (7, "spool.max-size: `1 gigabyte`: "),
        (8, "unknown key `when-ful`; did you mean `when-full`?"),
        (11, "forward.to: `tls://logs.example.com`: "),
    ];
    for (command, prefix) in [("run", "logferry: "), ("check", "problem: "), ("explain", "logferry: ")] {
        let output = run(logferry().args([command, "--config"]).arg(&file));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(CONFIG), "{command}: {said}");
        let said: Vec<&str> = said.lines().filter(|line| line.starts_with(prefix)).collect();
        assert_eq!(said.len(), named.len(), "{command}: {said:?}");
        for (said, (line, says)) in said.iter().zip(named) {
            let begins = format!("{prefix}{}:{line}: {says}", file.display());
            assert!(said.starts_with(&begins), "{command}: {said} is not {begins}");
        }
    }
}

/// A common mistake in TOML.
#[test]
fn one_bracket_where_there_should_be_two() {
    let output = |text: &str| {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("logferry.toml");
        fs::write(&file, text).expect("written");
        let output = run(logferry().args(["check", "--syntax-only", "--config"]).arg(&file));
        assert_eq!(output.status.code(), Some(CONFIG));
        stderr(&output)
    };
    let said = output("[listen]\naddress = \"udp://0.0.0.0:514\"\n");
    assert!(said.contains("logferry.toml:1: ") && said.contains("[[listen]]"), "{said}");
    let said = output("\nforward = \"tcp://logs.example.com:514\"\n");
    assert!(said.contains("logferry.toml:2: ") && said.contains("[[forward]]"), "{said}");
}

#[test]
fn a_config_that_cannot_be_read() {
    is_refused(
        logferry().args(["--config", "/nonexistent/logferry.toml"]),
        CONFIG,
        "/nonexistent/logferry.toml: cannot read the config file: No such file or directory (os error 2); name another with --config or LOGFERRY_CONFIG",
    );
}

#[test]
fn flags_and_variables_are_named_as_they_were_given() {
    is_refused(
        logferry().args(["--forward", "logs.example.com"]),
        CONFIG,
        "--forward / LOGFERRY_FORWARD: `logs.example.com` is no address; write udp://, tcp://, tcp+tls://, \
         relp://, relp+tls://, fluent://, fluent+tls://, gelf+udp://, gelf+tcp://, gelf+tls://, http://, https://, nats://, nats+tls://, these with srv+ in front, s3://bucket/prefix, file:///path or stdout:",
    );
    is_refused(
        logferry().env("LOGFERRY_SPOOL_MAX_SIZE", "big"),
        CONFIG,
        "--spool-max-size / LOGFERRY_SPOOL_MAX_SIZE: `big`: write a size such as \"64KiB\", \"512MiB\" or \"1GiB\"",
    );
}

#[test]
fn usage_is_one_line_too() {
    for (arguments, tells) in [
        (&["--lisen", "udp://127.0.0.1:0"][..], &["--lisen", "--listen"][..]),
        (&["chek"], &["chek", "check"]),
        (&["check", "--spool-max-size"], &["--spool-max-size"]),
        (&["certs", "--out", "x"], &["--name"]),
    ] {
        let output = run(logferry().args(arguments));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(USAGE), "{said}");
        assert!(tells.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: more than one line: {said}");
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["help"]] {
        let output = run(logferry().args(arguments));
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Runs and checks a config with a TLS listener.
#[track_caller]
fn bad_files(cert: &str, key: &str, says: &str) {
    let keys = format!("cert = \"{cert}\"\nkey = \"{key}\"");
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:");
    let says = format!("listen tcp+tls://127.0.0.1:0: {says}");
    is_refused(&mut setup.command(), CONFIG, &says);
    is_found(setup.command().arg("check"), &says);
}

#[test]
fn certificates_and_keys_that_cannot_be_used() {
    let dir = TempDir::new().expect("a directory");
    let (certs, others) = (Certs::get(), Certs::others(&dir));
    let (cert, key, other) = (certs.path("server.pem"), certs.path("server-key.pem"), others.path("server-key.pem"));
    let text = dir.path().join("notes.txt");
    fs::write(&text, "no PEM").expect("written");
    let text = text.to_str().expect("UTF-8");
    bad_files(
        &cert,
        &other,
        &format!(
            "{cert} and {other} do not work together: keys may not be consistent: KeyMismatch; name the key that belongs to the certificate"
        ),
    );
    bad_files(
        &cert,
        &cert,
        &format!("{cert}: no private key in it; it needs -----BEGIN PRIVATE KEY----- (PEM, not encrypted)"),
    );
    bad_files(text, &key, &format!("{text}: no certificate in it; it needs -----BEGIN CERTIFICATE----- (PEM)"));
    bad_files("/nonexistent.pem", &key, "/nonexistent.pem: cannot read it: No such file or directory (os error 2)");
}

#[test]
fn a_forward_without_a_usable_ca() {
    let setup = Setup::new()
        .listen("udp://127.0.0.1:0")
        .forward_with("tcp+tls://127.0.0.1", "name = \"central\"\nca = \"/nonexistent.pem\"");
    let says = "forward central: /nonexistent.pem: cannot read it: No such file or directory (os error 2)";
    is_refused(&mut setup.command(), CONFIG, says);
    is_found(setup.command().arg("check"), says);
}

/// Such a forward would never connect, and would report it only at its first attempt.
#[test]
fn a_server_name_that_no_certificate_can_carry() {
    let ca = Certs::get().path("ca.pem");
    let setup = Setup::new()
        .listen("udp://127.0.0.1:0")
        .forward_with("tcp+tls://127.0.0.1", &format!("ca = \"{ca}\"\nserver-name = \"not a name\""));
    let output = run(setup.command().arg("check"));
    assert_eq!(output.status.code(), Some(CONFIG), "{}", stderr(&output));
    assert!(stderr(&output).contains("not a name"), "{}", stderr(&output));
}

/// A collector with another host's certificate receives nothing, and the relay keeps trying.
#[test]
fn a_collector_that_cannot_be_verified_gets_nothing() {
    let dir = TempDir::new().expect("a directory");
    let stranger = Collector::tls_of(&Certs::others(&dir));
    let ca = format!("ca = \"{}\"", Certs::get().path("ca.pem"));
    let relay = Setup::new().listen("udp://127.0.0.1:0").forward_with(&stranger.url(), &ca).start();
    relay.door().connect().says(&Docker::new(Format::Default, "web"), b"secret");
    relay.says("TLS with 127.0.0.1: invalid peer certificate: ");
    relay.says(&format!("no CA of {} has signed its certificate", Certs::get().path("ca.pem")));
    relay.counts("forward_waiting", 1);
    assert_eq!((stranger.count(), relay.metrics().sum("forward_connects_total")), (0, 0));

    let misnamed = Collector::tls(crate::support::Framing::OctetCounting, false);
    let keys = format!("{ca}\nserver-name = \"logs.example.com\"");
    let relay = Setup::new().listen("udp://127.0.0.1:0").forward_with(&misnamed.url(), &keys).start();
    relay.door().connect().says(&Docker::new(Format::Default, "web"), b"secret");
    relay.says("TLS with logs.example.com: its certificate is for `127.0.0.1`, ");
    assert_eq!(misnamed.count(), 0);
}

/// The collector answers, but in another protocol.
#[test]
fn a_collector_of_another_protocol_is_told_from_one_that_is_away() {
    let plain = Collector::tcp(crate::support::Framing::Newline);
    let at = plain.url().replace("tcp://", "");
    let says = |to: &str, hint: &str| {
        let setup = Setup::new().listen("udp://127.0.0.1:0").forward_with(to, "connect-timeout = \"500ms\"");
        let relay = setup.start();
        relay.door().connect().says(&Docker::new(Format::Default, "web"), b"x");
        relay.says(hint);
    };
    says(&format!("relp://{at}"), "is that a RELP port? Plain syslog is tcp://");
    let relp = Setup::new().listen("relp://127.0.0.1:0").forward("stdout:").start();
    let port = relp.door().port();
    says(&format!("tcp://127.0.0.1:{port}"), &format!("tcp://127.0.0.1:{port} at 127.0.0.1:{port}: "));
    says(&format!("tcp://127.0.0.1:{port}"), "does that port speak plain syslog? TLS is tcp+tls://, RELP is relp://");
}

#[test]
fn variables_that_are_nearly_right() {
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("stdout:");
    let output = run(setup.command().arg("check").env("LOGFERRY_FOWARD", "tcp://x").env("LOGFERRY_PORT_514_UDP", "y"));
    let says = "warning: LOGFERRY_FOWARD is set, but no setting has this name; did you mean LOGFERRY_FORWARD?";
    assert!(stderr(&output).contains(says) && !stderr(&output).contains("LOGFERRY_PORT"), "{}", stderr(&output));
    let relay = setup.variable("LOGFERRY_HOSTNAM", "z").start();
    relay.says("did you mean LOGFERRY_HOSTNAME?");
    relay.says("forward central: writes to stdout:");
}

#[test]
fn a_port_that_is_taken() {
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (udp, tcp) = (udp.local_addr().map(|at| (udp, at)).unwrap(), tcp.local_addr().map(|at| (tcp, at)).unwrap());
    let ours = "if it is another `listen` of ours: [::] takes IPv4 too, and what changes at one port needs a restart";
    let refused = |scheme: &str, at: std::net::SocketAddr, hint: &str| {
        let setup = Setup::new().listen(&format!("{scheme}://{at}")).forward("stdout:");
        let says = format!(
            "listen: cannot bind {scheme}://{at}: in use; `{hint} 'sport = :{}'` shows by whom; {ours}",
            at.port()
        );
        is_refused(&mut setup.command(), CONFIG, &says);
    };
    refused("udp", udp.1, "ss -lunp");
    refused("tcp", tcp.1, "ss -ltnp");
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("stdout:");
    is_refused(
        setup.command().args(["--admin", &tcp.1.to_string()]),
        CONFIG,
        &format!(
            "admin: cannot listen on {}: Address already in use (os error 98); `ss -ltnp 'sport = :{}'` shows by whom; or give \
             [admin] listen another port",
            tcp.1,
            tcp.1.port()
        ),
    );
}

#[test]
fn an_address_of_another_machine() {
    // TEST-NET-1 (RFC 5737): no host has this address.
    let setup = Setup::new().listen("udp://192.0.2.1:0").forward("stdout:");
    is_refused(
        &mut setup.command(),
        CONFIG,
        "listen: cannot bind udp://192.0.2.1:0: no interface has this address (inside a container its own addresses \
         count, not the host's); 0.0.0.0 or [::] takes all there are",
    );
}

#[test]
fn a_key_that_this_user_must_not_read() {
    let dir = TempDir::new().expect("a directory");
    let Some(mut command) = crate::support::as_nobody(&dir) else { return };
    let certs = Certs::others(&dir);
    let (cert, key) = (certs.path("server.pem"), certs.path("server-key.pem"));
    command.args(["--listen", "tcp+tls://127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
    let says = format!(
        "listen tcp+tls://127.0.0.1:0: {key}: cannot read it: Permission denied (os error 13); logferry runs as uid 65534"
    );
    is_refused(&mut command, CONFIG, &says);
}

#[test]
fn a_port_that_needs_privileges() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first_free.trim().parse::<u16>().is_ok_and(|first| first <= 514) {
        return skip("ports of root", "here anybody may bind port 514");
    }
    let dir = TempDir::new().expect("a directory");
    for scheme in ["udp", "tcp"] {
        let Some(mut command) = crate::support::as_nobody(&dir) else { return };
        let output = run(command.args(["--listen", &format!("{scheme}://127.0.0.1:514"), "--admin", "off"]));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(CONFIG), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with(&format!("logferry: listen: cannot bind {scheme}://127.0.0.1:514: permission denied; "))
        );
        assert!(said.contains("CAP_NET_BIND_SERVICE") && said.contains("ip_unprivileged_port_start"), "{said}");
    }
}

#[test]
fn a_spool_that_this_user_must_not_write() {
    let dir = TempDir::new().expect("a directory");
    let Some(mut command) = crate::support::as_nobody(&dir) else { return };
    let spool = dir.path().join("spool");
    command.args(["--listen", "udp://127.0.0.1:0", "--admin", "off", "--spool-dir"]).arg(&spool);
    let output = run(&mut command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("logferry: ") && last.contains(spool.to_str().unwrap()), "{said}");
    assert!(last.contains("Permission denied"), "{said}");
}

/// A flag overrides a variable, a variable the file, and the file the default, for each setting separately.
#[test]
fn flags_go_over_variables_over_the_file() {
    let setup = Setup::new().listen("udp://127.0.0.1:1111").forward_with("tcp://127.0.0.1:1112", "format = \"json\"");
    let effective = |command: &mut Command| {
        let output = run(command.args(["check", "--syntax-only", "--print"]));
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let file = effective(&mut setup.command());
    for line in [
        "hostname = \"relay-1\"",
        "address = \"udp://127.0.0.1:1111\"",
        "to = [\"tcp://127.0.0.1:1112\"]",
        "format = \"json\"",
        // Defaults, because nothing sets these.
        "max-size = \"1GiB\"",
        "level = \"info\"",
    ] {
        assert!(file.contains(line), "no {line} in {file}");
    }
    let variables = [
        ("LOGFERRY_HOSTNAME", "variable"),
        ("LOGFERRY_LISTEN", "udp://127.0.0.1:2221,tcp://127.0.0.1:2222"),
        ("LOGFERRY_FORWARD", "tcp://127.0.0.1:2223"),
        ("LOGFERRY_FORMAT", "rfc3164"),
        ("LOGFERRY_SPOOL_MAX_SIZE", "2GiB"),
        ("LOGFERRY_LOG", "debug"),
    ];
    let over_file = effective(setup.command().envs(variables));
    for line in [
        "hostname = \"variable\"",
        "address = \"udp://127.0.0.1:2221\"",
        "address = \"tcp://127.0.0.1:2222\"",
        "to = [\"tcp://127.0.0.1:2223\"]",
        "format = \"rfc3164\"",
        "max-size = \"2GiB\"",
        "level = \"debug\"",
    ] {
        assert!(over_file.contains(line), "no {line} in {over_file}");
    }
    assert!(!over_file.contains("1111") && !over_file.contains("1112"), "a list replaces a list: {over_file}");
    let flags = ["--hostname", "flag", "--listen", "udp://127.0.0.1:3331", "--spool-max-size", "3GiB"];
    let mut command = setup.command();
    let output = run(command.envs(variables).args(["check", "--syntax-only", "--print"]).args(flags));
    let over_both = String::from_utf8(output.stdout).expect("text");
    for line in [
        "hostname = \"flag\"",
        "address = \"udp://127.0.0.1:3331\"",
        "max-size = \"3GiB\"",
        "to = [\"tcp://127.0.0.1:2223\"]",
        "format = \"rfc3164\"",
    ] {
        assert!(over_both.contains(line), "no {line} in {over_both}");
    }
}

/// The output of `check` is a config with the same meaning.
#[test]
fn what_check_prints_is_a_config() {
    let certs = Certs::get();
    let setup = Setup::new()
        .listen_with("tcp://127.0.0.1:0", &certs.listen())
        .forward_with("tcp+tls://127.0.0.1:6514", &format!("ca = \"{}\"", certs.path("ca.pem")));
    let first = run(setup.command().args(["check", "--print"]));
    assert!(first.status.success(), "{}", stderr(&first));
    let said = stderr(&first);
    assert!(said.contains("server.pem and its key can be used") && said.contains("certificates can be used"), "{said}");
    let printed = setup.path("printed.toml");
    fs::write(&printed, &first.stdout).expect("written");
    let second = run(logferry().args(["check", "--print", "--config"]).arg(&printed));
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&second.stdout));
    assert!(first.stdout.starts_with(b"# the effective settings, defaults filled in\n"));
    let silent = run(setup.command().arg("check"));
    assert_eq!((&*silent.stdout, stderr(&silent)), (&b""[..], said), "unasked, it prints no settings");
}

/// A name that does not resolve is only a warning: the relay would retry.
#[test]
fn check_warns_of_a_name_that_does_not_resolve() {
    // `.invalid` never exists (RFC 6761), and no program listens on port 1.
    let setup = Setup::new()
        .listen("udp://127.0.0.1:0")
        .forward("tcp://collector.invalid:514")
        .section("[resolve]\nnameservers = \"127.0.0.1:1\"\ntimeout = \"200ms\"");
    let output = run(setup.command().arg("check"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: forward central: collector.invalid does not resolve now"));
}

#[test]
fn certs_never_overwrites() {
    let dir = TempDir::new().expect("a directory");
    let out = dir.path().join("certs");
    let make = || {
        let mut command = logferry();
        command.args(["certs", "--name", "logs.example.com", "--out"]).arg(&out);
        command
    };
    assert!(run(&mut make()).status.success());
    let read = |name: &str| fs::read(out.join(name)).expect("a file");
    let (key, ca) = (read("ca-key.pem"), read("ca.pem"));
    for secret in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
        let mode = fs::metadata(out.join(secret)).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let says =
        format!("certs: {} is there already; nothing was written (choose another --out)", out.join("ca.pem").display());
    is_refused(&mut make(), CONFIG, &says);
    // Missing files are not created either.
    fs::remove_file(out.join("server.pem")).expect("removed");
    is_refused(&mut make(), CONFIG, &says);
    assert!(!out.join("server.pem").exists());
    assert!(read("ca-key.pem") == key && read("ca.pem") == ca);
}

#[test]
fn health_tells_a_running_relay_from_a_dead_one() {
    let relay = Setup::new().listen("udp://127.0.0.1:0").forward("tcp://127.0.0.1:1").start();
    let admin = relay.admin();
    let health = || run(logferry().arg("health").env("LOGFERRY_ADMIN", admin.to_string()));
    // The relay is healthy while its collector is away, because it exists to bridge such an outage.
    let well = health();
    assert!(well.status.success() && well.stdout.is_empty() && well.stderr.is_empty(), "{}", stderr(&well));
    relay.stops();
    // The port stays bound, so that no other program answers there.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    held.set_reuse_address(true).expect("a socket option");
    held.bind(&admin.into()).expect("the relay has left it");
    let dead = health();
    assert_eq!(dead.status.code(), Some(1));
    let says = format!(
        "logferry: health: no answer from {admin}: Connection refused (os error 111); is the relay running? Its address is [admin] listen (LOGFERRY_ADMIN)\n"
    );
    assert_eq!(stderr(&dead), says);
}

/// The relay keeps its old config and stays healthy.
#[test]
fn a_config_that_has_become_bad_makes_no_relay_sick() {
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("tcp://127.0.0.1:1");
    let relay = setup.start();
    let admin = relay.admin();
    let file = setup.path("logferry.toml");
    let text = format!("nonsense = 1\n[admin]\nlisten = \"{admin}\"\n");
    fs::write(&file, text).expect("written");
    relay.signal(SIGHUP);
    relay.says("config: not reloaded, the old one stays in force");
    let health = || run(logferry().arg("health").env("LOGFERRY_CONFIG", &file));
    let well = health();
    assert!(well.status.success() && well.stderr.is_empty(), "{}", stderr(&well));
    relay.stops();
    assert_eq!(health().status.code(), Some(1));
}

/// The default output is stdout.
#[test]
fn without_a_forward_lines_go_to_stdout() {
    let setup = Setup::new().listen("udp://127.0.0.1:0");
    let relay = setup.start();
    let container = Docker::new(Format::Rfc5424, "web");
    relay.door().connect().says(&container, b"hello");
    eventually("the line", || {
        let stdout = relay.stdout();
        stdout.ends_with(b"hello\n").then_some(())
    });
    relay.has_delivered(1, 0);
    relay.stops();
}
