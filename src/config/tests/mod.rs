//! The meaning of configs.

mod refused;

use proptest::prelude::*;

use super::*;
use crate::protocol::syslog::{HostSource, Marks, Senders};
use crate::record::Format;
use crate::spool::Sync;

fn parse_with(text: &str, overrides: &Overrides) -> Result<Config, ConfigErrors> {
    let variable = |name: &str| (name == "SET").then(|| "from-variable".to_owned());
    Config::parse(Some(Path::new("/etc/x.toml")), text, overrides, &variable)
}

fn parse(text: &str) -> Config {
    parse_with(text, &Overrides::default()).expect("a good config")
}

/// The overrides of flags, given as `--name=value`.
fn overrides(flags: &[&str]) -> Overrides {
    let command = <Overrides as clap::Args>::augment_args(clap::Command::new("logferry"));
    let found = command.try_get_matches_from([&["logferry"], flags].concat()).expect("flags");
    clap::FromArgMatches::from_arg_matches(&found).expect("flags")
}

fn refused(text: &str, says: &str) {
    let error = parse_with(text, &Overrides::default()).expect_err(text).to_string();
    assert_eq!(error, says, "{text}");
    assert!(!error.contains('\n'));
}

#[test]
fn nothing_at_all_is_a_config() {
    let config = parse("");
    let listen: Vec<String> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, DEFAULT_LISTEN);
    assert_eq!(config.forward[0].to[0].address, ForwardAddress::Stdout);
    assert_eq!(config.spool.dir, Path::new("/var/spool/logferry"));
    assert!(!config.admin.explicit);
}

#[test]
fn the_admin_address_of_a_bad_config_is_what_can_be_read_of_it() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let check = |text: &str, admin: Option<&str>, expected: Option<&str>| {
        let path = dir.path().join("logferry.toml");
        std::fs::write(&path, text).expect("written");
        let overrides = Overrides::default().with_file(Some(path.display().to_string()));
        let overrides = overrides.with("admin", admin.map(str::to_owned));
        let found = Config::admin_address(&overrides).map(|address| address.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    };
    check("nonsense = 1\n[admin]\nlisten = \"127.0.0.1:1\"", None, Some("127.0.0.1:1"));
    check("nonsense = 1\n[admin]\nlisten = \"127.0.0.1:1\"", Some("127.0.0.1:2"), Some("127.0.0.1:2"));
    check("grace = \"soon\"\n[admin]\nlisten = \"off\"", None, None);
    check("[admin]\nlisten = \"somewhere\"", None, Some(DEFAULT_ADMIN));
    check("[admin\nlisten = \"127.0.0.1:1\"", None, Some(DEFAULT_ADMIN));
    check("[admin\n", Some("127.0.0.1:2"), Some("127.0.0.1:2"));
    let nowhere = Some(dir.path().join("nowhere").display().to_string());
    let address = Config::admin_address(&Overrides::default().with_file(nowhere));
    assert_eq!(address, DEFAULT_ADMIN.parse().ok());
}

#[test]
fn what_check_prints_is_the_same_config() {
    let text = r#"
        hostname = "node-7"
        [[listen]]
        address = "tcp://0.0.0.0:514"
        cert = "/certs/server.pem"
        key = "/certs/server-key.pem"
        client-ca = "/certs/ca.pem"
        client-names = ["*.hosts.example.com", "192.0.2.7"]
        client-fingerprint = "sha-256:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64:36:0B:08:4B:7A:F1:9E:9D:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64"
        plaintext = false
        from = "docker"
        max-frame = "32KiB"
        allow = ["10.0.0.0/8", "2001:db8::7"]
        max-connections = 77
        max-connections-per-address = 7
        max-unfinished = "4MiB"
        frame-timeout = "5s"
        max-handshakes = 70
        handshake-timeout = "3s"
        [spool]
        sync = "always"
        when-full = "drop-newest"
        max-rate = "16 MiB/s"
        [[forward]]
        name = "central"
        to = ["tcp+tls://logs.example.com:6514", "tcp://10.0.0.1:514"]
        format = "json"
        framing = "newline"
        ca = "/certs/ca.pem"
        cert = "/certs/client.pem"
        key = "/certs/client-key.pem"
        server-name = "logs.example.com"
        server-fingerprint = ["sha-256:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64:36:0B:08:4B:7A:F1:9E:9D:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64"]
        [resolve]
        nameservers = ["10.0.0.2", "[::1]:5353"]
        [admin]
        listen = "off"
    "#;
    let config = parse(text);
    let again = parse(&config.to_toml());
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    let shown = format!("{:?}", config.listen[0].limits);
    let expected = "max_frame: 32768, max_connections: 77, max_connections_per_address: 7, max_unfinished: 4194304, \
                    frame_timeout: 5s, max_handshakes: 70, numbered: Any, handshake_timeout: 3s }";
    assert!(shown.ends_with(expected), "{shown}");
    assert_eq!(config.listen[0].from, Senders::Docker);
    assert_eq!(config.resolve.nameservers[0].port(), 53);
    assert_eq!((config.spool.sync, config.spool.max_rate), (Sync::Always, Some(16 << 20)));
}

