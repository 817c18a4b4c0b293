//! The sessions: what each SIP event means for the recordings, decided without waiting for anybody.
//!
//! This machine is told what the SIP endpoint saw and what time it is, and answers with things to do: answer the INVITE, write
//! to the journal, follow or leave media sockets, ask the daemon. All of it is in memory, which is what keeps an answer fast.
//! It has no socket of its own but the pool of port pairs, and no clock.
//!
//! The rule is *accept and flag*: a session is refused only for a source outside the allow-list, for a limit, or for an offer
//! without audio. Everything else is recorded, and what was odd about it is written beside it.

mod control;
mod keys;
mod media;
mod resuming;
mod session;
mod standing;
#[cfg(test)]
mod tests;
mod told;
mod verdicts;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_control::{LiveCall, Start, ToDaemon};
use callvault_journal::facts::{self, CallFacts, Ended, SessionEvent, Started};
use callvault_sip::{
    Accept, DialogId, Event, Flow, Multipart, NameAddr, Request, TransactionId, TransportKind, multipart,
};
use callvault_siprec::{Metadata, Offer, SiprecError};
use rand::CryptoRng;
use uuid::{Builder, Uuid};

use crate::appender::Entry;
use crate::convert;
use crate::ports::{PortPair, PortPool};
use crate::sweep::{Command, Counters};
pub(crate) use resuming::is_ahead;
pub(crate) use session::Kept;
use session::{AnswerState, Session, with_sdp};
use standing::{Changes, Standing, Standings};
pub(crate) use told::SnapshotRequests;
use verdicts::Question;

/// Flaws kept per session: a client that goes wrong all day must not fill the journal.
const FLAWS_MAX: usize = 64;

/// Longest text of a live call, in bytes: three of them fit what the control protocol gives a call.
const LIVE_TEXT_BYTES_MAX: usize = 120;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Journal time in nanoseconds.
    pub(crate) journal_ns: u64,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub(crate) wall_ns: i64,
}

