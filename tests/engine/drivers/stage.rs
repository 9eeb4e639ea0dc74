//! The setup of each test: a relay in its container, containers that log to it through one of Docker's drivers, and
//! collectors of the forwarded lines.

use super::super::collector::{Arrival, Collector as Rsyslog};
use super::super::docker::{Container, Images, docker, try_docker};
use super::super::host::{self, Need, within};
use super::super::relay::{HOSTNAME, Place, Relay};
use super::super::support::{Collector, Framing, Line, line, rsyslog};
use super::super::talker::{PIECE, enough, odd_lines};
use super::super::{ARRIVE, engine_host, support};
use super::{fluentd, gelf, splunk};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines that each talker prints before an event, and after it.
const AUDIENCE: usize = 60;
/// Lines that talkers print while the relay is away. Printing takes some seconds, enough for several reconnects of the
/// drivers. Drivers that wait for the relay leave these lines in the pipe between container and engine.
const AWAY: usize = 300;
const TAG: &str = "tag={{.ImageName}}/{{.Name}}/{{.ID}}";
const LABELS: [(&str, &str); 3] =
    [("com.docker.compose.service", "web"), ("team.a/b", "a \"quoted\" ] \\ label, grüße"), ("empty", "")];
const VARIABLE: (&str, &str) = ("STAGE", "prod\nand more");
/// Labels and variables as a line's fields.
pub const FIELDS: [(&str, &str); 4] = [LABELS[0], LABELS[1], LABELS[2], VARIABLE];

/// Prints lines on both streams until /talk/enough appears, and writes their number into a file. At the end, when all
/// lines have arrived, prints a line without an LF on each stream.
const SCRIPT: &str = r#"
trap exit TERM
[ "$2" = true ] || exec 2>/dev/null
cat /talk/odd
n=0
while [ ! -e /talk/enough ]; do
  i=0
  while [ $i -lt 10 ]; do i=$((i+1)); n=$((n+1)); echo "line $n"; done
  echo "error $n" >&2
  echo $n > /talk/$1.now
  sleep 0.1
done
echo $n > /talk/$1.new
mv /talk/$1.new /talk/$1
while [ ! -e /talk/$1.end ]; do sleep 0.1; done
printf "prompt$ "
printf "password: " >&2
"#;

/// A printed line: the severity of its stream, and the text.
pub type Said = (u8, Vec<u8>);

/// The last line of each stream, without an LF.
pub const LAST_WORDS: [(u8, &[u8]); 2] = [(6, b"prompt$ "), (3, b"password: ")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Fluentd,
    Gelf,
    Splunk,
}

/// A configuration of a log driver.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub driver: Driver,
    pub name: &'static str,
    pub transport: &'static str,
    pub options: &'static [&'static str],
}

impl Way {
    /// Whether the relay acknowledges a line once it is in the spool. The driver sends unacknowledged lines again.
    pub fn is_answered(self) -> bool {
        self.driver == Driver::Splunk || fluentd::asks(self)
    }

    /// Whether the driver sends datagrams. Then it does not notice that the relay is away.
    pub fn is_by_datagram(self) -> bool {
        self.transport == "udp"
    }

    fn has_both_streams(self) -> bool {
        !splunk::is_raw(self)
    }

    fn driver_name(self) -> &'static str {
        match self.driver {
            Driver::Fluentd => "fluentd",
            Driver::Gelf => "gelf",
            Driver::Splunk => "splunk",
        }
    }

    /// The messages that the driver sends for a line of a stream.
    fn sent(self, stream: u8, line: &[u8]) -> Vec<Said> {
        let texts = match self.driver {
            Driver::Fluentd => vec![line.to_vec()],
            Driver::Gelf => gelf::sent(line),
            Driver::Splunk => splunk::sent(line, self),
        };
        let prints = stream == 6 || self.has_both_streams();
        texts.into_iter().filter(|_| prints).map(|text| (stream, text)).collect()
    }
}

/// The messages of drivers that send pieces of a long line as UTF-8. U+FFFD replaces each invalid byte.
pub fn in_pieces(line: &[u8]) -> Vec<Vec<u8>> {
    let text = |piece: &[u8]| {
        let mut text = String::new();
        for chunk in piece.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
        }
        text.into_bytes()
    };
    let empty = line.is_empty().then(Vec::new);
    line.chunks(PIECE).map(text).chain(empty).collect()
}

/// A collector of the lines that the relay forwards.
pub trait Collects {
    /// The URL of the relay's forward to it.
    fn url(&self) -> String;

    /// A directory that the relay's container must mount.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// The lines that have arrived since the last call, in order.
    fn take(&mut self) -> Vec<Line>;

