//! Where host and tag end in RFC 3164 messages of any sender. tests/senders has the messages of whole devices.

use super::*;

/// `expected` is host, tag, pid and message; `-` for none. RFC 3164 output changes nothing after HOSTNAME.
#[track_caller]
fn check(sent: &str, expected: [&str; 4]) {
    let bytes = format!("<13>{sent}");
    let frame = Frame { bytes: bytes.as_bytes(), cut: false, received: NOW };
    let settings = settings();
    let record = parse(&frame, &settings, Senders::Anybody).record;
    let text = |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let host = text(record.hostname.map(|host| host.said())).replace("relay-1", "-");
    let pid = text(record.proc_id.map(|pid| pid.said()));
    assert_eq!([&host, &text(record.tag.as_deref()), &pid, &text(record.message)], expected, "{sent}");
    properties::any_frame(bytes.as_bytes(), false, NOW.0, 0);
}

#[track_caller]
fn check_behind_stamp(sent: &str, expected: [&str; 4]) {
    check(&format!("Nov 20 22:28:47 {sent}"), expected);
}

#[test]
fn a_tag_ends_in_a_colon_or_a_process() {
    let check = check_behind_stamp;
    check("n7 su: failed", ["n7", "su", "-", "failed"]);
    check("n7 su:failed", ["n7", "su", "-", "failed"]);
    check("n7 su:", ["n7", "su", "-", "-"]);
    check("n7 su[7]: failed", ["n7", "su", "7", "failed"]);
    check("n7 su[7] failed", ["n7", "su", "7", "failed"]);
    check("n7 su[7]:{\"a\":1}", ["n7", "su", "7", "{\"a\":1}"]);
    check("n7 TRAPMGR[trapTask]: x", ["n7", "TRAPMGR", "trapTask", "x"]);
    check("n7 sshd(pam_unix)[7]: x", ["n7", "sshd(pam_unix)", "7", "x"]);
    check("n7 postfix/smtpd[7]: x", ["n7", "postfix/smtpd", "7", "x"]);
    check("/usr/sbin/cron[7]: x", ["-", "/usr/sbin/cron", "7", "x"]);
    check("nas-1 Plex Media Server[812]: x", ["nas-1", "Plex Media Server", "812", "x"]);
    // Several blanks in front of a tag count as one. In front of a text they belong to the text.
    check("n7   su:  failed", ["n7", "su", "-", " failed"]);
    check("n7   failed", ["n7", "-", "-", "  failed"]);
}

#[test]
fn everything_else_is_text() {
    let check = check_behind_stamp;
    for text in [
        "Link is up",
        "CEF:0|A|B|1|1|name|5|src=192.0.2.1",
        "LEEF:1.0|A|B|1|1|src=192.0.2.1",
        "1,2026/11/20 22:28:47,007,TRAFFIC,end",
        "src=\"192.0.2.1:1234\" dst=\"192.0.2.9\" msg=\"ok\"",
        "Error: disk full",
        "Severity: Informational, Category: Audit, MessageID: LOG007",
        "level: 3, rule: 5502",
        "error in module",
        "http://example.com/ is up",
        "C:\\log is full",
        "std::bad_alloc",
        "[main] started",
        "%%% down",
        "12:30 lunch",
        "MSWinEventLog\t1\tSecurity",
        "-- MARK --",
        "firewall,info forward: in:ether1",
    ] {
        check(&format!("n7 {text}"), ["n7", "-", "-", text]);
    }
    check("last message repeated 3 times", ["-", "-", "-", "last message repeated 3 times"]);
    check("one", ["-", "-", "-", "one"]);
    check(&format!("n7 {}: x", "t".repeat(49)), ["n7", "-", "-", &format!("{}: x", "t".repeat(49))]);
    check(&format!("n7 {}: x", "t".repeat(48)), ["n7", &"t".repeat(48), "-", "x"]);
}

#[test]
fn names_of_cisco_s_kind_stay_in_the_text() {
    let check = check_behind_stamp;
    let built = "%ASA-6-302013: Built";
    check(&format!("fw-1 {built}"), ["fw-1", "%ASA-6-302013", "-", built]);
    check(&format!("fw-1 : {built}"), ["fw-1", "%ASA-6-302013", "-", built]);
    check(&format!("fw-1: {built}"), ["fw-1", "%ASA-6-302013", "-", built]);
    check(built, ["-", "%ASA-6-302013", "-", built]);
    super::words::check(built, ["-", "%ASA-6-302013", "-", built]);
    super::words::check(&format!("Nov 20 22:28:47: {built}"), ["-", "%ASA-6-302013", "-", built]);
    super::words::check("%LINK-W-Down:  gi1", ["-", "%LINK-W-Down", "-", "%LINK-W-Down:  gi1"]);
    check(":%AAA-I-CONNECT: x", ["-", "%AAA-I-CONNECT", "-", "%AAA-I-CONNECT: x"]);
    check(&format!(": fw-1 {built}"), ["fw-1", "%ASA-6-302013", "-", built]);
    check("n7 %A-B-C: x", ["n7", "-", "-", "%A-B-C: x"]);
    let login = "%%01SHELL/4/LOGIN(l)[3]:VTY login";
    check(&format!("n7 {login}"), ["n7", "%%01SHELL/4/LOGIN(l)", "-", login]);
    check("n7 config[65539]: %MGBL-SYS-5-CONFIG_I : x", ["n7", "config", "65539", "%MGBL-SYS-5-CONFIG_I : x"]);
}

