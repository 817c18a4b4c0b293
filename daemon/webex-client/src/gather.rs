//! Everything that a synchronisation needs to know, asked for with as few requests as it takes.

use std::collections::BTreeMap;

use callvault_upload::encoded;
use callvault_webex::{Gathered, Picture, PictureKind, WalkError};

use crate::{Access, Client, Fault, Outside};

/// People of one page: the service gives 100 at most with their calling data.
const PAGE: u32 = 100;

/// Locations of one page.
const LOCATIONS_PAGE: u32 = 500;

/// People at most, of all organisations together: twice what the directory is made for.
pub const PEOPLE_MAX: usize = 200_000;

/// For how long the external identifier of a person is believed while Webex says that nothing of the person has changed, in seconds: a
/// week, since nobody says whether a change of recording settings counts as one.
pub const NATIVE_BELIEVED_S: i64 = 7 * 24 * 3600;

/// What was read of a person's recording settings before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The external identifier; empty where there is none.
    pub native: String,
    /// `lastModified` of the person at that time.
    pub last_modified: Option<String>,
    /// When it was read, in seconds since the Unix epoch.
    pub read_at_s: i64,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests for lists.
    pub lists: u64,
    /// Requests for single people's recording settings.
    pub people: u64,
}

impl Client {
    /// Reads organisations, locations, people and, where wanted, the recording settings of those of whom they are not `known` any more.
    ///
    /// # Errors
    /// Where not all of it was had: half a directory is not a small one.
    pub fn gather(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        known: &BTreeMap<String, Known>,
    ) -> Result<(Gathered, Asked), Fault> {
        let (mut gathered, mut asked) = (Gathered::default(), Asked::default());
        let base = self.settings.url.trim_end_matches('/');
        asked.lists += self
            .walk(access, outside, &format!("{base}/organizations"), &mut |body| gathered.organisations_page(body))?;
        let organisations: Vec<String> = match self.settings.organisations.as_slice() {
            [] => vec![String::new()],
            some => some.iter().map(|id| format!("&orgId={}", encoded(id))).collect(),
        };
        for organisation in &organisations {
            let url = format!("{base}/locations?max={LOCATIONS_PAGE}{organisation}");
            asked.lists += self.walk(access, outside, &url, &mut |body| gathered.locations_page(body))?;
            let url = format!("{base}/people?callingData=true&max={PAGE}{organisation}");
            asked.lists += self.walk(access, outside, &url, &mut |body| {
                gathered.people_page(body)?;
                if gathered.people.len() > PEOPLE_MAX {
                    return Err("Webex names more than 200,000 people: name the organisations in webex.organisations");
                }
                Ok(())
            })?;
        }
        if self.settings.wants_native {
            asked.people = self.native(access, outside, known, &mut gathered)?;
        }
        Ok((gathered, asked))
    }

    /// The external identifiers of people with Webex Calling: one request for each of whom nothing recent is known.
    fn native(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        known: &BTreeMap<String, Known>,
        gathered: &mut Gathered,
    ) -> Result<u64, Fault> {
        let base = self.settings.url.trim_end_matches('/');
        let now_s = (outside.now)().as_second();
        let mut asked = 0;
        for person in gathered.people.iter().filter(|person| person.location_id.is_some()) {
            let before = known.get(&person.id).filter(|before| {
                let age_s = now_s.saturating_sub(before.read_at_s);
                before.last_modified == person.last_modified && (0..NATIVE_BELIEVED_S).contains(&age_s)
            });
            if let Some(before) = before {
                gathered.native.insert(person.id.clone(), before.native.clone());
                continue;
            }
            let url = format!("{base}/people/{}/features/callRecording", encoded(&person.id));
            let url = match self.settings.organisations.len() {
                0 | 1 => url,
                _ => format!("{url}?orgId={}", encoded(person.org_id.as_deref().unwrap_or_default())),
            };
            let mut native = String::new();
            let mut take = |body: &[u8]| {
                let value: serde_json::Value =
                    serde_json::from_slice(body).map_err(|_| "the recording settings of a person are no JSON")?;
                native = value["externalIdentifier"].as_str().unwrap_or_default().to_owned();
                Ok(())
            };
            match self.walk(access, outside, &url, &mut take) {
                Ok(requests) => asked += requests,
                // Who has no recording settings has no identifier.
                Err(Fault::Walk(WalkError::Refused(404))) => asked += 1,
                Err(fault) => return Err(fault),
            }
            gathered.native.insert(person.id.clone(), native);
        }
        Ok(asked)
    }

    /// The picture at `url`, of at most `bytes_max` bytes. No token goes there: pictures are with others.
    ///
    /// # Errors
    /// A sentence, without the address.
    pub fn picture(
        &self,
        url: &str,
        bytes_max: usize,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(PictureKind, Vec<u8>), String> {
        callvault_upload::check_url(url).map_err(|wrong| format!("the address of the picture {wrong}"))?;
        let fetched = self.web.get(url, None, bytes_max, stopping).map_err(|error| error.to_string())?;
        if fetched.status != 200 {
            return Err(format!("the picture was answered with status {}", fetched.status));
        }
        let mut picture = Picture::new(bytes_max);
        picture.take(&fetched.body).and_then(|()| picture.whole()).map_err(|error| error.to_string())
    }
}
