//! Sorting where speed does not matter: one function for all types, because the standard library's has 5 kB of code for each type.
//! Equal items keep their order.

use std::cmp::Ordering;

pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let from = order(items.len(), &|one, other| compare(&items[one], &items[other]));
    for place in 0..items.len() {
        let mut at = from[place];
        // An item from a place that is filled already was swapped to the place that this place's item came from.
        while at < place {
            at = from[at];
        }
        items.swap(place, at);
    }
}

/// The place from which the item at each place comes.
fn order(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|one, other| compare(*one, *other));
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_standard_library_does(items: Vec<u8>) {
            let mut items: Vec<(u8, usize)> = items.into_iter().zip(0..).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|(key, _)| *key % 16);
            sort_by_key(&mut items, |(key, _)| *key % 16);
            prop_assert_eq!(items, expected);
        }
    }
}
