//! Addresses as they are written, and as they are displayed.

use std::fmt;
use std::str::FromStr;

use super::*;

fn listen(text: &str, shown: &str) {
    assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), shown, "{text}");
}

fn forward(text: &str, shown: &str) {
    assert_eq!(text.parse::<ForwardAddress>().unwrap().to_string(), shown, "{text}");
}

fn refused<T: FromStr<Err = String> + fmt::Debug>(text: &str, says: &str) {
    let error = text.parse::<T>().unwrap_err();
    assert!(error.contains(says), "{text}: {error}");
}

#[test]
fn listeners_take_addresses_of_either_family() {
    listen("udp://0.0.0.0:514", "udp://0.0.0.0:514");
    listen("udp://127.0.0.1", "udp://127.0.0.1:514");
    listen("TCP+TLS://127.0.0.1", "tcp+tls://127.0.0.1:6514");
    listen("Unix:///run/A.sock", "unix:///run/A.sock");
    forward("TCP://Logs.example.com", &"tcp://Logs.example.com".parse::<ForwardAddress>().unwrap().to_string());
    forward("SRV+tcp://example.com", &"srv+tcp://example.com".parse::<ForwardAddress>().unwrap().to_string());
    listen("tcp://[::1]:1514", "tcp://[::1]:1514");
    listen("tcp://:5514", "tcp://[::]:5514");
    listen("tcp+tls://0.0.0.0", "tcp+tls://0.0.0.0:6514");
    listen("relp://0.0.0.0", "relp://0.0.0.0:2514");
    listen("relp+tls://[::1]:99", "relp+tls://[::1]:99");
    listen("unix:///run/a.sock", "unix:///run/a.sock");
    listen("unixgram:///dev/log", "unixgram:///dev/log");
}

#[test]
fn forwards_take_names_too() {
    forward("tcp://logs.example.com", "tcp://logs.example.com:514");
    forward("tcp+tls://logs.example.com", "tcp+tls://logs.example.com:6514");
    forward("relp://logs.example.com", "relp://logs.example.com:2514");
    forward("relp+tls://logs.example.com:99", "relp+tls://logs.example.com:99");
    forward("udp://[2001:db8::1]:99", "udp://[2001:db8::1]:99");
    forward("tcp://logs.example.com.:514", "tcp://logs.example.com.:514");
    forward("tcp://rsyslog_1:514", "tcp://rsyslog_1:514");
    forward("file:///var/log/{host}/{name}.log", "file:///var/log/{host}/{name}.log");
    forward("stdout:", "stdout:");
}

#[test]
fn services_have_a_name_and_no_port() {
    forward("srv+tcp://example.com", "srv+tcp://_syslog._tcp.example.com");
    forward("srv+udp://example.com", "srv+udp://_syslog._udp.example.com");
    forward("srv+tcp+tls://example.com.", "srv+tcp+tls://_syslog-tls._tcp.example.com.");
    forward("srv+relp://example.com", "srv+relp://_relp._tcp.example.com");
    forward("srv+relp+tls://example.com", "srv+relp+tls://_relp-tls._tcp.example.com");
    forward("srv+tcp://_logs._tcp.example.com/", "srv+tcp://_logs._tcp.example.com");
    refused::<ForwardAddress>("srv+tcp://example.com:514", "SRV records say the port");
    refused::<ForwardAddress>("srv+tcp://192.0.2.1", "no SRV records");
    refused::<ForwardAddress>("srv+tcp://_syslog.example.com", "_syslog._tcp.example.com");
    refused::<ForwardAddress>("srv+tcp://_syslog._tcp", "_syslog._tcp.example.com");
    refused::<ForwardAddress>("srv+tcp://_syslog._tcp.", "_syslog._tcp.example.com");
    refused::<ForwardAddress>(&format!("srv+tcp://{}", ["a23456789"; 25].join(".")), "neither");
    refused::<ForwardAddress>("srv+file:///x", "unknown scheme");
    refused::<ListenAddress>("srv+tcp://example.com", "unknown scheme");
}

#[test]
fn what_is_wrong_is_said_with_what_would_be_right() {
    refused::<ListenAddress>("tls://0.0.0.0:514", "tcp+tls://");
    refused::<ListenAddress>("relp+ssl://0.0.0.0:2514", "relp+tls://");
    refused::<ListenAddress>("http://0.0.0.0", "unknown scheme `http`");
    refused::<ListenAddress>("udp://localhost:514", "127.0.0.1");
    refused::<ListenAddress>("0.0.0.0:514", "no address");
    refused::<ListenAddress>("udp://0.0.0.0:99999", "no port");
    refused::<ListenAddress>("tcp://127.0.0.1:+1", "`+1` is no port");
    refused::<ListenAddress>("tcp://127.0.0.1:", "is no port");
    refused::<ListenAddress>("tcp://[::1]514", "needs a port");
    refused::<ListenAddress>("tcp://[127.0.0.1]:514", "no IPv6 address");
    refused::<ListenAddress>("unix:///run/", "absolute");
    refused::<ListenAddress>("unix://relative", "absolute");
    refused::<ForwardAddress>("tcp://::1:514", "brackets");
    refused::<ForwardAddress>("tcp://[::1:514", "no `]`");
    refused::<ForwardAddress>("tcp://300.1.2.3:514", "neither");
    refused::<ForwardAddress>("tcp://a b:514", "neither");
    refused::<ForwardAddress>("tcp://a..b:514", "neither");
    refused::<ForwardAddress>("tcp://-", "neither");
    refused::<ForwardAddress>(&format!("tcp://{}:514", "x".repeat(80)), "neither");
    refused::<ForwardAddress>("tcp://logs.example.com:0", "port 0");
    refused::<ForwardAddress>("file:///logs/{hostname}.log", "{hostname} is no field; there are {host}, {name}");
    refused::<ForwardAddress>("unix:///run/x", "unknown scheme `unix`");
    refused::<ForwardAddress>("file:///", "absolute");
}
