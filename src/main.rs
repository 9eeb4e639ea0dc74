//! Arguments → config → `Relay::bind` → run → exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    logferry::main(std::env::args_os())
}
