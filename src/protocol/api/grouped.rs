//! Groups lines whose common data is written only once: those of a container or a stream.

use std::collections::HashMap;
use std::hash::Hash;

use super::Line;

/// The lines of each key, in their order. The keys are in the order of their first lines.
pub fn grouped<'l, 'a, K: Copy + Eq + Hash>(
    lines: &'l [Line<'a>],
    key: impl Fn(&'l Line<'a>) -> K,
) -> Vec<(K, Vec<&'l Line<'a>>)> {
    let mut groups: Vec<(K, Vec<&Line<'_>>)> = Vec::new();
    let (mut places, mut place) = (HashMap::new(), 0);
    for line in lines {
        let key = key(line);
        // Most often the next line has the key of the one before it.
        if groups.get(place).is_none_or(|(last, _)| *last != key) {
            place = *places.entry(key).or_insert(groups.len());
            if place == groups.len() {
                groups.push((key, Vec::new()));
            }
        }
        groups[place].1.push(line);
    }
    groups
}
