//! The templates: those built in, and those that administrators put in their place.
//!
//! A mail of one language is made of three: `recording.LANG.subject`, `recording.LANG.txt`, `recording.LANG.html`, where `LANG` is a
//! language in lower case (`de`, `pt-br`). The syntax is Jinja's (minijinja). In `.html` everything that is filled in is escaped. A
//! name that does not exist is an error, not an empty text. A template is tried, in every case that there is, before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::Serialize;
use uuid::Uuid;

use crate::language::{self, Language};
use crate::message::attachment_name;
use crate::notice::{Attachment, Call, Direction, Notice, Person};

/// Longest template. Those built in have 2 KiB; a picture in HTML may have some hundred.
pub const TEMPLATE_BYTES_MAX: usize = 512 * 1024;

/// Most templates that take the place of built-in ones or come beside them: three for each of a hundred languages.
pub const TEMPLATES_MAX: usize = 300;

/// Longest text that a template may make.
const RENDERED_BYTES_MAX: usize = 2 << 20;

/// Steps that a template may take: those built in take some hundred. It bounds loops.
const STEPS_MAX: u64 = 100_000;

/// What the names begin with.
const PREFIX: &str = "recording.";

/// The language that is always there.
const FALLBACK: &str = "en";

/// The three kinds, by the ends of their names.
const KINDS: [&str; 3] = ["subject", "txt", "html"];

macro_rules! built_in {
    ($($language:literal),*) => {
        [$(
            (concat!("recording.", $language, ".subject"), include_str!(concat!("../templates/recording.", $language, ".subject"))),
            (concat!("recording.", $language, ".txt"), include_str!(concat!("../templates/recording.", $language, ".txt"))),
            (concat!("recording.", $language, ".html"), include_str!(concat!("../templates/recording.", $language, ".html"))),
        )*]
    };
}

/// Those that are built in, by name.
const BUILT_IN: [(&str, &str); 15] = built_in!("en", "it", "de", "fr", "es");

/// What is wrong with a template of the administrators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TemplateFlaw {
    /// The file's name.
    pub file: String,
    /// The line, from 1; 0 where it is about the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for TemplateFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The three texts of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    pub(crate) language: String,
}

/// All templates.
pub struct Templates {
    environment: Environment<'static>,
    /// Languages that have all three.
    languages: BTreeSet<String>,
    /// The language of those whose own there is not.
    default: String,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates").field("languages", &self.languages).finish_non_exhaustive()
    }
}

impl Templates {
    /// The built-in ones, and in their place or beside them `overrides`, texts by the names of their files. `default` is the language
    /// for those whose own there is not. Flaws tell what of that could not be used: the built-in template stays then, and a
    /// language of which one of the three is missing is not there.
    pub fn new(overrides: &BTreeMap<String, String>, default: &str) -> (Self, Vec<TemplateFlaw>) {
        let mut flaws = Vec::new();
        let mut environment = environment();
        for (name, source) in BUILT_IN {
            environment.add_template(name, source).expect("a test proves the built-in templates");
        }
        for (name, source) in overrides.iter().take(TEMPLATES_MAX) {
            if let Err(flaw) = check(name, source) {
                flaws.push(flaw);
            } else if let Err(error) = environment.add_template_owned(name.clone(), source.clone()) {
                flaws.push(flaw_of(name, &error));
            }
        }
        if overrides.len() > TEMPLATES_MAX {
            let message = format!("there are {} templates, and at most {TEMPLATES_MAX} are used", overrides.len());
            flaws.push(TemplateFlaw { file: "the folder".into(), line: 0, message });
        }
        let languages = languages(&environment, &mut flaws);
        let default = match best(&languages, default) {
            Some(language) => language,
            None => {
                let message =
                    format!("there are no templates in {default:?}; mail.language is taken for \"{FALLBACK}\"");
                flaws.push(TemplateFlaw { file: "the folder".into(), line: 0, message });
                FALLBACK.to_owned()
            }
        };
        (Self { environment, languages, default }, flaws)
    }

    /// The built-in ones alone.
    pub fn built_in() -> Self {
        Self::new(&BTreeMap::new(), FALLBACK).0
    }

