//! What the machine gives: the service, the programs, the kernel's limits, the clock.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Patient};
use crate::start::beside;

/// The unit that the packages install.
const UNIT: &str = "callvaultd.service";

/// Descriptors that a session needs: two sockets for each of two tracks, its connection, and what it writes.
const DESCRIPTORS_PER_SESSION: u64 = 6;

/// The process that holds this lock, as the kernel lists them. Asking for the lock itself would be in a starting daemon's way.
pub(super) fn holder_of(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// The process that holds a lock on the file with this number, by the text of proc_locks(5).
pub(super) fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let process = words.nth(2)?;
        let file = words.next()?;
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        (is_flock && is_it).then(|| process.parse().ok()).flatten()
    })
}

/// Whether it runs, and will after the next boot.
pub(super) fn service(patient: &Patient) -> Vec<Finding> {
    let part = "service";
    let unit = if patient.is_installed { properties() } else { None };
    let [loaded, active, enabled] = unit.unwrap_or_default();
    let mut findings = Vec::new();
    match patient.running {
        Some(process) => findings.push(Finding::well(part, format!("callvaultd runs (process {process})"))),
        None if loaded == "loaded" => findings.push(Finding::problem(
            part,
            format!(
                "callvaultd does not run (its unit is {active}), so no call is recorded; `systemctl start callvaultd`, and `journalctl -u callvaultd -n 50` says why if it ends again"
            ),
        )),
        None => findings.push(Finding::problem(
            part,
            "callvaultd does not run, so no call is recorded; start it, and look at what it says".to_owned(),
        )),
    }
    if loaded == "loaded" && !["enabled", "enabled-runtime", "static", "alias"].contains(&enabled.as_str()) {
        findings.push(Finding::warning(
            part,
            format!("callvaultd is not started when the machine boots (its unit is {enabled}); `systemctl enable callvaultd`"),
        ));
    }
    findings
}

/// LoadState, ActiveState and UnitFileState of the unit; none where systemd does not run.
fn properties() -> Option<[String; 3]> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut command = Command::new("systemctl");
    let output = command.args(["show", UNIT, "--property=LoadState,ActiveState,UnitFileState"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    Some(["LoadState", "ActiveState", "UnitFileState"].map(value))
}

/// The programs that the daemon starts.
pub(super) fn programs(patient: &Patient) -> Vec<Finding> {
    let part = "programs";
    let needed = ["callvault-recorder", "callvault-render"].map(beside);
    let wrong = needed.iter().find_map(|path| match fs::metadata(path) {
        Ok(about) if about.permissions().mode() & 0o111 != 0 => None,
        Ok(_) => Some(format!("{} cannot be executed", path.display())),
        Err(error) => Some(format!("{}: {error}", path.display())),
    });
    let mut findings = vec![match wrong {
        Some(text) => {
            Finding::problem(part, format!("{text}; install the package again, the programs belong together"))
        }
        None => Finding::well(part, "recorder and render process are beside the daemon"),
    }];
    let ffmpeg = &patient.config.render.ffmpeg;
    if !ffmpeg.is_file() {
        let text = format!(
            "{} (render.ffmpeg) is not installed; recordings in rare codecs (G.729, AMR, iLBC and such) are kept and cannot be played until it is: `apt install ffmpeg`, or `dnf install ffmpeg-free`",
            ffmpeg.display()
        );
        findings.push(Finding::warning(part, text));
    }
    findings
}

/// Receive buffers and descriptors.
pub(super) fn kernel(patient: &Patient) -> Vec<Finding> {
    let part = "kernel";
    let mut findings = Vec::new();
    let wanted = patient.config.media.receive_buffer_bytes.0;
    let allowed =
        fs::read_to_string("/proc/sys/net/core/rmem_max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match allowed {
        Some(allowed) if allowed < wanted => findings.push(Finding::warning(
            part,
            format!(
                "the kernel allows receive buffers of {allowed} bytes and media.receive_buffer_bytes wants {wanted}, so packets are lost when a restart takes long; `sysctl -w net.core.rmem_max={wanted}`, and for the next boot a line in /etc/sysctl.d"
            ),
        )),
        Some(allowed) => findings.push(Finding::well(part, format!("receive buffers of {allowed} bytes are allowed"))),
        None => {}
    }
    let needed = u64::from(patient.config.limits.sessions_max).saturating_mul(DESCRIPTORS_PER_SESSION);
    let limit = match patient.running {
        Some(process) => fs::read_to_string(format!("/proc/{process}/limits")).ok().and_then(|text| files_max(&text)),
        // Under systemd the unit sets it.
        None if patient.is_installed => None,
        None => getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
    };
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        findings.push(Finding::warning(
            part,
            format!(
                "the daemon may open {limit} files, and limits.sessions_max = {} needs {needed}; raise LimitNOFILE in its unit, or lower the limit of sessions",
                patient.config.limits.sessions_max
            ),
        ));
    }
    findings
}

/// The hard limit of open files in the text of `/proc/PID/limits`.
pub(super) fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

/// Whether somebody keeps the clock right: by it retention deletes, and recordings have their times.
pub(super) fn clock(_: &Patient) -> Vec<Finding> {
    let part = "clock";
    let mut command = Command::new("timedatectl");
    let said = command.args(["show", "--property=NTPSynchronized", "--value"]).output();
    match said.ok().filter(|output| output.status.success()).map(|output| output.stdout) {
        Some(text) if text.trim_ascii() == b"yes" => vec![Finding::well(part, "the clock is synchronised")],
        Some(text) if text.trim_ascii() == b"no" => vec![Finding::warning(
            part,
            "the clock is not synchronised, so recordings may have wrong times and be deleted on a wrong day; `timedatectl set-ntp true`, or set up chrony",
        )],
        _ => vec![Finding::well(part, "whether the clock is synchronised cannot be asked here (no timedatectl)")],
    }
}