/// Something to do, in this order.
pub(crate) enum Todo {
    /// Answer a request with 200.
    Accept(TransactionId, Accept),
    /// Refuse a request.
    Reject(TransactionId, u16, &'static str, Vec<(String, String)>),
    /// Send UPDATE with a body of this type and further header fields.
    Update(DialogId, (String, Vec<u8>), Vec<(String, String)>),
    /// End a dialog; the text goes into the Reason header (RFC 3326).
    Bye(DialogId, &'static str),
    /// For the sweep.
    Media(Command),
    /// For the journal.
    Journal(Entry),
    /// For the daemon.
    Tell(ToDaemon),
}

/// Sums over all sessions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Sessions accepted.
    pub(crate) accepted: u64,
    /// Recordings begun after another of their session was stopped.
    pub(crate) started_again: u64,
    /// INVITEs refused for a limit.
    pub(crate) overloaded: u64,
    /// INVITEs refused for what they are.
    pub(crate) refused: u64,
}

/// What the header fields of the first INVITE say about the parties.
#[derive(Clone)]
pub(crate) struct Parties {
    pub(crate) from: NameAddr,
    /// The same as it came.
    pub(crate) text: String,
    pub(crate) correlation: Option<String>,
}

/// The machine.
pub(crate) struct Sessions {
    settings: Arc<Start>,
    ports: PortPool,
    /// Boxed, as a tree keeps room for almost half as many again.
    by_dialog: BTreeMap<DialogId, Box<Session>>,
    /// All recordings of sessions that live: those that were stopped go on naming their call.
    by_recording: HashMap<Uuid, DialogId>,
    /// Recordings without a verdict, oldest first (their ids are ordered by time).
    undecided: BTreeMap<Uuid, Question>,
    /// Recordings whose end is not durable.
    standings: Standings,
    /// What is not in the checkpoints.
    changes: Changes,
    todo: VecDeque<Todo>,
    totals: Totals,
    draining: bool,
    spool_full: bool,
    behind: bool,
}

impl Sessions {
    pub(crate) fn new(settings: Arc<Start>, ports: PortPool) -> Self {
        Self {
            settings,
            ports,
            by_dialog: BTreeMap::new(),
            by_recording: HashMap::new(),
            undecided: BTreeMap::new(),
            standings: Standings::new(),
            changes: Changes::default(),
            todo: VecDeque::new(),
            totals: Totals::default(),
            draining: false,
            spool_full: false,
            behind: false,
        }
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Todo> {
        self.todo.pop_front()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn live(&self) -> usize {
        self.by_dialog.len()
    }

    pub(crate) fn port_pairs(&self) -> (usize, usize) {
        (self.ports.used(), self.ports.total())
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// From now on no new session is taken, or they are taken again.
    pub(crate) fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Whether the journal's disk is below its floor, and whether the journal is behind.
    pub(crate) fn set_storage(&mut self, spool_full: bool, behind: bool) {
        self.spool_full = spool_full;
        self.behind = behind;
    }

    /// Ends every session, since the recorder stops.
    pub(crate) fn end_all(&mut self, now: Moment, reason: &'static str) {
        let dialogs: Vec<DialogId> = self.by_dialog.keys().copied().collect();
        for dialog in dialogs {
            self.todo.push_back(Todo::Bye(dialog, "SIP ;text=\"the recorder stops\""));
            self.end(now, dialog, reason);
        }
    }

    /// The sweep has left the sockets of a session.
    pub(crate) fn ports_left(&mut self, now: Moment, pairs: Vec<Arc<PortPair>>) {
        self.ports.give_back(now.journal_ns, pairs);
    }

    /// Nothing has been heard on any track of a recording for the longest time allowed.
    pub(crate) fn fell_silent(&mut self, now: Moment, recording: Uuid) {
        if let Some(dialog) = self.by_recording.get(&recording).copied() {
            self.todo.push_back(Todo::Bye(dialog, "SIP ;text=\"no media\""));
            self.end(now, dialog, "media-timeout");
        }
    }

    /// The calls that live now.
    pub(crate) fn calls(&self, now: Moment) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self
            .by_dialog
            .values()
            .map(|s| {
                let remote = s.call.remotes.first();
                LiveCall {
                    standing: s.standing(),
                    started_unix_ms: s.started.wall_ns / 1_000_000,
                    duration_ms: now.journal_ns.saturating_sub(s.started.journal_ns) / 1_000_000,
                    local_number: s.call.local.number.as_deref().map(clipped),
                    remote_number: remote.and_then(|p| p.number.as_deref()).map(clipped),
                    remote_name: remote.and_then(|p| p.name.as_deref()).map(clipped),
                    direction: convert::direction_name(s.call.direction).to_owned(),
                    tracks: u8::try_from(s.tracks.len()).unwrap_or(u8::MAX),
                    packets: s.counters.packets.load(Ordering::Relaxed),
                }
            })
            .collect();
        calls.sort_by_key(|c| c.standing.recording);
        calls
    }

    /// What the SIP endpoint saw.
    pub(crate) fn handle(&mut self, now: Moment, event: Event, rng: &mut dyn CryptoRng) {
        self.changes.dialogs.extend(dialog_of(&event));
        match event {
            Event::Invite { tx, dialog, request, flow, hints } => {
                self.invite(now, tx, dialog, &request, &flow, rng);
                if !hints.is_recording() {
                    self.flaw(
                        dialog,
                        "not-marked-as-recording",
                        "nothing in the INVITE marks it as a recording session; it was recorded all the same".into(),
                    );
                }
                if !hints.unknown_required.is_empty() {
                    self.flaw(
                        dialog,
                        "extension-unknown",
                        "the INVITE requires a SIP extension that is not known here".into(),
                    );
                }
            }
            Event::Reinvite { tx, dialog, request } | Event::Update { tx, dialog, request } => {
                self.changed(now, tx, dialog, &request, rng);
            }
            Event::Info { tx, dialog, request } => {
                if let Ok(bodies) = multipart::bodies(&request) {
                    self.keep_raw(dialog, &request, &bodies);
                    self.take_metadata(now, dialog, &bodies);
                }
                self.todo.push_back(Todo::Accept(tx, Accept::default()));
            }
            Event::Options { tx, .. } => match self.overload() {
                None => self.todo.push_back(Todo::Accept(tx, Accept::default())),
                Some(_) => self.unavailable(tx),
            },
            Event::Bye { dialog, request } => {
                if let Ok(bodies) = multipart::bodies(&request) {
                    self.keep_raw(dialog, &request, &bodies);
                    self.take_metadata(now, dialog, &bodies);
                }
                self.end(now, dialog, "bye");
            }
            Event::Cancelled { dialog, .. } => self.end(now, dialog, "cancel"),
            Event::AckTimeout { dialog } => self.ack_missing(now, dialog),
            Event::SessionExpired { dialog } => self.session_expired(now, dialog),
            Event::Ended { dialog, .. } => self.end(now, dialog, "dialog-ended"),
            Event::Acked { dialog, request } => self.take_answer(now, dialog, &request, rng),
            Event::RequestAnswered { .. } => {}
        }
    }

    fn invite(
        &mut self,
        now: Moment,
        tx: TransactionId,
        dialog: DialogId,
        request: &Request,
        flow: &Flow,
        rng: &mut dyn CryptoRng,
    ) {
        if !self.settings.allowed_peers.iter().any(|n| n.contains(flow.peer.ip())) {
            return self.refuse(tx, 403, "Forbidden", "this source is not in sip.allowed_peers");
        }
        if let Some(why) = self.overload() {
            tracing::warn!(why, "a session was refused with 503: {why}");
            self.totals.overloaded += 1;
            return self.unavailable(tx);
        }
        let bodies = match multipart::bodies(request) {
            Ok(bodies) => bodies,
            Err(_) => {
                return self.refuse(tx, 400, "Bad Request", "the parts of the body cannot be told apart");
            }
        };
        // Without an offer (Cisco's call manager does so unless told otherwise) the client wants ours, and answers it in its ACK.
        let wanted = bodies.sdp().is_none().then(|| offer_for(flow.peer.ip()));
        let described = wanted.as_ref().map_or_else(|| bodies.sdp().map_or(&[][..], |sdp| &sdp.body), String::as_bytes);
        let offer = match Offer::parse(described) {
            Ok(offer) => offer,
            Err(error) => {
                tracing::warn!(%error, "failed to {error}");
                let why = match error {
                    SiprecError::NoAudio => "the session description offers no audio",
                    _ => "the session description cannot be read",
                };
                return self.refuse(tx, 488, "Not Acceptable Here", why);
            }
        };
        let lines = self.lines_to_take(&offer);
        if lines.is_empty() {
            let secure = offer.recordable().any(|(_, line)| line.is_secure());
            let why = if secure {
                "only SRTP is offered, without a key of a suite that is taken"
            } else {
                "every audio line has port 0"
            };
            return self.refuse(tx, 488, "Not Acceptable Here", why);
        }
        let Some(pairs) = self.ports.take(now.journal_ns, lines.len()) else {
            tracing::error!(
                used = self.ports.used(),
                "a session was refused with 503: no media port is free; widen media.ports or lower limits.sessions_max"
            );
            self.totals.overloaded += 1;
            return self.unavailable(tx);
        };
        let given: HashMap<usize, Arc<PortPair>> = lines.into_iter().zip(pairs).collect();
        self.open(now, tx, dialog, request, flow, &bodies, &offer, &given, rng);
    }

    #[allow(clippy::too_many_arguments)] // one caller, and every one of them is part of the INVITE
    fn open(
        &mut self,
        now: Moment,
        tx: TransactionId,
        dialog: DialogId,
        request: &Request,
        flow: &Flow,
        bodies: &Multipart,
        offer: &Offer,
        given: &HashMap<usize, Arc<PortPair>>,
        rng: &mut dyn CryptoRng,
    ) {
        let recording = new_id(now, rng);
        let address = self.settings.media_address.unwrap_or_else(|| flow.local.ip());
        let mut state = AnswerState::new(rng.next_u64() >> 1, address);
        let mut agreed = state.own_keys.agree(offer, given.keys().copied(), rng);
        let negotiated = state.answer(offer, given, &agreed);
        state.is_offer = bodies.sdp().is_none();
        self.todo.push_back(Todo::Accept(tx, with_sdp(&state.last)));
        self.totals.accepted += 1;

        let counters = Arc::new(Counters::default());
        let origin = started(now, request, flow);
        self.open_recording(recording, Standing::new(0, origin.clone(), 0), None);
        let mut session = Session {
            recording,
            recordings: vec![recording],
            origin: origin.clone(),
            kept: Kept::Undecided,
            stopped: false,
            held_back: false,
            changed_ns: now.journal_ns,
            snapshots: SnapshotRequests::of(request),
            started: now,
            parties: parties(request),
            offer: offer.clone(),
            metadata: Ok(None),
            call: CallFacts::default(),
            tracks: Vec::with_capacity(given.len()),
            sdp: state,
            raw_bodies: 0,
            raw_bytes: 0,
            flaws: Vec::new(),
            counters: Arc::clone(&counters),
        };
        self.event(recording, SessionEvent::Started(origin));
        for track in &negotiated {
            if let Some(pair) = given.get(&track.media_line) {
                session.add_track(track, Arc::clone(pair));
            }
        }
        let new = session.tracks.iter().map(|track| track.to_new(agreed.get_mut(&track.media_line), false)).collect();
        self.todo.push_back(Todo::Media(Command::Open { recording, tracks: new, counters, opened_ns: now.journal_ns }));
        self.by_recording.insert(recording, dialog);
        self.by_dialog.insert(dialog, Box::new(session));

        for flaw in &request.flaws {
            self.flaw(dialog, "message-malformed", format!("the INVITE was not as RFC 3261 has it: {}", flaw.name()));
        }
        for flaw in &bodies.flaws {
            self.flaw(dialog, "body-malformed", format!("the body was not as RFC 2046 has it: {}", flaw.name()));
        }
        if bodies.sdp().is_none() {
            let text = "the INVITE had no offer; it was answered with one";
            self.flaw(dialog, "offer-missing", text.into());
        }
        self.note_refused_lines(dialog, offer);
        self.keep_raw(dialog, request, bodies);
        let metadata = match bodies.recording_metadata() {
            Some(part) => Metadata::parse(&part.body).map(Some),
            // Cisco's network-based recording has no metadata part: the participants are in header fields.
            None => {
                let participants = request.headers.all("X-Cisco-Recording-Participant");
                Ok(Metadata::from_cisco_participants(participants.map(callvault_sip::Field::value)))
            }
        };
        self.begin_metadata(now, dialog, metadata);
        self.tell_call(now, dialog);
        let Some(session) = self.by_dialog.get(&dialog) else { return };
        let paused: Vec<_> = session.tracks.iter().filter(|t| t.paused).map(|t| (t.number, true)).collect();
        let count = session.tracks.len();
        self.tell_pauses(now, recording, &paused, count);
        self.ask(now, dialog);
    }

    /// A re-INVITE or an UPDATE: media, metadata, both or neither.
    fn changed(
        &mut self,
        now: Moment,
        tx: TransactionId,
        dialog: DialogId,
        request: &Request,
        rng: &mut dyn CryptoRng,
    ) {
        if !self.by_dialog.contains_key(&dialog) {
            return self.decline(tx, 481, "Call/Transaction Does Not Exist", "this session has ended");
        }
        let is_invite = request.method == callvault_sip::Method::Invite;
        let bodies = match multipart::bodies(request) {
            Ok(bodies) => bodies,
            Err(_) => {
                self.flaw(dialog, "body-malformed", "the parts of a later message could not be told apart".into());
                return self.decline(tx, 400, "Bad Request", "the parts of the body cannot be told apart");
            }
        };
        self.keep_raw(dialog, request, &bodies);
        match bodies.sdp().map(|part| Offer::parse(&part.body)) {
            None if is_invite => {
                let offer = self.by_dialog.get_mut(&dialog).map(|session| with_sdp(session.sdp.offer()));
                self.todo.push_back(Todo::Accept(tx, offer.unwrap_or_default()));
            }
            None => self.todo.push_back(Todo::Accept(tx, Accept::default())),
            Some(Err(error)) => {
                tracing::warn!(%error, "failed to {error}");
                self.flaw(
                    dialog,
                    "offer-malformed",
                    "a later offer could not be read; the media went on as before".into(),
                );
                return self.decline(tx, 488, "Not Acceptable Here", "the session description offers no audio");
            }
            Some(Ok(offer)) => self.renegotiate(now, Some(tx), dialog, &offer, rng),
        }
        self.take_metadata(now, dialog, &bodies);
    }

    /// The answer was never acknowledged: while media comes there is something to record, without it there is nobody.
    fn ack_missing(&mut self, now: Moment, dialog: DialogId) {
        let Some(session) = self.by_dialog.get(&dialog) else { return };
        if session.had_media() {
            let text = "the client never acknowledged the answer; the recording went on with the media that came";
            return self.flaw(dialog, "ack-missing", text.into());
        }
        self.todo.push_back(Todo::Bye(dialog, "SIP ;text=\"no ACK and no media\""));
        self.end(now, dialog, "ack-timeout");
    }

    /// The client has not refreshed its session: as when an answer is not acknowledged.
    fn session_expired(&mut self, now: Moment, dialog: DialogId) {
        let Some(session) = self.by_dialog.get(&dialog) else { return };
        if session.had_media() {
            let text = "the client let its session timer run out; the recording went on with the media that came";
            return self.flaw(dialog, "session-expired", text.into());
        }
        self.todo.push_back(Todo::Bye(dialog, "SIP ;text=\"session expired and no media\""));
        self.end(now, dialog, "session-expired");
    }

    fn end(&mut self, now: Moment, dialog: DialogId, reason: &str) {
        self.note_broken_sequence(dialog);
        let Some(session) = self.by_dialog.remove(&dialog) else { return };
        for recording in &session.recordings {
            self.by_recording.remove(recording);
        }
        let ended =
            Ended { wall_ns: now.wall_ns, at_ns: now.journal_ns, reason: reason.to_owned(), tracks: Vec::new() };
        if !session.stopped {
            self.note_end(session.recording, session.end(ended.clone(), session.track_checkpoints()));
        }
        self.changes.gone.extend(session.recordings.first());
        self.todo.push_back(Todo::Media(Command::Close { recording: session.recording, ended }));
    }

    fn flaw(&mut self, dialog: DialogId, code: &'static str, text: String) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        if session.flaws.len() >= FLAWS_MAX || session.flaws.iter().any(|known| *known == code) {
            return;
        }
        session.flaws.push(code.into());
        let recording = session.recording;
        self.event(recording, SessionEvent::Flaw(facts::Flaw { code: code.to_owned(), text }));
    }

    /// Why no session can be taken now, if so.
    fn overload(&self) -> Option<&'static str> {
        if self.draining {
            Some("the recorder drains")
        } else if self.by_dialog.len() >= self.settings.sessions_max as usize {
            Some("limits.sessions_max is reached")
        } else if self.spool_full {
            Some("the journal's disk is below journal.spool_free_min")
        } else if self.behind {
            Some("the journal's disk does not keep up")
        } else {
            None
        }
    }

