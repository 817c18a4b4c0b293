//! Settings that administrators change: looked at as a whole, checked as a start checks them, told before they are taken, in the audit log
//! before they are written, and written to a file of the daemon's own that a crash leaves as it was or as it is to be.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use callvault_access::audit::{DETAILS_MAX, Entry, Outcome};
use callvault_access::{Action, Caller, On};
use callvault_config::{
    Config, Effective, Mistake, Proposal, Risk, Wanted, environment, render_errors, risks, takes_effect_at_once,
};
use callvault_http::{Answer, ApiError, ChangeSettings, ErrorKind};
use serde_json::{Value, json};

use super::version;
use crate::appliance::Appliance;
use crate::certificates;
use crate::files::{make_folder, write_whole};
use crate::retention::{self, Preview};
use crate::{reload, told};

/// Characters of a value in the audit log: the old and the new one are there both.
const VALUE_CHARS_MAX: usize = 90;

/// A setting that is other than it was.
struct Changed<'a> {
    old: &'a Effective,
    new: &'a Effective,
}

/// A change that was found good, and what it does.
struct Plan<'a> {
    changed: Vec<Changed<'a>>,
    risks: Vec<(&'static str, Risk)>,
    preview: Option<Preview>,
}

impl Plan<'_> {
    /// What has to be typed; empty where nothing has to be.
    fn word(&self) -> String {
        self.risks.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" ")
    }

    fn json(&self, version: &str, is_applied: bool) -> Value {
        let changes = self.changed.iter().map(|Changed { old, new }| {
            json!({
                "key": old.key, "from": old.shown(), "to": new.shown(), "origin": new.origin,
                "takes_effect": if takes_effect_at_once(old.key) { "at once" } else { "restart" },
            })
        });
        let risks =
            self.risks.iter().map(|(key, risk)| json!({"key": key, "risk": risk.as_str(), "text": risk.text()}));
        let word = self.word();
        json!({
            "applied": is_applied, "version": version, "mistakes": [], "changes": changes.collect::<Vec<_>>(),
            "risks": risks.collect::<Vec<_>>(), "confirm": (!word.is_empty()).then_some(word),
            "retention": self.preview.as_ref().map(Preview::json),
        })
    }
}

fn unprocessable(mistakes: &[Mistake]) -> ApiError {
    let one = |mistake: &Mistake| {
        if mistake.key.is_empty() { mistake.message.clone() } else { format!("{}: {}", mistake.key, mistake.message) }
    };
    let all: Vec<String> = mistakes.iter().map(one).collect();
    ApiError::new(ErrorKind::Unprocessable, format!("nothing was changed: {}", all.join("; ")))
}

fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Conflict, text)
}

/// `PUT /v1/settings`. With `dry_run` nothing is changed, and mistakes are part of the answer.
pub(crate) fn change(appliance: &Appliance, caller: &Caller, wanted: &ChangeSettings) -> Answer {
    if wanted.is_dry_run {
        appliance.permit_all(caller, Action::SeeSettings)?;
    } else {
        let entry = appliance.entry(caller, Action::Settings);
        appliance.allow(caller, Action::Settings, On::Everything, &entry)?;
    }
    let _one_at_a_time = appliance.settings.changing();
    reload::take_files(appliance).map_err(conflict)?;
    let before = appliance.settings.latest();
    let seen = version(&before);
    if seen != wanted.version {
        let text = "the settings are not those that were looked at: somebody changed them meanwhile; look at them again, and change what is still to be changed";
        return Err(conflict(text));
    }
    let proposal = match proposed(appliance, &before, &wanted.changes) {
        Ok(proposal) => proposal,
        Err(mistakes) if wanted.is_dry_run => {
            let mistakes: Vec<Value> =
                mistakes.iter().map(|one| json!({"key": one.key, "message": one.message})).collect();
            return Ok(json!({
                "applied": false, "version": seen, "mistakes": mistakes, "changes": [], "risks": [], "confirm": null,
                "retention": null,
            }));
        }
        Err(mistakes) => return Err(unprocessable(&mistakes)),
    };
    let plan = planned(appliance, &before, &proposal.config)?;
    if wanted.is_dry_run {
        return Ok(plan.json(&seen, false));
    }
    let word = plan.word();
    if !word.is_empty() && wanted.confirm.as_deref().map(str::trim) != Some(&word) {
        let said: Vec<String> = plan.risks.iter().map(|(key, risk)| format!("{key} {}", risk.text())).collect();
        return Err(conflict(format!(
            "nothing was changed: {}; if that is meant, confirm it with {word:?}",
            said.join("; ")
        )));
    }
    if proposal.text != written(before.portal_file()) {
        audit(appliance, caller, &plan, Outcome::Allowed)?;
        if let Err(error) = write(before.portal_file(), &proposal.text) {
            // It was allowed, and the log says so already: it says as well that nothing came of it.
            let _ = audit(appliance, caller, &plan, Outcome::Failed);
            let path = before.portal_file().display();
            let text = format!("failed to write {path}: {error}; nothing was changed; ask who runs the machine");
            return Err(ApiError::new(ErrorKind::Unavailable, text));
        }
        reload::take_files(appliance).map_err(|text| ApiError::new(ErrorKind::Internal, text))?;
        tracing::warn!(settings = plan.changed.len(), "an administrator changed settings");
    }
    Ok(plan.json(&version(&appliance.settings.latest()), true))
}

