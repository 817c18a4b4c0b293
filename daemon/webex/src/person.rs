//! Who makes calls at Webex: people, and where they are wanted workspaces and virtual lines, as its lists tell of them; and how each is recorded.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// People of one answer at most: the service gives 1,000 at most.
const PEOPLE_MAX: usize = 5_000;

/// Under what names of the internet workspaces and virtual lines go, which have no e-mail: nobody ever has one there (RFC 2606, 2).
const WORKSPACES: &str = "workspace.webex.invalid";
const VIRTUAL_LINES: &str = "virtual-line.webex.invalid";

/// What it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody.
    #[default]
    Person,
    /// A place with a telephone.
    Workspace,
    /// A number without a telephone of its own.
    VirtualLine,
}

/// How calls of somebody are recorded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecordingSettings {
    /// The external identifier, by which sessions name whose they are; empty where there is none.
    pub native: String,
    /// The mode as Webex names it, for example `Always with Pause/Resume`; empty where recording is off.
    pub mode: String,
}

impl std::fmt::Debug for RecordingSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordingSettings").field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct CallRecording {
    enabled: bool,
    record: String,
    external_identifier: Option<String>,
}

impl RecordingSettings {
    /// Reads the answer of `features/callRecording`.
    ///
    /// # Errors
    /// A sentence where it has another form.
    pub fn read(body: &[u8]) -> Result<Self, &'static str> {
        let read: CallRecording = object(body).ok_or("recording settings have another form than documented")?;
        let mode = if read.enabled { read.record } else { String::new() };
        Ok(Self { native: read.external_identifier.unwrap_or_default(), mode })
    }

    /// Whether calls are recorded, or may be when somebody asks.
    pub fn is_recording(&self) -> bool {
        !self.mode.is_empty() && !self.mode.eq_ignore_ascii_case("never")
    }
}

/// A person, workspace or virtual line, as far as it is looked at. Every field may be missing. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Person {
    /// The service's id.
    pub id: String,
    /// E-mail addresses; the first names the person.
    pub emails: Vec<String>,
    /// Numbers.
    pub phone_numbers: Vec<Phone>,
    /// Extension, of people with Webex Calling.
    pub extension: Option<String>,
    /// Location, of people with Webex Calling.
    pub location_id: Option<String>,
    /// Organisation.
    pub org_id: Option<String>,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Where the picture is.
    pub avatar: Option<String>,
    /// When the service changed something of the person last, as it writes it.
    pub last_modified: Option<String>,
    /// `person`, `bot` or `appuser`.
    pub r#type: Option<String>,
    /// What it is.
    #[serde(skip)]
    pub kind: Kind,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}

/// A number of a person.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Phone {
    /// `work`, `mobile`, …
    pub r#type: String,
    /// As it is written there, for example with blanks.
    pub value: String,
    /// Whether it is the first among them.
    pub primary: bool,
}

