//! People of Webex, as `GET /people` and the lists beside it tell of them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// People of one answer at most: the service gives 1,000 at most.
const PEOPLE_MAX: usize = 5_000;

/// A person, as far as it is looked at. Every field may be missing. `Debug` shows no personal data.
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
    /// External identifiers of people by id; empty where somebody is known to have none, and no entry where it is not known.
    pub native: BTreeMap<String, String>,
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
