//! Which changes somebody should mean.
#![allow(clippy::unwrap_used)]

use callvault_config::{Config, Risk, risks};

fn load(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callvault.toml");
    std::fs::write(&path, format!("data_dir = \"{}/data\"\n{text}", folder.path().display())).unwrap();
    Config::load(&path, []).unwrap_or_else(|errors| panic!("{}", callvault_config::render_errors(&errors)))
}

#[test]
fn what_opens_deletes_or_loses_is_named_and_its_opposite_is_not() {
    let check = |section: &str, old: &str, new: &str, there: Option<Risk>, back: Option<Risk>| {
        let config = |line: &str| load(&format!("[{section}]\n{line}\n"));
        let (old_config, new_config) = (config(old), config(new));
        let found = |from: &Config, to: &Config| {
            risks(from, to).into_iter().filter(|(key, _)| *key != "data_dir").map(|(_, risk)| risk).next()
        };
        assert_eq!(found(&old_config, &new_config), there, "{section}: {old} → {new}");
        assert_eq!(found(&new_config, &old_config), back, "{section}: {new} → {old}");
    };
    let (opens, deletes, sends, loses) = (Some(Risk::Opens), Some(Risk::Deletes), Some(Risk::Sends), Some(Risk::Loses));
    check("permissions", "delete = \"nobody\"", "delete = \"administrators\"", opens, None);
    check("permissions", "delete = \"administrators\"", "delete = \"users\"", opens, None);
    check("permissions", "", "delete = \"nobody-irreversibly\"", Some(Risk::Irreversible), opens);
    check("permissions", "download = \"nobody\"", "download = \"users\"", opens, None);
    check("permissions", "preserve = \"nobody\"", "preserve = \"group-supervisors\"", opens, None);
    check("retention", "", "rule = \"12-months\"", deletes, None);
    check("retention", "rule = \"48-months\"", "rule = \"12-months\"", deletes, None);
    check("retention", "rule = \"12-months\"", "rule = \"4-hours\"", deletes, None);
    check(
        "retention",
        "rule = \"custom\"\nperiod = \"90 days\"",
        "rule = \"custom\"\nperiod = \"2 months\"",
        deletes,
        None,
    );
    check("retention", "rule = \"custom\"\nperiod = \"1 years\"", "rule = \"12-months\"", None, None);
    check("retention", "", "preserved = \"2 years\"", deletes, None);
    check("retention", "", "wait_for_upload = false", deletes, None);
    check("retention", "", "confirm_share = 100", deletes, None);
    check("retention", "", "confirm_few = 1000", deletes, None);
    check("sip", "", "allowed_peers = [\"0.0.0.0/0\"]", opens, opens);
    check("sip", "", "udp = \"192.0.2.1:5060\"", Some(Risk::Unreachable), Some(Risk::Unreachable));
    check("mail", "", "server = \"mail.example.com\"\nfrom = \"a@example.com\"", sends, None);
    check("mail", "", "tls = \"none\"", sends, None);
    check("webex", "", "url = \"https://webex.example.com/v1\"", sends, sends);
    check("store", "", "path = \"/srv/other\"", loses, loses);
    check("archive", "", "keys = \"catalogue\"", loses, None);
    check("archive", "", "codec = \"as-received\"", None, None);
    check("recording", "", "mode = \"on-demand\"", loses, None);
    check("filters", "", "direction = \"incoming\"", loses, None);
    check("directory", "unknown = \"keep\"", "unknown = \"discard\"", loses, None);
    check("limits", "", "sessions_max = 10", Some(Risk::Unreachable), None);
    check("oidc", "", "takes_unverified = true", opens, None);
    check("log", "", "personal_data = true", opens, None);
    check("log", "", "level = \"debug\"", None, None);
}
