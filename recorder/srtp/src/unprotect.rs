//! Opening what a client sends.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, KeyCheckpoint};
use crate::packet::{Kind, RtpHeader, rtcp_ssrc};
use crate::sdes::{CryptoAttribute, KEYS_MAX, KeyParam, MKI_BYTES_MAX, SessionParams};
use crate::source::{RTCP_INDICES, RTP_INDICES, Sources};
use crate::transform::{Position, RTCP_ENCRYPTED, SessionKeys};
use crate::{MasterKey, SrtpError};

/// Packets under new keys after which the keys before them are forgotten: ten seconds of packets of 20 ms, by which what was on
/// its way, or waited for a sweep, has come.
pub const PREVIOUS_KEY_PACKETS: u64 = 512;

/// Rollover counters that are searched for a source whose counter is not known. Each lasts 65,536 packets, 22 minutes at packets of
/// 20 ms, so these are 23 hours of a stream that ran before it was recorded.
pub const ROLLOVERS_SEARCHED: u32 = 64;

/// Rollover counters tried on one packet under one key. It bounds what a flood of foreign packets costs, and a genuine source is still
/// found after as many packets as [`ROLLOVERS_SEARCHED`].
const ROLLOVERS_TRIED: usize = 4;

/// What a datagram was. Lengths are of the plain packet, which begins where the datagram does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unprotected {
    /// An RTP packet of this many bytes.
    Rtp(usize),
    /// An RTCP compound of this many bytes.
    Rtcp(usize),
    /// Neither, by its first byte: STUN, DTLS, a keep-alive. It is as it came and not authenticated.
    Other,
}

/// What became of the datagrams. Each is in one of the first five.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// RTP packets opened.
    pub rtp: u64,
    /// RTCP packets opened.
    pub rtcp: u64,
    /// Datagrams that are neither.
    pub other: u64,
    /// Packets that failed authentication, or were too short for it.
    pub undecipherable: u64,
    /// Packets that had come before, or were too old to tell.
    pub replayed: u64,
    /// RTP packets (they are in `rtp` too) beyond the lifetime that the client gave their key. They are kept: whether its key
    /// is worn out is the client's concern, and silence would not make it better.
    pub past_lifetime: u64,
}

/// What a later offer meant for the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rekeyed {
    /// It has the keys that are there: everything goes on.
    Same,
    /// It has others. Those before them hold until [`PREVIOUS_KEY_PACKETS`] packets have come under the new ones.
    New,
}

/// Opens the packets of one media line, from one client, in place and without allocating.
///
/// Rollover counters are not signalled, so they are found out: a source begins at 0, or at what it had under the key before, or at 1 (when
/// the packets before a wrap were lost), else up to [`ROLLOVERS_SEARCHED`] is searched. Authentication tells which is right.
pub struct Unprotector {
    keys: Vec<Key>,
    /// Those before the latest change.
    previous: Vec<Key>,
    packets_since_change: u64,
    /// Which rollover counter is tried next on a packet that all likely ones fail on.
    searched: u32,
    counts: Counts,
}

/// A key in use.
struct Key {
    master: MasterKey,
    mki: Vec<u8>,
    lifetime_packets: u64,
    encrypted: bool,
    session: SessionKeys,
    rtp: Sources,
    rtcp: Sources,
}

impl Unprotector {
    /// Opens what the client that offered these keys sends.
    ///
    /// # Errors
    /// [`SrtpError::Unsupported`], when the attribute could not have been chosen.
    pub fn new(attribute: &CryptoAttribute) -> Result<Self, SrtpError> {
        let mut unprotector = Self::with(Vec::new(), Vec::new());
        unprotector.rekey(attribute)?;
        Ok(unprotector)
    }

    fn with(keys: Vec<Key>, previous: Vec<Key>) -> Self {
        Self { keys, previous, packets_since_change: 0, searched: 0, counts: Counts::default() }
    }

