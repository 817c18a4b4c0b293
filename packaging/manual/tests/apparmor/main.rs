//! The AppArmor profiles: that they compile, that they allow what units, folders and the settings' defaults need and little else, and not
//! what they are there to prevent. `tests/torture/apparmor` tries them on a kernel.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod profile;

use std::fs;
use std::path::Path;
use std::process::Command;

use callvault_config::Config;
use profile::{Profile, expanded, file, matches, top};

/// Files of profiles.
const FILES: [&str; 2] = ["callvaultd", "callvault-portal"];
const PROFILES: [&str; 4] = ["callvaultd", "callvault-recorder", "callvault-render", "callvault-portal"];
/// What callvaultd starts; they have its rules as well as theirs.
const CHILDREN: [&str; 2] = ["callvault-recorder", "callvault-render"];

fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn defaults() -> Config {
    Config::defaults(Path::new("/etc/callvault"))
}

/// The values of these lines of a unit, split where it splits them.
fn values(unit: &str, key: &str) -> Vec<String> {
    let unit = text(&format!("packaging/systemd/{unit}.service"));
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let words = lines.flat_map(str::split_whitespace).map(|word| word.trim_start_matches('-').to_owned());
    let words: Vec<String> = words.collect();
    assert!(!words.is_empty(), "{key}");
    words
}

#[test]
fn patterns_are_those_of_the_manual() {
    let check = |pattern: &str, path: &str, does: bool| {
        assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), does, "{pattern} {path}");
    };
    check("/a/*", "/a/b", true);
    check("/a/*", "/a/b/c", false);
    check("/a/**", "/a/b/c", true);
    check("/a/{,**}", "/a/", true);
    check("/a/{,**}", "/a", false);
    check("/{a,b{c,d}}/x", "/bd/x", true);
    check("/{a,b{c,d}}/x", "/b/x", false);
    check("/[1-4]", "/3", true);
    check("/[1-4]", "/5", false);
    check("/[^1-4]", "/5", true);
    check("/a?", "/a/", false);
}

#[test]
fn every_profile_compiles() {
    let found = fs::read_dir(top().join("packaging/apparmor")).unwrap();
    let mut names: Vec<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut wanted = FILES.map(str::to_owned);
    wanted.sort();
    assert_eq!(names, wanted);
    for name in PROFILES {
        let output = Command::new("apparmor_parser").args(["-Q", "-K", "-S"]).arg(file(name)).output();
        let output = output.expect("apparmor_parser is there: packaging/prerequisites test");
        assert!(output.status.success() && !output.stdout.is_empty(), "{name}: {output:?}");
        let text = fs::read_to_string(file(name)).unwrap();
        assert!(text.contains(&format!("\nprofile {name} flags=(")), "{name} has no other name");
        assert!(text.contains(&format!("include if exists <local/{name}>")), "{name} can be added to");
        // These would be refused where the profile only complains, and where nobody sees it.
        assert!(!text.lines().any(|line| line.trim().starts_with("deny ")), "{name}");
    }
}

#[test]
fn packages_install_load_and_forget_every_profile() {
    let (cargo, assets) = (text("Cargo.toml"), text("packaging/assets"));
    assert!(assets.lines().any(|line| line.starts_with("config   packaging/apparmor/* ")));
    for name in FILES {
        assert!(cargo.contains(&format!("\"/etc/apparmor.d/{name}\",")), "{name} is a configuration file of the deb");
    }
    let all = format!("for profile in {}; do", FILES.join(" "));
    for script in ["deb/scripts/postinst", "deb/scripts/prerm", "deb/scripts/postrm", "rpm/post.sh", "rpm/preun.sh"] {
        assert!(text(&format!("packaging/{script}")).contains(&all), "{script}");
    }
    for unit in ["callvaultd", "callvault-portal"] {
        assert_eq!(values(unit, "AppArmorProfile"), [unit]);
    }
}

