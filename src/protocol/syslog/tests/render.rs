//! Canonical lines as other formats, and settings as text.

use super::*;

#[track_caller]
fn check_render(line: &[u8], format: Format, expected: &str) {
    let mut out = Vec::new();
    render(line, format, "docker@32473", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn renders_rfc_3164() {
    let check = |line: &str, expected: &str| check_render(line.as_bytes(), Format::Rfc3164, expected);
    check(
        &format!("<30>1 2026-11-08T22:28:47.5+05:30 n7 web {ID} - {SD} hi"),
        &format!("<30>Nov  8 22:28:47 n7 web[{ID}]: hi"),
    );
    check("<0>1 2026-01-20T22:28:47Z n7 su - - - hi", "<0>Jan 20 22:28:47 n7 su: hi");
    check("<13>1 2026-12-31T22:28:47Z n7 - - - -", "<13>Dec 31 22:28:47 n7 ");
    // A message without a text has only its structured data, so that is the text. Our own elements are left out: a collector without
    // structured data does not need them.
    check(
        "<14>1 2026-11-20T22:28:47Z srx-1 RT_FLOW - SESSION [junos@2636.1.1.1.2.40 source-port=\"1\"][logferry@32473 listener=\"l\"]",
        "<14>Nov 20 22:28:47 srx-1 RT_FLOW: [junos@2636.1.1.1.2.40 source-port=\"1\"]",
    );
    check("<13>1 2026-11-20T22:28:47Z n7 su - - [a b=\"c\"] hi", "<13>Nov 20 22:28:47 n7 su: hi");
    check("<13>1 2026-11-20T22:28:47Z n7 - 7 - - hi", "<13>Nov 20 22:28:47 n7 hi");
    check("<13>1 2026-11-20T22:28:47Z n7 su - - [logferry@32473 msghdr=\"su:\"] hi", "<13>Nov 20 22:28:47 n7 su:hi");
    check("<13>1 2026-11-20T22:28:47Z n7 s__ 7 - [logferry@32473 tag=\"sü\"] hi", "<13>Nov 20 22:28:47 n7 sü[7]: hi");
    check("no line", "no line");
}

#[test]
fn renders_json() {
    let check = |line: &[u8], expected: &str| check_render(line, Format::Json, expected);
    check(
        format!("<30>1 2026-11-08T22:28:47Z n7 web {ID} - {SD} say \"hi\"\x00\\").as_bytes(),
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"daemon","severity":"info","app_name":"web","proc_id":"2a9052a5c36e","image_name":"nginx:1.25","container_name":"web","container_id":"2a9052a5c36e","message":"say \"hi\"\u0000\\"}"#,
    );
    check(
        br#"<191>1 2026-11-08T22:28:47Z n7 a 1 ID4 [x@1 b="1" a="\"\\\]\n" b="2" b="3"][logferry@32473 cut="true"][docker@32473 name="w" tag="t u"] x"#,
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"local7","severity":"debug","app_name":"a","proc_id":"1","msg_id":"ID4","container_name":"w","structured_data":{"docker@32473":{"tag":"t u"},"logferry@32473":{"cut":"true"},"x@1":{"a":"\"\\]\\n","b":["1","2","3"]}},"message":"x","truncated":true}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n7 - - - - a\\xe9 \xe9\xff",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"user","severity":"notice","message":"a\\\\xe9 \\xe9\\xff","escaped":["message"]}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n\xe9 - - - [a b=\"\xff\" c=\"\\\\\"] ",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n\\xe9","facility":"user","severity":"notice","structured_data":{"a":{"b":"\\xff","c":"\\\\"}},"message":"","escaped":["host","structured_data"]}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n - - - [bad sd] x",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n","facility":"user","severity":"notice","message":"[bad sd] x"}"#,
    );
    check(b"no line", r#"{"facility":"user","severity":"notice","message":"no line"}"#);
    check(b"", r#"{"facility":"user","severity":"notice","message":""}"#);
}

#[test]
fn settings_read_and_show() {
    for text in ["UTC", "+05:30", "-05:00", "+14:00", "-12:00", "+00:01", "-00:30"] {
        assert_eq!(text.parse::<UtcOffset>().unwrap().to_string(), text);
    }
    assert_eq!("Z".parse::<UtcOffset>().unwrap(), UtcOffset::UTC);
    assert_eq!("+00:00".parse::<UtcOffset>().unwrap(), UtcOffset::UTC);
    for text in ["", "+", "05:30", "+5:30", "+0530", "+05:60", "+14:01", "-12:01", "+ab:cd", "+05:300", "utc", "é5:30"]
    {
        assert!(text.parse::<UtcOffset>().is_err(), "{text}");
    }
    for text in ["Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC", "+05:30"] {
        assert_eq!(text.parse::<TimeZone>().unwrap().to_string(), text);
    }
    assert_eq!("europe/berlin".parse::<TimeZone>().unwrap().to_string(), "Europe/Berlin");
    assert!("Europe/Bonn".parse::<TimeZone>().is_err() && "CEST".parse::<TimeZone>().is_err());
    for text in ["rfc5424", "rfc3164", "json"] {
        assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
    }
    assert!("JSON".parse::<Format>().is_err());
    assert!(
        is_sd_id("docker@32473") && !is_sd_id("") && !is_sd_id("a b") && !is_sd_id("a]") && !is_sd_id(&"a".repeat(33))
    );
}
