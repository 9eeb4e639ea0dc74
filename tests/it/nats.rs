//! NATS JetStream, with a real server: the content of each stored line, and that each line is stored once.

use std::fs;

use serde_json::{Value, json};

use super::elasticsearch::rejected;
use crate::support::dns::NAME;
use crate::support::http::status;
use crate::support::nats::Stored;
use crate::support::program::SIGUSR2;
use crate::support::{
    Certs, NameServer, NatsClient, NatsCluster, NatsKey, NatsServer, NatsUser, Relay, Setup, eventually, says,
};

fn to(server: &NatsServer) -> Setup {
    to_with(&server.url(), "")
}

fn to_with(url: &str, keys: &str) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(url, keys)
}

/// Waits until the relay counts `lines` lines as delivered.
fn delivers(relay: &Relay, lines: usize) {
    relay.has_delivered(lines, 0);
}

/// Panics unless the stream has each of these numbers exactly once.
#[track_caller]
fn are_once(stored: &[Stored], numbers: std::ops::Range<usize>) {
    let mut found: Vec<usize> = stored.iter().map(Stored::number).collect();
    found.sort_unstable();
    assert_eq!(found.len(), numbers.len(), "{found:?}");
    assert!(found.iter().copied().eq(numbers), "{found:?}");
}

#[test]
fn a_line_is_a_message_under_its_number() {
    let Some(server) = NatsServer::start("") else { return };
    let mut client = server.client();
    client.makes_stream("logs.>", json!({}));
    let relay = to(&server).start();
    relay.door().connect().send(
        b"<27>1 2026-11-29T12:00:00.123456+01:00 host1.example.com web 0123456789ab - \
          [docker@32473 image=\"web:1.2\" name=\"proj-web-1\" id=\"0123456789ab\"] it broke\n<14>1 - - - - - - bare\n",
    );
    delivers(&relay, 2);
    let stored = client.stored();
    assert_eq!(stored[0].subject, "logs.host1_example_com.proj-web-1");
    // The message ID: the spool's ID, the forward, the spool's session, and the line.
    let opening = stored[0].id.strip_suffix("-0").unwrap_or_else(|| panic!("{}", stored[0].id));
    assert!(opening.contains("/central-") && stored[1].id == format!("{opening}-1"), "{stored:?}");
    let record = &stored[0].record;
    assert_eq!((&record["message"], &record["host"]), (&json!("it broke"), &json!("host1.example.com")));
    assert_eq!(record["container_name"], "proj-web-1", "{record}");
    // A message without a host gets the relay's host name, and a message without a program has `-`.
    assert!(stored[1].subject.starts_with("logs.") && stored[1].subject.ends_with(".-"), "{}", stored[1].subject);
    assert_eq!(stored[1].record["message"], "bare");
    relay.stops();
}

/// The server is away, and the relay is killed with a backlog and again during delivery: each line is stored once, in order.
#[test]
fn a_killed_relay_delivers_each_line_once() {
    let Some(mut server) = NatsServer::on("127.71.0.1", "") else { return };
    server.client().makes_stream("logs.>", json!({}));
    server.kill();
    let setup = to_with(&server.url(), "window = 64");
    let relay = setup.start();
    says(&relay, 0..3000);
    relay.counts("spool_spooled_total", 3000);
    relay.kill();
    let relay = setup.start();
    server.starts_again();
    let mut client = server.client();
    eventually("some are there", || (client.count() > 100).then_some(()));
    relay.kill();
    let relay = setup.start();
    relay.counts("forward_pending", 0);
    let stored = client.stored();
    are_once(&stored, 0..3000);
    assert!(stored.iter().map(Stored::number).is_sorted(), "in order");
    assert_eq!(relay.metrics().sum("forward_rejected_total"), 0);
    relay.stops();
}

/// A server that is killed while lines come: it recognizes lines that it had stored.
#[test]
fn a_killed_server_has_each_line_once() {
    let Some(mut server) = NatsServer::on("127.71.0.2", "") else { return };
    server.client().makes_stream("logs.>", json!({}));
    let relay = to(&server).start();
    says(&relay, 0..1000);
    relay.counts_up_to("forward_delivered_total", 1);
    server.kill();
    says(&relay, 1000..2000);
    server.starts_again();
    says(&relay, 2000..2100);
    delivers(&relay, 2100);
    are_once(&server.client().stored(), 0..2100);
    relay.stops();
}

