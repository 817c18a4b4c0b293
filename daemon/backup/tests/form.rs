//! What is written is read again; what was changed, cut off or made by others is refused before it is believed.

#![allow(clippy::unwrap_used)]

use age::secrecy::ExposeSecret as _;
use callvault_backup::{BackupError, Lock, Manifest, Place, VERSION, Writer, read};
use proptest::prelude::*;

fn manifest() -> Manifest {
    Manifest {
        version: VERSION,
        made_at: "2026-11-23T05:00:00Z".to_owned(),
        made_by: "0.1.0".to_owned(),
        private_key: Some("0011223344556677".to_owned()),
        left_out: vec!["/etc/callvault/mail.password".to_owned()],
    }
}

/// A pair that belongs together.
fn pair() -> (Lock, Lock) {
    let identity = age::x25519::Identity::generate();
    let text = format!("# made by age-keygen\n{}\n", identity.to_string().expose_secret());
    (Lock::Key(identity.to_public().to_string()), Lock::Key(text))
}

/// Files with their places.
type Files = Vec<(Place, Vec<u8>)>;

fn files() -> Files {
    vec![
        (Place::Configuration("callvault.toml".into()), b"[sip]\n".to_vec()),
        (Place::ConfD("10-mail.toml".into()), b"[mail]\n".to_vec()),
        (Place::Key("appliance.key".into()), b"a key".to_vec()),
        (Place::Store("store.identity".into()), b"{}".to_vec()),
        (Place::NeverDelete, Vec::new()),
        (Place::Catalogue, (0..20_000_u32).flat_map(u32::to_le_bytes).collect()),
    ]
}

fn made(lock: &Lock, files: &[(Place, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), lock, &manifest()).unwrap();
    for (place, content) in files {
        writer.add(place, content.len() as u64, &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn opened(bytes: &[u8], lock: &Lock) -> Result<(Manifest, Files), BackupError> {
    let mut found = Vec::new();
    let manifest = read::<BackupError>(bytes, lock, |_, place, content| {
        let mut bytes = Vec::new();
        // What is wrong with the reading is said by the reader.
        content.read_to_end(&mut bytes).map_err(|error| BackupError::Damaged(error.to_string()))?;
        found.push((place.clone(), bytes));
        Ok(())
    })?;
    Ok((manifest, found))
}

#[test]
fn what_is_written_is_read_again() {
    let words = || Lock::Passphrase("four plain english words".to_owned());
    assert_eq!(opened(&made(&words(), &files()), &words()).unwrap(), (manifest(), files()));
    let (ours, theirs) = pair();
    assert_eq!(opened(&made(&ours, &files()), &theirs).unwrap(), (manifest(), files()));
}

#[test]
fn another_lock_opens_nothing_and_says_which_is_wanted() {
    let check = |made_with: &Lock, opened_with: &Lock, said: &str| {
        let error = opened(&made(made_with, &files()), opened_with).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    };
    let words = |text: &str| Lock::Passphrase(text.to_owned());
    let ((ours, theirs), (_, others)) = (pair(), pair());
    check(&words("four plain english words"), &words("five plain english words"), "not the passphrase");
    check(&words("four plain english words"), &theirs, "made with a passphrase");
    check(&ours, &others, "not the passphrase, or the identity");
    check(&ours, &words("four plain english words"), "made for a recipient");
    let begun = |lock: &Lock| Writer::begin(Vec::new(), lock, &manifest()).err().unwrap().to_string();
    assert!(begun(&words("short")).contains("12 characters"));
    assert!(begun(&Lock::Key("age1nonsense".to_owned())).contains("age-keygen"));
}

#[test]
fn what_has_no_place_is_refused() {
    let check = |path: &str, expected: bool| assert_eq!(Place::of(path).is_some(), expected, "{path}");
    for (place, _) in files() {
        assert_eq!(Place::of(&place.path()), Some(place));
    }
    for path in ["", "/etc/passwd", "keys/", "keys/../../x", "keys/.x", "keys/a/b", "configuration/conf.d/../x", "else"]
    {
        check(path, false);
    }
    let (ours, theirs) = pair();
    let files: Vec<_> = files().into_iter().filter(|(place, _)| *place != Place::Catalogue).collect();
    assert!(opened(&made(&ours, &files), &theirs).unwrap_err().to_string().contains("no catalogue"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    /// Wherever it is changed or cut off: an error, whatever was given out before.
    #[test]
    fn what_is_not_whole_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut: bool) {
        let (ours, theirs) = pair();
        let mut bytes = made(&ours, &files());
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(opened(&bytes, &theirs).is_err());
    }
}
