//! Changes that somebody should mean: what opens a door, sends recordings or secrets elsewhere, deletes, or loses calls.
//!
//! They are allowed. Whoever makes one in the portal is told what it does and types its name.

use crate::values::{
    ArchiveKeys, ClientCertificate, KeptDirection, KeptTraffic, LicenceModel, RecordingMode, RetentionPeriod,
    RetentionRule, UnknownUser, WhoDeletes, WhoMay,
};
use crate::{Config, MailTls};

/// What a change may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Risk {
    /// It can never be taken back.
    Irreversible,
    /// Recordings are deleted sooner than they would have been.
    Deletes,
    /// People or systems may what they might not.
    Opens,
    /// Recordings, or the secrets by which this appliance signs in, go to another place.
    Sends,
    /// Calls or keys are not kept that would have been, or archives are looked for elsewhere.
    Loses,
    /// Clients may not reach the recorder any more, or it may not start.
    Unreachable,
}

impl Risk {
    /// A stable word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Irreversible => "irreversible",
            Self::Deletes => "deletes",
            Self::Opens => "opens",
            Self::Sends => "sends",
            Self::Loses => "loses",
            Self::Unreachable => "unreachable",
        }
    }

    /// One sentence on what it does.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Irreversible => "can never be taken back, by nobody",
            Self::Deletes => "makes recordings go sooner than they would have",
            Self::Opens => "lets people or systems do what they might not do",
            Self::Sends => "sends recordings, or the secrets by which the appliance signs in, to another place",
            Self::Loses => "does not keep calls or keys that would have been kept, or looks for archives elsewhere",
            Self::Unreachable => "may keep clients from reaching the recorder, or the recorder from starting",
        }
    }
}

/// The keys whose change from `old` to `new` somebody should mean, with what it may do, in the order of the documentation.
#[must_use]
pub fn risks(old: &Config, new: &Config) -> Vec<(&'static str, Risk)> {
    new.differing(old).into_iter().filter_map(|key| Some((key, risk(key, old, new)?))).collect()
}

fn risk(key: &str, old: &Config, new: &Config) -> Option<Risk> {
    let when = |is_so: bool, risk: Risk| is_so.then_some(risk);
    match key {
        "permissions.delete" if new.permissions.delete == WhoDeletes::NobodyIrreversibly => Some(Risk::Irreversible),
        "permissions.delete" => when(deleters(new.permissions.delete) > deleters(old.permissions.delete), Risk::Opens),
        "permissions.download" => {
            when(people(new.permissions.download) > people(old.permissions.download), Risk::Opens)
        }
        "permissions.preserve" => {
            when(people(new.permissions.preserve) > people(old.permissions.preserve), Risk::Opens)
        }
        "retention.rule" | "retention.period" => when(kept_hours(new) < kept_hours(old), Risk::Deletes),
        "retention.preserved" => when(preserved_hours(new) < preserved_hours(old), Risk::Deletes),
        "retention.wait_for_upload" => when(!new.retention.wait_for_upload, Risk::Deletes),
        "retention.confirm_share" => when(new.retention.confirm_share > old.retention.confirm_share, Risk::Deletes),
        "retention.confirm_few" => when(new.retention.confirm_few > old.retention.confirm_few, Risk::Deletes),
        "sip.allowed_peers" => Some(Risk::Opens),
        "sip.tls_client_certificate" => {
            when(new.sip.tls_client_certificate == ClientCertificate::Optional, Risk::Opens)
        }
        "log.personal_data" => when(new.log.personal_data, Risk::Opens),
        "oidc.takes_unverified" => when(new.oidc.takes_unverified, Risk::Opens),
        "oidc.client_id" | "oidc.claim" | "oidc.redirect" => Some(Risk::Opens),
        "keys.escrow" => {
            let (old, new) = (&old.keys.escrow.0, &new.keys.escrow.0);
            let is_added = new.iter().any(|key| !old.contains(key));
            Some(if is_added { Risk::Opens } else { Risk::Loses })
        }
        "analytics.enabled" => when(new.analytics.enabled, Risk::Sends),
        "webhook.enabled" => when(new.webhook.enabled, Risk::Sends),
        "export_folder.enabled" => when(new.export_folder.enabled, Risk::Sends),
        "export_folder.path" => when(new.export_folder.path.is_some(), Risk::Sends),
        "mail.tls" => when(new.mail.tls == MailTls::None, Risk::Sends),
        "mail.server" => when(!new.mail.server.is_empty(), Risk::Sends),
        "oidc.issuer" => when(!new.oidc.issuer.is_empty(), Risk::Sends),
        // Secrets go to whatever stands here.
        _ if key.ends_with(".url") || key.ends_with("_url") || key.ends_with(".proxy") => Some(Risk::Sends),
        "archive.keys" => when(new.archive.keys == ArchiveKeys::Catalogue, Risk::Loses),
        "store.path" => Some(Risk::Loses),
        "recording.mode" => when(new.recording.mode == RecordingMode::OnDemand, Risk::Loses),
        "recording.on_demand_users" | "filters.blacklist" | "licence.channels_max" | "licence.users_max" => {
            Some(Risk::Loses)
        }
        "filters.direction" => when(new.filters.direction != KeptDirection::Both, Risk::Loses),
        "filters.traffic" => when(new.filters.traffic != KeptTraffic::Both, Risk::Loses),
        "directory.unknown" => when(new.directory.unknown == UnknownUser::Discard, Risk::Loses),
        "licence.model" => when(new.licence.model != LicenceModel::None, Risk::Loses),
        "sip.udp" | "sip.tcp" | "sip.tls" | "media.address" | "media.ports" => Some(Risk::Unreachable),
        "limits.sessions_max" => when(new.limits.sessions_max < old.limits.sessions_max, Risk::Unreachable),
        _ => None,
    }
}

/// How many may, for comparison.
fn people(who: WhoMay) -> u8 {
    match who {
        WhoMay::Nobody => 0,
        WhoMay::Administrators => 1,
        WhoMay::GroupSupervisors => 2,
        WhoMay::Users => 3,
    }
}

fn deleters(who: WhoDeletes) -> u8 {
    match who {
        WhoDeletes::Nobody | WhoDeletes::NobodyIrreversibly => 0,
        WhoDeletes::Administrators => 1,
        WhoDeletes::GroupSupervisors => 2,
        WhoDeletes::Users => 3,
    }
}

/// How long recordings stay, in hours, months counted alike; what a change deletes is counted elsewhere, from the recordings themselves.
/// `u64::MAX`: for ever.
fn kept_hours(config: &Config) -> u64 {
    match config.retention.rule {
        RetentionRule::KeepAll => u64::MAX,
        RetentionRule::TwelveMonths => hours(RetentionPeriod { count: 12, unit: "months" }),
        RetentionRule::FortyEightMonths => hours(RetentionPeriod { count: 48, unit: "months" }),
        RetentionRule::FourHours => 4,
        RetentionRule::Custom => hours(config.retention.period),
    }
}

fn preserved_hours(config: &Config) -> u64 {
    config.retention.preserved.0.map_or(u64::MAX, hours)
}

fn hours(period: RetentionPeriod) -> u64 {
    /// Of a year divided by twelve.
    const MONTH: u64 = 730;
    let unit = match period.unit {
        "hours" => 1,
        "days" => 24,
        "months" => MONTH,
        _ => 12 * MONTH,
    };
    u64::from(period.count) * unit
}