/// No stream has this subject: the relay reports it, keeps the lines, and continues once there is a stream.
#[test]
fn lines_wait_for_their_stream() {
    let Some(server) = NatsServer::start("") else { return };
    let setup = to_with(&server.url(), "subject = \"{app}.lines\"");
    let relay = setup.start();
    says(&relay, 0..500);
    relay.says("no JetStream stream takes the subject web.lines");
    relay.counts("forward_stopped", 1);
    let mut client = server.client();
    client.makes_stream("web.*", json!({}));
    delivers(&relay, 500);
    relay.counts("forward_stopped", 0);
    are_once(&client.stored(), 0..500);
    assert!(rejected(&relay, &setup).is_empty());
    relay.stops();
}

/// If one subject has a stream and another has none, the log does not report each recovery.
#[test]
fn one_subject_without_a_stream_stops_those_behind_it() {
    let Some(server) = NatsServer::start("") else { return };
    let mut client = server.client();
    client.makes_stream("logs.*.web", json!({}));
    let relay = to(&server).start();
    relay.door().connect().send(b"<14>1 - h other - - - 0\n");
    relay.counts("forward_stopped", 1);
    says(&relay, 1..20);
    eventually("it tries again and again", || (relay.metrics().sum("forward_connects_total") > 3).then_some(()));
    assert!(!relay.stderr().contains("central: the collector takes lines again"), "{}", relay.stderr());
    client.asks(
        "$JS.API.STREAM.UPDATE.LOGS",
        &json!({"name": "LOGS", "subjects": ["logs.>"], "storage": "file", "num_replicas": 1}),
    );
    delivers(&relay, 20);
    are_once(&client.stored(), 0..20);
    relay.stops();
}

/// A message above the limit of the stream, and a message above the limit of the server, are dead letters. The rest arrives.
#[test]
fn what_is_too_large_is_a_dead_letter() {
    let Some(server) = NatsServer::start("max_payload: 20000") else { return };
    let mut client = server.client();
    client.makes_stream("logs.>", json!({"max_msg_size": 10000}));
    let setup = to(&server);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut wire = relay.door().connect();
    for length in [12_000, 30_000] {
        wire.send(format!("<14>1 - - - - - - {}\n", "x".repeat(length)).as_bytes());
    }
    // The relay may read two connections in any order.
    relay.counts("spool_spooled_total", 12);
    says(&relay, 10..20);
    relay.counts("forward_pending", 0);
    let letters = rejected(&relay, &setup);
    let whys: Vec<&str> = letters.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(letters.len(), 2, "{whys:?}");
    assert!(whys.contains(&"message size exceeds maximum allowed (10054)"), "{whys:?}");
    assert!(whys.iter().any(|why| why.starts_with("it has 30") && why.ends_with("the server takes 20000")), "{whys:?}");
    are_once(&client.stored(), 0..20);
    relay.balances(0);
    relay.stops();
}

/// A full stream that discards new messages: lines wait, and the relay reports it.
#[test]
fn lines_wait_for_room_in_a_stream() {
    let Some(server) = NatsServer::start("") else { return };
    let mut client = server.client();
    client.makes_stream("logs.>", json!({"max_msgs": 50, "discard": "new"}));
    let relay = to(&server).start();
    says(&relay, 0..120);
    relay.says("the collector cannot take lines now: maximum messages exceeded (10077)");
    relay.fails_because("maximum messages exceeded");
    let mut all = Vec::new();
    while all.len() < 120 {
        eventually("the stream is full, or has the rest", || {
            (client.count() as usize == 50.min(120 - all.len())).then_some(())
        });
        all.extend(client.stored());
        client.purges();
    }
    delivers(&relay, 120);
    are_once(&all, 0..120);
    relay.stops();
}

/// A server with authentication: by a token, a password, a key, or a JWT.
#[test]
fn a_server_is_told_who_we_are() {
    let key = NatsKey::new('U');
    let conf = format!(
        "authorization {{ users: [ {{ user: relay, password: \"pass word\" }}, {{ nkey: {} }} ] }}",
        key.public
    );
    let Some(server) = NatsServer::start(&conf) else { return };
    let login = |_: &str| json!({"user": "relay", "pass": "pass word"});
    let mut client = server.client_as(login);
    client.makes_stream("logs.>", json!({}));
    let by_password = Setup::new().listen("tcp://127.0.0.1:0").variable("NATS_PASSWORD", "pass word");
    let by_password = by_password.forward_with(&server.url(), "user = \"relay\"\npassword = \"${NATS_PASSWORD}\"");
    knows(&by_password, &mut client, 0..10);
    let by_key = Setup::new().listen("tcp://127.0.0.1:0");
    fs::write(by_key.path("key"), format!("{}\n", key.seed)).expect("written");
    let by_key = by_key.forward_with(&server.url(), "nkey-file = \"{dir}/key\"");
    knows(&by_key, &mut client, 10..20);
    let Some(server) = NatsServer::start("authorization { token: \"secret\" }") else { return };
    let mut client = server.client_as(|_| json!({"auth_token": "secret"}));
    client.makes_stream("logs.>", json!({}));
    let by_token = Setup::new().listen("tcp://127.0.0.1:0").variable("NATS_TOKEN", "secret");
    knows(&by_token.forward_with(&server.url(), "token = \"${NATS_TOKEN}\""), &mut client, 0..10);
}

