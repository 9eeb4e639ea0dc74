//! The files for Prometheus and Grafana in deploy/monitoring: the alerts and the dashboard query metrics that the relay exports, and a real
//! Prometheus scrapes a real relay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use logferry::internals::metrics::Metrics;
use regex_lite::Regex;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Held, Program, Relay, Setup, eventually, installed, own_address, says};

/// Labels that Prometheus adds to all samples of a scrape.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("deploy/monitoring/{name}: {error}"))
}

/// The name and the expression of each alert.
fn alerts() -> Vec<(String, String)> {
    let rules = read("logferry-alerts.yaml");
    let value = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
    };
    let alerts: Vec<_> = value("- alert:").into_iter().zip(value("expr:")).collect();
    assert!(alerts.len() > 30, "only {} alerts", alerts.len());
    alerts
}

/// The title, the expression and the legend of each query of the dashboard.
fn queries() -> Vec<(String, String, String)> {
    let dashboard: Value = serde_json::from_str(&read("logferry-dashboard.json")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a list") {
        let targets = panel["targets"].as_array().into_iter().flatten();
        queries
            .extend(targets.map(|query| (text(&panel["title"]), text(&query["expr"]), text(&query["legendFormat"]))));
    }
    assert!(queries.len() > 30, "only {} queries", queries.len());
    queries
}

/// The exported metrics: the labels of each, and the values that have occurred.
struct Exported(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exported {
    fn all() -> Self {
        let metrics = Metrics::new();
        metrics.listener("x");
        let forward = metrics.forward("x");
        forward.requests.count("stop");
        forward.requests.count("unanswered");
        forward.dead_letters.count("refused");
        forward.misread.count("form");
        metrics.shapes();
        metrics.spool();
        metrics.log();
        metrics.containers().export(1);
        metrics.containers().named("x");
        metrics.tls().not_after("x");
        let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).expect("a pattern");
        let mut exported: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        exported.entry("up".to_owned()).or_default();
        for line in metrics.encode().lines().filter(|line| !line.starts_with('#')) {
            let series = line.rsplit_once(' ').expect("a series and a value").0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let known = exported.entry(name.to_owned()).or_default();
            for found in label.captures_iter(labels) {
                known.entry(found[1].to_owned()).or_default().insert(found[2].to_owned());
            }
        }
        Self(exported)
    }

    /// Errors in an expression: a metric, a label or a label value that is not exported.
    fn lacks(&self, expression: &str, legend: &str) -> Vec<String> {
        let label_of_legend = Regex::new(r"\{\{ *([a-z_]+) *\}\}").expect("a pattern");
        let (metrics, mut labels) = names(expression);
        labels.extend(label_of_legend.captures_iter(legend).map(|found| found[1].to_owned()));
        let mut lacks: Vec<String> = metrics.iter().filter(|name| !self.0.contains_key(*name)).cloned().collect();
        let known: Vec<_> = metrics.iter().filter_map(|name| self.0.get(name)).collect();
        let of_ours = labels.iter().filter(|label| !OF_THE_SCRAPE.contains(&label.as_str()));
        lacks.extend(of_ours.filter(|label| !known.iter().any(|known| known.contains_key(*label))).cloned());
        let matcher = Regex::new(r#"([a-z_]+)=~?"([a-z|]+)""#).expect("a pattern");
        for found in matcher.captures_iter(expression).filter(|found| !OF_THE_SCRAPE.contains(&&found[1])) {
            for value in found[2].split('|') {
                let is_known = known.iter().any(|known| known.get(&found[1]).is_some_and(|seen| seen.contains(value)));
                if !is_known {
                    lacks.push(format!("{}=\"{value}\"", &found[1]));
                }
            }
        }
        lacks
    }
}

/// The metrics and the labels in a PromQL expression. A word that is no function, operator or metric counts as a label, so that a misspelt
/// metric is found as an unknown label.
fn names(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let in_quotes_or_brackets = Regex::new(r#""[^"]*"|\[[^\]]*\]"#).expect("a pattern");
    let name = Regex::new(r"\b([a-z_][a-z0-9_]*)\b *(\(?)").expect("a pattern");
    let bare = in_quotes_or_brackets.replace_all(expression, "");
    let named = name.captures_iter(&bare).filter(|found| found[2].is_empty()).map(|found| found[1].to_owned());
    let named = named.filter(|name| !["sum", "and", "or", "unless"].contains(&name.as_str()));
    named.partition(|name| name.starts_with("logferry_") || name.starts_with("process_") || name == "up")
}

#[test]
fn alerts_and_panels_ask_for_what_the_relay_exports() {
    let exported = Exported::all();
    for (name, expression) in alerts() {
        assert_eq!(exported.lacks(&expression, ""), [""; 0], "{name}: {expression}");
    }
    for (title, expression, legend) in queries() {
        assert_eq!(exported.lacks(&expression, &legend), [""; 0], "{title}: {expression}");
    }
}

#[test]
fn what_is_not_exported_is_found() {
    let exported = Exported::all();
    let check = |expression: &str, legend: &str, lacks: &[&str]| {
        assert_eq!(exported.lacks(expression, legend), lacks, "{expression}");
    };
    check("sum by (listener) (rate(logferry_listen_received_total{job=\"x\"}[5m])) > 0", "{{listener}}", &[]);
    check("rate(logferry_listen_recieved_total[5m])", "", &["logferry_listen_recieved_total"]);
    check("logferry_forward_pending", "{{listener}}", &["listener"]);
    check("sum by (reason) (logferry_forward_pending)", "", &["reason"]);
    check("logferry_spool_dropped_total{reason=~\"full|fool\"}", "", &["reason=\"fool\""]);
    check("process_open_fds / process_open_files", "", &["process_open_files"]);
    check("logfery_standstills > 0", "", &["logfery_standstills"]);
}

/// The column "look when" of docs/metrics.md is the source of the alerts.
#[test]
fn what_an_operator_looks_at_has_an_alert() {
    let docs = fs::read_to_string(folder().join("../../docs/metrics.md")).expect("docs/metrics.md");
    let asked: BTreeSet<String> = alerts().iter().flat_map(|(_, expression)| names(expression).0).collect();
    let first_name = Regex::new("^`((?:logferry|process)_[a-z_]+)`").expect("a pattern");
    let mut seen = 0;
    for row in docs.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [names, _, look_when] = cells[..] else { continue };
        // The row of the process metrics has four metrics; only one of them is worth an alert.
        let Some(name) = first_name.captures(names).filter(|_| !look_when.is_empty()) else { continue };
        if name[1].starts_with("process_") || &name[1] == "logferry_forward_dead_letters" {
            continue;
        }
        seen += 1;
        let is_asked = asked.iter().any(|metric| metric.strip_suffix("_total").unwrap_or(metric) == &name[1]);
        assert!(
            is_asked,
            "no alert of deploy/monitoring asks for {}, and docs/metrics.md says to look when: {look_when}",
            &name[1]
        );
    }
    assert!(seen > 25, "only {seen} rows");
}

#[test]
fn promtool_takes_the_files_and_sees_each_alert_fire() {
    let Some(promtool) = installed("promtool", "prometheus") else { return };
    let runs = |arguments: [&str; 3]| {
        let output = Command::new(&promtool).args(arguments).current_dir(folder()).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    };
    runs(["check", "config", "prometheus.yml"]);
    runs(["test", "rules", "logferry-alerts-test.yaml"]);
    let tests = read("logferry-alerts-test.yaml");
    for (name, _) in alerts() {
        let fires = tests
            .split(&format!("alertname: {name}\n"))
            .skip(1)
            .any(|rest| rest.split("alertname:").next().is_some_and(|of_this| of_this.contains("exp_labels:")));
        let is_silent = tests.contains(&format!("alertname: {name}, exp_alerts: []"));
        assert!(fires && is_silent, "logferry-alerts-test.yaml does not show when {name} fires and when it does not");
    }
}

/// A Prometheus that scrapes one relay, with our alerts.
struct Prometheus {
    address: SocketAddr,
    _program: Program,
    _dir: TempDir,
}

impl Prometheus {
    #[track_caller]
    fn scrapes(relay: &Relay) -> Option<Self> {
        let prometheus = installed("prometheus", "prometheus")?;
        let dir = TempDir::new().expect("a directory");
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: logferry\n    static_configs: [{{ targets: ['{}'] }}]\n",
            folder().join("logferry-alerts.yaml").display(),
            relay.admin()
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("a fresh directory");
        let mut command = Command::new(prometheus);
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address={}:0", own_address()));
        let program = Program::start(&mut command);
        let address = eventually("Prometheus listens", || {
            let said = program.stderr();
            let at = said.lines().find(|line| line.contains("msg=\"Listening on\""))?.split_once("address=")?.1;
            at.trim().parse().ok()
        });
        Some(Self { address, _program: program, _dir: dir })
    }

    /// A response of its API. `None`: no response yet.
    #[track_caller]
    fn asks(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).expect("Prometheus listens");
        // HTTP/1.0, because a response in 1.1 would be chunked.
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head and a body").1).ok()?;
        assert_eq!(body["status"], "success", "{path}: {body}");
        Some(body["data"].clone())
    }

    /// The current series of an expression.
    #[track_caller]
    fn evaluates(&self, expression: &str) -> Vec<Value> {
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let data = eventually("Prometheus answers", || self.asks(&format!("query?{query}")));
        data["result"].as_array().expect("a list").clone()
    }
}

