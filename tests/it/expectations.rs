//! Output of `logferry test` for expectations that hold, that fail, and for invalid files.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::relay::logferry;

const CONFIG: &str = r#"
hostname = "node-7"
[[listen]]
name = "containers"
address = "tcp://127.0.0.1:514"
multiline = "indented"
[[listen]]
name = "gelf"
address = "gelf+tcp://127.0.0.1:12201"
[[drop]]
message = "*healthz*"
[[forward]]
name = "search"
to = "tcp://10.0.0.1"
parse = "logfmt"
severity-from = "level"
message-from = "msg"
mask = { pattern = "token=[a-z]+" }
[[forward]]
name = "archive"
to = "tcp://10.0.0.2"
match = { severity = "err or worse" }
"#;

/// Exit code, stdout and stderr of `test` with this config and this file of tests; the file's name is removed from the output.
fn run(tests: &str) -> (i32, String, String) {
    let dir = TempDir::new().expect("a directory");
    let [config, file] = ["logferry.toml", "x.test.toml"].map(|name| dir.path().join(name));
    fs::write(&config, CONFIG).expect("written");
    fs::write(&file, tests).expect("written");
    let output = logferry().arg("test").arg("--config").arg(&config).arg(&file).output().expect("logferry starts");
    let text = |bytes| String::from_utf8(bytes).expect("text").replace(&file.display().to_string(), "FILE");
    // `test` writes no file.
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 2);
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn one(keys: &str) -> String {
    format!("[[test]]\nname = \"one\"\n{keys}\n")
}

const LOGFMT: &str = "received = 2026-11-28T17:02:00Z\n\
    input = '<30>Nov 28 17:01:59 kata/kata-1/2a9052a5c36e[8]: level=warn msg=\"a token=abc\" pid=7 ok=true ratio=1.50'\n";

/// Asserts that all expectations hold, and that the output is only the summary.
#[track_caller]
fn holds(keys: &str) {
    assert_eq!(run(&one(keys)), (0, "1 test, 0 failed\n".to_owned(), String::new()), "{keys}");
}

#[test]
fn what_is_expected_holds() {
    let input = |text: &str| format!("input = '<27>Nov 28 17:01:59 web/web-1/2a9052a5c36e[8]: {text}'\n");
    holds(&(input("GET /healthz") + "expect = \"dropped\""));
    holds(&(input("hello") + "expect = { search = \"sent\", archive = \"sent\" }"));
    holds(
        &(input("hello")
            + "expect.search = { facility = \"daemon\", severity = \"error\", host = \"node-7\", app = \"web-1\" }"),
    );
    holds(&(LOGFMT.to_owned() + "expect.archive = \"filtered\""));
    holds(
        &(LOGFMT.to_owned()
            + "[test.expect.search]\ntime = \"2026-11-28T18:01:59+01:00\"\nseverity = \"warning\"\nmessage = \"a ***\"\n\
               fields = { pid = 7, ok = true, ratio = 1.5, level = \"warn\" }\nno-fields = [\"msg\", \"x\"]\n"),
    );
    holds(
        "input = '<30>1 2026-11-28T17:01:59Z h web - - - hello'\nexpect.search.output = \"<30>1 2026-11-28T17:01:59Z h web - - - hello\\n\"",
    );
    // Joined lines, a multi-line message, another protocol, refused input.
    let trace = "input = ['<27>Nov 28 17:01:59 web/a/2a9052a5c36e[8]: boom', '<27>Nov 28 17:01:59 web/a/2a9052a5c36e[8]:  at main']";
    holds(&format!("listener = \"containers\"\n{trace}\nexpect.search.message = \"boom\\n at main\""));
    holds("input = \"<13>a\\nb\"\nexpect.search.message = \"a\\nb\"");
    holds("as = \"gelf\"\ninput = '{\"short_message\":\"x\",\"_n\":7}'\nexpect.search.fields = { n = 7 }");
    holds("listener = \"gelf\"\npeer = \"192.0.2.7\"\ninput = '[1]'\nexpect = \"refused\"");
}

/// Asserts that a test fails with this output.
#[track_caller]
fn fails(keys: &str, expected: &str) {
    let (code, said, complaint) = run(&one(keys));
    assert_eq!((code, complaint.as_str()), (1, ""), "{said}");
    assert_eq!(said, format!("failed: one (FILE:1)\n{expected}\n1 test, 1 failed\n"));
}

#[test]
fn what_is_otherwise_is_shown() {
    fails(
        "input = '<30>hello'\nexpect = \"dropped\"",
        "  message\n    expected  dropped\n    got       taken, and sent by search\n",
    );
    fails(
        "input = '<30>GET /healthz'\nexpect.search = \"sent\"",
        "  message\n    expected  one line for the forwards\n    got       dropped by [[drop]] { message = \"*healthz*\" }\n",
    );
    fails(
        "input = '<30>hello'\nexpect = { search = \"filtered\", archive = \"sent\" }",
        "  archive\n    expected  sent\n    got       filtered: no rule of `match` matches\n\
         \x20 search\n    expected  filtered\n    got       sent: the forward has no `match`\n",
    );
    fails(
        "input = '<27>hello'\nexpect.archive = \"filtered\"",
        "  archive\n    expected  filtered\n    got       sent: rule 1 of `match` matches, { severity = \"err or worse\" }\n",
    );
    fails(
        &(LOGFMT.to_owned()
            + "expect.search = { severity = \"err\", fields = { pid = \"7\", id = 1 }, no-fields = \"level\" }"),
        "  search.severity\n    expected  err\n    got       warning\n\
         \x20 search.fields.id\n    expected  1\n    got       no such field; the line has original_severity, level, pid, ok, ratio\n\
         \x20 search.fields.pid\n    expected  \"7\"\n    got       7\n\
         \x20 search.fields.level\n    expected  no such field\n    got       \"warn\"\n",
    );
    fails(
        "input = \"<13>a\\nb\"\nexpect.search.message = \"a\\nc\"",
        "  search.message\n      a\\x0a\n    - c\n    + b\n",
    );
    fails(
        "input = ['<13>a', '<13>b']\nexpect.search = \"sent\"",
        "  message\n    expected  one line for the forwards\n    got       2 messages; a test has one, or several that `multiline` joins\n",
    );
    fails(
        "as = \"gelf\"\ninput = '[1]'\nexpect = \"dropped\"",
        "  message\n    expected  dropped\n    got       refused: a message is not JSON\n",
    );
}