    /// The languages that there are.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.languages.iter().map(String::as_str)
    }

    /// The language of mails to somebody who prefers this one: it, or it without its region, or the default.
    fn language(&self, preferred: &str) -> String {
        best(&self.languages, preferred).unwrap_or_else(|| self.default.clone())
    }

    /// The texts of a mail.
    pub(crate) fn render(&self, notice: &Notice, sender_name: &str, zone: &TimeZone) -> Result<Texts, TemplateFlaw> {
        let language = self.language(&notice.to.language);
        let filling = Filling::new(notice, sender_name, zone, &language);
        let render = |kind: &str| render(&self.environment, &format!("{PREFIX}{language}.{kind}"), &filling);
        Ok(Texts {
            subject: render("subject")?,
            text: render("txt")?,
            html: render("html")?,
            language: language.clone(),
        })
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(STEPS_MAX));
    environment
}

fn render(environment: &Environment<'_>, name: &str, filling: &Filling) -> Result<String, TemplateFlaw> {
    let template = environment.get_template(name).map_err(|error| flaw_of(name, &error))?;
    let value = minijinja::Value::from(minijinja::value::Serde(filling));
    let text = template.render(value).map_err(|error| flaw_of(name, &error))?;
    if text.len() > RENDERED_BYTES_MAX {
        let message = format!("makes a text of more than {RENDERED_BYTES_MAX} bytes; that is no mail");
        return Err(TemplateFlaw { file: name.to_owned(), line: 0, message });
    }
    Ok(text)
}

/// Tries a template of the administrators in all cases that there are.
fn check(name: &str, source: &str) -> Result<(), TemplateFlaw> {
    let flaw = |message: String| TemplateFlaw { file: name.to_owned(), line: 0, message };
    let Some((language, kind)) = parts(name) else {
        return Err(flaw("is no template's name; they are recording.LANG.subject, recording.LANG.txt and recording.LANG.html, LANG such as \"en\" or \"pt-br\"".into()));
    };
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(flaw(format!("is longer than {TEMPLATE_BYTES_MAX} bytes; shorten it")));
    }
    let mut environment = environment();
    environment.add_template(name, source).map_err(|error| flaw_of(name, &error))?;
    for notice in cases() {
        let text = render(&environment, name, &Filling::new(&notice, "Call recording", &TimeZone::UTC, language))?;
        if kind == "subject" && text.trim().is_empty() {
            return Err(flaw("makes an empty subject in some cases; say something in each".into()));
        }
    }
    Ok(())
}

/// A notice for each thing that can differ.
fn cases() -> Vec<Notice> {
    let person = Person {
        name: "Ann Example".into(),
        first_name: "Ann".into(),
        last_name: "Example".into(),
        address: "ann@example.com".into(),
        language: String::new(),
    };
    let full = Notice::sample(Uuid::nil(), person, Timestamp::UNIX_EPOCH);
    let nobody =
        Notice { to: Person { name: "x@example.com".into(), ..Person::default() }, test: false, ..full.clone() };
    let bare_call = Call {
        direction: Direction::Unknown,
        local_number: String::new(),
        remote_number: String::new(),
        remote_name: String::new(),
        ..full.call.clone()
    };
    let outgoing = Call { direction: Direction::Outgoing, remote_name: String::new(), ..full.call.clone() };
    let attachments = [
        Attachment::Mp3(vec![0]),
        Attachment::TooLarge { limit_bytes: 1 << 20 },
        Attachment::RefusedByServer,
        Attachment::Unavailable,
    ];
    let mut cases =
        vec![full, Notice { call: bare_call, ..nobody.clone() }, Notice { call: outgoing, ..nobody.clone() }];
    cases.extend(attachments.map(|attachment| Notice { attachment, ..nobody.clone() }));
    cases
}

/// The language and the kind in a template's name.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (language, kind) = name.strip_prefix(PREFIX)?.rsplit_once('.')?;
    let is_language = (2..=16).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (is_language && KINDS.contains(&kind)).then_some((language, kind))
}

