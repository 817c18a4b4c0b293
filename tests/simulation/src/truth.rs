//! What really happened, noted at the network and at the moments of death, and compared at the end with what the appliance has.

use std::collections::{BTreeMap, BTreeSet};

use callvault_capture::simulated::GoesOn;
use uuid::Uuid;

use crate::client::{MS, PAYLOAD_BYTES, PacketId};
use crate::daemon::KEY_LOST;
use crate::outside::{Outside, is_traced};
use crate::spool::Spool;
use crate::working;

/// What arrives so near a pause or an end may be in the recording or not: the sweep looks every 20 ms.
const EDGE_NS: u64 = 80 * MS;

/// What tells that another recorder went on, and what is missing because of that.
const RESTARTED: &str = "recorder-restarted";

/// Ticks of an archive in a tick of G.711.
const TICKS: i64 = 6;

/// More pauses than a call has.
const PAUSES_MAX: usize = 1_000;

/// Ticks of an archive in a millisecond.
const TICKS_PER_MS: i64 = 48;

/// How far a packet may be from where its arrival says: what the network delays, twice, and what the sweep and the grid add.
const APART_MS_MAX: i64 = 200;

/// How long ports rest after a call, and until that is so.
const RESTING_NS: u64 = 2_500 * MS;

/// How long after it began a recorder may still find what had come before.
const RESUMING_NS: u64 = 3_000 * MS;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, by a recorder that went on.
    InOrder,
    /// With its recorder, which stopped in order; the client may not have heard of it.
    Stopped,
    /// The recorder was killed while it lived, or before its end was durable.
    Killed,
    PowerCut,
}

/// A session that was accepted.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) call: u16,
    /// What its recorder calls the dialog: a client that is answered twice has two sessions, and knows of one.
    tag: String,
    pub(crate) recording: Uuid,
    ports: Vec<u16>,
    from_ns: u64,
    /// When a recorder first heard that it is to end. One that died at that may not have written it down.
    leaving_ns: Option<u64>,
    /// When it had ended: by a BYE that was answered, or with its recorder.
    pub(crate) to_ns: Option<u64>,
    pub(crate) end: Option<End>,
    pauses: Vec<(u64, Option<u64>)>,
    /// An offer that a recorder has heard and none has answered yet.
    asked: Option<(u32, u64)>,
    /// Between an offer and its answer nobody can say what holds.
    unclear: Vec<(u64, u64)>,
    cseq: u32,
    /// Whether its lane was there after its recorder had died; true while none died.
    pub(crate) has_lane: bool,
    /// What arrived then may be lost: before each death of a recorder what it had in memory.
    gaps: Vec<(u64, u64)>,
    /// How many of the gaps are as they are, because what was before them has reached the device.
    gaps_known: usize,
    /// Its recorder died then, and none has gone on yet.
    limbo: Option<u64>,
    resumed_ns: u64,
    /// Nothing more becomes of it.
    settled: bool,
    /// Its disk had failed, and when the power went it had a row and no archive.
    is_forgotten: bool,
    /// A recorder found the end of its recording in the journal, while the session lived: it was discarded.
    recording_over: bool,
    /// Open: its recorder died while its ports rested, which the next one knows nothing of.
    rest_forgotten: bool,
    /// How often the wall clock was set while packets waited that nobody had taken. When it was once, the stamps tell when they came; when
    /// it was more often, that is not known, and what may be of a pause is not kept.
    clock_sets: u32,
}

/// What the daemon said of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Keep,
    Discard,
    OnDemand,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) sessions: Vec<Session>,
    /// First arrival of each packet: at which port and when, and its RTP source and timestamp.
    arrivals: BTreeMap<PacketId, (u16, u64, u32, u32)>,
    /// What the daemon said of each recording, to a recorder that lived on.
    verdicts: BTreeMap<Uuid, Said>,
    /// Recordings that were begun, by call: also those of which no client ever heard.
    named: BTreeMap<Uuid, u16>,
    /// The same in the order in which they were begun, which ids are not in where the wall clock was set.
    begun: Vec<(u16, Uuid)>,
    /// Recordings whose end a recorder knew to be durable.
    pub(crate) durable: BTreeSet<Uuid>,
    pub(crate) packets_checked: u64,
    /// Sessions with which another recorder went on.
    pub(crate) gone_on: u64,
}

