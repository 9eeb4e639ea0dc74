//! Generates the manual pages and shell completions for packages from the definition of the command line.
//!
//!     cargo run --example manual -- DIR
//!
//! writes DIR/man1/logferry.1 and a page for each command, DIR/completions/logferry.bash, _logferry (zsh) and logferry.fish.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("manual: say where to write to: cargo run --example manual -- DIR");
        return ExitCode::from(64);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

pub fn write(dir: &Path) -> io::Result<()> {
    let (pages, completions) = (dir.join("man1"), dir.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    // A page for the `help` subcommand would be useless.
    let mut command = logferry::internals::cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command.clone(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "logferry", &completions)?;
    }
    Ok(())
}
