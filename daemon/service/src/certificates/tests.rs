//! Files that are right, wrong in every way, and change.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::{CertificateFiles, CertificateWatch, DEGRADED_PARTS, FAILING_PARTS};
use crate::appliance::{Metrics, Notes};

/// 2030-06-01, in seconds since the Unix epoch.
const NOW_S: i64 = 1_906_502_400;
const DAY_S: i64 = 86_400;

/// A certificate and its key in PEM, valid from 2020 to the end of 2030-12-31.
fn pair() -> (String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["recorder.example".into()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 12, 31);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
}

fn files(folder: &Path) -> CertificateFiles {
    CertificateFiles {
        chain: folder.join("chain.pem"),
        key: Some(folder.join("key.pem")),
        client_ca: Some(folder.join("clients.pem")),
        client_certificate_optional: false,
        name: String::new(),
        expiring_s: 30 * DAY_S,
    }
}

#[test]
fn a_certificate_is_for_the_name_that_clients_look_for() {
    let folder = folder(&[]);
    let check = |name: &str, is_for: bool| {
        let files = CertificateFiles { name: name.to_owned(), ..files(folder.path()) };
        let said = files.read().unwrap().untimely(NOW_S, 30 * DAY_S);
        assert_eq!(said.is_none(), is_for, "{name}: {said:?}");
        assert!(said.is_none_or(|(part, text)| part == FAILING_PARTS[1] && text.contains(name)));
    };
    check("", true);
    check("recorder.example", true);
    check("RECORDER.example", true);
    check("other.example", false);
    check("127.0.0.1", false);
    check("no name", false);
}

/// A folder with good files, some of them replaced.
fn folder(replaced: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = pair();
    for (name, text) in [("chain.pem", &chain), ("key.pem", &key), ("clients.pem", &pair().0)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for (name, text) in replaced {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_cannot_be_used_is_named_with_what_to_do() {
    fn check(replaced: &[(&str, &str)], said: &[&str]) {
        let folder = folder(replaced);
        let error = files(folder.path()).read().unwrap_err().to_string();
        for said in said {
            assert!(error.contains(said), "{error}");
        }
        assert!(!error.contains("BEGIN") && !error.contains("hidden"), "{error}");
    }
    check(&[("chain.pem", "")], &["chain.pem", "sip.tls_certificate", "certificates in PEM"]);
    check(&[("chain.pem", &pair().1)], &["chain.pem", "certificates in PEM"]);
    check(&[("chain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")], &["chain.pem"]);
    check(&[("chain.pem", &pair().0)], &["chain.pem", "key.pem", "replace both together"]);
    check(&[("key.pem", "hidden")], &["key.pem", "sip.tls_key", "passphrase"]);
    check(&[("key.pem", &pair().0)], &["key.pem", "passphrase"]);
    check(&[("key.pem", &"x".repeat(20_000))], &["key.pem", "16384 bytes"]);
    check(&[("clients.pem", "hidden")], &["clients.pem", "sip.tls_client_ca"]);

    let folder = folder(&[]);
    fs::remove_file(folder.path().join("clients.pem")).unwrap();
    let error = files(folder.path()).read().unwrap_err().to_string();
    assert!(error.contains("clients.pem") && error.contains("readable by the user"), "{error}");
    let unnamed = CertificateFiles { key: None, ..files(folder.path()) };
    assert!(unnamed.read().unwrap_err().to_string().contains("sip-tls.key"));
}

#[test]
fn what_is_good_is_handed_over_as_it_is() {
    let folder = folder(&[]);
    let read = files(folder.path()).read().unwrap();
    let text = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read.identity.chain_pem, text("chain.pem"));
    assert_eq!(read.identity.key_pem.expose(), text("key.pem"));
    assert_eq!(read.identity.client_ca_pem, text("clients.pem"));
    assert!(!format!("{read:?}").contains("PRIVATE"));
    let open = CertificateFiles { client_ca: None, ..files(folder.path()) };
    assert!(open.read().unwrap().identity.client_ca_pem.is_empty());
}

#[test]
fn time_is_said_before_it_is_too_late() {
    let folder = folder(&[]);
    let read = files(folder.path()).read().unwrap();
    let end = read.valid_until_s;
    let check = |now_s: i64, expected: Option<(&str, &str)>| {
        let untimely = read.untimely(now_s, 30 * DAY_S);
        assert_eq!(untimely.as_ref().map(|(part, _)| *part), expected.map(|(part, _)| part), "{untimely:?}");
        if let (Some((_, text)), Some((_, said))) = (untimely, expected) {
            assert!(text.contains(said), "{text}");
        }
    };
    check(NOW_S, None);
    check(end - 31 * DAY_S, None);
    check(end - 29 * DAY_S, Some((DEGRADED_PARTS[1], "expires on 2030-12-31")));
    assert!(
        read.untimely(end - 29 * DAY_S, 7 * DAY_S).is_none() && read.untimely(end - 6 * DAY_S, 7 * DAY_S).is_some()
    );
    check(end + 1, Some((FAILING_PARTS[1], "expired on 2030-12-31")));
    check(read.valid_from_s - 1, Some((FAILING_PARTS[1], "not valid before 2020-01-01")));
}

#[test]
fn a_change_is_in_force_at_once_and_a_mistake_changes_nothing() {
    let folder = folder(&[("chain.pem", "")]);
    let (notes, metrics) = (Notes::default(), Metrics::default());
    let (mut watch, mut shown) = CertificateWatch::new(Some(files(folder.path())));
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let noted = |parts: [&str; 2]| parts.map(|part| notes.get(part).is_some());

    watch.look(NOW_S, &notes, &metrics);
    assert!(shown.borrow().is_none());
    assert_eq!((noted(FAILING_PARTS), noted(DEGRADED_PARTS)), ([true, false], [false, false]));

    let (chain, key) = pair();
    write("chain.pem", &chain);
    write("key.pem", &key);
    watch.look(NOW_S, &notes, &metrics);
    assert_eq!(shown.borrow_and_update().as_ref().unwrap().chain_pem, chain.as_bytes());
    assert_eq!((noted(FAILING_PARTS), noted(DEGRADED_PARTS)), ([false, false], [false, false]));
    assert!(metrics.certificate_expires_unix_s.load(Ordering::Relaxed) > NOW_S);

    watch.look(NOW_S, &notes, &metrics);
    assert!(!shown.has_changed().unwrap());

    // One of the two files is there already, the other not yet.
    let (next_chain, next_key) = pair();
    write("chain.pem", &next_chain);
    watch.look(NOW_S, &notes, &metrics);
    assert!(!shown.has_changed().unwrap());
    assert_eq!((noted(FAILING_PARTS), noted(DEGRADED_PARTS)), ([false, false], [true, false]));
    write("key.pem", &next_key);
    watch.look(NOW_S, &notes, &metrics);
    assert_eq!(shown.borrow_and_update().as_ref().unwrap().chain_pem, next_chain.as_bytes());
    assert_eq!((noted(FAILING_PARTS), noted(DEGRADED_PARTS)), ([false, false], [false, false]));

    // Time passes, the files do not change.
    watch.look(NOW_S + 365 * DAY_S, &notes, &metrics);
    assert!(!shown.has_changed().unwrap());
    assert_eq!(noted(FAILING_PARTS), [false, true]);
}
