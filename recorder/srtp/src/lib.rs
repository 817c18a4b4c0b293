//! SRTP and SRTCP (RFC 3711, 6188, 7714) with keys from the session description (RFC 4568): [`sdes`] reads the crypto
//! attributes of an offer, chooses one and answers it; [`Unprotector`] opens what the client then sends, in place;
//! [`Protector`] secures the reports that go back. The crate has no sockets, no clock, no threads, and it knows neither
//! session descriptions nor what is inside a packet: attributes, datagrams and randomness come in as arguments.
//!
//! ```
//! use callvault_srtp::{Protector, Unprotected, Unprotector, sdes};
//! # fn main() -> Result<(), callvault_srtp::SrtpError> {
//! # let mut rng = rand::rng();
//! # let theirs = sdes::CryptoAttribute::generate(1, callvault_srtp::Suite::AeadAes128Gcm, &mut rng);
//! # let line = theirs.to_text()?;
//! # let lines = [line.expose().as_str(), "2 NULL_NULL inline:AAAA"];
//! let offered: Vec<_> = lines.iter().filter_map(|line| sdes::parse(line).ok()).collect();
//! let chosen = sdes::choose(&offered).expect("one that is supported");
//! let answer = chosen.answer(None, &mut rng)?;
//! // answer.to_text() goes into the answered session description, behind "a=crypto:".
//! let mut unprotector = Unprotector::new(chosen)?;
//! let mut protector = Protector::new(&answer)?;
//! # let mut sender = Protector::new(chosen)?;
//! # let mut datagram = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xff, 0xfe];
//! # sender.protect_rtp(&mut datagram)?;
//! match unprotector.unprotect(&mut datagram)? {
//!     Unprotected::Rtp(bytes) => assert_eq!(datagram[bytes - 2..bytes], [0xff, 0xfe]),
//!     other => unreachable!("{other:?}"),
//! }
//! # let mut report = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
//! protector.protect_rtcp(&mut report)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - A packet that is not authentic changes nothing but a count, and is left as it came. So one packet may be tried under several
//!   keys and rollover counters, and what is tried is bounded.
//! - No packet is given out twice under one key, as long as its source is among the last [`SOURCES_MAX`] and the packet
//!   among the last [`WINDOW_PACKETS`] of it. What is older is refused.
//! - A change of keys loses nothing: packets under the keys before it are taken until [`PREVIOUS_KEY_PACKETS`] have come under the new ones.
//! - Opening a packet allocates nothing.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod error;
#[cfg(test)]
mod hexadecimal;
mod master;
mod packet;
mod protect;
pub mod sdes;
mod source;
mod suite;
mod transform;
mod unprotect;

pub use checkpoint::{Checkpoint, SendingCheckpoint};
pub use error::SrtpError;
pub use master::MasterKey;
pub use protect::{Protector, RESUMED_INDICES};
pub use source::{SOURCES_MAX, WINDOW_PACKETS};
pub use suite::Suite;
pub use unprotect::{Counts, PREVIOUS_KEY_PACKETS, ROLLOVERS_SEARCHED, Rekeyed, Unprotected, Unprotector};