    /// The form in which the collector writes a text.
    fn written(&self, text: &[u8]) -> Vec<u8> {
        text.to_vec()
    }
}

/// The tests' own collector.
pub struct Plain {
    collector: Collector,
    taken: usize,
}

impl Plain {
    pub fn start() -> Box<dyn Collects> {
        Box::new(Self { collector: Collector::tcp(Framing::OctetCounting), taken: 0 })
    }
}

impl Collects for Plain {
    fn url(&self) -> String {
        self.collector.url()
    }

    fn take(&mut self) -> Vec<Line> {
        let frames = self.collector.frames(0);
        let new = std::mem::replace(&mut self.taken, frames.len());
        frames[new..].iter().map(|frame| Line::read(frame)).collect()
    }
}

/// A real rsyslog.
pub struct Central {
    rsyslog: Rsyslog,
    port: u16,
    /// Bytes of its file that were read.
    taken: usize,
}

impl Central {
    pub fn start() -> Box<dyn Collects> {
        let port = host::free_port(&["127.0.0.1"]);
        Box::new(Self { rsyslog: Rsyslog::start("127.0.0.1", port), port, taken: 0 })
    }
}

impl Collects for Central {
    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Rebuilds each line from the parts that rsyslog parsed.
    fn take(&mut self) -> Vec<Line> {
        let line = |of: &Arrival| {
            let Arrival { facility, severity, stamp, host, app, proc, data, .. } = of;
            let head = format!("<{}>1 {stamp} {host} {app} {proc} - {data} ", facility << 3 | severity);
            let line = Line::read(&[head.as_bytes(), &of.message].concat());
            assert_eq!(line.container(), [&*of.image, &*of.name, &*of.id], "{of:?}");
            line
        };
        self.rsyslog.arrivals_from(&mut self.taken).iter().map(line).collect()
    }

    /// From a text with a NUL, rsyslog drops the other control characters.
    fn written(&self, text: &[u8]) -> Vec<u8> {
        let has_nul = text.contains(&0);
        rsyslog::kept(&text.iter().copied().filter(|byte| !has_nul || matches!(byte, 0 | 32..)).collect::<Vec<_>>())
    }
}

/// A file for each container.
pub struct Files {
    directory: tempfile::TempDir,
    /// Bytes of each file that were read.
    taken: BTreeMap<PathBuf, usize>,
}

impl Files {
    pub fn start() -> Box<dyn Collects> {
        Box::new(Self { directory: host::open_directory(), taken: BTreeMap::new() })
    }
}

impl Collects for Files {
    fn url(&self) -> String {
        format!("file://{}/{{name}}.log", self.directory.path().display())
    }

    fn directory(&self) -> Option<&Path> {
        Some(self.directory.path())
    }

    fn take(&mut self) -> Vec<Line> {
        let entries = std::fs::read_dir(self.directory.path()).expect("our directory");
        let new = |path: PathBuf| {
            let taken = self.taken.entry(path.clone()).or_default();
            line::lines_of(&host::complete_lines(&path, taken))
        };
        entries.map(|entry| entry.expect("a file").path()).flat_map(new).collect()
    }

    fn written(&self, text: &[u8]) -> Vec<u8> {
        line::made_visible(text)
    }
}

/// Joins pieces that arrive as separate, individually acknowledged messages. A message counts when its last piece has
/// arrived, once and in order.
fn joined(lines: &[Line]) -> Vec<Said> {
    let mut begun: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut seen, mut all) = (BTreeSet::new(), Vec::new());
    for line in lines {
        let [id, ordinal, last] =
            ["id", "ordinal", "last"].map(|name| line.param("fields@32473", &format!("partial_{name}")));
        if id.is_empty() {
            all.push((line.pri & 7, line.message.clone()));
            continue;
        }
        if !seen.insert((id.clone(), ordinal)) {
            continue;
        }
        begun.entry(id.clone()).or_default().extend_from_slice(&line.message);
        if last == "true" {
            all.push((line.pri & 7, begun.remove(&id).expect("begun")));
        }
    }
    all
}

pub fn stamp(line: &Line) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::parse_from_rfc3339(&line.stamp).expect("an RFC 3339 stamp").to_utc()
}

pub struct Talker {
    pub container: Container,
    pub way: Way,
    pub what: String,
    /// The first digits of the ID, as many as the driver sends.
    id: String,
    tag: String,
    image: String,
    pub image_id: String,
    pub created: String,
}

