//! What really happened, noted at the network and at the moments of death, and compared at the end with what the appliance has.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::client::{MS, PacketId};
use crate::daemon::KEY_LOST;
use crate::outside::{Outside, is_traced};
use crate::spool::Spool;
use crate::working;

/// What arrives so near a pause or an end may be in the recording or not: the sweep looks every 20 ms.
const EDGE_NS: u64 = 80 * MS;

/// Ticks of an archive in a tick of G.711.
const TICKS: i64 = 6;

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
    pub(crate) generation: Uuid,
    pub(crate) recording: Option<Uuid>,
    ports: Vec<u16>,
    from_ns: u64,
    /// When it ended: by a BYE, or with its recorder.
    pub(crate) to_ns: Option<u64>,
    pub(crate) end: Option<End>,
    /// What arrived until then must be there.
    horizon_ns: u64,
    pauses: Vec<(u64, Option<u64>)>,
    cseq: u32,
    /// Whether its lane was there after its recorder had died; true while none died.
    pub(crate) has_lane: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) sessions: Vec<Session>,
    /// First arrival of each packet: at which port and when, and its RTP source and timestamp.
    arrivals: BTreeMap<PacketId, (u16, u64, u32, u32)>,
    /// What the daemon said of each recording, to the recorder that has it.
    verdicts: BTreeMap<Uuid, bool>,
    pub(crate) packets_checked: u64,
}

impl Truth {
    pub(crate) fn accepted(&mut self, call: u16, generation: Uuid, ports: Vec<u16>, now_ns: u64) {
        self.sessions.push(Session {
            call,
            generation,
            recording: None,
            ports,
            from_ns: now_ns,
            to_ns: None,
            end: None,
            horizon_ns: u64::MAX,
            pauses: Vec::new(),
            cseq: 1,
            has_lane: true,
        });
    }

    /// Lanes are opened in the order in which sessions are accepted.
    pub(crate) fn opened(&mut self, generation: Uuid, recording: Uuid) {
        let next = self.sessions.iter_mut().find(|s| s.generation == generation && s.recording.is_none());
        if let Some(session) = next {
            session.recording = Some(recording);
            if is_traced() {
                println!("             call {} is recording {recording}", session.call);
            }
        }
    }

    /// A verdict reaches the recorder; one that is not the recording's own any more knows nothing of it.
    pub(crate) fn decided(&mut self, generation: Uuid, recording: Uuid, is_kept: bool) {
        if self.sessions.iter().any(|s| s.generation == generation && s.recording.is_none_or(|of| of == recording)) {
            self.verdicts.entry(recording).or_insert(is_kept);
        }
    }

    fn live(&mut self, call: u16) -> Option<&mut Session> {
        self.sessions.iter_mut().rev().find(|s| s.call == call && s.to_ns.is_none())
    }

    /// A later offer was answered with 200.
    pub(crate) fn offered(&mut self, call: u16, cseq: u32, inactive: bool, now_ns: u64) {
        let Some(session) = self.live(call).filter(|session| session.cseq < cseq) else { return };
        session.cseq = cseq;
        match session.pauses.last_mut() {
            Some((_, to @ None)) if !inactive => *to = Some(now_ns),
            Some((_, None)) => {}
            _ if inactive => session.pauses.push((now_ns, None)),
            _ => {}
        }
    }

    pub(crate) fn ended(&mut self, call: u16, now_ns: u64) {
        if let Some(session) = self.live(call) {
            (session.to_ns, session.end) = (Some(now_ns), Some(End::InOrder));
        }
    }

