//! Ogg Opus, RFC 7845.
//!
//! Two channels become two mono streams (channel mapping family 1 without coupling, section 5.1.1.2), not one stereo stream: at
//! the bit rates of speech Opus's stereo shares bits and phases between the sides, which is right for one room and wrong for two
//! people on two telephones; each would be faintly heard in the other's channel. One stream per person also costs next to nothing for
//! the one who listens.

use callvault_render_protocol::TICKS_PER_SECOND;
use ogg::PacketWriter;
use ogg::writing::PacketWriteEndInfo;

use crate::error::JobError;
use crate::mix::FileEncoder;
use crate::opus_encode::{FRAME_TICKS, OpusEncoder};

/// The stream's serial number. It distinguishes streams inside one file, and there is only one.
const SERIAL: u32 = 0x6361_6c6c;

/// Packets on a page: one second, so that players can seek to the second, at a cost of half a byte per packet.
const PACKETS_PER_PAGE: u64 = 50;

pub(crate) struct OggOpus {
    encoder: OpusEncoder,
    pages: PacketWriter<'static, Vec<u8>>,
    channels: u8,
    rate: u32,
    pre_skip: u16,
    /// Length of the audio in ticks, which are also the unit of granule positions.
    ticks: u64,
    /// Interleaved samples that do not fill a frame yet.
    waiting: Vec<i16>,
    packets: u64,
}

impl OggOpus {
    /// `ticks` is the length of all audio that will come, in ticks.
    pub(crate) fn new(channels: u8, rate: u32, bit_rate: u32, complexity: u8, ticks: u64) -> Result<Self, JobError> {
        let mut encoder = OpusEncoder::new(rate, channels, bit_rate, complexity)?;
        let pre_skip = encoder.pre_skip()?;
        let pages = PacketWriter::new(Vec::new());
        Ok(Self { encoder, pages, channels, rate, pre_skip, ticks, waiting: Vec::new(), packets: 0 })
    }

    /// Granule position at the end of the last sample: it includes the pre-skip (section 4.1).
    fn last_granule(&self) -> u64 {
        self.ticks + u64::from(self.pre_skip)
    }

    /// Packets that carry the last sample out of the decoder.
    fn packets_needed(&self) -> u64 {
        self.last_granule().div_ceil(u64::from(FRAME_TICKS)).max(1)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = b"OpusHead\x01".to_vec();
        header.push(self.channels);
        header.extend_from_slice(&self.pre_skip.to_le_bytes());
        header.extend_from_slice(&self.rate.to_le_bytes());
        header.extend_from_slice(&0_i16.to_le_bytes());
        if self.channels == 1 {
            header.push(0);
        } else {
            header.extend_from_slice(&[1, self.channels, 0]);
            header.extend(0..self.channels);
        }
        header
    }

    fn write(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo, granule: u64) -> Result<(), JobError> {
        self.pages.write_packet(packet, SERIAL, end, granule).map_err(JobError::encoder)
    }

    fn encode_whole_frames(&mut self) -> Result<(), JobError> {
        let frame_samples = self.encoder.frame_length() * usize::from(self.channels);
        let mut taken = 0;
        while let Some(frame) = self.waiting.get(taken..taken + frame_samples)
            && self.packets < self.packets_needed()
        {
            let packet = self.encoder.encode(frame)?;
            taken += frame_samples;
            self.packets += 1;
            let end = if self.packets == self.packets_needed() {
                PacketWriteEndInfo::EndStream
            } else if self.packets.is_multiple_of(PACKETS_PER_PAGE) {
                PacketWriteEndInfo::EndPage
            } else {
                PacketWriteEndInfo::NormalPacket
            };
            let granule = (self.packets * u64::from(FRAME_TICKS)).min(self.last_granule());
            self.write(packet, end, granule)?;
        }
        self.waiting.drain(..taken);
        Ok(())
    }

    fn give(&mut self, file: &mut Vec<u8>) {
        file.append(self.pages.inner_mut());
    }
}

impl FileEncoder for OggOpus {
    fn begin(&mut self, file: &mut Vec<u8>) -> Result<(), JobError> {
        let vendor = opus::version().as_bytes();
        let mut tags = b"OpusTags".to_vec();
        tags.extend_from_slice(&u32::try_from(vendor.len()).unwrap_or(0).to_le_bytes());
        tags.extend_from_slice(vendor);
        tags.extend_from_slice(&0_u32.to_le_bytes());
        self.write(self.header(), PacketWriteEndInfo::EndPage, 0)?;
        self.write(tags, PacketWriteEndInfo::EndPage, 0)?;
        self.give(file);
        Ok(())
    }

    fn samples(&mut self, channels: &[Vec<i16>], file: &mut Vec<u8>) -> Result<(), JobError> {
        let length = channels.first().map_or(0, Vec::len);
        for n in 0..length {
            self.waiting.extend(channels.iter().map(|channel| channel[n]));
        }
        self.encode_whole_frames()?;
        self.give(file);
        Ok(())
    }

    fn finish(&mut self, file: &mut Vec<u8>) -> Result<(), JobError> {
        let missing = usize::try_from(self.packets_needed() - self.packets.min(self.packets_needed())).unwrap_or(0);
        let samples = missing * self.encoder.frame_length() * usize::from(self.channels);
        self.waiting.resize(samples, 0);
        self.encode_whole_frames()?;
        self.give(file);
        Ok(())
    }
}

const _: () = assert!(TICKS_PER_SECOND == 48_000, "granule positions of Opus count 1/48000 s");
