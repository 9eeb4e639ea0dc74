//! Makes the names of a line's fields unique: of two equal names, stores keep one, or refuse the line.

use std::borrow::Cow;

use crate::record::{Fields, Value};

/// The fields of a record with unique names. `name`: how a name is written. If another field has that name, or it is one that `is_ours`,
/// `_` is appended.
pub fn with_own_names<'r>(
    fields: &'r Fields<'_>,
    name: impl Fn(&'r str) -> Cow<'r, str>,
    is_ours: impl Fn(&str) -> bool,
) -> Vec<(Cow<'r, str>, &'r Value<'r>)> {
    let mut named: Vec<(Cow<'_, str>, _)> = Vec::new();
    for field in fields.iter() {
        let mut name = name(&field.name);
        while is_ours(&name) || named.iter().any(|(other, _)| *other == name) {
            name.to_mut().push('_');
        }
        named.push((name, &field.value));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let mut fields = Fields::default();
        ["a.b", "a-b", "a_b", "level", "c"].iter().for_each(|name| fields.push(*name, Value::Text(b"x"[..].into())));
        let plain = |name: &str| name.replace(['.', '-'], "_").into();
        let named = with_own_names(&fields, plain, |name| name == "level" || name == "a_b_");
        let names: Vec<_> = named.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a_b", "a_b__", "a_b___", "level_", "c"]);
    }
}