impl Talker {
    fn start(images: &Images, relay: &Relay, talk: &Path, way: Way) -> Self {
        let driver = way.driver_name();
        let what = format!("{driver}-{}", way.name);
        let mut args = ["--network", "none", "--log-driver", driver].map(String::from).to_vec();
        let address = relay.log_options(driver, way.transport);
        let told = [TAG, "labels=com.docker.compose.service,team.a/b,empty", "env=STAGE"].map(String::from);
        let options = address.into_iter().chain(told).chain(way.options.iter().map(|option| (*option).to_owned()));
        args.extend(options.flat_map(|option| ["--log-opt".into(), option]));
        args.extend(LABELS.iter().flat_map(|(name, value)| ["--label".into(), format!("{name}={value}")]));
        args.extend(["--env".into(), format!("{}={}", VARIABLE.0, VARIABLE.1)]);
        args.extend(["--volume".into(), format!("{}:/talk", talk.display()), images.talker.clone()]);
        let both = way.has_both_streams().to_string();
        args.extend(["/bin/sh", "-c", SCRIPT, "talker", &what, &both].map(String::from));
        let container = Container::run(&what, &args);
        let [id, image_id, created] = ["{{.Id}}", "{{.Image}}", "{{.Created}}"].map(|what| container.inspect(what));
        let image = images.talker.clone();
        let tag = format!("{image}/{}/{}", container.name, &id[..12]);
        let id = if way.driver == Driver::Splunk { id[..12].to_owned() } else { id };
        Self { container, way, what, id, tag, image, image_id, created }
    }

    fn lines<'a>(&self, book: &'a Book) -> &'a [Line] {
        book.arrived.get(&self.id).map_or(&[], Vec::as_slice)
    }

    /// The fields that the driver sends beside the line: labels, variables and others.
    pub fn fields(&self, line: &Line) -> BTreeMap<String, String> {
        let params = line.params.iter().filter(|((id, _), _)| id == "fields@32473");
        let mut fields: BTreeMap<_, _> =
            params.map(|((_, name), value)| (name.clone(), String::from_utf8_lossy(value).into_owned())).collect();
        // Fields whose values have an LF, or whose names are not valid parameter names.
        let json = line.param("json@32473", "fields");
        if !json.is_empty() {
            fields.extend(serde_json::from_str::<BTreeMap<String, String>>(&json).expect("JSON of texts"));
        }
        fields
    }

    /// Checks every field but the text.
    fn check(&self, line: &Line, during: &Range<chrono::DateTime<chrono::Utc>>) {
        let Self { what, id, tag, image, container, .. } = self;
        let name = &container.name;
        assert_eq!(line.container(), [&**image, name, id], "{what}: {line:?}");
        let host = if self.way.driver == Driver::Fluentd { HOSTNAME.to_owned() } else { engine_host() };
        assert_eq!([&*line.host, &*line.app, &*line.proc_id], [&*host, &**name, &**id], "{what}: {line:?}");
        let source = match line.pri {
            _ if !self.way.has_both_streams() => "",
            30 => "stdout",
            27 => "stderr",
            other => panic!("priority {other}: {line:?}"),
        };
        let own = ["driver", "source", "tag"].map(|name| line.param("logferry@32473", name));
        // The relay's name for the driver.
        let driver = if self.way.driver == Driver::Fluentd { "fluent" } else { self.way.driver_name() };
        assert_eq!(own, [driver, source, tag], "{what}: {line:?}");
        let (stamp, second) = (stamp(line), chrono::TimeDelta::seconds(1));
        assert!(during.start - second <= stamp && stamp <= during.end + second, "{what}: {line:?}");
        match self.way.driver {
            Driver::Fluentd => fluentd::check(line, self),
            Driver::Gelf => gelf::check(line, self),
            Driver::Splunk => splunk::check(line, self),
        }
    }

    /// The lines that the talker prints: the odd ones, then `count` numbered ones. They are in the form that the driver
    /// sends, in the order of each stream.
    fn said(&self, count: usize) -> Vec<Said> {
        let stdout = odd().into_iter().chain((1..=count).map(|n| format!("line {n}").into_bytes()));
        let stderr = (1..=count / 10).map(|n| format!("error {}", n * 10).into_bytes());
        let all = stdout.map(|text| (6, text)).chain(stderr.map(|text| (3, text)));
        all.flat_map(|(stream, text)| self.way.sent(stream, &text)).collect()
    }
}

/// The lines that talkers print first, without LF. Some are lines that the syslog driver cannot carry.
fn odd() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = odd_lines().into_iter().map(|line| line[..line.len() - 1].to_vec()).collect();
    let counted: String = (0..2100).map(|n| format!("e{n:06} ")).collect();
    lines.push(counted.as_bytes()[..16_383].to_vec());
    let all = (0..=255).filter(|byte| *byte != b'\n');
    lines.push(all.collect());
    lines
}

