//! What is said of a config that cannot be meant: each thing in a line, with its place and what would be right.

use super::*;

/// Without the key all are meant: a list that has lost its last entry must not come to that.
#[test]
fn an_empty_list_is_no_list() {
    for (text, line) in [
        ("[[listen]]\naddress = \"tcp://:1\"\ncert = \"c\"\nkey = \"k\"\nclient-fingerprint = []", 5),
        ("[[listen]]\naddress = \"tcp://:1\"\ncert = \"c\"\nkey = \"k\"\nclient-ca = \"a\"\nclient-names = []", 6),
        ("[[listen]]\naddress = \"tcp://:1\"\nallow = []", 3),
        ("[[drop]]\nseverity = \"debug\"\nname = []", 3),
        ("[[forward]]\nto = \"stdout:\"\nmatch = { app = \"a\", name = [] }", 3),
        ("[resolve]\nnameservers = []", 2),
    ] {
        let says = parse_with(text, &Overrides::default()).expect_err(text).to_string();
        assert!(says.starts_with(&format!("/etc/x.toml:{line}: ")) && says.contains("an empty list"), "{text}: {says}");
    }
}

#[test]
fn two_listeners_cannot_share_an_address() {
    let listen = |address: &str| format!("[[listen]]\naddress = \"{address}\"\n");
    refused(
        &[listen("tcp://0.0.0.0:1"), listen("udp://0.0.0.0:1"), listen("tcp://0.0.0.0:1")].concat(),
        "/etc/x.toml:6: listen.address: `tcp://0.0.0.0:1`: another listener has this address already",
    );
    refused(
        &[listen("relp://[::]:1"), listen("tcp://[::]:1")].concat(),
        "/etc/x.toml:4: listen.address: `tcp://[::]:1`: another listener has this address already",
    );
    assert_eq!(parse(&listen("tcp://0.0.0.0:0").repeat(2)).listen.len(), 2);
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest_key() {
    refused("hostnam = \"x\"", "/etc/x.toml:1: unknown key `hostnam`; did you mean `hostname`?");
    refused(
        "[[listen]]\n\nadress = \"udp://0.0.0.0:1\"",
        "/etc/x.toml:3: unknown key `adress`; did you mean `address`?",
    );
    refused("[spool]\nmax_size = \"1GiB\"", "/etc/x.toml:2: unknown key `max_size`; did you mean `max-size`?");
    refused(
        "[admin]\nelsewhere = 1",
        "/etc/x.toml:2: unknown key `elsewhere`; known here: listen, address-file, ready, containers",
    );
}

#[test]
fn bad_values_say_what_would_be_right() {
    let line = "/etc/x.toml:2: ";
    refused(
        "[[listen]]\naddress = \"udp://localhost:514\"",
        &format!(
            "{line}listen.address: `udp://localhost:514`: a listener needs an IP address, not the name `localhost`; 127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address, [::] every address"
        ),
    );
    refused(
        "[spool]\nmax-size = \"1 banana\"",
        &format!("{line}spool.max-size: `1 banana`: write a size such as \"64KiB\", \"512MiB\" or \"1GiB\""),
    );
    refused(
        "[syslog]\nsd-id = \"logferry@32473\"",
        &format!("{line}syslog.sd-id: `logferry@32473`: that is what the relay calls what it says itself"),
    );
    refused("[spool]\nmax-size = \"16EiB\"", &format!("{line}spool.max-size: `16EiB`: from 1MiB to 1PiB"));
    refused("[spool]\nmax-size = \"1KiB\"", &format!("{line}spool.max-size: `1KiB`: from 1MiB to 1PiB"));
    refused(
        "[spool]\nsync = \"often\"",
        &format!("{line}spool.sync: `often`: write a time such as \"1s\", \"always\" or \"never\""),
    );
    refused(
        "[spool]\nwhen-full = \"block\"",
        &format!("{line}spool.when-full: `block`: write \"drop-oldest\" or \"drop-newest\""),
    );
    refused(
        "[[listen]]\nmax-frame = \"2MiB\"\naddress = \"udp://0.0.0.0:1\"",
        &format!("{line}listen.max-frame: `2MiB`: from 480B to 512KiB"),
    );
    refused(
        "[admin]\nlisten = \"9514\"",
        &format!("{line}admin.listen: `9514`: write an IP address and a port, such as 127.0.0.1:9514, or \"off\""),
    );
    refused(
        "[resolve]\nmax-ttl = \"0s\"",
        &format!(
            "{line}resolve.max-ttl: `0s`: write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\""
        ),
    );
    refused("[log]\nlevel = \"loud\"", &format!("{line}log.level: `loud`: write error, warn, info, debug or trace"));
    refused(
        "[syslog]\nsd-id = \"a b\"",
        &format!(
            "{line}syslog.sd-id: `a b`: an SD-ID is 1 to 32 printable characters without = ] and \", such as docker@32473"
        ),
    );
}

#[test]
fn what_belongs_together_is_asked_for() {
    let certless = "[[listen]]\naddress = \"tcp+tls://0.0.0.0:1\"";
    refused(certless, "/etc/x.toml:2: listen.address: `tcp+tls://0.0.0.0:1`: TLS needs `cert` and `key` (PEM files)");
    let keyless = "[[listen]]\naddress = \"tcp://0.0.0.0:1\"\ncert = \"/c.pem\"";
    refused(keyless, "/etc/x.toml:3: listen.cert: `/c.pem`: `cert` needs `key`, its private key");
    let udp = "[[listen]]\naddress = \"udp://0.0.0.0:1\"\ncert = \"/c.pem\"\nkey = \"/k.pem\"";
    refused(
        udp,
        "/etc/x.toml:2: listen.address: `udp://0.0.0.0:1`: `cert` and `key` belong to tcp://, tcp+tls:// and relp+tls:// listeners",
    );
    let twins = "[[forward]]\nname = \"a\"\nto = \"stdout:\"\n[[forward]]\nname = \"a\"\nto = \"stdout:\"";
    refused(twins, "/etc/x.toml:5: forward.name: `a`: another forward has this name already");
}

#[test]
fn what_is_missing_is_missed_in_its_section() {
    let two = "[[forward]]\nname = \"a\"\nto = \"stdout:\"\n[[forward]]\nto = \"stdout:\"";
    refused(
        "\n[[listen]]\nplaintext = true",
        "/etc/x.toml:2: [[listen]] has no `address`; write address = \"udp://0.0.0.0:514\"",
    );
    refused(
        "[[forward]]\nname = \"a\"",
        "/etc/x.toml:1: [[forward]] has no `to`; write to = [\"tcp+tls://logs.example.com:6514\"]",
    );
    refused(
        two,
        "/etc/x.toml:4: [[forward]] has no `name`; write name = \"central\": with several forwards each needs its own name, its place in the spool is kept under it",
    );
}

#[test]
fn broken_toml_is_one_line() {
    let error = parse_with("hostname = \n", &Overrides::default()).expect_err("broken").to_string();
    assert!(error.starts_with("/etc/x.toml:1: ") && !error.contains('\n'), "{error}");
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let forward = "[[forward]]\nto = \"stdout:\"\nmatch =";
    refused(
        "[[drop]]\n",
        "/etc/x.toml:1: [[drop]]: it says nothing of what to drop; write image, name, app, host, listener, facility or severity",
    );
    for empty in ["{}", "[]", "[{ name = \"x\" }, {}]"] {
        refused(
            &format!("{forward} {empty}"),
            "/etc/x.toml:3: forward.match: it says nothing; leave it out for all messages",
        );
    }
    refused(&format!("{forward} {{ nam = \"x\" }}"), "/etc/x.toml:3: unknown key `nam`; did you mean `name`?");
    refused(
        &format!("{forward} {{ listener = \"dmz\" }}"),
        "/etc/x.toml:3: forward.match.listener: `dmz`: no [[listen]] has this `name`; there are: none has one",
    );
    refused(
        &format!("{forward} {{ listener = \"!tpyo\" }}"),
        "/etc/x.toml:3: forward.match.listener: `!tpyo`: `tpyo`: no [[listen]] has this `name`; there are: none has one",
    );
    refused(
        &format!("{forward} {{ severity = \"loud\" }}"),
        "/etc/x.toml:3: forward.match.severity: `loud` is no severity; write one of emerg, alert, crit, err, warning, \
         notice, info, debug, or \"warning or worse\", or \"info or milder\"",
    );
    refused(
        &format!("{forward} {{ name = [\"a\", \"\"] }}"),
        "/etc/x.toml:3: forward.match.name: ``: a pattern must not be empty; \"*\" means every name",
    );
    refused(
        "[syslog]\nrate-limit = \"1000\"",
        "/etc/x.toml:2: syslog.rate-limit: `1000`: write messages a second, such as \"1000/s\", or \"off\"",
    );
    refused(
        "[syslog]\nrate-burst = 5",
        "/etc/x.toml:2: syslog.rate-burst: `5`: there is no `rate-limit` that it could belong to",
    );
    refused(
        "[syslog]\nrejoin = \"1KiB\"",
        "/etc/x.toml:2: syslog.rejoin: `1KiB`: write \"off\", or a size from 48KiB to 512KiB",
    );
}

/// Each of them, with its line, in the file's order; and nothing that only follows from another.
#[track_caller]
fn all_refused(text: &str, says: &[&str]) {
    let errors = parse_with(text, &Overrides::default()).expect_err(text);
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let says: Vec<String> = says.iter().map(|says| format!("/etc/x.toml:{says}")).collect();
    assert_eq!(said, says, "{text}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = r#"hostname = "a b"
graze = "1s"
[[listen]]
adress = "udp://localhost:514"
max-frame = "1B"
[[listen]]
address = "tcp+tls://0.0.0.0:6514"
max-connections = 0
cert = "/c.pem"
[spol]
max-size = "1KiB"
sync = "often"
[[forward]]
name = "A"
to = ["tls://a", "tcp://b:x"]
ca = "/ca.pem"
window = -1
[resolve]
nameservers = ["dns", "10.0.0.1", "${UNSET}"]
"#;
    all_refused(
        text,
        &[
            "1: hostname: `a b`: a host name is 1 to 255 printable ASCII characters without blanks",
            "2: unknown key `graze`; did you mean `grace`?",
            "4: unknown key `adress`; did you mean `address`?",
            "4: listen.address: `udp://localhost:514`: a listener needs an IP address, not the name `localhost`; 127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address, [::] every address",
            "5: listen.max-frame: `1B`: from 480B to 512KiB",
            "8: listen.max-connections: `0`: write a whole number above zero",
            "9: listen.cert: `/c.pem`: `cert` needs `key`, its private key",
            "10: unknown key `spol`; did you mean `spool`?",
            "11: spool.max-size: `1KiB`: from 1MiB to 1PiB",
            "12: spool.sync: `often`: write a time such as \"1s\", \"always\" or \"never\"",
            "14: forward.name: `A`: a name is 1 to 64 of a-z, 0-9, - and _",
            "15: forward.to: `tls://a`: write tcp+tls:// for TLS, as Docker does",
            "15: forward.to: `tcp://b:x`: `x` is no port (0 to 65535)",
            "17: forward.window: `-1`: write a whole number above zero, or \"auto\"",
            "19: resolve.nameservers: `dns`: a name server is an IP address, with a port if it is not 53: 10.0.0.2:53",
            "19: resolve.nameservers: `${UNSET}`: the variable UNSET is not set",
        ],
    );
}

/// A value of a kind that nothing here has.
#[test]
fn what_is_neither_text_nor_number_hides_nothing() {
    all_refused(
        "grace = [1]\n[spool]\nmax-size = 1.5\n[[forward]]\nto = [\"stdout:\", 2.5]\n[log]\nlevel = \"loud\"",
        &[
            "1: grace: write one value, not a list",
            "3: spool.max-size: write a string, a whole number, true or false",
            "5: forward.to: write a string, a whole number, true or false",
            "7: log.level: `loud`: write error, warn, info, debug or trace",
        ],
    );
    all_refused(
        "[listen]\naddress = \"udp://0.0.0.0:1\"\n[log]\nlevel = \"loud\"",
        &[
            "1: `listen` may be there several times: write [[listen]] for each",
            "4: log.level: `loud`: write error, warn, info, debug or trace",
        ],
    );
}

#[test]
fn a_key_and_its_misspelling_are_two() {
    all_refused(
        "grace = \"1s\"\ngraze = \"x\"\nstrange = { bar = 1 }",
        &[
            "2: unknown key `graze`; did you mean `grace`?",
            "3: unknown key `strange`; known here: hostname, grace, syslog, spool, resolve, admin, log, listen, drop, forward",
        ],
    );
}

#[test]
fn problems_have_a_limit() {
    let many = |key: &str| (0..1000).map(|n| format!("{key}{n}x = 1\n")).collect::<String>();
    let errors = parse_with(&many("strange"), &Overrides::default()).expect_err("a thousand");
    assert_eq!(errors.iter().len(), 100);
    let list = format!("[resolve]\nnameservers = [{}]", (0..1000).map(|n| format!("\"x{n}\",")).collect::<String>());
    assert_eq!(parse_with(&list, &Overrides::default()).expect_err("a thousand").iter().len(), 100);
}

#[test]
fn what_is_wrong_is_one_line_whatever_was_written() {
    let says = "a host name is 1 to 255 printable ASCII characters without blanks";
    refused("hostname = \"a\\nb\\u001b[31m\"", &format!("/etc/x.toml:1: hostname: `a\\nb\\u{{1b}}[31m`: {says}"));
}
