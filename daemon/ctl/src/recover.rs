//! `callvaultctl recover`: runs `callvaultd --recover`, which alone knows how the data is kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Surroundings;
use crate::cli::{Cli, Recover};
use crate::error::{CtlError, Exit};

/// The daemon's program, which stands beside this one where it was built.
const PROGRAM: &str = "callvaultd";

/// The folder that the packages put it into.
const PACKAGED: &str = "/usr/libexec/callvault";

/// Runs it and passes on what it says.
pub(crate) fn run(cli: &Cli, parameters: &Recover, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let (program, mut command) = daemon();
    command.arg("--config").arg(&cli.config).arg("--recover");
    let flags =
        [(parameters.dry_run, "--dry-run"), (parameters.without_store, "--without-store"), (cli.json, "--json")];
    command.args(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag));
    let said = output(&program, &mut command)?;
    around.stdout.write_all(&said.stdout)?;
    // Nobody is left to hear of an error of standard error.
    let _ = around.stderr.write_all(&said.stderr);
    Ok(if said.status.success() { Exit::Done } else { Exit::Failed })
}

/// The daemon's program, and a command that runs it.
pub(crate) fn daemon() -> (PathBuf, Command) {
    let program = beside();
    let command = Command::new(&program);
    (program, command)
}

/// Runs it to its end.
pub(crate) fn output(program: &Path, command: &mut Command) -> Result<Output, CtlError> {
    command.output().map_err(|error| CtlError::File {
        what: format!("run {}", program.display()),
        reason: format!("{error}; callvaultd belongs beside callvaultctl, or to {PACKAGED}"),
    })
}

/// Where the daemon's program is: beside this one, or where packages put it.
fn beside() -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(|folder| folder.join(PROGRAM)));
    own.filter(|path| path.exists()).unwrap_or_else(|| Path::new(PACKAGED).join(PROGRAM))
}
