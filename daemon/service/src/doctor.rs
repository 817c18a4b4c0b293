//! `--doctor`: looks at what the appliance needs, as the user that it runs as, and says of each part whether it is well, and what is to
//! be done where it is not. It changes nothing but one thing: a store that is in use is asked to take a small file.
//!
//! While a daemon runs, what only one process can have (its ports, the store's proof) is left to it, and its own health says how they are.

mod machine;
mod needs;
mod ports;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use callvault_config::Config;
use nix::unistd::{Uid, User, geteuid, initgroups, setgid, setuid};
use serde::Serialize;

pub(crate) use needs::room;

/// How long a part is waited for. A name server, a mail server or a share may never answer.
const PART_WITHIN: Duration = Duration::from_secs(45);

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing is to be done.
    Well,
    /// Calls are recorded, and something should be done.
    Warning,
    /// Something does not work.
    Problem,
}

/// What was found about a part of what the appliance needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The part.
    pub(crate) part: &'static str,
    pub(crate) state: State,
    /// What was found, and what to do about it, in one sentence.
    pub(crate) text: String,
}

impl Finding {
    fn well(part: &'static str, text: impl Into<String>) -> Self {
        Self { part, state: State::Well, text: text.into() }
    }

    fn warning(part: &'static str, text: impl Into<String>) -> Self {
        Self { part, state: State::Warning, text: text.into() }
    }

    fn problem(part: &'static str, text: impl Into<String>) -> Self {
        Self { part, state: State::Problem, text: text.into() }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// The process of the daemon that uses the data folder.
    pub(crate) running: Option<u32>,
    pub(crate) findings: Vec<Finding>,
}

impl Diagnosis {
    /// The gravest of what was found.
    pub(crate) fn state(&self) -> State {
        self.findings.iter().map(|finding| finding.state).max().unwrap_or(State::Well)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { part, state, text } in &self.findings {
            let state = match state {
                State::Well => "ok",
                State::Warning => "WARNING",
                State::Problem => "PROBLEM",
            };
            writeln!(f, "{state:8} {part:14} {text}")?;
        }
        Ok(())
    }
}

/// What a look needs to know.
#[derive(Clone)]
struct Patient {
    config: Config,
    /// Whether this is the configuration that the service uses.
    is_installed: bool,
    running: Option<u32>,
}

/// A look at one part.
type Look = fn(&Patient) -> Vec<Finding>;

/// All of them, in the order in which they are told.
const LOOKS: [(&str, Look); 12] = [
    ("service", machine::service),
    ("programs", machine::programs),
    ("keys", needs::keys),
    ("data", needs::data),
    ("spool", needs::spool),
    ("store", needs::store),
    ("ports", ports::ports),
    ("certificates", needs::certificates),
    ("kernel", machine::kernel),
    ("clock", machine::clock),
    ("mail", needs::mail),
    ("uploads", needs::uploads),
];

/// The parts that there are, by their names.
pub(crate) fn parts() -> impl Iterator<Item = &'static str> {
    LOOKS.iter().map(|(part, _)| *part)
}

/// Looks at these parts; at everything where none is named.
pub(crate) fn examine(path: &Path, wanted: &[String]) -> Diagnosis {
    let config = match Config::load(path, callvault_config::environment()) {
        Ok(config) => config,
        Err(errors) => {
            let finding = |error: &callvault_config::ConfigError| Finding::problem("configuration", error.to_string());
            return Diagnosis { running: None, findings: errors.iter().map(finding).collect() };
        }
    };
    let mut findings = vec![Finding::well("configuration", format!("{} is good", path.display()))];
    findings.extend(config.remarks().into_iter().map(|remark| Finding::warning("configuration", remark)));
    findings.extend(become_owner(&config.data_dir));
    let running = machine::holder_of(&config.data_dir.join("lock"));
    let patient = Patient { config, is_installed: path == Path::new(callvault_config::DEFAULT_PATH), running };
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    for (part, look) in LOOKS.into_iter().filter(|(part, _)| is_wanted(part)) {
        findings.extend(within(part, &patient, look));
    }
    Diagnosis { running, findings }
}

/// A look that is not waited for for ever; what hangs is left behind, and ends with this process.
fn within(part: &'static str, patient: &Patient, look: Look) -> Vec<Finding> {
    let (say, said) = mpsc::channel();
    let patient = patient.clone();
    thread::spawn(move || say.send(look(&patient)));
    said.recv_timeout(PART_WITHIN).unwrap_or_else(|_| {
        let text = format!(
            "no answer within {} s; what it asks (a share, a server, a name server) hangs: look at that first",
            PART_WITHIN.as_secs()
        );
        vec![Finding::problem(part, text)]
    })
}

/// Root may do what the daemon may not, and others may do less. Root goes on as the user that the data belongs to, so that what is found is what the daemon finds.
fn become_owner(data: &Path) -> Option<Finding> {
    let owner = Uid::from_raw(fs::metadata(data).ok()?.uid());
    if owner == geteuid() {
        return None;
    }
    if !geteuid().is_root() {
        let text = "the data belongs to another user than the one that looks here, who may do less; look as root to see what callvaultd finds";
        return Some(Finding::warning("configuration", text));
    }
    let user = User::from_uid(owner).ok().flatten()?;
    let name = std::ffi::CString::new(user.name.as_str()).ok()?;
    match initgroups(&name, user.gid).and_then(|()| setgid(user.gid)).and_then(|()| setuid(owner)) {
        Ok(()) => None,
        Err(error) => Some(Finding::warning(
            "configuration",
            format!("the checks are made as root, who may do more than the user {}: {error}", user.name),
        )),
    }
}

#[cfg(test)]
mod tests;
