//! The corpus at the workspace's root: what clients send, in their manner, and the facts that must come of it.
//!
//! A case is a JSON file: the INVITE's `From` and correlation header, and the steps of the dialog, each with the bodies beside it
//! and the facts expected after it. A body that a step does not have stays what it was before.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use callvault_siprec::{
    DataMode, HeaderParty, Merge, Metadata, Offer, SessionFacts, Signalling, SiprecError, session_facts,
};
use serde_json::Value;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

#[test]
fn broadworks() {
    check_vendor("broadworks");
}

#[test]
fn webex() {
    check_vendor("webex");
}

#[test]
fn rfc7865() {
    check_vendor("rfc7865");
}

fn check_vendor(vendor: &str) {
    let folder = corpus().join(vendor);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    for case in cases {
        check(&case);
    }
}

fn check(path: &Path) {
    let name = path.file_stem().unwrap().to_string_lossy();
    let case: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let signalling = Signalling {
        from: HeaderParty {
            display_name: case["from"]["display_name"].as_str(),
            uri: case["from"]["uri"].as_str().unwrap(),
        },
        broadworks_correlation: case["correlation"].as_str(),
    };
    let mut offer: Option<Offer> = None;
    let mut metadata: Option<Metadata> = None;
    let steps = case["steps"].as_array().unwrap();
    assert!(!steps.is_empty(), "{name} has no steps");
    for (index, step) in steps.iter().enumerate() {
        let read = |key: &str| step[key].as_str().map(|file| fs::read(path.with_file_name(file)).unwrap());
        if let Some(body) = read("sdp") {
            offer = Some(Offer::parse(&body).unwrap());
        }
        let mut error: Option<SiprecError> = None;
        if let Some(body) = read("metadata") {
            match Metadata::parse(&body) {
                Ok(later) => check_merge(&mut metadata, later, step["merge"].as_str()),
                Err(found) => error = Some(found),
            }
        }
        let offer = offer.as_ref().unwrap();
        let paused = step["paused"].as_bool().unwrap_or(false);
        assert_eq!(offer.is_paused(), paused, "{name}, step {index}: paused");
        let known = match &error {
            Some(error) => Err(error),
            None => Ok(metadata.as_ref()),
        };
        let facts = session_facts(&signalling, offer, known);
        compare(&name, index, &facts, &step["facts"]);
    }
}

fn check_merge(metadata: &mut Option<Metadata>, later: Metadata, expected: Option<&str>) {
    let Some(known) = metadata else {
        assert_eq!(expected, None, "the first document is not merged");
        assert_eq!(later.datamode, DataMode::Complete);
        *metadata = Some(later);
        return;
    };
    let merge = match known.merge(later) {
        Merge::Unchanged => "unchanged",
        Merge::Replaced => "replaced",
        Merge::Extended => "extended",
    };
    assert_eq!(Some(merge), expected);
}

fn compare(name: &str, step: usize, facts: &SessionFacts, expected: &Value) {
    let found = serde_json::to_value(facts).unwrap();
    assert_eq!(&found, expected, "{name}, step {step}: found\n{}", serde_json::to_string_pretty(&found).unwrap());
}
