//! Everything that a synchronisation needs to know, asked for with as few requests as it takes.

use std::collections::BTreeMap;

use callvault_upload::encoded;
use callvault_webex::{Gathered, Kind, Person, Picture, PictureKind, RecordingSettings, WalkError};

use crate::{Access, Client, Fault, Outside};

/// People of one page: the service gives 100 at most with their calling data.
const PAGE: u32 = 100;

/// Locations of one page.
const LOCATIONS_PAGE: u32 = 500;

/// Workspaces of one page.
const WORKSPACES_PAGE: u32 = 1_000;

/// What is said of more.
const TOO_MANY: &str = "Webex names more than 200,000 people: name the organisations in webex.organisations";

/// People at most, of all organisations together: twice what the directory is made for.
pub const PEOPLE_MAX: usize = 200_000;

/// For how long recording settings of a person are believed while Webex says that nothing of the person has changed, in seconds: a
/// week, since nobody says whether a change of recording settings counts as one.
pub const RECORDING_BELIEVED_S: i64 = 7 * 24 * 3600;

/// What was read of somebody's recording settings before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Them.
    pub recording: RecordingSettings,
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
    /// Requests for single people's, workspaces' and virtual lines' recording settings and numbers.
    pub people: u64,
}

/// Who has none of what was asked for has none.
fn unless_none(walked: Result<u64, Fault>) -> Result<u64, Fault> {
    match walked {
        Err(Fault::Walk(WalkError::Refused(404))) => Ok(1),
        other => other,
    }
}

impl Client {
    /// Reads organisations, locations, people and, where wanted, workspaces, virtual lines and the recording settings of those of whom they
    /// are not `known` any more.
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
        let organisations: Vec<Option<&str>> = match self.settings.organisations.as_slice() {
            [] => vec![None],
            some => some.iter().map(|id| Some(id.as_str())).collect(),
        };
        for organisation in organisations {
            self.organisation(access, outside, organisation, &mut gathered, &mut asked)?;
        }
        self.numbers(access, outside, &mut gathered, &mut asked)?;
        if self.settings.wants_recording {
            self.recording(access, outside, known, &mut gathered, &mut asked)?;
            self.platforms(access, outside, &mut gathered, &mut asked)?;
        }
        Ok((gathered, asked))
    }

    /// The lists of an organisation; of the one of the administrator who authorised where none is named.
    fn organisation(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        organisation: Option<&str>,
        gathered: &mut Gathered,
        asked: &mut Asked,
    ) -> Result<(), Fault> {
        let base = self.settings.url.trim_end_matches('/');
        let of = organisation.map(|id| format!("&orgId={}", encoded(id))).unwrap_or_default();
        let url = format!("{base}/locations?max={LOCATIONS_PAGE}{of}");
        asked.lists += self.walk(access, outside, &url, &mut |body| gathered.locations_page(body))?;
        let few = |gathered: &Gathered| if gathered.people.len() > PEOPLE_MAX { Err(TOO_MANY) } else { Ok(()) };
        let url = format!("{base}/people?callingData=true&max={PAGE}{of}");
        asked.lists += self.walk(access, outside, &url, &mut |body| {
            gathered.people_page(body)?;
            few(gathered)
        })?;
        if self.settings.workspaces {
            let url = format!("{base}/workspaces?calling=webexCalling&max={WORKSPACES_PAGE}{of}");
            asked.lists += self.walk(access, outside, &url, &mut |body| {
                gathered.workspaces_page(body)?;
                few(gathered)
            })?;
        }
        if self.settings.virtual_lines {
            let of = of.replacen('&', "?", 1);
            let url = format!("{base}/telephony/config/virtualLines{of}");
            asked.lists += self.walk(access, outside, &url, &mut |body| {
                gathered.virtual_lines_page(body, organisation)?;
                few(gathered)
            })?;
        }
        Ok(())
    }

    /// Of which organisation somebody is asked for, where that has to be said; begins with `?`.
    fn of(&self, person: &Person) -> String {
        match self.settings.organisations.len() {
            0 | 1 => String::new(),
            _ => format!("?orgId={}", encoded(person.org_id.as_deref().unwrap_or_default())),
        }
    }

    /// The numbers of workspaces, which their list does not have: one request for each.
    fn numbers(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        gathered: &mut Gathered,
        asked: &mut Asked,
    ) -> Result<(), Fault> {
        let base = self.settings.url.trim_end_matches('/');
        for place in gathered.people.iter_mut().filter(|person| person.kind == Kind::Workspace) {
            let url = format!("{base}/workspaces/{}/features/numbers{}", encoded(&place.id), self.of(place));
            asked.people += unless_none(self.walk(access, outside, &url, &mut |body| place.numbers(body)))?;
        }
        Ok(())
    }

    /// How those with Webex Calling are recorded: one request for each of whom nothing recent is known.
    fn recording(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        known: &BTreeMap<String, Known>,
        gathered: &mut Gathered,
        asked: &mut Asked,
    ) -> Result<(), Fault> {
        let base = self.settings.url.trim_end_matches('/');
        let now_s = (outside.now)().as_second();
        for person in gathered.people.iter().filter(|person| person.location_id.is_some()) {
            let before = known.get(&person.id).filter(|before| {
                let age_s = now_s.saturating_sub(before.read_at_s);
                before.last_modified == person.last_modified && (0..RECORDING_BELIEVED_S).contains(&age_s)
            });
            if let Some(before) = before {
                gathered.recording.insert(person.id.clone(), before.recording.clone());
                continue;
            }
            let id = encoded(&person.id);
            let path = match person.kind {
                Kind::Person => format!("people/{id}/features/callRecording"),
                Kind::Workspace => format!("workspaces/{id}/features/callRecording"),
                Kind::VirtualLine => format!("telephony/config/virtualLines/{id}/callRecording"),
            };
            let mut recording = RecordingSettings::default();
            let mut take = |body: &[u8]| RecordingSettings::read(body).map(|read| recording = read);
            let url = format!("{base}/{path}{}", self.of(person));
            asked.people += unless_none(self.walk(access, outside, &url, &mut take))?;
            gathered.recording.insert(person.id.clone(), recording);
        }
        Ok(())
    }

    /// Which platform records in each location: it says for whom Webex records. Where that is not told, all are taken for this appliance's.
    fn platforms(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        gathered: &mut Gathered,
        asked: &mut Asked,
    ) -> Result<(), Fault> {
        let base = self.settings.url.trim_end_matches('/');
        let of: BTreeMap<String, String> =
            gathered.people.iter().filter_map(|person| Some((person.location_id.clone()?, self.of(person)))).collect();
        for (location, of) in of {
            let url = format!("{base}/telephony/config/locations/{}/callRecording/vendors{of}", encoded(&location));
            match self.walk(access, outside, &url, &mut |body| gathered.platform(&location, body)) {
                Ok(requests) => asked.lists += requests,
                Err(Fault::Walk(WalkError::Refused(_) | WalkError::Forbidden) | Fault::Form(_)) => asked.lists += 1,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
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
