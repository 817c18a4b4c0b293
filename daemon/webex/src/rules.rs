//! The table of rules: for each field of a user where a synchronisation takes it from, and when.

use std::collections::BTreeMap;

use callvault_directory::RecordingMode as Mode;

use crate::person::{Gathered, Kind, Person};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The e-mail address.
    Email,
    /// Its half before the `@`.
    EmailUser,
    /// Its half behind it.
    EmailDomain,
    /// The given name.
    FirstName,
    /// The family name.
    LastName,
    /// The extension.
    Extension,
    /// The work number, else the primary, else the first.
    Phone,
    /// The work number alone.
    WorkPhone,
    /// The external identifier of the recording settings.
    NativeUserId,
    /// The organisation's name.
    Organisation,
    /// The location's name.
    Location,
    /// The address of the picture.
    Avatar,
    /// The mode of recording.
    RecordingMode,
}

use Source::{
    Avatar, Email, EmailDomain, EmailUser, Extension, FirstName, LastName, Location, NativeUserId, Organisation, Phone,
    RecordingMode, WorkPhone,
};

impl Source {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Email,
        EmailUser,
        EmailDomain,
        FirstName,
        LastName,
        Extension,
        Phone,
        WorkPhone,
        NativeUserId,
        Organisation,
        Location,
        Avatar,
        RecordingMode,
    ];

    /// Its name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Email => "e-mail",
            EmailUser => "e-mail user",
            EmailDomain => "e-mail domain",
            FirstName => "first name",
            LastName => "last name",
            Extension => "extension",
            Phone => "phone number",
            WorkPhone => "work phone",
            NativeUserId => "native user id",
            Organisation => "organisation name",
            Location => "location name",
            Avatar => "avatar",
            RecordingMode => "recording mode",
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Extension | Phone | WorkPhone)
    }

    /// What a person has of it: empty where nothing is there, none where it is not known whether.
    fn of(self, person: &Person, gathered: &Gathered) -> Option<String> {
        let half = |first: bool| {
            person.address().split_once('@').map(|(user, domain)| if first { user } else { domain }.to_owned())
        };
        let told = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let work = || person.phone_numbers.iter().find(|phone| phone.r#type.eq_ignore_ascii_case("work"));
        let named = |id: &Option<String>, names: &BTreeMap<String, String>| match id {
            Some(id) => names.get(id).cloned(),
            None => Some(String::new()),
        };
        match self {
            // What stands for the e-mail of a place is none.
            Email if person.kind != Kind::Person => Some(String::new()),
            Email => Some(person.address()),
            EmailUser => half(true),
            EmailDomain => half(false),
            FirstName => Some(told(&person.first_name)),
            LastName => Some(told(&person.last_name)),
            Extension => Some(told(&person.extension)),
            WorkPhone => Some(work().map(|phone| phone.value.clone()).unwrap_or_default()),
            Phone => {
                let primary = || person.phone_numbers.iter().find(|phone| phone.primary);
                let phone = work().or_else(primary).or_else(|| person.phone_numbers.first());
                Some(phone.map(|phone| phone.value.clone()).unwrap_or_default())
            }
            NativeUserId => gathered.recording.get(&person.id).map(|settings| settings.native.clone()),
            RecordingMode => mode(&gathered.recording.get(&person.id)?.mode).map(|mode| mode.as_str().to_owned()),
            Organisation => named(&person.org_id, &gathered.organisations),
            Location => named(&person.location_id, &gathered.locations),
            Avatar => Some(told(&person.avatar)),
        }
    }
}

/// A mode by the name that Webex has for it; none where it is not one that is known.
fn mode(name: &str) -> Option<Mode> {
    match name.to_ascii_lowercase().as_str() {
        "always" => Some(Mode::Always),
        "always with pause/resume" => Some(Mode::AlwaysWithPause),
        "on demand" => Some(Mode::OnDemand),
        "on demand with user initiated start" => Some(Mode::OnDemandUserStart),
        "never" | "" => Some(Mode::Never),
        _ => None,
    }
}

/// The rule of a field. `Debug` does not show the value: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Rule {
    /// What is there stays.
    Keep,
    /// This value, once, for a user who is added.
    WhenAdding(String),
    /// Every time, from the first source that has something.
    EveryTime(Vec<Source>),
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::WhenAdding(_) => f.write_str("WhenAdding"),
            Self::EveryTime(sources) => f.debug_tuple("EveryTime").field(sources).finish(),
        }
    }
}

/// What a field may have as its rule; the first list is the default unless it is kept unasked.
struct Allowed {
    field: &'static str,
    when_adding: bool,
    keep: bool,
    keeps_unasked: bool,
    every_time: &'static [&'static [Source]],
}