/// The languages of which all three are there. Of whose some are, that is said.
fn languages(environment: &Environment<'_>, flaws: &mut Vec<TemplateFlaw>) -> BTreeSet<String> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, _) in environment.templates() {
        if let Some((language, kind)) = parts(name) {
            kinds.entry(language.to_owned()).or_default().insert(kind.to_owned());
        }
    }
    let mut whole = BTreeSet::new();
    for (language, there) in kinds {
        match KINDS.iter().find(|kind| !there.contains(**kind)) {
            None => drop(whole.insert(language)),
            Some(missing) => flaws.push(TemplateFlaw {
                file: format!("{PREFIX}{language}.{missing}"),
                line: 0,
                message:
                    "is missing or cannot be used, so there is no mail in this language; a language needs all three"
                        .into(),
            }),
        }
    }
    whole
}

/// The language among these that fits best.
fn best(languages: &BTreeSet<String>, wanted: &str) -> Option<String> {
    let wanted = wanted.trim().to_ascii_lowercase().replace('_', "-");
    let primary = wanted.split('-').next().unwrap_or_default();
    [wanted.as_str(), primary].into_iter().find_map(|one| languages.get(one).cloned())
}

fn flaw_of(name: &str, error: &minijinja::Error) -> TemplateFlaw {
    let what = match error.kind() {
        ErrorKind::UndefinedError => {
            "there is no such name here; docs/operations.md lists those that there are".to_owned()
        }
        ErrorKind::OutOfFuel => "takes too many steps; is there a loop in it?".to_owned(),
        kind => kind.to_string(),
    };
    let message = match error.detail() {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    };
    TemplateFlaw { file: error.name().unwrap_or(name).to_owned(), line: error.line().unwrap_or(0), message }
}

/// What templates can name.
#[derive(Debug, Serialize)]
struct Filling {
    user: FillingUser,
    call: FillingCall,
    recording: FillingRecording,
    attachment: FillingAttachment,
    sender: String,
    language: String,
    test: bool,
}

#[derive(Debug, Serialize)]
struct FillingUser {
    name: String,
    first_name: String,
    last_name: String,
}

#[derive(Debug, Serialize)]
struct FillingCall {
    date: String,
    weekday: &'static str,
    time: String,
    zone: String,
    started_at: String,
    duration: String,
    duration_s: u64,
    direction: &'static str,
    with: String,
    remote_name: String,
    remote_number: String,
    local_number: String,
}

#[derive(Debug, Serialize)]
struct FillingRecording {
    id: String,
}

#[derive(Debug, Serialize)]
struct FillingAttachment {
    state: &'static str,
    name: String,
    size: String,
    limit: String,
}

impl Filling {
    fn new(notice: &Notice, sender_name: &str, zone: &TimeZone, code: &str) -> Self {
        let language = Language::of(code);
        let call = &notice.call;
        let at = call.started_at.to_zoned(zone.clone());
        let bytes = |bytes: u64| language::size(language, bytes);
        let (name, size, limit) = match &notice.attachment {
            Attachment::Mp3(mp3) => (attachment_name(notice, zone), bytes(mp3.len() as u64), String::new()),
            Attachment::TooLarge { limit_bytes } => (String::new(), String::new(), bytes(*limit_bytes)),
            _ => Default::default(),
        };
        let with = match (call.remote_name.is_empty(), call.remote_number.is_empty()) {
            (false, false) if call.remote_name != call.remote_number => {
                format!("{} ({})", call.remote_name, call.remote_number)
            }
            (false, _) => call.remote_name.clone(),
            (true, _) => call.remote_number.clone(),
        };
        Self {
            user: FillingUser {
                name: notice.to.name.clone(),
                first_name: notice.to.first_name.clone(),
                last_name: notice.to.last_name.clone(),
            },
            call: FillingCall {
                date: language::date(language, at.date()),
                weekday: language::weekday(language, at.weekday()),
                time: language::time(&at),
                zone: language::zone(&at),
                started_at: at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
                duration: language::duration(language, call.duration_ms),
                duration_s: call.duration_ms.saturating_add(500) / 1_000,
                direction: call.direction.as_str(),
                with,
                remote_name: call.remote_name.clone(),
                remote_number: call.remote_number.clone(),
                local_number: call.local_number.clone(),
            },
            recording: FillingRecording { id: notice.recording.to_string() },
            attachment: FillingAttachment { state: notice.attachment.as_str(), name, size, limit },
            sender: sender_name.to_owned(),
            language: code.to_owned(),
            test: notice.test,
        }
    }
}