    /// Takes the keys of a later offer. Keys that it has as well go on with what is known under them.
    ///
    /// # Errors
    /// [`SrtpError::Unsupported`]; nothing is changed then.
    pub fn rekey(&mut self, attribute: &CryptoAttribute) -> Result<Rekeyed, SrtpError> {
        if !attribute.is_supported() {
            return Err(SrtpError::Unsupported);
        }
        let offered = attribute.keys.iter().take(KEYS_MAX);
        let rekeyed = match offered.clone().all(|param| self.keys.iter().any(|key| key.master.is(&param.key))) {
            true => Rekeyed::Same,
            false => Rekeyed::New,
        };
        let mut known: Vec<Key> = self.keys.drain(..).chain(self.previous.drain(..)).collect();
        for param in offered {
            let key = match known.iter().position(|key| key.master.is(&param.key)) {
                Some(place) => {
                    let mut key = known.remove(place);
                    key.describe(param, attribute.params);
                    key
                }
                None => Key::new(param, attribute.params),
            };
            self.keys.push(key);
        }
        self.packets_since_change = 0;
        // Those of the latest offer come first, so what is cut off are the oldest.
        known.truncate(KEYS_MAX);
        self.previous = known;
        Ok(rekeyed)
    }

    /// Opens a datagram in place: RTP or RTCP, whichever it is (RFC 5761 section 4).
    ///
    /// # Errors
    /// [`SrtpError::NotAuthentic`], [`SrtpError::Truncated`], [`SrtpError::Replayed`], [`SrtpError::TooOld`]. The datagram is then as it
    /// came, and must not be recorded.
    pub fn unprotect(&mut self, datagram: &mut [u8]) -> Result<Unprotected, SrtpError> {
        let opened = match Kind::of(datagram) {
            Kind::Other => Ok(Unprotected::Other),
            Kind::Rtp => self.open_rtp(datagram).map(Unprotected::Rtp),
            Kind::Rtcp => match self.open_rtcp(datagram) {
                // RTP with marker and one of the payload types that RFC 5761 warns of looks the same; authentication tells.
                Err(SrtpError::NotAuthentic | SrtpError::Truncated { .. }) => {
                    self.open_rtp(datagram).map(Unprotected::Rtp)
                }
                opened => opened.map(Unprotected::Rtcp),
            },
        };
        let count = match &opened {
            Ok(Unprotected::Rtp(_)) => &mut self.counts.rtp,
            Ok(Unprotected::Rtcp(_)) => &mut self.counts.rtcp,
            Ok(Unprotected::Other) => &mut self.counts.other,
            Err(SrtpError::Replayed | SrtpError::TooOld) => &mut self.counts.replayed,
            Err(_) => &mut self.counts.undecipherable,
        };
        // A checkpoint may bring any count.
        *count = count.saturating_add(1);
        opened
    }

