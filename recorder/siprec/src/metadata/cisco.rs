//! Cisco's network-based recording: a recording without SIPREC, whose participants stand in header fields.

use super::{DataMode, Metadata, Participant, Shape, Stream, StreamMode};
use super::{PARTICIPANTS_MAX, TEXT_CHARS_MAX};

/// Most media lines taken for one participant: audio and video, and room for more.
const LINES_MAX: usize = 8;

impl Metadata {
    /// The participants that `X-Cisco-Recording-Participant` fields name, as metadata. Each value is an address and, as
    /// `media-index`, the places (from 0) of the media lines that the party is heard on: `sip:7711@192.0.2.1;media-index="0"`.
    /// Values without an address are left out; none where nothing is left.
    pub fn from_cisco_participants<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Metadata> {
        let mut metadata = Metadata {
            shape: Shape::Cisco,
            datamode: DataMode::Complete,
            sessions: Vec::new(),
            participants: Vec::new(),
            streams: Vec::new(),
            broadworks: None,
            vendor: None,
            flaws: Vec::new(),
        };
        for value in values.into_iter().take(PARTICIPANTS_MAX) {
            metadata.add_cisco(value);
        }
        (!metadata.participants.is_empty()).then_some(metadata)
    }

    fn add_cisco(&mut self, value: &str) {
        let (address, params) = match value.trim().strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((address, params)) => (address, params),
            None => value.trim().split_once(';').unwrap_or((value.trim(), "")),
        };
        let address: String = address.trim().chars().take(TEXT_CHARS_MAX).collect();
        if address.is_empty() {
            return;
        }
        let sends: Vec<String> = media_indices(params).map(|index| index.to_string()).collect();
        for id in &sends {
            if !self.streams.iter().any(|known| &known.id == id) {
                self.streams.push(Stream {
                    id: id.clone(),
                    media_line: id.parse().ok(),
                    mode: Some(StreamMode::Separate),
                    ..Stream::default()
                });
            }
        }
        let streams_stated = !sends.is_empty();
        let id = format!("#{}", self.participants.len());
        self.participants.push(Participant {
            id,
            aors: vec![address],
            sends,
            streams_stated,
            ..Participant::default()
        });
    }
}

/// The numbers in `media-index="0 2"`.
fn media_indices(params: &str) -> impl Iterator<Item = usize> {
    params
        .split(';')
        .filter_map(|param| param.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("media-index"))
        .flat_map(|(_, value)| value.split([' ', ',', '"']))
        .filter_map(|word| word.parse::<usize>().ok())
        .filter(|&index| index < crate::MEDIA_LINES_MAX)
        .take(LINES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_are_read() {
        fn check(values: &[&str], people: &[(&str, &[&str])]) {
            let metadata = Metadata::from_cisco_participants(values.iter().copied());
            let participants = metadata.map(|known| known.participants).unwrap_or_default();
            let found: Vec<(&str, Vec<&str>)> = participants
                .iter()
                .map(|p| (p.aors[0].as_str(), p.sends.iter().map(String::as_str).collect()))
                .collect();
            let people: Vec<(&str, Vec<&str>)> = people.iter().map(|(aor, sends)| (*aor, sends.to_vec())).collect();
            assert_eq!(found, people, "{values:?}");
        }
        check(&["sip:1@h;media-index=\"0\"", "sip:2@h;media-index=\"1\""], &[("sip:1@h", &["0"]), ("sip:2@h", &["1"])]);
        check(&["<sip:1@h;user=phone>;Media-Index=\"0 2\""], &[("sip:1@h;user=phone", &["0", "2"])]);
        check(&["sip:1@h;media-index=99999"], &[("sip:1@h", &[])]);
        check(&["sip:1@h"], &[("sip:1@h", &[])]);
        check(&["", ";media-index=0"], &[]);
        check(&[], &[]);
    }
}