/// The lines that have arrived at a collector, by the container's ID.
struct Book {
    collector: Box<dyn Collects>,
    arrived: BTreeMap<String, Vec<Line>>,
}

pub struct Stage {
    pub talkers: Vec<Talker>,
    pub relay: Relay,
    /// One for each collector. Each collector gets all lines.
    books: Vec<Book>,
    _images: Arc<Images>,
    /// The directory with the files shared by talkers and this test.
    talk: tempfile::TempDir,
}

/// The lines of each talker that are missing at a collector, and the total number of duplicates.
pub struct Compared {
    pub missing: Vec<Vec<Said>>,
    pub doubled: usize,
}

impl Stage {
    /// `None`: this machine lacks a requirement.
    pub fn set(
        needs: &[Need],
        place: Place,
        collectors: impl FnOnce() -> Vec<Box<dyn Collects>>,
        ways: &[Way],
    ) -> Option<Self> {
        if !host::has(&[&[Need::Docker, Need::Busybox], needs].concat()) {
            return None;
        }
        let (images, collectors) = (Images::shared(), collectors());
        let to: Vec<String> = collectors.iter().map(|collector| collector.url()).collect();
        let directories: Vec<&Path> = collectors.iter().filter_map(|collector| collector.directory()).collect();
        let relay = Relay::start_at(&images, place, &to, &directories, "");
        let talk = host::open_directory();
        let text: Vec<u8> = odd().into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        std::fs::write(talk.path().join("odd"), text).expect("a file in our directory");
        let talkers = ways.iter().map(|way| Talker::start(&images, &relay, talk.path(), *way)).collect();
        let book = |collector| Book { collector, arrived: BTreeMap::new() };
        let books = collectors.into_iter().map(book).collect();
        Some(Self { talkers, relay, books, _images: images, talk })
    }

    fn looks(&mut self) {
        for Book { collector, arrived } in &mut self.books {
            for line in collector.take() {
                arrived.entry(line.param("docker@32473", "id")).or_default().push(line);
            }
        }
    }

    /// How many lines of a stream have arrived from each talker.
    pub fn heard(&mut self, severity: u8) -> Vec<usize> {
        self.looks();
        let book = &self.books[0];
        let of = |talker: &Talker| joined(talker.lines(book)).iter().filter(|(of, _)| *of == severity).count();
        self.talkers.iter().map(of).collect()
    }

    /// How many numbered lines each talker has printed.
    fn printed(&self) -> Vec<usize> {
        let printed = |talker: &Talker| {
            let file = self.talk.path().join(format!("{}.now", talker.what));
            // The file is empty for a moment while it is rewritten.
            within(ARRIVE, "a talker's number", || std::fs::read_to_string(&file).ok()?.trim().parse().ok())
        };
        self.talkers.iter().map(printed).collect()
    }

    /// Waits until each collector has received lines that each talker prints from now on, and therefore all lines
    /// before them.
    pub fn has_an_audience(&mut self) {
        let printed = self.printed();
        within(ARRIVE, "every talker heard", || {
            self.looks();
            let goes_on = |(talker, printed): (&Talker, &usize), book| {
                let last = talker.lines(book).iter().rev().find_map(number);
                last.is_some_and(|last| last >= printed + AUDIENCE)
            };
            let is_heard = |book| self.talkers.iter().zip(&printed).all(|pair| goes_on(pair, book));
            self.books.iter().all(is_heard).then_some(())
        });
    }

    /// Waits while containers print and no relay listens.
    pub fn talks_to_nobody(&self) {
        let before = self.printed();
        within(ARRIVE, "containers that go on", || {
            self.printed().iter().zip(&before).all(|(now, before)| *now >= before + AWAY).then_some(())
        });
    }

    /// Waits until all talkers have printed all lines but their last ones. Returns the lines in the order of each
    /// stream.
    pub fn have_said(&self) -> Vec<Vec<Said>> {
        enough(self.talk.path());
        let said = |talker: &Talker| {
            let file = self.talk.path().join(&talker.what);
            let count = within(ARRIVE, "a talker that has said enough", || std::fs::read_to_string(&file).ok());
            talker.said(count.trim().parse().expect("a number"))
        };
        self.talkers.iter().map(said).collect()
    }

