//! The file of what is set in the portal: at which place it is read, what may be in it, and what a change makes of it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use callvault_config::{Config, ConfigError, Fixed, PORTAL_FILE, Wanted, render_errors, schema};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// A configuration with its data folder beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(main: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("callvault.toml", &format!("data_dir = \"data\"\n{main}"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn portal(&self, text: &str) {
        self.write("data/conf.d/50-portal.toml", text);
    }

    fn try_load(&self, env: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(&self.path("callvault.toml"), env)
    }

    fn load(&self) -> Config {
        self.try_load(&[]).unwrap_or_else(|errors| panic!("{}", render_errors(&errors)))
    }

    /// What the portal makes of these changes: the text of its file, or what is wrong.
    fn propose(&self, changes: &[(&str, Option<Wanted>)]) -> Result<(String, Config), String> {
        let changes: Vec<_> = changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        match self.load().proposed([], &changes) {
            Ok(proposal) => Ok((proposal.text, proposal.config)),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                Err(mistakes.iter().map(|one| format!("{}: {}\n", one.key, one.message)).collect())
            }
        }
    }
}

fn value(config: &Config, key: &str) -> (String, String) {
    let entry = config.effective().iter().find(|entry| entry.key == key).unwrap();
    (entry.value.clone(), entry.origin.clone())
}

fn text(text: &str) -> Option<Wanted> {
    Some(Wanted::Text(text.into()))
}

#[test]
fn it_is_read_at_the_place_of_its_name() {
    let check = |files: &[(&str, &str)], env: &[(&str, &str)], expected: &str, from: &str| {
        let place = Place::new("[mail]\nsender_name = \"main\"\n");
        for (name, value) in files {
            place.write(name, &format!("[mail]\nsender_name = \"{value}\"\n"));
        }
        place.portal("[mail]\nsender_name = \"portal\"\n");
        let config = place.try_load(env).unwrap();
        let (found, origin) = value(&config, "mail.sender_name");
        assert_eq!(found, format!("\"{expected}\""), "{files:?} {env:?}");
        assert!(origin.contains(from), "{origin}");
        assert!(config.is_set_in_portal("mail.sender_name") && !config.is_set_in_portal("mail.from"));
    };
    check(&[], &[], "portal", "data/conf.d/50-portal.toml:2");
    check(&[("conf.d/10-setup.toml", "setup")], &[], "portal", "50-portal.toml");
    check(&[("conf.d/50-portal.toml", "operator")], &[], "portal", "data/conf.d");
    check(&[("conf.d/60-mine.toml", "mine")], &[], "mine", "conf.d/60-mine.toml:2");
    check(&[("conf.d/mine.toml", "mine"), ("conf.d/10-setup.toml", "setup")], &[], "mine", "conf.d/mine.toml:2");
    check(&[], &[("CALLVAULT__MAIL__SENDER_NAME", "env")], "env", "CALLVAULT__MAIL__SENDER_NAME");
}

#[test]
fn the_folder_of_the_data_is_the_one_that_wins() {
    let place = Place::new("");
    place.write("conf.d/60-data.toml", "data_dir = \"other\"\n");
    place.portal("[log]\nlevel = \"debug\"\n");
    place.write("other/conf.d/50-portal.toml", "[log]\nlevel = \"trace\"\n");
    assert_eq!(value(&place.load(), "log.level").0, "\"trace\"");
    let config = place.try_load(&[("CALLVAULT__DATA_DIR", "data")]).unwrap();
    assert_eq!(value(&config, "log.level").0, "\"debug\"");
    assert_eq!(config.portal_file(), place.path("data/conf.d/50-portal.toml"));
    assert_eq!(PORTAL_FILE, "50-portal.toml");
}

#[test]
fn what_is_wrong_in_it_is_an_error_at_its_place() {
    let check = |text: &str, expected: &str| {
        let place = Place::new("");
        place.portal(text);
        let said = render_errors(&place.try_load(&[]).unwrap_err());
        assert!(said.contains("50-portal.toml") && said.contains(expected), "{said}");
    };
    check("[log]\nlevle = \"info\"\n", "did you mean `log.level`?");
    check("[log]\nlevel = \"loud\"\n", "log.level");
    check("[log\n", "not valid TOML");
    check("data_dir = \"elsewhere\"\n", "names something on the machine");
    check("[mail]\npassword_file = \"/etc/shadow\"\n", "names something on the machine");
    check(&format!("# {}\n", "x".repeat(1 << 20)), "is longer than");
}

#[test]
fn who_may_not_look_into_the_folder_of_the_data_is_told() {
    let place = Place::new("");
    place.write("callvault.toml", "data_dir = \"callvault.toml/none\"\n");
    assert_eq!(place.load().remarks(), [""; 0], "that the folder is a file is said by who opens it");
    place.write("callvault.toml", "data_dir = \"data\"\n");
    fs::create_dir_all(place.path("data/conf.d/50-portal.toml")).unwrap();
    let said = render_errors(&place.try_load(&[]).unwrap_err());
    assert!(said.contains("50-portal.toml"), "a file that is a folder is an error, not nothing: {said}");
    if nix_is_root() {
        // Root may look everywhere.
        return;
    }
    let place = Place::new("");
    place.portal("[log]\nlevel = \"debug\"\n");
    set_mode(&place.path("data"), 0o000);
    let config = place.load();
    set_mode(&place.path("data"), 0o700);
    assert_eq!(value(&config, "log.level").0, "\"info\"");
    assert!(config.remarks().iter().any(|remark| remark.contains("cannot be looked at")), "{:?}", config.remarks());
}