/// The configuration with these changes, checked as a start and `config check` do, and as it goes on until the next start.
fn proposed(appliance: &Appliance, before: &Config, changes: &[(String, Value)]) -> Result<Proposal, Vec<Mistake>> {
    let changes: Vec<(String, Option<Wanted>)> =
        changes.iter().map(|(key, value)| (key.clone(), wanted_of(value))).collect();
    let proposal = before.proposed(environment(), &changes)?;
    let new = &proposal.config;
    let whole = |message: String| vec![Mistake { key: String::new(), message }];
    if let Err(errors) = appliance.settings.mixed(new) {
        let text = render_errors(&errors);
        let text = text.lines().next().unwrap_or_default();
        return Err(whole(format!(
            "part of it takes effect at once and does not go together with what stays until the restart ({text}); change first what waits for the restart, and the rest after it"
        )));
    }
    let is_latched = appliance.access.permissions().never_delete;
    if is_latched && before.permissions.delete != new.permissions.delete {
        let message = "can never be changed again: deleting by hand was switched off for ever".to_owned();
        return Err(vec![Mistake { key: "permissions.delete".to_owned(), message }]);
    }
    let unbound = unbound(before, new);
    if !unbound.is_empty() {
        return Err(unbound);
    }
    if before.sip != new.sip {
        let (were_well, _) = certificates::check(before, certificates::unix_s());
        let (are_well, text) = certificates::check(new, certificates::unix_s());
        if were_well && !are_well {
            return Err(whole(text.trim_end().replace('\n', "; ")));
        }
    }
    Ok(proposal)
}

/// Addresses that a start would fail to bind, and with it the appliance: the portal, too, could not be used to take that back. What is bound
/// already, and ports that are the appliance's own at another address until the restart, are taken to be free then.
fn unbound(before: &Config, new: &Config) -> Vec<Mistake> {
    let (old_sip, new_sip) = (&before.sip, &new.sip);
    let listens = [
        ("sip.udp", &old_sip.udp.0, &new_sip.udp.0, true),
        ("sip.tcp", &old_sip.tcp.0, &new_sip.tcp.0, false),
        ("sip.tls", &old_sip.tls.0, &new_sip.tls.0, false),
    ];
    let mut mistakes = Vec::new();
    let mut try_address = |key: &str, address: SocketAddr, bound: io::Result<()>, is_ours: bool| {
        let Err(error) = bound else { return };
        if error.kind() != io::ErrorKind::AddrInUse || !is_ours {
            let message = format!(
                "{address} cannot be bound ({error}), so the next start would fail; name an address of this machine and a port that is free"
            );
            mistakes.push(Mistake { key: key.to_owned(), message });
        }
    };
    let held: Vec<u16> = listens.iter().flat_map(|(_, old, ..)| old.iter().map(SocketAddr::port)).collect();
    for (key, old, new, is_udp) in listens {
        for address in new.iter().filter(|address| !old.contains(address)) {
            let bound = if is_udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) };
            try_address(key, *address, bound, held.contains(&address.port()));
        }
    }
    if before.media.address != new.media.address {
        let address = SocketAddr::new(told::media_bound(new), 0);
        try_address("media.address", address, UdpSocket::bind(address).map(drop), false);
    }
    mistakes
}

/// Of JSON, which was looked at when it came.
fn wanted_of(value: &Value) -> Option<Wanted> {
    match value {
        Value::Bool(flag) => Some(Wanted::Flag(*flag)),
        Value::Number(number) => Some(Wanted::Number(number.as_i64().unwrap_or(i64::MAX))),
        Value::String(text) => Some(Wanted::Text(text.clone())),
        Value::Array(entries) => {
            Some(Wanted::List(entries.iter().map(|entry| entry.as_str().unwrap_or_default().to_owned()).collect()))
        }
        Value::Null | Value::Object(_) => None,
    }
}

fn planned<'a>(appliance: &Appliance, before: &'a Config, after: &'a Config) -> Result<Plan<'a>, ApiError> {
    let pairs = before.effective().iter().zip(after.effective());
    let changed: Vec<Changed<'a>> =
        pairs.filter(|(old, new)| old.value != new.value).map(|(old, new)| Changed { old, new }).collect();
    let mut risks = risks(before, after);
    let rules = |key: &str| key.starts_with("retention.") || key == "organisation.time_zone";
    let rule = changed.iter().map(|changed| changed.old.key).find(|key| rules(key));
    let preview = rule.map(|_| retention::preview(appliance, after)).transpose().map_err(|error| {
        tracing::error!("failed to {error:#}");
        ApiError::new(ErrorKind::Unavailable, format!("failed to {error:#}"))
    })?;
    // What the words of a rule do not show, the recordings do.
    let deletes = preview.as_ref().is_some_and(|preview| preview.deletes_more());
    if let (true, Some(key)) = (deletes && !risks.iter().any(|(_, risk)| *risk == Risk::Deletes), rule) {
        risks.push((key, Risk::Deletes));
    }
    Ok(Plan { changed, risks, preview })
}

fn audit(appliance: &Appliance, caller: &Caller, plan: &Plan<'_>, outcome: Outcome) -> Result<(), ApiError> {
    let cut = |text: &str| -> String {
        let is_long = text.chars().count() > VALUE_CHARS_MAX;
        text.chars().take(VALUE_CHARS_MAX).chain(is_long.then_some('…')).collect()
    };
    for changed in plan.changed.chunks(DETAILS_MAX) {
        let entry = changed.iter().fold(appliance.entry(caller, Action::Settings), |entry, Changed { old, new }| {
            entry.with(old.key, format!("{} → {}", cut(old.shown()), cut(new.shown())))
        });
        appliance.audit(&Entry { outcome, ..entry })?;
    }
    Ok(())
}

/// What the file holds; empty where there is none.
fn written(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    write_whole(path, text.as_bytes())
}
