//! Reading a case and walking through its steps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use callvault_sip::{Limits, Message, NameAddr, Request, is_recording_session, multipart, parse_datagram};
use callvault_siprec::{
    DataMode, HeaderParty, Merge, Metadata, Offer, SessionFacts, Signalling, SiprecError, session_facts,
};
use serde_json::Value;

/// The corpus' folder.
pub(crate) fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

/// What a case showed.
#[derive(Default)]
pub(crate) struct Observed {
    /// What the case is, in a sentence.
    pub(crate) about: String,
    /// What told that the first message asks for a recording.
    pub(crate) recognised: BTreeSet<&'static str>,
    /// Versions of BroadWorks' data.
    pub(crate) versions: BTreeSet<String>,
    /// Whether media was paused at some step.
    pub(crate) paused: bool,
    /// Whether there were metadata documents after the first.
    pub(crate) merged: bool,
    /// The facts after each step.
    pub(crate) facts: Vec<SessionFacts>,
}

/// What a step brings.
#[derive(Default)]
struct Step {
    sdp: Option<Vec<u8>>,
    metadata: Option<Vec<u8>>,
    request: Option<Request>,
}

/// The header fields of the first message that the facts depend on.
#[derive(Default)]
struct First {
    name: Option<String>,
    uri: String,
    correlation: Option<String>,
    cisco: Vec<String>,
}

/// Walks through a case, comparing as it goes.
pub(crate) fn walk(path: &Path) -> Observed {
    let name = path.strip_prefix(corpus()).unwrap().with_extension("").display().to_string();
    let case: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut observed = Observed { about: case["about"].as_str().unwrap().to_owned(), ..Observed::default() };
    let mut first: Option<First> = None;
    let mut offer: Option<Offer> = None;
    let mut metadata: Option<Metadata> = None;
    let steps = case["steps"].as_array().unwrap();
    assert!(!steps.is_empty(), "{name} has no steps");
    for (index, wanted) in steps.iter().enumerate() {
        let at = format!("{name}, step {index}");
        let step = read_step(path, wanted);
        let first = first.get_or_insert_with(|| {
            observed.recognised = check_recognised(&at, &step, wanted);
            First::read(&case, &step)
        });
        if let Some(body) = &step.sdp {
            offer = Some(Offer::parse(body).unwrap());
        }
        let mut error: Option<SiprecError> = None;
        match step.metadata.as_deref().map(Metadata::parse) {
            Some(Ok(later)) => {
                observed.versions.extend(later.broadworks.as_ref().and_then(|facts| facts.version.clone()));
                observed.merged |= metadata.is_some();
                check_merge(&at, &mut metadata, later, wanted["merge"].as_str());
            }
            Some(Err(found)) => error = Some(found),
            None if metadata.is_none() => {
                metadata = Metadata::from_cisco_participants(first.cisco.iter().map(String::as_str));
            }
            None => {}
        }
        let offer = offer.as_ref().unwrap();
        assert_eq!(offer.is_paused(), wanted["paused"].as_bool().unwrap_or(false), "{at}: paused");
        observed.paused |= offer.is_paused();
        let known = error.as_ref().map_or(Ok(metadata.as_ref()), Err);
        let facts = session_facts(&first.signalling(), offer, known);
        compare(&at, &facts, &wanted["facts"]);
        observed.facts.push(facts);
    }
    observed
}

impl First {
    fn read(case: &Value, step: &Step) -> First {
        let Some(request) = &step.request else {
            return First {
                name: case["from"]["display_name"].as_str().map(str::to_owned),
                uri: case["from"]["uri"].as_str().unwrap().to_owned(),
                correlation: case["correlation"].as_str().map(str::to_owned),
                cisco: Vec::new(),
            };
        };
        let from = NameAddr::parse(request.headers.get("From").unwrap());
        First {
            name: from.display_name().map(str::to_owned),
            uri: from.uri().as_str().to_owned(),
            correlation: request.headers.get("X-BroadWorks-Correlation-Info").map(str::to_owned),
            cisco: request.headers.all("X-Cisco-Recording-Participant").map(|field| field.value().to_owned()).collect(),
        }
    }

    fn signalling(&self) -> Signalling<'_> {
        Signalling {
            from: HeaderParty { display_name: self.name.as_deref(), uri: &self.uri },
            broadworks_correlation: self.correlation.as_deref(),
        }
    }
}

fn read_step(path: &Path, step: &Value) -> Step {
    let read = |key: &str| step[key].as_str().map(|file| fs::read(path.with_file_name(file)).unwrap());
    let Some(text) = read("message") else {
        return Step { sdp: read("sdp"), metadata: read("metadata"), request: None };
    };
    let bytes = on_the_wire(&text);
    let message = parse_datagram(&bytes, &Limits::default()).unwrap().unwrap();
    let Message::Request(request) = message else {
        panic!("{} has a response for a step", path.display());
    };
    assert_eq!(request.method.as_str(), step["method"].as_str().unwrap(), "{}", path.display());
    let bodies = multipart::bodies(&request).unwrap();
    let flaws: Vec<&str> = bodies.flaws.iter().map(|flaw| flaw.name()).collect();
    let wanted: Vec<&str> =
        step["multipart_flaws"].as_array().into_iter().flatten().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(flaws, wanted, "{}", path.display());
    Step {
        sdp: bodies.sdp().map(|part| part.body.clone()),
        metadata: bodies.recording_metadata().map(|part| part.body.clone()),
        request: Some(request),
    }
}

/// A message as it is sent: CRLF at the line ends, and the length of its body filled in.
pub(crate) fn on_the_wire(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap().replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.replace("{length}", &body.len().to_string());
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn check_recognised(at: &str, step: &Step, wanted: &Value) -> BTreeSet<&'static str> {
    let Some(request) = &step.request else {
        return BTreeSet::new();
    };
    let hints = is_recording_session(request);
    let signs = [
        (hints.required, "Require"),
        (hints.contact_tag, "Contact"),
        (hints.metadata, "metadata"),
        (hints.cisco_participant, "X-Cisco-Recording-Participant"),
    ];
    let found: Vec<&str> = signs.into_iter().filter(|(is_there, _)| *is_there).map(|(_, sign)| sign).collect();
    assert_eq!(serde_json::to_value(&found).unwrap(), wanted["recognised"], "{at}: recognised");
    signs.into_iter().filter(|(is_there, _)| *is_there).map(|(_, sign)| sign).collect()
}

fn check_merge(at: &str, metadata: &mut Option<Metadata>, later: Metadata, expected: Option<&str>) {
    let Some(known) = metadata else {
        assert_eq!(expected, None, "{at}: the first document is not merged");
        assert_eq!(later.datamode, DataMode::Complete, "{at}");
        *metadata = Some(later);
        return;
    };
    let merge = match known.merge(later) {
        Merge::Unchanged => "unchanged",
        Merge::Replaced => "replaced",
        Merge::Extended => "extended",
    };
    assert_eq!(Some(merge), expected, "{at}: merge");
}

fn compare(at: &str, facts: &SessionFacts, expected: &Value) {
    let found = serde_json::to_value(facts).unwrap();
    assert_eq!(&found, expected, "{at}: found\n{}", serde_json::to_string_pretty(&found).unwrap());
}
