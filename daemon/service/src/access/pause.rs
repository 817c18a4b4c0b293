//! Stopping and starting recording: new calls are refused from one to the other, whatever is restarted in between. Those that live go on.

use std::time::{Duration, Instant};

use callvault_access::{Action, Caller, On};
use callvault_catalogue::{Catalogue, CatalogueError, Decree};
use callvault_http::{Answer, ApiError, ErrorKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::appliance::Appliance;
use crate::log::events;

/// How long to wait for the recorder's word that it takes no new sessions: a few of its heartbeats.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks for that word.
const LOOK: Duration = Duration::from_millis(20);

/// That recording is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Why, as whoever stopped it put it.
    pub(crate) reason: String,
}

impl Stopped {
    /// What the catalogue keeps. One that cannot be read is one all the same.
    pub(super) fn read(catalogue: &Catalogue) -> Result<Option<Self>, CatalogueError> {
        let unknown =
            || Self { since: Timestamp::UNIX_EPOCH, reason: "what was kept of it was changed or damaged".to_owned() };
        match catalogue.decreed(Decree::RecordingStopped) {
            Ok(kept) => Ok(kept.map(|kept| serde_json::from_value(kept).unwrap_or_else(|_| unknown()))),
            Err(CatalogueError::DamagedMeta(_)) => Ok(Some(unknown())),
            Err(error) => Err(error),
        }
    }

    /// For people: what is so, since when, why, and what ends it.
    pub(crate) fn text(&self) -> String {
        let Self { since, reason } = self;
        format!(
            "recording was stopped at {since:.0}: {reason}. New calls are refused; `callvaultctl recording start` takes them again"
        )
    }
}

fn internal(error: CatalogueError) -> ApiError {
    tracing::error!("failed to {error}");
    ApiError::new(ErrorKind::Unavailable, format!("failed to {error}"))
}

impl Appliance {
    /// Takes no new sessions until [`Appliance::start_recording`].
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`]; [`ErrorKind::Unavailable`] when it cannot be kept: then nothing has changed.
    pub(crate) fn stop_recording(&self, caller: &Caller, reason: &str) -> Answer {
        let entry = self.entry(caller, Action::StopRecording).with("reason", reason);
        self.allow(caller, Action::StopRecording, On::Everything, &entry)?;
        let stopped = Stopped { since: entry.at, reason: reason.to_owned() };
        let about = serde_json::to_value(&stopped).unwrap_or_default();
        self.catalogue.decree(Decree::RecordingStopped, &about, &entry).map_err(internal)?;
        self.access.set_stopped(Some(stopped));
        self.wait_until_closed();
        tracing::warn!(
            event = events::RECORDING_STOPPED,
            "recording is stopped: new calls are refused until it is started again"
        );
        Ok(self.recording_state())
    }

    /// Waits until the recorder that runs says that it takes no new sessions, so that whoever stopped it can rely on it; not for long,
    /// as one that is stuck is about to be replaced by one that knows it from the start.
    fn wait_until_closed(&self) {
        let until = Instant::now() + CLOSED_WITHIN;
        while Instant::now() < until {
            let is_open = {
                let recorder = self.recorder.borrow();
                recorder.up && !recorder.heartbeat.draining
            };
            if !is_open {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Takes new sessions again.
    ///
    /// # Errors
    /// As [`Appliance::stop_recording`].
    pub(crate) fn start_recording(&self, caller: &Caller) -> Answer {
        let entry = self.entry(caller, Action::StartRecording);
        self.allow(caller, Action::StartRecording, On::Everything, &entry)?;
        self.catalogue.lift_recording_stopped(&entry).map_err(internal)?;
        self.access.set_stopped(None);
        tracing::warn!(event = events::RECORDING_STARTED, "recording is started again: new calls are taken");
        Ok(self.recording_state())
    }

    /// How it stands: `stopped`, and with that `since` and `reason`; `draining`; `calls`, the sessions that live.
    pub(crate) fn recording_state(&self) -> serde_json::Value {
        let stopped = self.access.stopped();
        json!({
            "stopped": stopped.is_some(),
            "since": stopped.as_ref().map(|stopped| format!("{:.3}", stopped.since)),
            "reason": stopped.as_ref().map(|stopped| &stopped.reason),
            "draining": self.access.is_draining(),
            "calls": self.recorder.borrow().heartbeat.live,
        })
    }
}
