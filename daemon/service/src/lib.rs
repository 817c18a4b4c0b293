//! The daemon `callvaultd`: the drivers around the parts that decide, and the threads that they run on.
//!
//! ```text
//! main thread    tokio: recorder's supervisor (recorder.rs), signals
//! ingest         follows the journal (follow.rs), fills the catalogue, owes and queues jobs (ingest.rs)
//! worker …       archives and deletes, `render.parallel` of them, at low priority (workers.rs, archiving.rs)
//! watchdog       tells systemd that all of it moves (watchdog.rs)
//! store          looks whether the store is there (store.rs)
//! configuration  looks whether the configuration or a certificate changed (reload.rs, certificates.rs)
//! retention      deletes what is due (retention.rs)
//! playback …     one per export that is being listened to (playback.rs)
//! http …         health, metrics, control (callvault-http; api.rs, health.rs, metrics.rs, check.rs answer)
//! ```
//!
//! What must not wait: the main thread, and what answers `/health`. They touch no store, no journal file and no lock that is held
//! while a file is read.
//!
//! Nothing here parses what a peer sent: what comes from the network comes as facts from the journal, which the recorder wrote, or
//! through the control endpoint, whose parsing is callvault-http's. The private key is in this process and in no other.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod api;
mod appliance;
mod archiving;
mod backlog;
mod backup;
mod certificates;
mod check;
mod clock;
mod deciding;
mod deliveries;
mod doctor;
mod fd_store;
mod files;
mod follow;
mod headroom;
mod health;
mod imports;
mod index_pages;
mod ingest;
mod journals;
mod keys;
mod listing;
mod lock;
mod log;
mod mailing;
mod metrics;
mod moving;
mod overload;
mod playback;
mod recorder;
mod recover;
mod reload;
mod retention;
mod row;
mod sd_notify;
mod settings;
mod sockets;
mod sound;
mod start;
mod store;
mod stores;
mod told;
mod walk;
mod warm;
mod watchdog;
mod waveform;
mod webex;
mod workers;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use callvault_backup::Lock;
use callvault_config::Config;
use callvault_confine::{give_memory_back, keep_memory};
use clap::Parser;

/// Arenas of memory, for some dozen threads of which few are busy at once.
const ARENAS_MAX: i32 = 2;

/// What callvaultd can be told on its command line.
#[derive(Debug, Parser)]
#[command(
    name = "callvaultd",
    version,
    about = "Records calls: supervises the recorder, archives, serves health and control"
)]
struct Arguments {
    /// The configuration file; `conf.d/*.toml` beside it is read after it.
    #[arg(long, value_name = "FILE", default_value = callvault_config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration and the files, folders and ports that it names, print every error with its line, and exit: 0 when it is
    /// good, 1 when it is not. `callvaultctl config check` calls this.
    #[arg(long)]
    check: bool,
    /// Make a lost or damaged catalogue again from store and journal, say what was done, and exit: 0 when everything was recovered, 1 when
    /// something could not be. No other callvaultd may run. `callvaultctl recover` calls this.
    #[arg(long, conflicts_with = "check")]
    recover: bool,
    /// With --recover and --restore: say what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --recover: go on although the store is not there.
    #[arg(long, requires = "recover")]
    without_store: bool,
    /// Look at everything that the appliance needs, say what is wrong and what to do, and exit: 0 when nothing is wrong, 1 otherwise.
    /// `callvaultctl doctor` calls this.
    #[arg(long, conflicts_with_all = ["check", "recover"])]
    doctor: bool,
    /// With --doctor: look at this part only, for example ports or certificates; several may be given. `callvaultctl setup` asks so.
    #[arg(long, value_name = "PART", requires = "doctor", value_parser = clap::builder::PossibleValuesParser::new(doctor::parts()))]
    part: Vec<String>,
    /// Make a backup of keys, catalogue and settings in this new file, and exit. `callvaultctl backup` calls this.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "recover", "doctor"])]
    backup: Option<PathBuf>,
    /// Put a backup into the empty data folder, and exit. No callvaultd may run. `callvaultctl restore` calls this.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "recover", "doctor", "backup"])]
    restore: Option<PathBuf>,
    /// With --backup and --restore: the file with the passphrase.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "identity_file"])]
    passphrase_file: Option<PathBuf>,
    /// With --backup: the age recipient (age1…) that it is made for.
    #[arg(long, value_name = "AGE", requires = "backup")]
    recipient: Option<String>,
    /// With --restore: the file of the age identity that the backup was made for.
    #[arg(long, value_name = "FILE", requires = "restore")]
    identity_file: Option<PathBuf>,
    /// With --recover, --doctor, --backup and --restore: say it as JSON.
    #[arg(long)]
    json: bool,
}