#[test]
fn one_target_needs_no_brackets() {
    assert_eq!(parse("[[forward]]\nto = \"stdout:\"").forward[0].to[0].address, ForwardAddress::Stdout);
}

#[test]
fn variables_are_filled_in() {
    assert_eq!(parse("hostname = \"${SET}\"").hostname, "from-variable");
    assert_eq!(
        parse("# ${UNSET} in a comment is nobody's business\nhostname = \"a-${SET}-b\"").hostname,
        "a-from-variable-b"
    );
    refused("hostname = \"${UNSET}\"", "/etc/x.toml:1: hostname: `${UNSET}`: the variable UNSET is not set");
    refused("hostname = \"${UNSET\"", "/etc/x.toml:1: hostname: `${UNSET`: `${` has no `}`");
}

#[test]
fn flags_and_variables_go_over_the_file() {
    let overrides = overrides(&[
        "--listen=udp://127.0.0.1:1, tcp://127.0.0.1:2",
        "--forward=tcp://a:1",
        "--forward=tcp+tls://b:2",
        "--hostname=flag",
        "--spool-max-size=64MiB",
        "--format=",
        "--cert=/c.pem",
        "--key=/k.pem",
    ]);
    let text =
        "hostname = \"file\"\n[[listen]]\naddress = \"udp://0.0.0.0:9\"\n[[forward]]\nname = \"old\"\nto = \"stdout:\"";
    let config = parse_with(text, &overrides).expect("a good config");
    assert_eq!(config.hostname, "flag");
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.forward.len(), 1);
    assert_eq!(config.forward[0].to.len(), 2, "a list is failover, in order");
    assert_eq!(config.spool.max_size, 64 << 20);
    assert!(config.forward[0].tls.identity().is_some());
    assert_eq!(config.forward[0].format, Format::Rfc5424, "an empty variable is one that is not given");
}

#[test]
fn tls_files_go_to_the_tcp_listeners() {
    let overrides =
        overrides(&["--listen=udp://127.0.0.1:1,tcp://127.0.0.1:2", "--tls-cert=/c.pem", "--tls-key=/k.pem"]);
    let config = parse_with("", &overrides).expect("a good config");
    assert!(config.listen[0].tls.is_none());
    assert!(config.listen[1].tls.is_some());
    assert!(config.listen[1].plaintext, "TLS and plain text on one port");
}

#[test]
fn tls_files_go_to_the_default_listeners_too() {
    let tls = overrides(&["--tls-cert=/c.pem", "--tls-key=/k.pem"]);
    let config = parse_with("", &tls).expect("a good config");
    assert!(config.listen.iter().any(|listen| listen.tls.is_some()));
    let nowhere = parse_with("[[listen]]\naddress = \"udp://0.0.0.0:1\"", &tls).expect_err("nobody speaks TLS");
    assert!(
        nowhere.to_string().contains("no tcp://, tcp+tls://, relp+tls://, fluent+tls://, gelf+tls://, splunk+https:// or journal+https:// listener"),
        "{nowhere}"
    );
}

#[test]
fn what_is_about_tls_needs_a_forward_that_speaks_it() {
    let ca = overrides(&["--ca=/ca.pem"]);
    let two = "[[forward]]\nname = \"a\"\nto = \"stdout:\"\n[[forward]]\nname = \"b\"\nto = \"relp+tls://c\"";
    let config = parse_with(two, &ca).expect("a good config");
    assert!(config.forward[0].tls.ca.is_none() && config.forward[1].tls.ca.is_some());
    let nowhere = parse_with("[[forward]]\nto = \"tcp://c:1\"", &ca).expect_err("nobody speaks TLS");
    assert!(nowhere.to_string().contains("no forward speaks TLS"), "{nowhere}");
    refused(
        "[[forward]]\nto = \"relp://c\"\nserver-name = \"d\"",
        "/etc/x.toml:3: forward.server-name: `d`: no target of `to` speaks TLS; write tcp+tls://, relp+tls://, https://, s3://, nats+tls://, fluent+tls:// or gelf+tls://",
    );
}

