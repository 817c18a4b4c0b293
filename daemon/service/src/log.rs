//! The log: in systemd's journal with every value as a field of its own, or lines on the standard error stream where that is something else.

pub(crate) mod events;
mod journal;

use std::io::IsTerminal;

use callvault_config::Config;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::settings::SetLevel;

/// Starts the log. What it returns changes its level; nothing, when `RUST_LOG` sets it, which is stronger than the configuration.
pub(crate) fn start(config: &Config) -> Option<SetLevel> {
    let by_environment = EnvFilter::try_from_default_env().ok();
    let is_fixed = by_environment.is_some();
    let filter = by_environment.unwrap_or_else(|| EnvFilter::new(config.log.level.as_str()));
    let (filter, handle) = reload::Layer::new(filter);
    let journal = journal::Journal::of_stderr();
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
    });
    tracing_subscriber::registry().with(filter).with(journal).with(lines).init();
    if is_fixed {
        return None;
    }
    Some(Box::new(move |level| {
        if let Err(error) = handle.reload(EnvFilter::new(level.as_str())) {
            tracing::warn!(%error, "the log's level could not be changed");
        }
    }))
}