    /// What became of the datagrams so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header = RtpHeader::parse(packet)?;
        // What the source had under another key: RFC 3711 section 3.3.1 lets the counter go on, RFC 4568 begins anew; clients do either.
        let likely = self.likely_rollover(&header);
        let search = 2 + self.searched % (ROLLOVERS_SEARCHED - 2);
        let mut failed = SrtpError::NotAuthentic;
        for place in 0..self.keys.len() {
            let key = &mut self.keys[place];
            let Some(mki_bytes) = key.mki_bytes_in(packet, true, place == 0) else { continue };
            match key.open_rtp(packet, &header, mki_bytes, Some([likely, Some(0), Some(1), Some(search)])) {
                Ok(plain) => {
                    let worn = key.rtp.accepted() > key.lifetime_packets;
                    self.counts.past_lifetime = self.counts.past_lifetime.saturating_add(u64::from(worn));
                    self.note_new_key();
                    return Ok(plain);
                }
                Err(error) => failed = graver(failed, error),
            }
        }
        for key in &mut self.previous {
            let Some(mki_bytes) = key.mki_bytes_in(packet, true, true) else { continue };
            // No new source begins under a key that is on its way out.
            match key.open_rtp(packet, &header, mki_bytes, None) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = graver(failed, error),
            }
        }
        self.searched = self.searched.wrapping_add(1);
        Err(failed)
    }

    fn likely_rollover(&self, header: &RtpHeader) -> Option<u32> {
        // With a single key there is no other to ask.
        if self.keys.len() == 1 && self.previous.is_empty() {
            return None;
        }
        let windows = self.keys.iter().chain(&self.previous).filter_map(|key| key.rtp.window(header.ssrc));
        let newest = windows.max_by_key(|window| window.highest())?;
        newest.index_of(header.sequence).map(rollover)
    }

    fn note_new_key(&mut self) {
        if self.previous.is_empty() {
            return;
        }
        self.packets_since_change = self.packets_since_change.saturating_add(1);
        if self.packets_since_change >= PREVIOUS_KEY_PACKETS {
            self.previous.clear();
        }
    }

    fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let mut failed = SrtpError::NotAuthentic;
        let first = self.keys.len();
        for (place, key) in self.keys.iter_mut().chain(&mut self.previous).enumerate() {
            let Some(mki_bytes) = key.mki_bytes_in(packet, false, place == 0 || place >= first) else { continue };
            match key.open_rtcp(packet, ssrc, mki_bytes) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = graver(failed, error),
            }
        }
        Err(failed)
    }

    /// Everything that the next process needs to go on. It holds the keys: keep it where memory is kept, and nowhere else.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            keys: self.keys.iter().map(Key::checkpoint).collect(),
            previous: self.previous.iter().map(Key::checkpoint).collect(),
            packets_since_change: self.packets_since_change,
            counts: self.counts,
        }
    }

    /// Goes on from a checkpoint. Packets that were accepted after it was taken are accepted again.
    ///
    /// # Errors
    /// [`SrtpError::CheckpointInvalid`].
    pub fn resume(checkpoint: Checkpoint) -> Result<Self, SrtpError> {
        let invalid = |what| Err(SrtpError::CheckpointInvalid { what });
        let Checkpoint { keys, previous, packets_since_change, counts } = checkpoint;
        if keys.is_empty() || keys.len() > KEYS_MAX || previous.len() > KEYS_MAX {
            return invalid("it has no key, or too many");
        }
        if keys.iter().chain(&previous).any(|key| !key.is_valid()) {
            return invalid("it has more sources or higher indices than a key allows");
        }
        let resumed = |keys: Vec<KeyCheckpoint>| keys.into_iter().map(Key::resume).collect();
        Ok(Self { packets_since_change, counts, ..Self::with(resumed(keys), resumed(previous)) })
    }
}

impl Key {
    fn new(param: &KeyParam, params: SessionParams) -> Self {
        let mut key = Self {
            master: param.key.copy(),
            mki: Vec::new(),
            lifetime_packets: 0,
            encrypted: true,
            session: SessionKeys::derive(&param.key),
            rtp: Sources::default(),
            rtcp: Sources::default(),
        };
        key.describe(param, params);
        key
    }

    fn describe(&mut self, param: &KeyParam, params: SessionParams) {
        self.mki.clone_from(&param.mki);
        self.lifetime_packets = param.lifetime_packets.unwrap_or(RTP_INDICES).min(RTP_INDICES);
        self.encrypted = !params.unencrypted_srtp;
    }

    /// How many bytes of MKI the packet has, when it can be for this key. One that has not this key's MKI may have none, since
    /// some clients leave it away when the other side has none; `or_none` says whether that is tried.
    fn mki_bytes_in(&self, packet: &[u8], rtp: bool, or_none: bool) -> Option<usize> {
        let transform = if rtp { &self.session.rtp } else { &self.session.rtcp };
        let at = transform.mki_at(packet.len(), self.mki.len());
        let is_here = at.and_then(|at| packet.get(at..)).is_some_and(|rest| rest.starts_with(&self.mki));
        match is_here {
            true => Some(self.mki.len()),
            false => or_none.then_some(0),
        }
    }