#[test]
fn the_default_forward_takes_a_format() {
    let json = overrides(&["--format=json"]);
    let config = parse_with("", &json).expect("a good config");
    assert_eq!((config.forward[0].name.as_str(), config.forward[0].format), ("stdout", Format::Json));
}

/// A listener that asks for certificates accepts plain text only if its settings say so.
#[test]
fn plain_text_beside_tls() {
    let listen = |address: &str, keys: &str| {
        format!("[[listen]]\naddress = \"{address}\"\ncert = \"/c.pem\"\nkey = \"/k.pem\"\n{keys}")
    };
    let plaintext = |address: &str, keys: &str| parse(&listen(address, keys)).listen[0].plaintext;
    let mutual = "client-ca = \"/ca.pem\"";
    assert!(plaintext("tcp://0.0.0.0", ""));
    assert!(!plaintext("tcp+tls://0.0.0.0", ""));
    assert!(!plaintext("tcp://0.0.0.0", mutual));
    assert!(plaintext("tcp://0.0.0.0", &format!("{mutual}\nplaintext = true")));
    refused(
        &listen("relp+tls://0.0.0.0", "plaintext = true"),
        "/etc/x.toml:5: listen.plaintext: `true`: this scheme takes TLS only; for both on one port write tcp://",
    );
}

/// Senders on a unix socket have no address, so that a list of addresses would allow all of them.
#[test]
fn ranges_belong_to_senders_with_an_address() {
    let says = |address: &str, range: &str| {
        let text = format!("[[listen]]\naddress = \"{address}\"\nallow = [\"{range}\"]");
        parse_with(&text, &Overrides::default()).map(drop).map_err(|errors| errors.to_string())
    };
    for address in ["udp://:1", "tcp://:1", "relp://:1"] {
        assert_eq!(says(address, "10.0.0.0/8"), Ok(()), "{address}");
    }
    for address in ["unix:///run/log", "unixgram:///run/log"] {
        assert!(says(address, "10.0.0.0/8").unwrap_err().contains("3: listen.allow: `10.0.0.0/8`: senders of unix"));
    }
    assert!(
        says("tcp://:1", "10.0.0.1/8").unwrap_err().contains("3: listen.allow: `10.0.0.1/8`: the range is 10.0.0.0/8")
    );
}

#[test]
fn who_sends_is_anybody_unless_it_is_docker() {
    let listen = |address: &str, from: &str| format!("[[listen]]\naddress = \"{address}\"\n{from}");
    assert_eq!(parse(&listen("udp://0.0.0.0", "")).listen[0].from, Senders::Anybody);
    for scheme in ["udp://0.0.0.0", "tcp://0.0.0.0", "unix:///a", "unixgram:///a"] {
        assert_eq!(parse(&listen(scheme, "from = \"docker\"")).listen[0].from, Senders::Docker);
    }
    assert_eq!(parse(&listen("relp://0.0.0.0", "from = \"anybody\"")).listen[0].from, Senders::Anybody);
    refused(
        &listen("relp://0.0.0.0", "from = \"docker\""),
        "/etc/x.toml:3: listen.from: `docker`: Docker's driver speaks no RELP; write it at the udp, tcp or unix listener that \
         the driver is pointed at",
    );
    refused(
        &listen("udp://0.0.0.0", "from = \"podman\""),
        "/etc/x.toml:3: listen.from: `podman`: write \"anybody\" or \"docker\"",
    );
}

/// Compose passes an unset variable as an empty one.
#[test]
fn an_empty_name_is_no_config_file() {
    let named = |path: &str| Overrides::default().with_file(Some(path.to_owned()));
    assert_eq!(named("").file(), Overrides::default().file());
    assert_eq!(named("").again().file(), Overrides::default().again().file());
    assert_eq!(named("/a.toml").again().file(), Some("/a.toml"));
}

#[test]
fn an_empty_variable_is_not_a_listener() {
    let overrides = overrides(&["--listen=", "--forward="]);
    let config = parse_with("", &overrides).expect("a good config");
    assert_eq!(config.listen.len(), DEFAULT_LISTEN.len());
    assert_eq!(config.forward[0].to[0].address, ForwardAddress::Stdout);
}

