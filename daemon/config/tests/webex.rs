//! What is set for Webex: every cell of the table of rules, and what must go together.
#![allow(clippy::unwrap_used)]

use callvault_config::{Config, ConfigError};

fn load(toml: &str) -> Result<Config, Vec<ConfigError>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callvault.toml");
    std::fs::write(&path, toml).unwrap();
    Config::load(&path, [])
}

#[test]
fn every_cell_of_the_table_of_rules() {
    const FORMS: [&str; 16] = [
        "keep",
        "when adding x1",
        "every time e-mail",
        "every time e-mail user",
        "every time e-mail domain",
        "every time first name",
        "every time last name",
        "every time extension or phone number",
        "every time phone number or extension",
        "every time work phone",
        "every time native user id",
        "every time organisation name",
        "every time location name",
        "every time avatar",
        "every time",
        "",
    ];
    #[track_caller]
    fn check(field: &str, allowed: &[&str]) {
        for form in FORMS {
            let loaded = load(&format!("[webex_rules]\n{field} = \"{form}\"\n"));
            assert_eq!(loaded.is_ok(), allowed.contains(&form), "{field} = {form:?}: {loaded:?}");
            for error in loaded.err().into_iter().flatten() {
                assert_eq!((error.key.as_str(), error.line), (format!("webex_rules.{field}").as_str(), 2), "{error}");
                assert!(error.message.contains("must be \""), "{error}");
            }
        }
    }
    check("user_name", &["every time e-mail user"]);
    check("domain", &["every time e-mail domain"]);
    check("first_name", &["every time first name"]);
    check("last_name", &["every time last name"]);
    check("pin", &["keep"]);
    check("initial_password", &["keep", "when adding x1"]);
    check("preferred_language", &["keep"]);
    let numbers = ["keep", "every time extension or phone number", "every time phone number or extension"];
    check("first_extension", &numbers);
    check("extension_alias", &[numbers.as_slice(), &["every time work phone", "every time e-mail"]].concat());
    check("device_name", &["keep", "every time native user id"]);
    check("preferred_device_name", &["keep", "every time native user id"]);
    check("email", &["keep", "every time e-mail"]);
    for field in ["department", "cost_centre", "office_location"] {
        check(field, &["keep", "every time organisation name", "every time location name"]);
    }
    for field in ["presence_uri", "microsoft_uri", "webex_uri"] {
        check(field, &["keep", "every time e-mail"]);
    }
    check("picture", &["keep", "every time avatar"]);
    for fitting in ["pin = \"when adding 1234\"", "preferred_language = \"when adding en\""] {
        assert!(load(&format!("[webex_rules]\n{fitting}\n")).is_ok(), "{fitting}");
    }
}

#[test]
fn what_is_refused_says_what_to_write() {
    #[track_caller]
    fn check(toml: &str, key: &str, message: &str) {
        let errors = load(&format!("[webex]\n{toml}\n")).expect_err(toml);
        assert_eq!(errors.len(), 1, "{toml}: {errors:?}");
        assert_eq!(errors[0].key, key, "{toml}: {}", errors[0]);
        assert!(errors[0].message.contains(message), "{toml}: {}", errors[0]);
    }
    check("enabled = true", "webex.enabled", "webex.client_id is empty");
    check("url = \"http://webexapis.com/v1\"", "webex.url", "is not https");
    check("records_url = \"webex\"", "webex.records_url", "is not a URL");
    check("redirect_url = \"http://callvault.example.com/\"", "webex.redirect_url", "is not https");
    check("proxy = \"proxy:3128\"", "webex.proxy", "http://host:port");
    check("proxy_credentials = \"p\"", "webex.proxy_credentials", "name the proxy");
    for time in ["24:00", "3:30", "03:60", "0330", "03:30:00", "+3:30"] {
        check(&format!("sync_at = \"{time}\""), "webex.sync_at", "no time of the day");
    }
    assert!(load("[webex]\nenabled = true\nclient_id = \"C1\"\n").is_ok());
    assert!(load("[webex]\nsync_at = \"\"\n").unwrap().webex.sync_time().is_none());
}

#[test]
fn values_that_may_be_secrets_are_not_shown() {
    let config =
        load("[webex_rules]\npin = \"when adding 1234\"\ninitial_password = \"when adding hunter2\"\n").unwrap();
    let shown: Vec<&str> = config.effective().iter().map(callvault_config::Effective::shown).collect();
    assert!(!shown.join("\n").contains("1234\"") && !shown.join("\n").contains("hunter2"));
    let errors = load("[webex_rules]\npin = \"when adding hunter2\"\n").unwrap_err();
    assert!(!format!("{errors:?}").contains("hunter2"));
}
