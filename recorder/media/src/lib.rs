//! Reception of media: from the datagrams of one audio stream to its packets, numbered, without duplicates and from one
//! source at a time, with exact counts of what was lost, late, twice there or foreign. [`Track`] does that; [`Datagram`]
//! tells RTP from what else comes to a media port, [`Rtcp`] reads sender reports and [`Reporter`] writes receiver reports, [`Tones`] finds the keys that were pressed, [`payload_duration`] says how much audio
//! a payload holds. The crate has no sockets, no clock, no threads, no jitter buffer and no codecs: datagrams and their
//! arrival times come in as arguments, payloads go out as they came, and the packets of a source are given out in the order of arrival.
//!
//! ```
//! use callvault_media::{Encoding, PayloadType, Received, Track, TrackConfig};
//!
//! let mut track = Track::new(TrackConfig::default());
//! track.describe(&[PayloadType { pt: 0, encoding: Encoding::Pcmu, clock_rate: 8_000, channels: 1 }]);
//! let from = "192.0.2.7:4000".parse()?;
//! let datagram = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xff, 0xfe];
//! if let Received::Kept(kept) = track.receive(20_000_000, from, &datagram) {
//!     assert_eq!(&datagram[kept.payload], [0xff, 0xfe]);
//! }
//! while let Some(held) = track.take_held() {
//!     unreachable!("one source alone is never held: {held:?}");
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod counts;
mod datagram;
mod encoding;
mod error;
mod held;
mod report;
mod rtcp;
mod source;
mod tones;
mod track;

pub use checkpoint::TrackCheckpoint;
pub use counts::Counts;
pub use datagram::{Datagram, RtpHeader};
pub use encoding::{Encoding, PayloadType, payload_duration};
pub use error::MediaError;
pub use held::{HELD_BYTES_MAX, HELD_PACKETS_MAX, Held};
pub use report::{KEPT_REPORT_NS, OwnName, REPORT_NS, ReportSieve, Reporter, clock_number};
pub use rtcp::{CanonicalName, RTCP_BLOCKS_MAX, Rtcp, SenderReport};
pub use source::{AHEAD_PACKETS_SLACK, WINDOW_PACKETS};
pub use tones::{TONE_SILENCE_NS, Tone, Tones};
pub use track::{
    Followed, Kept, OVERFLOW_SOURCE, OVERLAP_NS, PROBATION_SPAN, Received, Reception, SIGNALLED_CHANGE_NS, SILENCE_NS,
    Track, TrackConfig,
};
