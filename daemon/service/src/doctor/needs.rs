//! What the configuration names: keys, folders, the store, certificates, servers.

use std::io;
use std::path::Path;

use callvault_config::Config;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::{Finding, Patient};
use crate::certificates::{self, CertificateFiles};
use crate::store::Store;
use crate::stores::{Known, Record, Stores};
use crate::{deliveries, keys as key_files, mailing};

/// The private keys: there, readable, and by nobody else.
pub(super) fn keys(patient: &Patient) -> Vec<Finding> {
    let part = "keys";
    let config = &patient.config;
    let path = config.keys_path().join(key_files::CURRENT_NAME);
    if let Some(text) = key_files::open_to_others(&path) {
        return vec![Finding::problem(part, text)];
    }
    match key_files::look(&config.keys_path()) {
        Ok(id) => {
            vec![Finding::well(part, format!("the private key is {id}; is its backup apart from the recordings?"))]
        }
        Err(key_files::KeysError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let folder = config.keys_path();
            if patient.running.is_some() {
                return vec![Finding::well(part, "the running daemon has its private key as a credential")];
            }
            if config.catalogue_path().exists() {
                let text = format!(
                    "there is no private key in {}, and there are recordings that only it can open; restore it from your backup, or give it as the credential {} of the unit",
                    folder.display(),
                    key_files::CURRENT_NAME
                );
                return vec![Finding::problem(part, text)];
            }
            vec![Finding::well(
                part,
                format!("the first start makes a private key in {}; back it up then", folder.display()),
            )]
        }
        Err(error) => vec![Finding::problem(part, format!("failed to {error}"))],
    }
}

/// The folders on this machine.
pub(super) fn data(patient: &Patient) -> Vec<Finding> {
    let part = "data";
    let config = &patient.config;
    let mut findings = Vec::new();
    for (path, key) in [(&config.data_dir, "data_dir"), (&config.runtime_dir, "runtime_dir")] {
        if let Some(text) = unusable(path) {
            let remedy = "give it to the user that callvaultd runs as, or name another one";
            findings.push(Finding::problem(part, format!("{} ({key}) {text}; {remedy}", path.display())));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::well(part, format!("{} can be written", config.data_dir.display())));
    }
    findings
}

/// Why the folder, or what it would be made in, cannot be written.
fn unusable(path: &Path) -> Option<String> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let flags = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let what = if there == path { String::new() } else { format!("is not there, and {} ", there.display()) };
    if !there.is_dir() {
        return Some(format!("{what}is not a folder"));
    }
    access(there, flags).err().map(|error| format!("{what}cannot be written ({})", error.desc()))
}

/// Room for calls.
pub(super) fn spool(patient: &Patient) -> Vec<Finding> {
    let part = "spool";
    vec![match room(&patient.config) {
        Ok(text) => Finding::well(part, text),
        Err(text) => Finding::problem(part, text),
    }]
}

/// How much room for calls there is; an error where they are refused because there is too little.
pub(crate) fn room(config: &Config) -> Result<String, String> {
    let journal = config.journal_path();
    let there = journal.ancestors().find(|folder| folder.exists()).unwrap_or(&journal);
    let about = statvfs(there)
        .map_err(|error| format!("{} cannot be looked at: {error}; is its disk mounted?", there.display()))?;
    let free = about.blocks_available().saturating_mul(about.fragment_size());
    let floor = config.journal.spool_free_min.0;
    let (has, needs) = (mib(free), mib(floor));
    if free < floor {
        return Err(format!(
            "the disk of {} has {has} MiB free, and below {needs} MiB (journal.spool_free_min) calls are refused; make room, or lower the floor",
            journal.display()
        ));
    }
    Ok(format!("{has} MiB are free for calls, {needs} MiB of them kept back"))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// The store: there, the right one, and takes files.
pub(super) fn store(patient: &Patient) -> Vec<Finding> {
    let part = "store";
    let config = &patient.config;
    let (record, wrong) = Record::read(config);
    let stores = Stores::new(record.clone(), &config.data_dir, config.store.timeout);
    let unreadable = wrong.map(|text| Finding::problem(part, format!("failed to {text}")));
    let looked = record.stores.iter().map(|known| look_at_store(config, known, &stores.prepare(known)));
    unreadable.into_iter().chain(looked).collect()
}

/// How one of the stores is. New archives go to one, and those of earlier days may still be in others.
fn look_at_store(config: &Config, known: &Known, store: &Store) -> Finding {
    let (part, path) = ("store", &known.path);
    if !config.data_dir.join(Record::expected_name(&known.name)).exists() {
        // Nothing was ever put there, and a look would make it a store.
        if let Some(point) = store.unmounted() {
            let text = format!(
                "{} (store.path): {} is in /etc/fstab but not mounted; `mount {}`, and look at what it says",
                path.display(),
                point.display(),
                point.display()
            );
            return Finding::problem(part, text);
        }
        return match unusable(path) {
            Some(text) => Finding::problem(
                part,
                format!(
                    "{} (store.path) {text}; mount the share, or give the folder to the user that callvaultd runs as",
                    path.display()
                ),
            ),
            None => Finding::well(part, format!("{} becomes the store with the first archive", path.display())),
        };
    }
    store.look();
    let condition = store.condition();
    store.stop();
    match condition.away {
        Some(text) => Finding::problem(part, text),
        None => {
            let room = condition.free_bytes.map(|free| format!(", {} MiB free", mib(free))).unwrap_or_default();
            Finding::well(part, format!("{} takes files{room}", path.display()))
        }
    }
}

/// The certificate for SIP over TLS.
pub(super) fn certificates(patient: &Patient) -> Vec<Finding> {
    let part = "certificates";
    if CertificateFiles::of(&patient.config).is_none() {
        return vec![Finding::well(part, "no SIP over TLS is configured, so none is needed")];
    }
    let (is_usable, text) = certificates::check(&patient.config, certificates::unix_s());
    let text = text.trim().trim_start_matches("remark: ").to_owned();
    vec![match (is_usable, text.is_empty()) {
        (true, true) => Finding::well(part, "certificate and key belong together and are in force"),
        (true, false) => Finding::warning(part, text),
        (false, _) => Finding::problem(part, text),
    }]
}

/// The mail server: connects, encrypts, lets us in.
pub(super) fn mail(patient: &Patient) -> Vec<Finding> {
    let part = "mail";
    let mail = &patient.config.mail;
    if mail.server.is_empty() {
        return vec![Finding::well(part, "no mail is sent (mail.server is empty)")];
    }
    let tried = mailing::server_of(mail)
        .and_then(|server| callvault_mail::try_server(&server).map_err(|failed| failed.to_string()));
    vec![match tried {
        Ok(()) => Finding::well(
            part,
            format!("{} answers and lets us in; `callvaultctl mail test ADDRESS` sends one", mail.server),
        ),
        Err(text) => {
            Finding::problem(part, format!("the mail server {}: {text}; mails wait until it works", mail.server))
        }
    }]
}

/// What deliveries to others need on this machine.
pub(super) fn uploads(patient: &Patient) -> Vec<Finding> {
    let part = "uploads";
    let config: &Config = &patient.config;
    let text = deliveries::check(config);
    let wrong: Vec<_> =
        text.lines().map(|line| Finding::problem(part, line.trim_start_matches("remark: ").to_owned())).collect();
    if wrong.is_empty() {
        vec![Finding::well(part, "nothing is missing for the deliveries that are configured")]
    } else {
        wrong
    }
}
