//! Which participant is heard on which media line.

use crate::flaw::{Flaw, note};
use crate::metadata::{Metadata, Participant, Stream, StreamMode};
use crate::sdp::{MediaLine, Offer};

use super::TrackRole;

/// A media line with audio and who is heard on it.
struct Bound<'a> {
    media_line: usize,
    line: &'a MediaLine,
    /// Indices of the participants that send it and take part.
    senders: Vec<usize>,
    /// Indices of the participants that sent it when last they sent any: who is on hold sends nothing.
    owners: Vec<usize>,
    /// The metadata says that the stream is a mix.
    declared_mixed: bool,
}

/// The media lines with audio, bound to participants through streams and labels.
pub(super) struct Bindings<'a> {
    lines: Vec<Bound<'a>>,
    has_participants: bool,
}

impl<'a> Bindings<'a> {
    pub(super) fn new(offer: &'a Offer, metadata: Option<&Metadata>, flaws: &mut Vec<Flaw>) -> Bindings<'a> {
        let mut bindings = Bindings {
            lines: offer
                .recordable()
                .map(|(media_line, line)| Bound {
                    media_line,
                    line,
                    senders: Vec::new(),
                    owners: Vec::new(),
                    declared_mixed: false,
                })
                .collect(),
            has_participants: metadata
                .is_some_and(|known| known.participants.iter().any(|participant| !participant.is_placeholder())),
        };
        if let Some(metadata) = metadata {
            bindings.bind(metadata, flaws);
            bindings.bind_in_order(metadata, flaws);
        }
        bindings
    }

    fn bind(&mut self, metadata: &Metadata, flaws: &mut Vec<Flaw>) {
        let by_label = metadata.streams.iter().any(|stream| self.line_of(stream).is_some());
        if !by_label && !metadata.streams.is_empty() {
            note(
                flaws,
                Flaw::new(
                    "label-unmatched",
                    "no stream of the metadata has the label of a media line; they were matched by their order",
                ),
            );
        }
        let place = |(index, stream): (usize, &Stream)| match by_label {
            true => self.line_of(stream),
            false => (index < self.lines.len()).then_some(index),
        };
        let places: Vec<Option<usize>> = metadata.streams.iter().enumerate().map(place).collect();
        for (stream, place) in metadata.streams.iter().zip(&places) {
            if let Some(bound) = place.and_then(|at| self.lines.get_mut(at)) {
                bound.declared_mixed |= stream.mode == Some(StreamMode::Mixed);
            }
        }
        for (index, participant) in metadata.participants.iter().enumerate() {
            if participant.is_gone() || participant.is_placeholder() {
                continue;
            }
            for (stream, place) in metadata.streams.iter().zip(&places) {
                if let Some(bound) = place.and_then(|at| self.lines.get_mut(at))
                    && participant.has_sent(&stream.id)
                {
                    bound.owners.push(index);
                }
            }
            for id in &participant.sends {
                // Some clients name the label where the stream's id belongs.
                let place = match metadata.streams.iter().position(|stream| &stream.id == id) {
                    Some(at) => places.get(at).copied().flatten(),
                    None => self.line_labelled(Some(id)),
                };
                match place.and_then(|at| self.lines.get_mut(at)) {
                    Some(bound) if !bound.senders.contains(&index) => bound.senders.push(index),
                    Some(_) => {}
                    None => note(
                        flaws,
                        Flaw::new("stream-unresolved", "a participant sends a stream that no media line carries"),
                    ),
                }
            }
        }
    }

    /// Two parties on two lines of which nothing says whose is whose: the first has the first, as every client has it that
    /// says so.
    fn bind_in_order(&mut self, metadata: &Metadata, flaws: &mut Vec<Flaw>) {
        if self.lines.len() != 2 || self.lines.iter().any(|bound| !bound.senders.is_empty()) {
            return;
        }
        let participants = metadata.participants.iter().enumerate();
        let active = |participant: &Participant| participant.is_active() && !participant.is_placeholder();
        let parties: Vec<usize> =
            participants.filter(|(_, participant)| active(participant)).map(|(index, _)| index).collect();
        if parties.len() != self.lines.len() {
            return;
        }
        for (bound, index) in self.lines.iter_mut().zip(parties) {
            bound.senders.push(index);
        }
        note(
            flaws,
            Flaw::new(
                "streams-unbound",
                "no participant is said to send a media line; they were matched by their order",
            ),
        );
    }

    /// The line of a stream: by its label, or by its place where that is what the client names.
    fn line_of(&self, stream: &Stream) -> Option<usize> {
        match stream.media_line {
            Some(place) => self.lines.iter().position(|bound| bound.media_line == place),
            None => self.line_labelled(stream.label.as_deref()),
        }
    }

    fn line_labelled(&self, label: Option<&str>) -> Option<usize> {
        let label = label?;
        self.lines.iter().position(|bound| bound.line.label == label)
    }

    /// Labels of the lines that a participant is heard on.
    pub(super) fn labels_of(&self, participant: usize) -> Vec<String> {
        self.lines
            .iter()
            .filter(|bound| bound.senders.contains(&participant))
            .map(|bound| bound.line.label.clone())
            .collect()
    }

    /// The role of each line, when this participant is the recorded user.
    pub(super) fn roles(&self, local: Option<usize>) -> Vec<TrackRole> {
        let is_alone = self.lines.len() == 1;
        // Of a line that nobody sends for now, whoever did.
        let is_senders = |bound: &Bound<'_>, local| match bound.senders.as_slice() {
            [] => bound.owners == [local],
            senders => senders.contains(&local),
        };
        let mixed = |bound: &Bound<'_>| {
            let several = bound.senders.len() > 1;
            let with_local = local.is_some_and(|local| bound.senders.contains(&local));
            // All remote parties of a conference may share a line: that is not everybody. A line that is the only one of a
            // session that nothing is known about carries everybody there is.
            bound.declared_mixed || (several && (with_local || is_alone)) || (is_alone && !self.has_participants)
        };
        let mut roles: Vec<TrackRole> = self
            .lines
            .iter()
            .map(|bound| TrackRole {
                media_line: bound.media_line,
                label: bound.line.label.clone(),
                local: !mixed(bound) && local.is_some_and(|local| is_senders(bound, local)),
                mixed: mixed(bound),
            })
            .collect();
        if !roles.iter().any(|role| role.local) {
            self.guess_local(&mut roles);
        }
        roles
    }

    /// Where nothing says which line is the recorded user's: label 1, else the first, unless others are known to be on it.
    fn guess_local(&self, roles: &mut [TrackRole]) {
        let candidate = |index: usize| {
            let free = self.lines[index].senders.is_empty();
            free && !roles[index].mixed
        };
        let labelled = roles.iter().position(|role| role.label == "1");
        let found =
            labelled.filter(|&index| candidate(index)).or_else(|| (0..roles.len()).find(|&index| candidate(index)));
        if let Some(role) = found.and_then(|index| roles.get_mut(index)) {
            role.local = true;
        }
    }
}
