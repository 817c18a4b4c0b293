//! The self-test's side that belongs to the command line: whom to call, how to reach the control endpoint, and progress.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use callvault_config::Config;
use callvault_selftest::{Appliance, Progress, SelftestParams, Stage, Transport};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli;
use crate::client::{Client, Request, with_query};
use crate::error::{CtlError, Exit};
use crate::verbs::Session;

/// Longest export that is read: ten minutes of two channels at 48 kHz have 115 MB.
const WAV_BYTES_MAX: u64 = 256 << 20;

/// Recordings asked for at a time.
const PAGE: u32 = 200;

/// Runs the self-test.
pub(crate) fn run(session: &mut Session<'_, '_>, parameters: &cli::Selftest) -> Result<Exit, CtlError> {
    let (transport, address) = target(session.config, parameters)?;
    let params = SelftestParams {
        transport,
        address,
        calls: parameters.calls,
        seconds: parameters.seconds,
        archive_wait: Duration::from_secs(parameters.wait),
        run: rand::random(),
    };
    // Before any call is made: whether its recording could be looked at afterwards.
    Endpoint(session.client).ask("/v1/recordings?limit=1")?;
    let mut bars = Bars::new(session.around.shows_progress);
    let report = callvault_selftest::run(&params, &Endpoint(session.client), &mut |progress| bars.show(progress))?;
    bars.clear();
    if session.json {
        let json = serde_json::to_value(&report);
        let json =
            json.map_err(|error| CtlError::Answer { what: "print the report".into(), detail: error.to_string() })?;
        session.printed_json(&json)?;
    } else {
        write!(session.around.stdout, "{}", report.text())?;
    }
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

/// Whom to call: what was named, else the configured address, on this machine where it is "all addresses".
fn target(config: &Config, parameters: &cli::Selftest) -> Result<(Transport, SocketAddr), CtlError> {
    let transport = match parameters.transport {
        Some(cli::Transport::Udp) => Transport::Udp,
        Some(cli::Transport::Tcp) => Transport::Tcp,
        None if config.sip.udp.0.is_empty() => Transport::Tcp,
        None => Transport::Udp,
    };
    let configured = match transport {
        Transport::Udp => &config.sip.udp.0,
        Transport::Tcp => &config.sip.tcp.0,
    };
    let Some(address) = parameters.sip.or(configured.first().copied()) else {
        let text = format!(
            "begin the self-test: sip.{} is empty in the configuration; choose the other --transport, or name an address with --sip",
            transport.as_str()
        );
        return Err(CtlError::Usage(text));
    };
    Ok((transport, reachable(address)))
}

/// The address at which a socket that listens on all addresses is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The control endpoint as the self-test sees it.
struct Endpoint<'a>(&'a Client);

impl Endpoint<'_> {
    fn ask(&self, path: &str) -> Result<Value, CtlError> {
        self.0.json(&Request::get(path, "look for the self-test's recordings").long())
    }
}

impl Appliance for Endpoint<'_> {
    fn recordings(&self, cursor: Option<&str>) -> Result<Value, String> {
        let query = [("limit", Some(PAGE.to_string())), ("cursor", cursor.map(str::to_owned))];
        self.ask(&with_query("/v1/recordings", &query)).map_err(|error| format!("failed to {error}"))
    }

    fn recording(&self, id: &str) -> Result<Value, String> {
        self.ask(&format!("/v1/recordings/{}", crate::client::escaped(id)))
            .map_err(|error| format!("failed to {error}"))
    }

    fn wav(&self, id: &str) -> Result<Vec<u8>, String> {
        let path = format!("/v1/recordings/{}/audio?format=wav", crate::client::escaped(id));
        let request = Request::get(path, "export the self-test's recording").long();
        let (body, _) = self.0.body(&request).map_err(|error| format!("failed to {error}"))?;
        let mut bytes = Vec::new();
        let mut reader = body.into_with_config().limit(WAV_BYTES_MAX).reader();
        reader.read_to_end(&mut bytes).map_err(|error| format!("the export broke off: {error}"))?;
        Ok(bytes)
    }
}

/// One progress bar after the other, where a person watches.
struct Bars {
    shown: bool,
    current: Option<(Stage, ProgressBar)>,
}

impl Bars {
    fn new(shown: bool) -> Self {
        Self { shown, current: None }
    }

    fn show(&mut self, progress: Progress) {
        if !self.shown {
            return;
        }
        if self.current.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            self.clear();
            let (what, unit) = match progress.stage {
                Stage::Talking => ("calls in progress", "s"),
                Stage::Archiving => ("waiting for archives", "calls"),
                Stage::Comparing => ("comparing", "calls"),
            };
            let template = format!("{what:22} {{bar:40}} {{pos}}/{{len}} {unit}");
            let bar = ProgressBar::new(progress.total);
            bar.set_style(ProgressStyle::with_template(&template).expect("the template is fixed and valid"));
            self.current = Some((progress.stage, bar));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(progress.done);
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_on_this_machine() {
        let check =
            |address: &str, expected: &str| assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
        check("0.0.0.0:5060", "127.0.0.1:5060");
        check("[::]:5060", "[::1]:5060");
        check("192.168.1.5:5060", "192.168.1.5:5060");
    }
}
