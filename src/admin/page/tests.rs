use askama::filters::{Html, escape};

use super::*;
use crate::admin::letters::Letter;
use crate::admin::status::{Container, Forward, Listener, OldKeys, RefusedPeer, Said, Spool, Standstill, TimeSeries};

const HOSTILE: &str = "</td></main><script>alert('x')</script><img src=x onerror=\"y\">&";

/// A status in which every text from outside is hostile.
fn hostile() -> Status {
    let text = || HOSTILE.to_owned();
    let (time, address) = (text(), Some(text()));
    let refused = || RefusedPeer {
        times: 1,
        time: time.clone(),
        seconds_ago: 8,
        address: address.clone(),
        reason: "plaintext",
        text: text(),
    };
    Status {
        version: "0",
        hostname: text(),
        time: text(),
        uptime_seconds: 1,
        ready: false,
        received_per_second: 1.5,
        delivered_per_second: 0.0,
        spool: Spool { writable: false, trouble: Some(text()), bytes: 1, max_bytes: 0, spooled: 0, held: 3, errors: 1 },
        forwards: vec![Forward {
            name: text(),
            to: vec![text(), text()],
            state: State::Stalled,
            state_seconds: 5,
            target: Some(text()),
            address: Some(text()),
            ttl_left_seconds: Some(4),
            last_error: Some(Said { time: text(), seconds_ago: 7, text: text() }),
            last_answer: Some(Said { time: text(), seconds_ago: 7, text: text() }),
            last_rejected: Some(Said { time: text(), seconds_ago: 7, text: text() }),
            requests: [("delivered", 3)].into(),
            pending: 1234,
            replayable: 5,
            oldest_pending_seconds: Some(60),
            delivered: 1_234_567,
            filtered: 0,
            rejected: 0,
            dead_letters: [("refused", 1)].into(),
            dead_letter_bytes: 0,
            resent: 0,
            resend_pending: 0,
            connects: 1,
            moves: 0,
            failbacks: 0,
            old: OldKeys::default(),
        }],
        listeners: vec![Listener {
            name: Some(text()),
            address: text(),
            received: 5,
            bytes: 6,
            connections: 7,
            max_connections: Some(8),
            accepted: 8,
            last_refused: Some(refused()),
            refused_peers: vec![refused()],
        }],
        containers: vec![Container { name: text(), received: 9, limited: 4 }],
        other_containers: 10,
        losses: vec![
            Loss { reason: "evicted", place: Some(text()), count: 11, unit: "lines", says: "why".into() },
            Loss { reason: "evicted", place: Some("another".to_owned()), count: 0, unit: "lines", says: "why".into() },
            Loss { reason: "full", place: None, count: 0, unit: "lines", says: "why".into() },
        ],
        standstills: vec![Standstill { part: text(), waits_for: text(), seconds: 3 }],
        mistakes: vec![text()],
        history: TimeSeries {
            every_seconds: 2,
            received_per_second: vec![1.0, 2.0],
            delivered_per_second: vec![0.0, 0.0],
            pending: vec![3, 4],
            waiting: vec![3, 4],
        },
    }
}

#[test]
fn no_text_from_outside_is_markup() {
    let page = render(&hostile(), true);
    let harmless = escape(HOSTILE, Html).expect("text").to_string();
    assert!(!harmless.contains(['<', '>', '"', '\'']) && !page.contains("onerror=\""), "{page}");
    // The page has one script and one end of <main>, which are its own.
    assert_eq!((page.matches("<script").count(), page.matches("</main>").count()), (1, 1), "{page}");
    let shown = page.matches(&harmless).count();
    assert_eq!(shown, 21, "each of them is shown: {page}");
}

#[test]
fn no_text_of_a_dead_letter_is_markup() {
    let text = || HOSTILE.to_owned();
    let letter = || Letter { time: text(), number: 7, who: text(), why: text() };
    let of = |letters| ForwardLetters { forward: text(), bytes: 1, letters };
    let page = dead_letters(HOSTILE, vec![of(Ok(vec![letter()])), of(Ok(Vec::new())), of(Err(text()))]);
    let harmless = escape(HOSTILE, Html).expect("text").to_string();
    assert!(!page.contains("onerror=\"") && page.matches("</main>").count() == 1, "{page}");
    assert_eq!(page.matches(&harmless).count(), 2 + 3 + 3 + 2 + 1, "each of them is shown: {page}");
}

#[test]
fn numbers_are_said_as_people_read_them() {
    assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([rate(0.0), rate(0.4), rate(9.0), rate(1234.6)], ["0", "0.4", "9", "1,235"]);
    assert_eq!([size(0), size(1023), size(1536), size(1 << 30)], ["0 B", "1023 B", "1.5 KiB", "1 GiB"]);
    let spans = [0, 59, 61, 3599, 3661, 86_399, 90_000, 864_000].map(span);
    assert_eq!([120, 7200, 172_800].map(span), ["2 min", "2 h", "2 d"]);
    assert_eq!(spans, ["0 s", "59 s", "1 min 1 s", "59 min", "1 h 1 min", "23 h", "1 d 1 h", "10 d"]);
}

#[test]
fn zero_rows_are_folded() {
    let page = render(&hostile(), true);
    assert!(page.contains("1 kind of loss that never happened</summary><p>full</p>"), "{page}");
    assert!(!page.contains("another"));
    let nothing = Status { losses: hostile().losses.split_off(1), ..hostile() };
    assert!(render(&nothing, false).contains("Nothing was dropped."));
}

#[test]
fn the_policy_lets_in_our_style_and_our_script_and_nothing_else() {
    for (directive, text) in [("style-src", STYLE), ("script-src", SCRIPT), ("script-src", TAIL_SCRIPT)] {
        let hash = format!("'sha256-{}'", base64(&sha256(text.as_bytes())));
        let allowed = POLICY.split(';').find(|part| part.trim_start().starts_with(directive));
        assert!(allowed.is_some_and(|allowed| allowed.contains(&hash)), "{directive} must say {hash}");
    }
    assert!(POLICY.starts_with("default-src 'none';"));
    // `</` could end the element, and then the hash would not match.
    assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !TAIL_SCRIPT.contains("</"));
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let rustls::SupportedCipherSuite::Tls13(suite) = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
    else {
        panic!("it is one of TLS 1.3");
    };
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let number = (0..3).fold(0, |number, at| number << 8 | usize::from(*chunk.get(at).unwrap_or(&0)));
        let digit = |at: usize| char::from(DIGITS[number >> (18 - 6 * at) & 63]);
        (0..4).map(|at| if at <= chunk.len() { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
