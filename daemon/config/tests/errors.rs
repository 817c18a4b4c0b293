//! What a flawed configuration is told: one line a case.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use callvault_config::{Config, ConfigError, check, render_errors};

fn load(toml: &str, env: &[(&str, &str)]) -> (tempfile::TempDir, Result<Config, Vec<ConfigError>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callvault.toml");
    std::fs::write(&path, toml).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = Config::load(&path, env.collect::<Vec<_>>());
    (folder, loaded)
}

/// Exactly one error, at this place, about this key, with this text in it.
fn refused(toml: &str, line: usize, column: usize, key: &str, message: &str) {
    let (_folder, loaded) = load(toml, &[]);
    let errors = loaded.expect_err(toml);
    assert_eq!(errors.len(), 1, "{toml}\n{}", render_errors(&errors));
    let error = &errors[0];
    assert_eq!((error.line, error.column, error.key.as_str()), (line, column, key), "{toml}\n{error}");
    assert!(error.message.contains(message), "{toml}\n{error}\nlacks: {message}");
    assert!(error.file.ends_with("callvault.toml"), "{error}");
}

fn refused_variable(name: &str, value: &str, message: &str) {
    let (_folder, loaded) = load("", &[(name, value)]);
    let errors = loaded.expect_err(name);
    assert_eq!(errors.len(), 1, "{}", render_errors(&errors));
    assert_eq!((errors[0].file.as_str(), errors[0].key.as_str()), ("environment", name));
    assert!(errors[0].message.contains(message), "{}\nlacks: {message}", errors[0]);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    refused("[sip]\nupd = \"0.0.0.0:5060\"", 2, 1, "sip.upd", "did you mean `sip.udp`?");
    refused("\n[spi]\nudp = []\ntcp = []", 2, 2, "spi", "unknown section; did you mean `sip`?");
    refused("datadir = \"/x\"", 1, 1, "datadir", "did you mean `data_dir`?");
    refused("data-dir = \"/x\"", 1, 1, "data-dir", "did you mean `data_dir`?");
    refused("[sip]\nlisten = \"a\"", 2, 1, "sip.listen", "did you mean `http.listen`?");
    refused("udp = []", 1, 1, "udp", "did you mean `sip.udp`?");
    refused(
        "[journal]\n  Commit_Interval = \"1s\"",
        2,
        3,
        "journal.Commit_Interval",
        "did you mean `journal.commit_interval`?",
    );
    refused("[limits]\nfrobnicate = 1", 2, 1, "limits.frobnicate", "etc/callvault.toml lists all");
    refused("[weather]\nrain = true", 1, 2, "weather", "etc/callvault.toml lists all");
    refused("sip = \"0.0.0.0:5060\"", 1, 1, "sip", "is a section; write [sip]");
    refused("[sip.udp]\nport = 5060", 1, 1, "sip.udp", "found a table");
}

