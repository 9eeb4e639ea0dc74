//! Property tests of the invariants in `properties`.

use proptest::prelude::*;

use super::*;

/// Headers and parts of headers, so that random input gets past the first bytes.
fn likely_frame() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<&'static [u8]> = vec![
        b"<30>",
        b"<191>",
        b"<",
        b">",
        b"1 ",
        b"2026-11-20T22:28:47Z",
        b"2026-11-20T22:28:47.123456789+05:30",
        b" ",
        b"  ",
        b"Nov 20 22:28:47 ",
        b"Nov  8 2026 1:2:3",
        b"Feb 30 22:28:47 ",
        b"2026 ",
        b".321456789",
        b",321",
        b"+0100 ",
        b"CET ",
        b"PM",
        b"29: ",
        b"*",
        b"1w2d: ",
        b"%SYS-5-CONFIG_I: ",
        b"20:16Z ",
        b"2026-11-20T",
        b"host ",
        b"nginx:1.25/web/2a9052a5c36e",
        b"[7]: ",
        b"[",
        b"]",
        b": ",
        b":",
        b"-",
        b"- ",
        b" - ",
        b"web",
        b" 7 ",
        b"[a b=\"c\"]",
        b"[a b=\"",
        b"\\",
        b"\"",
        b"=",
        b"\n",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"\t",
        b"[docker@32473 name=\"",
        &[b' '; 5000],
        &[b'h'; 5000],
        b"[logferry@32473 cut=\"true\"]",
    ];
    let bit = prop_oneof![
        8 => proptest::sample::select(bits).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(bit, 0..14).prop_map(|bits| bits.concat())
}

/// Frames that share headers. Some imitate the header of another frame.
fn frames_in_a_row() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let stamps =
        ["Nov 20 22:28:47 ", "Nov 20 17:28:46 ", "Feb 30 22:28:47 ", "1 2026-11-20T22:28:47.123Z ", "1 x ", ""];
    let heads = [
        "nginx:1.25/web/2a9052a5c36e[7]: ",
        "nginx:1.25/web/2a9052a5c36e[8]: ",
        "nginx:1.25/web/2a9052a5c36e[7]:",
        "host nginx:1.25/web/2a9052a5c36e[7]: ",
        "host nginx:1.25/web/2a9052a5c36e 7 nginx:1.25/web/2a9052a5c36e - ",
        "host nginx:1.25/web/2a9052a5c36e 7 nginx:1.25/web/2a9052a5c36e -",
        "my app/web/2a9052a5c36e[7]: ",
        "su: job[1]: ",
        "job[1]: ",
        "- web 7 - - ",
        "h web 2a9052a5c36e - [docker@32473 name=\"web\"] ",
        "h web 2a9052a5c36e - [docker@32473 name=\"web\"]",
        "h web 7 web [docker@32473 name=\"web\"] ",
        "",
    ];
    let texts = ["", "a", " a", "\n", "nginx:1.25/web/2a9052a5c36e[7]: b", "- c", "[a b=\"c\"] d", "x[1]: y"];
    let (stamps, heads, texts) = (Vec::from(stamps), Vec::from(heads), Vec::from(texts));
    let parts = (proptest::sample::select(stamps), proptest::sample::select(heads), proptest::sample::select(texts));
    let frame = parts.prop_map(|(stamp, head, text)| format!("<30>{stamp}{head}{text}").into_bytes());
    proptest::collection::vec(frame, 2..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_carried(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: bool, received: i64) {
        properties::any_frame(&bytes, cut, received, 0);
    }

    /// The caches do not change the result.
    #[test]
    fn a_translator_that_remembers_says_the_same(frames in frames_in_a_row(), template in 0usize..3) {
        let template = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my {{.Command}} {{.Name}}", "{{.Name}}"][template];
        let settings = Settings { tag_templates: template.parse().unwrap(), ..Settings::default() };
        let settings = std::sync::Arc::new(settings);
        let mut remembers = Translator::new(settings.clone());
        for (n, bytes) in frames.iter().enumerate() {
            let frame = Frame { bytes, cut: n % 7 == 6, received: NOW };
            let (mut again, mut anew) = (Vec::new(), Vec::new());
            let known = remembers.find(&frame).map(|known| (known.text.to_vec(), known.facility(), known.severity()));
            let remembered = remembers.translate(&frame, &mut again);
            let mut forgets = Translator::new(settings.clone());
            let (message, shape) = forgets.read(&frame);
            if let Some((text, facility, severity)) = known {
                let record = &message.record;
                prop_assert_eq!((&text[..], facility, severity), (record.message.unwrap_or_default(), record.facility, record.severity));
                prop_assert!(record.container.is_some());
            }
            prop_assert_eq!(remembered, shape);
            message.write(&mut anew);
            prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&anew));
        }
    }

    #[test]
    fn likely_stamps_are_read(bytes in likely_frame(), choices: [u8; 5]) {
        stamp::properties::any_bytes(&[&choices[..], &bytes].concat());
    }

    #[test]
    fn spelled_stamps_are_read(choices in proptest::collection::vec(any::<u8>(), 5..40)) {
        stamp::properties::any_bytes(&choices);
    }

    #[test]
    fn likely_bytes_are_carried(bytes in likely_frame(), cut: bool, template in 0usize..3) {
        properties::any_frame(&bytes, cut, NOW.0, template);
    }
}

/// The relay turns a stamp that is not Docker's into a valid one, and the tag after it occurs twice. The next relay must read the same
/// message.
#[test]
fn what_looks_like_docker_s_once_its_stamp_is_mended_stays_what_it_is() {
    let blank_tag = 1;
    for frame in [
        "<30>1 2026-11-20T22:34:3 h\u{fc}st my app 11766 my app - hello",
        "<30>1 2026-11-20T22:34 host a[1]: b 7 a[1]: b - x",
    ] {
        properties::any_frame(frame.as_bytes(), false, NOW.0, blank_tag);
    }
}