#[track_caller]
fn knows(setup: &Setup, client: &mut NatsClient, numbers: std::ops::Range<usize>) {
    let relay = setup.start();
    says(&relay, numbers.clone());
    delivers(&relay, numbers.len());
    are_once(&client.stored()[numbers.start..], numbers);
    relay.stops();
}

/// Accounts whose users have JWTs, like `nsc` with its credentials files.
#[test]
fn credentials_are_a_file_of_nsc() {
    // Larger than this user's limit, which the server's INFO does not mention.
    let user = NatsUser::new(json!({"payload": 3000}));
    let Some(server) = NatsServer::start(&user.conf) else { return };
    let mut client = server.client_as(|nonce| user.login(nonce));
    client.makes_stream("logs.>", json!({}));
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    fs::write(setup.path("creds"), &user.creds).expect("written");
    let setup = setup.forward_with(&server.url(), "creds-file = \"{dir}/creds\"");
    let relay = setup.start();
    says(&relay, 0..100);
    relay.door().connect().send(format!("<14>1 - - - - - - {}\n", "x".repeat(5000)).as_bytes());
    relay.counts("spool_spooled_total", 101);
    says(&relay, 100..200);
    relay.counts("forward_pending", 0);
    let letters = rejected(&relay, &setup);
    assert!(letters.len() == 1 && letters[0].1.starts_with("it has 5"), "{letters:?}");
    are_once(&client.stored(), 0..200);
    assert!(!relay.stderr().contains(&user.key.seed) && !relay.stderr().contains(&user.jwt), "{}", relay.stderr());
    relay.stops();
}

/// Wrong credentials cost no line. New credentials in the file are used at once.
#[test]
fn credentials_that_are_refused_stop_it_and_cost_nothing() {
    let Some(server) = NatsServer::start("authorization { token: \"new\" }") else { return };
    let mut client = server.client_as(|_| json!({"auth_token": "new"}));
    client.makes_stream("logs.>", json!({}));
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    fs::write(setup.path("token"), "old-token\n").expect("written");
    let setup = setup.forward_with(&server.url(), "token-file = \"{dir}/token\"");
    let relay = setup.start();
    says(&relay, 0..10);
    relay.says(&format!(
        "stopped: the collector refuses every line: {0} at {1}: Authorization Violation",
        server.url(),
        server.address()
    ));
    relay.counts("forward_stopped", 1);
    fs::write(setup.path("token"), "new\n").expect("written");
    delivers(&relay, 10);
    relay.counts("forward_stopped", 0);
    are_once(&client.stored(), 0..10);
    assert!(!relay.stderr().contains("old-token"), "{}", relay.stderr());
    relay.stops();
}

/// This user has no permission to publish to a subject; the server reports that only as an asynchronous error.
#[test]
fn a_subject_that_is_forbidden_stops_it() {
    let conf = "authorization { users: [ { user: relay, password: p, permissions: { publish: [\"logs.>\"], subscribe: [\"_INBOX.>\"] } } ] }";
    let Some(server) = NatsServer::start(conf) else { return };
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("P", "p");
    let relay = setup.forward_with(&server.url(), "user = \"relay\"\npassword = \"${P}\"\nsubject = \"other\"").start();
    says(&relay, 0..1);
    relay.says("Permissions Violation for Publish to \"other\"");
    relay.counts("forward_stopped", 1);
    relay.kill();
}

#[test]
fn a_server_with_tls_shows_who_it_is() {
    let certs = Certs::get();
    let conf = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        certs.path("server.pem"),
        certs.path("server-key.pem")
    );
    // The address of `localhost`.
    let Some(server) = NatsServer::on("127.0.0.1", &conf) else { return };
    let mut client = server.client();
    client.makes_stream("logs.>", json!({}));
    let url = format!("nats+tls://localhost:{}", server.address().port());
    let relay = to_with(&url, &Certs::trusted(&url)).start();
    says(&relay, 0..100);
    delivers(&relay, 100);
    are_once(&client.stored(), 0..100);
    relay.stops();
    let relay = to_with(&url, "").start();
    says(&relay, 0..1);
    relay.says("TLS with localhost: ");
    relay.kill();
    let relay = to(&server).start();
    says(&relay, 0..1);
    relay.says("it speaks TLS alone; write nats+tls://");
    relay.kill();
    let Some(plain) = NatsServer::on("127.0.0.1", "") else { return };
    let url = format!("nats+tls://localhost:{}", plain.address().port());
    let relay = to_with(&url, &Certs::trusted(&url)).start();
    says(&relay, 0..1);
    relay.says("it speaks no TLS; write nats:// if the network is to be trusted");
    relay.kill();
    assert_eq!(client.count(), 100);
}

