//! Values that are each good but do not go together, or that this version cannot honour yet.

use std::net::SocketAddr;

use crate::Config;
use crate::deliveries_check;
use crate::error::ConfigError;
use crate::layers::{DEFAULT_ORIGIN, Merged, at_origin};
use crate::mail::MailTls;
use crate::values::{HttpListen, SOCKET_PATH_BYTES_MAX};
use crate::webex_check;

/// Where the errors of a check are gathered, each at the place of the key it is about.
pub(crate) struct Findings<'a> {
    merged: &'a Merged,
    errors: Vec<ConfigError>,
}

impl Findings<'_> {
    /// Refuses a combination of keys, at the place of the first of them that somebody set.
    pub(crate) fn refuse(&mut self, keys: &[&'static str], message: impl Into<String>) {
        let origin = |key: &str| self.merged.find(key).map_or_else(|| DEFAULT_ORIGIN.to_owned(), |(_, origin)| origin);
        let key = keys.iter().find(|key| origin(key) != DEFAULT_ORIGIN).or(keys.first()).copied().unwrap_or_default();
        self.errors.push(ConfigError { key: key.to_owned(), ..at_origin(&origin(key), message) });
    }
}

/// What makes the configuration unusable.
pub(crate) fn errors(config: &Config, merged: &Merged) -> Vec<ConfigError> {
    let mut findings = Findings { merged, errors: Vec::new() };
    addresses(config, &mut findings);
    deliveries_check::errors(config, &mut findings);
    webex_check::errors(config, &mut findings);
    mail(config, &mut findings);
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

fn addresses(config: &Config, findings: &mut Findings<'_>) {
    if config.sip.udp.0.is_empty() && config.sip.tcp.0.is_empty() && config.sip.tls.0.is_empty() {
        let message = "no SIP address is left: no call could reach the recorder; set sip.udp, sip.tcp or sip.tls";
        findings.refuse(&["sip.udp", "sip.tcp", "sip.tls"], message);
    }
    let ports = config.media.ports;
    for address in config.sip.udp.0.iter().filter(|address| ports.contains(address.port())) {
        let message = format!("port {} is both in sip.udp and in media.ports; keep them apart", address.port());
        findings.refuse(&["media.ports", "sip.udp"], message);
    }
    for tls in config.sip.tls.0.iter().filter(|tls| config.sip.tcp.0.iter().any(|tcp| collide(tcp, tls))) {
        let message = format!("port {} is both in sip.tls and in sip.tcp; give one of them another", tls.port());
        findings.refuse(&["sip.tls", "sip.tcp"], message);
    }
    if !config.sip.tls.0.is_empty() && config.sip.tls_certificate.is_none() {
        let message = "sip.tls needs a certificate; name the file in sip.tls_certificate and its key in sip.tls_key";
        findings.refuse(&["sip.tls", "sip.tls_certificate"], message);
    }
    match &config.http.listen {
        HttpListen::Tcp(http) => {
            for (key, listen) in [("sip.tcp", &config.sip.tcp), ("sip.tls", &config.sip.tls)] {
                if listen.0.iter().any(|sip| collide(sip, http)) {
                    let port = http.port();
                    let message = format!("port {port} is both in http.listen and in {key}; give one of them another");
                    findings.refuse(&["http.listen", key], message);
                }
            }
        }
        HttpListen::Unix(path) if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
            let message =
                format!("{} is longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have", path.display());
            findings.refuse(&["http.listen"], message);
        }
        _ => {}
    }
    if let Some(path) = &config.portal.socket
        && path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
    {
        let message =
            format!("{} is longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have", path.display());
        findings.refuse(&["portal.socket"], message);
    }
}

fn mail(config: &Config, findings: &mut Findings<'_>) {
    let mail = &config.mail;
    if mail.server.is_empty() {
        return;
    }
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    let has_port = mail.server.matches(':').count() == 1;
    if !is_name(&mail.server) || has_port {
        let message =
            "mail.server is a name such as \"smtp.example.com\" or an address, and nothing else; the port is mail.port";
        findings.refuse(&["mail.server"], message);
    }
    if !is_mail_address(&mail.from) {
        let message = "mail.server is set, so mail.from must be the address that mails come from, such as \"callvault@example.com\"";
        findings.refuse(&["mail.from", "mail.server"], message);
    }
    if mail.user.is_empty() && mail.password_file.is_some() {
        findings.refuse(&["mail.password_file"], "mail.password_file is set, but mail.user is empty; set both or none");
    }
}

/// Whether this looks like `local@domain` in ASCII; the mail server knows the rest.
fn is_mail_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let plain = |b: u8| b.is_ascii_graphic() && !b"<>()[],;:\\\"@".contains(&b);
    !local.is_empty() && !domain.is_empty() && local.bytes().all(plain) && domain.bytes().all(plain)
}

/// Whether two TCP sockets cannot both listen. (All addresses of IPv6 and all of IPv4 can be two sockets.)
fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    let any = |one: &SocketAddr, other: &SocketAddr| {
        one.ip().is_unspecified() && (one.is_ipv6() == other.is_ipv6() || !other.ip().is_unspecified())
    };
    a.port() == b.port() && (a.ip() == b.ip() || any(a, b) || any(b, a))
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
    if config.sip.tls.0.is_empty() && config.sip.tls_certificate.is_some() {
        remarks.push("sip.tls_certificate is set, but sip.tls is empty: nothing listens for TLS".into());
    }
    if config.limits.connections_per_peer_max > config.limits.connections_max {
        remarks.push("limits.connections_per_peer_max is above limits.connections_max, which comes first".into());
    }
    deliveries_check::remarks(config, &mut remarks);
    webex_check::remarks(config, &mut remarks);
    if !config.mail.server.is_empty() && config.mail.tls == MailTls::None && !config.mail.user.is_empty() {
        remarks.push("mail.tls is \"none\" with mail.user set: the password crosses the network readable; use \"starttls\" or \"tls\"".into());
    }
    if config.log.personal_data {
        remarks.push(
            "log.personal_data is on: this version writes no phone numbers and names to the log all the same".into(),
        );
    }
    remarks
}
