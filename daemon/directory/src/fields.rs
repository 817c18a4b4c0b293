//! The fields of a user by name: how files, the command line and the interface call them, and which values each takes.

use crate::user::{Level, RecordingMode, User, groups_in};

/// Characters of a text at most: longer than any name, address or URI that people have.
const TEXT_CHARS_MAX: usize = 200;

/// Characters of a list of groups.
const LIST_CHARS_MAX: usize = 2_000;

/// Digits of a PIN.
const PIN_DIGITS: std::ops::RangeInclusive<usize> = 4..=12;

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name: the head of a column, the key in a file, the word on the command line.
    pub name: &'static str,
    /// What it takes, for people.
    pub takes: &'static str,
    /// Whether its value is never shown.
    pub is_secret: bool,
    get: fn(&User) -> String,
    set: fn(&mut User, &str) -> bool,
}

impl Field {
    /// The field of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name.eq_ignore_ascii_case(name.trim()))
    }

    /// Its value as text; lists are joined by semicolons. The same text put in again changes nothing.
    pub fn get(&self, user: &User) -> String {
        (self.get)(user)
    }

    /// Puts a value in. An empty one empties the field, or makes it what it is by default.
    ///
    /// # Errors
    /// A sentence that says what the field takes. The value is not repeated: it may be a secret.
    pub fn set(&self, user: &mut User, value: &str) -> Result<(), String> {
        let value = value.trim();
        if value.chars().any(char::is_control) || value.chars().count() > LIST_CHARS_MAX || !(self.set)(user, value) {
            return Err(format!("{} must be {}", self.name, self.takes));
        }
        Ok(())
    }
}

/// A field of text.
macro_rules! text {
    ($name:literal, $field:ident) => {
        Field {
            name: $name,
            takes: "a text of at most 200 characters",
            is_secret: false,
            get: |user| user.$field.clone(),
            set: |user, value| {
                user.$field = value.to_owned();
                value.chars().count() <= TEXT_CHARS_MAX
            },
        }
    };
}

/// A field of yes or no.
macro_rules! flag {
    ($name:literal, $field:ident) => {
        Field {
            name: $name,
            takes: "yes or no",
            is_secret: false,
            get: |user| if user.$field { "yes" } else { "no" }.to_owned(),
            set: |user, value| match yes_or_no(value) {
                Some(is_so) => {
                    user.$field = is_so;
                    true
                }
                None => false,
            },
        }
    };
}

/// A field of a whole number.
macro_rules! number {
    ($name:literal, $field:ident) => {
        Field {
            name: $name,
            takes: "a whole number",
            is_secret: false,
            get: |user| user.$field.map(|number| number.to_string()).unwrap_or_default(),
            set: |user, value| {
                user.$field = value.parse().ok();
                value.is_empty() || user.$field.is_some()
            },
        }
    };
}

/// All of them, in the order in which they are shown.
pub const FIELDS: &[Field] = &[
    Field {
        name: "webex_email",
        takes: "an e-mail address",
        is_secret: false,
        get: |user| user.webex_email.clone(),
        set: |user, value| {
            user.webex_email = value.to_lowercase();
            is_email(value)
        },
    },
    text!("first_name", first_name),
    text!("last_name", last_name),
    text!("user_name", user_name),
    text!("domain", domain),
    Field {
        name: "preferred_language",
        takes: "a language, for example en or pt-BR",
        is_secret: false,
        get: |user| user.preferred_language.clone(),
        set: |user, value| {
            user.preferred_language = value.to_owned();
            value.is_empty() || is_language(value)
        },
    },
    Field {
        name: "pin",
        takes: "4 to 12 digits",
        is_secret: true,
        get: |user| user.pin.clone(),
        set: |user, value| {
            user.pin = value.to_owned();
            value.is_empty() || PIN_DIGITS.contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit())
        },
    },
    Field {
        name: "initial_password",
        takes: "a text of at most 200 characters",
        is_secret: true,
        get: |user| user.initial_password.clone(),
        set: |user, value| {
            user.initial_password = value.to_owned();
            value.chars().count() <= TEXT_CHARS_MAX
        },
    },
    text!("first_extension", first_extension),
    text!("extension_alias", extension_alias),
    text!("device_name", device_name),
    text!("preferred_device_name", preferred_device_name),
    Field {
        name: "email",
        takes: "an e-mail address, or empty for the Webex e-mail",
        is_secret: false,
        get: |user| user.email.clone(),
        set: |user, value| {
            user.email = value.to_owned();
            value.is_empty() || is_email(value)
        },
    },
    text!("department", department),
    text!("cost_centre", cost_centre),
    text!("office_location", office_location),
    text!("presence_uri", presence_uri),
    text!("microsoft_uri", microsoft_uri),
    text!("webex_uri", webex_uri),
    text!("group", group),
    Field {
        name: "supervised_groups",
        takes: "names of groups, with semicolons between them",
        is_secret: false,
        get: |user| user.supervised_groups.join(";"),
        set: |user, value| {
            user.supervised_groups = groups_in(value);
            user.supervised_groups.iter().all(|group| group.chars().count() <= TEXT_CHARS_MAX)
        },
    },
    flag!("notify", notify),
    flag!("attach", attach),
    Field {
        name: "level",
        takes: "one of record-only, base, group-supervisor, administrator",
        is_secret: false,
        get: |user| user.level.as_str().to_owned(),
        set: |user, value| match value.to_ascii_lowercase().parse() {
            _ if value.is_empty() => {
                user.level = Level::default();
                true
            }
            Ok(level) => {
                user.level = level;
                true
            }
            Err(()) => false,
        },
    },
    Field {
        name: "recording_mode",
        takes: "one of always, always-with-pause, on-demand, on-demand-user-start, never, or empty for recording.mode",
        is_secret: false,
        get: |user| user.recording_mode.map(RecordingMode::as_str).unwrap_or_default().to_owned(),
        set: |user, value| {
            user.recording_mode = value.to_ascii_lowercase().parse().ok();
            value.is_empty() || user.recording_mode.is_some()
        },
    },
    number!("numeric_user_id", numeric_user_id),
    number!("partition_id", partition_id),
    flag!("catch_all", catch_all),
];