    fn unavailable(&mut self, tx: TransactionId) {
        let headers = vec![("Retry-After".to_owned(), self.settings.retry_after_s.to_string())];
        self.todo.push_back(Todo::Reject(tx, 503, "Service Unavailable", headers));
    }

    /// Refuses an INVITE for what it is.
    fn refuse(&mut self, tx: TransactionId, status: u16, reason: &'static str, why: &'static str) {
        self.totals.refused += 1;
        self.decline(tx, status, reason, why);
    }

    /// Refuses a request that opens no session.
    fn decline(&mut self, tx: TransactionId, status: u16, reason: &'static str, why: &'static str) {
        tracing::warn!(status, why, "a request was refused with {status}: {why}");
        // RFC 3261 section 20.43: 399 is a warning for people.
        let headers = vec![("Warning".to_owned(), format!("399 callvault \"{why}\""))];
        self.todo.push_back(Todo::Reject(tx, status, reason, headers));
    }
}

/// The dialog that an event is about.
fn dialog_of(event: &Event) -> Option<DialogId> {
    match event {
        Event::Invite { dialog, .. }
        | Event::Reinvite { dialog, .. }
        | Event::Update { dialog, .. }
        | Event::Info { dialog, .. }
        | Event::Acked { dialog, .. }
        | Event::AckTimeout { dialog } => Some(*dialog),
        // What else happens changes nothing, or ends the session.
        _ => None,
    }
}

/// What a client that sends no offer is taken to have offered, so that our answer to it is an offer of the usual codecs: one line, as
/// clients of that kind send. Where its audio comes from is not known until it answers.
fn offer_for(client: IpAddr) -> String {
    let family = if client.is_ipv4() { "IP4" } else { "IP6" };
    let mut text = format!("v=0\r\no=- 0 0 IN {family} {client}\r\ns=-\r\nc=IN {family} {client}\r\nt=0 0\r\n");
    text += "m=audio 9 RTP/AVP 0 8 9 18 96 101\r\n";
    for codec in
        ["0 PCMU/8000", "8 PCMA/8000", "9 G722/8000", "18 G729/8000", "96 opus/48000/2", "101 telephone-event/8000"]
    {
        text += &format!("a=rtpmap:{codec}\r\n");
    }
    text + "a=fmtp:96 useinbandfec=1\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendonly\r\n"
}

fn parties(request: &Request) -> Parties {
    let from = request.headers.get("From").unwrap_or_default();
    Parties {
        from: NameAddr::parse(from),
        text: from.to_owned(),
        correlation: request.headers.get("X-BroadWorks-Correlation-Info").map(str::to_owned),
    }
}

fn started(now: Moment, request: &Request, flow: &Flow) -> Started {
    let peer: SocketAddr = flow.peer;
    Started {
        wall_ns: now.wall_ns,
        at_ns: now.journal_ns,
        sip_call_id: request.headers.get("Call-ID").unwrap_or_default().to_owned(),
        peer: peer.to_string(),
        transport: match flow.kind {
            TransportKind::Udp => "udp",
            TransportKind::Tcp => "tcp",
            TransportKind::Tls => "tls",
        }
        .to_owned(),
        user_agent: request.headers.get("User-Agent").map(str::to_owned),
        follows: None,
        resumed: None,
    }
}

/// A text short enough for the list of live calls.
fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(LIVE_TEXT_BYTES_MAX)].to_owned()
}

/// A UUIDv7: unique everywhere, ordered by time.
fn new_id(now: Moment, rng: &mut dyn CryptoRng) -> Uuid {
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    let ms = u64::try_from(now.wall_ns / 1_000_000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
}
