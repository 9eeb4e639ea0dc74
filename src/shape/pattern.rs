//! Regular expressions whose named groups become fields: the user's own, and built-in ones with names. `tests/shape` has
//! sample lines for each built-in pattern.

use std::borrow::Cow;

use super::parse::{Found, Unread};
use crate::record::{Expression, Value};

/// Bytes of a compiled pattern.
const MAX_PATTERN: usize = 64 << 10;
/// The longest text that is matched, in bytes. Matching takes time at most proportional to this times the pattern's size.
const MAX_TEXT: usize = 8 << 10;

/// The built-in patterns: for each program, the formats of its lines. The first format that matches is used. The groups
/// `level`, `time` and `message` mean the same in all of them, and numbers become numbers.
const NAMED: [(&str, &[&str]); 10] = [
    // nginx: `combined` of ngx_http_log_module and `main` of the nginx image. Apache: `common` and `combined`.
    (
        "nginx",
        &[
            r#"^(?P<remote_addr>\S+) \S+ (?P<remote_user>\S+) \[(?P<time>[^\]]+)\] "(?:(?P<method>[A-Z]+) (?P<path>\S+)(?: (?P<protocol>[^"]+))?|(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-)(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<user_agent>(?:[^"\\]|\\.)*)"(?: "(?P<forwarded_for>[^"]*)")?)?"#,
        ],
    ),
    (
        "nginx-error",
        &[
            r"^(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]+)\] (?P<pid>\d+)#(?P<tid>\d+): (?:\*(?P<connection>\d+) )?(?P<message>(?s:.*))$",
        ],
    ),
    // The format of Apache 2.4, and of 2.2, which has no PID.
    (
        "apache-error",
        &[
            r"^\[(?P<time>[^\]]+)\] \[(?:(?P<module>[^:\]]+):)?(?P<level>[^\]]+)\](?: \[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\])?(?: (?P<source>[\w.]+\(\d+\)):)?(?: (?P<error>\(\d+\)[^:]*):)?(?: \[client (?P<client>[^\]]+)\])? (?P<message>(?s:.*))$",
        ],
    ),
    (
        "klog",
        &[
            r"^(?P<level>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d+) +(?P<pid>\d+) (?P<source>[^\]]+)\] (?P<message>(?s:.*))$",
        ],
    ),
    // Package `log` of Go, with any of its flags and with a prefix, which often is a level.
    (
        "go",
        &[
            r"^(?:\[?(?P<level>DEBUG|INFO|WARN|WARNING|ERROR|FATAL|TRACE)\]?:?\s+|(?P<prefix>\S{1,40}) +)?(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{6})?) (?:(?P<source>[^\s:]+\.go:\d+): )?(?P<message>(?s:.*))$",
        ],
    ),
    // The examples of the Logback and Log4j manuals; Hadoop, and Log4j with a colon; Spring Boot; Quarkus and WildFly.
    (
        "java",
        &[
            r"^(?:(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+(?:Z| ?[+-]\d\d:?\d\d)?)|(?P<clock>\d\d:\d\d:\d\d[.,]\d+)) +(?:\[(?P<thread>[^\]]+)\] +)?(?P<level>[A-Z]+) +(?P<logger>[^\s\[]\S*) +- (?P<message>(?s:.*))$",
            r"^(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+(?:Z| ?[+-]\d\d:?\d\d)?) +(?P<level>[A-Z]+) +(?:\[(?P<thread>[^\]]+)\] +)?(?P<logger>[^\s\[:]+): (?P<message>(?s:.*))$",
            r"^(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+(?:Z| ?[+-]\d\d:?\d\d)?) +(?P<level>[A-Z]+) +(?P<pid>\d+) --- (?:\[(?P<application>[^\] ][^\]]*)\] )?\[ *(?P<thread>[^\]]*)\] (?P<logger>\S+) *: (?P<message>(?s:.*))$",
            r"^(?:(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+)|(?P<clock>\d\d:\d\d:\d\d[.,]\d+)) +(?P<level>[A-Z]+) +\[(?P<logger>[^\]]+)\] \((?P<thread>[^)]*)\) (?P<message>(?s:.*))$",
            // Logback's default layout; ZooKeeper; Elasticsearch; Kafka; Tomcat.
            r"^(?P<clock>\d\d:\d\d:\d\d\.\d+) \[(?P<thread>[^\]]+)\] (?P<level>[A-Z]+) +(?P<logger>\S+) -- (?P<message>(?s:.*))$",
            r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+) \[[^\]]*\] - (?P<level>[A-Z]+) +\[(?P<thread>[^\]]*):(?P<logger>[^\]:]+)\] - (?P<message>(?s:.*))$",
            r"^\[(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d+)\]\[(?P<level>[A-Z]+) *\]\[(?P<logger>[^\] ]+) *\] (?P<message>(?s:.*))$",
            r"^\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+)\] (?P<level>[A-Z]+) (?P<message>(?s:.*)) \((?P<logger>[\w.$]+)\)$",
            r"^(?P<time>\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d\.\d+) (?P<level>[A-Z]+) \[(?P<thread>[^\]]+)\] (?P<logger>[\w.$]+) (?P<message>(?s:.*))$",
        ],
    ),
    // The examples in the documentation of `logging`; gunicorn; Flask; Celery; uvicorn.
    (
        "python",
        &[
            r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - (?P<logger>\S+) - (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) - (?P<message>(?s:.*))$",
            r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) +(?P<logger>[^\s:]+): (?P<message>(?s:.*))$",
            r"^(?:(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?:- )?)?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):(?P<logger>[^:\s]+):(?P<message>(?s:.*))$",
            r"^\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4})\] \[(?P<pid>\d+)\] \[(?P<level>[A-Z]+)\] (?P<message>(?s:.*))$",
            r"^\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\] (?P<level>[A-Z]+) in (?P<logger>\S+): (?P<message>(?s:.*))$",
            r"^\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}): (?P<level>[A-Z]+)/(?P<process>[^\]]+)\] (?P<message>(?s:.*))$",
            r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL): +(?P<message>(?s:.*))$",
            r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?:- )?\[?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\]? *(?:- |(?P<logger>[\w.]+): )?(?P<message>(?s:.*))$",
        ],
    ),
    (
        "postgresql",
        &[
            r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \S+) \[(?P<pid>\d+)\] (?:(?P<user>[^@ ]+)@(?P<database>\S+) )?(?P<level>[A-Z]+[1-5]?): +(?P<message>(?s:.*))$",
        ],
    ),
    (
        "redis",
        &[
            r"^(?P<pid>\d+):(?P<role>[XCSM]) (?P<time>\d\d? \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) (?P<level>[.\-*#]) (?P<message>(?s:.*))$",
        ],
    ),
    // `option httplog` and `option tcplog`.
    (
        "haproxy",
        &[
            r#"^(?P<client>\S+):(?P<port>\d+) \[(?P<time>[^\]]+)\] (?P<frontend>\S+) (?P<backend>[^/ ]+)/(?P<server>\S+) (?P<timers>[-+\d/]+) (?:(?P<status>-?\d+) )?(?P<bytes>\+?\d+) (?:\S+ \S+ )?(?P<termination>[\w-]{2,4}) (?P<connections>[\d/+]+) (?P<queues>[\d/]+)(?: \{[^}]*\}){0,2}(?: "(?:(?P<method>[A-Z]+) (?P<path>\S+)(?: (?P<protocol>[^"]+))?|[^"]*)")?$"#,
        ],
    ),
];

