//! One end of a RELP session under the test's control. Shares no code with the relay.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use super::{Door, PATIENCE, eventually, own_address};

/// A collector that accepts connections on demand.
pub struct RelpCollector(TcpListener);

/// A RELP session; the relay is the other end.
pub struct RelpPeer(BufReader<TcpStream>);

#[derive(Debug, PartialEq, Eq)]
pub struct RelpFrame {
    pub txnr: u32,
    pub command: String,
    pub data: Vec<u8>,
}

impl RelpCollector {
    pub fn new() -> Self {
        Self::on(own_address())
    }

    pub fn on(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        Self(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    pub fn url(&self) -> String {
        format!("relp://{}", self.address())
    }

    /// The next connection.
    #[track_caller]
    pub fn accepts(&self) -> RelpPeer {
        let (stream, _) = eventually("the relay connects", || self.0.accept().ok());
        stream.set_nonblocking(false).expect("a socket option");
        RelpPeer::on(stream)
    }

    /// The next connection, with its session opened like rsyslog's.
    #[track_caller]
    pub fn opens(&self) -> RelpPeer {
        self.opens_with(|_| "relp_version=0\nrelp_software=1.11.0,librelp\ncommands=syslog".to_owned())
    }

    /// The next connection, with its session opened like logferry's: the collector accepts every offer.
    #[track_caller]
    pub fn opens_numbered(&self) -> RelpPeer {
        self.opens_with(str::to_owned)
    }

    #[track_caller]
    fn opens_with(&self, offers: impl FnOnce(&str) -> String) -> RelpPeer {
        let mut peer = self.accepts();
        let open = peer.frame().expect("a frame");
        assert_eq!((open.txnr, open.command.as_str()), (1, "open"));
        let offers = offers(std::str::from_utf8(&open.data).expect("ASCII"));
        peer.answers(1, &format!("200 OK\n{offers}"));
        peer
    }
}

impl RelpPeer {
    fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self(BufReader::new(stream))
    }

    #[track_caller]
    pub fn connects(door: &Door) -> Self {
        let Door::Relp(at) = door else { panic!("{door:?} is not for RELP") };
        Self::on(TcpStream::connect(at).expect("the relay accepts"))
    }

    /// A connection whose session is opened like rsyslog's.
    #[track_caller]
    pub fn opened(door: &Door) -> Self {
        let mut peer = Self::connects(door);
        peer.says(1, "open", b"relp_version=0\nrelp_software=librelp,1.11.0\ncommands=syslog");
        let answer = peer.frame().expect("an answer");
        assert!(answer.txnr == 1 && answer.is_ok(), "{answer:?}");
        peer
    }

    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    #[track_caller]
    pub fn sends(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the relay reads");
    }

    #[track_caller]
    pub fn says(&mut self, txnr: u32, command: &str, data: &[u8]) {
        self.sends(&frame(txnr, command, data));
    }

    #[track_caller]
    pub fn answers(&mut self, txnr: u32, text: &str) {
        self.says(txnr, "rsp", text.as_bytes());
    }

    /// The next frame; `None` when the relay has ended the connection.
    #[track_caller]
    pub fn frame(&mut self) -> Option<RelpFrame> {
        let txnr = self.word()?;
        let command = self.word()?;
        let mut length = String::new();
        let end = loop {
            match self.byte()? {
                digit @ b'0'..=b'9' => length.push(char::from(digit)),
                end => break end,
            }
        };
        let mut data = vec![0; length.parse().expect("a length")];
        if !data.is_empty() {
            assert_eq!(end, b' ');
            self.0.read_exact(&mut data).ok()?;
        }
        let end = if end == b' ' { self.byte()? } else { end };
        assert_eq!(end, b'\n', "a frame ends with LF");
        Some(RelpFrame { txnr: txnr.parse().expect("a number"), command, data })
    }

    /// The next `count` frames; fails if the connection ends before.
    #[track_caller]
    pub fn frames(&mut self, count: usize) -> Vec<RelpFrame> {
        (0..count).map(|_| self.frame().expect("one more frame")).collect()
    }

    /// Fails unless the relay has ended the connection without another frame.
    #[track_caller]
    pub fn is_over(&mut self) {
        assert_eq!(self.frame(), None);
    }

    fn word(&mut self) -> Option<String> {
        let mut word = Vec::new();
        self.until(b' ', &mut word)?;
        Some(String::from_utf8(word).expect("ASCII"))
    }

    #[track_caller]
    fn until(&mut self, end: u8, word: &mut Vec<u8>) -> Option<()> {
        let read = self.0.read_until(end, word);
        self.check(&read);
        (read.ok()? > 0 && word.pop() == Some(end)).then_some(())
    }

    #[track_caller]
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        let read = self.0.read(&mut byte);
        self.check(&read);
        (read.ok()? == 1).then_some(byte[0])
    }

    /// A reset counts as the end of the connection; a timeout fails the test.
    #[track_caller]
    fn check(&self, read: &std::io::Result<usize>) {
        let waited = read.as_ref().err().is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!waited, "nothing came for {PATIENCE:?}, and the connection is open");
    }
}

impl RelpFrame {
    pub fn is_ok(&self) -> bool {
        self.command == "rsp" && self.data.starts_with(b"200 OK")
    }
}

pub fn frame(txnr: u32, command: &str, data: &[u8]) -> Vec<u8> {
    let blank: &[u8] = if data.is_empty() { b"" } else { b" " };
    [format!("{txnr} {command} {}", data.len()).as_bytes(), blank, data, b"\n"].concat()
}
