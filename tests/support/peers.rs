//! In-memory stores by other authors, from PyPI.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use super::http::HttpPeer;
use super::python::python_with;
use super::{Program, Wire, eventually};

/// An OpenSearch server.
pub struct Osmem {
    pub url: String,
    _program: Program,
}

impl Osmem {
    /// `None`: it is not installed, and the test reported that it was skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let python = python_with("osmem-server", "osmem_server")?;
        let says = "import osmem_server; print(osmem_server.resolve_binary())";
        let output = Command::new(python).args(["-c", says]).output().expect("Python runs");
        let program = String::from_utf8(output.stdout).expect("a path");
        let program = Program::start(Command::new(program.trim()).args(["-no-stdin-watch", "-no-ja"]));
        let url = eventually("it says where it listens", || {
            let said: Value = serde_json::from_slice(&program.stdout()).ok()?;
            Some(said["url"].as_str()?.to_owned())
        });
        Some(Self { url, _program: program })
    }

    #[track_caller]
    pub fn asks(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = answer_to(&self.url, &format!("{method} {path}"), "Content-Type: application/json\r\n", body);
        let start = answer.iter().position(|byte| *byte == b'{').expect("JSON");
        let end = answer.iter().rposition(|byte| *byte == b'}').expect("JSON");
        serde_json::from_slice(&answer[start..=end]).expect("JSON")
    }

    pub fn count(&self) -> usize {
        self.asks("POST", "/logs-docker-default/_refresh", "");
        self.asks("GET", "/logs-docker-default/_count", "{}")["count"].as_u64().expect("a number") as usize
    }

    pub fn search(&self, what: &str) -> Vec<Value> {
        self.search_in("logs-docker-default", what)
    }

    pub fn search_in(&self, index: &str, what: &str) -> Vec<Value> {
        self.asks("POST", &format!("/{index}/_refresh"), "");
        let body = format!("{{\"size\":10000,\"query\":{{\"{what}\":{{}}}}}}");
        documents(&self.asks("POST", &format!("/{index}/_search"), &body))
    }
}

/// The documents in a search's answer.
#[track_caller]
pub fn documents(answer: &Value) -> Vec<Value> {
    let hits = answer["hits"]["hits"].as_array().unwrap_or_else(|| panic!("{answer}"));
    hits.iter().map(|hit| hit["_source"].clone()).collect()
}

/// CloudWatch Logs and S3.
pub struct Moto {
    pub url: String,
    _program: Program,
}

const MOTO: &str = r#"
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
print(server.port, flush=True)
server.serve_forever()
"#;

impl Moto {
    /// `None`: it is not installed, and the test reported that it was skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        // Older versions lack this handler.
        let python = python_with("moto[server,logs,s3]", "moto.server; moto.server.MotoRequestHandler")?;
        let program = Program::start(Command::new(python).args(["-c", MOTO]));
        let port = eventually("it says where it listens", || {
            let said = String::from_utf8(program.stdout()).ok()?;
            said.strip_suffix('\n').map(str::to_owned)
        });
        Some(Self { url: format!("http://127.0.0.1:{port}"), _program: program })
    }

    /// Sends a request to CloudWatch.
    #[track_caller]
    pub fn asks(&self, operation: &str, body: &Value) -> Value {
        let operation = format!("Logs_20140328.{operation}");
        let authorization = signed_for("logs");
        let headers = [
            ("X-Amz-Target", &*operation),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("Authorization", &*authorization),
        ];
        let stream = TcpStream::connect(self.url.strip_prefix("http://").expect("HTTP")).expect("it listens");
        let answer = HttpPeer::on(Wire::Tcp(stream)).asks("POST /", &headers, body.to_string().as_bytes());
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}", answer.body))
    }

    /// Sends a request to S3.
    #[track_caller]
    pub fn asks_s3(&self, request: &str, body: &str) -> Vec<u8> {
        let authorization = format!("Authorization: {}\r\n", signed_for("s3"));
        let answer = answer_to(&self.url, request, &authorization, body);
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        answer[head + 4..].to_vec()
    }

    #[track_caller]
    pub fn makes_bucket(&self, name: &str) {
        let place = "<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>";
        self.asks_s3(&format!("PUT /{name}"), place);
    }

    /// The keys in a bucket with this prefix.
    #[track_caller]
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let request = format!("GET /{bucket}?list-type=2&max-keys=1000&prefix={prefix}");
        let listing = String::from_utf8(self.asks_s3(&request, "")).expect("XML");
        let keys = listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }
}

/// The server checks only the region and the service.
fn signed_for(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=a/20261129/eu-central-1/{service}/aws4_request, SignedHeaders=host, Signature=b"
    )
}

/// The complete response to a request over its own connection.
#[track_caller]
fn answer_to(url: &str, request: &str, headers: &str, body: &str) -> Vec<u8> {
    let at = url.strip_prefix("http://").expect("HTTP");
    let mut stream = TcpStream::connect(at).expect("it listens");
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nHost: {at}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n");
    write!(stream, "{head}\r\n{body}").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

/// An OpenTelemetry logs receiver, with OpenTelemetry's own Python package.
pub struct OtlpReceiver {
    pub url: String,
    program: Program,
}

/// A record as the receiver understood it.
pub struct OtlpRecord {
    /// The path, and the headers in small letters, of the request that brought it.
    pub said: Value,
    pub resource: Value,
    pub record: Value,
}

/// Prints its port, and each record with its request and its resource. The receiver rejects a request unless the package encodes it to the
/// same bytes.
const RECEIVER: &str = r#"
import gzip, http.server, json
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
        assert said["content-type"] == "application/x-protobuf", said
        request = ExportLogsServiceRequest.FromString(body)
        assert request.SerializeToString() == body, body.hex()
        answer = ExportLogsServiceResponse()
        for logs in request.resource_logs:
            for scope in logs.scope_logs:
                for record in scope.log_records:
                    if record.body.string_value == "too old":
                        answer.partial_success.rejected_log_records += 1
                        answer.partial_success.error_message = "older than a week"
                    print(json.dumps([said, MessageToDict(logs.resource), MessageToDict(record)]), flush=True)
        answer = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *said):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
"#;

impl OtlpReceiver {
    /// `None`: it is not installed, and the test reported that it was skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let python = python_with("opentelemetry-proto", "opentelemetry.proto.collector.logs.v1.logs_service_pb2")?;
        let program = Program::start(Command::new(python).args(["-c", RECEIVER]));
        let mut receiver = Self { url: String::new(), program };
        receiver.url = format!("http://127.0.0.1:{}", receiver.printed(1)[0]);
        Some(receiver)
    }

    /// Waits for at least `least` records.
    #[track_caller]
    pub fn records(&self, least: usize) -> Vec<OtlpRecord> {
        let read = |line: &String| {
            let [said, resource, record] = serde_json::from_str(line).expect("JSON");
            OtlpRecord { said, resource, record }
        };
        self.printed(1 + least).iter().skip(1).map(read).collect()
    }

    #[track_caller]
    fn printed(&self, least: usize) -> Vec<String> {
        eventually(&format!("{least} lines of the receiver"), || {
            let text = String::from_utf8(self.program.stdout()).expect("text");
            let whole: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            (whole.len() >= least).then(|| whole.into_iter().map(|line| line.trim_end().to_owned()).collect())
        })
    }
}
