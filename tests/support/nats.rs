//! A real NATS server, and a client that reads its streams. Shares no code with the relay.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::program::SIGHUP;
use super::{Certs, Held, PATIENCE, Program, eventually, installed, own_address};

/// A server with JetStream and file storage.
pub struct NatsServer {
    program: PathBuf,
    dir: TempDir,
    /// The part that every config of the server begins with.
    head: String,
    conf: String,
    address: SocketAddr,
    running: Program,
}

/// A client session that sends requests one by one.
pub struct NatsClient(BufReader<Box<dyn Way>>);

trait Way: Read + Write {}

impl<T: Read + Write> Way for T {}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    pub subject: String,
    pub id: String,
    pub record: Value,
}

impl Stored {
    /// The message text as a number.
    pub fn number(&self) -> usize {
        self.record["message"].as_str().and_then(|text| text.parse().ok()).expect("a number")
    }
}

impl NatsServer {
    /// Starts a server with these config lines; `{dir}` in them is the server's directory. `None`: it is not installed, and the test
    /// reported that it was skipped.
    #[track_caller]
    pub fn start(conf: &str) -> Option<Self> {
        Self::on(&own_address().to_string(), conf)
    }

    /// Starts a server on a loopback address. A server that a test restarts at the same port needs its own address, so that no other
    /// program takes that port meanwhile.
    #[track_caller]
    pub fn on(host: &str, conf: &str) -> Option<Self> {
        let server = Self::begins(host, -1, conf)?;
        server.listens();
        Some(server)
    }

    #[track_caller]
    fn begins(host: &str, port: i32, conf: &str) -> Option<Self> {
        let program = installed("nats-server", "nats-server")?;
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().to_str().expect("a path in UTF-8");
        let head = format!("host: \"{host}\"\nports_file_dir: \"{path}\"\njetstream {{ store_dir: \"{path}/js\" }}\n");
        let conf = format!("{head}{}\n", conf.replace("{dir}", path));
        let running = Self::run(&program, &dir, &format!("{conf}port: {port}\n"));
        let ports = dir.path().join(format!("nats-server_{}.ports", running.id()));
        let address = eventually("the server listens", || {
            let ports: Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            let url = ports["nats"][0].as_str()?.to_owned();
            url.split_once("://").expect("a URL").1.parse().ok()
        });
        Some(Self { program, dir, head, conf, address, running })
    }

    /// Changes the config of the running server.
    pub fn is_told(&mut self, conf: &str) {
        self.conf = format!("{}{conf}\n", self.head);
        let text = format!("{}port: {}\n", self.conf, self.address.port());
        std::fs::write(self.dir.path().join("conf"), text).expect("written");
        self.signal(SIGHUP);
    }

    fn run(program: &PathBuf, dir: &TempDir, conf: &str) -> Program {
        let path = dir.path().join("conf");
        std::fs::write(&path, conf).expect("written");
        Program::start(Command::new(program).arg("-c").arg(path))
    }

