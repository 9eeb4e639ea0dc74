//! Zones without a time zone database: their abbreviations in a stamp, and the offsets that are in use on earth.

use crate::record::UtcOffset;

/// The zone in a stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SaidZone {
    #[default]
    None,
    Offset(UtcOffset),
    /// A zone by its abbreviation: its possible meanings in minutes east of UTC, the most common first.
    Letters(&'static [i16]),
}

/// Minutes east of UTC that are in use today, somewhere and at some time of the year (tz database).
const IN_USE: [i16; 40] = [
    -720, -660, -600, -570, -540, -480, -420, -360, -300, -240, -210, -180, -150, -120, -60, 0, 60, 120, 180, 210, 240,
    270, 300, 330, 345, 360, 390, 420, 480, 525, 540, 570, 600, 630, 660, 720, 765, 780, 825, 840,
];

/// The abbreviations of the tz database, and others that devices write. `DST` follows an offset and adds nothing. Four are ambiguous: `AST`
/// is also Arabia's, `CST` also China's, `IST` also Israel's and Ireland's, `BST` also Bangladesh's.
pub(super) const ABBREVIATIONS: [(&str, &[i16]); 77] = [
    ("ACDT", &[630]),
    ("ACST", &[570]),
    ("ADT", &[-180]),
    ("AEDT", &[660]),
    ("AEST", &[600]),
    ("AKDT", &[-480]),
    ("AKST", &[-540]),
    ("AMT", &[-240]),
    ("ART", &[-180]),
    ("AST", &[-240, 180]),
    ("AWST", &[480]),
    ("AZT", &[240]),
    ("BRST", &[-120]),
    ("BRT", &[-180]),
    ("BST", &[60, 360]),
    ("CAT", &[120]),
    ("CDT", &[-300]),
    ("CEDT", &[120]),
    ("CEST", &[120]),
    ("CET", &[60]),
    ("CLST", &[-180]),
    ("CLT", &[-240]),
    ("COT", &[-300]),
    ("CST", &[-360, 480]),
    ("DST", &[]),
    ("EAT", &[180]),
    ("EDT", &[-240]),
    ("EEST", &[180]),
    ("EET", &[120]),
    ("EST", &[-300]),
    ("GMT", &[0]),
    ("GST", &[240]),
    ("HDT", &[-540]),
    ("HKT", &[480]),
    ("HST", &[-600]),
    ("ICT", &[420]),
    ("IDT", &[180]),
    ("IRST", &[210]),
    ("IST", &[330, 120, 60]),
    ("JST", &[540]),
    ("KST", &[540]),
    ("MDT", &[-360]),
    ("MEST", &[120]),
    ("MESZ", &[120]),
    ("MET", &[60]),
    ("MEZ", &[60]),
    ("MSD", &[240]),
    ("MSK", &[180]),
    ("MST", &[-420]),
    ("MYT", &[480]),
    ("NDT", &[-150]),
    ("NPT", &[345]),
    ("NST", &[-210]),
    ("NZDT", &[780]),
    ("NZST", &[720]),
    ("PDT", &[-420]),
    ("PET", &[-300]),
    ("PHT", &[480]),
    ("PKT", &[300]),
    ("PST", &[-480]),
    ("SAST", &[120]),
    ("SGT", &[480]),
    ("SST", &[-660]),
    ("TRT", &[180]),
    ("UCT", &[0]),
    ("UTC", &[0]),
    ("UZT", &[300]),
    ("VET", &[-240]),
    ("WAT", &[60]),
    ("WEST", &[60]),
    ("WET", &[0]),
    ("WIB", &[420]),
    ("WIT", &[540]),
    ("WITA", &[480]),
    ("Z", &[0]),
    ("ZULU", &[0]),
    ("z", &[0]),
];

/// The meaning of an abbreviation, if it is a zone's.
pub(super) fn abbreviation(word: &[u8]) -> Option<SaidZone> {
    let at = ABBREVIATIONS.binary_search_by(|(letters, _)| letters.as_bytes().cmp(word)).ok()?;
    Some(SaidZone::Letters(ABBREVIATIONS[at].1))
}

pub(super) fn is_in_use(minutes: i64) -> bool {
    IN_USE.iter().any(|offset| i64::from(*offset) == minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order() {
        assert!(IN_USE.is_sorted() && ABBREVIATIONS.is_sorted_by_key(|(letters, _)| letters));
        for (letters, meanings) in ABBREVIATIONS {
            assert!(meanings.iter().all(|minutes| is_in_use(i64::from(*minutes))), "{letters}");
        }
    }
}