    /// `beginnings` are the rollover counters with which a source may begin; without them none begins.
    fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header: &RtpHeader,
        mki_bytes: usize,
        beginnings: Option<[Option<u32>; ROLLOVERS_TRIED]>,
    ) -> Result<usize, SrtpError> {
        let window = self.rtp.window(header.ssrc);
        let mut failed = SrtpError::NotAuthentic;
        let rollovers = match (window, beginnings) {
            (None, None) => return Err(failed),
            (None, Some(beginnings)) => beginnings,
            (Some(window), beginnings) => {
                let index = window.index_of(header.sequence);
                let mut likely = index.map(rollover);
                let now = rollover(window.highest());
                if let Some(Err(error)) = index.map(|index| window.admits(index)) {
                    if error == SrtpError::Replayed {
                        return Err(error);
                    }
                    failed = error;
                    likely = None;
                }
                // Further on than half of a rollover: a long outage, or a sender that began again somewhere.
                let search = beginnings.and_then(|[.., search]| now.checked_add(search?));
                [likely, Some(now), now.checked_add(1), search]
            }
        };
        for (place, tried) in rollovers.iter().enumerate() {
            let Some(counter) = *tried else { continue };
            if rollovers[..place].contains(tried) {
                continue;
            }
            let index = u64::from(counter) << 16 | u64::from(header.sequence);
            if window.is_some_and(|window| window.admits(index).is_err()) {
                continue;
            }
            let at = Position { ssrc: header.ssrc, index };
            match self.session.rtp.open_rtp(packet, header.bytes, at, mki_bytes, self.encrypted) {
                Ok(plain) => {
                    self.rtp.accept(header.ssrc, index);
                    return Ok(plain);
                }
                Err(SrtpError::NotAuthentic) => {}
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32, mki_bytes: usize) -> Result<usize, SrtpError> {
        let word = self.session.rtcp.rtcp_word(packet, mki_bytes)?;
        let index = u64::from(word & !RTCP_ENCRYPTED);
        if let Some(window) = self.rtcp.window(ssrc) {
            window.admits(index)?;
        }
        let plain = self.session.rtcp.open_rtcp(packet, ssrc, mki_bytes)?;
        self.rtcp.accept(ssrc, index);
        Ok(plain)
    }

    fn checkpoint(&self) -> KeyCheckpoint {
        KeyCheckpoint {
            master: self.master.copy(),
            mki: self.mki.clone(),
            lifetime_packets: self.lifetime_packets,
            encrypted: self.encrypted,
            rtp: self.rtp.clone(),
            rtcp: self.rtcp.clone(),
        }
    }

    fn resume(stored: KeyCheckpoint) -> Self {
        let KeyCheckpoint { master, mki, lifetime_packets, encrypted, rtp, rtcp } = stored;
        let session = SessionKeys::derive(&master);
        Self { master, mki, lifetime_packets, encrypted, session, rtp, rtcp }
    }
}

impl KeyCheckpoint {
    fn is_valid(&self) -> bool {
        self.mki.len() <= MKI_BYTES_MAX && self.rtp.is_valid(RTP_INDICES) && self.rtcp.is_valid(RTCP_INDICES)
    }
}

fn rollover(index: u64) -> u32 {
    (index >> 16) as u32
}

/// Which of two errors says more about a packet: that it is repeated or old, that it cannot be, that it is not authentic.
fn graver(one: SrtpError, other: SrtpError) -> SrtpError {
    let rank = |error: &SrtpError| match error {
        SrtpError::Replayed => 3,
        SrtpError::TooOld => 2,
        SrtpError::Truncated { .. } => 1,
        _ => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}
