//! Inspection of a directory in any state, while its relay may be running.

use super::*;

impl Home {
    fn look(&self) -> Inspection {
        Inspection::of(self.dir.path()).unwrap()
    }
}

/// The numbers of all lines, and the places without lines: index of the file, offset, and whether it is a tail.
fn seen(look: &Inspection) -> (Vec<u64>, Vec<(usize, u64, bool)>) {
    let (mut numbers, mut holes) = (Vec::new(), Vec::new());
    for (i, file) in look.segments.iter().enumerate() {
        let mut next = HEADER_LEN;
        for piece in file.pieces(0).unwrap().unwrap() {
            let (offset, bytes) = match piece {
                Piece::Lines { offset, batch } => {
                    numbers.extend(batch.lines().map(number));
                    (offset, batch.byte_len() as u64)
                }
                Piece::Damage { offset, bytes, .. } => {
                    holes.push((i, offset, false));
                    (offset, bytes)
                }
                Piece::Tail { offset, bytes } => {
                    holes.push((i, offset, true));
                    (offset, bytes)
                }
            };
            assert_eq!(offset, next, "no byte is passed over in silence");
            next = offset + bytes;
        }
        assert_eq!(next, file.bytes.max(HEADER_LEN));
    }
    (numbers, holes)
}

/// Three segments of five lines.
fn three() -> (Home, Open) {
    let home = Home::with(|options| options.segment_bytes = 300);
    let mut spool = home.open();
    [0..5, 5..10, 10..15].into_iter().for_each(|lines| spool.append(lines));
    assert_eq!(home.files(".seg").len(), 3);
    (home, spool)
}

#[test]
fn a_spool_at_work_is_seen_as_it_is() {
    let (home, mut spool) = three();
    let look = home.look();
    assert_eq!(seen(&look), (range(0..15), vec![]));
    let end = look.end().unwrap();
    assert_eq!((end.line, end.offset), (spool.writer.end.line, spool.writer.end.offset));
    let numbered: Vec<_> = look.segments.iter().map(|file| look.numbered(file, end)).collect();
    assert_eq!(numbered, [Some(5); 3]);
    assert_eq!(look.left(&look.cursors[0], end).pending, 15);
    let ends =
        |file: &SegmentFile| (number(&file.first_from(0).unwrap().unwrap()), number(&file.last().unwrap().unwrap()));
    assert_eq!(look.segments.iter().map(ends).collect::<Vec<_>>(), [(0, 4), (5, 9), (10, 14)]);
    // The relay goes on: listed segments are retired and removed, and new ones come.
    spool.read_numbers(0);
    spool.retire_all(0);
    spool.append(15..20);
    assert!(look.segments[0].pieces(0).unwrap().is_none() && look.segments[0].last().unwrap().is_none());
    let later = home.look();
    drop(spool);
    assert_eq!((later.name(), later.cursors[0].forward.as_str()), (look.name(), "a"));
    let later = home.look();
    let left = later.left(&later.cursors[0], later.end().unwrap());
    assert_eq!((left.pending, left.from.line), (5, 15));
    let file = later.segments.iter().find(|file| file.number == left.from.segment).unwrap();
    assert_eq!(number(&file.first_from(left.from.offset).unwrap().unwrap()), 15);
}

/// A flipped bit loses only its own line, and is reported at its place. Damage in the last line of the newest segment
/// could be an unfinished write.
#[test]
fn a_flipped_bit_is_seen_at_its_place() {
    let (home, spool) = three();
    drop(spool);
    for (which, segment) in home.files(".seg").iter().enumerate() {
        let whole = fs::read(segment).unwrap();
        let lines = home.look().segments[which].pieces(0).unwrap().unwrap();
        let Some(Piece::Lines { batch, .. }) = lines.last() else { panic!("lines") };
        let ends: Vec<u64> = batch.lines_and_ends().map(|(_, end)| HEADER_LEN + end as u64).collect();
        for at in HEADER_LEN as usize..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(segment, bytes).unwrap();
            let hit = ends.iter().position(|end| (at as u64) < *end).unwrap();
            let offset = if hit == 0 { HEADER_LEN } else { ends[hit - 1] };
            let expected: Vec<u64> = (0..15).filter(|n| *n != (which * 5 + hit) as u64).collect();
            assert_eq!(seen(&home.look()), (expected, vec![(which, offset, hit == 4)]), "segment {which}, byte {at}");
        }
        fs::write(segment, whole).unwrap();
    }
}

#[test]
fn lines_behind_a_damaged_header_are_seen() {
    let (home, spool) = three();
    drop(spool);
    let segment = home.files(".seg").remove(1);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let look = home.look();
    assert_eq!(look.segments[1].head.as_ref().err(), Some(&HeadFault::Damaged));
    assert_eq!(seen(&look), (range(0..15), vec![]));
    assert_eq!(look.numbered(&look.segments[1], look.end().unwrap()), None);
}

#[test]
fn a_torn_tail_is_told_from_damage_wherever_it_is_torn() {
    let (home, spool) = three();
    drop(spool);
    let segment = home.files(".seg").remove(2);
    let whole = fs::read(&segment).unwrap();
    for cut in HEADER_LEN as usize..whole.len() {
        fs::write(&segment, &whole[..cut]).unwrap();
        let (numbers, holes) = seen(&home.look());
        assert!(numbers.len() >= 10 && numbers.iter().copied().eq(0..numbers.len() as u64), "cut {cut}");
        assert!(holes.iter().all(|(which, _, is_tail)| *which == 2 && *is_tail), "cut {cut}: {holes:?}");
        assert_eq!(home.look().end().unwrap().line, numbers.len() as u64);
    }
}

#[test]
fn what_is_not_there_is_no_reason_to_fail() {
    let home = Home::new();
    let look = home.look();
    assert!(look.id.is_none() && look.segments.is_empty() && look.cursors.is_empty());
    drop(home.open());
    let look = home.look();
    assert_eq!((look.segments.len(), look.cursors.len(), look.end().unwrap().line), (0, 1, 0));
    assert!(look.id.is_some(), "of the cursor");
    assert_eq!(look.left(&look.cursors[0], look.end().unwrap()).pending, 0);
    fs::write(home.dir.path().join("00000000000000000001.seg"), b"").unwrap();
    fs::write(home.dir.path().join("00000000000000000002.seg"), [0; 5000]).unwrap();
    let look = home.look();
    assert!(look.segments.iter().all(|file| file.head.as_ref().err() == Some(&HeadFault::Damaged)));
    assert_eq!(seen(&look), (vec![], vec![(1, HEADER_LEN, true)]));
    let error = Inspection::of(&home.dir.path().join("nowhere")).err().unwrap().to_string();
    assert!(error.contains("nowhere is not there"), "{error}");
}
