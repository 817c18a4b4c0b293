//! `callvaultctl backup` and `restore`: run `callvaultd --backup` and `--restore`, which know how the data is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Surroundings;
use crate::cli::{Backup, Cli, Restore};
use crate::error::{CtlError, Exit};
use crate::format::{size, text};
use crate::recover::{daemon, output};

/// Makes a backup.
pub(crate) fn make(cli: &Cli, parameters: &Backup, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let Some(report) = said(cli, around, |command| {
        command.arg("--backup").arg(&parameters.file);
        option(command, "--passphrase-file", parameters.passphrase_file.as_deref());
        if let Some(recipient) = &parameters.recipient {
            command.arg("--recipient").arg(recipient);
        }
    })?
    else {
        return Ok(Exit::Failed);
    };
    if cli.json {
        writeln!(around.stdout, "{report:#}")?;
        return Ok(Exit::Done);
    }
    writeln!(
        around.stdout,
        "{}: keys, catalogue and settings ({})",
        parameters.file.display(),
        size(&report["bytes"])
    )?;
    if report["private_key"].is_null() {
        writeln!(
            around.stdout,
            "the private key is NOT in it, since it is a credential of the service; keep a copy of that apart"
        )?;
    }
    left_out(&report, around)?;
    writeln!(
        around.stdout,
        "not in it: the recordings, which are in the store, and calls that are not archived yet; keep it apart from the recordings"
    )?;
    Ok(Exit::Done)
}

/// Puts a backup in its place.
pub(crate) fn restore(cli: &Cli, parameters: &Restore, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let Some(report) = said(cli, around, |command| {
        command.arg("--restore").arg(&parameters.file);
        option(command, "--passphrase-file", parameters.passphrase_file.as_deref());
        option(command, "--identity-file", parameters.identity_file.as_deref());
        if parameters.dry_run {
            command.arg("--dry-run");
        }
    })?
    else {
        return Ok(Exit::Failed);
    };
    if cli.json {
        writeln!(around.stdout, "{report:#}")?;
        return Ok(Exit::Done);
    }
    let (made, recordings) = (text(&report["made_at"]), text(&report["recordings"]));
    let done = if report["changed"] == true { "restored" } else { "whole; nothing was changed" };
    writeln!(around.stdout, "the backup of {made} with {recordings} recordings is {done}")?;
    if report["changed"] == true {
        let settings = text(&report["settings_in"]);
        writeln!(around.stdout, "its settings are in {settings}: take over what this machine needs of them")?;
        left_out(&report, around)?;
        writeln!(
            around.stdout,
            "mount the store, start callvaultd, then run `callvaultctl recordings verify`, and `callvaultctl recover` if it finds archives that the backup does not know"
        )?;
    }
    Ok(Exit::Done)
}

fn left_out(report: &Value, around: &mut Surroundings<'_>) -> Result<(), CtlError> {
    let paths: Vec<String> = report["left_out"].as_array().into_iter().flatten().map(text).collect();
    if !paths.is_empty() {
        writeln!(around.stdout, "named by the settings, and not in it: {}", paths.join(", "))?;
    }
    Ok(())
}

fn option(command: &mut Command, name: &str, path: Option<&Path>) {
    if let Some(path) = path {
        command.arg(name).arg::<PathBuf>(path.into());
    }
}

/// Runs the daemon's program; gives what it reports, or none when it failed, which is said then.
fn said(
    cli: &Cli,
    around: &mut Surroundings<'_>,
    arguments: impl FnOnce(&mut Command),
) -> Result<Option<Value>, CtlError> {
    let (program, mut command) = daemon();
    command.arg("--config").arg(&cli.config);
    arguments(&mut command);
    let said = output(&program, &mut command)?;
    // Nobody is left to hear of an error of standard error.
    let _ = around.stderr.write_all(&said.stderr);
    if !said.status.success() {
        return Ok(None);
    }
    serde_json::from_slice(&said.stdout).map(Some).map_err(|error| CtlError::File {
        what: format!("understand what {} says", program.display()),
        reason: error.to_string(),
    })
}
