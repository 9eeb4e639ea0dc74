//! The messages for invalid configs: each problem on one line, with its place and what would be right.

use super::*;

/// Without the key everything is allowed. A list that has lost its last entry must not mean that.
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

/// The secret is never quoted, whatever the problem.
#[test]
fn a_shared_key_is_asked_for_where_the_forward_protocol_has_one() {
    let listen = |address: &str, keys: &str| format!("[[listen]]\naddress = \"{address}\"\n{keys}");
    let only = "only fluent:// and fluent+tls:// listeners ask for a shared key";
    for (address, keys, key, says) in [
        ("tcp://:1", "shared-key = \"${KEY}\"", "shared-key", only),
        ("fluent+unix:///run/f", "shared-key-file = \"/hunter2\"", "shared-key-file", only),
        ("gelf+tcp://:1", "users-file = \"/u\"", "users-file", only),
        (
            "fluent://:1",
            "users-file = \"/u\"",
            "users-file",
            "users are asked for beside a key; write `shared-key` or `shared-key-file`",
        ),
        (
            "fluent://:1",
            "shared-key = \"hunter2\"",
            "shared-key",
            "a secret does not stand in this file; write \"${VARIABLE}\" and set that variable, or write shared-key-file = \
             \"/run/secrets/shared-key\"",
        ),
    ] {
        let variable = |name: &str| (name == "KEY").then(|| "hunter2".to_owned());
        let text = listen(address, keys);
        let read = Config::parse(Some(Path::new("/etc/x.toml")), &text, &Overrides::default(), &variable);
        let said = read.expect_err(&text).to_string();
        assert_eq!(said, format!("/etc/x.toml:3: listen.{key}: {says}"), "{text}");
    }
    refused(
        &listen("fluent://:1", "shared-key = \"${SET}\"\nshared-key-file = \"/k\""),
        "/etc/x.toml:4: listen.shared-key-file: `/k`: `shared-key` is there too; take one of them out",
    );
}

/// A forward to NATS.
#[test]
fn what_is_wrong_with_a_forward_to_nats_is_said() {
    let forward = |keys: &str| format!("[[forward]]\nto = \"nats://bus\"\n{keys}");
    let to = |text: &str| parse_with(text, &Overrides::default()).expect("good").forward[0].to[0].clone();
    let address = |url: &str| to(&forward("").replace("nats://bus", url)).address.to_string();
    assert_eq!(address("nats://bus"), "nats://bus:4222");
    assert_eq!(address("nats+tls://bus:4223"), "nats+tls://bus:4223");
    assert_eq!(address("srv+nats://example.com"), "srv+nats://_nats._tcp.example.com");
    let DeliverySettings::Nats(nats) = to(&forward("creds-file = \"/c\"\nwindow = 7")).delivery else { panic!("NATS") };
    assert_eq!((nats.subject.as_str(), nats.window), ("logs.{host}.{name}", Some(7)));
    assert!(matches!(nats.login, NatsLogin::Creds(_)), "{nats:?}");
    let one = "a server knows us by `user`, by a token, by `nkey-file` or by `creds-file`; write one of them";
    for (text, says) in [
        (
            "[[forward]]\nto = [\"nats://bus\", \"tcp://a\"]",
            "2: forward.to: `tcp://a`: a forward to nats:// or nats+tls:// has no targets of another kind; give them a forward of their own",
        ),
        (
            "[[forward]]\nto = \"nats://u:hunter2@bus\"",
            "2: forward.to: `nats://***@bus`: a password does not stand in an address; write `user` and `password-file`",
        ),
        (
            &forward("subject = \"logs.>\""),
            "3: forward.subject: `logs.>`: a subject has no '>'; write tokens with dots between them, as in logs.{host}.{name}",
        ),
        (
            &forward("subject = \"{pod}\""),
            "3: forward.subject: `{pod}`: {pod} is no field; there are {host}, {name}, {image}, {image.tag}, {id}, {app}, {label.NAME}",
        ),
        (&forward("user = \"a\""), "3: forward.user: `a`: `user` needs `password-file`"),
        (&forward("nkey-file = \"/k\"\ncreds-file = \"/c\""), &format!("3: forward.nkey-file: `/k`: {one}")),
        (&forward("token-file = \"/t\"\ncreds-file = \"/c\""), &format!("4: forward.creds-file: `/c`: {one}")),
    ] {
        refused(text, &format!("/etc/x.toml:{says}"));
    }
}

