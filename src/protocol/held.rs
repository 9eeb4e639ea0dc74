//! The buffer of an unfinished message.

/// Appends a piece. The capacity doubles like that of a `Vec`, but never exceeds `most` bytes. The held bytes and the piece must fit into
/// `most`. Memory grows only with bytes that have arrived: a length that a sender announces allocates nothing.
pub fn hold(held: &mut Vec<u8>, piece: &[u8], most: usize) {
    let needed = held.len() + piece.len();
    debug_assert!(needed <= most);
    if needed > held.capacity() {
        let grown = (held.capacity() * 2).min(most).max(needed);
        held.reserve_exact(grown - held.len());
    }
    held.extend_from_slice(piece);
}
