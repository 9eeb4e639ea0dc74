//! Frames: which bytes are a frame, and that cuts of the stream do not change it.

use super::*;
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> (Vec<properties::Frame>, properties::End) {
    properties::frames(bytes, 100, [])
}

#[test]
fn frames_are_found() {
    let bytes = b"1 open 14 relp_version=0\n2 syslog 5 <13>a\n3 close 0\n0 serverclose 0\n4 rsp 0 \n5 nonsense 1 x\n";
    let found = decode(bytes).0;
    assert_eq!(found[0], (1, Command::Open, b"relp_version=0".to_vec(), false));
    assert_eq!(found[1], (2, Command::Syslog, b"<13>a".to_vec(), false));
    let commands: Vec<_> = found.iter().map(|(txnr, command, ..)| (*txnr, *command)).collect();
    assert_eq!(
        commands[2..],
        [(3, Command::Close), (0, Command::Serverclose), (4, Command::Rsp), (5, Command::Unknown)]
    );
}

#[test]
fn what_is_no_relp_is_said() {
    let bad = |bytes: &[u8]| assert_eq!(decode(bytes).1, properties::End::Bad, "{}", bytes.escape_ascii());
    bad(b"<13>Oct 11 22:14:15 mymachine su: hello\n");
    bad(b"1234567890 syslog 1 x\n");
    bad(b"1 syslog 1234567890 x\n");
    bad(b"1 syslog x\n");
    bad(b"1  1 x\n");
    bad(b"1 syslog 1 xy\n");
    bad(b"1 syslog 1\n");
    bad(b"1 a-command 1 x\n");
    bad(&[b"1 ".as_slice(), &[b'a'; 40], b" 1 x\n"].concat());
}

fn every_two_cuts(stream: &[u8], limit: usize) {
    for first in 0..=stream.len() {
        for second in 0..=stream.len() - first {
            properties::any_cut(stream, limit, &[first, second]);
        }
    }
}

/// Every pair of cuts of some frames, one of them beyond the limit, and then with bytes behind them that are not RELP.
#[test]
fn frames_do_not_depend_on_the_cuts() {
    let bytes = b"1 open 3 a=b\n999999999 syslog 12 0123456789\nx\n0 serverclose 0\n7 rsp 6 200 OK\n8 syslog 0\n";
    for limit in [0, 3, 6, 12, 100] {
        let (found, end) = properties::frames(bytes, limit, []);
        assert_eq!((found.len(), end), (5, properties::End::Whole));
        assert_eq!(found[1].3, limit < 12);
        every_two_cuts(bytes, limit);
        every_two_cuts(b"1 syslog 2 ab\n1 syslog 2 abc\n", limit);
        every_two_cuts(b"1 rsp 0 \n2 rsp 1 \n\n1234567890 rsp 0\n", limit);
    }
}

#[test]
fn transactions_begin_anew_after_the_last() {
    let mut transactions = Transactions(LAST_TXNR - 1);
    assert_eq!([transactions.next_number(), transactions.next_number(), transactions.next_number()], [LAST_TXNR, 1, 2]);
}

#[test]
fn offers_are_understood_and_others_ignored() {
    let ours = Offers { stream: Some("0123/central".to_owned()), ..Offers::default() };
    let mut written = Vec::new();
    ours.write(&mut written);
    assert_eq!(Offers::read(&written), ours);
    let rsyslog = b"200 OK\nrelp_version=0\nrelp_software=1.11.0,librelp,http://librelp.adiscon.com\ncommands=syslog";
    assert_eq!(Offers::read(rsyslog), Offers::default());
    assert_eq!(Offers::read(b"commands=syslog\nstream=a"), Offers::default());
    assert_eq!(Offers::read(b"commands=numbered\nstream=a b"), Offers::default());
    assert_eq!(Offers::read(&[b"commands=numbered\nstream=".as_slice(), &[b'x'; 200]].concat()), Offers::default());
}

#[test]
fn a_proof_is_offered_and_understood() {
    let ours = Offers {
        stream: Some("0123/central".to_owned()),
        key: Some([1; 32]),
        nonce: Some([0xab; 32]),
        proof: Some([255; 64]),
    };
    let mut written = Vec::new();
    ours.write(&mut written);
    assert_eq!(Offers::read(&written), ours);
    assert!(written.len() < 512, "a session that is not open is read only so far");
    let short = Offers::read(b"commands=numbered\nstream=a\nkey=01\nnonce=xy\nproof=");
    assert_eq!(short, Offers { stream: Some("a".to_owned()), ..Offers::default() });
    // An offer cannot claim to be proven.
    assert_eq!(Offers::read(b"commands=numbered\nstream=key:0123/central").stream, None);
}

#[test]
fn answers_are_judged() {
    assert_eq!(is_ok(b"200 OK"), Ok(()));
    assert_eq!(is_ok(b"500 no\x1b such\ncommand"), Err("500 no such".to_owned()));
    assert!(is_ok(b"").is_err());
}

#[test]
fn a_numbered_frame_must_hold_what_it_says() {
    let bad = |data: &[u8]| assert!(Numbered::read(data).is_err(), "{}", data.escape_ascii());
    bad(b"");
    bad(b"1 2");
    bad(b"1\n1 a");
    bad(b"4294967296 2\n1 a");
    bad(b"1 18446744073709551615\n1 a");
    bad(b"1 2\n2 a");
    bad(b"1 2\n0 1 a");
    bad(b"1 2\n1a");
    bad(b"-1 2\n1 a");
}

/// Frames, and bytes that nearly are frames.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let commands = COMMANDS.map(|(name, _)| name).into_iter().chain(["", "x", "two words"]).collect::<Vec<_>>();
    let frame = (0..1000u32, prop::sample::select(commands), prop::collection::vec(any::<u8>(), 0..30));
    let piece = prop_oneof![
        8 => frame.prop_map(|(txnr, command, data)| {
            let mut bytes = Vec::new();
            append(txnr, command, &data, &mut bytes);
            bytes
        }),
        1 => "[0-9 a-z\n]{0,4}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        frames in prop::collection::vec((0..=LAST_TXNR, prop::collection::vec(any::<u8>(), 0..50)), 0..8),
    ) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(txnr, data)| append(*txnr, "syslog", data, &mut bytes));
        let (found, end) = properties::frames(&bytes, 50, []);
        prop_assert_eq!(end, properties::End::Whole);
        let expected: Vec<_> = frames.into_iter().map(|(txnr, data)| (txnr, Command::Syslog, data, false)).collect();
        prop_assert_eq!(found, expected);
    }

    /// Every pair of cuts of any stream.
    #[test]
    fn cuts_do_not_matter(stream in streams(), limit in 0..40usize) {
        every_two_cuts(&stream, limit);
    }

    #[test]
    fn numbered_lines_come_back(
        session in any::<u32>(),
        first in 0..u64::MAX / 2,
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
    ) {
        let mut data = Vec::new();
        Numbered::write(session, first, lines.iter().map(Vec::as_slice), &mut data);
        let read = Numbered::read(&data).expect("what was written");
        prop_assert_eq!((read.session, read.first_line), (session, first));
        let back: Vec<_> = read.lines().map(|line| line.expect("checked").to_vec()).collect();
        prop_assert_eq!(back, lines);
    }

    #[test]
    fn neither_do_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::any_bytes(&data);
    }
}
