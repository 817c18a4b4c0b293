//! What is asked, in which order, and what is looked at after each group of answers.

use std::collections::BTreeMap;

use crate::cli::Setup;

/// The word for nothing, where a setting may be empty.
pub(super) const NONE: &str = "none";

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word or a number.
    Text,
    /// Words that are separated by commas.
    List,
    /// A file or folder; a relative one is relative to where the command was started.
    Path,
    /// One of these.
    Choice(&'static [&'static str]),
    /// The file of a secret: on a terminal the secret itself is asked for, and setup makes the file.
    Secret,
}

/// One question.
#[derive(Debug)]
pub(super) struct Question {
    /// The setting that it answers.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// The question.
    pub(super) text: &'static str,
    /// What helps to answer it.
    pub(super) hint: &'static str,
    /// What was given on the command line.
    pub(super) given: fn(&Setup) -> Option<&String>,
    /// The setting that must not have this value for the question to be asked.
    pub(super) unless: Option<(&'static str, &'static str)>,
}

/// Questions whose answers are looked at together.
#[derive(Debug)]
pub(super) struct Topic {
    /// What it is about.
    pub(super) name: &'static str,
    pub(super) questions: &'static [Question],
    /// The parts that the doctor looks at.
    pub(super) parts: &'static [&'static str],
}

/// All of it.
pub(super) const TOPICS: [Topic; 6] = [
    Topic { name: "Where Webex reaches this machine", questions: ADDRESSES, parts: &["ports"] },
    Topic { name: "SIP over TLS", questions: ENCRYPTION, parts: &["ports", "certificates"] },
    Topic { name: "Where archives are kept", questions: STORE, parts: &["data", "spool", "store"] },
    Topic { name: "How long recordings stay", questions: RETENTION, parts: &[] },
    Topic { name: "Time zone", questions: ZONE, parts: &[] },
    Topic { name: "Mail to users", questions: MAIL, parts: &["mail"] },
];

const ADDRESSES: &[Question] = &[
    Question {
        key: "sip.udp",
        kind: Kind::List,
        text: "Addresses for SIP over UDP",
        hint: "ADDRESS:PORT, several separated by commas, or none; 0.0.0.0 is all addresses of this machine",
        given: |given| given.udp.as_ref(),
        unless: None,
    },
    Question {
        key: "sip.tcp",
        kind: Kind::List,
        text: "Addresses for SIP over TCP",
        hint: "better than UDP where the client can",
        given: |given| given.tcp.as_ref(),
        unless: None,
    },
    Question {
        key: "sip.allowed_peers",
        kind: Kind::List,
        text: "Networks that may call",
        hint: "Webex Calling comes from public networks: add those of your region, separated by commas",
        given: |given| given.allowed_peers.as_ref(),
        unless: None,
    },
    Question {
        key: "media.address",
        kind: Kind::Text,
        text: "Address that audio is sent to",
        hint: "auto: the one at which the call came",
        given: |given| given.media_address.as_ref(),
        unless: None,
    },
    Question {
        key: "media.ports",
        kind: Kind::Text,
        text: "UDP ports for audio",
        hint: "four for each call at once; open them in the firewall",
        given: |given| given.media_ports.as_ref(),
        unless: None,
    },
];

const NO_TLS: Option<(&str, &str)> = Some(("sip.tls", "[]"));

const ENCRYPTION: &[Question] = &[
    Question {
        key: "sip.tls",
        kind: Kind::List,
        text: "Addresses for SIP over TLS",
        hint: "normally 0.0.0.0:5061; none: SIP is not encrypted",
        given: |given| given.tls.as_ref(),
        unless: None,
    },
    Question {
        key: "sip.tls_certificate",
        kind: Kind::Path,
        text: "File of the certificate, with those above it",
        hint: "PEM, the recorder's own first",
        given: |given| given.certificate.as_ref(),
        unless: NO_TLS,
    },
    Question {
        key: "sip.tls_key",
        kind: Kind::Path,
        text: "File of its private key",
        hint: "PEM without a passphrase, readable by the user that callvaultd runs as; none: the credential sip-tls.key",
        given: |given| given.key.as_ref(),
        unless: NO_TLS,
    },
    Question {
        key: "sip.tls_name",
        kind: Kind::Text,
        text: "Name by which clients reach it",
        hint: "as Webex Control Hub is told it; the certificate must be for it; none: nobody looks",
        given: |given| given.name.as_ref(),
        unless: NO_TLS,
    },
];

