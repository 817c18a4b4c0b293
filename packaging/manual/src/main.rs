//! Writes the manual pages and the shell completions that are made from the programs themselves: callvaultctl(1), a page for each of
//! its verbs, and callvault.toml(5). They are made when packages are, and kept nowhere, so they cannot be stale. The pages that
//! are written by hand are in `packaging/man`.
//!
//! usage: `callvault-manual FOLDER`; makes `man`, `bash`, `zsh` and `fish` in it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod settings;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

/// The program that pages and completions are for.
const PROGRAM: &str = "callvaultctl";

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: callvault-manual FOLDER");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callvault-manual failed to write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes everything into `folder`, which is made where it is missing.
fn write_all(folder: &Path) -> io::Result<()> {
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(callvault_ctl::command(), &man)?;
    fs::write(man.join("callvault.toml.5"), settings::page()?)?;
    for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let to = folder.join(name);
        fs::create_dir_all(&to)?;
        clap_complete::generate_to(shell, &mut callvault_ctl::command(), PROGRAM, &to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb of the command line, as the name of its page.
    fn verbs(prefix: &str, command: &clap::Command, found: &mut Vec<String>) {
        found.push(prefix.to_owned());
        for verb in command.get_subcommands() {
            verbs(&format!("{prefix}-{}", verb.get_name()), verb, found);
        }
    }

    #[test]
    fn there_is_a_page_for_every_verb_and_completions_know_it() {
        let folder = std::env::temp_dir().join(format!("callvault-manual-{}", std::process::id()));
        write_all(&folder).unwrap();
        let mut wanted = Vec::new();
        verbs(PROGRAM, &callvault_ctl::command(), &mut wanted);
        assert!(wanted.len() > 10);
        for page in &wanted {
            let text = fs::read_to_string(folder.join(format!("man/{page}.1"))).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
        for file in ["bash/callvaultctl.bash", "zsh/_callvaultctl", "fish/callvaultctl.fish"] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            for verb in callvault_ctl::command().get_subcommands() {
                assert!(text.contains(verb.get_name()), "{file} knows {}", verb.get_name());
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