/// Asserts that a file of tests is rejected with these errors and their line numbers.
#[track_caller]
fn is_refused(tests: &str, expected: &[&str]) {
    let (code, said, complaint) = run(tests);
    assert_eq!((code, said.as_str()), (78, ""), "{complaint}");
    let complaints: Vec<&str> = complaint.lines().map(|line| line.trim_start_matches("logferry: ")).collect();
    assert_eq!(complaints.len(), expected.len(), "{complaint}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(expected), "{complaint}\n{expected}");
    }
}

#[test]
fn a_bad_file_is_refused_with_its_lines() {
    let good = "input = '<30>x'\nexpect = \"dropped\"\n";
    let with = |keys: &str| one(&(good.to_owned() + keys));
    is_refused("", &["FILE:1: test: the file has no [[test]]; write one"]);
    is_refused("[test]\n", &["FILE:1: test: write [[test]] for each test"]);
    is_refused("tests = 1\n", &["FILE:1: unknown key `tests`; did you mean `test`?"]);
    is_refused("[[test]\n", &["FILE:1: "]);
    is_refused(
        "[[test]]\n",
        &["FILE:1: [[test]] has no `name`", "FILE:1: [[test]] has no `input`", "FILE:1: [[test]] has no `expect`"],
    );
    is_refused(&with("inputs = 'y'"), &["FILE:5: unknown key `inputs`; did you mean `input`?"]);
    is_refused(&with("as = 'udp'"), &["FILE:5: test.as: `udp`: write one of syslog, fluent, gelf, splunk, journal"]);
    let says = "FILE:5: test.listener: `dmz`: no [[listen]] of the config has this `name`; there are: containers, gelf";
    is_refused(&with("listener = 'dmz'"), &[says]);
    is_refused(&with("peer = 'here'"), &["FILE:5: test.peer: write an address such as"]);
    is_refused(&with("received = 'now'"), &["FILE:5: test.received: write a time with its zone"]);
    is_refused(&(with("") + &with("")), &["FILE:6: test.name: `one`: the test at FILE:1 has this name already"]);
    let expects = |expect: &str| one(&format!("input = '<30>x'\n{expect}\n"));
    is_refused(&expects("expect = 'gone'"), &["FILE:4: test.expect: write \"dropped\", \"refused\", or"]);
    is_refused(&expects("expect = {}"), &["FILE:4: test.expect: write"]);
    let says =
        "FILE:4: test.expect: `serach`: no [[forward]] of the config has this `name`; there are: search, archive";
    is_refused(&expects("expect.serach = 'sent'"), &[says]);
    is_refused(&expects("expect.search = {}"), &["FILE:4: test.expect.search: write \"sent\", \"filtered\", or"]);
    is_refused(&expects("expect.search = 'dropped'"), &["FILE:4: test.expect.search: write"]);
    is_refused(&expects("expect.search.mesage = 'x'"), &["FILE:4: unknown key `mesage`; did you mean `message`?"]);
    is_refused(&expects("expect.search.message = 7"), &["FILE:4: test.expect.search.message: write a text"]);
    is_refused(
        &expects("expect.search.severity = 'bad'"),
        &["FILE:4: test.expect.search.severity: `bad`: write one of emerg"],
    );
    is_refused(
        &expects("expect.search.facility = 'bad'"),
        &["FILE:4: test.expect.search.facility: `bad`: write one of kern"],
    );
    is_refused(&expects("expect.search.time = 'x'"), &["FILE:4: test.expect.search.time: write a time"]);
    is_refused(&expects("expect.search.fields = 'x'"), &["FILE:4: test.expect.search.fields: write fields = {"]);
    is_refused(&expects("expect.search.fields = { n = inf }"), &["FILE:4: test.expect.search.fields.n: no field has"]);
}

#[test]
fn what_else_is_wrong() {
    let run = |arguments: &[&str]| {
        let output = logferry().arg("test").args(arguments).output().expect("logferry starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, said) = run(&["/nowhere/x.toml"]);
    assert!(
        code == Some(78) && said.contains("/nowhere/x.toml: cannot read the file of tests: No such file"),
        "{said}"
    );
    let (code, said) = run(&["--config", "/nowhere/y.toml", "/nowhere/x.toml"]);
    assert!(code == Some(78) && said.contains("/nowhere/y.toml: cannot read the config file"), "{said}");
    let (code, said) = run(&[]);
    assert!(code == Some(64) && said.contains("<FILE>"), "{said}");
}

/// The example in the docs.
#[test]
fn the_example_holds() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut command = logferry();
    command.current_dir(examples).args(["test", "--config", "shaping.toml", "shaping.test.toml"]);
    let output = command.output().expect("logferry starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "6 tests, 0 failed\n");
    assert!(output.status.success());
}
