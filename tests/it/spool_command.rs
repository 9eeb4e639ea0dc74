//! `logferry spool ls|cat|verify`: a view of the spool on the host, while a relay is running and without one.

use std::fs;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::SystemTime;

use crate::support::relay::logferry;
use crate::support::{
    Collector, Docker, Flow, Format, Framing, Line, Program, Relay, Setup, eventually, root_can, says, says_at_length,
};

const NOBODY: u32 = 65_534;

fn setup(collector: &Collector) -> Setup {
    Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&collector.url(), "name = \"central\"\nframing = \"octet-counting\"")
}

fn spool(dir: &Path, arguments: &[&str]) -> Output {
    logferry().arg("spool").arg(arguments[0]).arg(dir).args(&arguments[1..]).output().expect("it runs")
}

#[track_caller]
fn good(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The texts of the lines that `spool cat` prints.
#[track_caller]
fn cat(dir: &Path, arguments: &[&str]) -> Vec<String> {
    messages(&good(spool(dir, &[&["cat"], arguments].concat())))
}

fn messages(printed: &str) -> Vec<String> {
    let text = |line: &str| String::from_utf8(Line::read(line.as_bytes()).message).expect("text");
    printed.lines().map(text).collect()
}

fn listing(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&good(spool(dir, &["ls", "--json"]))).expect("JSON")
}

/// Names, contents and modification times.
fn state(dir: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let changed = path.metadata().expect("a file").modified().expect("a time");
            (path.display().to_string(), fs::read(&path).expect("bytes"), changed)
        })
        .collect();
    files.sort();
    assert!(files.len() >= 2, "only {} files", files.len());
    files
}

/// A relay whose collector is down, with lines from three containers: 0 to 5.
fn told() -> (Collector, Setup, Relay) {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    let mut containers = [("proj-web-1", 6), ("proj-web-2", 3), ("db", 4)]
        .map(|(name, severity)| Docker::new(Format::Rfc5424Micro, name).severity(severity));
    containers[1].id = "0123456789ab".to_owned();
    containers[2].image = "postgres:17".to_owned();
    let mut wire = relay.door().connect();
    (0..6).for_each(|number| wire.says(&containers[number % 3], number.to_string().as_bytes()));
    relay.has_spooled(6);
    (collector, setup, relay)
}