#[test]
fn a_real_prometheus_reads_a_relay_and_raises_an_alert() {
    let here = own_address();
    let collector = Held::new(false, &[here]);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&format!("tcp://{here}:{}", collector.port()));
    let relay = setup.start();
    says(&relay, 0..5);
    relay.counts("forward_pending", 5);
    let Some(prometheus) = Prometheus::scrapes(&relay) else { return };

    // The collector is away: the alert becomes pending, with the name of the forward in its text.
    let alert = eventually("the alert begins", || {
        let alerts = prometheus.asks("alerts")?;
        let mut alerts = alerts["alerts"].as_array().expect("a list").iter();
        alerts.find(|alert| alert["labels"]["alertname"] == "LogferryNotConnected").cloned()
    });
    let forward = alert["labels"]["forward"].as_str().expect("a name");
    assert_eq!(alert["annotations"]["summary"], format!("Forward {forward} has no connection"));

    // Prometheus accepts each query of the dashboard, and the values are the relay's.
    let shown = |expression: &str| {
        let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
        prometheus.evaluates(&expression)
    };
    for (title, expression, _) in queries() {
        let series = shown(&expression);
        if title == "Pending" || title == "Lines pending" {
            assert_eq!(series[0]["value"][1], "5", "{title}: {series:?}");
        }
        // Panels that must have a value for every relay, even right after its start.
        if ["Spool used", "Connected", "Memory", "File descriptors", "Standstills"].contains(&title.as_str()) {
            assert!(!series.is_empty(), "{title} shows nothing: {expression}");
        }
    }
}
