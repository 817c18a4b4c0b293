//! What happened, for whoever reads the log by programs: a name and, in the journal, a MESSAGE_ID for each kind of event, which never change.
//! `callvault.catalog` explains each to people. The lines without a name are for people alone.

/// Its name and its MESSAGE_ID.
type Kind = (&'static str, &'static str);

/// The appliance takes calls.
pub(crate) const READY: &str = "ready";
/// A session is recorded.
pub(crate) const CALL_BEGAN: &str = "call-began";
/// A session is over and has its verdict.
pub(crate) const CALL_ENDED: &str = "call-ended";
/// An archive was made and verified.
pub(crate) const ARCHIVED: &str = "archived";
/// A recording was delivered.
pub(crate) const DELIVERED: &str = "delivered";
/// A recording was deleted by hand.
pub(crate) const DELETED: &str = "deleted";
/// Retention deleted what was due.
pub(crate) const RETENTION_DELETED: &str = "retention-deleted";
/// A job failed.
pub(crate) const JOB_FAILED: &str = "job-failed";
/// The store cannot be used.
pub(crate) const STORE_AWAY: &str = "store-away";
/// The store can be used again.
pub(crate) const STORE_BACK: &str = "store-back";
/// Something is wrong with a part of the appliance.
pub(crate) const ALARM_RAISED: &str = "alarm-raised";
/// A part of the appliance is well again.
pub(crate) const ALARM_CLEARED: &str = "alarm-cleared";
/// The recorder says that something is wrong.
pub(crate) const RECORDER_ALARM: &str = "recorder-alarm";
/// The recorder lives and does not move.
pub(crate) const RECORDER_STUCK: &str = "recorder-stuck";
/// The recorder died.
pub(crate) const RECORDER_DIED: &str = "recorder-died";
/// The recorder answers calls, at first or again.
pub(crate) const RECORDER_READY: &str = "recorder-ready";
/// Somebody stopped recording.
pub(crate) const RECORDING_STOPPED: &str = "recording-stopped";
/// Somebody started recording again.
pub(crate) const RECORDING_STARTED: &str = "recording-started";

/// All of them.
const ALL: &[Kind] = &[
    (READY, "a0ba4f955ff94a7196ea0b82a8330d96"),
    (CALL_BEGAN, "81f2fb6b1a8c4397a583fdaf01272d5a"),
    (CALL_ENDED, "7661cae706e34545a2217d0fe8e5588c"),
    (ARCHIVED, "4737ec034ada4d429c3e69869b64cbe9"),
    (DELIVERED, "00057adeaaed4e8a9b72201d18203f38"),
    (DELETED, "e14793c2ec40448286980f42a2f84d51"),
    (RETENTION_DELETED, "35d9ed7c455943ab85fe4e952e06b3bf"),
    (JOB_FAILED, "41d8a86a1d1f48898ab404fba7c81919"),
    (STORE_AWAY, "abd25b64b12443e7ae3606085901a4d4"),
    (STORE_BACK, "38d341ac15d1420abc7f690149180279"),
    (ALARM_RAISED, "7f570fc4e6db4706bde29689ef699ab8"),
    (ALARM_CLEARED, "30b6931e4220461b9e0ffcfba265d259"),
    (RECORDER_ALARM, "046bd03ee165470b81b224a3fb4fd137"),
    (RECORDER_STUCK, "8ed68b1a1b2b46b9ba9e492d7c763b04"),
    (RECORDER_DIED, "e9106655e5fe49ec97f1de6d7cbd33ac"),
    (RECORDER_READY, "074723730aa04b3283efa5bd279d25db"),
    (RECORDING_STOPPED, "8b3eb3069315464a8c6b93fffb0a977c"),
    (RECORDING_STARTED, "04202a9bd85a4c4ea60d3a806a234e05"),
];

/// The MESSAGE_ID of an event with this name.
pub(crate) fn message_id(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, id)| *id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::ALL;

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    /// The entries of the catalog: the id, and what is said.
    fn entries(catalog: &str) -> BTreeMap<String, String> {
        let entries = catalog.split("\n-- ").skip(1).map(|entry| {
            let (id, text) = entry.split_once('\n').unwrap();
            (id.to_owned(), text.to_owned())
        });
        let found: Vec<_> = entries.collect();
        let unique: BTreeMap<_, _> = found.iter().cloned().collect();
        assert_eq!(found.len(), unique.len(), "an id is there twice");
        unique
    }

    #[test]
    fn the_catalog_explains_every_event_and_no_others() {
        let entries = entries(&read("../../packaging/systemd/callvault.catalog"));
        let mut known: Vec<&str> = ALL.iter().map(|(_, id)| *id).collect();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), ALL.len());
        assert!(
            known
                .iter()
                .all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        );
        assert_eq!(entries.keys().map(String::as_str).collect::<Vec<_>>(), known);
        for text in entries.values() {
            let (head, said) = text.split_once("\n\n").unwrap();
            assert!(
                head.starts_with("Subject: ") && head.contains("\nDefined-By: callvault\n") && said.len() > 20,
                "{text}"
            );
        }
    }

    #[test]
    fn every_event_is_written_about_and_happens_somewhere() {
        let page = read("../../docs/operations.md");
        let mut sources = String::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("log/events.rs") {
                    sources += &fs::read_to_string(path).unwrap();
                }
            }
        }
        for (name, id) in ALL {
            assert!(page.contains(&format!("| `{name}` | `{id}` |")), "{name} {id} is not in docs/operations.md");
            let constant = name.replace('-', "_").to_uppercase();
            assert!(sources.contains(&format!("event = events::{constant}")), "{name} never happens");
        }
    }
}
