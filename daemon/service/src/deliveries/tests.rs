//! Which recordings are owed to whom.

use std::path::Path;

use callvault_journal::facts::{CallFacts, Party as Somebody};

use super::*;
use crate::row::{KEY_LOST, nameless};

/// Every sink is switched on.
fn config(fallback_user: &str) -> Config {
    let mut config = Config::defaults(Path::new("/nowhere"));
    (config.analytics.enabled, config.webhook.enabled, config.export_folder.enabled) = (true, true, true);
    config.analytics.fallback_user = fallback_user.to_owned();
    config
}

/// A recording that everybody gets.
fn row() -> Recording {
    Recording {
        owner: Some("ann@example.com".into()),
        duration_ms: 1_000,
        flaws: Vec::new(),
        ..nameless(Uuid::nil(), Verdict::Ok, "", "")
    }
}

fn owed(config: &Config, row: &Recording) -> Vec<String> {
    owed_with_archive(config, row).into_iter().map(|job| job.kind).collect()
}

#[test]
fn each_sink_gets_what_it_can_use() {
    #[track_caller]
    fn check(fallback_user: &str, row: &Recording, expected: &[&str]) {
        assert_eq!(owed(&config(fallback_user), row), expected);
    }
    const ALL: [&str; 3] = ["upload", "webhook", "folder"];
    let of_local = |local| {
        let facts = CallFacts { local, ..CallFacts::default() };
        serde_json::to_value([SessionEvent::Call(Box::new(facts))]).unwrap()
    };
    let aor = |aor: &str| of_local(Somebody { aor: Some(aor.into()), ..Somebody::default() });
    check("", &row(), &ALL);
    check("", &Recording { verdict: Verdict::Degraded, ..row() }, &ALL);
    check("", &Recording { verdict: Verdict::NoMedia, ..row() }, &[]);
    check("", &Recording { verdict: Verdict::Discarded, ..row() }, &[]);
    check("", &Recording { duration_ms: 999, ..row() }, &[]);
    let flaw = callvault_catalogue::Flaw { code: KEY_LOST.into(), text: String::new() };
    check("", &Recording { flaws: vec![flaw], ..row() }, &[]);
    // whose it is
    check("", &Recording { owner: None, ..row() }, &["webhook", "folder"]);
    check("", &Recording { owner: Some("ann".into()), ..row() }, &["webhook", "folder"]);
    check("", &Recording { owner: Some("ann@".into()), ..row() }, &["webhook", "folder"]);
    check("", &Recording { owner: Some("a nn@example.com".into()), ..row() }, &["webhook", "folder"]);
    check("all@example.com", &Recording { owner: None, ..row() }, &ALL);
    // self-tests are of the recorded user's domain alone: who calls could else keep a call from being delivered
    check("", &Recording { facts: aor("sip:selftest0000@selftest.invalid"), ..row() }, &[]);
    check("", &Recording { facts: aor("sip:selftest.invalid@example.com"), ..row() }, &ALL);
    let remotes = vec![Somebody { aor: Some("sip:x@selftest.invalid".into()), ..Somebody::default() }];
    let facts =
        serde_json::to_value([SessionEvent::Call(Box::new(CallFacts { remotes, ..CallFacts::default() }))]).unwrap();
    check("", &Recording { facts, ..row() }, &ALL);
}

#[test]
fn nothing_is_owed_to_who_is_switched_off() {
    let off = Config::defaults(Path::new("/nowhere"));
    assert!(owed_with_archive(&off, &row()).is_empty());
    let mut one = off.clone();
    one.webhook.enabled = true;
    assert_eq!(owed(&one, &row()), ["webhook"]);
}

#[test]
fn an_upload_is_under_the_owners_address_where_there_is_one() {
    let user = |fallback: &str, owner: Option<&str>| {
        user_of(&config(fallback), &Recording { owner: owner.map(str::to_owned), ..row() })
    };
    assert_eq!(user("all@example.com", Some("ann@example.com")).as_deref(), Some("ann@example.com"));
    assert_eq!(user("all@example.com", Some("1001")).as_deref(), Some("all@example.com"));
    assert_eq!(user("", None), None);
}

#[test]
fn deliveries_come_after_other_work() {
    assert!(priority_of(&JobKind::UPLOAD) > priority_of(&JobKind::ARCHIVE));
    assert!(priority_of(&JobKind::FOLDER) > priority_of(&JobKind::DELETE));
}
