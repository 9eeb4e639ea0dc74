//! Two connections made one, as by whoever stands in between.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Hands on what comes on each of them to the other one, until it ends.
pub fn splice(one: TcpStream, other: TcpStream) {
    let (back_from, back_to) = (other.try_clone().expect("a socket"), one.try_clone().expect("a socket"));
    for (mut from, mut to) in [(one, other), (back_from, back_to)] {
        thread::spawn(move || {
            // Where one side has ended or is gone, the other one learns it.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
