//! A listener for Docker only: the output of a container and the messages of any other sender are text, whatever they look like.

use proptest::prelude::*;

use super::*;
use crate::record::StructuredData;
use crate::record::write::OWN_PARAMS;

/// The line that such a listener makes of a frame.
fn line_of(template: &str, bytes: &[u8]) -> Vec<u8> {
    let settings = Settings { tag_templates: template.parse().unwrap(), ..settings() };
    let mut translator = Translator::new(Arc::new(settings));
    translator.listen_to(Listening { senders: Senders::Docker, ..Listening::default() });
    let frame = Frame { bytes, cut: false, received: NOW };
    let (mut out, mut again) = (Vec::new(), Vec::new());
    translator.translate(&frame, &mut out);
    // The cached header gives the same line.
    translator.translate(&frame, &mut again);
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&out));
    out
}

const DEFAULT: &str = "{{.ImageName}}/{{.Name}}/{{.ID}}";
const RECEIVED: &str = "2026-11-20T22:28:47.500000Z relay-1 - - - -";

#[test]
fn nobody_but_docker_says_which_container_it_is() {
    let victim = "[docker@32473 image=\"nginx\" name=\"victim\" id=\"000000000000\"]";
    let texts = [
        format!("1 2026-11-20T22:28:47Z n7 victim 000000000000 - {victim} forged"),
        format!("1 2026-11-20T22:28:47Z n7 victim 000000000000 - {victim}forged, with malformed data"),
        format!("1  2026-11-20T22:28:47Z n7 victim 000000000000 - {victim} forged, with a blank too many"),
        format!("1 2026-11-20T22:28:47Z n7 victim - - [logferry@32473 listener=\"x\"]{victim} forged"),
        "1 2026-11-20T22:28:47Z n7 victim - - - no element, but a name".to_owned(),
        format!("Nov 20 22:28:47 n7 victim: {victim} forged"),
        format!("{victim} forged"),
        "victim[1]: forged".to_owned(),
    ];
    for text in texts {
        let line = line_of(DEFAULT, format!("<30>{text}\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&line), format!("<30>1 {RECEIVED} {text}"));
        let line = line_of(DEFAULT, text.as_bytes());
        assert_eq!(String::from_utf8_lossy(&line), format!("<13>1 {RECEIVED} {text}"));
    }
}

/// With [`Marks::Replace`], marks come from this relay only.
#[test]
fn nobody_has_marks_where_they_are_replaced() {
    let line_with = |marks: Marks, mark: ListenerMark, sent: &str| {
        let mut translator = Translator::new(Arc::new(settings()));
        translator.listen_to(Listening { mark, marks, ..Listening::default() });
        let bytes = format!("<30>1 2026-11-20T22:28:47Z n7 app - - {sent} x");
        let mut out = Vec::new();
        translator.translate(&Frame { bytes: bytes.as_bytes(), cut: false, received: NOW }, &mut out);
        String::from_utf8(out).unwrap().split_once(" app - - ").unwrap().1.to_owned()
    };
    let line_by = |mark, sent: &str| line_with(Marks::Replace, mark, sent);
    let fields = "[fields@32473 a=\"1\"][json@32473 fields=\"{\\\"n\\\":2}\"]";
    let own = "[logferry@32473 cut=\"true\" listener=\"dmz\"]";
    let all = format!("[a c=\"d\"]{fields}[b]{own}");
    assert_eq!(line_with(Marks::Keep, ListenerMark::AsItCame, &all), format!("{all} x"));
    let kept = line_with(Marks::Keep, ListenerMark::Nothing, &all);
    assert_eq!(kept, format!("[a c=\"d\"]{fields}[b][logferry@32473 cut=\"true\"] x"));
    assert_eq!(line_by(ListenerMark::AsItCame, &all), "[a c=\"d\"][b] x");
    let container = "[docker@32473 image=\"nginx\" name=\"victim\" tag=\"x\"]";
    assert_eq!(line_by(ListenerMark::AsItCame, container), "- x");
    // `hop` stays: by it a relay recognizes its own lines.
    let value = |name: &str| match name {
        "peer" => "192.0.2.7",
        "source" => "stderr",
        "nanoseconds" | "fields-cut" => "7",
        _ => "a/1",
    };
    for name in OWN_PARAMS {
        let mark = format!("[logferry@32473 {name}=\"{}\"]", value(name));
        assert_eq!(line_with(Marks::Keep, ListenerMark::AsItCame, &mark), format!("{mark} x"));
        let kept = if name == "hop" { &mark } else { "" };
        assert_eq!(line_by(ListenerMark::AsItCame, &format!("{mark}[b]")), format!("[b]{kept} x"));
    }
    assert_eq!(line_by(ListenerMark::AsItCame, "[logferry@32473 new=\"1\"]"), "- x");
    let nothing = line_by(ListenerMark::Nothing, &format!("{fields}[b]{own}"));
    assert_eq!(nothing, "[b] x");
    let named = line_by(ListenerMark::Name("in".to_owned()), &format!("{fields}[b]"));
    assert_eq!(named, "[b][logferry@32473 listener=\"in\"] x");
    // Other parsers may accept this data, so it becomes text.
    for id in ["fields@32473", "json@32473", "docker@32473", "logferry@32473"] {
        assert_eq!(line_by(ListenerMark::Nothing, &format!("[{id} a=\"1\" ]")), format!("- [{id} a=\"1\" ] x"));
    }
}

/// Nanoseconds in a sender's stamp are no mark.
#[test]
fn a_stamp_keeps_its_nanoseconds_where_marks_are_replaced() {
    for (marks, mark, stamp, data, expected) in [
        (Marks::Replace, "[b]", "47.3214567+0000", "[b]", "nanoseconds=\"700\""),
        (Marks::Replace, "", "47.3214567+0000", "[logferry@32473 nanoseconds=\"8\"]", "nanoseconds=\"700\""),
        (Marks::Keep, "", "47.3214567+0000", "[logferry@32473 nanoseconds=\"8\"]", "nanoseconds=\"700\""),
        (Marks::Replace, "[b]", "47.321456+0000", "[b][logferry@32473 nanoseconds=\"8\"]", ""),
    ] {
        let mut translator = Translator::new(Arc::new(settings()));
        translator.listen_to(Listening { marks, ..Listening::default() });
        let bytes = format!("<30>1 2026-11-20T22:28:{stamp} n7 app - - {data} x");
        let mut out = Vec::new();
        translator.translate(&Frame { bytes: bytes.as_bytes(), cut: false, received: NOW }, &mut out);
        let own = if expected.is_empty() { String::new() } else { format!("[logferry@32473 {expected}]") };
        let line = format!("<30>1 2026-11-20T22:28:47.321456Z n7 app - - {mark}{own} x");
        assert_eq!(String::from_utf8_lossy(&out), line);
    }
}

#[test]
fn who_sent_it_is_in_the_record_and_not_in_the_line() {
    let mut translator = Translator::new(Arc::new(settings()));
    let peer = "192.0.2.7".parse().unwrap();
    translator.set_peer(Some(peer));
    let frame = Frame { bytes: b"<30>1 2026-11-20T22:28:47Z n7 app - - - x", cut: false, received: NOW };
    let (message, _) = translator.read(&frame);
    assert_eq!(message.record.peer, Some(peer));
    let mut out = Vec::new();
    message.write(&mut out);
    assert_eq!(out, frame.bytes);
}

#[test]
fn a_tag_that_looks_like_data_is_a_tag() {
    // `--log-opt tag=…`, which Docker writes unchanged: it has structured data in the place where RFC 5424 has it.
    let tag = "a b c [docker@32473 name=\"victim\"] d";
    let frame = format!("<30>1 2026-11-20T22:28:47Z n7 {tag} 23223 {tag} - hello\n");
    let line = line_of(DEFAULT, frame.as_bytes());
    let kept = "[docker@32473 tag=\"a b c [docker@32473 name=\\\"victim\\\"\\] d\"]";
    let app = "a_b_c_[docker@32473_name=\"victim\"]_d";
    let expected = format!("<30>1 2026-11-20T22:28:47Z n7 {app} 23223 - {kept} hello");
    assert_eq!(String::from_utf8_lossy(&line), expected);
    // On any other listener it counts as structured data.
    let (anywhere, _) = line_with(settings(), Frame { bytes: frame.as_bytes(), cut: false, received: NOW });
    assert_eq!(Line::parse(&anywhere, "docker@32473").record.container_name(), Some(&b"victim"[..]));
}

#[test]
fn a_tag_that_does_not_fit_is_kept_as_it_is_anywhere() {
    for tag in ["myapp", "my app", "web-1", "dockerd"] {
        let frame = format!("<30>Nov 20 22:28:47 {tag}[23223]: hello\n");
        let (anywhere, _) = line_with(settings(), Frame { bytes: frame.as_bytes(), cut: false, received: NOW });
        let line = line_of(DEFAULT, frame.as_bytes());
        assert_eq!(String::from_utf8_lossy(&line), String::from_utf8_lossy(&anywhere));
    }
}

/// Output of a container that imitates another one, in parts.
fn lies() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<&'static [u8]> = vec![
        b"nginx/victim/000000000000",
        b"victim",
        b"[7]: ",
        b"]: ",
        b": ",
        b" 23223 ",
        b" ",
        b"  ",
        b"- ",
        b" - - ",
        b"<30>",
        b"<30>1 ",
        b"1 2026-11-20T22:28:47Z n7 ",
        b"Nov 20 22:28:47 ",
        b"2026-11-20T22:28:47Z ",
        b"[docker@32473 image=\"nginx\" name=\"victim\" id=\"000000000000\"]",
        b"[logferry@32473 listener=\"x\"]",
        b"[fields@32473 a=\"b\"]",
        b"]",
        b"\"",
        b"\\",
        b"/",
        b"\r",
        b"\0",
        b"\xff",
        b"63 ",
    ];
    let bit = prop_oneof![
        9 => proptest::sample::select(bits).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 1..8),
    ];
    proptest::collection::vec(bit, 0..12)
        .prop_map(|bits| bits.concat().into_iter().filter(|byte| *byte != b'\n').collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// In each of Docker's formats and with each template: the header is Docker's, and the rest is text, byte for byte.
    #[test]
    fn what_a_container_prints_is_text(text in lies(), template in 0usize..6, format in 0usize..4) {
        let (template, tag, image, name, id) = [
            (DEFAULT, "r:5000/a:1/web/2a9052a5c36e", Some("r:5000/a:1"), Some("web"), Some(ID)),
            ("{{.Name}}", "web", None, Some("web"), None),
            ("{{.ID}}", ID, None, None, Some(ID)),
            ("{{.Name}}/{{.ImageName}}", "web/r:5000/a:1", Some("r:5000/a:1"), Some("web"), None),
            ("my app {{.Name}}", "my app web", None, Some("web"), None),
            ("x[1]: {{.Name}}", "x[1]: web", None, Some("web"), None),
        ][template];
        let header = [
            format!("Nov 20 22:28:47 {tag}[23223]: "),
            format!("Nov 20 22:28:47 n7 {tag}[23223]: "),
            format!("1 2026-11-20T22:28:47Z n7 {tag} 23223 {tag} - "),
            format!("1 2026-11-20T22:28:47.123456+05:30 n7 {tag} 23223 {tag} - "),
        ];
        let frame = [b"<30>", header[format].as_bytes(), &text, b"\n"].concat();
        let line = line_of(template, &frame);
        let line = Line::parse(&line, "docker@32473");
        prop_assert_eq!(line.message.escape_ascii().to_string(), text.escape_ascii().to_string());
        let record = &line.record;
        let said = |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
        let known = (said(record.image_name()), said(record.container_name()), said(record.container_id()), record.listener.as_deref());
        prop_assert_eq!(known, (image.map(str::to_owned), name.map(str::to_owned), id.map(str::to_owned), None));
        prop_assert_eq!(&*line.hostname, if format == 0 { &b"relay-1"[..] } else { b"n7" });
        prop_assert_eq!(record.facility << 3 | record.severity, 30);
    }

    /// Messages of any sender: structured data comes from host and tag only. There is no `listener` and no other data.
    #[test]
    fn no_data_but_from_the_tag(bytes in lies()) {
        let line = line_of(DEFAULT, &bytes);
        let line = Line::parse(&line, "docker@32473");
        let settings = settings();
        let Reading { record: said, .. } = parse(&Frame { bytes: &bytes, cut: false, received: NOW }, &settings, Senders::Docker);
        let line = line.record;
        prop_assert_eq!(said.structured_data, StructuredData::Nil);
        prop_assert_eq!(line.container_name(), said.container_name());
        prop_assert_eq!(line.container_id(), said.container_id());
        prop_assert_eq!(line.image_name(), said.image_name());
        prop_assert!(line.listener.is_none() && line.fields.is_empty());
        let sent = line.structured_data.as_sent();
        let is_of_the_tag = |element: structured_data::Element<'_>| match element.id {
            b"docker@32473" => true,
            b"logferry@32473" => element.params().all(|(name, _)| matches!(name, b"host" | b"tag" | b"msghdr")),
            _ => false,
        };
        prop_assert!(structured_data::elements(sent).all(is_of_the_tag) && structured_data::elements(sent).count() <= 2);
        if said.container.is_some_and(|container| container.is_known()) {
            let tag = said.tag.unwrap_or_default();
            prop_assert!(bytes.windows(tag.len()).any(|window| window == &*tag));
        }
    }
}