const fn every(field: &'static str, keep: bool, every_time: &'static [&'static [Source]]) -> Allowed {
    Allowed { field, when_adding: false, keep, keeps_unasked: false, every_time }
}

const fn adding(field: &'static str) -> Allowed {
    Allowed { field, when_adding: true, keep: true, keeps_unasked: true, every_time: &[] }
}

const PLACES: &[&[Source]] = &[&[Organisation], &[Location]];

/// Requirement H2, row by row.
const TABLE: &[Allowed] = &[
    every("user_name", false, &[&[EmailUser]]),
    every("domain", false, &[&[EmailDomain]]),
    every("first_name", false, &[&[FirstName]]),
    every("last_name", false, &[&[LastName]]),
    adding("pin"),
    adding("initial_password"),
    adding("preferred_language"),
    every("first_extension", true, &[&[Extension, Phone], &[Phone, Extension]]),
    every("extension_alias", true, &[&[WorkPhone], &[Extension, Phone], &[Phone, Extension], &[Email]]),
    every("device_name", true, &[&[NativeUserId]]),
    every("preferred_device_name", true, &[&[NativeUserId]]),
    every("email", true, &[&[Email]]),
    every("department", true, PLACES),
    every("cost_centre", true, PLACES),
    every("office_location", true, &[&[Location], &[Organisation]]),
    every("presence_uri", true, &[&[Email]]),
    every("microsoft_uri", true, &[&[Email]]),
    every("webex_uri", true, &[&[Email]]),
    every("picture", true, &[&[Avatar]]),
    // Beyond H2: Webex decides by it which sessions it opens, so that here it matters for what other clients send alone.
    Allowed { keeps_unasked: true, ..every("recording_mode", true, &[&[RecordingMode]]) },
];

/// A rule for each field that a synchronisation knows.
#[derive(Debug, Clone)]
pub struct Rules(BTreeMap<&'static str, Rule>);

impl Default for Rules {
    fn default() -> Self {
        let rule = |allowed: &Allowed| match allowed.every_time.first() {
            Some(sources) if !allowed.keeps_unasked => Rule::EveryTime(sources.to_vec()),
            _ => Rule::Keep,
        };
        Self(TABLE.iter().map(|allowed| (allowed.field, rule(allowed))).collect())
    }
}

impl Rules {
    /// Reads the settings: a field's name and `keep`, `when adding VALUE`, or `every time SOURCE` or `every time SOURCE or SOURCE`. What
    /// is not said is as by default: every time, the PIN, the password and the language kept.
    ///
    /// # Errors
    /// A sentence for each that is wrong, with what is right; no value is repeated.
    pub fn read(settings: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let (mut rules, mut errors) = (Self::default(), Vec::new());
        for (field, text) in settings {
            let Some(allowed) = TABLE.iter().find(|allowed| allowed.field == field) else {
                let fields: Vec<&str> = TABLE.iter().map(|allowed| allowed.field).collect();
                errors.push(format!("a rule is for a field that has none; fields are {}", fields.join(", ")));
                continue;
            };
            match allowed.read(text) {
                Some(rule) => drop(rules.0.insert(allowed.field, rule)),
                None => errors.push(format!("the rule of {} must be {}", allowed.field, allowed.takes())),
            }
        }
        if errors.is_empty() { Ok(rules) } else { Err(errors) }
    }

    /// Fields with their rules.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Rule)> {
        self.0.iter().map(|(field, rule)| (*field, rule))
    }
}

impl Allowed {
    fn read(&self, text: &str) -> Option<Rule> {
        let text = text.trim();
        if text == "keep" {
            return self.keep.then_some(Rule::Keep);
        }
        if let Some(value) = text.strip_prefix("when adding ") {
            let field = callvault_directory::Field::named(self.field)?;
            let fits = field.set(&mut callvault_directory::User::default(), value).is_ok();
            return (self.when_adding && fits).then(|| Rule::WhenAdding(value.trim().to_owned()));
        }
        let sources = self.every_time.iter().find(|sources| text.strip_prefix("every time ") == Some(&names(sources)));
        sources.map(|sources| Rule::EveryTime(sources.to_vec()))
    }

    fn takes(&self) -> String {
        let mut takes: Vec<String> =
            self.every_time.iter().map(|sources| format!("\"every time {}\"", names(sources))).collect();
        if self.when_adding {
            takes.push("\"when adding VALUE\" with a value that the field takes".to_owned());
        }
        if self.keep {
            takes.push("\"keep\"".to_owned());
        }
        takes.join(", or ")
    }
}

fn names(sources: &[Source]) -> String {
    sources.iter().map(|source| source.as_str()).collect::<Vec<_>>().join(" or ")
}

/// What the sources give for a person: empty where nothing is there, none where it is not known. Numbers become E.164 with
/// `country_code`, and a short one is taken only where none is E.164.
pub(crate) fn value(sources: &[Source], person: &Person, gathered: &Gathered, country_code: &str) -> Option<String> {
    let mut short = None;
    for source in sources {
        let told = source.of(person, gathered)?;
        if told.is_empty() {
            continue;
        }
        if !source.is_number() {
            return Some(told);
        }
        let number = e164(&told, country_code);
        if number.starts_with('+') {
            return Some(number);
        }
        short = short.or(Some(number));
    }
    Some(short.unwrap_or_default())
}

/// Digits of a number that has a country before it, at least; what is shorter is an extension.
const NATIONAL_DIGITS_MIN: usize = 7;

fn e164(text: &str, country_code: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let text = text.trim().trim_start_matches("tel:");
    if text.starts_with('+') {
        return format!("+{digits}");
    }
    if country_code.is_empty() || digits.len() < NATIONAL_DIGITS_MIN {
        return digits;
    }
    // A zero before the area code is dialled within the country alone; Italy's belongs to the number.
    let national = if country_code == "39" { &digits } else { digits.strip_prefix('0').unwrap_or(&digits) };
    format!("+{country_code}{national}")
}