#[test]
fn a_bad_value_says_what_to_write() {
    refused("data_dir = 5", 1, 12, "data_dir", "expected a path in quotes, found 5");
    refused("data_dir = \"\"", 1, 12, "data_dir", "must not be empty");
    refused("data_dir = \"~/x\"", 1, 12, "data_dir", "write the whole path");
    refused("[sip]\nudp = \"0.0.0.0\"", 2, 7, "sip.udp", "write \"0.0.0.0:5060\"");
    refused("[sip]\nudp = \"::1\"", 2, 7, "sip.udp", "write \"[::1]:5060\"");
    refused("[sip]\nudp = \"5070\"", 2, 7, "sip.udp", "write \"0.0.0.0:5070\"");
    refused("[sip]\nudp = 5060", 2, 7, "sip.udp", "expected an address with port");
    refused("[sip]\nudp = \"recorder.example.com:5060\"", 2, 7, "sip.udp", "names are not looked up");
    refused("[sip]\ntcp = [\"127.0.0.1:0\"]", 2, 7, "sip.tcp", "port 0");
    refused("[sip]\ntcp = [\"127.0.0.1:5060\", 7]", 2, 7, "sip.tcp", "found a list");
    refused("[sip]\ntcp = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", 2, 7, "sip.tcp", "is there twice");
    refused("[sip]\nallowed_peers = []", 2, 17, "sip.allowed_peers", "would refuse every call");
    refused("[sip]\nallowed_peers = \"10.0.0.0/33\"", 2, 17, "sip.allowed_peers", "is not a network");
    refused("[sip]\nallowed_peers = \"10.0.0.0/+8\"", 2, 17, "sip.allowed_peers", "is not a network");
    refused(
        "[sip]\nallowed_peers = \"10.1.2.3/8\"",
        2,
        17,
        "sip.allowed_peers",
        "write \"10.0.0.0/8\" for the network",
    );
    refused("[sip]\nserver_name = \"a\\r\\nb\"", 2, 15, "sip.server_name", "control characters");
    refused("[media]\naddress = \"eth0\"", 2, 11, "media.address", "\"auto\" or an IP address");
    refused("[media]\naddress = \"0.0.0.0\"", 2, 11, "media.address", "write \"auto\"");
    refused("[media]\nports = \"20001-29999\"", 2, 9, "media.ports", "write \"20002-29999\"");
    refused("[media]\nports = \"20000\"", 2, 9, "media.ports", "such as \"20000-29999\"");
    refused("[media]\nports = \"20000-20000\"", 2, 9, "media.ports", "holds no pair");
    refused("[media]\nports = \"30000-20000\"", 2, 9, "media.ports", "holds no pair");
    refused("[media]\nports = \"20000-70000\"", 2, 9, "media.ports", "greatest is 65535");
    refused("[media]\nports = \"80-90\"", 2, 9, "media.ports", "below 1024");
    refused("[media]\nports = \"65535-65536\"", 2, 9, "media.ports", "65536 is not a port");
    refused("[journal]\ncommit_interval = 1", 2, 19, "journal.commit_interval", "write \"1s\"");
    refused("[journal]\ncommit_interval = \"1 week\"", 2, 19, "journal.commit_interval", "expected a duration");
    refused("[journal]\ncommit_interval = \"1h\"", 2, 19, "journal.commit_interval", "outside 50ms to 1m");
    refused("[journal]\nfile_bytes_max = \"256MB\"", 2, 18, "journal.file_bytes_max", "\"256MiB\"");
    refused("[journal]\nfile_bytes_max = 1048576", 2, 18, "journal.file_bytes_max", "needs its unit");
    refused("[journal]\nfile_bytes_max = \"99999999999TiB\"", 2, 18, "journal.file_bytes_max", "expected a size");
    refused("[limits]\nsessions_max = 0", 2, 16, "limits.sessions_max", "outside 1 to 20000");
    refused("[limits]\nsessions_max = -1", 2, 16, "limits.sessions_max", "a whole number");
    refused("[limits]\nsessions_max = 1.5", 2, 16, "limits.sessions_max", "found a number with a fraction");
    refused("[limits]\nsessions_max = 0xffffffffffffffff", 2, 16, "limits.sessions_max", "a number that is too large");
    refused("[archive]\ncodec = \"mp3\"", 2, 9, "archive.codec", "\"opus\" or \"as-received\"");
    refused("[archive]\nbit_rate = 10", 2, 12, "archive.bit_rate", "\"auto\" or bits a second");
    refused("[archive]\ncomplexity = 11", 2, 14, "archive.complexity", "outside 0 to 10");
    refused("[http]\nlisten = \"0.0.0.0:8088\"", 2, 10, "http.listen", "use 127.0.0.1, [::1] or unix:PATH");
    refused("[http]\nlisten = \"localhost:8088\"", 2, 10, "http.listen", "expected a loopback address");
    refused("[http]\nlisten = \"unix:\"", 2, 10, "http.listen", "must not be empty");
    refused("[keys]\nescrow = \"callvault-public-1:short\"", 2, 10, "keys.escrow", "callvaultctl keys show");
    refused("[log]\nlevel = \"loud\"", 2, 9, "log.level", "expected \"error\", \"warn\"");
    refused("[retention]\nrule = \"13-months\"", 2, 8, "retention.rule", "\"48-months\"");
    refused("[retention]\nperiod = \"12 moons\"", 2, 10, "retention.period", "hours, days, months or years");
    refused("[retention]\nperiod = \"0 days\"", 2, 10, "retention.period", "hours, days, months or years");
    refused("[retention]\nperiod = \"101 years\"", 2, 10, "retention.period", "at most 100 years");
    refused("[retention]\npreserved = \"always\"", 2, 13, "retention.preserved", "\"for-ever\"");
    refused("[log]\npersonal_data = \"yes\"", 2, 17, "log.personal_data", "true or false");
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    refused("[sip]\ntls = \"0.0.0.0:5061\"", 2, 0, "sip.tls", "needs a certificate");
    let tls = "[sip]\ntls_certificate = \"a.pem\"\ntls = ";
    refused(&format!("{tls}\"0.0.0.0:5060\""), 3, 0, "sip.tls", "port 5060 is both in sip.tls and in sip.tcp");
    refused(&format!("{tls}\"127.0.0.1:8088\""), 3, 0, "sip.tls", "port 8088 is both in http.listen and in sip.tls");
    refused("[sip]\nudp = []\ntcp = []", 2, 0, "sip.udp", "no SIP address is left");
    refused("[media]\nports = \"5000-6000\"", 2, 0, "media.ports", "both in sip.udp and in media.ports");
    refused("[http]\nlisten = \"127.0.0.1:5060\"", 2, 0, "http.listen", "both in http.listen and in sip.tcp");
    refused(
        "[journal]\nbatch_interval = \"500ms\"\ncommit_interval = \"200ms\"",
        2,
        0,
        "journal.batch_interval",
        "is longer than",
    );
    refused("[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1m\"", 2, 0, "queue.backoff_min", "is longer than");
    refused("data_dir = \"/x\"\nruntime_dir = \"/x\"", 2, 0, "runtime_dir", "the same folder");
    refused(
        &format!("[http]\nlisten = \"unix:/{}\"", "x".repeat(107)),
        2,
        0,
        "http.listen",
        "longer than the 107 bytes",
    );
}

