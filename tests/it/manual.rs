//! Documentation in packages: the manual pages name everything that `--help` names, and the generated completion files work in a shell.

#[path = "../../examples/manual.rs"]
#[allow(dead_code)]
mod pages;

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::installed;

fn written() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    pages::write(dir.path()).expect("it is written");
    dir
}

#[test]
fn every_command_has_a_page_with_all_its_flags() {
    let dir = written();
    let page = |name: &str| {
        let path = dir.path().join("man1").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.lines().any(|line| line.starts_with(".TH ")), "{name} is no manual page");
        text.replace("\\-", "-")
    };
    let (top, command) = (page("logferry.1"), logferry::internals::cli::command());
    let (mut commands, mut flags) = (0, 0);
    for command in command.get_subcommands() {
        let name = command.get_name();
        assert!(top.contains(&format!("logferry-{name}(1)")), "logferry.1 does not name {name}");
        let page = page(&format!("logferry-{name}.1"));
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&format!("--{flag}")), "the page of {name} does not name --{flag}");
            flags += 1;
        }
        commands += 1;
    }
    assert!(commands >= 6 && flags > 20, "only {commands} commands with {flags} flags");
}

/// The completions that bash offers for the last of `words`.
fn completes(bash: &Path, completions: &Path, words: &[&str]) -> Vec<String> {
    let script = r#"
        source "$1" || exit 1
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _logferry logferry "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new(bash);
    bash.args(["--norc", "-c", script, "bash"]).arg(completions.join("logferry.bash")).args(words);
    let output = bash.output().expect("bash starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let Some(bash) = installed("bash", "bash") else { return };
    let dir = written();
    let completions = dir.path().join("completions");
    assert_eq!(completes(&bash, &completions, &["logferry", "exp"]), ["explain"]);
    assert_eq!(completes(&bash, &completions, &["logferry", "run", "--log-f"]), ["--log-format"]);
    for other in ["_logferry", "logferry.fish"] {
        let text = fs::read_to_string(completions.join(other)).expect(other);
        assert!(text.contains("explain") && text.contains("log-format"), "{other}");
    }
}
