//! Which value wins, what a value becomes, and that nothing an operator can write makes the reader panic.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use callvault_config::{ArchiveCodec, BitRate, Bytes, Config, HttpListen, MediaAddress, PortRange, check};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn load(folder: &Path, toml: &str, env: &[(&str, &str)]) -> Config {
    let path = folder.join("callvault.toml");
    std::fs::write(&path, toml).unwrap();
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&path, env).unwrap_or_else(|errors| panic!("{}", callvault_config::render_errors(&errors)))
}

fn effective(config: &Config, key: &str) -> (String, String) {
    let entry = config.effective().iter().find(|e| e.key == key).unwrap();
    (entry.value.clone(), entry.origin.clone())
}

#[test]
fn an_empty_file_means_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(folder.path(), "", &[]);
    assert_eq!(config, Config::defaults(folder.path()));
    assert_eq!(config.data_dir, Path::new("/var/lib/callvault"));
    assert_eq!(config.journal.commit_interval, Duration::from_secs(1));
    assert_eq!(config.journal.file_bytes_max, Bytes(256 << 20));
    assert_eq!(config.media.ports, PortRange { first: 20000, last: 29999 });
    assert_eq!(config.media.ports.pairs(), 5000);
    assert_eq!(config.archive.bit_rate, BitRate::BitsPerSecond(24_000));
    assert_eq!(config.store_path(), Path::new("/var/lib/callvault/store"));
    assert_eq!(config.appliance_key_path(), Path::new("/var/lib/callvault/keys/appliance.key"));
    assert!(config.remarks().is_empty(), "{:?}", config.remarks());
    assert!(config.effective().iter().all(|e| e.origin == "default"));
}

#[test]
fn later_layers_win_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(folder.path().join("conf.d/20.toml"), "[sip]\ntcp = \"127.0.0.1:2\"\n[log]\nlevel = \"warn\"")
        .unwrap();
    std::fs::write(folder.path().join("conf.d/10.toml"), "[sip]\ntcp = \"127.0.0.1:1\"\nserver_name = \"ten\"")
        .unwrap();
    let main = "[sip]\nudp = \"127.0.0.1:9\"\ntcp = [\"127.0.0.1:7\", \"127.0.0.1:8\"]\n[log]\nlevel = \"debug\"";
    let config =
        load(folder.path(), main, &[("CALLVAULT__LOG__LEVEL", "error"), ("PATH", "/bin"), ("CALLVAULT_OTHER", "x")]);
    let file = |name: &str, line: usize| format!("{}:{line}", folder.path().join(name).display());
    assert_eq!(effective(&config, "sip.udp"), ("[\"127.0.0.1:9\"]".into(), file("callvault.toml", 2)));
    assert_eq!(effective(&config, "sip.tcp"), ("[\"127.0.0.1:2\"]".into(), file("conf.d/20.toml", 2)));
    assert_eq!(effective(&config, "sip.server_name"), ("\"ten\"".into(), file("conf.d/10.toml", 3)));
    assert_eq!(effective(&config, "log.level"), ("\"error\"".into(), "CALLVAULT__LOG__LEVEL".into()));
    assert_eq!(effective(&config, "http.listen"), ("\"127.0.0.1:8088\"".into(), "default".into()));
}

#[test]
fn a_variable_can_be_of_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    let env = [
        ("CALLVAULT__DATA_DIR", "data"),
        ("CALLVAULT__SIP__UDP", "127.0.0.1:5070, [::1]:5070"),
        ("CALLVAULT__SIP__TCP", "[\"127.0.0.1:5071\"]"),
        ("CALLVAULT__SIP__SERVER_NAME", "1234"),
        ("CALLVAULT__LOG__PERSONAL_DATA", "true"),
        ("CALLVAULT__LIMITS__SESSIONS_MAX", "50"),
        ("CALLVAULT__ARCHIVE__CODEC", "as-received"),
        ("CALLVAULT__ARCHIVE__BIT_RATE", "auto"),
        ("CALLVAULT__MEDIA__PORTS", "30000-30099"),
    ];
    let config = load(folder.path(), "", &env);
    assert_eq!(config.data_dir, folder.path().join("data"));
    assert_eq!(config.sip.udp.0.len(), 2);
    assert_eq!(config.sip.tcp.0.len(), 1);
    assert_eq!(config.sip.server_name, "1234");
    assert!(config.log.personal_data);
    assert_eq!(config.limits.sessions_max, 50);
    assert_eq!(config.archive.codec, ArchiveCodec::AsReceived);
    assert_eq!(config.archive.bit_rate, BitRate::Auto);
    assert_eq!(config.media.ports.pairs(), 50);
}

