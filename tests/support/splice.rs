//! Joins two connections, like a proxy between them.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Forwards bytes in both directions until each of them ends.
pub fn splice(one: TcpStream, other: TcpStream) {
    let (back_from, back_to) = (other.try_clone().expect("a socket"), one.try_clone().expect("a socket"));
    for (mut from, mut to) in [(one, other), (back_from, back_to)] {
        thread::spawn(move || {
            // Pass on the end of one side to the other side.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
