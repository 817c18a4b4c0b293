//! Whether somebody keeps this machine's clock right. Retention deletes by it, certificates are judged by it, and recordings have their
//! times of it. A clock that has jumped is another matter, see [`crate::retention`]: that one has been seen to be wrong.
//!
//! The kernel knows, and the sandbox of the service keeps everything away that belongs to the clock, reading it among that. So systemd is asked: the
//! mark of its own service, which costs nothing, and otherwise `timedatectl`, which knows of chrony and others too.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_http::{Component, Status};

use crate::appliance::Appliance;

/// What systemd-timesyncd leaves when it has set the clock since the machine was started.
const MARK: &str = "/run/systemd/timesync/synchronized";

/// Between two looks: clocks that nobody sets go wrong by seconds in a day.
const LOOK: Duration = Duration::from_secs(600);

/// How long `timedatectl` may take; it waits for a service that it starts.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked whether it has answered.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of its answer, which is one word, that are read.
const ANSWER_BYTES_MAX: u64 = 64;

/// A machine that was just started has not heard of its servers yet.
const SETTLES_WITHIN: Duration = Duration::from_secs(1_800);

/// What is known of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Somebody keeps it right.
    Synchronised,
    /// Nobody does.
    Unsynchronised,
    /// There is nobody to be asked.
    #[default]
    Unknown,
}

impl Sync {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Synchronised, Self::Unsynchronised, Self::Unknown];

    /// Its name in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Synchronised => "synchronised",
            Self::Unsynchronised => "unsynchronised",
            Self::Unknown => "unknown",
        }
    }

    /// By what `timedatectl show --property=NTPSynchronized --value` says.
    fn said(text: &str) -> Self {
        match text.trim() {
            "yes" => Self::Synchronised,
            "no" => Self::Unsynchronised,
            _ => Self::Unknown,
        }
    }
}

/// What is known, and since when.
#[derive(Debug, Default)]
pub(crate) struct Clock(Mutex<Known>);

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    sync: Sync,
    since: Option<Instant>,
}

impl Clock {
    fn set(&self, sync: Sync) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.sync != sync || known.since.is_none() {
            *known = Known { sync, since: Some(Instant::now()) };
        }
    }

    /// What is known now.
    pub(crate) fn sync(&self) -> Sync {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sync
    }

    /// What health says of it.
    pub(crate) fn component(&self) -> Component {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        component(known.sync, known.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

/// What is to be thought of a clock that has been so for so long.
fn component(sync: Sync, lasts: Duration) -> Component {
    match sync {
        Sync::Synchronised => Component::ok(),
        Sync::Unsynchronised if lasts < SETTLES_WITHIN => Component::ok(),
        Sync::Unsynchronised => Component::new(
            Status::Degraded,
            "nobody keeps this machine's clock right, so recordings may have wrong times and be deleted on a wrong day; \
             `timedatectl set-ntp true`, or set up chrony",
        ),
        Sync::Unknown => Component::new(
            Status::Ok,
            "whether the clock is synchronised cannot be asked here; see yourself that it is (chronyc tracking)",
        ),
    }
}

/// Looks now and then until the appliance stops.
pub(crate) fn run(appliance: &Appliance) {
    while !appliance.stopping.load(std::sync::atomic::Ordering::Relaxed) {
        appliance.clock.set(look(Path::new(MARK), "timedatectl"));
        appliance.stop_bell.wait(0, LOOK);
    }
}

/// Whether the clock is synchronised.
fn look(mark: &Path, timedatectl: &str) -> Sync {
    if mark.exists() {
        return Sync::Synchronised;
    }
    let mut command = Command::new(timedatectl);
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    child.ok().and_then(answer).map_or(Sync::Unknown, |text| Sync::said(&text))
}

/// What it says, when it ends well and in time.
fn answer(mut child: Child) -> Option<String> {
    use std::io::Read as _;
    let asked = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if asked.elapsed() < ANSWER_WITHIN => std::thread::sleep(ASK_AGAIN),
            _ => {
                // It may have ended meanwhile; either way nothing of it is left.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_clock_that_nobody_keeps_right_is_said_when_it_had_its_time() {
        let check = |sync: Sync, minutes: u64, status: Status, says: &str| {
            let found = component(sync, Duration::from_secs(minutes * 60));
            assert_eq!(found.status, status, "{sync:?} {minutes}");
            assert!(found.reason.contains(says) && found.reason.is_empty() == says.is_empty(), "{}", found.reason);
        };
        check(Sync::Synchronised, 600, Status::Ok, "");
        check(Sync::Unsynchronised, 29, Status::Ok, "");
        check(Sync::Unsynchronised, 30, Status::Degraded, "`timedatectl set-ntp true`");
        check(Sync::Unknown, 600, Status::Ok, "cannot be asked");
    }

    #[test]
    fn a_change_counts_from_when_it_was_seen_and_the_same_does_not() {
        let clock = Clock::default();
        assert_eq!(clock.sync(), Sync::Unknown);
        clock.set(Sync::Unsynchronised);
        let since = clock.0.lock().unwrap().since;
        clock.set(Sync::Unsynchronised);
        assert_eq!(clock.0.lock().unwrap().since, since);
        clock.set(Sync::Synchronised);
        assert_ne!(clock.0.lock().unwrap().since, since);
        assert_eq!(clock.sync(), Sync::Synchronised);
    }

    #[test]
    fn whoever_knows_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, program) = (folder.path().join("mark"), folder.path().join("timedatectl"));
        let check = |script: Option<&str>, expected: Sync| {
            if let Some(script) = script {
                fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            }
            assert_eq!(look(&mark, program.to_str().unwrap()), expected, "{script:?}");
        };
        check(None, Sync::Unknown);
        check(Some("[ \"$*\" = 'show --property=NTPSynchronized --value' ] && echo yes"), Sync::Synchronised);
        check(Some("echo no"), Sync::Unsynchronised);
        check(Some("echo perhaps"), Sync::Unknown);
        check(Some("echo yes; exit 1"), Sync::Unknown);
        fs::write(&mark, "").unwrap();
        check(Some("echo no"), Sync::Synchronised);
    }
}