    /// Lets the talkers print their last lines and end. Talkers with an asynchronous driver are left out, because it
    /// discards its queue at the end.
    pub fn end(&self, said: &mut [Vec<Said>]) {
        let talkers = self.talkers.iter().zip(said);
        for (talker, said) in talkers.filter(|(talker, _)| !fluentd::is_async(talker.way)) {
            std::fs::write(self.talk.path().join(format!("{}.end", talker.what)), "").expect("a file of ours");
            docker(["wait", &talker.container.name]);
            said.extend(LAST_WORDS.iter().flat_map(|(stream, text)| talker.way.sent(*stream, text)));
        }
    }

    /// Waits for the last line of each stream. All earlier lines have then arrived, except lost ones.
    pub fn the_last_have_come(&mut self, said: &[Vec<Said>]) {
        within(ARRIVE, "the last line of each stream", || {
            self.looks();
            let have_come = |book: &Book| {
                self.talkers.iter().zip(said).all(|(talker, said)| {
                    let last = |severity| said.iter().rfind(|(of, _)| *of == severity);
                    let has_come = |(of, text): &Said| {
                        let text = book.collector.written(text);
                        talker.lines(book).iter().rev().any(|line| line.pri & 7 == *of && line.message == text)
                    };
                    [3, 6].into_iter().filter_map(last).all(has_come)
                })
            };
            self.books.iter().all(have_come).then_some(())
        });
    }

    /// Checks every field of every line at each collector.
    pub fn checks_fields(&self, during: &Range<chrono::DateTime<chrono::Utc>>) {
        for book in &self.books {
            for talker in &self.talkers {
                let lines = talker.lines(book);
                lines.iter().for_each(|line| talker.check(line, during));
                let is_piece = |line: &&Line| !line.param("fields@32473", "partial_id").is_empty();
                let pieces = lines.iter().filter(is_piece).count();
                assert_eq!(pieces > LAST_WORDS.len(), fluentd::asks(talker.way), "{}: {pieces} pieces", talker.what);
            }
        }
    }

    /// Compares each collector's lines with the printed ones: each line once, in the order of its stream. Returns
    /// missing lines and duplicates.
    pub fn compares(&self, said: &[Vec<Said>]) -> Vec<Compared> {
        let known: Vec<_> = self.talkers.iter().map(|talker| &talker.id).collect();
        let compared = |book: &Book| {
            let strangers: Vec<_> = book.arrived.keys().filter(|id| !known.contains(id)).collect();
            assert!(strangers.is_empty(), "from nobody we know: {strangers:?}");
            let written = |(of, text): &Said| (*of, book.collector.written(text));
            let of_each = self.talkers.iter().zip(said).map(|(talker, said)| {
                compare(talker, &said.iter().map(written).collect::<Vec<_>>(), &joined(talker.lines(book)))
            });
            let (missing, doubled): (Vec<_>, Vec<usize>) = of_each.unzip();
            Compared { missing, doubled: doubled.into_iter().sum() }
        };
        self.books.iter().map(compared).collect()
    }
}

impl Drop for Stage {
    /// Docker could not remove a container whose relay is away.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = try_docker(["start", &self.relay.container.name]);
        }
    }
}

/// The number in a counted line. A label may precede the text.
fn number(line: &Line) -> Option<usize> {
    str::from_utf8(&line.message).ok()?.rsplit_once("line ")?.1.parse().ok()
}

/// Returns the missing lines and the number of duplicates.
fn compare(talker: &Talker, said: &[Said], arrived: &[Said]) -> (Vec<Said>, usize) {
    let (expected, once) = (first_of_each(said), first_of_each(arrived));
    let [known, seen]: [BTreeSet<&Said>; 2] = [&expected, &once].map(|all| all.iter().copied().collect());
    let shown = |(of, text): &&&Said| format!("{of} {}", support::shown(&text[..text.len().min(200)]));
    let strange: Vec<_> = seen.difference(&known).take(5).map(|said| shown(&said)).collect();
    assert!(strange.is_empty(), "{}: nobody said {strange:#?}", talker.what);
    for severity in [3, 6] {
        let stream = |all: &[&Said]| -> Vec<Said> {
            all.iter().filter(|said| said.0 == severity && seen.contains(**said)).map(|said| (*said).clone()).collect()
        };
        assert!(stream(&expected) == stream(&once), "{}: severity {severity} is out of order", talker.what);
    }
    let missing: Vec<_> = said.iter().filter(|said| !seen.contains(said)).cloned().collect();
    let doubled = arrived.len() + missing.len() - said.len();
    (missing, doubled)
}

/// Drops repeated lines: a driver may send more than one empty piece.
fn first_of_each(all: &[Said]) -> Vec<&Said> {
    let mut seen = BTreeSet::new();
    all.iter().filter(|said| seen.insert(*said)).collect()
}