#[test]
fn what_waits_is_seen_while_the_collector_is_down() {
    let (mut collector, setup, relay) = told();
    let dir = setup.path("spool");
    let before = state(&dir);
    for (arguments, expected) in [
        (&[][..], &["0", "1", "2", "3", "4", "5"][..]),
        (&["--container", "proj-web-1"], &["0", "3"]),
        (&["--container", "proj-*"], &["0", "1", "3", "4"]),
        (&["--container", "01234"], &["1", "4"]),
        (&["--container", "proj"], &[]),
        (&["--image", "postgres:*"], &["2", "5"]),
        (&["--host", "docker-host-1"], &["0", "1", "2", "3", "4", "5"]),
        (&["--host", "elsewhere"], &[]),
        (&["--severity", "warning"], &["1", "2", "4", "5"]),
        (&["--severity", "err", "--container", "proj-web-2"], &["1", "4"]),
        (&["--since", "1h"], &["0", "1", "2", "3", "4", "5"]),
        (&["--until", "1h"], &[]),
        (&["--since", "2020-01-01T00:00:00Z", "--until", "2999-01-01T00:00:00Z", "--severity", "err"], &["1", "4"]),
        (&["--pending", "central"], &["0", "1", "2", "3", "4", "5"]),
        (&["--waiting", "central"], &["0", "1", "2", "3", "4", "5"]),
    ] {
        assert_eq!(cat(&dir, arguments), expected, "{arguments:?}");
    }
    let text = good(spool(&dir, &["cat", "--format", "text", "--severity", "err"]));
    assert!(text.lines().next().is_some_and(|line| line.ends_with("Z docker-host-1 proj-web-2 err 1")), "{text}");
    let json = good(spool(&dir, &["cat", "--format", "json"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["container_name"], "proj-web-1");

    let listed = listing(&dir);
    assert_eq!(listed["segments"][0]["lines"], 6, "{listed}");
    assert_eq!((&listed["forwards"][0]["name"], &listed["forwards"][0]["waiting"]), (&"central".into(), &6.into()));
    assert!(listed["forwards"][0]["oldest_age"].is_u64() && listed["segments"][0]["last"].is_string(), "{listed}");
    let table = good(spool(&dir, &["ls"]));
    assert!(table.contains(listed["id"].as_str().expect("an id")) && table.contains("\ncentral "), "{table}");
    assert!(good(spool(&dir, &["verify"])).contains("6 good lines, 1 cursors: nothing is damaged"));
    assert!(state(&dir) == before, "nothing is changed");

    // With the directory in the config, the command needs no argument.
    let by_config = setup.command().args(["spool", "cat"]).output().expect("it runs");
    assert_eq!(messages(&good(by_config)).len(), 6);

    collector.comes();
    relay.has_delivered(6, 0);
    eventually("the cursor's file follows", || cat(&dir, &["--pending", "central"]).is_empty().then_some(()));
    assert_eq!(listing(&dir)["forwards"][0]["waiting"], 0);
    relay.stops();
}

/// As in a container: the file has the listener's address, and environment variables its certificate.
#[test]
fn a_config_that_variables_complete_says_where_the_spool_is() {
    let (_collector, setup, relay) = told();
    relay.kill();
    let config = setup.path("completed.toml");
    let dir = setup.path("spool").display().to_string();
    let text = format!("[[listen]]\naddress = \"tcp+tls://127.0.0.1:0\"\n[spool]\ndir = \"{dir}\"\n");
    fs::write(&config, text).expect("written");
    let cat = || {
        let mut command = logferry();
        command.args(["spool", "cat", "--config"]).arg(&config);
        command
    };
    let alone = cat().output().expect("it runs");
    assert_eq!(alone.status.code(), Some(78), "{}", String::from_utf8_lossy(&alone.stderr));
    let completed = cat().env("LOGFERRY_TLS_CERT", "/cert.pem").env("LOGFERRY_TLS_KEY", "/key.pem").output();
    assert_eq!(messages(&good(completed.expect("it runs"))).len(), 6);
}

#[test]
fn a_copy_is_read_where_no_relay_ever_was() {
    let (_collector, setup, relay) = told();
    relay.kill();
    let copy = tempfile::tempdir().expect("a directory");
    for path in fs::read_dir(setup.path("spool")).expect("a spool").map(|entry| entry.expect("an entry").path()) {
        if path.file_name().expect("a name") != "lock" {
            fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    let before = state(copy.path());
    assert_eq!(cat(copy.path(), &["--severity", "err"]), ["1", "4"]);
    assert_eq!(listing(copy.path())["forwards"][0]["waiting"], 6);
    good(spool(copy.path(), &["verify"]));
    assert!(state(copy.path()) == before, "nothing is changed");
}

#[test]
fn a_torn_tail_is_normal_and_said_to_be_so() {
    let (_collector, setup, relay) = told();
    relay.kill();
    let segment = setup.segments().pop().expect("a segment");
    let whole = fs::read(&segment).expect("bytes");
    fs::write(&segment, &whole[..whole.len() - 5]).expect("written");
    let verdict = good(spool(&setup.path("spool"), &["verify"]));
    assert!(verdict.contains(&format!("{}: a torn tail at offset ", segment.display())), "{verdict}");
    assert!(verdict.contains("normal") && verdict.contains("5 good lines"), "{verdict}");
    assert_eq!(cat(&setup.path("spool"), &[]), ["0", "1", "2", "3", "4"]);
}

/// On a full disk the newest segment is truncated to its header after everything is delivered. The cursor is then beyond its end.
#[test]
fn room_that_was_given_back_is_no_damage() {
    let (mut collector, setup, relay) = told();
    collector.comes();
    relay.has_delivered(6, 0);
    relay.stops();
    let dir = setup.path("spool");
    let segment = setup.segments().pop().expect("a segment");
    let whole = fs::read(&segment).expect("bytes");
    fs::write(&segment, &whole[..64]).expect("written");
    assert!(good(spool(&dir, &["verify"])).contains("1 segments, 0 good lines, 1 cursors: nothing is damaged"));
    // In a segment with lines, a cursor beyond the end means that delivered lines are missing.
    fs::write(&segment, &whole[..whole.len() - 5]).expect("written");
    let checked = spool(&dir, &["verify"]);
    let verdict = String::from_utf8(checked.stdout).expect("text");
    assert_eq!(checked.status.code(), Some(1), "{verdict}");
    assert!(verdict.contains("points behind the end"), "{verdict}");
}

#[test]
fn a_flipped_bit_is_found_and_cat_goes_on_behind_it() {
    let (_collector, setup, relay) = told();
    relay.kill();
    let segment = setup.segments().pop().expect("a segment");
    let mut bytes = fs::read(&segment).expect("bytes");
    // In the third line, whose record starts eight bytes before its text.
    let at =
        bytes.windows(4).enumerate().filter(|(_, text)| *text == b"<28>").map(|(at, _)| at).next().expect("a line");
    bytes[at + 20] ^= 1;
    fs::write(&segment, bytes).expect("written");

    let checked = spool(&setup.path("spool"), &["verify"]);
    assert_eq!(checked.status.code(), Some(1));
    let verdict = String::from_utf8(checked.stdout).expect("text");
    let place = format!("{}: damaged at offset {}, ", segment.display(), at - 8);
    assert!(verdict.contains(&place) && verdict.contains("2 lines are good before it, 3 behind"), "{verdict}");
    let printed = spool(&setup.path("spool"), &["cat"]);
    assert!(printed.status.success());
    assert_eq!(messages(&String::from_utf8(printed.stdout).expect("text")), ["0", "1", "3", "4", "5"]);
    let said = String::from_utf8(printed.stderr).expect("text");
    assert!(said.contains(&format!("{} is damaged at offset {}", segment.display(), at - 8)), "{said}");

    // The next relay keeps the damaged file, and its readable part can still be printed.
    let relay = setup.start();
    let kept = good(spool(&setup.path("spool"), &["ls"]));
    assert!(kept.contains("damaged, kept for a person to look at: "), "{kept}");
    let aside = spool(&setup.path("spool"), &["cat", "--damaged"]);
    assert_eq!(messages(&String::from_utf8(aside.stdout).expect("text")), ["0", "1", "3", "4", "5"]);
    drop(relay);
}

#[test]
fn a_cursor_that_points_nowhere_is_found() {
    let (_collector, setup, relay) = told();
    relay.kill();
    let cursor = setup.path("spool").join("cursor.central");
    fs::write(&cursor, [0; 200]).expect("written");
    let checked = spool(&setup.path("spool"), &["verify"]);
    assert_eq!(checked.status.code(), Some(1));
    let verdict = String::from_utf8(checked.stdout).expect("text");
    assert!(verdict.contains(&format!("{}: no sound position", cursor.display())), "{verdict}");
    assert_eq!(listing(&setup.path("spool"))["forwards"][0]["waiting"], 6, "it would begin with the oldest line");
}

/// `cat` prints only lines that were sent, once each and in order, while the relay continues to work.
#[test]
fn a_spool_in_full_use_is_read_without_a_fault() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector).spool("max-size = \"1MiB\"");
    let relay = setup.start();
    let dir = setup.path("spool");
    let (mut sent, mut looks, mut most) = (0, 0, 0);
    let flow = Flow::into(relay.door());
    // A segment is 128 KiB: until five of them have come and gone.
    while looks < 20 || setup.segments().first().is_some_and(|oldest| number(oldest) < 6) {
        says_at_length(&relay, sent..sent + 10, 4000);
        sent += 10;
        let numbers = cat(&dir, &["--container", "web"]);
        let long: Vec<usize> =
            numbers.iter().filter(|text| text.len() == 4000).map(|text| text.parse().expect("a number")).collect();
        assert!(long.windows(2).all(|pair| pair[0] < pair[1]), "{long:?}");
        assert!(long.iter().all(|number| *number < sent), "{long:?}");
        let flowed =
            numbers.iter().filter(|text| text.len() < 4000).map(|text| text.parse::<usize>().expect("a number"));
        assert!(flowed.collect::<Vec<_>>().is_sorted());
        good(spool(&dir, &["verify"]));
        good(spool(&dir, &["ls"]));
        (looks, most) = (looks + 1, most.max(long.len()));
    }
    assert!(most > 0, "nothing was ever seen");
    let flowed = flow.ends();
    // Segments are deleted because they were delivered or, if the collector is too slow, because there is no room.
    relay.has_spooled(sent + flowed);
    relay.balances(0);
    relay.stops();
}

fn number(segment: &Path) -> usize {
    segment.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("a number")
}

#[test]
fn a_spool_is_followed() {
    let (mut collector, setup, relay) = told();
    let mut follow = Program::start(logferry().args(["spool", "cat", "--follow"]).arg(setup.path("spool")));
    let seen = |count: usize| {
        eventually("lines are printed", || {
            let seen = messages(&String::from_utf8(follow.stdout()).expect("text"));
            (seen.len() >= count).then_some(seen)
        })
    };
    assert_eq!(seen(6), ["0", "1", "2", "3", "4", "5"]);
    collector.comes();
    says(&relay, 6..9);
    relay.has_delivered(9, 0);
    // A new session starts a new segment.
    relay.stops();
    let relay = setup.start();
    says(&relay, 9..12);
    let expected: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    assert_eq!(seen(12), expected);
    follow.kill();
    relay.stops();
}

#[test]
fn who_may_not_read_it_is_told_what_to_do() {
    let (_collector, setup, _relay) = told();
    if !root_can("run a command as somebody else") {
        return;
    }
    let dir = setup.path("spool");
    fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o755)).expect("others may get there");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("but not in");
    let refused = |what: &str, named: &Path| {
        let mut command = logferry();
        command.args(["spool", what]).arg(&dir).uid(NOBODY).gid(NOBODY);
        let output = command.output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), said.lines().count()), (Some(78), 1), "{said}");
        assert!(said.contains(&format!(" {}: Permission denied", named.display())), "{said}");
        assert!(said.ends_with("; it belongs to uid 0: look as that user, or as root\n"), "{said}");
    };
    ["ls", "cat", "verify"].iter().for_each(|what| refused(what, &dir));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("now in");
    let cursor = dir.join("cursor.central");
    fs::set_permissions(&cursor, fs::Permissions::from_mode(0o600)).expect("but not everything");
    refused("ls", &cursor);
}

