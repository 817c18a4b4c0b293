//! Reading call detail records: by when they came in at Webex, so that late ones are not passed over; what is too old for that, by when the calls
//! ended.

use std::sync::atomic::Ordering;

use callvault_catalogue::WebexRecord;
use callvault_config::Config;
use callvault_webex::Record;
use callvault_webex_client::{Client, Fault, windows};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{RECORDS_NOTE, comparing};
use crate::appliance::Appliance;

/// Reads what has come in since, forgets what is old, and compares.
pub(super) fn read(appliance: &Appliance, settings: &Config, client: &Client) {
    match try_read(appliance, client) {
        Ok(()) => {
            appliance.notes.clear(RECORDS_NOTE);
            let kept = SignedDuration::try_from(settings.webex.records_kept).unwrap_or(SignedDuration::MAX);
            if let Ok(before) = Timestamp::now().checked_sub(kept)
                && let Err(error) = appliance.catalogue.forget_webex_records(before)
            {
                tracing::error!("failed to {error}");
            }
            comparing::look(appliance, settings);
        }
        Err(text) if text.is_empty() => {}
        Err(text) => appliance.notes.set(RECORDS_NOTE, format!("call detail records are not read: {text}")),
    }
}

fn try_read(appliance: &Appliance, client: &Client) -> Result<(), String> {
    let failed = |error: callvault_catalogue::CatalogueError| format!("failed to {error}");
    let stored = appliance.catalogue.webex_read_to().map_err(failed)?;
    let mut read_to: Option<Timestamp> = stored.as_ref().and_then(|value| value["to"].as_str()?.parse().ok());
    let counts = &appliance.webex.counts;
    for (feed, start, end) in windows(read_to, Timestamp::now()) {
        let mut lost = None;
        let state = |to: Option<Timestamp>| json!({"to": to.map(|to| to.to_string())});
        let mut take = |records: Vec<Record>| {
            counts.records.fetch_add(records.len() as u64, Ordering::Relaxed);
            let rows: Vec<WebexRecord> = records.iter().filter_map(row).collect();
            // How far it is does not change before all pages of the window are there.
            appliance.catalogue.put_webex_records(&rows, &state(read_to)).map_err(|error| {
                lost = Some(failed(error));
                "call detail records could not be kept"
            })
        };
        let access = &appliance.webex.access;
        let asked = appliance.with_webex(|outside| client.records(access, outside, (feed, start, end), &mut take));
        match asked {
            Ok((requests, passed_over)) => {
                counts.requests.fetch_add(requests, Ordering::Relaxed);
                if passed_over > 0 {
                    tracing::warn!(
                        passed_over,
                        "call detail records that do not say when the call was are passed over"
                    );
                }
            }
            Err(Fault::Stopping) => return Err(String::new()),
            Err(fault) => return Err(lost.unwrap_or_else(|| fault.to_string())),
        }
        appliance.catalogue.put_webex_records(&[], &state(Some(end))).map_err(failed)?;
        read_to = Some(end);
        counts.read_to_s.store(end.as_second(), Ordering::Relaxed);
    }
    Ok(())
}

fn row(record: &Record) -> Option<WebexRecord> {
    let content: Value = serde_json::to_value(record).ok()?;
    let name = record.id.clone().unwrap_or_else(|| {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}|{}|{}", part(&record.local_call_id), part(&record.correlation_id), record.begun_at)
    });
    Some(WebexRecord { name, begun_at: record.begun_at, content })
}