fn yes_or_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" => Some(true),
        "no" | "false" | "0" | "" => Some(false),
        _ => None,
    }
}

/// Whether a text can be an address of mail: one `@`, something on both sides, no blanks. More is for the mail server to say.
pub(crate) fn is_email(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "<>\",;()".contains(c));
    let bytes = text.len();
    bytes <= 254
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| is_part(local) && is_part(domain) && !domain.contains('@'))
}

/// Whether a text has the form of a language tag (RFC 5646 section 2.1).
fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let first = parts.next().unwrap_or_default();
    (2..=8).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_alphabetic()) && parts.all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str, expected: Option<&str>) {
        let mut user = User::default();
        let field = Field::named(name).unwrap();
        let result = field.set(&mut user, value);
        assert_eq!(result.is_ok(), expected.is_some(), "{name} {value:?}: {result:?}");
        if let Some(expected) = expected {
            assert_eq!(field.get(&user), expected, "{name} {value:?}");
        }
    }

    #[test]
    fn values_are_checked_and_read_again() {
        check("webex_email", " Ann@Example.com ", Some("ann@example.com"));
        check("WEBEX_EMAIL", "a@b", Some("a@b"));
        check("webex_email", "", None);
        check("webex_email", "ann", None);
        check("webex_email", "ann@", None);
        check("webex_email", "a@b@c", None);
        check("webex_email", "a b@c", None);
        check("email", "", Some(""));
        check("email", "nobody", None);
        check("preferred_language", "pt-BR", Some("pt-BR"));
        check("preferred_language", "e", None);
        check("preferred_language", "english please", None);
        check("pin", "1234", Some("1234"));
        check("pin", "123", None);
        check("pin", "12a4", None);
        check("pin", "", Some(""));
        check("notify", "Yes", Some("yes"));
        check("notify", "", Some("no"));
        check("notify", "perhaps", None);
        check("level", "Group-Supervisor", Some("group-supervisor"));
        check("level", "", Some("base"));
        check("level", "boss", None);
        check("recording_mode", "never", Some("never"));
        check("recording_mode", "", Some(""));
        check("recording_mode", "sometimes", None);
        check("supervised_groups", " Sales; Legal ;;", Some("Sales;Legal"));
        check("numeric_user_id", "17", Some("17"));
        check("numeric_user_id", "-1", None);
        check("first_name", &"x".repeat(200), Some(&"x".repeat(200)));
        check("first_name", &"x".repeat(201), None);
        check("first_name", "a\nb", None);
    }

    #[test]
    fn what_is_shown_can_be_put_in_again() {
        let mut user = User::default();
        Field::named("webex_email").unwrap().set(&mut user, "a@b").unwrap();
        for field in FIELDS {
            let mut again = user.clone();
            field.set(&mut again, &field.get(&user)).unwrap();
            assert!(again == user, "{}", field.name);
        }
    }

    #[test]
    fn errors_do_not_repeat_the_value() {
        let error = Field::named("pin").unwrap().set(&mut User::default(), "secret").unwrap_err();
        assert_eq!(error, "pin must be 4 to 12 digits");
    }
}