#[test]
fn rules_come_alone_or_in_lists() {
    let one = parse("[[forward]]\nto = \"stdout:\"\nmatch = { name = \"web-*\", severity = \"warning or worse\" }");
    let table =
        parse("[[forward]]\nto = \"stdout:\"\n[[forward.match]]\nname = [\"web-*\"]\nseverity = \"warning or worse\"");
    assert_eq!(one.forward[0].matches, table.forward[0].matches);
    assert_eq!(one.forward[0].matches[0].to_string(), "{ name = \"web-*\", severity = \"warning or worse\" }");
    let text = r#"
        [[listen]]
        address = "udp://127.0.0.1:514"
        name = "dmz"
        repeat = "10s"
        [syslog]
        rejoin = "64KiB"
        rate-limit = "500/s"
        [[drop]]
        image = ["a*", "!ab"]
        facility = "local0"
        [[sample]]
        one-of = 10
        name = "a*"
        [[mask]]
        known = "private-key"
        at = "intake"
        [[mask]]
        pattern = "password=[^ ]+"
        with = "password=***"
        [[forward]]
        to = "stdout:"
        match = [{ listener = "dmz" }, { host = "?", app = "x" }, { message-regex = "a+", field = { a = ["b", ">=5"] } }]
        mask = [{ known = ["email", "aws-key"], with = "" }, { pattern = "a+" }]
        fields = { env = "prod", "a b" = "7" }
        parse = ["json", "nginx", "regex"]
        parse-pattern = '^(?P<a>.)'
        prefix = "p_"
        keep = ["a*", "!ab"]
        rename = { old = "new" }
        severity-from = "level"
        severity = "guess"
        [admin]
        listen = "off"
    "#;
    let config = parse(text);
    let again = parse(&config.to_toml());
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    assert_eq!((config.drop.len(), config.forward[0].matches.len()), (1, 3));
    assert_eq!(config.syslog.rate, Some(Rate { per_second: 500, burst: 5000 }));
    assert_eq!((config.sample[0].one_of, config.listen[0].repeat), (10, Some(Duration::from_secs(10))));
    assert_eq!((config.intake_masks().len(), config.forward[0].all_masks().count()), (1, 3));
}

#[test]
fn what_the_relay_says_of_itself() {
    let log = |text: &str| parse(&format!("[log]\n{text}")).log;
    let usual = Log { level: LogLevel::Info, format: LogFormat::Text, to_spool: None };
    assert_eq!(log(""), usual.clone());
    assert_eq!(log("to-spool = \"off\"\nformat = \"json\""), Log { format: LogFormat::Json, ..usual.clone() });
    assert_eq!(log("to-spool = \"warn\""), Log { to_spool: Some(LogLevel::Warn), ..usual });
    let says = "write error, warn, info, debug or trace, or \"off\"";
    refused("[log]\nto-spool = true", &format!("/etc/x.toml:2: log.to-spool: `true`: {says}"));
    refused("[log]\nformat = \"xml\"", "/etc/x.toml:2: log.format: `xml`: write \"text\" or \"json\"");
    let needs = parse("[log]\nto-spool = \"info\"").needs_no_restart(&parse(""));
    assert_eq!(needs, Err("[log] to-spool has changed, and that needs a restart".to_owned()));
}