/// Regular expressions whose named groups are fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Empty: a pattern of the user.
    name: &'static str,
    /// At least one.
    expressions: Vec<Expression>,
}

impl Pattern {
    pub fn names() -> Vec<&'static str> {
        NAMED.iter().map(|(name, _)| *name).collect()
    }

    pub fn named(name: &str) -> Option<Self> {
        let (name, written) = NAMED.iter().find(|(known, _)| *known == name)?;
        let expressions = written.iter().map(|written| Expression::new(written, MAX_PATTERN)).collect::<Result<_, _>>();
        Some(Self { name, expressions: expressions.ok()? })
    }

    pub fn new(written: &str) -> Result<Self, String> {
        let expression = Expression::new(written, MAX_PATTERN).map_err(|says| format!("the pattern {says}"))?;
        if expression.regex().capture_names().flatten().next().is_none() {
            return Err("the pattern names no group; write (?P<name>…) around what is to be a field".to_owned());
        }
        Ok(Self { name: "", expressions: vec![expression] })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn written(&self) -> &str {
        self.expressions.first().map_or("", Expression::written)
    }

    /// The named groups of the first expression that matches.
    pub fn parse<'a>(&'a self, text: &'a str) -> Result<Found<'a>, Unread> {
        if text.len() > MAX_TEXT {
            return Err(Unread::Limit);
        }
        self.expressions.iter().find_map(|expression| groups(expression, text)).ok_or(Unread::Form)
    }
}

fn groups<'a>(expression: &'a Expression, text: &'a str) -> Option<Found<'a>> {
    let captures = expression.regex().captures(text)?;
    let groups = expression.regex().capture_names().enumerate();
    let field = |(at, name): (usize, Option<&'a str>)| {
        let (name, found) = (name?, captures.get(at)?.as_str());
        let value = if is_count(found) { Value::scalar(found) } else { None };
        Some((Cow::Borrowed(name), value.unwrap_or(Value::Text(Cow::Borrowed(found.as_bytes())))))
    };
    Some(groups.filter_map(field).collect())
}