    fn listens(&self) {
        eventually("the server takes connections", || TcpStream::connect(self.address).ok());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn signal(&self, signal: i32) {
        self.running.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Restarts the server at the same address, with its stored streams.
    #[track_caller]
    pub fn starts_again(&mut self) {
        let conf = format!("{}port: {}\n", self.conf, self.address.port());
        eventually("the server runs again", || {
            self.running = Self::run(&self.program, &self.dir, &conf);
            eventually("it listens or ends", || {
                let is_over = TcpStream::connect(self.address).is_ok() || self.running.has_ended().is_some();
                is_over.then_some(())
            });
            self.running.has_ended().is_none().then_some(())
        });
    }

    /// A session without authentication.
    #[track_caller]
    pub fn client(&self) -> NatsClient {
        self.client_as(|_| json!({}))
    }

    /// A session that authenticates with these members of CONNECT. `login` gets the server's nonce.
    #[track_caller]
    pub fn client_as(&self, login: impl FnOnce(&str) -> Value) -> NatsClient {
        NatsClient::new(self.address, login)
    }
}

/// A cluster of three servers, each at its own address and all at one port. The loss of one server loses no messages.
pub struct NatsCluster {
    pub servers: Vec<NatsServer>,
    port: u16,
    /// The reserved ports for clients, and for routes.
    _held: [Held; 2],
}

/// A server that does not know the answer stays silent. The client then asks another server.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

impl NatsCluster {
    /// `None`: it is not installed, and the test reported that it was skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let hosts = [own_address(), own_address(), own_address()];
        let (clients, routes) = (Held::new(false, &hosts), Held::new(false, &hosts));
        let (port, route) = (clients.port(), routes.port());
        let all: Vec<String> = hosts.iter().map(|host| format!("\"nats-route://{host}:{route}\"")).collect();
        let all = all.join(", ");
        let begins = |host: &IpAddr| {
            let cluster = format!("cluster {{ name: logs, listen: \"{host}:{route}\", routes: [{all}] }}");
            NatsServer::begins(&host.to_string(), port.into(), &format!("server_name: \"{host}\"\n{cluster}"))
        };
        let servers: Option<Vec<_>> = hosts.iter().map(begins).collect();
        let cluster = Self { servers: servers?, port, _held: [clients, routes] };
        cluster.servers.iter().for_each(NatsServer::listens);
        Some(cluster)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Asks the servers until one answers. Returns the session with that server.
    #[track_caller]
    pub fn asks(&self, api: &str, question: &Value) -> NatsClient {
        eventually(&format!("the cluster answers to {api}"), || {
            self.servers.iter().find_map(|server| {
                let mut client = NatsClient::connect(server.address, |_| json!({}), ANSWERS_WITHIN).ok()?;
                let answer = client.hears(&format!("$JS.API.{api}"), question).ok()?;
                answer["error"].is_null().then_some(client)
            })
        })
    }

    /// Makes a stream `LOGS` with a replica on each server.
    #[track_caller]
    pub fn makes_stream(&self, subjects: &str) {
        let config = json!({"name": "LOGS", "subjects": [subjects], "storage": "file", "num_replicas": 3});
        self.asks("STREAM.CREATE.LOGS", &config);
    }

    /// All stored messages, once there are `count`: a server that has just restarted may answer with fewer.
    #[track_caller]
    pub fn stored(&self, count: usize) -> Vec<Stored> {
        eventually(&format!("{count} messages are there"), || {
            let mut client = self.asks("STREAM.INFO.LOGS", &json!({}));
            (client.count() >= count as u64).then_some(())
        });
        self.asks("STREAM.INFO.LOGS", &json!({})).stored()
    }
}

impl NatsClient {
    #[track_caller]
    pub fn new(address: SocketAddr, login: impl FnOnce(&str) -> Value) -> Self {
        Self::connect(address, login, PATIENCE).expect("it listens")
    }

    #[track_caller]
    fn connect(address: SocketAddr, login: impl FnOnce(&str) -> Value, patience: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(patience)).expect("a socket option");
        // Byte by byte, because TLS begins right after this line.
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let info: Value = serde_json::from_slice(line.strip_prefix(b"INFO ").expect("INFO")).expect("JSON");
        let way: Box<dyn Way> = match info["tls_required"] == true {
            true => {
                let config = ClientConfig::builder().with_root_certificates(Certs::get().roots()).with_no_client_auth();
                let name = "localhost".try_into().expect("a name");
                let connection = ClientConnection::new(config.into(), name).expect("a client");
                Box::new(StreamOwned::new(connection, stream))
            }
            false => Box::new(stream),
        };
        let mut client = Self(BufReader::new(way));
        let mut connect =
            json!({"verbose": false, "headers": true, "no_responders": true, "lang": "test", "version": "1"});
        let members = login(info["nonce"].as_str().unwrap_or_default());
        connect.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
        client.writes(&format!("CONNECT {connect}\r\nSUB _INBOX.asks 1\r\n"));
        Ok(client)
    }

    fn writes(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the server reads");
        self.0.get_mut().flush().expect("the server reads");
    }

    /// Sends a request and returns the answer.
    #[track_caller]
    pub fn asks(&mut self, subject: &str, question: &Value) -> Value {
        self.hears(subject, question).unwrap_or_else(|error| panic!("{subject}: {error}"))
    }

    fn hears(&mut self, subject: &str, question: &Value) -> io::Result<Value> {
        let question = question.to_string();
        self.writes(&format!("PUB {subject} _INBOX.asks {}\r\n{question}\r\n", question.len()));
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the server hung up"));
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => self.writes("PONG\r\n"),
                ["MSG", "_INBOX.asks", "1", length] => {
                    let mut answer = vec![0; length.parse::<usize>().expect("a length") + 2];
                    self.0.read_exact(&mut answer)?;
                    return Ok(serde_json::from_slice(&answer).expect("JSON"));
                }
                ["INFO", ..] => {}
                _ => return Err(io::Error::other(format!("the server says {line:?}"))),
            }
        }
    }

    #[track_caller]
    fn asks_of(&mut self, api: &str, question: &Value) -> Value {
        let answer = self.asks(&format!("$JS.API.{api}"), question);
        assert!(answer["error"].is_null(), "{api}: {answer}");
        answer
    }

    /// Makes a stream `LOGS` with these subjects and additional config members.
    #[track_caller]
    pub fn makes_stream(&mut self, subjects: &str, also: Value) {
        let mut config = json!({"name": "LOGS", "subjects": [subjects], "storage": "file", "num_replicas": 1});
        config.as_object_mut().expect("an object").extend(also.as_object().expect("an object").clone());
        self.asks_of("STREAM.CREATE.LOGS", &config);
    }

    /// Deletes the stored messages.
    #[track_caller]
    pub fn purges(&mut self) {
        self.asks_of("STREAM.PURGE.LOGS", &json!({}));
    }

    /// The number of stored messages.
    #[track_caller]
    pub fn count(&mut self) -> u64 {
        self.asks_of("STREAM.INFO.LOGS", &json!({}))["state"]["messages"].as_u64().expect("a number")
    }

    /// All stored messages, in order.
    #[track_caller]
    pub fn stored(&mut self) -> Vec<Stored> {
        let state = self.asks_of("STREAM.INFO.LOGS", &json!({}))["state"].clone();
        let number = |name: &str| state[name].as_u64().expect("a number");
        if number("messages") == 0 {
            return Vec::new();
        }
        (number("first_seq")..=number("last_seq")).map(|sequence| self.message(sequence)).collect()
    }

    fn message(&mut self, sequence: u64) -> Stored {
        let message = self.asks_of("STREAM.MSG.GET.LOGS", &json!({"seq": sequence}))["message"].clone();
        let bytes = |name: &str| BASE64.decode(message[name].as_str().expect("text").as_bytes()).expect("base64");
        let headers = String::from_utf8(bytes("hdrs")).expect("text");
        let id = headers.strip_prefix("NATS/1.0\r\nNats-Msg-Id: ").and_then(|rest| rest.strip_suffix("\r\n\r\n"));
        Stored {
            subject: message["subject"].as_str().expect("text").to_owned(),
            id: id.expect("an id").to_owned(),
            record: serde_json::from_slice(&bytes("data")).expect("JSON"),
        }
    }
}