#[test]
fn broken_toml_is_reported_once_with_its_place() {
    refused("[sip]\nudp = \"0.0.0.0:5060\ntcp = []", 2, 20, "", "not valid TOML");
    refused("data_dir = /var/lib", 1, 12, "", "not valid TOML");
    refused("[sip]\nudp = []\nudp = []", 3, 1, "", "duplicate key");
}

#[test]
fn a_variable_is_checked_like_a_file() {
    refused_variable("CALLVAULT__SIP__UPD", "0.0.0.0:5060", "did you mean `sip.udp`?");
    refused_variable("CALLVAULT__LIMITS__SESSIONS_MAX", "many", "a whole number");
    refused_variable("CALLVAULT_SIP_UDP", "0.0.0.0:5060", "write CALLVAULT__SIP__UDP");
    refused_variable("CALLVAULT_DATA_DIR", "/x", "write CALLVAULT__DATA_DIR");
}

#[test]
fn every_error_of_every_layer_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.toml");
    let drop_ins = folder.path().join("conf.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&path, "datadir = 1\n[sip]\nudp = 1\n[limits]\nsessions_max = 0\n").unwrap();
    std::fs::write(drop_ins.join("20-b.toml"), "[sip]\nbogus_name = 1\n").unwrap();
    std::fs::write(drop_ins.join("10-a.toml"), "broken\n").unwrap();
    std::fs::write(drop_ins.join("30-c.toml"), [b'x', 0xff, b'\n']).unwrap();
    // Not read: not *.toml, or hidden.
    std::fs::write(drop_ins.join("40-d.toml.bak"), "broken").unwrap();
    std::fs::write(drop_ins.join(".50-e.toml"), "broken").unwrap();
    let errors = Config::load(&path, [("CALLVAULT__NOPE".to_owned(), String::new())]).unwrap_err();
    let places: Vec<(String, usize, &str)> = errors
        .iter()
        .map(|e| (PathBuf::from(&e.file).file_name().unwrap().to_string_lossy().into_owned(), e.line, e.key.as_str()))
        .collect();
    let expected = [
        ("main.toml", 1, "datadir"),
        ("main.toml", 3, "sip.udp"),
        ("main.toml", 5, "limits.sessions_max"),
        ("10-a.toml", 1, ""),
        ("20-b.toml", 2, "sip.bogus_name"),
        ("30-c.toml", 1, ""),
        ("environment", 0, "CALLVAULT__NOPE"),
    ];
    let expected: Vec<(String, usize, &str)> = expected.iter().map(|(f, l, k)| ((*f).to_owned(), *l, *k)).collect();
    assert_eq!(places, expected, "{}", render_errors(&errors));
}

#[test]
fn a_file_that_is_not_there_or_not_a_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let checked = check(&missing, []);
    assert!(!checked.ok);
    assert!(checked.text.contains("there is no such file; name another with --config"), "{}", checked.text);
    let huge = folder.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(check(&huge, []).text.contains("is longer than 1048576 bytes"));
    assert!(!check(folder.path(), []).ok, "a folder is not a file");
}