/// A forward to a log store.
#[test]
fn what_is_wrong_with_a_forward_by_http_is_said() {
    let forward = |keys: &str| format!("[[forward]]\nto = \"https://es:9200/es\"\napi = \"elasticsearch\"\n{keys}");
    assert_eq!(
        parse_with(&forward(""), &Overrides::default()).expect("good").forward[0].to[0].to_string(),
        "https://es:9200/es"
    );
    for (text, says) in [
        (
            "[[forward]]\nto = \"http://es\"",
            "2: forward.to: `http://es`: http:// and https:// need `api`, what is spoken there: api = \"elasticsearch\"",
        ),
        (
            "[[forward]]\nto = [\"http://es\", \"tcp://a\"]\napi = \"elasticsearch\"",
            "2: forward.to: `tcp://a`: a forward to http:// or https:// has no targets of another kind; give them a forward of their own",
        ),
        (
            "[[forward]]\nto = \"http://u:hunter2@es\"\napi = \"elasticsearch\"",
            "2: forward.to: `http://***@es`: a password does not stand in an address; write `user` and `password-file`",
        ),
        (
            "[[forward]]\nto = \"http://es/?pipeline=a\"\napi = \"elasticsearch\"",
            "2: forward.to: `http://es/?pipeline=a`: api = \"elasticsearch\" has a path and a query of its own; write the address without `?`",
        ),
        (
            &forward("api = \"elastic\"").replacen("api = \"elasticsearch\"\n", "", 1),
            "3: forward.api: `elastic`: write \"elasticsearch\" or \"otlp\" or \"splunk\" or \"loki\" or \"datadog\" or \"newrelic\" or \"cloudwatch\" or \"json\"",
        ),
        (
            &forward("index = \"logs-{hst}\""),
            "4: forward.index: `logs-{hst}`: {hst} is no field; there are {host}, {name}, {image}, {image.tag}, {id}, {app}, {label.NAME}",
        ),
        (
            &forward("index = \"{host}-logs\""),
            "4: forward.index: `{host}-logs`: the name of an index with fields begins with a text, and not with a dot: \"logs-{host}\"",
        ),
        (&forward("index = \"Logs\""), "4: forward.index: `Logs`: the name of an index has small letters, and no 'L'"),
        (&forward("user = \"a\""), "4: forward.user: `a`: `user` needs `password-file`"),
        (&forward("password-file = \"/p\""), "4: forward.password: `/p`: a password needs `user`"),
        (
            &forward("token-file = \"/t\"\nuser = \"a\"\npassword-file = \"/p\""),
            "5: forward.user: `a`: a server knows us by `user` or by a token; take one of them out",
        ),
        (
            &forward("headers = [\"Authorization: Basic x\"]"),
            "4: forward.headers: `Authorization: ***`: a secret does not stand in this file; write `token-file`",
        ),
        (
            &forward("proxy = \"http://u:hunter2@p:3128\""),
            "4: forward.proxy: a password does not stand in this file; write proxy = \"${VARIABLE}\" and set that variable",
        ),
        (
            &forward("proxy = \"socks5://p\""),
            "4: forward.proxy: `socks5://p`: no socks5:// is spoken with proxies; write http://proxy.example.com:3128, \"off\" or \"auto\"",
        ),
        (
            &forward("proxy = \"http://p:3128\"").replace("https://es:9200/es", "srv+https://es.example.com"),
            "4: forward.proxy: a proxy needs the server's name and port, and srv+https://_https._tcp.es.example.com has them in SRV records",
        ),
        (&forward("headers = [\"Host: a\"]"), "4: forward.headers: `Host: a`: `Host` is ours to write"),
        (&forward("fields = [\"env\"]"), "4: forward.fields: `env`: write a field as \"env=prod\""),
    ] {
        refused(text, &format!("/etc/x.toml:{says}"));
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
        "/etc/x.toml:2: unknown key `elsewhere`; known here: listen, address-file, ready, tail, tail-token-file, containers",
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
        &format!("{line}syslog.sd-id: `logferry@32473`: the relay uses this name for its own log lines"),
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
fn yaml_is_recognised() {
    let says = "this is YAML, and the config is TOML: write `[[listen]]`";
    for (text, line) in [
        ("# relay\n\nlisten:\n  - address: udp://0.0.0.0:514\n", 3),
        ("---\nlisten: []", 1),
        ("hostname: node-7\n", 1),
        ("- listen", 1),
    ] {
        let error = Config::parse(Some(Path::new("/etc/x.toml")), text, &Overrides::default(), &|_| None);
        let error = error.expect_err(text).to_string();
        assert!(error.starts_with(&format!("/etc/x.toml:{line}: {says}")) && error.lines().count() == 1, "{error}");
    }
    let error =
        Config::parse(None, "hostname = a:b", &Overrides::default(), &|_| None).expect_err("no TOML").to_string();
    assert!(!error.contains("YAML"), "{error}");
}

#[test]
fn lines_are_not_shown_to_whoever_comes() {
    let says = "/etc/x.toml:3: admin.tail: `true`: others than this machine reach [admin] listen; write `tail-token-file = \
                \"/run/secrets/tail-token\"` too, or listen on 127.0.0.1";
    refused("[admin]\nlisten = \"0.0.0.0:9514\"\ntail = true", says);
    refused("[admin]\nlisten = \"[::]:9514\"\ntail = true", says);
    for good in
        ["listen = \"[::1]:9514\"\ntail = true", "listen = \"0.0.0.0:9514\"\ntail-token-file = \"/t\"\ntail = true"]
    {
        assert!(Config::parse(None, &format!("[admin]\n{good}"), &Overrides::default(), &|_| None).is_ok(), "{good}");
    }
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
        "/etc/x.toml:2: listen.address: `udp://0.0.0.0:1`: `cert` and `key` belong to tcp://, tcp+tls://, relp+tls://, fluent+tls://, gelf+tls://, splunk+https:// and journal+https:// listeners",
    );
    let twins = "[[forward]]\nname = \"a\"\nto = \"stdout:\"\n[[forward]]\nname = \"a\"\nto = \"stdout:\"";
    refused(twins, "/etc/x.toml:5: forward.name: `a`: another forward has this name already");
}

#[test]
fn what_an_address_cannot_use_is_refused() {
    for (address, keys, says) in [
        (
            "tcp",
            "token-file = \"/t\"",
            "listen.token-file: only splunk+http:// and splunk+https:// listeners ask for a token",
        ),
        (
            "journal+http",
            "from = \"docker\"",
            "listen.from: `docker`: a journal has the lines of all programs of a host; take it out",
        ),
        (
            "splunk+http",
            "multiline = \"indented\"",
            "listen.multiline: `indented`: each message is answered for itself here, and none is joined",
        ),
        (
            "splunk+http",
            "cert = \"/c\"\nkey = \"/k\"",
            "listen.address: `splunk+http://0.0.0.0:1`: `cert` and `key` belong to",
        ),
    ] {
        let text = format!("[[listen]]\naddress = \"{address}://0.0.0.0:1\"\n{keys}");
        let error = parse_with(&text, &Overrides::default()).expect_err(keys).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn labels_of_loki_are_few_and_have_names() {
    let forward = |keys: &str| format!("[[forward]]\nto = \"https://logs\"\n{keys}");
    let many = (0..12).map(|number| format!("\"f{number}=x\"")).collect::<Vec<_>>().join(", ");
    for (keys, says) in [
        (
            "api = \"loki\"\nlabels = [\"job\", \"container_id\"]",
            "4: forward.labels: `container_id`: write \"job\" or \"host\" or \"service_name\" or \"level\" or \"facility\" or \"source\": others have \
             too many values, and are structured metadata",
        ),
        (
            "api = \"loki\"\nfields = [\"env=prod\", \"a.b=c\"]",
            "4: forward.fields: `a.b=c`: Loki takes it as a label, whose name has letters, digits and _ alone, and no digit in front",
        ),
        (
            &format!("api = \"loki\"\nfields = [{many}]"),
            "4: forward.fields: `f10=x`: `labels` and `fields` are at most 14 together: Loki takes 15 labels, and one is for lines that are too old",
        ),
        ("api = \"loki\"\nfields = [\"env\"]", "4: forward.fields: `env`: write a field as \"env=prod\""),
    ] {
        refused(&forward(keys), &format!("/etc/x.toml:{says}"));
    }
    let fewer = &many[..many.rfind(',').expect("several")];
    for keys in [
        "api = \"elasticsearch\"\nfields = [\"a.b=c\"]",
        "api = \"otlp\"\nfields = [\"deployment.environment.name=prod\"]",
        &format!("api = \"loki\"\nlabels = [\"job\", \"host\", \"source\"]\nfields = [{fewer}]"),
    ] {
        parse_with(&forward(keys), &Overrides::default()).expect(keys);
    }
}

#[test]
fn what_is_wrong_with_a_forward_to_aws_is_said() {
    let forward = |to: &str, keys: &str| format!("[[forward]]\nto = \"{to}\"\napi = \"cloudwatch\"\n{keys}");
    let (named, unnamed) = ("https://logs.eu-central-1.amazonaws.com", "http://localhost:5000");
    let name = "a name has from 1 to 512 characters:";
    for (to, keys, says) in [
        (named, "", "1: [[forward]] has no `group`; write group = \"/docker/{host}\", the log group"),
        (
            unnamed,
            "group = \"g\"",
            "1: [[forward]] has no `region`; write region = \"eu-central-1\", unless the server's name has it (logs.REGION.amazonaws.com) or AWS_REGION is set",
        ),
        (named, "group = \"a b\"", &format!("4: forward.group: `a b`: {name} letters, digits and _-/.#")),
        (named, "group = \"g\"\nstream = \"a:b\"", &format!("5: forward.stream: `a:b`: {name} no : and no *")),
        (
            named,
            "group = \"{hst}\"",
            "4: forward.group: `{hst}`: {hst} is no field; there are {host}, {name}, {image}, {image.tag}, {id}, {app}, {label.NAME}",
        ),
        (named, "group = \"g\"\nregion = \"EU\"", "5: forward.region: `EU`: write a region such as \"eu-central-1\""),
        (named, "group = \"g\"\naccess-key = \"A\"", "5: forward.access-key: `A`: it needs `secret-key-file`"),
        (named, "group = \"g\"\nsecret-key-file = \"/s\"", "5: forward.secret-key: it needs `access-key`"),
        (
            named,
            "group = \"g\"\naccess-key = \"A\"\nsecret-key = \"hunter2\"",
            "6: forward.secret-key: a secret does not stand in this file; write \"${VARIABLE}\" and set that variable, or write secret-key-file = \
             \"/run/secrets/secret-key\"",
        ),
    ] {
        let error = parse_with(&forward(to, keys), &Overrides::default()).expect_err(keys).to_string();
        assert_eq!(error, format!("/etc/x.toml:{says}"));
    }
    for (to, keys) in [
        (named, "group = \"/docker/{host}\"\nstream = \"{name}/{id}\""),
        (unnamed, "group = \"g\"\nregion = \"eu-west-1\""),
    ] {
        parse_with(&forward(to, keys), &Overrides::default()).expect(keys);
    }
    let unused = parse(&forward(named, "group = \"g\"\ntoken-file = \"/t\"")).warnings;
    assert!(unused[0].contains("forward.token-file: only api = \"elasticsearch\" or "), "{unused:?}");
}

#[test]
fn what_is_wrong_with_a_bucket_is_said() {
    let forward = |to: &str, keys: &str| format!("[[forward]]\nto = \"s3://{to}\"\n{keys}");
    let region = "region = \"eu-central-1\"";
    for name in ["ab", "-ab", "ab.", "My-bucket", "a_b", "a..b", "127.0.0.1", "bucket:443", &"x".repeat(64)] {
        refused(
            &forward(name, region),
            &format!(
                "/etc/x.toml:2: forward.to: `s3://{name}`: the name of a bucket has 3 to 63 small letters, digits, dots and dashes; write \
                 s3://my-bucket/prefix, and its server as `endpoint`"
            ),
        );
    }
    for (to, keys, says) in [
        ("bucket/a?b", region, "2: forward.to: `s3://bucket/a?b`: the prefix of a bucket's keys has no `?`"),
        (
            "bucket",
            "",
            "2: forward.to: `s3://bucket`: it needs region = \"eu-central-1\", unless AWS_REGION is set; a server that is not AWS' has one too, often \"us-east-1\"",
        ),
        (
            "bucket",
            "region = \"us-east-1\"\nendpoint = \"minio\"",
            "4: forward.endpoint: `minio`: write the server's URL, https://minio.example.com, without a bucket",
        ),
        ("bucket", &format!("{region}\naccess-key = \"A\""), "4: forward.access-key: `A`: it needs `secret-key-file`"),
    ] {
        refused(&forward(to, keys), &format!("/etc/x.toml:{says}"));
    }
    let unused = parse(&forward("bucket", &format!("{region}\nbatch = \"1MiB\""))).warnings;
    assert!(unused[0].contains("forward.batch: forward central has no target that uses it (http://"), "{unused:?}");
}

/// A bucket is in the host name of AWS' server, as in its certificate, and in the path of other servers.
#[test]
fn a_bucket_has_its_server() {
    let check = |to: &str, keys: &str, expected: &str| {
        let config = parse(&format!("[[forward]]\nto = \"{to}\"\n{keys}"));
        assert_eq!(config.forward[0].to[0].address.to_string(), expected);
        assert_eq!(config.warnings, [""; 0]);
        let shown = config.to_toml();
        assert!(shown.contains(to) && !shown.contains("\napi = "), "{shown}");
        assert_eq!(parse(&shown).to_toml(), shown);
    };
    let region = "region = \"eu-central-1\"";
    check("s3://logs/docker", region, "https://logs.s3.eu-central-1.amazonaws.com:443/docker");
    check("s3://logs", region, "https://logs.s3.eu-central-1.amazonaws.com:443");
    check("s3://a.logs/docker/", region, "https://s3.eu-central-1.amazonaws.com:443/a.logs/docker/");
    check("s3://logs", "region = \"cn-north-1\"", "https://logs.s3.cn-north-1.amazonaws.com.cn:443");
    check(
        "s3://logs/docker",
        &format!("{region}\nendpoint = \"http://127.0.0.1:9000/\""),
        "http://127.0.0.1:9000/logs/docker",
    );
    let endpoint = "endpoint = \"https://s3.eu-west-3.amazonaws.com\"\nca = \"/ca.pem\"";
    check("s3://logs", endpoint, "https://s3.eu-west-3.amazonaws.com:443/logs");
}

#[test]
fn a_rule_about_senders_needs_lines_that_name_them() {
    let listener = |keys: &str| format!("[[listen]]\naddress = \"udp://0.0.0.0:1\"\n{keys}");
    let rule = "[[forward]]\nto = \"stdout:\"\nmatch = { peer = [\"10.0.0.0/8\", \"!10.1.0.0/16\"] }";
    refused(
        &(listener("") + rule),
        "/etc/x.toml:5: forward.match.peer: `10.0.0.0/8`: no [[listen]] has `peer = true`, so that most lines do not say who has sent \
         them; write it at the listener that they come in by",
    );
    parse(&(listener("peer = true\n") + rule));
    // `[[drop]]` is applied before there is a line, when the peer is still known.
    parse(&(listener("") + "[[drop]]\npeer = \"10.0.0.0/8\""));
    refused(
        "[[drop]]\npeer = \"10.1.2.3/8\"",
        "/etc/x.toml:2: drop.peer: `10.1.2.3/8`: the range is 10.0.0.0/8, the address alone 10.1.2.3/32; write which is meant",
    );
}

#[test]
fn a_proxy_has_an_address() {
    let listener = |address: &str, keys: &str| format!("[[listen]]\naddress = \"{address}\"\n{keys}");
    refused(
        &listener("unix:///run/x.sock", "proxy-protocol = true"),
        "/etc/x.toml:3: listen.proxy-protocol: `true`: proxies speak so to listeners with an IP address, and to none with a path",
    );
    refused(
        &listener("tcp://0.0.0.0:1", "client-allow = \"10.0.0.0/8\""),
        "/etc/x.toml:3: listen.client-allow: `10.0.0.0/8`: it is about what a proxy tells and needs `proxy-protocol = true`; \
         without a proxy write `allow`",
    );
    parse(&listener("relp://0.0.0.0:1", "proxy-protocol = true\nclient-allow = \"10.0.0.0/8\"\nallow = \"192.0.2.1\""));
}

#[test]
fn marks_are_believed_until_something_depends_on_them() {
    let marks = |listener: &str, more: &str| {
        let text = format!("[[listen]]\n{listener}\n{more}[[forward]]\nto = \"stdout:\"");
        let config = parse(&text);
        assert_eq!(parse(&config.to_toml()).listen, config.listen);
        config.listen[0].marks.expect("decided")
    };
    let mutual = "address = \"tcp+tls://0.0.0.0:1\"\ncert = \"c\"\nkey = \"k\"\nclient-ca = \"a\"";
    let tls = "address = \"tcp+tls://0.0.0.0:1\"\ncert = \"c\"\nkey = \"k\"";
    let (tcp, relp) = ("address = \"tcp://0.0.0.0:1\"", "address = \"relp://0.0.0.0:1\"");
    let named = "[[listen]]\naddress = \"udp://0.0.0.0:1\"\nname = \"a\"\n";
    for (more, of_strangers) in [
        ("", Marks::Keep),
        ("[[drop]]\nhost = \"a\"\napp = \"b\"\nseverity = \"debug\"\n", Marks::Keep),
        ("[[drop]]\nname = \"a\"\n", Marks::Replace),
        ("[[drop]]\npeer = \"10.0.0.0/8\"\n", Marks::Replace),
        (named, Marks::Replace),
    ] {
        assert_eq!([mutual, relp].map(|listener| marks(listener, more)), [Marks::Keep; 2], "{more}");
        assert_eq!([tls, tcp].map(|listener| marks(listener, more)), [of_strangers; 2], "{more}");
        assert_eq!(marks(&format!("{tcp}\nmarks = \"keep\""), more), Marks::Keep, "{more}");
        assert_eq!(marks(&format!("{relp}\nmarks = \"replace\""), more), Marks::Replace, "{more}");
    }
    assert_eq!(marks(&format!("{tcp}\npeer = true"), ""), Marks::Replace);
    assert_eq!(marks(&format!("{relp}\npeer = true"), ""), Marks::Keep);
    assert_eq!(marks(&format!("{tcp}\nfrom = \"docker\""), ""), Marks::Replace);
    refused(
        "[[listen]]\naddress = \"tcp://0.0.0.0:1\"\nfrom = \"docker\"\nmarks = \"keep\"",
        "/etc/x.toml:4: listen.marks: `keep`: where only Docker sends (`from`) there are no marks of relays; take it out, or \
         write \"replace\"",
    );
}

#[test]
fn a_host_of_senders_is_a_word_or_a_name() {
    let listener = |address: &str, keys: &str| format!("[[listen]]\naddress = \"{address}\"\n{keys}");
    for (word, source) in [
        ("message", HostSource::Message),
        ("address", HostSource::Address),
        ("name", HostSource::Name),
        ("dmz-7.example.com", HostSource::Text("dmz-7.example.com".to_owned())),
    ] {
        let config = parse(&listener("udp://0.0.0.0:1", &format!("host = \"{word}\"")));
        assert_eq!(config.listen[0].host, source);
    }
    refused(
        &listener("udp://0.0.0.0:1", "host = \"Adress\""),
        "/etc/x.toml:3: listen.host: `Adress`: write \"address\", or a host name that is not nearly that word",
    );
    refused(
        &listener("udp://0.0.0.0:1", "host = \"the switch\""),
        "/etc/x.toml:3: listen.host: `the switch`: write \"message\", \"address\", \"name\", or one host name for all \
         senders: a host name is 1 to 255 printable ASCII characters without blanks",
    );
    let unix = "unix:///run/x.sock";
    for (keys, key) in [("peer = true", "peer: `true`"), ("host = \"name\"", "host: `name`")] {
        refused(
            &listener(unix, keys),
            &format!("/etc/x.toml:3: listen.{key}: senders of unix:// and unixgram:// have no address"),
        );
    }
    parse(&listener(unix, "host = \"journal\"\npeer = false"));
}

#[test]
fn zones_have_names() {
    let listener = |address: &str, keys: &str| format!("[[listen]]\naddress = \"{address}\"\n{keys}");
    let keys = "time-zone = \"europe/berlin\"\ntime-zones = [{ from = \"10.0.0.0/8\", zone = \"Asia/Kolkata\" }]";
    let config = parse(&listener("udp://0.0.0.0:1", keys));
    assert_eq!(config.listen[0].time_zone.as_ref().map(ToString::to_string).as_deref(), Some("Europe/Berlin"));
    assert_eq!(parse(&config.to_toml()).listen, config.listen);
    let bad = "write UTC, an offset such as +05:30, or a name such as Europe/Berlin";
    refused(
        "[syslog]\ntime-zone = \"CEST\"",
        &format!("/etc/x.toml:2: syslog.time-zone: `CEST`: \"CEST\" is no time zone: {bad}"),
    );
    refused(
        &listener("udp://0.0.0.0:1", "time-zones = [{ from = \"10.0.0.0/8\" }]"),
        "/etc/x.toml:3: [[listen.time-zones]] has no `zone`; write zone = \"Europe/Berlin\"",
    );
    refused(
        &listener("udp://0.0.0.0:1", "time-zones = [{ zone = \"UTC\" }]"),
        "/etc/x.toml:3: [[listen.time-zones]] has no `from`; write from = \"10.0.0.0/8\"",
    );
    refused(
        &listener("unix:///run/x.sock", "time-zones = [{ from = \"10.0.0.0/8\", zone = \"UTC\" }]"),
        "/etc/x.toml:3: listen.time-zones.from: `10.0.0.0/8`: senders of unix:// and unixgram:// have no address; `time-zone` is the \
         zone of them all",
    );
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
fn shapes_that_cannot_be_meant_are_refused() {
    let forward = "[[forward]]\nto = \"stdout:\"\n";
    for (keys, says) in [
        ("prefix = \"a_\"", "prefix: `a_`: nothing is parsed; write parse = \"json\", or another form, beside it"),
        ("time-from = \"t\"", "time-from: `t`: nothing is parsed; write parse = \"json\", or another form, beside it"),
        ("parse = \"regex\"", "parse: `regex`: \"regex\" needs `parse-pattern`"),
        ("parse-pattern = '(?P<a>x)'", "parse-pattern: `(?P<a>x)`: it is for parse = \"regex\""),
        (
            "parse = \"xml\"",
            "parse: `xml`: write \"json\", \"logfmt\", \"regex\" with `parse-pattern`, \"label\", or one of nginx, nginx-error, \
             apache-error, klog, go, java, python, postgresql, redis, haproxy",
        ),
        ("severity = \"loud\"", "severity: `loud`: write \"sender\" or \"guess\""),
    ] {
        refused(&format!("{forward}{keys}"), &format!("/etc/x.toml:3: forward.{says}"));
    }
    refused(
        &format!("{forward}parse = \"regex\"\nparse-pattern = 'x'"),
        "/etc/x.toml:4: forward.parse-pattern: `x`: the pattern names no group; write (?P<name>…) around what is to be a field",
    );
    refused(
        &format!("{forward}parse = \"json\"\nrename = {{ a = \"\" }}"),
        "/etc/x.toml:4: forward.rename: `a=`: a field's name has 1 to 128 bytes, and no control characters",
    );
    refused(
        &format!("{forward}match = {{ field = {{ status = \">=high\" }} }}"),
        "/etc/x.toml:3: forward.match.field: `status=>=high`: status: `>=high` compares with no number",
    );
    refused(
        &format!("{forward}match = {{ message-regex = \"(\" }}"),
        "/etc/x.toml:3: forward.match.message-regex: the pattern `(` cannot be used: found open group without closing ')'",
    );
    refused(
        &format!("{forward}mask = {{ with = \"-\" }}"),
        "/etc/x.toml:3: forward.mask: it says nothing of what to hide; write `pattern` or `known`",
    );
    refused(
        &format!("{forward}mask = {{ pattern = \".*\" }}"),
        "/etc/x.toml:3: forward.mask.pattern: `.*`: the pattern is found in an empty text, and so everywhere",
    );
    refused(
        &format!("{forward}mask = {{ known = \"secret\" }}"),
        "/etc/x.toml:3: forward.mask.known: `secret`: write card-number, email, bearer-token, aws-key, private-key; `pattern` finds anything else",
    );
    refused(
        &format!("{forward}rename = {{}}"),
        "/etc/x.toml:3: forward.rename: an empty table; leave the key out, or name something",
    );
}

#[test]
fn masks_of_all_lines_that_cannot_be_meant_are_refused() {
    for (text, expected) in [
        ("[[mask]]\n", "/etc/x.toml:1: [[mask]]: it says nothing of what to hide; write `pattern` or `known`"),
        (
            "[[mask]]\nat = \"intake\"\n",
            "/etc/x.toml:1: [[mask]]: it says nothing of what to hide; write `pattern` or `known`",
        ),
        (
            "[[mask]]\npattern = \"(\"\n",
            "/etc/x.toml:2: mask.pattern: `(`: the pattern cannot be used: found open group without closing ')'",
        ),
        (
            "[[mask]]\nknown = \"email\"\nat = \"spool\"\n",
            "/etc/x.toml:3: mask.at: `spool`: write \"forward\" or \"intake\"",
        ),
    ] {
        refused(text, expected);
    }
    let sections = "[[mask]]\nknown = \"email\"\n".repeat(65);
    refused(&sections, "/etc/x.toml:129: [[mask]]: at most 64 sections are allowed");
}

#[test]
fn samples_and_repeats_that_cannot_be_meant_are_refused() {
    for (text, expected) in [
        ("[[sample]]\nname = \"a\"\n", "/etc/x.toml:1: [[sample]] has no `one-of`; write one-of = 10"),
        ("[[sample]]\none-of = 0\n", "/etc/x.toml:2: sample.one-of: `0`: write a whole number above zero"),
        (
            "[[sample]]\none-of = 2\nmessage-regex = \"(\"\n",
            "/etc/x.toml:3: sample.message-regex: the pattern `(` cannot be used: found open group without closing ')'",
        ),
        (
            "[[sample]]\none-of = 2\nlistener = \"dmz\"\n",
            "/etc/x.toml:3: sample.listener: `dmz`: no [[listen]] has this `name`; there are: none has one",
        ),
        (
            "[[listen]]\naddress = \"relp://127.0.0.1:0\"\nrepeat = \"10s\"\n",
            "/etc/x.toml:3: listen.repeat: `10s`: RELP's numbers stand for lines, and none is joined; write it at the listener that takes them first",
        ),
        (
            "[[listen]]\naddress = \"udp://127.0.0.1:0\"\nrepeat = \"2days\"\n",
            "/etc/x.toml:3: listen.repeat: `2days`: write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\"",
        ),
    ] {
        refused(text, expected);
    }
    let sections = "[[sample]]\none-of = 2\n".repeat(65);
    refused(&sections, "/etc/x.toml:129: [[sample]]: at most 64 rules are allowed");
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let forward = "[[forward]]\nto = \"stdout:\"\nmatch =";
    refused(
        "[[drop]]\n",
        "/etc/x.toml:1: [[drop]]: it says nothing of what to drop; write image, name, app, host, peer, listener, driver, facility, severity, message, message-regex or field",
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

/// All problems are reported with their lines, in the order of the file. Problems that only follow from others are not.
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

/// A value of a kind that no key has.
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
fn a_relay_does_not_gather_for_long() {
    for value in ["101ms", "1s", "2", "fast", "-1ms", "off"] {
        let says = format!("1: latency: `{value}`: write a time up to 100ms, with its unit: \"2ms\"; \"0\" for none");
        all_refused(&format!("latency = \"{value}\""), &[&says]);
    }
}

#[test]
fn a_key_and_its_misspelling_are_two() {
    all_refused(
        "grace = \"1s\"\ngraze = \"x\"\nstrange = { bar = 1 }",
        &[
            "2: unknown key `graze`; did you mean `grace`?",
            "3: unknown key `strange`; known here: hostname, fields, grace, latency, syslog, spool, resolve, admin, log, listen, drop, sample, mask, forward",
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

#[test]
fn fields_that_are_added_are_ones_that_can_be_carried() {
    let choices = "{host}, {name}, {image}, {image.tag}, {id}, {app}, {label.NAME}";
    for (text, says) in [
        (
            "fields = { \"\" = \"x\" }",
            "1: fields: `=x`: no destination can carry this name; write 1 to 128 bytes without control characters",
        ),
        (
            "[[listen]]\naddress = \"udp://[::]:514\"\nfields = { env = \"prod\", \"a\\tb\" = \"x\" }",
            "3: listen.fields: `a\\tb=x`: no destination can carry this name; write 1 to 128 bytes without control characters",
        ),
        ("fields = { \"a=b\" = \"x\" }", "1: fields: a name has no `=` here"),
        ("fields = [\"a=1\", \"b=2\", \"a=3\"]", "1: fields: `a=3`: another field has this name; take one of them out"),
        (
            "fields = { env = \"{pod}\" }",
            &format!("1: fields: `env={{pod}}`: {{pod}} is no field; there are {choices}; a brace is written {{{{"),
        ),
        (
            "[[forward]]\nto = \"tcp://a:1\"\nfields = { env = \"a{\" }",
            &format!(
                "3: forward.fields: `env=a{{`: a {{ begins no field; there are {choices}, and a brace is written {{{{"
            ),
        ),
        (
            "[[forward]]\nto = \"file:///a/{label.a/b}\"",
            "2: forward.to: `file:///a/{label.a/b}`: a path has no field with / in its name; write {label.x} and fields = { x = \"{label.a/b}\" }",
        ),
    ] {
        refused(text, &format!("/etc/x.toml:{says}"));
    }
}
