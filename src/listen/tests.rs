//! What the room promises, tried on real sockets.

mod frame;