#[test]
fn a_private_key_among_the_escrow_keys_is_not_repeated() {
    let key = "callvault-private-1:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=";
    let (_folder, loaded) = load(&format!("[keys]\nescrow = [\"{key}\"]"), &[]);
    let text = render_errors(&loaded.unwrap_err());
    assert!(text.contains("this is a private key"), "{text}");
    assert!(!text.contains("QUJD"), "{text}");
}

#[test]
fn deliveries_say_what_they_lack() {
    refused("[webhook]\nenabled = true", 2, 0, "webhook.enabled", "webhook.url is empty, but webhook.enabled is true");
    refused("[webhook]\nurl = \"http://a.example/x\"", 2, 0, "webhook.url", "is not https");
    refused("[webhook]\nurl = \"https://s3cret@a.example/x\"", 2, 0, "webhook.url", "is not a URL");
    refused("[webhook]\nurl = \"a.example\"", 2, 0, "webhook.url", "is not a URL");
    refused("[webhook]\nproxy = \"a.example:3128\"", 2, 0, "webhook.proxy", "is not a proxy");
    refused("[webhook]\nproxy = \"http://a:s3cret@b:1\"", 2, 0, "webhook.proxy", "belong into the file");
    refused("[webhook]\nproxy_credentials = \"x\"", 2, 0, "webhook.proxy_credentials", "webhook.proxy is empty");
    refused("[analytics]\nfallback_user = \"ann\"", 2, 0, "analytics.fallback_user", "no e-mail address");
    refused("[analytics]\nspeakers = 1", 2, 0, "analytics.speakers", "2 to 10");
    refused("[analytics]\nspeakers = 11", 2, 12, "analytics.speakers", "outside 0 to 10");
    refused("[analytics]\nlanguage = \"en us\"", 2, 0, "analytics.language", "is no language");
    refused("[export_folder]\nenabled = true", 2, 0, "export_folder.enabled", "there is no folder");
    refused("[export_folder]\npath = \"/var/lib/callvault/x\"", 2, 0, "export_folder.path", "name another folder");
    refused("[export_folder]\npath = \"/var/lib\"", 2, 0, "export_folder.path", "name another folder");
    let (_folder, loaded) = load("[analytics]\nenabled = true", &[]);
    let told: Vec<String> = loaded.unwrap_err().into_iter().map(|error| error.message).collect();
    assert!(
        told.len() == 2 && told[0].contains("analytics.token_url is empty") && told[1].contains("analytics.client_id")
    );
    let good = "[webhook]\nenabled = true\nurl = \"http://127.0.0.1:1/x\"\nproxy = \"http://proxy.example:3128\"\n\
                [analytics]\nurl = \"http://[::1]:1\"\nlanguage = \"en-US\"\n[export_folder]\nenabled = true\npath = \"/srv/out\"";
    let (_folder, loaded) = load(good, &[]);
    assert!(loaded.is_ok(), "{}", render_errors(&loaded.unwrap_err()));
}

#[test]
fn mail_needs_what_it_is_sent_with() {
    let from = "from = \"callvault@example.org\"\n";
    let with = |text: &str| format!("[mail]\nserver = \"smtp.example.org\"\n{from}{text}\n");
    assert!(load(&with(""), &[]).1.is_ok());
    assert!(load("[mail]\nfrom = \"nobody\"\nuser = \"x\"\n", &[]).1.is_ok(), "nothing is sent");
    refused("[mail]\nserver = \"smtp.example.org\"", 2, 0, "mail.server", "mail.from must be the address");
    for from in ["nobody", "a b@example.org", "a@b@c", "<a@example.org>", "@example.org"] {
        let text = format!("[mail]\nserver = \"smtp.example.org\"\nfrom = \"{from}\"");
        refused(&text, 3, 0, "mail.from", "mail.from must be the address");
    }
    refused(&with("password_file = \"x\""), 4, 0, "mail.password_file", "mail.user is empty");
    refused(&with("attachment_max = \"1KiB\""), 4, 18, "mail.attachment_max", "a size from \"1MiB\", or \"off\"");
    refused(&with("tls = \"yes\""), 4, 7, "mail.tls", "\"starttls\", \"tls\" or \"none\"");
    refused(&with("port = 65536"), 4, 8, "mail.port", "outside 0 to 65535");
    refused("[organisation]\ntime_zone = \"Mars/Olympus\"", 2, 13, "organisation.time_zone", "no time zone");
    for server in ["smtp.example.org:25", "smtp.example.org/x", "a b"] {
        refused(&format!("[mail]\nserver = \"{server}\"\n{from}"), 2, 0, "mail.server", "the port is mail.port");
    }
}