    pub(crate) fn arrived(&mut self, packet: PacketId, port: u16, now_ns: u64, bytes: &[u8]) {
        let number = |from: usize| u32::from_be_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]]);
        self.arrivals.entry(packet).or_insert((port, now_ns, number(8), number(4)));
    }

    /// A recorder is gone: what arrived until `horizon_ns` must have survived; none when nothing is promised of its sessions. For
    /// those that had ended, when their ends are not known to be there.
    pub(crate) fn recorder_died(
        &mut self,
        generation: Uuid,
        now_ns: u64,
        horizon_ns: Option<u64>,
        end: End,
        spool: &Spool,
    ) {
        for session in self.sessions.iter_mut().filter(|s| s.generation == generation) {
            let had_ended = session.to_ns.is_some();
            let is_safe = session.recording.is_some_and(|id| spool.end_is_durable(id));
            if had_ended && is_safe {
                continue;
            }
            session.has_lane = session.recording.is_some_and(|id| spool.open_is_there(id, end == End::PowerCut));
            session.to_ns.get_or_insert(now_ns);
            session.end = Some(end);
            session.horizon_ns = session.horizon_ns.min(horizon_ns.unwrap_or(0));
        }
    }

    /// A power cut may take what an earlier generation had not synced either; its recorder is dead and cannot write it again.
    /// Since it died nobody has synced its journal, so what may be lost counts from there.
    pub(crate) fn power_cut(&mut self, loss_ns: u64, spool: &Spool) {
        for session in &mut self.sessions {
            let is_safe = session.recording.is_some_and(|id| spool.end_is_durable(id));
            if session.end == Some(End::Killed) && !is_safe {
                let died_ns = session.to_ns.unwrap_or(0);
                session.horizon_ns = session.horizon_ns.min(died_ns.saturating_sub(loss_ns));
                session.has_lane &= session.recording.is_some_and(|id| spool.open_is_there(id, true));
            }
        }
    }

    /// The one way in which a packet of another call gets into a recording today: its recorder died or stopped, the client does not know, was
    /// silent while the port rested, and goes on sending to it. Nothing at the port can tell; a session that is resumed keeps its port.
    fn may_intrude(&self, call: u16, port: u16, into: &Session) -> bool {
        let was_cut_off = |end| matches!(end, Some(End::Stopped | End::Killed | End::PowerCut));
        self.sessions.iter().any(|other| {
            other.call == call
                && other.generation != into.generation
                && other.ports.contains(&port)
                && was_cut_off(other.end)
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
        let mut named = BTreeSet::new();
        for session in &self.sessions {
            let Some(id) = session.recording else {
                if matches!(session.end, Some(End::InOrder | End::Stopped)) {
                    return Err(format!("call {} was accepted and its lane was never opened", session.call));
                }
                continue;
            };
            named.insert(id);
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
        if let Some(id) = catalogue.rows.keys().find(|id| !named.contains(*id)) {
            return Err(format!("recording {id} has a row and nobody called"));
        }
        for session in &self.sessions {
            self.packets_checked += self.check_session(session, out)?;
        }
        Ok(())
    }

    fn check_session(&self, session: &Session, out: &Outside) -> Result<u64, String> {
        let Some(id) = session.recording else { return Ok(0) };
        let catalogue = &out.stable.catalogue;
        let name = format!("call {} (recording {id})", session.call);
        if catalogue.tombstones.contains(&id) {
            return match out.store.device.read(&format!("{id}.cva")) {
                Some(_) => Err(format!("{name} was deleted and its archive is there")),
                None => Ok(0),
            };
        }
        let Some(row) = catalogue.rows.get(&id) else { return Ok(0) };
        let was_discarded = self.verdicts.get(&id) == Some(&false);
        if was_discarded && out.spool.has_key(id) {
            return Err(format!("{name} was discarded and its key was written"));
        }
        if !row.has_audio {
            let excused = row.flaws.iter().any(|flaw| flaw == KEY_LOST)
                && !matches!(session.end, Some(End::InOrder | End::Stopped));
            let is_right = excused || row.verdict == "discarded" && was_discarded;
            return if is_right { Ok(0) } else { Err(format!("{name} cannot be heard: {:?}", row.flaws)) };
        }
        let Some(place) = &row.archive else {
            // A disk that lost what it was to sync, and then the power: there is nothing left to archive, and the job says so.
            let is_excused = session.horizon_ns == 0;
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
        self.check_audio(session, &name, &packets, row.verdict == "ok")
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
        for (track, position, payload) in packets {
            let id = PacketId::of(payload).ok_or(format!("{name} has audio that nobody sent"))?;
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
                return Err(format!("{name} has audio of a pause: packet {} of track {track}", id.number));
            }
            if session.to_ns.is_some_and(|to| at_ns > to + EDGE_NS) {
                return Err(format!("{name} has audio from after its end"));
            }
            if !heard.insert(id) {
                return Err(format!("{name} has packet {} of track {track} twice", id.number));
            }
            // Within a stretch of one source, positions go with timestamps.
            if session.must_have(at_ns) {
                let stretch = session.pauses.iter().filter(|(from, _)| *from < at_ns).count();
                let (first, begun) = *places.entry((*track, ssrc, stretch)).or_insert((*position, timestamp));
                let since = i64::from(timestamp.wrapping_sub(begun).cast_signed()) * TICKS;
                if first.checked_add_signed(since) != Some(*position) {
                    return Err(format!("{name}: packet {} of track {track} is out of its place", id.number));
                }
            }
        }
        if self.is_disturbed(session) {
            return Ok(heard.len() as u64);
        }
        let horizon_ns = if is_whole { u64::MAX } else { session.horizon_ns };
        let missing = self.arrivals.iter().find(|(id, (port, at_ns, ..))| {
            id.call == session.call
                && session.ports.contains(port)
                && session.must_have(*at_ns)
                && *at_ns <= horizon_ns
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
        self.pauses.iter().any(inside)
    }

    /// What came then belongs to it without doubt.
    fn must_have(&self, at_ns: u64) -> bool {
        let near =
            |(from, to): &(u64, Option<u64>)| at_ns + EDGE_NS >= *from && to.is_none_or(|to| at_ns <= to + EDGE_NS);
        at_ns > self.from_ns + EDGE_NS && self.to_ns.is_none_or(|to| at_ns <= to) && !self.pauses.iter().any(near)
    }
}
