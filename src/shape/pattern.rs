//! A regular expression with named groups, each of them a field, and those that are known by a name.

use std::borrow::Cow;

use super::parse::{Found, Unread};
use crate::record::{Expression, Value};

/// Bytes of a compiled pattern.
const MAX_PATTERN: usize = 64 << 10;
/// Bytes of a text with which a pattern is compared. The time is at most proportional to the product of this and the pattern's size.
const MAX_TEXT: usize = 8 << 10;

/// Patterns by name. The groups are named as most people name them; numbers are numbers.
const NAMED: [(&str, &str); 8] = [
    // ngx_http_log_module's `combined`, and Apache's.
    (
        "nginx",
        r#"^(?P<remote_addr>\S+) \S+ (?P<remote_user>\S+) \[(?P<time>[^\]]+)\] "(?:(?P<method>[A-Z]+) (?P<path>\S+)(?: (?P<protocol>[^"]+))?|[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+|-)(?: "(?P<referer>[^"]*)" "(?P<user_agent>[^"]*)")?"#,
    ),
    (
        "nginx-error",
        r"^(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]+)\] (?P<pid>\d+)#(?P<tid>\d+): (?:\*(?P<connection>\d+) )?(?P<message>.*)$",
    ),
    (
        "apache-error",
        r"^\[(?P<time>[^\]]+)\] \[(?:(?P<module>[^:\]]+):)?(?P<level>[^\]]+)\] \[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\](?: \[client (?P<client>[^\]]+)\])? (?P<message>.*)$",
    ),
    (
        "klog",
        r"^(?P<level>[IWEF])(?P<date>\d{4}) (?P<clock>\d\d:\d\d:\d\d\.\d+) +(?P<pid>\d+) (?P<source>[^\]]+)\] (?P<message>.*)$",
    ),
    // Logback's and Log4j's usual layout, and Spring Boot's.
    (
        "java",
        r"^(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+\S*) +(?:\[(?P<thread>[^\]]+)\] +)?(?P<level>[A-Z]+) +(?:(?P<pid>\d+) --- )?(?:\[[^\]]*\] +)*(?P<logger>\S+) *[-:] (?P<message>.*)$",
    ),
    // `logging.basicConfig` with a time, and without.
    (
        "python",
        r"^(?:(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?:- )?)?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):(?P<logger>[^:]+):(?P<message>.*)$",
    ),
    (
        "postgresql",
        r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \S+) \[(?P<pid>\d+)\] (?:(?P<user>[^@ ]+)@(?P<database>\S+) )?(?P<level>[A-Z]+[1-5]?): +(?P<message>.*)$",
    ),
    (
        "redis",
        r"^(?P<pid>\d+):(?P<role>[XCSM]) (?P<time>\d\d? \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) (?P<mark>[.\-*#]) (?P<message>.*)$",
    ),
];

/// A regular expression whose named groups are fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Empty: the user has written it.
    name: &'static str,
    expression: Expression,
}