impl Truth {
    /// A recorder begins a recording, or goes on with it.
    pub(crate) fn named(&mut self, call: u16, recording: Uuid) {
        if self.named.insert(recording, call).is_none() {
            self.begun.push((call, recording));
        }
    }

    /// A 200 to an INVITE leaves: a session is accepted, or a later offer.
    pub(crate) fn answered(&mut self, call: u16, tag: &str, cseq: u32, inactive: bool, ports: Vec<u16>, now_ns: u64) {
        let known = self.sessions.iter_mut().find(|session| session.call == call && session.tag == tag);
        if let Some(session) = known {
            return session.offered(cseq, inactive, now_ns);
        }
        let is_taken = |id: &Uuid| self.sessions.iter().any(|session| session.recording == *id);
        // The latest: one that was begun before may have died with its recorder, before it was answered.
        let of_call = self.begun.iter().filter(|(of, id)| *of == call && !is_taken(id));
        let Some(recording) = of_call.map(|(_, id)| *id).next_back() else { return };
        if is_traced() {
            println!("             call {call} is recording {recording}");
        }
        self.sessions.push(Session {
            call,
            tag: tag.to_owned(),
            recording,
            ports,
            from_ns: now_ns,
            leaving_ns: None,
            to_ns: None,
            end: None,
            pauses: Vec::new(),
            asked: None,
            unclear: Vec::new(),
            cseq,
            has_lane: true,
            gaps: Vec::new(),
            gaps_known: 0,
            limbo: None,
            resumed_ns: 0,
            settled: false,
            is_forgotten: false,
            recording_over: false,
            rest_forgotten: false,
            clock_sets: 0,
        });
    }

    /// A verdict reached a recorder that had asked for it and wrote it down.
    pub(crate) fn decided(&mut self, recording: Uuid, said: Said) {
        if self.named.contains_key(&recording) {
            self.verdicts.insert(recording, said);
        }
    }

    /// Whether a recording was begun and nothing was said of it yet.
    pub(crate) fn is_undecided(&self, recording: Uuid) -> bool {
        self.named.contains_key(&recording) && !self.verdicts.contains_key(&recording)
    }

