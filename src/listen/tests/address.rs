//! Addresses: what is understood, what is refused, and that what is shown can be read again.

use crate::listen::Address;

fn check(text: &str, expected: &str) {
    match text.parse::<Address>() {
        Ok(address) => {
            assert_eq!(address.to_string(), expected, "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.starts_with("listen: "), "{text}: {error}");
        }
    }
}

#[test]
fn what_is_understood() {
    check("udp://127.0.0.1:5514", "udp://127.0.0.1:5514");
    check("udp://0.0.0.0", "udp://0.0.0.0:514");
    check("tcp://[::1]", "tcp://[::1]:514");
    check("tcp://[2001:db8::1]:1", "tcp://[2001:db8::1]:1");
    check("tcp+tls://0.0.0.0", "tcp+tls://0.0.0.0:6514");
    check("udp://:514", "udp://[::]:514");
    check("udp://", "udp://[::]:514");
    check("tcp://:0", "tcp://[::]:0");
    check("unix:///run/log.sock", "unix:///run/log.sock");
    check("unixgram:///dev/log", "unixgram:///dev/log");
}

#[test]
fn what_is_refused() {
    check("127.0.0.1:514", "write udp://, tcp://");
    check("tls://127.0.0.1", "tcp+tls://");
    check("relp://127.0.0.1", "not built yet");
    check("relp+tls://127.0.0.1", "not built yet");
    check("udp://localhost:514", "write 127.0.0.1");
    check("tcp://logs.example.com", "not names: write the address of `logs.example.com`");
    check("tcp://127.0.0.1:", "is no port");
    check("tcp://127.0.0.1:65536", "`65536` is no port");
    check("tcp://127.0.0.1:+1", "`+1` is no port");
    check("tcp://127.0.0.1:514/", "is no port");
    check("tcp://127.0.0.1/", "is no address");
    check("tcp://256.0.0.1", "is no address");
    check("tcp://::1:514", "is no address");
    check("tcp://[::1", "is no address");
    check("tcp://[::1]514", "is no address");
    check("tcp://[127.0.0.1]:514", "is no address");
    check("unix://log.sock", "in full");
    check("unix://", "in full");
    check("unix:///run/", "in full");
}
