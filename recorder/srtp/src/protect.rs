//! Securing what we send: receiver reports, and the calls of the self-test.

use crate::checkpoint::SendingCheckpoint;
use crate::packet::{RtpHeader, rtcp_ssrc};
use crate::sdes::{CryptoAttribute, MKI_BYTES_MAX, SessionParams};
use crate::source::{RTCP_INDICES, RTP_INDICES, SOURCES_MAX};
use crate::transform::{Position, SessionKeys};
use crate::{MasterKey, SrtpError};

/// Indices passed over when going on from a checkpoint: what was sent after it was taken must not be sent with the same index again.
/// So many reports are days of one call, and a key has room for 32,768 such steps.
pub const RESUMED_INDICES: u64 = 1 << 16;

/// Secures the packets that we send on one media line. Indices only ever advance: one used twice would give the key stream away.
pub struct Protector {
    master: MasterKey,
    mki: Vec<u8>,
    params: SessionParams,
    session: SessionKeys,
    /// SSRC and newest index of each source.
    sources: Vec<(u32, u64)>,
    /// The index of the next RTCP packet.
    rtcp_index: u64,
}

impl Protector {
    /// Secures with the first key of our own attribute.
    ///
    /// # Errors
    /// [`SrtpError::Unsupported`], where the attribute has no key.
    pub fn new(own: &CryptoAttribute) -> Result<Self, SrtpError> {
        let first = own.keys.first().filter(|_| own.is_supported()).ok_or(SrtpError::Unsupported)?;
        Ok(Self {
            master: first.key.copy(),
            mki: first.mki.clone(),
            params: own.params,
            session: SessionKeys::derive(&first.key),
            sources: Vec::new(),
            rtcp_index: 0,
        })
    }

    /// The key, for an answer to a later offer: see [`CryptoAttribute::answer`].
    pub fn key(&self) -> &MasterKey {
        &self.master
    }

    /// Secures an RTP packet in place.
    ///
    /// # Errors
    /// [`SrtpError::Truncated`], [`SrtpError::NotAdvancing`] when its sequence number is not after the one before (less than half a
    /// rollover ahead), [`SrtpError::TooManySources`], [`SrtpError::KeyExhausted`]. The packet is then as it was, and must not be sent.
    pub fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let header = RtpHeader::parse(packet)?;
        let index = self.next_index(&header)?;
        let at = Position { ssrc: header.ssrc, index };
        self.session.rtp.seal_rtp(packet, header.bytes, at, &self.mki, !self.params.unencrypted_srtp);
        Ok(())
    }

    /// The index of a packet, which is the newest of its source from now on.
    fn next_index(&mut self, header: &RtpHeader) -> Result<u64, SrtpError> {
        let Some((_, newest)) = self.sources.iter_mut().find(|(ssrc, _)| *ssrc == header.ssrc) else {
            if self.sources.len() >= SOURCES_MAX {
                return Err(SrtpError::TooManySources { sources_max: SOURCES_MAX });
            }
            let first = header.sequence.into();
            self.sources.push((header.ssrc, first));
            return Ok(first);
        };
        let ahead = header.sequence.wrapping_sub(*newest as u16);
        if !(1..0x8000).contains(&ahead) {
            return Err(SrtpError::NotAdvancing);
        }
        let next = *newest + u64::from(ahead);
        if next >= RTP_INDICES {
            return Err(SrtpError::KeyExhausted);
        }
        *newest = next;
        Ok(next)
    }

    /// Secures an RTCP compound in place.
    ///
    /// # Errors
    /// [`SrtpError::Truncated`], [`SrtpError::KeyExhausted`]. The compound is then as it was, and must not be sent.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        if self.rtcp_index >= RTCP_INDICES {
            return Err(SrtpError::KeyExhausted);
        }
        let at = Position { ssrc, index: self.rtcp_index };
        self.session.rtcp.seal_rtcp(packet, at, &self.mki, !self.params.unencrypted_srtcp);
        self.rtcp_index += 1;
        Ok(())
    }

    /// Everything that the next process needs to go on. It holds the key: keep it where memory is kept, and nowhere else.
    pub fn checkpoint(&self) -> SendingCheckpoint {
        SendingCheckpoint {
            master: self.master.copy(),
            mki: self.mki.clone(),
            params: self.params,
            sources: self.sources.clone(),
            rtcp_index: self.rtcp_index,
        }
    }

    /// Goes on from a checkpoint, with RTCP [`RESUMED_INDICES`] further on.
    ///
    /// It goes on with RTP where the checkpoint was: who sends RTP takes a checkpoint after the last packet, or begins a new SSRC.
    ///
    /// # Errors
    /// [`SrtpError::CheckpointInvalid`].
    pub fn resume(checkpoint: SendingCheckpoint) -> Result<Self, SrtpError> {
        let SendingCheckpoint { master, mki, params, sources, rtcp_index } = checkpoint;
        let indices_fit = rtcp_index <= RTCP_INDICES && sources.iter().all(|&(_, index)| index < RTP_INDICES);
        if mki.len() > MKI_BYTES_MAX || sources.len() > SOURCES_MAX || !indices_fit {
            return Err(SrtpError::CheckpointInvalid {
                what: "it has more sources or higher indices than a key allows",
            });
        }
        let session = SessionKeys::derive(&master);
        let rtcp_index = (rtcp_index + RESUMED_INDICES).min(RTCP_INDICES);
        Ok(Self { master, mki, params, session, sources, rtcp_index })
    }
}