fn nix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_change_is_a_whole_file_in_the_order_of_the_documentation() {
    let place = Place::new("");
    place.portal("[mail]\nsender_name = \"Calls\"\nlanguage = \"it\"\n");
    let changes = [
        ("retention.rule", text("12-months")),
        ("filters.blacklist", Some(Wanted::List(vec!["7100".into(), "+4989!".into()]))),
        ("archive.complexity", Some(Wanted::Number(7))),
        ("render.mask_tones", Some(Wanted::Flag(false))),
        ("mail.language", None),
    ];
    let (text, config) = place.propose(&changes).unwrap();
    let (head, rest) = text.split_once("\n\n").unwrap();
    assert!(head.lines().all(|line| line.starts_with('#')), "{head}");
    let expected = "[filters]\nblacklist = [\"7100\", \"+4989!\"]\n\n[archive]\ncomplexity = 7\n\n[retention]\nrule = \"12-months\"\n\n[mail]\nsender_name = \"Calls\"\n\n[render]\nmask_tones = false\n";
    assert_eq!(rest, expected);
    assert_eq!(value(&config, "archive.complexity").0, "7");
    assert_eq!(value(&config, "mail.language").0, "\"en\"");
    place.portal(&text);
    assert_eq!(place.load(), config, "what is written is read as it was checked");
}

#[test]
fn everything_that_is_wrong_is_said_and_nothing_comes_of_it() {
    let place = Place::new("[mail]\nserver = \"mail.example.com\"\nfrom = \"a@example.com\"\n");
    place.write("conf.d/90-pinned.toml", "[archive]\ncodec = \"opus\"\n");
    let check = |key: &str, wanted: Option<Wanted>, expected: &str| {
        let said = place.propose(&[(key, wanted)]).unwrap_err();
        assert!(said.contains(expected), "{key}: {said}");
    };
    check("mail.sever", text("x"), "did you mean `mail.server`?");
    check("retention.rule", text("12-month"), "expected \"keep-all\"");
    check("limits.sessions_max", Some(Wanted::Number(0)), "outside 1 to 20000");
    check("render.mask_tones", text("yes"), "true or false");
    check("filters.blacklist", Some(Wanted::List(vec!["71x".into()])), "filters.blacklist");
    check("mail.sender_name", text("a\nb"), "line breaks");
    check("mail.from", text("nobody"), "mail.from must be the address");
    check("archive.codec", text("as-received"), "90-pinned.toml:2, which wins over the portal");
    check("data_dir", text("/tmp"), "names something on the machine");
    check("mail.password_file", text("/var/lib/callvault/keys/appliance.key"), "names something on the machine");
    check("render.ffmpeg", text("/bin/sh"), "names something on the machine");
    check("http.listen", text("0.0.0.0:80"), "names something on the machine");
    check("organisation.time_zone", text(&"x".repeat(2 << 20)), "organisation.time_zone");
    check("mail.sender_name", text(&"x".repeat(2 << 20)), "is longer than");
    let both = place.propose(&[("mail.port", Some(Wanted::Number(-1))), ("no.such", text("x"))]).unwrap_err();
    assert_eq!(both.lines().count(), 2, "{both}");
}

#[test]
fn a_key_that_something_wins_over_is_fixed_and_can_be_taken_out() {
    let place = Place::new("");
    place.portal("[log]\nlevel = \"debug\"\n[mail]\nlanguage = \"it\"\n");
    place.write("conf.d/60.toml", "[log]\nlevel = \"warn\"\n");
    let config = place.try_load(&[("CALLVAULT__MAIL__LANGUAGE", "fr")]).unwrap();
    let fixed = |key: &str| config.fixed(config.effective().iter().find(|entry| entry.key == key).unwrap());
    assert_eq!(fixed("log.level"), Some(Fixed::File(place.path("conf.d/60.toml").display().to_string() + ":2")));
    assert_eq!(fixed("mail.language"), Some(Fixed::Variable("CALLVAULT__MAIL__LANGUAGE".into())));
    assert_eq!(fixed("sip.tls_key"), Some(Fixed::Machine));
    assert_eq!(fixed("data_dir"), Some(Fixed::Machine));
    assert_eq!(fixed("mail.server"), None);
    assert_eq!(fixed("store.path"), None);
    let (text, _) = place.propose(&[("log.level", None)]).unwrap();
    assert!(!text.contains("level") && text.contains("language"), "{text}");
}

#[test]
fn every_key_can_be_shown_and_is_either_fixed_or_can_be_set_to_what_it_is() {
    let place = Place::new("");
    let config = place.load();
    for spec in schema::keys() {
        let entry = config.effective().iter().find(|entry| entry.key == spec.key).unwrap();
        let wanted = Wanted::of_toml(&entry.value).unwrap_or_else(|| panic!("{}: {}", spec.key, entry.value));
        let kept = place.propose(&[(spec.key, Some(wanted))]);
        match config.fixed(entry) {
            Some(fixed) => assert!(kept.unwrap_err().contains(&fixed.text()), "{}", spec.key),
            None => assert_eq!(value(&kept.unwrap().1, spec.key).0, entry.value, "{}", spec.key),
        }
        for choice in spec.choices {
            assert!(spec.shape.contains(choice), "{}", spec.key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        cases: 64,
        ..ProptestConfig::default()
    })]

    /// Whatever text is wanted: it is refused, or it is read back from the file as the very same.
    #[test]
    fn no_text_leaves_its_value(name in any::<String>()) {
        let place = Place::new("");
        if let Ok((text, config)) = place.propose(&[("mail.sender_name", Some(Wanted::Text(name.clone())))]) {
            prop_assert_eq!(&config.mail.sender_name, &name);
            place.portal(&text);
            prop_assert_eq!(place.load(), config);
        }
    }
}