#[test]
fn words_between_host_and_tag_are_neither() {
    let check = check_behind_stamp;
    check("n7 notice tmm1[12345]: x", ["n7", "tmm1", "12345", "x"]);
    check("n7 INFO bgp#zebra: x", ["n7", "bgp#zebra", "-", "x"]);
    check("slot1/n7 notice tmsh[7]: x", ["-", "tmsh", "7", "x"]);
    check("n7 n7 su: x", ["n7", "su", "-", "x"]);
    check("n7 n7: x", ["n7", "-", "-", "n7: x"]);
    check("n7: n7: x", ["n7", "-", "-", "n7: x"]);
    check("n7 192.0.2.9 sched[0]: x", ["n7", "sched", "0", "x"]);
    check("user.info n7 su: x", ["n7", "su", "-", "x"]);
    check("notice tmm1[7]: x", ["-", "tmm1", "7", "x"]);
    check("daemon.info dnsmasq[7]: x", ["-", "dnsmasq", "7", "x"]);
    check("error in module", ["-", "-", "-", "error in module"]);
    check("n7 : x", ["n7", "-", "-", "x"]);
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let check = check_behind_stamp;
    for host in [
        "n7",
        "n7.example.com",
        "192.0.2.7",
        "2001:db8::",
        "2001:db8::7",
        "fe80::1%eth0",
        "[192.0.2.7]",
        "n7:5140",
        "höst",
    ] {
        check(&format!("{host} su: x"), [host, "su", "-", "x"]);
    }
    check("192.0.2.7: x", ["192.0.2.7", "-", "-", "x"]);
    check("U7PG2,788a2056b182,v4.0.66: hostapd[7]: x", ["U7PG2,788a2056b182,v4.0.66", "hostapd", "7", "x"]);
    check("Message forwarded from n9: su: x", ["n9", "su", "-", "x"]);
    check(
        "Message forwarded from n9: last message repeated 3 times",
        ["n9", "-", "-", "last message repeated 3 times"],
    );
    check("su: x", ["-", "su", "-", "x"]);
    check("- su: x", ["-", "su", "-", "x"]);
    check("a/b c[7]: x", ["-", "a/b c", "7", "x"]);
}

#[test]
fn without_a_stamp_a_tag_is_what_cannot_be_a_sentence() {
    check("jobs[7]: one", ["-", "jobs", "7", "one"]);
    check("app: one", ["-", "app", "-", "one"]);
    check(" app[7]: one", ["-", "app", "7", "one"]);
    for text in ["INFO:root:one", "Error: one", "Severity: one", "two words: one", "app:one", "CEF:0|A", "{\"a\": 1}"] {
        check(text, ["-", "-", "-", text]);
    }
}

#[test]
fn cef_behind_a_host_of_rfc_5424_is_the_text() {
    for text in ["CEF:0|A|B|1|1|n|5|src=192.0.2.1", "LEEF:1.0|A|B|1|1|src=192.0.2.1 dst=192.0.2.9 sev=5 cat=a b=c"] {
        check(&format!("1 2026-11-20T22:28:47Z n7 {text}"), ["n7", "-", "-", text]);
    }
}

/// Values that RFC 5424 does not allow are kept as params. The params are in Docker's element only if the tag is a container's.
#[test]
fn what_the_header_cannot_hold_is_kept() {
    let line_of = |sent: &str| {
        let bytes = format!("<13>Nov 20 22:28:47 {sent}");
        let (line, _) = line_with(settings(), Frame { bytes: bytes.as_bytes(), cut: false, received: NOW });
        String::from_utf8(line).unwrap()["<13>1 2026-11-20T22:28:47Z ".len()..].to_owned()
    };
    assert_eq!(line_of("höst-1 su: x"), "h__st-1 su - - [logferry@32473 host=\"höst-1\"] x");
    assert_eq!(line_of("n7 sü: x"), "n7 s__ - - [logferry@32473 tag=\"sü\"] x");
    assert_eq!(line_of("n7 su:x"), "n7 su - - [logferry@32473 msghdr=\"su:\"] x");
    assert_eq!(line_of("n7 notice tmm[7]: x"), "n7 tmm 7 - [logferry@32473 msghdr=\"notice tmm[7\\]: \"] x");
    assert_eq!(line_of("n7 Link is up"), "n7 - - - - Link is up");
    assert_eq!(line_of("n7 su: x"), "n7 su - - - x");
}