/// `--recover`.
fn recover_catalogue(arguments: &Arguments) -> ExitCode {
    let manner = recover::Manner { dry_run: arguments.dry_run, without_store: arguments.without_store };
    match recover::run(&arguments.config, manner) {
        Ok(report) => {
            if arguments.json {
                println!("{:#}", serde_json::to_value(&report).unwrap_or_default());
            } else {
                print!("{report}");
            }
            if report.has_gaps() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("callvaultd failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--backup` and `--restore`; their answer is JSON, and `callvaultctl` says it in words.
fn keep_or_restore(arguments: &Arguments) -> ExitCode {
    let lock = || -> anyhow::Result<Lock> {
        Ok(match (&arguments.passphrase_file, &arguments.recipient, &arguments.identity_file) {
            (Some(path), _, _) => Lock::Passphrase(backup::secret(path, "passphrase")?),
            (_, Some(recipient), _) => Lock::Key(recipient.clone()),
            (_, _, Some(path)) => Lock::Key(backup::secret(path, "identity")?),
            _ => anyhow::bail!(
                "lock the backup: name the file of a passphrase (--passphrase-file), or a recipient (--recipient) and its identity (--identity-file)"
            ),
        })
    };
    let result = lock().and_then(|lock| match (&arguments.backup, &arguments.restore) {
        (Some(target), _) => backup::make(&arguments.config, target, &lock),
        (_, Some(source)) => backup::restore(&arguments.config, source, &lock, arguments.dry_run),
        _ => Ok(serde_json::Value::Null),
    });
    match result {
        Ok(report) => {
            println!("{report:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("callvaultd failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--doctor`.
fn examine(arguments: &Arguments) -> ExitCode {
    let diagnosis = doctor::examine(&arguments.config, &arguments.part);
    if arguments.json {
        println!("{:#}", serde_json::to_value(&diagnosis).unwrap_or_default());
    } else {
        print!("{diagnosis}");
    }
    if diagnosis.state() == doctor::State::Problem { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What `--check` looks at on this machine beside the configuration itself: what keeps the daemon from starting, or calls from being kept.
/// Servers are the doctor's.
const CHECKED_PARTS: [&str; 5] = ["keys", "data", "spool", "store", "ports"];

/// `--check`: the configuration, and the certificates, folders and ports that it names.
fn check_configuration(path: &Path) -> ExitCode {
    let checked = callvault_config::check(path, callvault_config::environment());
    print!("{}", checked.text);
    let mut ok = checked.ok;
    if let Ok(config) = Config::load(path, callvault_config::environment()) {
        let (certificates_ok, text) = certificates::check(&config, certificates::unix_s());
        print!("{text}");
        ok &= certificates_ok;
        print!("{}", deliveries::check(&config));
        // Last, because it goes on as the user whose the data is.
        for finding in doctor::examine(path, &CHECKED_PARTS.map(str::to_owned)).findings {
            match finding.state {
                doctor::State::Well => {}
                // It was said above.
                doctor::State::Warning if config.remarks().contains(&finding.text) => {}
                doctor::State::Warning => println!("remark: {}", finding.text),
                doctor::State::Problem => {
                    println!("{}", finding.text);
                    ok = false;
                }
            }
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The program `callvaultd`.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return check_configuration(&arguments.config);
    }
    if arguments.recover {
        return recover_catalogue(&arguments);
    }
    if arguments.backup.is_some() || arguments.restore.is_some() {
        return keep_or_restore(&arguments);
    }
    if arguments.doctor {
        return examine(&arguments);
    }
    give_memory_back(ARENAS_MAX);
    // Keys, tokens and passwords are in it from here on.
    if let Err(error) = keep_memory() {
        eprintln!("callvaultd goes on although it failed to keep its memory out of core dumps: {error}");
    }
    match start::run(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callvaultd failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