const STORE: &[Question] = &[Question {
    key: "store.path",
    kind: Kind::Path,
    text: "Folder for archives",
    hint: "a local folder or a mounted share; none: the folder store in the data folder",
    given: |given| given.store.as_ref(),
    unless: None,
}];

const RETENTION: &[Question] = &[
    Question {
        key: "retention.rule",
        kind: Kind::Choice(&["keep-all", "12-months", "48-months", "4-hours", "custom"]),
        text: "How long recordings stay",
        hint: "after that they are deleted for ever",
        given: |given| given.retention.as_ref(),
        unless: None,
    },
    Question {
        key: "retention.period",
        kind: Kind::Text,
        text: "For how long",
        hint: "so many hours, days, months or years, such as 90 days",
        given: |given| given.retention_period.as_ref(),
        // Asked where the rule is custom, which `is_asked` looks at.
        unless: None,
    },
];

const ZONE: &[Question] = &[Question {
    key: "organisation.time_zone",
    kind: Kind::Text,
    text: "Time zone of the organisation",
    hint: "its name, such as Europe/Rome; system: this machine's",
    given: |given| given.time_zone.as_ref(),
    unless: None,
}];

const NO_MAIL: Option<(&str, &str)> = Some(("mail.server", "\"\""));

const MAIL: &[Question] = &[
    Question {
        key: "mail.server",
        kind: Kind::Text,
        text: "Mail server",
        hint: "its name; none: no mail is sent",
        given: |given| given.mail_server.as_ref(),
        unless: None,
    },
    Question {
        key: "mail.tls",
        kind: Kind::Choice(&["starttls", "tls", "none"]),
        text: "How the way to it is protected",
        hint: "none: everybody between can read the mails",
        given: |given| given.mail_tls.as_ref(),
        unless: NO_MAIL,
    },
    Question {
        key: "mail.port",
        kind: Kind::Text,
        text: "Its port",
        hint: "0: the usual one",
        given: |given| given.mail_port.as_ref(),
        unless: NO_MAIL,
    },
    Question {
        key: "mail.ca",
        kind: Kind::Path,
        text: "File of the authorities that signed its certificate",
        hint: "PEM; none: those that this machine trusts",
        given: |given| given.mail_ca.as_ref(),
        unless: NO_MAIL,
    },
    Question {
        key: "mail.from",
        kind: Kind::Text,
        text: "Address that mails come from",
        hint: "such as callvault@example.com",
        given: |given| given.mail_from.as_ref(),
        unless: NO_MAIL,
    },
    Question {
        key: "mail.user",
        kind: Kind::Text,
        text: "Name to sign in with",
        hint: "none: without signing in",
        given: |given| given.mail_user.as_ref(),
        unless: NO_MAIL,
    },
    Question {
        key: "mail.password_file",
        kind: Kind::Secret,
        text: "Password",
        hint: "it goes to a file of its own that only callvaultd may read; empty: the one that is there stays",
        given: |given| given.mail_password_file.as_ref(),
        unless: Some(("mail.user", "\"\"")),
    },
];

/// Settings as TOML text, by key.
pub(super) type Values = BTreeMap<String, String>;

impl Question {
    /// Whether it has a meaning with these answers.
    pub(super) fn is_asked(&self, values: &Values) -> bool {
        let value = |key: &str| values.get(key).map_or("", String::as_str);
        match self.key {
            "retention.period" => value("retention.rule") == "\"custom\"",
            "mail.password_file" if value("mail.server") == "\"\"" => false,
            _ => self.unless.is_none_or(|(key, without)| value(key) != without),
        }
    }