    fn live(&mut self, call: u16, tag: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| s.call == call && s.tag == tag && s.to_ns.is_none())
    }

    /// A recorder hears an offer.
    pub(crate) fn asked(&mut self, call: u16, tag: &str, cseq: u32, now_ns: u64) {
        if let Some(session) = self.live(call, tag)
            && cseq > session.asked.map_or(session.cseq, |(asked, _)| asked)
        {
            // One that was never answered stays unclear from where it began.
            let since_ns = session.asked.map_or(now_ns, |(_, since_ns)| since_ns);
            session.asked = Some((cseq, since_ns));
        }
    }

    /// A recorder hears that the call is over.
    pub(crate) fn leaving(&mut self, call: u16, tag: &str, now_ns: u64) {
        if let Some(session) = self.live(call, tag) {
            session.leaving_ns.get_or_insert(now_ns);
        }
    }

    pub(crate) fn ended(&mut self, call: u16, tag: &str, now_ns: u64) {
        if let Some(session) = self.live(call, tag) {
            (session.to_ns, session.end) = (Some(now_ns), Some(End::InOrder));
            session.leaving_ns.get_or_insert(now_ns);
        }
    }

    pub(crate) fn arrived(&mut self, packet: PacketId, port: u16, now_ns: u64, bytes: &[u8]) {
        let number = |from: usize| u32::from_be_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]]);
        self.arrivals.entry(packet).or_insert((port, now_ns, number(8), number(4)));
    }

    /// The next recorder does not know which ports rest.
    fn rests_are_forgotten(&mut self, now_ns: u64) {
        for session in &mut self.sessions {
            session.rest_forgotten |= session.to_ns.is_some_and(|to| now_ns < to + RESTING_NS);
        }
    }

    /// A recorder is gone, and with it what it had taken for so long; none: nothing is promised.
    pub(crate) fn recorder_died(&mut self, now_ns: u64, loss_ns: Option<u64>) {
        self.rests_are_forgotten(now_ns);
        for session in self.sessions.iter_mut().filter(|s| !s.settled && s.limbo.is_none()) {
            let is_over = session.recording_over || self.durable.contains(&session.recording);
            if session.to_ns.is_some() && is_over {
                session.settled = true;
                continue;
            }
            session.gaps.push((loss_ns.map_or(0, |loss_ns| now_ns.saturating_sub(loss_ns)), now_ns));
            session.limbo = Some(now_ns);
        }
    }

    /// Another recorder has begun.
    pub(crate) fn went_on(&mut self, goes_on: &GoesOn, now_ns: u64) -> Result<(), String> {
        for session in self.sessions.iter_mut().filter(|session| session.limbo.is_some()) {
            let (call, id) = (session.call, session.recording);
            if goes_on.living.contains(&id) {
                if session.to_ns.is_some() {
                    return Err(format!("call {call} had ended, and another recorder goes on with it"));
                }
                session.recording_over |= goes_on.over.contains(&id);
            } else if goes_on.ended.contains(&id) || goes_on.over.contains(&id) {
                session.settled = goes_on.over.contains(&id);
                let since_ns = session.leaving_ns.or(session.limbo);
                session.leaving_ns = since_ns;
                session.to_ns.get_or_insert(now_ns);
                session.end.get_or_insert(End::InOrder);
            } else if session.leaving_ns.is_some() && (session.recording_over || self.durable.contains(&id)) {
                // Nothing was left of it but its dialog, and that was forgotten before the BYE was answered.
                (session.settled, session.end) = (true, Some(End::InOrder));
                session.to_ns.get_or_insert(now_ns);
            } else {
                return Err(format!("no recorder goes on with call {call} (recording {id}): {:?}", goes_on.refused));
            }
            self.gone_on += 1;
            (session.limbo, session.resumed_ns) = (None, now_ns);
        }
        Ok(())
    }

    /// Nobody goes on with what a recorder left: its daemon is gone, or the power.
    pub(crate) fn nobody_goes_on(&mut self, end: End, spool: &Spool) {
        for session in self.sessions.iter_mut().filter(|session| session.limbo.is_some()) {
            let died_ns = session.limbo.take();
            session.has_lane = spool.open_is_there(session.recording, end == End::PowerCut);
            session.to_ns = session.to_ns.or(died_ns);
            session.end = Some(end);
            session.settled = true;
        }
    }

    /// The recorder has stopped in order: its sessions have ended.
    pub(crate) fn stopped(&mut self, now_ns: u64) {
        self.rests_are_forgotten(now_ns);
        for session in self.sessions.iter_mut().filter(|session| !session.settled && session.limbo.is_none()) {
            session.to_ns.get_or_insert(now_ns);
            session.end.get_or_insert(End::Stopped);
            session.settled = true;
        }
    }

    /// What recorders that died had written is on the device.
    pub(crate) fn synced(&mut self) {
        for session in &mut self.sessions {
            session.gaps_known = session.gaps.len();
        }
    }

    /// A power cut may take what recorders that had died before had not synced, as long as nobody else has.
    pub(crate) fn power_cut(&mut self, loss_ns: u64, out: &Outside) {
        for session in &mut self.sessions {
            let catalogue = &out.stable.catalogue;
            let waits = catalogue.rows.get(&session.recording).is_some_and(|row| row.archive.is_none());
            session.is_forgotten |= waits && session.gaps.iter().any(|(from, _)| *from == 0);
            if catalogue.rows.contains_key(&session.recording) || catalogue.tombstones.contains(&session.recording) {
                continue;
            }
            let unsynced = session.gaps.iter_mut().skip(session.gaps_known);
            unsynced.for_each(|(from, _)| *from = from.saturating_sub(loss_ns));
            // Open: an end that the next recorder found in the journal may be in the page cache alone, and nobody syncs it before there
            // is a row.
            if session.settled && session.end == Some(End::InOrder) && !self.durable.contains(&session.recording) {
                session.end = Some(End::Killed);
            }
            if session.end == Some(End::Killed) {
                session.has_lane &= out.spool.open_is_there(session.recording, true);
            }
        }
    }

    /// The wall clock was set. What waits in a socket then is known to have come since the socket was last empty, which with a sick disk
    /// or between two recorders can be long.
    pub(crate) fn clock_set(&mut self, now_ns: u64, was_in_trouble: bool) {
        for session in &mut self.sessions {
            let waits = was_in_trouble || session.limbo.is_some() || now_ns < session.resumed_ns + RESUMING_NS;
            session.clock_sets += u32::from(waits);
        }
    }

    /// The one way in which a packet of another call gets into a recording today: its recorder died or stopped, the client does not know, was
    /// silent while the port rested, and goes on sending to it. Nothing at the port can tell; a session that is resumed keeps its port.
    fn may_intrude(&self, call: u16, port: u16, into: &Session) -> bool {
        let was_cut_off = |end| matches!(end, Some(End::Stopped | End::Killed | End::PowerCut));
        self.sessions.iter().any(|other| {
            other.call == call
                && other.recording != into.recording
                && other.ports.contains(&port)
                && (was_cut_off(other.end) || other.rest_forgotten)
                && other.to_ns.is_some_and(|to| to <= into.from_ns)
        })
    }

    /// Whether such packets came while the session lasted: a track follows one source, and may then have taken the wrong one.
    fn is_disturbed(&self, session: &Session) -> bool {
        self.arrivals.iter().any(|(id, (port, at_ns, ..))| {
            id.call != session.call
                && session.ports.contains(port)
                && *at_ns >= session.from_ns
                && session.to_ns.is_none_or(|to| *at_ns <= to)
                && self.may_intrude(id.call, *port, session)
        })
    }

    /// Everything at the end, when the appliance has come to rest.
    pub(crate) fn check(&mut self, out: &Outside) -> Result<(), String> {
        let catalogue = &out.stable.catalogue;
        for session in &self.sessions {
            let id = session.recording;
            if catalogue.tombstones.contains(&id) {
                continue;
            }
            let Some(row) = catalogue.rows.get(&id) else {
                if session.has_lane {
                    return Err(format!("call {} has no row: recording {id}, {:?}", session.call, session.end));
                }
                continue;
            };
            if row.entered != 1 {
                return Err(format!("recording {id} was entered {} times", row.entered));
            }
            if row.recorded > 1 {
                return Err(format!("two archives were put on record for recording {id}"));
            }
        }
        if let Some(id) = catalogue.rows.keys().find(|id| !self.named.contains_key(*id)) {
            return Err(format!("recording {id} has a row and nobody called"));
        }
        for session in &self.sessions {
            self.packets_checked += self.check_session(session, out)?;
        }
        Ok(())
    }

    fn check_session(&self, session: &Session, out: &Outside) -> Result<u64, String> {
        let id = session.recording;
        let catalogue = &out.stable.catalogue;
        let name = format!("call {} (recording {id})", session.call);
        if catalogue.tombstones.contains(&id) {
            return match out.store.device.read(&format!("{id}.cva")) {
                Some(_) => Err(format!("{name} was deleted and its archive is there")),
                None => Ok(0),
            };
        }
        let Some(row) = catalogue.rows.get(&id) else { return Ok(0) };
        let said = self.verdicts.get(&id);
        let was_discarded = matches!(said, Some(Said::Discard | Said::OnDemand));
        if was_discarded && out.spool.has_key(id) {
            return Err(format!("nobody asked for {name} to be kept ({said:?}), and its key was written"));
        }
        if !row.has_audio {
            let excused = row.flaws.iter().any(|flaw| flaw == KEY_LOST)
                && !matches!(session.end, Some(End::InOrder | End::Stopped));
            let is_right = excused || row.verdict == "discarded" && was_discarded;
            return if is_right { Ok(0) } else { Err(format!("{name} cannot be heard: {:?}", row.flaws)) };
        }
        let Some(place) = &row.archive else {
            // A disk that lost what it was to sync, and then the power: there is nothing left to archive, and the job says so.
            let is_excused = session.gaps.iter().any(|(from, _)| *from == 0);
            return if is_excused { Ok(0) } else { Err(format!("{name} has no archive")) };
        };
        let bytes = out.store.device.read(&place.path).ok_or(format!("the archive of {name} is not there"))?;
        let packets = working::open(bytes).map_err(|error| format!("the archive of {name}: {error}"))?;
        if row.call_id.as_deref() != Some(&format!("call-{}", session.call))
            && session.has_lane
            && row.call_id.is_some()
        {
            return Err(format!("{name} has the facts of another call"));
        }
        // A disk that lost what it was to sync, a recorder that took that knowledge with it, and then the power: the row was entered when all
        // could be read, and nobody is left who knows better.
        let is_whole = row.verdict == "ok" && !row.flaws.iter().any(|flaw| flaw == RESTARTED) && !session.is_forgotten;
        self.check_audio(session, &name, &packets, is_whole)
    }

    fn check_audio(
        &self,
        session: &Session,
        name: &str,
        packets: &[(u8, u64, Vec<u8>)],
        is_whole: bool,
    ) -> Result<u64, String> {
        let mut heard = BTreeSet::new();
        let mut places: BTreeMap<(u8, u32, usize), (u64, u32)> = BTreeMap::new();
        let mut begin: Option<(i64, i64)> = None;
        let is_disturbed = self.is_disturbed(session);
        for (track, position, payload) in packets {
            let Some(id) = PacketId::of(payload) else {
                // What a client sends to a port that is another's by now may be secured, and is not understood there.
                if is_disturbed && payload.len() > PAYLOAD_BYTES {
                    continue;
                }
                let bytes = payload.len();
                return Err(format!("{name} has audio that nobody sent: {bytes} bytes at {position} of track {track}"));
            };
            let Some(&(port, at_ns, ssrc, timestamp)) = self.arrivals.get(&id) else {
                return Err(format!("{name} has audio that never arrived"));
            };
            if id.call != session.call && self.may_intrude(id.call, port, session) {
                continue;
            }
            if id.call != session.call || id.track != *track || !session.ports.contains(&port) {
                return Err(format!("{name} has audio of call {}", id.call));
            }
            if session.is_paused(at_ns) {
                let (number, at_ms) = (id.number, at_ns / MS);
                return Err(format!(
                    "{name} has audio of a pause: packet {number} of track {track}, which came at {at_ms} ms"
                ));
            }
            if session.to_ns.is_some_and(|to| at_ns > to + EDGE_NS) {
                let to_ms = session.to_ns.unwrap_or_default() / MS;
                let (number, at_ms) = (id.number, at_ns / MS);
                return Err(format!(
                    "{name} has packet {number} of track {track}, which came at {at_ms} ms, after its end at {to_ms} ms"
                ));
            }
            if !heard.insert(id) {
                return Err(format!("{name} has packet {} of track {track} twice", id.number));
            }
            // Time is that of the arrivals, whatever the wall clock did.
            let (at_ms, position_ms) = ((at_ns / MS) as i64, *position as i64 / TICKS_PER_MS);
            let (first_ms, first_position_ms) = *begin.get_or_insert((at_ms, position_ms));
            let apart_ms = (at_ms - first_ms) - (position_ms - first_position_ms);
            if session.clock_sets < 2 && !is_disturbed && apart_ms.abs() > APART_MS_MAX {
                return Err(format!("{name}: packet {} of track {track} is {apart_ms} ms from its time", id.number));
            }
            // Within a stretch of one source, positions go with timestamps. What came just before a death may have been taken after it.
            let is_between = session.gaps.iter().any(|(_, to)| at_ns <= *to && at_ns + EDGE_NS >= *to);
            if session.must_have(at_ns) && !is_between {
                let pauses = session.pauses.iter().filter(|(from, _)| *from < at_ns).count();
                let stretch = pauses + session.gaps.iter().filter(|(_, to)| *to < at_ns).count() * PAUSES_MAX;
                let (first, begun) = *places.entry((*track, ssrc, stretch)).or_insert((*position, timestamp));
                let since = i64::from(timestamp.wrapping_sub(begun).cast_signed()) * TICKS;
                if session.clock_sets < 2 && first.checked_add_signed(since) != Some(*position) {
                    let away = *position as i64 - (first as i64 + since);
                    let (number, at_ms) = (id.number, at_ns / MS);
                    return Err(format!(
                        "{name}: packet {number} of track {track}, which came at {at_ms} ms, is {away} ticks out of its place"
                    ));
                }
            }
        }
        if is_disturbed || session.clock_sets > 1 {
            return Ok(heard.len() as u64);
        }
        let missing = self.arrivals.iter().find(|(id, (port, at_ns, ..))| {
            id.call == session.call
                && session.ports.contains(port)
                && session.must_have(*at_ns)
                && (is_whole || !session.may_lack(*at_ns))
                && !heard.contains(id)
        });
        if let Some((id, (_, at_ns, ..))) = missing {
            if is_traced() {
                for (other, arrival) in
                    self.arrivals.iter().filter(|(other, _)| (other.call, other.track) == (id.call, id.track))
                {
                    println!("packet {} heard {}: {arrival:?}", other.number, heard.contains(other));
                }
            }
            let to_ms = session.to_ns.map(|to| to / MS);
            return Err(format!(
                "{name} lacks packet {} of track {}, which came at {} ms; it began at {} ms and ended at {to_ms:?} ({:?})",
                id.number,
                id.track,
                at_ns / MS,
                session.from_ns / MS,
                session.end
            ));
        }
        Ok(heard.len() as u64)
    }
}

