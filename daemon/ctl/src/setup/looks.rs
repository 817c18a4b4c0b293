//! What is looked at for real: the daemon's own doctor, with the answers in force as if they had been written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Stdio;

use callvault_config::Config;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::questions::Values;
use crate::error::CtlError;
use crate::format::text;
use crate::recover::{daemon, output};
use crate::table::harmless;

/// Parts that are no matter of answers: setup is for a machine on which callvaultd does not run yet.
const NOT_ASKED: [&str; 1] = ["service"];

/// One finding: part, whether it is a problem (or only to be looked at), and the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) part: String,
    pub(super) is_problem: bool,
    pub(super) text: String,
}

/// The variable that sets this key.
fn variable(key: &str) -> String {
    format!("CALLVAULT__{}", key.to_uppercase().replace('.', "__"))
}

/// The answers as variables, which win over every file.
fn variables(values: &Values) -> BTreeMap<String, String> {
    values.iter().map(|(key, value)| (variable(key), value.clone())).collect()
}

/// The configuration as it would be, or what is wrong with the answers.
pub(super) fn configured(
    path: &Path,
    environment: &[(String, String)],
    answers: &Values,
) -> Result<Config, Vec<Finding>> {
    let mut all: BTreeMap<String, String> = environment.iter().cloned().collect();
    all.extend(variables(answers));
    Config::load(path, all).map_err(|errors| {
        let finding = |error: &callvault_config::ConfigError| {
            let key = answers.keys().find(|key| variable(key) == error.key).unwrap_or(&error.key);
            Finding { part: "configuration".into(), is_problem: true, text: format!("{key}: {}", error.message) }
        };
        errors.iter().map(finding).collect()
    })
}

/// Asks the doctor about these parts; about everything where none is named. The secret is that of mail; it is on no disk yet.
pub(super) fn examined(
    path: &Path,
    answers: &Values,
    parts: &[&str],
    secret: Option<&str>,
) -> Result<(Vec<Finding>, bool), CtlError> {
    let (program, mut command) = daemon();
    command.arg("--config").arg(path).args(["--doctor", "--json"]);
    command.args(parts.iter().flat_map(|part| ["--part", part]));
    command.envs(variables(answers)).stdin(Stdio::null());
    if let Some(secret) = secret {
        let file = in_memory(secret).map_err(|error| CtlError::File {
            what: "hand the password to the check".into(),
            reason: error.to_string(),
        })?;
        command.stdin(file).env(variable("mail.password_file"), "/dev/stdin");
    }
    let said = output(&program, &mut command)?;
    let diagnosis: Value = serde_json::from_slice(&said.stdout).map_err(|error| CtlError::File {
        what: format!("understand what {} --doctor says", program.display()),
        reason: format!("{error}: {}", harmless(String::from_utf8_lossy(&said.stderr).trim())),
    })?;
    let findings = diagnosis["findings"].as_array().into_iter().flatten();
    let wrong = findings
        .filter(|finding| finding["state"] != "well")
        .map(|finding| Finding {
            part: text(&finding["part"]),
            is_problem: finding["state"] == "problem",
            text: text(&finding["text"]),
        })
        .filter(|finding| !NOT_ASKED.contains(&finding.part.as_str()))
        .collect();
    Ok((wrong, !diagnosis["running"].is_null()))
}

/// A file that is nowhere.
fn in_memory(text: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("password", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Why this folder is on no share: what is mounted where, as proc_pid_mountinfo(5) tells it.
pub(super) fn no_share(path: &Path, mounts: &str) -> Option<String> {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let point = words.nth(4)?.replace("\\040", " ");
        let kind = line.split(" - ").nth(1)?.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point, kind))
    });
    let (point, kind) = points.max_by_key(|(point, _)| point.len())?;
    let is_share =
        ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p"].contains(&kind.as_str()) || kind.starts_with("fuse");
    (!is_share).then(|| {
        format!(
            "{} (store.path) is on no share but on {point} ({kind}) of this machine; mount the share there, and put it into /etc/fstab",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_from_a_folder_of_this_machine() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /mnt/calls\\040kept rw shared:1 - cifs //server/calls rw\n\
                      3 1 0:9 / /mnt/local rw - xfs /dev/b rw\n";
        let check = |path: &str, words: Option<&[&str]>| {
            let said = no_share(Path::new(path), mounts);
            let is_it =
                |words: &&[&str]| words.iter().all(|word| said.as_deref().is_some_and(|said| said.contains(word)));
            assert!(words.map_or(said.is_none(), |words| is_it(&words)), "{path}: {said:?}");
        };
        check("/mnt/calls kept/a", None);
        check("/mnt/calls kept", None);
        check("/mnt/local", Some(&["/mnt/local", "xfs", "mount the share"]));
        check("/mnt/calls", Some(&["on / (ext4)"]));
    }
}