    /// What a person wrote, as TOML text. Whether it is any good is for the configuration to say.
    pub(super) fn read(&self, text: &str) -> String {
        let text = text.trim();
        let is_word = matches!(self.kind, Kind::Choice(_));
        match self.kind {
            Kind::List if text == NONE => "[]".to_owned(),
            Kind::List => {
                let items: Vec<String> =
                    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Path | Kind::Secret if text != NONE && !text.is_empty() => {
                let path = std::path::absolute(text).unwrap_or_else(|_| text.into());
                quoted(&path.display().to_string())
            }
            _ if text == NONE && !is_word => quoted(""),
            _ if self.key == "mail.port" && text.parse::<u64>().is_ok() => text.to_owned(),
            _ => quoted(text),
        }
    }

    /// A value as a person would write it.
    pub(super) fn shown(&self, value: &str) -> String {
        let plain = match value.parse::<toml_edit::Value>() {
            Ok(toml_edit::Value::String(text)) => text.into_value(),
            Ok(toml_edit::Value::Array(items)) => {
                let items: Vec<&str> = items.iter().filter_map(toml_edit::Value::as_str).collect();
                items.join(", ")
            }
            _ => value.to_owned(),
        };
        if plain.is_empty() { NONE.to_owned() } else { plain }
    }
}

/// A text in TOML notation.
pub(super) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(key: &str) -> &'static Question {
        TOPICS.iter().flat_map(|topic| topic.questions).find(|question| question.key == key).unwrap()
    }

    #[test]
    fn what_people_write_becomes_a_setting_and_is_shown_as_they_wrote_it() {
        let check = |key: &str, written: &str, value: &str, shown: &str| {
            let question = question(key);
            assert_eq!(question.read(written), value, "{key}");
            assert_eq!(question.shown(value), shown, "{key}");
        };
        check(
            "sip.udp",
            "10.0.0.5:5060,  [::1]:5060",
            "[\"10.0.0.5:5060\", \"[::1]:5060\"]",
            "10.0.0.5:5060, [::1]:5060",
        );
        check("sip.udp", "none", "[]", "none");
        check("sip.tls_certificate", "/etc/a \"b\".pem", "'/etc/a \"b\".pem'", "/etc/a \"b\".pem");
        check("mail.server", " none ", "\"\"", "none");
        check("mail.server", "mail.example", "\"mail.example\"", "mail.example");
        // The word of a choice is a value.
        check("mail.tls", "none", "\"none\"", "none");
        check("mail.port", "25", "25", "25");
        check("mail.port", "smtp", "\"smtp\"", "smtp");
    }

    #[test]
    fn every_question_is_of_a_setting_and_what_depends_is_asked_where_it_matters() {
        let defaults = callvault_config::Config::defaults(std::path::Path::new("/"));
        let mut values: Values =
            defaults.effective().iter().map(|entry| (entry.key.to_owned(), entry.value.clone())).collect();
        for topic in &TOPICS {
            assert!(topic.questions.iter().all(|question| values.contains_key(question.key)), "{topic:?}");
        }
        let mut check = |key: &str, value: &str, asks: &str, expected: bool| {
            values.insert(key.to_owned(), value.to_owned());
            assert_eq!(question(asks).is_asked(&values), expected, "{key} = {value}");
        };
        check("sip.tls", "[]", "sip.tls_key", false);
        check("sip.tls", "[\"0.0.0.0:5061\"]", "sip.tls_key", true);
        check("retention.rule", "\"keep-all\"", "retention.period", false);
        check("retention.rule", "\"custom\"", "retention.period", true);
        check("mail.user", "\"ann\"", "mail.password_file", false);
        check("mail.server", "\"mail.example\"", "mail.password_file", true);
        check("mail.user", "\"\"", "mail.password_file", false);
    }
}