#[test]
fn relative_paths_are_relative_to_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "data_dir = \"d\"\nruntime_dir = \"r\"\n[store]\npath = \"../s\"\n[keys]\npath = \"k\"\n[http]\nlisten = \"unix:c.sock\"";
    let config = load(folder.path(), toml, &[]);
    assert_eq!(config.data_dir, folder.path().join("d"));
    assert_eq!(config.runtime_dir, folder.path().join("r"));
    assert_eq!(config.store_path(), folder.path().join("../s"));
    assert_eq!(config.keys_path(), folder.path().join("k"));
    assert_eq!(config.http.listen, HttpListen::Unix(folder.path().join("c.sock")));
    assert_eq!(config.journal_path(), folder.path().join("d/journal"));
    assert_eq!(config.control_token_path(), folder.path().join("d/control.token"));
}

#[test]
fn the_allow_list_admits_whom_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let admits = |toml: &str, address: &str, expected: bool| {
        let config = load(folder.path(), toml, &[]);
        assert_eq!(config.sip.allowed_peers.allows(address.parse::<IpAddr>().unwrap()), expected, "{toml} {address}");
    };
    admits("", "127.0.0.1", true);
    admits("", "::1", true);
    admits("", "10.255.1.2", true);
    admits("", "172.31.0.1", true);
    admits("", "172.32.0.1", false);
    admits("", "192.168.1.1", true);
    admits("", "::ffff:192.168.1.1", true);
    admits("", "fd00::1", true);
    admits("", "8.8.8.8", false);
    admits("", "2001:db8::1", false);
    admits("[sip]\nallowed_peers = \"203.0.113.7\"", "203.0.113.7", true);
    admits("[sip]\nallowed_peers = \"203.0.113.7\"", "203.0.113.8", false);
    admits("[sip]\nallowed_peers = \"0.0.0.0/0\"", "203.0.113.8", true);
    admits("[sip]\nallowed_peers = \"0.0.0.0/0\"", "2001:db8::1", false);
    admits("[sip]\nallowed_peers = [\"::/0\"]", "2001:db8::1", true);
}

#[test]
fn what_is_probably_not_meant_is_remarked() {
    let folder = tempfile::tempdir().unwrap();
    let remarked = |toml: &str, expected: &str| {
        let remarks = load(folder.path(), toml, &[]).remarks();
        assert!(remarks.len() == 1 && remarks[0].contains(expected), "{toml}: {remarks:?}");
    };
    remarked("[media]\nports = \"20000-20003\"", "enough for 1 calls with two tracks");
    remarked("[sip]\nallowed_peers = \"0.0.0.0/0\"", "admits every address");
    remarked("[log]\npersonal_data = true", "phone numbers and names");
}

#[test]
fn check_counts_what_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[log]\nlevel = \"warn\"\npersonal_data = true").unwrap();
    let checked = check(&path, []);
    assert!(checked.ok);
    assert!(checked.text.contains("good; 2 of"), "{}", checked.text);
    assert!(checked.text.contains("remark: log.personal_data"), "{}", checked.text);
}

#[test]
fn the_address_of_media_is_auto_or_one_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let address = |toml: &str| load(folder.path(), toml, &[]).media.address;
    assert_eq!(address(""), MediaAddress::Auto);
    assert_eq!(address("[media]\naddress = \"127.0.0.1\""), MediaAddress::Ip("127.0.0.1".parse().unwrap()));
    assert_eq!(address("[media]\naddress = \"::1\""), MediaAddress::Ip("::1".parse().unwrap()));
}

/// Failing seeds are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(200))]

    #[test]
    fn no_text_makes_it_panic(text in "[a-z_\\[\\]=\"0-9./:\\n# \\-{},']{0,120}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, &text).unwrap();
        if let Err(errors) = Config::load(&path, []) {
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn no_value_of_any_key_makes_it_panic(value in any::<String>(), number in any::<i64>(), pick in any::<prop::sample::Index>()) {
        let keys: Vec<_> = callvault_config::schema::keys().collect();
        let key = keys[pick.index(keys.len())].key;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        for value in [toml::Value::String(value.clone()), toml::Value::Integer(number)] {
            std::fs::write(&path, format!("{key} = {value}")).unwrap();
            if let Ok(config) = Config::load(&path, []) {
                // What is in force can be written back and means the same.
                let written: String = config.effective().iter().map(|e| format!("{} = {}\n", e.key, e.value)).collect();
                std::fs::write(&path, written).unwrap();
                let again = Config::load(&path, []).expect("a value in force is valid");
                let values = |c: &Config| c.effective().iter().map(|e| e.value.clone()).collect::<Vec<_>>();
                prop_assert_eq!(values(&config), values(&again));
            }
        }
    }
}
