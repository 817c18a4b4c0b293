//! Values that are each good but do not go together, or that this version cannot honour yet.

use std::net::SocketAddr;

use crate::Config;
use crate::error::ConfigError;
use crate::layers::{DEFAULT_ORIGIN, Merged, at_origin};
use crate::values::{ArchiveKeys, HttpListen, SOCKET_PATH_BYTES_MAX};

/// Where the errors of a check are gathered, each at the place of the key it is about.
struct Findings<'a> {
    merged: &'a Merged,
    errors: Vec<ConfigError>,
}

impl Findings<'_> {
    /// Refuses a combination of keys, at the place of the first of them that somebody set.
    fn refuse(&mut self, keys: &[&'static str], message: impl Into<String>) {
        let origin = |key: &str| self.merged.find(key).map_or_else(|| DEFAULT_ORIGIN.to_owned(), |(_, origin)| origin);
        let key = keys.iter().find(|key| origin(key) != DEFAULT_ORIGIN).or(keys.first()).copied().unwrap_or_default();
        self.errors.push(ConfigError { key: key.to_owned(), ..at_origin(&origin(key), message) });
    }
}

/// What makes the configuration unusable.
pub(crate) fn errors(config: &Config, merged: &Merged) -> Vec<ConfigError> {
    let mut findings = Findings { merged, errors: Vec::new() };
    not_yet(config, &mut findings);
    addresses(config, &mut findings);
    if config.journal.batch_interval > config.journal.commit_interval {
        let message = "journal.batch_interval is longer than journal.commit_interval; make it the shorter of the two";
        findings.refuse(&["journal.batch_interval", "journal.commit_interval"], message);
    }
    if config.queue.backoff_min > config.queue.backoff_max {
        let message = "queue.backoff_min is longer than queue.backoff_max; make it the shorter of the two";
        findings.refuse(&["queue.backoff_min", "queue.backoff_max"], message);
    }
    if config.runtime_dir == config.data_dir {
        let message = "runtime_dir and data_dir are the same folder; runtime_dir must be another one, on tmpfs";
        findings.refuse(&["runtime_dir", "data_dir"], message);
    }
    findings.errors
}

fn not_yet(config: &Config, findings: &mut Findings<'_>) {
    if !config.sip.tls.0.is_empty() {
        let message = "SIP over TLS is not available in this version; leave the list empty and use sip.tcp or sip.udp";
        findings.refuse(&["sip.tls"], message);
    }
    if config.archive.keys == ArchiveKeys::Catalogue {
        findings.refuse(&["archive.keys"], "\"catalogue\" is not available in this version; write \"file\"");
    }
}

fn addresses(config: &Config, findings: &mut Findings<'_>) {
    if config.sip.udp.0.is_empty() && config.sip.tcp.0.is_empty() && config.sip.tls.0.is_empty() {
        let message = "no SIP address is left: no call could reach the recorder; set sip.udp or sip.tcp";
        findings.refuse(&["sip.udp", "sip.tcp"], message);
    }
    let ports = config.media.ports;
    for address in config.sip.udp.0.iter().filter(|address| ports.contains(address.port())) {
        let message = format!("port {} is both in sip.udp and in media.ports; keep them apart", address.port());
        findings.refuse(&["media.ports", "sip.udp"], message);
    }
    match &config.http.listen {
        HttpListen::Tcp(http) if config.sip.tcp.0.iter().any(|sip| collide(sip, http)) => {
            let message =
                format!("port {} is both in http.listen and in sip.tcp; give one of them another", http.port());
            findings.refuse(&["http.listen", "sip.tcp"], message);
        }
        HttpListen::Unix(path) if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
            let message =
                format!("{} is longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have", path.display());
            findings.refuse(&["http.listen"], message);
        }
        _ => {}
    }
}

/// Whether two TCP sockets cannot both listen.
fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// What is allowed but probably not meant.
pub(crate) fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    // Two tracks a call is what nearly every client sends.
    let calls = u32::from(config.media.ports.pairs()) / 2;
    if calls < config.limits.sessions_max {
        remarks.push(format!(
            "media.ports is enough for {calls} calls with two tracks, but limits.sessions_max is {}: calls beyond the ports are refused; widen the one or lower the other",
            config.limits.sessions_max
        ));
    }
    if config.sip.allowed_peers.0.iter().any(crate::Network::is_everything) {
        remarks.push("sip.allowed_peers admits every address: anyone who reaches the SIP port can fill the disk; name your clients' networks".into());
    }
    if config.log.personal_data {
        remarks.push(
            "log.personal_data is on: this version writes no phone numbers and names to the log all the same".into(),
        );
    }
    remarks
}