/// A target uses only its own keys, and `check` shows no others.
#[test]
fn what_a_forward_may_say_depends_on_where_it_goes() {
    let forward = |to: &str, keys: &str| parse(&format!("[[forward]]\nto = {to}\n{keys}"));
    let keys = "replay = \"1KiB\"\nwindow = 7\nframing = \"newline\"";
    let mixed = forward("[\"relp://a\", \"tcp+tls://b\", \"udp://c\", \"file:///d\", \"stdout:\"]", keys);
    assert_eq!(mixed.warnings, [""; 0]);
    let [relp, tls, udp, file, stdout] = &mixed.forward[0].to[..] else { panic!("five targets") };
    assert!(matches!(&relp.delivery, DeliverySettings::Relp(relp) if relp.window == Some(7)), "{:?}", relp.delivery);
    let DeliverySettings::Stream(stream) = &tls.delivery else { panic!("{tls:?}") };
    assert_eq!((stream.replay, stream.replay_limit, tls.framing()), (1024, 16 << 20, Some(Framing::Newline)));
    assert_eq!(udp.delivery, DeliverySettings::Datagram);
    assert_eq!(file.delivery, DeliverySettings::File(FileSettings { max_open_files: 256 }));
    assert_eq!(stdout.delivery, DeliverySettings::Stdout);
    for (to, unused) in [
        ("relp://a", vec!["replay", "framing"]),
        ("tcp://a", vec!["window"]),
        ("udp://a", vec!["replay", "window", "framing"]),
        ("stdout:", vec!["replay", "window", "framing"]),
    ] {
        let config = forward(&format!("\"{to}\""), keys);
        let said: Vec<&str> = config.warnings.iter().map(|says| says.split(['.', ':']).nth(4).unwrap()).collect();
        let (shown, mut unused) = (config.to_toml(), unused);
        unused.sort_by_key(|key| keys.find(key));
        assert_eq!(said, unused, "{to}: {:?}", config.warnings);
        assert!(unused.iter().all(|key| !shown.contains(&format!("\n{key} = "))), "{to}: {shown}");
        assert_eq!(parse(&shown).warnings, [""; 0], "{to}");
    }
    // A target that cannot be read may use the key.
    refused(
        "[[forward]]\nto = \"tcl://a\"\nwindow = 7",
        "/etc/x.toml:2: forward.to: `tcl://a`: unknown scheme `tcl`; use udp://, tcp://, tcp+tls://, relp://, relp+tls://, fluent://, fluent+tls://, gelf+udp://, gelf+tcp://, gelf+tls://, http://, https://, nats://, nats+tls://, these with srv+ in front, s3://bucket/prefix, file:///path or stdout:",
    );
}

/// `check` shows only the keys that the API uses. Other keys cause a warning, and are not read.
#[test]
fn a_key_that_no_target_uses_means_nothing() {
    for (to, key) in [
        ("nats+tls://a", "headers = [\"A: b\"]"),
        ("relp://a", "replay = \"1KiB\""),
        ("stdout:", "max-datagram = \"no\""),
    ] {
        let with = parse(&format!("[[forward]]\nto = \"{to}\"\n{key}"));
        assert_eq!(with.warnings.len(), 1, "{to}: {:?}", with.warnings);
        assert_eq!(with.forward, parse(&format!("[[forward]]\nto = \"{to}\"")).forward, "{to}");
    }
}

#[test]
fn a_key_of_another_api_is_told() {
    let keys = "index = \"a\"\nid = \"off\"\nsourcetype = \"b\"\nbody = \"array\"";
    let forward = |to: &str, api: &str| format!("[[forward]]\nto = \"https://{to}\"\napi = \"{api}\"\n{keys}");
    for (api, unused) in [
        ("elasticsearch", vec!["sourcetype", "body"]),
        ("splunk", vec!["id", "body"]),
        ("datadog", vec!["index", "id", "sourcetype", "body"]),
        ("newrelic", vec!["index", "id", "sourcetype", "body"]),
        ("json", vec!["index", "id", "sourcetype"]),
    ] {
        let config = parse(&forward("a", api));
        let said: Vec<&str> = config.warnings.iter().map(|says| says.split(['.', ':']).nth(4).unwrap()).collect();
        assert_eq!(said, unused, "{api}: {:?}", config.warnings);
        let shown = config.to_toml();
        assert!(unused.iter().all(|key| !shown.contains(&format!("\n{key} = "))), "{api}: {shown}");
        assert_eq!(parse(&shown).warnings, [""; 0], "{api}");
        assert_eq!(parse(&shown).to_toml(), shown, "{api}");
    }
    assert_eq!(
        parse(&forward("a", "json")).warnings[0],
        "/etc/x.toml:4: forward.index: only api = \"elasticsearch\" or api = \"splunk\" uses it, and not \"json\"; take it out"
    );
    assert_eq!(parse(&forward("a/b/?c=d", "json")).forward[0].to[0].address.path(), "/b/?c=d");
    refused(
        &forward("a/b?c=d", "splunk"),
        "/etc/x.toml:2: forward.to: `https://a/b?c=d`: api = \"splunk\" has a path and a query of its own; write the address without `?`",
    );
}

