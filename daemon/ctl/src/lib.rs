//! The operator's command, `callvaultctl`: asks the daemon's control endpoint and prints what it says, as tables for people
//! or, with `--json`, as the endpoint's own JSON. It decides nothing (what `completeness` compares, `callvault-webex`
//! judges) and touches none of the daemon's data: what can only be
//! done offline is to check and write the configuration and to make the first key; to recover, and to examine the machine, it runs the daemon's own program. It has no network beyond the control endpoint,
//! except the self-test, which calls the recorder as a SIPREC client would.
//!
//! # Exit status
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done; for `status`, `recordings verify`, `completeness`, `webex status`, `users sync`, `config check`, `doctor`, `setup` and `selftest` also: nothing wrong was found |
//! | 1 | the daemon refused, something is wrong, or a file could not be read or written |
//! | 2 | the command line is wrong, or asks for what this version does not have |
//! | 3 | the daemon cannot be reached |
//!
//! Results go to standard output; errors, hints and progress to standard error, so that output can be piped.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod annotate;
mod audit;
mod backup;
mod cli;
mod client;
mod completeness;
mod deliveries;
mod discards;
mod doctor;
mod drain;
mod error;
mod export;
mod export_many;
mod format;
mod keys;
mod mail;
mod recording;
mod recover;
mod retention;
mod selftest;
mod settings;
mod setup;
mod store;
mod table;
mod tokens;
mod unix;
mod users;
mod verbs;
mod webex;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use jiff::tz::TimeZone;

pub use error::{CtlError, Exit};

/// The definition of the command line, from which man pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// Where a run of the command reads and writes, and how it shows times.
pub struct Surroundings<'a> {
    /// For results.
    pub stdout: &'a mut dyn Write,
    /// For errors, hints and questions.
    pub stderr: &'a mut dyn Write,
    /// Whether a person sits before standard error and can be shown progress.
    pub shows_progress: bool,
    /// Whether a person can answer a question on standard input.
    pub answers: bool,
    /// The zone in which times are shown.
    pub zone: TimeZone,
    /// The environment's `CALLVAULT_…` variables.
    pub environment: Vec<(String, String)>,
}

/// The program: takes its arguments, streams and environment from the process.
#[must_use]
pub fn main() -> ExitCode {
    let mut surroundings = Surroundings {
        stdout: &mut std::io::stdout().lock(),
        stderr: &mut std::io::stderr(),
        shows_progress: std::io::stderr().is_terminal(),
        answers: std::io::stdin().is_terminal(),
        zone: TimeZone::system(),
        environment: callvault_config::environment().into_iter().collect(),
    };
    run(std::env::args_os(), &mut surroundings).into()
}

/// Runs one command line (the first argument is the program's name).
pub fn run(arguments: impl IntoIterator<Item = OsString>, surroundings: &mut Surroundings<'_>) -> Exit {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, surroundings),
    };
    match verbs::run(&cli, surroundings) {
        Ok(exit) => exit,
        // Whoever reads our output has seen enough (`… | head`).
        Err(CtlError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            // With standard error gone there is nobody left to tell.
            let _ = writeln!(surroundings.stderr, "callvaultctl: failed to {error}");
            error.exit()
        }
    }
}

/// Help and version are no errors; the rest is a wrong command line. Clap has the texts for all of them.
fn usage(error: &clap::Error, surroundings: &mut Surroundings<'_>) -> Exit {
    let (stream, exit): (&mut dyn Write, Exit) =
        if error.use_stderr() { (surroundings.stderr, Exit::Usage) } else { (surroundings.stdout, Exit::Done) };
    let _ = write!(stream, "{error}");
    exit
}
