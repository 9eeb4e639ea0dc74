//! The properties that hold for all texts, as functions, so that a unit test, a property test and a fuzz target need only one
//! line each.

use std::fmt;
use std::str::FromStr;

use super::*;
use crate::protocol::syslog::TagTemplates;
use crate::record::{Format, TimeZone};

/// Panics unless `text` is a config whose effective settings parse to the same config, or each of its problems is one line
/// with a place.
pub fn any_text(text: &str) {
    const FILE: &str = "/etc/x.toml";
    let parse = |text: &str| Config::parse(Some(Path::new(FILE)), text, &Overrides::default(), &|_| None);
    match parse(text) {
        Ok(config) => {
            let effective = config.to_toml();
            let mut again =
                parse(&effective).unwrap_or_else(|errors| panic!("{errors} in the effective config:\n{effective}"));
            // The effective config writes every setting.
            again.admin.explicit = config.admin.explicit;
            assert_eq!(again.warnings, [""; 0], "of the effective config");
            again.warnings.clone_from(&config.warnings);
            assert_eq!(again, config, "displayed as\n{effective}");
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

/// Panics unless a value that `text` parses to is displayed as a text that parses to the same value.
pub fn any_value(text: &str) {
    comes_back::<ListenAddress>(text);
    comes_back::<ForwardAddress>(text);
    comes_back::<Fingerprint>(text);
    comes_back::<PeerName>(text);
    comes_back::<TimeZone>(text);
    comes_back::<Format>(text);
    if let Ok(templates) = text.parse::<TagTemplates>() {
        assert_eq!(TagTemplates::new(templates.written()), Ok(templates));
    }
}

fn comes_back<T: FromStr + fmt::Display + fmt::Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let displayed = value.to_string();
    assert_eq!(displayed.parse().ok(), Some(value), "`{text}` is displayed as `{displayed}`");
}
