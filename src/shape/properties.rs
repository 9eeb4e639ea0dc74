//! The properties that hold for any text of a container, for a test and a fuzz target.

use std::sync::LazyLock;

use super::{Adding, Known, Mask, MaskPattern, Parser, Pattern, Secret, Shape, Shaped, Steps, Tally, Trace};
use crate::record::template::AddedField;
use crate::record::{Patterns, Record};

const SD_ID: &str = "docker@32473";

/// The patterns are compiled only once.
static PARSERS: LazyLock<Vec<Parser>> = LazyLock::new(|| {
    let names = ["label", "json", "logfmt"].into_iter().chain(Pattern::names());
    names.map(|name| name.parse().expect("a parser")).collect()
});
static MASKS: LazyLock<Vec<Mask>> = LazyLock::new(masks);

/// Shapes a text. The first byte chooses the steps.
pub fn any_bytes(data: &[u8]) {
    let [choice, text @ ..] = data else { return };
    let has = |bit: u8| choice >> bit & 1 == 1;
    let name = |name: &str, bit| has(bit).then(|| name.to_owned());
    let steps = Steps {
        parse: PARSERS.clone(),
        parse_pattern: None,
        prefix: name("p ]\"", 0),
        drop_fields: if has(1) {
            Patterns::new(vec!["b*".to_owned()]).expect("a pattern")
        } else {
            Patterns::default()
        },
        rename: vec![("a".to_owned(), "c=".to_owned())],
        time_from: name("time", 2),
        severity_from: name("level", 3),
        message_from: name("message", 4),
        guess_severity: has(5),
        flatten: has(5),
        masks: if has(7) { MASKS.clone() } else { Vec::new() },
        add: if has(6) { added() } else { Vec::new() },
        ..Steps::default()
    };
    let shape = Shape::new(steps, Vec::new(), SD_ID);
    let line = [b"<14>1 2026-11-28T17:01:58Z node-7 web 2a9052a5c36e - [a@1 b=\"c\"] ", text].concat();
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    let shaped = shape.apply(&line, &mut out, &mut tally);
    assert_eq!(shaped == Shaped::Changed, !out.is_empty());
    // A trace does not change the result.
    let (mut noted, mut counted, mut trace) = (Vec::new(), Tally::default(), Trace::default());
    assert_eq!(shape.trace(&line, &mut noted, &mut counted, &mut trace), shaped);
    assert_eq!((&noted, counted), (&out, tally));
    assert_eq!(
        (trace.parsed_as.is_some(), trace.masked.is_empty()),
        (tally.misread.form + tally.misread.limit + tally.misread.duplicate == 0, tally.masked == 0)
    );
    let [before, after] = [&line, if out.is_empty() { &line } else { &out }].map(|line| Record::from_line(line, SD_ID));
    // Everything else stays as it was.
    assert_eq!((before.facility, before.hostname, before.proc_id), (after.facility, after.hostname, after.proc_id));
    assert_eq!((before.structured_data.as_sent().is_empty(), after.message.is_some()), (false, true));
    if !has(4) && !has(7) {
        assert_eq!(before.message, after.message);
    }
    if !has(2) {
        assert_eq!(before.time(), after.time());
    }
    assert!(after.time().is_some());
    crate::record::properties::any_line(if out.is_empty() { &line } else { &out }, SD_ID);
    // A shape without steps leaves the shaped line as it is.
    let again = Shape::of_rules(Vec::new(), SD_ID);
    assert_eq!(again.apply(&out, &mut Vec::new(), &mut tally), Shaped::AsItIs);
}

fn added() -> Vec<(AddedField, Adding)> {
    [("env", "prod", Adding::IfMissing), ("a", "{label.level}-{name}", Adding::Always), ("b", "x", Adding::ByTheStore)]
        .map(|(name, value, adding)| (AddedField::new(name, value).expect("a field"), adding))
        .to_vec()
}

fn masks() -> Vec<Mask> {
    let known = [Known::CardNumber, Known::Email, Known::BearerToken, Known::AwsKey, Known::PrivateKey];
    let pattern = MaskPattern::new("(?i)(password|token)=\\S+").expect("a pattern");
    let secrets = known.map(Secret::Known).into_iter().chain([Secret::Pattern(pattern)]);
    secrets.map(|what| Mask { what, with: "]\"\\".to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_shaped(choice: u8, text in r#"(\{|time=|level=|E1128 |)[ -~\n\x00\u{fc}\u{ffff}]{0,80}[}"]?"#) {
            any_bytes(&[&[choice], text.as_bytes()].concat());
        }

        #[test]
        fn any_object_is_shaped(choice: u8, members in proptest::collection::vec(("[a-z\"\\\\ ]{0,7}", "[ -~\u{fc}]{0,20}", 0..3), 0..9)) {
            let member = |(name, text, kind): &(String, String, i32)| {
                let text = serde_json::to_string(text).expect("JSON");
                let value = match kind {
                    0 => text,
                    1 => text.len().to_string(),
                    _ => format!("[{text},{{\"x\":null}}]"),
                };
                format!("{}:{value}", serde_json::to_string(name).expect("JSON"))
            };
            let object = format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
            any_bytes(&[&[choice], object.as_bytes()].concat());
        }

        #[test]
        fn any_pairs_are_shaped(choice: u8, pairs in proptest::collection::vec(("(time|level|message|a|b)", "[ -~\u{fc}]{0,20}"), 1..9)) {
            let text = pairs.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join(" ");
            any_bytes(&[&[choice], text.as_bytes()].concat());
        }
    }
}
