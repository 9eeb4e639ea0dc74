//! What is held of a message that has not ended.

/// Appends a piece. Room doubles, as that of a `Vec` does, but never beyond `most` bytes, which what is there and the piece must not
/// exceed: it grows with what has arrived, and what a sender announces costs it nothing.
pub fn hold(held: &mut Vec<u8>, piece: &[u8], most: usize) {
    let needed = held.len() + piece.len();
    debug_assert!(needed <= most);
    if needed > held.capacity() {
        let grown = (held.capacity() * 2).min(most).max(needed);
        held.reserve_exact(grown - held.len());
    }
    held.extend_from_slice(piece);
}
