//! What a recorder is told: its settings when it is started, and what becomes of each call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use callvault_config::{Config, KeptDirection, KeptTraffic, MediaAddress, UnknownUser};
use callvault_control::{Decision, Network, Start};
use callvault_directory::{Directory, NumberingPlan};
use callvault_journal::facts::{CallFacts, Direction};
use callvault_policy::{Filters, KeepVerdict, PolicySettings, RecordingMode, Traffic, keep};
use callvault_seal::PublicKey;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::sockets::Sockets;

/// The policy's settings, from those of the operator.
pub(crate) fn policy(config: &Config) -> PolicySettings {
    let mode = match config.recording.mode {
        callvault_config::RecordingMode::Always => RecordingMode::Always,
        callvault_config::RecordingMode::OnDemand => RecordingMode::OnDemand,
    };
    let filters = Filters {
        direction: match config.filters.direction {
            KeptDirection::Incoming => Some(Direction::Incoming),
            KeptDirection::Outgoing => Some(Direction::Outgoing),
            KeptDirection::Both => None,
        },
        traffic: match config.filters.traffic {
            KeptTraffic::Internal => Some(Traffic::Internal),
            KeptTraffic::External => Some(Traffic::External),
            KeptTraffic::Both => None,
        },
        blacklist: config.filters.blacklist.0.clone(),
        keeps_unknown: config.directory.unknown == UnknownUser::Keep,
    };
    PolicySettings::new(mode, &config.recording.on_demand_users.0, &config.recording.keep_types.0).with(filters)
}

/// How numbers are written where the organisation is.
pub(crate) fn numbering_plan(config: &Config) -> NumberingPlan {
    let numbers = &config.numbers;
    let internal = numbers.internal.0.clone();
    NumberingPlan::new(&numbers.country_code.0, &numbers.national_prefix.0, &numbers.international_prefix.0, internal)
}

/// What becomes of a call, by the rules of the policy.
pub(crate) fn decide(facts: &CallFacts, settings: &PolicySettings, directory: &Directory) -> Decision {
    match keep(facts, settings, directory) {
        KeepVerdict::Keep => Decision::Keep,
        KeepVerdict::OnDemand => Decision::OnDemand,
        KeepVerdict::Discard { rule } => Decision::Discard { rule },
    }
}

/// What a recorder is told.
pub(crate) fn settings(appliance: &Appliance, sockets: &Sockets) -> Start {
    let config = &appliance.config;
    let u32_of = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let ms = |d: Duration| u32_of(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let bound = media_bound(config);
    Start {
        generation: Uuid::nil(),
        journal_dir: config.journal_path(),
        checkpoint_dir: Some(config.runtime_dir.join("calls")),
        checkpoint_key: appliance.checkpoint_key.clone(),
        boot: boot_id(),
        sockets_stay: false,
        recipients: appliance.recipients.iter().map(PublicKey::to_text).collect(),
        media_address: Some(bound).filter(|ip| !ip.is_unspecified()),
        media_bound: bound,
        sip_listeners: sockets.sip_addresses(),
        allowed_peers: config
            .sip
            .allowed_peers
            .0
            .iter()
            .map(|n| Network { address: n.address(), prefix: n.prefix_bits() })
            .collect(),
        server_name: config.sip.server_name.clone(),
        session_expires_s: u32_of(config.sip.session_expires.as_secs()),
        session_expires_min_s: u32_of(config.sip.session_expires_min.as_secs()),
        sessions_max: config.limits.sessions_max,
        retry_after_s: u32_of(config.limits.retry_after.as_secs().max(1)),
        tracks_per_session_max: u8::try_from(config.limits.tracks_per_session_max).unwrap_or(u8::MAX),
        sessions_per_peer_max: config.limits.sessions_per_peer_max,
        invites_per_second: config.limits.invites_per_second,
        invites_per_peer_per_second: config.limits.invites_per_peer_per_second,
        connections_max: config.limits.connections_max,
        connections_per_peer_max: config.limits.connections_per_peer_max,
        connection_idle_s: u32_of(config.limits.connection_idle.as_secs()),
        body_bytes_max: u32_of(config.limits.message_bytes_max.0),
        media_timeout_s: u32_of(config.media.timeout.as_secs()),
        paused_timeout_s: u32_of(config.media.paused_timeout.as_secs()),
        receiver_reports: config.media.receiver_reports,
        commit_interval_ms: ms(config.journal.commit_interval),
        batch_interval_ms: ms(config.journal.batch_interval),
        file_bytes_max: config.journal.file_bytes_max.0,
        file_age_max_s: u32_of(config.journal.file_age_max.as_secs()),
        spool_free_min_bytes: config.journal.spool_free_min.0,
    }
}

/// Names the time since the machine was started. Without a name checkpoints of another boot could be taken for this one's, so it is
/// then one that no other daemon has: calls survive the recorder, not the daemon.
fn boot_id() -> Uuid {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.ok().and_then(|text| Uuid::try_parse(text.trim()).ok()).unwrap_or_else(Uuid::now_v7)
}

/// The one address that all these are, or else every address of the families that they are of.
fn common_address(addresses: impl Iterator<Item = IpAddr>) -> IpAddr {
    addresses
        .reduce(|a, b| match (a, b) {
            _ if a == b => a,
            (IpAddr::V4(_), IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            // Sockets that take IPv6 at all addresses take IPv4 as well.
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        })
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The address that media sockets are bound to.
pub(crate) fn media_bound(config: &Config) -> IpAddr {
    match config.media.address {
        MediaAddress::Ip(ip) => ip,
        MediaAddress::Auto => {
            let listeners = config.sip.udp.0.iter().chain(&config.sip.tcp.0).chain(&config.sip.tls.0);
            common_address(listeners.map(|listener| listener.ip().to_canonical()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::common_address;

    fn check(listeners: &[&str], expected: &str) {
        let addresses = listeners.iter().map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(common_address(addresses).to_string(), expected, "{listeners:?}");
    }

    #[test]
    fn media_is_received_wherever_calls_are() {
        check(&["0.0.0.0", "0.0.0.0"], "0.0.0.0");
        check(&["10.0.0.1", "10.0.0.1"], "10.0.0.1");
        check(&["10.0.0.1", "192.168.0.1"], "0.0.0.0");
        check(&["10.0.0.1", "192.168.0.1", "10.0.0.1"], "0.0.0.0");
        check(&["::"], "::");
        check(&["2001:db8::1"], "2001:db8::1");
        check(&["0.0.0.0", "::"], "::");
        check(&["::", "10.0.0.1"], "::");
        check(&["10.0.0.1", "2001:db8::1"], "::");
        check(&[], "0.0.0.0");
    }
}