/// What each needs: by its unit, by what is made at boot, by the settings' defaults.
#[test]
fn what_units_and_settings_name_is_allowed() {
    let config = defaults();
    let check = |name: &str, path: &str, rights: &str| {
        assert_eq!(Profile::whole(name).lacks(path, rights), "", "{name} {path}");
    };
    let daemon = Profile::whole("callvaultd");
    for (name, unit) in [("callvaultd", "callvaultd"), ("callvault-portal", "callvault-portal")] {
        check(name, &values(unit, "ExecStart")[0], "mr");
    }
    let mut written = values("callvaultd", "ReadWritePaths");
    written.extend(values("callvaultd", "StateDirectory").iter().map(|name| format!("/var/lib/{name}")));
    written.extend(values("callvaultd", "RuntimeDirectory").iter().map(|name| format!("/run/{name}")));
    written.extend([config.data_dir.clone(), config.runtime_dir.clone(), config.store_path()].map(shown));
    written.extend([config.keys_path(), config.journal_path(), config.queue_path()].map(shown));
    for folder in &written {
        for (path, rights) in [(format!("{folder}/"), "r"), (format!("{folder}/x/y"), "rw")] {
            assert_eq!(daemon.lacks(&path, rights), "", "{path}");
        }
    }
    for path in [config.catalogue_path(), config.control_token_path(), config.appliance_key_path()].map(shown) {
        assert_eq!(daemon.lacks(&path, "rwk"), "", "{path}");
    }
    let folders = text("packaging/tmpfiles.d/callvault.conf");
    for line in folders.lines().filter(|line| line.starts_with("d ")) {
        let folder = line.split_whitespace().nth(1).unwrap();
        assert_eq!(daemon.lacks(&format!("{folder}/x"), "r"), "", "{folder}");
    }
    let (journal, ffmpeg) = (shown(config.journal_path()), shown(config.render.ffmpeg.clone()));
    check("callvault-recorder", &format!("{journal}/x"), "rwk");
    check("callvault-recorder", &format!("{}/calls/x", shown(config.runtime_dir.clone())), "rwk");
    for name in ["callvaultd", "callvault-render"] {
        check(name, &ffmpeg, "mrix");
    }
    check("callvault-portal", "/run/callvault-portal/daemon", "rw");
    for words in [values("callvault-portal", "ExecStart")] {
        for path in words.iter().filter(|word| word.starts_with("/etc")) {
            check("callvault-portal", path, "r");
        }
    }
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// Nothing is written but where units, folders and defaults say, and nothing is started but what there is.
#[test]
fn what_profiles_name_is_used() {
    let config = defaults();
    let mut folders: Vec<String> = values("callvaultd", "ReadWritePaths");
    folders.extend([config.data_dir.clone(), config.runtime_dir.clone()].map(shown));
    let plain = ["/run/systemd/notify", "/dev/null"];
    for name in PROFILES {
        for rule in Profile::own(name).files {
            for path in expanded(&rule.pattern) {
                let is_known = folders.iter().any(|folder| path.starts_with(&format!("{folder}/")));
                let is_written = rule.rights.contains(['w', 'k', 'l']);
                assert!(!is_written || is_known || plain.contains(&path.as_str()), "{name} writes to {path}");
                let started = ["/usr/libexec/callvault/callvault-recorder", "/usr/libexec/callvault/callvault-render"];
                let is_program = started.contains(&path.as_str())
                    || path == shown(&config.render.ffmpeg)
                    || path.ends_with("bin/timedatectl");
                assert!(!rule.rights.contains('x') || is_program, "{name} starts {path}");
            }
        }
    }
}

/// Whoever callvaultd starts can do only what both may.
#[test]
fn callvaultd_may_do_what_its_children_need() {
    let daemon = Profile::whole("callvaultd");
    for name in CHILDREN {
        let transition = format!("/usr/libexec/callvault/{name} mrPix -> &{name},");
        assert!(fs::read_to_string(file("callvaultd")).unwrap().contains(&transition), "{name} is stacked");
        for rule in Profile::own(name).files {
            for path in expanded(&rule.pattern) {
                let path = path.replace("**", "x").replace('*', "x");
                assert_eq!(daemon.lacks(&path, &rule.rights), "", "{name}: {path}");
            }
        }
        for rule in Profile::own(name).others.iter().filter(|rule| rule.starts_with("network") || *rule == "unix") {
            assert!(daemon.others.contains(rule), "{name}: {rule}");
        }
    }
}

#[test]
fn what_is_to_be_prevented_is_not_allowed() {
    let config = defaults();
    let keys = [config.appliance_key_path(), config.control_token_path(), config.catalogue_path()].map(shown);
    let more = [config.queue_path(), config.store_path()].map(|folder| format!("{}/x", shown(folder)));
    let files = [
        "/etc/callvault/callvault.toml",
        "/etc/shadow",
        "/run/credentials/callvaultd.service/appliance.key",
        "/bin/sh",
    ];
    for name in ["callvault-recorder", "callvault-render", "callvault-portal"] {
        let profile = Profile::whole(name);
        for path in keys.iter().chain(&more).map(String::as_str).chain(files) {
            assert_eq!(profile.lacks(path, "rwx"), "rwx", "{name}: {path}");
        }
        let mut grants = profile.others.iter().filter(|rule| rule.starts_with("capability"));
        assert_eq!(grants.next().is_some(), name == "callvault-portal", "{name}");
    }
    for name in ["callvault-recorder", "callvault-portal"] {
        let profile = Profile::whole(name);
        let mut started = profile.files.iter().filter(|rule| rule.rights.contains('x'));
        // abstractions/base lets what is encrypted by eCryptfs in a home folder be anything; the units show no home folders.
        assert!(started.all(|rule| rule.pattern.contains(".Private")), "{name}");
    }
    let render = Profile::whole("callvault-render");
    let is_network =
        |rule: &&String| rule.starts_with("network") || rule.starts_with("unix") || rule.starts_with("dbus");
    assert_eq!(render.others.iter().find(is_network), None);
    assert!(render.files.iter().all(|rule| !rule.rights.contains('w') || rule.pattern == "/dev/null"));
    let daemon = Profile::whole("callvaultd");
    let capabilities: Vec<&String> = daemon.others.iter().filter(|rule| rule.starts_with("capability")).collect();
    assert!(capabilities.iter().all(|rule| *rule == "capability net_bind_service"), "{capabilities:?}");
    for path in [
        "/etc/callvault/callvault.toml",
        "/usr/libexec/callvault/callvaultd",
        "/etc/apparmor.d/callvaultd",
        "/home/a/b",
    ] {
        assert_eq!(daemon.lacks(path, "w"), "w", "{path}");
    }
    for path in ["/etc/shadow", "/root/.ssh/id_ed25519", "/home/a/b"] {
        assert_eq!(daemon.lacks(path, "r"), "r", "{path}");
    }
}
