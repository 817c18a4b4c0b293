//! The log: lines on the standard error stream, which systemd takes into its journal.

use std::io::IsTerminal;

use callvault_config::{Config, LogLevel};
use tracing_subscriber::EnvFilter;

/// Starts the log. What it returns changes its level; nothing, when `RUST_LOG` sets it, which is stronger than the configuration.
pub(crate) fn start(config: &Config) -> Option<Box<dyn Fn(LogLevel) + Send>> {
    let by_environment = EnvFilter::try_from_default_env().ok();
    let is_fixed = by_environment.is_some();
    let filter = by_environment.unwrap_or_else(|| EnvFilter::new(config.log.level.as_str()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    subscriber.init();
    if is_fixed {
        return None;
    }
    Some(Box::new(move |level| {
        if let Err(error) = handle.reload(EnvFilter::new(level.as_str())) {
            tracing::warn!(%error, "the log's level could not be changed");
        }
    }))
}