/// An NKey: `role` is `U` for a user, `A` for an account, `O` for an operator.
pub struct NatsKey {
    pub seed: String,
    pub public: String,
    pair: Ed25519KeyPair,
}

impl NatsKey {
    pub fn new(role: char) -> Self {
        let role = match role {
            'U' => 20 << 3,
            'A' => 0,
            'O' => 14 << 3,
            other => panic!("{other} is no role"),
        };
        let secret: [u8; 32] = rand::random();
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret).expect("32 bytes");
        let checked = |mut bytes: Vec<u8>| {
            bytes.extend(crc16(&bytes).to_le_bytes());
            BASE32_NOPAD.encode(&bytes)
        };
        let prefix: [u8; 2] = [18 << 3 | role >> 5, (role & 31) << 3];
        let seed = checked([&prefix[..], &secret].concat());
        let public = checked([&[role][..], pair.public_key().as_ref()].concat());
        Self { seed, public, pair }
    }

    pub fn sign(&self, text: &str) -> String {
        BASE64URL_NOPAD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }

    /// A JWT with `claims` about `other`, signed with this key.
    pub fn vouches_for(&self, other: &Self, kind: &str, claims: Value) -> String {
        let mut nats = json!({"type": kind, "version": 2});
        nats.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
        let claims = json!({"jti": "1", "iat": 1_700_000_000, "iss": self.public, "name": kind, "sub": other.public, "nats": nats});
        let part = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let text = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
        format!("{text}.{}", self.sign(&text))
    }
}

/// A user of an account that authenticates with a JWT, like a user made by `nsc` with a credentials file.
pub struct NatsUser {
    /// The lines of the server's config about its operator and the account.
    pub conf: String,
    /// The output of `nsc generate creds`.
    pub creds: String,
    pub jwt: String,
    pub key: NatsKey,
}

impl NatsUser {
    /// A user with these additional limits.
    pub fn new(limits: Value) -> Self {
        let [operator, system, account, key] = ['O', 'A', 'A', 'U'].map(NatsKey::new);
        let of_account = json!({"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1,
            "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
        let of_operator = operator.vouches_for(&operator, "operator", json!({}));
        let vouched = |account: &NatsKey, limits: &Value| {
            let claims = json!({"limits": limits, "default_permissions": {"pub": {}, "sub": {}}});
            format!("{}: {}", account.public, operator.vouches_for(account, "account", claims))
        };
        let accounts =
            format!("{}\n{}", vouched(&system, &json!({"subs": -1, "conn": -1})), vouched(&account, &of_account));
        let mut claims = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        claims.as_object_mut().expect("an object").extend(limits.as_object().expect("an object").clone());
        let jwt = account.vouches_for(&key, "user", claims);
        let conf = format!(
            "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{accounts}\n}}",
            system.public
        );
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            key.seed
        );
        Self { conf, creds, jwt, key }
    }

    /// The members of CONNECT that authenticate this user.
    pub fn login(&self, nonce: &str) -> Value {
        json!({"jwt": self.jwt, "sig": self.key.sign(nonce)})
    }
}

/// Bit by bit, as the specification defines it.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        for bit in (0..8).rev() {
            let carries = (crc >> 15) as u8 != byte >> bit & 1;
            crc <<= 1;
            if carries {
                crc ^= 0x1021;
            }
        }
    }
    crc
}