impl Session {
    fn is_paused(&self, at_ns: u64) -> bool {
        let inside = |(from, to): &(u64, Option<u64>)| {
            at_ns > from + EDGE_NS && at_ns + EDGE_NS < to.unwrap_or(u64::MAX - EDGE_NS)
        };
        // Who asks for the end of a pause may be heard, also where the answer went with its recorder.
        let is_asked = self.asked.is_some_and(|(_, since_ns)| at_ns + EDGE_NS >= since_ns);
        !is_asked && self.pauses.iter().any(inside)
    }

    /// What came then belongs to it without doubt.
    fn must_have(&self, at_ns: u64) -> bool {
        let near =
            |(from, to): &(u64, Option<u64>)| at_ns + EDGE_NS >= *from && to.is_none_or(|to| at_ns <= to + EDGE_NS);
        let unclear = |(from, to): &(u64, u64)| at_ns + EDGE_NS >= *from && at_ns <= to + EDGE_NS;
        at_ns > self.from_ns + EDGE_NS
            && self.leaving_ns.is_none_or(|to| at_ns <= to)
            && self.to_ns.is_none_or(|to| at_ns <= to)
            && self.asked.is_none_or(|(_, since_ns)| at_ns + EDGE_NS < since_ns)
            && !self.pauses.iter().any(near)
            && !self.unclear.iter().any(unclear)
    }

    /// It may have gone with a recorder.
    fn may_lack(&self, at_ns: u64) -> bool {
        self.gaps.iter().any(|(from, to)| (*from..=*to).contains(&at_ns))
    }

    /// A later offer was answered with 200.
    fn offered(&mut self, cseq: u32, inactive: bool, now_ns: u64) {
        if self.cseq >= cseq {
            return;
        }
        self.cseq = cseq;
        let heard_ns = self.asked.take().map_or(now_ns, |(_, since_ns)| since_ns);
        self.unclear.push((heard_ns, now_ns));
        match self.pauses.last_mut() {
            Some((_, to @ None)) if !inactive => *to = Some(heard_ns),
            Some((_, None)) => {}
            _ if inactive => self.pauses.push((now_ns, None)),
            _ => {}
        }
    }
}
