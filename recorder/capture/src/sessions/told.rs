//! What a session is told about the call, and what of that is written down.

use callvault_journal::facts::{RawBody, SessionEvent};
use callvault_sip::{DialogId, Multipart, Request};
use callvault_siprec::{Merge, Metadata};

use super::Sessions;
use crate::convert;

/// Raw bodies kept per session: a client that re-sends metadata all day must not fill the journal.
const RAW_BODIES_MAX: u32 = 200;

/// Bytes of raw bodies kept per session, for the same reason: 200 of the largest metadata that real clients send.
const RAW_BYTES_MAX: usize = 4 << 20;

impl Sessions {
    /// Metadata that came with a later message.
    pub(super) fn take_metadata(&mut self, dialog: DialogId, bodies: &Multipart) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let Some(part) = bodies.recording_metadata() else { return };
        match (Metadata::parse(&part.body), &mut session.metadata) {
            (Ok(later), Ok(Some(known))) => {
                if known.merge(later) == Merge::Unchanged {
                    return;
                }
                // Whoever talks now may send from elsewhere, as after a transfer.
                let recording = session.recording;
                self.todo.extend(session.tracks.iter().map(|track| track.announce(recording)));
            }
            (Ok(later), unknown) => *unknown = Ok(Some(later)),
            // What was understood before still holds.
            (Err(error), Ok(Some(_))) => {
                let text = format!("later metadata was not understood: failed to {error}");
                return self.flaw(dialog, "metadata-malformed", text);
            }
            (Err(error), unknown) => *unknown = Err(error),
        }
        self.tell_call(dialog);
    }

    /// Works out the facts of the call again and writes down what changed.
    pub(super) fn tell_call(&mut self, dialog: DialogId) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let recording = session.recording;
        let understood = convert::understand(&session.parties, &session.offer, session.metadata.as_ref());
        let mut events = Vec::new();
        if understood.call != session.call {
            session.call = understood.call;
            events.push(SessionEvent::Call(Box::new(session.call.clone())));
        }
        for track in &mut session.tracks {
            let mut facts = track.facts.clone();
            if let Some(role) = understood.roles.iter().find(|r| r.media_line == track.media_line) {
                (facts.local, facts.mixed) = (role.local, role.mixed);
            }
            if !track.told || facts != track.facts {
                track.told = true;
                track.facts = facts;
                events.push(SessionEvent::Track(track.facts.clone()));
            }
        }
        for event in events {
            self.event(recording, event);
        }
        for flaw in understood.flaws {
            self.flaw(dialog, flaw.code, flaw.text);
        }
    }

    pub(super) fn keep_raw(&mut self, dialog: DialogId, request: &Request, bodies: &Multipart) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let recording = session.recording;
        let mut kept = Vec::new();
        let mut left_out = false;
        for part in &bodies.parts {
            if session.raw_bodies >= RAW_BODIES_MAX || session.raw_bytes + part.body.len() > RAW_BYTES_MAX {
                left_out = true;
                break;
            }
            session.raw_bodies += 1;
            session.raw_bytes += part.body.len();
            let text = String::from_utf8_lossy(&part.body);
            kept.push(RawBody {
                method: request.method.as_str().to_owned(),
                content_type: part.content_type().unwrap_or_default(),
                text: if part.is_sdp() { callvault_siprec::without_keys(&text) } else { text.into_owned() },
            });
        }
        for body in kept {
            self.event(recording, SessionEvent::Raw(body));
        }
        if left_out {
            let text = "the client sent so many bodies that later ones are not kept; what they say was used";
            self.flaw(dialog, "raw-bodies-left-out", text.into());
        }
    }
}