/// Is this a number without leading zeros? `007` is a text.
fn is_count(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.is_empty() && !text.starts_with('0'))
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
        assert!(NAMED.iter().flat_map(|(_, written)| *written).all(|written| Pattern::new(written).is_ok()));
        assert!(NAMED.iter().all(|(name, _)| Pattern::named(name).is_some()));
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
            r#"level="E" time="1128 17:01:58.123456" pid=1 source="file.go:7" message="no: x""#,
        );
        check(
            "java",
            "2026-11-28 17:01:58.123 [main] ERROR com.example.App - no",
            r#"time="2026-11-28 17:01:58.123" thread="main" level="ERROR" logger="com.example.App" message="no""#,
        );
        check(
            "java",
            "2026-11-28T17:01:58.123Z  INFO 1 --- [           main] c.e.App                  : Started",
            r#"time="2026-11-28T17:01:58.123Z" level="INFO" pid=1 thread="main" logger="c.e.App" message="Started""#,
        );
        check(
            "java",
            "17:01:58.123 [main] ERROR com.example.App - no\n\tat a.b(C.java:7)",
            r#"clock="17:01:58.123" thread="main" level="ERROR" logger="com.example.App" message="no\n\tat a.b(C.java:7)""#,
        );
        check(
            "java",
            "2026-11-28 17:01:58,123 INFO  [io.quarkus] (main) Installed features: [cdi]",
            r#"time="2026-11-28 17:01:58,123" level="INFO" logger="io.quarkus" thread="main" message="Installed features: [cdi]""#,
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
            r#"pid=1 role="M" time="28 Nov 2026 17:01:58.123" level="*" message="Ready to accept connections""#,
        );
    }

    #[test]
    fn go_with_each_of_its_flags() {
        let check = |text: &str, expected: &str| check("go", text, expected);
        check(
            "2026/11/28 17:01:58 main.go:17: listening on :8080",
            r#"time="2026/11/28 17:01:58" source="main.go:17" message="listening on :8080""#,
        );
        check(
            "2026/11/28 17:01:58.123456 /src/app/main.go:17: a: b",
            r#"time="2026/11/28 17:01:58.123456" source="/src/app/main.go:17" message="a: b""#,
        );
        check("2026/11/28 17:01:58 http: Server closed", r#"time="2026/11/28 17:01:58" message="http: Server closed""#);
        check("ERROR: 2026/11/28 17:01:58 no", r#"level="ERROR" time="2026/11/28 17:01:58" message="no""#);
        check("[app] 2026/11/28 17:01:58 up", r#"prefix="[app]" time="2026/11/28 17:01:58" message="up""#);
        check(
            "2026/11/28 17:01:58 panic: x\n\ngoroutine 1",
            r#"time="2026/11/28 17:01:58" message="panic: x\n\ngoroutine 1""#,
        );
    }

    #[test]
    fn java_of_more_programs() {
        let check = |text: &str, expected: &str| check("java", text, expected);
        check(
            "17:01:58.123 [main] DEBUG com.example.App -- no",
            r#"clock="17:01:58.123" thread="main" level="DEBUG" logger="com.example.App" message="no""#,
        );
        check(
            "2026-11-28 17:01:58,123 [myid:1] - INFO  [main:o.a.z.s.q.QuorumPeerMain@137] - Starting quorum peer",
            r#"time="2026-11-28 17:01:58,123" level="INFO" thread="main" logger="o.a.z.s.q.QuorumPeerMain@137" message="Starting quorum peer""#,
        );
        check(
            "[2026-11-28T17:01:58,123][INFO ][o.e.n.Node               ] [node-1] started",
            r#"time="2026-11-28T17:01:58,123" level="INFO" logger="o.e.n.Node" message="[node-1] started""#,
        );
        check(
            "[2026-11-28 17:01:58,123] INFO [KafkaServer id=1] started (kafka.server.KafkaServer)",
            r#"time="2026-11-28 17:01:58,123" level="INFO" message="[KafkaServer id=1] started" logger="kafka.server.KafkaServer""#,
        );
        check(
            "28-Nov-2026 17:01:58.123 INFO [main] org.apache.catalina.startup.Catalina.start Server startup in [1234] milliseconds",
            r#"time="28-Nov-2026 17:01:58.123" level="INFO" thread="main" logger="org.apache.catalina.startup.Catalina.start" message="Server startup in [1234] milliseconds""#,
        );
    }

    #[test]
    fn python_without_a_logger() {
        let check = |text: &str, expected: &str| check("python", text, expected);
        check("2026-11-28 17:01:58,123 INFO up", r#"time="2026-11-28 17:01:58,123" level="INFO" message="up""#);
        check(
            "2026-11-28 17:01:58,123 [INFO] app.db: connected",
            r#"time="2026-11-28 17:01:58,123" level="INFO" logger="app.db" message="connected""#,
        );
        let python = Pattern::named("python").expect("it is known");
        for text in ["INFO is good", "2026-11-28 up"] {
            assert_eq!(python.parse(text), Err(Unread::Form), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        assert!(Pattern::new("^a$").unwrap_err().contains("names no group"));
        assert!(Pattern::new("(").unwrap_err().starts_with("the pattern cannot be used: "));
        assert_eq!(Pattern::new("(?P<a>x)").unwrap().parse("y"), Err(Unread::Form));
        assert_eq!(Pattern::new("(?P<a>x)").unwrap().parse(&"x".repeat(MAX_TEXT + 1)), Err(Unread::Limit));
    }
}