/// A server that is about to stop (lame duck mode) announces it, and its clients leave before it closes the connections.
#[test]
fn a_server_that_is_about_to_stop_is_left() {
    let Some(mut server) = NatsServer::on("127.71.0.3", "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"1s\"")
    else {
        return;
    };
    server.client().makes_stream("logs.>", json!({}));
    let relay = to(&server).start();
    says(&relay, 0..100);
    delivers(&relay, 100);
    server.signal(SIGUSR2);
    relay.says("the server is about to stop, and asks its clients to go elsewhere");
    server.kill();
    says(&relay, 100..200);
    server.starts_again();
    delivers(&relay, 200);
    are_once(&server.client().stored(), 0..200);
    relay.stops();
}

/// The relay reports a wrong protocol on the port, and `check --connect` succeeds on the right port.
#[test]
fn what_is_no_nats_is_said() {
    let Some(server) = NatsServer::start("") else { return };
    let check = |url: &str| -> Value {
        let setup = to_with(url, "connect-timeout = \"300ms\"");
        let output = crate::support::run(setup.command().args(["check", "--connect"]));
        json!(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
    };
    let said = check(&server.url());
    assert!(said.as_str().is_some_and(|said| said.contains("NATS is spoken there, and it knows us")), "{said}");
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward("stdout:").start();
    let said = check(&format!("nats://127.0.0.1:{}", relay.door().port()));
    assert!(
        said.as_str().is_some_and(|said| said.contains("it says nothing within 300ms; is that a NATS port?")),
        "{said}"
    );
    let said = check(&format!("nats://{}", relay.admin()));
    assert!(said.as_str().is_some_and(|said| said.contains("is that a NATS port?")), "{said}");
    relay.stops();
}

/// The index of the server that the relay is connected to.
#[track_caller]
fn speaks_with(relay: &Relay, cluster: &NatsCluster) -> usize {
    eventually("it speaks with a server", || {
        let now = status(relay)["forwards"].to_string();
        cluster.servers.iter().position(|server| now.contains(&format!("{}", server.address())))
    })
}

/// Kills the relay's server while lines come.
fn loses_a_server(setup: &Setup, cluster: &mut NatsCluster) {
    cluster.makes_stream("logs.>");
    let relay = setup.start();
    says(&relay, 0..1000);
    relay.counts_up_to("forward_delivered_total", 1);
    let at = speaks_with(&relay, cluster);
    cluster.servers[at].kill();
    says(&relay, 1000..2000);
    delivers(&relay, 2000);
    are_once(&cluster.stored(2000), 0..2000);
    relay.stops();
}

#[test]
fn a_list_of_a_clusters_servers_has_each_line_once_though_one_is_killed() {
    let Some(mut cluster) = NatsCluster::start() else { return };
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&cluster.urls(), "");
    loses_a_server(&setup, &mut cluster);
}

#[test]
fn a_name_of_a_clusters_servers_has_each_line_once_though_one_is_killed() {
    let Some(mut cluster) = NatsCluster::start() else { return };
    let addresses: Vec<String> = cluster.servers.iter().map(|server| server.address().ip().to_string()).collect();
    let Some(names) = NameServer::start(&addresses.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    let setup = to_with(&format!("nats://{NAME}:{}", cluster.port()), "").section(&names.section());
    loses_a_server(&setup, &mut cluster);
}

/// Two relays publish to the cluster, first through different servers, and one of these servers is killed and restarted.
#[test]
fn two_relays_publish_to_a_cluster() {
    let Some(mut cluster) = NatsCluster::start() else { return };
    cluster.makes_stream("logs.>");
    let mut urls = cluster.urls();
    let one = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&urls, "").start();
    urls.rotate_left(1);
    let other = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&urls, "").start();
    says(&one, 0..1000);
    says(&other, 2000..3000);
    one.counts_up_to("forward_delivered_total", 1);
    let at = speaks_with(&one, &cluster);
    cluster.servers[at].kill();
    says(&one, 1000..2000);
    says(&other, 3000..4000);
    one.counts_up_to("forward_connect_failures_total", 1);
    cluster.servers[at].starts_again();
    delivers(&one, 2000);
    delivers(&other, 2000);
    are_once(&cluster.stored(4000), 0..4000);
    one.stops();
    other.stops();
}
