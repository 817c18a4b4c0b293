//! What the service manager is told (systemd: sd_notify(3)). Without one, none of this does anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use systemd::daemon::{STATE_READY, STATE_RELOADING, STATE_STATUS, STATE_STOPPING, STATE_WATCHDOG};

/// Whether it was told that the daemon is ready: a reload before would end the start too early.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Calls are recorded.
pub(crate) fn ready() {
    IS_READY.store(true, Ordering::Relaxed);
    tell(&[(STATE_READY, "1"), (STATE_STATUS, "recording")]);
}

/// The configuration is being looked at. The moment tells the manager that this answers its signal and not one before.
pub(crate) fn reloading() {
    if IS_READY.load(Ordering::Relaxed)
        && let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC)
    {
        let now_us = Duration::from(now).as_micros().to_string();
        tell(&[(STATE_RELOADING, "1"), ("MONOTONIC_USEC", &now_us)]);
    }
}

/// It was looked at.
pub(crate) fn reloaded() {
    if IS_READY.load(Ordering::Relaxed) {
        tell(&[(STATE_READY, "1")]);
    }
}

/// The daemon ends.
pub(crate) fn stopping() {
    IS_READY.store(false, Ordering::Relaxed);
    tell(&[(STATE_STOPPING, "1"), (STATE_STATUS, "stopping")]);
}

/// The daemon is alive.
pub(crate) fn alive() {
    tell(&[(STATE_WATCHDOG, "1")]);
}

/// How long it waits for [`alive`] before it starts the daemon again, where it does.
pub(crate) fn patience() -> Option<Duration> {
    systemd::daemon::watchdog_enabled().ok().filter(|us| *us > 0).map(Duration::from_micros)
}

fn tell(what: &[(&str, &str)]) {
    if let Err(error) = systemd::daemon::notify(what.iter()) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
