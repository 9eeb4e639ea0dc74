//! What must hold for all text, as functions, so that a unit test, a property test and a fuzz target are one line each.

use std::fmt;
use std::str::FromStr;

use super::*;
use crate::protocol::syslog::TagTemplate;
use crate::record::{Format, UtcOffset};

/// Panics unless text is a config that comes back when it is shown, or each thing that is wrong with it is said in one
/// line with its place.
pub fn any_text(text: &str) {
    const FILE: &str = "/etc/x.toml";
    let parse = |text: &str| Config::parse(Some(Path::new(FILE)), text, &Overrides::default(), &|_| None);
    match parse(text) {
        Ok(config) => {
            let shown = config.to_toml();
            let mut again = parse(&shown).unwrap_or_else(|errors| panic!("{errors} in what is shown:\n{shown}"));
            // What is shown is written out.
            again.admin.explicit = config.admin.explicit;
            assert_eq!(again.warnings, [""; 0], "of what is shown");
            again.warnings.clone_from(&config.warnings);
            assert_eq!(again, config, "shown as\n{shown}");
        }
        Err(errors) => {
            assert!(errors.iter().len() > 0);
            for error in errors.iter().map(ToString::to_string) {
                let place = error.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(':'));
                let line = place.and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
                let lines = text.split('\n').count();
                assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "no place: {error}");
                assert!(!error.contains('\n'), "more than a line: {error:?}");
            }
        }
    }
}

/// Panics unless each kind of value that text may be comes back when it is shown.
pub fn any_value(text: &str) {
    comes_back::<ListenAddress>(text);
    comes_back::<ForwardAddress>(text);
    comes_back::<Fingerprint>(text);
    comes_back::<PeerName>(text);
    comes_back::<TagTemplate>(text);
    comes_back::<UtcOffset>(text);
    comes_back::<Format>(text);
}

fn comes_back<T: FromStr + fmt::Display + fmt::Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    assert_eq!(shown.parse().ok(), Some(value), "`{text}` is shown as `{shown}`");
}