#[derive(Deserialize)]
struct People {
    items: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Workspace {
    id: String,
    display_name: String,
    org_id: Option<String>,
    location_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VirtualLines {
    virtual_lines: Vec<VirtualLine>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct VirtualLine {
    id: String,
    first_name: Option<String>,
    last_name: Option<String>,
    number: Number,
    location: Option<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    phone_numbers: Vec<Number>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Number {
    external: Option<String>,
    extension: Option<String>,
    primary: bool,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Vendors {
    default_vendor_name: Option<String>,
}

impl Person {
    /// The address that stands for the person: the e-mail, or one that nobody has, made of the id, which stays when a place gets another name.
    pub fn address(&self) -> String {
        match self.kind {
            Kind::Person => self.emails.first().map(|email| email.trim().to_lowercase()).unwrap_or_default(),
            Kind::Workspace => format!("{}@{WORKSPACES}", bare(&self.id)),
            Kind::VirtualLine => format!("{}@{VIRTUAL_LINES}", bare(&self.id)),
        }
    }

    fn takes(&mut self, number: Number) {
        if number.primary || self.extension.is_none() {
            self.extension = number.extension.or_else(|| self.extension.take());
        }
        if let Some(value) = number.external {
            self.phone_numbers.push(Phone { r#type: "work".to_owned(), value, primary: number.primary });
        }
        self.phone_numbers.sort_by_key(|phone| !phone.primary);
    }

    /// Takes the numbers of a workspace, from `features/numbers`.
    ///
    /// # Errors
    /// A sentence where it has another form.
    pub fn numbers(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let read: Numbers = object(body).ok_or("the numbers of a workspace have another form than documented")?;
        read.phone_numbers.into_iter().for_each(|number| self.takes(number));
        Ok(())
    }
}

/// An answer that is an object; a list would be read as one without fields.
fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(fields.into()).ok()
}

/// What is the service's own in one of its ids, which are addresses in Base64 (`ciscospark://us/PLACE/` and a UUID).
fn bare(id: &str) -> String {
    let id = id.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD.decode(id).or_else(|_| URL_SAFE_NO_PAD.decode(id)).ok();
    let address = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let last = address.as_deref().and_then(|address| address.rsplit('/').next());
    let is_own = |last: &&str| !last.is_empty() && last.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    last.filter(is_own).map_or_else(|| id.chars().filter(kept).collect(), str::to_owned).to_lowercase()
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Named {
    id: String,
    name: Option<String>,
    display_name: Option<String>,
}

/// What all the lists together told.
#[derive(Clone, Default)]
pub struct Gathered {
    /// People, of all organisations.
    pub people: Vec<Person>,
    /// Names of locations by id.
    pub locations: BTreeMap<String, String>,
    /// Names of organisations by id.
    pub organisations: BTreeMap<String, String>,
    /// How people are recorded, by id; no entry where it is not known.
    pub recording: BTreeMap<String, RecordingSettings>,
    /// Names of the recording platforms of locations, by the location's id; no entry where it is not known.
    pub platforms: BTreeMap<String, String>,
}

impl std::fmt::Debug for Gathered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gathered").field("people", &self.people.len()).finish_non_exhaustive()
    }
}

fn items(body: &[u8]) -> Result<Vec<serde_json::Value>, &'static str> {
    let list: People = serde_json::from_slice(body).map_err(|_| "the answer of Webex is not a list of items")?;
    if list.items.len() > PEOPLE_MAX {
        return Err("the answer of Webex has more than 5,000 items");
    }
    Ok(list.items)
}

impl Gathered {
    /// Takes a page of `/people`.
    ///
    /// # Errors
    /// A sentence where it has another form. One that cannot be read makes the page unusable: left out, the user would be removed.
    pub fn people_page(&mut self, body: &[u8]) -> Result<(), &'static str> {
        for item in items(body)? {
            let person = serde_json::from_value(item)
                .map_err(|_| "a person in the answer of Webex has another form than documented")?;
            self.people.push(person);
        }
        Ok(())
    }

    /// Takes a page of `/workspaces`; their numbers are asked for singly.
    ///
    /// # Errors
    /// As for [`Gathered::people_page`].
    pub fn workspaces_page(&mut self, body: &[u8]) -> Result<(), &'static str> {
        for item in items(body)? {
            let read: Workspace = serde_json::from_value(item)
                .map_err(|_| "a workspace in the answer of Webex has another form than documented")?;
            self.people.push(Person {
                id: read.id,
                first_name: Some(read.display_name),
                org_id: read.org_id,
                location_id: read.location_id,
                kind: Kind::Workspace,
                ..Person::default()
            });
        }
        Ok(())
    }

    /// Takes a page of `/telephony/config/virtualLines`, of this organisation where it was asked for.
    ///
    /// # Errors
    /// As for [`Gathered::people_page`].
    pub fn virtual_lines_page(&mut self, body: &[u8], organisation: Option<&str>) -> Result<(), &'static str> {
        let page: VirtualLines =
            object(body).ok_or("the virtual lines in the answer of Webex have another form than documented")?;
        if page.virtual_lines.len() > PEOPLE_MAX {
            return Err("the answer of Webex has more than 5,000 virtual lines");
        }
        for read in page.virtual_lines {
            let mut line = Person {
                id: read.id,
                first_name: read.first_name,
                last_name: read.last_name,
                org_id: organisation.map(str::to_owned),
                location_id: read.location.map(|location| location.id),
                kind: Kind::VirtualLine,
                ..Person::default()
            };
            line.takes(read.number);
            self.people.push(line);
        }
        Ok(())
    }

    /// Takes the recording platform of a location.
    ///
    /// # Errors
    /// A sentence where it has another form.
    pub fn platform(&mut self, location: &str, body: &[u8]) -> Result<(), &'static str> {
        let read: Vendors =
            object(body).ok_or("the recording platform of a location has another form than documented")?;
        if let Some(name) = read.default_vendor_name {
            self.platforms.insert(location.to_owned(), name);
        }
        Ok(())
    }

    /// Takes a page of `/locations`.
    ///
    /// # Errors
    /// A sentence where it has another form.
    pub fn locations_page(&mut self, body: &[u8]) -> Result<(), &'static str> {
        self.locations.extend(named(body)?);
        Ok(())
    }

    /// Takes the answer of `/organizations`.
    ///
    /// # Errors
    /// A sentence where it has another form.
    pub fn organisations_page(&mut self, body: &[u8]) -> Result<(), &'static str> {
        self.organisations.extend(named(body)?);
        Ok(())
    }
}

fn named(body: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let one = |item| {
        let named: Named = serde_json::from_value(item).ok()?;
        Some((named.id, named.name.or(named.display_name)?))
    };
    Ok(items(body)?.into_iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_an_address_that_nobody_has() {
        #[track_caller]
        fn check(kind: Kind, id: &str, expected: &str) {
            assert_eq!(Person { id: id.to_owned(), kind, ..Person::default() }.address(), expected);
        }
        let id = "Y2lzY29zcGFyazovL3VzL1BMQUNFL0RENUY4N0IxLUI0RTctNEU4OS04MEJCLTU1RDVGQzU3Nzc0NA";
        check(Kind::Workspace, id, "dd5f87b1-b4e7-4e89-80bb-55d5fc577744@workspace.webex.invalid");
        check(Kind::VirtualLine, id, "dd5f87b1-b4e7-4e89-80bb-55d5fc577744@virtual-line.webex.invalid");
        check(Kind::Workspace, "Place_7", "place7@workspace.webex.invalid");
        check(Kind::Person, id, "");
    }

    #[test]
    fn how_somebody_is_recorded() {
        #[track_caller]
        fn check(body: &str, native: &str, mode: &str, is_recording: bool) {
            let read = RecordingSettings::read(body.as_bytes()).unwrap();
            assert_eq!((&*read.native, &*read.mode, read.is_recording()), (native, mode, is_recording), "{body}");
        }
        check(r#"{"enabled": true, "record": "Always", "externalIdentifier": "a@b"}"#, "a@b", "Always", true);
        check(r#"{"enabled": false, "record": "Always", "externalIdentifier": "a@b"}"#, "a@b", "", false);
        check(r#"{"enabled": true, "record": "Never"}"#, "", "Never", false);
        check("{}", "", "", false);
        assert!(RecordingSettings::read(b"[]").is_err() && RecordingSettings::read(b"{\"enabled\": 1}").is_err());
    }
}