impl Pattern {
    pub fn names() -> Vec<&'static str> {
        NAMED.iter().map(|(name, _)| *name).collect()
    }

    pub fn named(name: &str) -> Option<Self> {
        let (name, written) = NAMED.iter().find(|(known, _)| *known == name)?;
        Some(Self { name, expression: Expression::new(written, MAX_PATTERN).ok()? })
    }

    pub fn new(written: &str) -> Result<Self, String> {
        let expression = Expression::new(written, MAX_PATTERN).map_err(|says| format!("the pattern {says}"))?;
        if expression.regex().capture_names().flatten().next().is_none() {
            return Err("the pattern names no group; write (?P<name>…) around what is to be a field".to_owned());
        }
        Ok(Self { name: "", expression })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn written(&self) -> &str {
        self.expression.written()
    }

    /// The groups that are there.
    pub fn parse<'a>(&'a self, text: &'a str) -> Result<Found<'a>, Unread> {
        if text.len() > MAX_TEXT {
            return Err(Unread::Limit);
        }
        let regex = self.expression.regex();
        let captures = regex.captures(text).ok_or(Unread::Form)?;
        let groups = regex.capture_names().enumerate();
        let field = |(at, name): (usize, Option<&'a str>)| {
            let (name, found) = (name?, captures.get(at)?.as_str());
            let is_number = !found.is_empty() && found.bytes().all(|byte| byte.is_ascii_digit());
            let number = Value::from_json(found).filter(|_| is_number);
            Some((Cow::Borrowed(name), number.unwrap_or(Value::Text(Cow::Borrowed(found.as_bytes())))))
        };
        Ok(groups.filter_map(field).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &str) {
        let pattern = Pattern::named(name).expect("it is known");
        let found = pattern.parse(text).map(crate::shape::parse::shown);
        assert_eq!(found.as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn named_patterns() {
        assert!(NAMED.iter().all(|(name, written)| Pattern::new(written).is_ok() && Pattern::named(name).is_some()));
        check(
            "nginx",
            r#"192.0.2.4 - - [28/Nov/2026:20:58:04 +0000] "GET /jwt/keys HTTP/1.1" 200 2139 "-" "kube-probe/1.10""#,
            r#"remote_addr="192.0.2.4" remote_user="-" time="28/Nov/2026:20:58:04 +0000" method="GET" path="/jwt/keys" protocol="HTTP/1.1" status=200 bytes=2139 referer="-" user_agent="kube-probe/1.10""#,
        );
        check(
            "nginx",
            r#"192.0.2.4 - u [28/Nov/2026:20:58:04 +0000] "\x16\x03" 400 0"#,
            r#"remote_addr="192.0.2.4" remote_user="u" time="28/Nov/2026:20:58:04 +0000" status=400 bytes=0"#,
        );
        check(
            "nginx-error",
            "2026/11/28 20:58:04 [error] 17#18: *3 open() failed",
            r#"time="2026/11/28 20:58:04" level="error" pid=17 tid=18 connection=3 message="open() failed""#,
        );
        check(
            "apache-error",
            "[Sat Nov 28 20:58:04.123456 2026] [core:error] [pid 17:tid 18] [client 192.0.2.4:80] AH00126: no",
            r#"time="Sat Nov 28 20:58:04.123456 2026" module="core" level="error" pid=17 tid=18 client="192.0.2.4:80" message="AH00126: no""#,
        );
        check(
            "klog",
            "E1128 17:01:58.123456       1 file.go:7] no: x",
            r#"level="E" date=1128 clock="17:01:58.123456" pid=1 source="file.go:7" message="no: x""#,
        );
        check(
            "java",
            "2026-11-28 17:01:58.123 [main] ERROR com.example.App - no",
            r#"time="2026-11-28 17:01:58.123" thread="main" level="ERROR" logger="com.example.App" message="no""#,
        );
        check(
            "java",
            "2026-11-28T17:01:58.123Z  INFO 1 --- [           main] c.e.App                  : Started",
            r#"time="2026-11-28T17:01:58.123Z" level="INFO" pid=1 logger="c.e.App" message="Started""#,
        );
        check("python", "WARNING:root:no", r#"level="WARNING" logger="root" message="no""#);
        check(
            "postgresql",
            "2026-11-28 17:01:58.123 UTC [17] FATAL:  the database system is starting up",
            r#"time="2026-11-28 17:01:58.123 UTC" pid=17 level="FATAL" message="the database system is starting up""#,
        );
        check(
            "redis",
            "1:M 28 Nov 2026 17:01:58.123 * Ready to accept connections",
            r#"pid=1 role="M" time="28 Nov 2026 17:01:58.123" mark="*" message="Ready to accept connections""#,
        );
    }

    #[test]
    fn what_is_no_pattern() {
        assert!(Pattern::new("^a$").unwrap_err().contains("names no group"));
        assert!(Pattern::new("(").unwrap_err().starts_with("the pattern cannot be used: "));
        assert_eq!(Pattern::new("(?P<a>x)").unwrap().parse("y"), Err(Unread::Form));
        assert_eq!(Pattern::new("(?P<a>x)").unwrap().parse(&"x".repeat(MAX_TEXT + 1)), Err(Unread::Limit));
    }
}