#[test]
fn an_old_name_is_read_with_a_warning() {
    let forward = |keys: &str| format!("[[forward]]\nto = \"tcp://a\"\n{keys}");
    let config = parse(&forward("return-after = \"7s\""));
    assert_eq!(config.forward[0].failback_after, Duration::from_secs(7));
    assert_eq!(
        config.warnings,
        ["/etc/x.toml:3: forward.return-after: its name is `failback-after` now; this one is read until logferry 1.0"]
    );
    assert!(config.to_toml().contains("failback-after = \"7s\""), "{}", config.to_toml());
    assert_eq!(parse(&forward("failback-after = \"7s\"")).warnings, [""; 0]);
    refused(
        &forward("return-after = \"7s\"\nfailback-after = \"8s\""),
        "/etc/x.toml:3: forward.return-after: it is the old name of `failback-after`, which is there too; take `return-after` out",
    );
    refused(
        &forward("return-after = \"soon\""),
        "/etc/x.toml:3: forward.failback-after: `soon`: write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\"",
    );
}

#[test]
fn what_needs_a_restart_is_named() {
    let needs = |old: &str, new: &str| parse(old).needs_no_restart(&parse(new)).err().unwrap_or_default();
    for (section, key, value) in [
        ("spool", "dir", "/elsewhere"),
        ("spool", "sync", "always"),
        ("spool", "max-wait", "7s"),
        ("spool", "max-rate", "16MiB/s"),
        ("admin", "listen", "off"),
        ("admin", "containers", "7"),
        ("log", "level", "debug"),
        ("log", "format", "json"),
    ] {
        let says = needs("", &format!("[{section}]\n{key} = \"{value}\""));
        assert_eq!(says, format!("[{section}] {key} has changed, and that needs a restart"));
    }
    assert_eq!(
        needs(
            "",
            "hostname = \"x\"\ngrace = \"9s\"\nlatency = \"0\"\n[spool]\nmax-size = \"2GiB\"\nshed-from = \"off\""
        ),
        ""
    );
    assert_eq!(needs("", &format!("[admin]\nlisten = \"{DEFAULT_ADMIN}\"")), "", "what was so by default");
}

#[test]
fn a_relay_gathers_for_two_milliseconds_or_as_long_as_is_said() {
    let latency = |text: &str| parse(text).latency;
    assert_eq!(latency(""), Duration::from_millis(2));
    assert_eq!(latency("latency = \"0\""), Duration::ZERO);
    assert_eq!(latency("latency = \"500us\""), Duration::from_micros(500));
    assert_eq!(latency("latency = \"100ms\""), Duration::from_millis(100));
    for text in ["latency = \"0\"", "latency = \"500us\""] {
        assert_eq!(parse(&parse(text).to_toml()).latency, latency(text), "as `check` shows it");
    }
}

/// The name of a flag's variable is that of the flag in capitals. Each flag has a help text.
#[test]
fn flags_and_variables_are_called_alike() {
    let command = <Overrides as clap::Args>::augment_args(clap::Command::new("logferry"));
    let mut seen = 0;
    for argument in command.get_arguments() {
        let name = argument.get_long().expect("a long flag");
        let variable = format!("LOGFERRY_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().and_then(|variable| variable.to_str()), Some(&*variable), "{name}");
        assert!(argument.get_help().is_some() && argument.get_value_names().is_some(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 17, "flags");
}

/// Parts of the reference config in any combination: lines are enabled, left out, cut and joined.
fn likely_text() -> impl Strategy<Value = String> {
    let reference = include_str!("../../../docker/logferry.toml");
    let lines = reference.lines().map(|line| line.strip_prefix('#').unwrap_or(line).to_owned());
    let lines: Vec<String> = lines.filter(|line| line.starts_with(|c: char| c == '[' || c.is_lowercase())).collect();
    assert!(lines.len() > 50);
    let line = prop_oneof![
        8 => prop::sample::select(lines.clone()),
        1 => (prop::sample::select(lines), 0..40usize, "[ -~é\n]{0,3}").prop_map(|(line, at, text)| {
            let (start, end) = line.split_at(line.floor_char_boundary(at));
            format!("{start}{text}{end}")
        }),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_is_a_config_that_comes_back_or_says_where_it_is_wrong(text in likely_text()) {
        properties::any_text(&text);
    }

    #[test]
    fn what_is_a_value_comes_back(
        text in "((srv\\+)?(udp|tcp|tcp\\+tls|relp|relp\\+tls)://([a-z]{1,5}(\\.[a-z_]{1,3})?|[12]?[0-9](\\.0){3}|\\[::1\\])(:[0-9]{1,5})?)\
            |(unix|unixgram|file)://[a-z/{}]{0,9}|[a-zA-Z0-9:/._{}%+-]{0,20}"
    ) {
        properties::any_value(&text);
    }
}
