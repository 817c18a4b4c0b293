//! The corpus at the workspace's root: what clients send, in their manner, and the facts that must come of it; and the page of
//! clients in the documentation, which is made of it.
//!
//! A case is a JSON file: the steps of a dialog, each with the bodies or the whole SIP message beside it and the facts expected
//! after it. A body that a step does not have stays what it was before. Messages are kept with LF at the line ends, so that they
//! can be read and compared, and are given CRLF and their Content-Length (`{length}`) on the way in.

#![allow(clippy::unwrap_used)]

mod case;
mod table;

use std::collections::BTreeSet;
use std::fs;

use case::{Observed, corpus, walk};

/// The clients: folder in the corpus, and name on the page.
const CLIENTS: [(&str, &str); 14] = [
    ("audiocodes", "AudioCodes Mediant"),
    ("avaya", "Avaya SBCE"),
    ("broadworks", "Cisco BroadWorks"),
    ("cisco-cube", "Cisco CUBE, SIPREC"),
    ("cisco-network", "Cisco CUBE and CUCM, network-based"),
    ("metaswitch", "Metaswitch CFS"),
    ("opensips", "OpenSIPS"),
    ("oracle", "Oracle SBC"),
    ("pjsip", "PJSIP"),
    ("rfc7865", "Any client that follows RFC 7866"),
    ("ribbon", "Ribbon SBC"),
    ("sems", "SEMS"),
    ("siprec-client", "SipRecClient (NG9-1-1)"),
    ("webex", "Webex Calling"),
];

/// Checks every case of a client and gives back what was seen.
fn check(client: &str) -> Vec<Observed> {
    let folder = corpus().join(client);
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    cases.iter().map(|path| walk(path)).collect()
}

macro_rules! clients {
    ($($name:ident: $folder:literal),* $(,)?) => {
        $(#[test] fn $name() { check($folder); })*

        #[test]
        fn every_client_is_tested() {
            let tested = BTreeSet::from([$($folder.to_owned()),*]);
            let folders = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(folders.collect::<BTreeSet<_>>(), tested);
            assert_eq!(CLIENTS.map(|(folder, _)| folder.to_owned()).into_iter().collect::<BTreeSet<_>>(), tested);
        }
    };
}

clients! {
    audiocodes: "audiocodes",
    avaya: "avaya",
    broadworks: "broadworks",
    cisco_cube: "cisco-cube",
    cisco_network: "cisco-network",
    metaswitch: "metaswitch",
    opensips: "opensips",
    oracle: "oracle",
    pjsip: "pjsip",
    rfc7865: "rfc7865",
    ribbon: "ribbon",
    sems: "sems",
    siprec_client: "siprec-client",
    webex: "webex",
}

/// The page is written anew with `UPDATE_DOCS=1`, and otherwise must be as it would be written.
#[test]
fn the_page_of_clients_is_current() {
    let page = table::page(&CLIENTS.map(|(folder, name)| (name, check(folder))));
    let path = corpus().join("../../docs/clients.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/clients.md is stale: run the tests of callvault-siprec with UPDATE_DOCS=1");
}
