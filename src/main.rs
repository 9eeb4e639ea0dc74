//! Passes the arguments to the library: config → `Relay::bind` → run → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    logferry::main(std::env::args_os())
}