#[test]
fn what_is_no_spool_is_said_to_be_none() {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, says) in [(dir.path().to_owned(), "is no spool"), (dir.path().join("gone"), "is not there")] {
        for what in ["ls", "cat", "verify"] {
            let output = spool(&path, &[what]);
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains(&format!("spool: {} {says}", path.display())), "{said}");
        }
    }
    let (_collector, setup, _relay) = told();
    let output = spool(&setup.path("spool"), &["cat", "--waiting", "elsewhere"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("no forward elsewhere has a cursor") && said.contains("there is: central"), "{said}");
}

#[test]
fn who_has_seen_enough_is_no_failure() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    // More than a pipe holds.
    says_at_length(&relay, 0..100, 4000);
    relay.has_spooled(100);
    let mut command = logferry();
    let command = command.args(["spool", "cat"]).arg(setup.path("spool")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut byte = [0];
    child.stdout.take().expect("piped").read_exact(&mut byte).expect("a byte");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Log text must not control a terminal. In a file or pipe only newlines are escaped.
#[test]
fn control_characters_do_not_reach_a_terminal() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    relay.door().connect().send_counted(container.says(b"\x1b[2Jred\nalert\x07").trim_ascii_end());
    relay.has_spooled(1);
    let piped = spool(&setup.path("spool"), &["cat"]);
    assert!(piped.stdout.ends_with(b"] \x1b[2Jred#012alert\x07\n"), "{}", crate::support::shown(&piped.stdout));

    let (mut ours, mut theirs) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: two valid places for descriptors; the optional pointers are null.
    let opened = unsafe { nix::libc::openpty(&raw mut ours, &raw mut theirs, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptors are open and have no other owner.
    let (mut screen, terminal) = unsafe { (fs::File::from_raw_fd(ours), Stdio::from_raw_fd(theirs)) };
    // The temporary command is dropped at once, and with it our copy of the terminal's end.
    let mut child =
        logferry().args(["spool", "cat"]).arg(setup.path("spool")).stdout(terminal).spawn().expect("it runs");
    assert!(child.wait().expect("it ends").success());
    let mut shown = Vec::new();
    // After the last byte, reading from a terminal without another end is an error.
    let _ = screen.read_to_end(&mut shown);
    assert!(shown.ends_with(b"] #033[2Jred#012alert#007\r\n"), "{}", crate::support::shown(&shown));
}
