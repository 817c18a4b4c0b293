//! `callvaultctl doctor`: runs `callvaultd --doctor`, which knows what the appliance needs, and asks the running daemon how it is.

use callvault_config::Config;
use serde_json::{Value, json};

use crate::Surroundings;
use crate::cli::Cli;
use crate::client::Client;
use crate::error::{CtlError, Exit};
use crate::format::text;
use crate::recover::{daemon, output};
use crate::table::{Table, harmless};

/// Looks, and says what is wrong.
pub(crate) fn run(cli: &Cli, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let (program, mut command) = daemon();
    command.arg("--config").arg(&cli.config).args(["--doctor", "--json"]);
    let said = output(&program, &mut command)?;
    let diagnosis: Value = serde_json::from_slice(&said.stdout).map_err(|error| CtlError::File {
        what: format!("understand what {} --doctor says", program.display()),
        reason: format!("{error}: {}", harmless(String::from_utf8_lossy(&said.stderr).trim())),
    })?;
    let mut findings = diagnosis["findings"].as_array().cloned().unwrap_or_default();
    if !diagnosis["running"].is_null() {
        findings.extend(health(cli, around));
    }
    report(cli, around, &findings, &diagnosis["running"])
}

/// What the running daemon says of its own parts.
fn health(cli: &Cli, around: &Surroundings<'_>) -> Vec<Value> {
    let finding = |part: &str, state: &str, text: String| json!({"part": part, "state": state, "text": text});
    let Ok(config) = Config::load(&cli.config, around.environment.clone()) else { return Vec::new() };
    let health = match Client::new(&config, cli.token_file.as_deref()).health() {
        Ok(health) => health,
        Err(error) => {
            let text = format!("callvaultd runs, and its health cannot be asked: failed to {error}");
            return vec![finding("health", "problem", text)];
        }
    };
    let components = health["components"].as_object();
    let wrong: Vec<Value> = components
        .into_iter()
        .flatten()
        .filter(|(_, component)| component["status"] != "ok")
        .map(|(name, component)| {
            let state = if component["status"] == "failing" { "problem" } else { "warning" };
            finding(name, state, text(&component["reason"]))
        })
        .collect();
    if !wrong.is_empty() {
        return wrong;
    }
    let count = components.map_or(0, serde_json::Map::len);
    vec![finding("health", "well", format!("all {count} parts of the running daemon are well"))]
}

fn report(cli: &Cli, around: &mut Surroundings<'_>, findings: &[Value], running: &Value) -> Result<Exit, CtlError> {
    let count = |state: &str| findings.iter().filter(|finding| finding["state"] == state).count();
    let (problems, warnings) = (count("problem"), count("warning"));
    let exit = if problems > 0 { Exit::Failed } else { Exit::Done };
    if cli.json {
        let all = json!({"running": running, "problems": problems, "warnings": warnings, "findings": findings});
        writeln!(around.stdout, "{all:#}")?;
        return Ok(exit);
    }
    let mut table = Table::new(&["STATE", "PART", "WHAT"]);
    for finding in findings {
        let state = match finding["state"].as_str() {
            Some("problem") => "PROBLEM",
            Some("warning") => "WARNING",
            _ => "ok",
        };
        table.row([state.to_owned(), text(&finding["part"]), text(&finding["text"])]);
    }
    table.write(around.stdout)?;
    let end = match (problems, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, warnings) => format!("nothing that keeps calls from being recorded; to be looked at: {warnings}"),
        (problems, warnings) => format!("problems: {problems}, and to be looked at: {warnings}"),
    };
    writeln!(around.stdout, "\n{end}")?;
    Ok(exit)
}
