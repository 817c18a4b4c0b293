//! The media of a session as offers change it: which lines are taken, and what is paused.

use std::collections::HashMap;
use std::sync::Arc;

use callvault_journal::facts::{Pause, SessionEvent};
use callvault_sip::{DialogId, Request, TransactionId, multipart};
use callvault_siprec::{MediaLine, Offer};
use rand::CryptoRng;
use uuid::Uuid;

use super::keys::can_be_opened;
use super::session::with_sdp;
use super::{Moment, Sessions, Todo};
use crate::ports::PortPair;
use crate::sweep::Command;

impl Sessions {
    /// The client's answer to an offer of ours, in its ACK (RFC 3264 section 5, RFC 3261 section 13.2.1).
    pub(super) fn take_answer(&mut self, now: Moment, dialog: DialogId, request: &Request, rng: &mut dyn CryptoRng) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        if !std::mem::take(&mut session.sdp.is_offer) {
            return;
        }
        let bodies = multipart::bodies(request).unwrap_or_default();
        self.keep_raw(dialog, request, &bodies);
        match bodies.sdp().map(|part| Offer::parse(&part.body)) {
            Some(Ok(answer)) => self.renegotiate(now, None, dialog, &answer, rng),
            _ => {
                let text = "the client did not answer our offer; its media is taken as it comes";
                self.flaw(dialog, "answer-missing", text.into());
            }
        }
        self.take_metadata(now, dialog, &bodies);
    }

    /// Answers a later offer and does what it says. Without a transaction it is the client's answer to an offer of ours.
    pub(super) fn renegotiate(
        &mut self,
        now: Moment,
        tx: Option<TransactionId>,
        dialog: DialogId,
        offer: &Offer,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(session) = self.by_dialog.get(&dialog) else { return };
        let recording = session.recording;
        let takes = |line: usize| offer.media.get(line).is_some_and(is_taken);
        let mut given: HashMap<usize, Arc<PortPair>> = session
            .tracks
            .iter()
            .filter(|t| takes(t.media_line))
            .map(|t| (t.media_line, Arc::clone(&t.pair)))
            .collect();
        // Tracks that were removed count too: they keep their number and their ports, to come back with.
        let room = usize::from(self.settings.tracks_per_session_max).saturating_sub(session.tracks.len());
        let is_new = |line: &usize| !session.tracks.iter().any(|t| t.media_line == *line);
        // An answer adds nothing to what was offered.
        let room = if tx.is_some() { room } else { 0 };
        let missing: Vec<usize> = lines_taken(offer).filter(is_new).take(room).collect();
        let fresh = if missing.is_empty() { Some(Vec::new()) } else { self.ports.take(now.journal_ns, missing.len()) };
        if fresh.is_none() {
            self.flaw(dialog, "ports-exhausted", "no media port was free for a media line that was added".into());
        }
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        given.extend(missing.iter().copied().zip(fresh.unwrap_or_default()));
        let mut agreed = session.sdp.own_keys.agree(offer, given.keys().copied(), rng);
        let negotiated = match tx {
            Some(_) => session.sdp.answer(offer, &given, &agreed),
            None => session.sdp.read_answer(offer, &given, &agreed),
        };
        session.offer = offer.clone();
        let answer = tx.map(|tx| Todo::Accept(tx, with_sdp(&session.sdp.last)));

        let mut changes = Vec::new();
        let mut media = Vec::new();
        for track in &negotiated {
            match session.tracks.iter_mut().find(|t| t.media_line == track.media_line) {
                Some(known) => {
                    media.extend(known.rekey(recording, track.secured, agreed.remove(&track.media_line)));
                    media.extend(known.change(recording, track));
                }
                None => {
                    let Some(pair) = given.get(&track.media_line) else { continue };
                    let held_back = session.held_back;
                    let added = session.add_track(track, Arc::clone(pair));
                    media.push(Todo::Media(Command::AddTrack {
                        recording,
                        track: added.to_new(agreed.get_mut(&track.media_line), held_back),
                    }));
                    if added.paused {
                        changes.push((added.number, true));
                    }
                }
            }
        }
        // A line that is gone from the answer (port 0) is silent on purpose until it comes back.
        for track in &mut session.tracks {
            let negotiated = negotiated.iter().find(|n| n.media_line == track.media_line);
            let paused = negotiated.is_none_or(|n| n.paused);
            if paused != track.paused {
                track.paused = paused;
                changes.push((track.number, paused));
                session.changed_ns = now.journal_ns;
                // What is held back here stays so, whatever the client does.
                if !session.held_back {
                    let (track, at_ns) = (track.number, now.journal_ns);
                    media.push(Todo::Media(Command::Pause { recording, track, paused, at_ns }));
                }
            }
        }
        let count = session.tracks.len();
        // The media first: when the client hears that it is paused, nothing that it says from then on may be kept.
        self.todo.extend(media);
        self.todo.extend(answer);
        self.note_refused_lines(dialog, offer);
        self.tell_call(now, dialog);
        self.tell_pauses(now, recording, &changes, count);
    }

    /// Writes down what was paused or resumed: once for the session when all of its tracks changed alike, otherwise track by
    /// track, so that no reader has to know what an event for all means for one.
    pub(super) fn tell_pauses(&mut self, now: Moment, recording: Uuid, changes: &[(u8, bool)], tracks: usize) {
        let Some(&(_, paused)) = changes.first() else { return };
        if changes.len() == tracks && changes.iter().all(|change| change.1 == paused) {
            return self.event(recording, pause_event(now, None, paused, CLIENT));
        }
        for &(track, paused) in changes {
            self.event(recording, pause_event(now, Some(track), paused, CLIENT));
        }
    }

    /// Which media lines of a first offer are recorded: the first that can be, up to the limit.
    pub(super) fn lines_to_take(&self, offer: &Offer) -> Vec<usize> {
        lines_taken(offer).take(usize::from(self.settings.tracks_per_session_max)).collect()
    }

    /// Says which audio of the offer is not recorded, and why.
    pub(super) fn note_refused_lines(&mut self, dialog: DialogId, offer: &Offer) {
        let Some(session) = self.by_dialog.get(&dialog) else { return };
        let missing = lines_taken(offer).filter(|line| !session.tracks.iter().any(|t| t.media_line == *line)).count();
        let over = session.tracks.len() + missing > usize::from(self.settings.tracks_per_session_max);
        if missing > 0 && over {
            let text = "the offer has more media lines than limits.tracks_per_session_max";
            self.flaw(dialog, "tracks-refused", text.into());
        }
        if offer.recordable().any(|(_, line)| line.port != 0 && !can_be_opened(line)) {
            let text = "a media line asks for SRTP without a key of a suite that is taken; it was refused";
            self.flaw(dialog, "srtp-refused", text.into());
        }
    }
}

fn lines_taken(offer: &Offer) -> impl Iterator<Item = usize> {
    offer.recordable().filter(|(_, line)| is_taken(line)).map(|(index, _)| index)
}

fn is_taken(line: &MediaLine) -> bool {
    line.is_recordable() && line.port != 0 && can_be_opened(line)
}

/// Who pauses by signalling.
const CLIENT: &str = "client";

/// Who pauses by asking here.
pub(super) const CONTROL: &str = "control";

pub(super) fn pause_event(now: Moment, track: Option<u8>, paused: bool, by: &str) -> SessionEvent {
    let pause = Pause { track, at_ns: now.journal_ns, by: by.to_owned() };
    if paused { SessionEvent::Paused(pause) } else { SessionEvent::Resumed(pause) }
}
