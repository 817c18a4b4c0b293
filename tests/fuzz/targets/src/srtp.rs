//! Secured packets under a key that is known here and not to the input: what was secured opens to what it was, once, and nothing else
//! opens. The input is a script.

use callvault_srtp::sdes::{CryptoAttribute, KeyParam};
use callvault_srtp::{Checkpoint, MasterKey, Protector, SrtpError, Suite, Unprotected, Unprotector};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::input::Input;

/// Packets that are kept to be sent again.
const SENT_MAX: usize = 64;
/// How far the sequence goes on in an input: into the second rollover, which a receiver that knows nothing finds at once.
const ADVANCE_MAX: u32 = 100_000;

/// Plays the script.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let suite = input.one_of(&Suite::ALL);
    let mki_bytes = usize::from(input.u8() % 5);
    let mut world = World::new(suite, mki_bytes);
    while !input.is_empty() {
        world.step(&mut input);
    }
    let counts = world.unprotector.counts();
    let sum = counts.rtp + counts.rtcp + counts.other + counts.undecipherable + counts.replayed;
    assert!(sum == world.given, "not every datagram is counted once: {counts:?}");
}

/// A client with two sets of keys, and who receives it.
struct World {
    attributes: [CryptoAttribute; 2],
    protectors: [Protector; 2],
    /// The keys that the client offered last.
    offered: usize,
    unprotector: Unprotector,
    advanced: u32,
    sent: Vec<Vec<u8>>,
    given: u64,
}

/// An attribute whose keys are made of this byte, and whose MKIs are of this length.
fn attribute(suite: Suite, byte: u8, mki_bytes: usize) -> CryptoAttribute {
    let param = |byte: u8| {
        let key = MasterKey::from_bytes(suite, &vec![byte; suite.master_bytes()]).expect("a key of the right length");
        KeyParam { mki: vec![byte; mki_bytes], ..KeyParam::new(key) }
    };
    let mut attribute = CryptoAttribute::generate(1, suite, &mut StdRng::seed_from_u64(1));
    attribute.keys = vec![param(byte)];
    if mki_bytes > 0 {
        attribute.keys.push(param(byte + 1));
    }
    attribute
}

impl World {
    fn new(suite: Suite, mki_bytes: usize) -> Self {
        let attributes = [attribute(suite, 0x31, mki_bytes), attribute(suite, 0x41, mki_bytes)];
        let unprotector = Unprotector::new(&attributes[0]).expect("a supported attribute");
        let protectors = attributes.each_ref().map(|own| Protector::new(own).expect("a supported attribute"));
        Self { attributes, protectors, offered: 0, unprotector, advanced: 0, sent: Vec::new(), given: 0 }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 9 {
            0..=2 => self.genuine(input),
            3 => self.again(input),
            4 => self.changed(input),
            5 => {
                let bytes = input.u8().into();
                self.foreign(input.bytes(bytes).to_vec());
            }
            6 => self.rekey(input),
            7 => {
                let checkpoint = self.unprotector.checkpoint();
                self.unprotector = Unprotector::resume(checkpoint).expect("our own checkpoint");
            }
            _ => self.strange_checkpoint(input),
        }
    }

    /// A new packet, RTP or RTCP, is opened to what it was.
    fn genuine(&mut self, input: &mut Input<'_>) {
        let (kind, bytes) = (input.u8(), input.u8() % 60);
        let ahead = if kind & 2 != 0 { 1 + u32::from(input.u8()) * 64 } else { 1 };
        if self.advanced + ahead > ADVANCE_MAX {
            return;
        }
        self.advanced += ahead;
        let ssrc = [0, 0, 0, kind >> 6];
        let sequence = (self.advanced as u16).to_be_bytes();
        let mut plain = match kind & 1 {
            0 => [&[0x80, 0], &sequence[..], &[0, 0, 0, 7], &ssrc].concat(),
            _ => [&[0x80, 200], &sequence[..], &ssrc, &[0, 0, 0, 7]].concat(),
        };
        plain.extend(input.bytes(bytes.into()));
        let mut secured = plain.clone();
        let done = match kind & 1 {
            0 => self.protectors[self.offered].protect_rtp(&mut secured),
            _ => self.protectors[self.offered].protect_rtcp(&mut secured),
        };
        if let Err(error) = done {
            assert!(
                secured == plain && matches!(error, SrtpError::NotAdvancing | SrtpError::Truncated { .. }),
                "{error}"
            );
            return;
        }
        match self.open(secured.clone()) {
            Ok(opened) => assert!(opened == plain, "the packet opened to something else"),
            Err(error) => panic!("a genuine packet does not open: {error}"),
        }
        if self.sent.len() < SENT_MAX {
            self.sent.push(secured);
        }
    }

    /// What was opened once is not opened again.
    fn again(&mut self, input: &mut Input<'_>) {
        let Some(secured) = self.sent.get(usize::from(input.u8())).cloned() else { return };
        assert!(self.open(secured).is_err(), "a packet was given out twice");
    }

    /// A changed copy is refused, and so is one that was cut or has something behind it.
    fn changed(&mut self, input: &mut Input<'_>) {
        let Some(mut secured) = self.sent.get(usize::from(input.u8())).cloned() else { return };
        let genuine = secured.clone();
        for _ in 0..=input.u8() % 4 {
            let at = usize::from(input.u16()) % secured.len().max(1);
            match input.u8() % 4 {
                0 => secured.truncate(at),
                1 => secured.insert(at.min(secured.len()), input.u8()),
                _ => {
                    if let Some(byte) = secured.get_mut(at) {
                        *byte ^= input.u8();
                    }
                }
            }
        }
        if !same(&secured, &genuine) {
            self.foreign(secured);
        }
    }

    /// Bytes that nobody with the key made.
    fn foreign(&mut self, datagram: Vec<u8>) {
        if self.sent.iter().any(|sent| same(sent, &datagram)) {
            return;
        }
        let plain = first_is_secured(&datagram);
        assert!(self.open(datagram).is_err() || !plain, "a packet that nobody secured was opened");
    }

    /// A later offer. Nothing that was sent before is sent again: keys that were forgotten meanwhile know nothing of it.
    fn rekey(&mut self, input: &mut Input<'_>) {
        self.offered = usize::from(input.u8() % 2);
        self.unprotector.rekey(&self.attributes[self.offered]).expect("a supported attribute");
        self.sent.clear();
    }

    /// A checkpoint of which some bytes were changed is resumed or refused.
    fn strange_checkpoint(&mut self, input: &mut Input<'_>) {
        let mut bytes = postcard::to_stdvec(&self.unprotector.checkpoint()).expect("a checkpoint is written to memory");
        for _ in 0..=input.u8() % 4 {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] = input.u8();
        }
        let Ok(checkpoint) = postcard::from_bytes::<Checkpoint>(&bytes) else { return };
        let Ok(mut resumed) = Unprotector::resume(checkpoint) else { return };
        for mut datagram in self.sent.iter().rev().take(2).cloned() {
            let _ = resumed.unprotect(&mut datagram);
        }
        let _ = resumed.checkpoint();
    }

    /// Opens a datagram; one that does not open is as it came.
    fn open(&mut self, mut datagram: Vec<u8>) -> Result<Vec<u8>, SrtpError> {
        self.given += 1;
        let came = datagram.clone();
        match self.unprotector.unprotect(&mut datagram) {
            Ok(Unprotected::Rtp(bytes) | Unprotected::Rtcp(bytes)) => {
                assert!(bytes < came.len());
                datagram.truncate(bytes);
                Ok(datagram)
            }
            Ok(Unprotected::Other) => {
                assert!(datagram == came && !first_is_secured(&came));
                Ok(datagram)
            }
            Err(error) => {
                assert!(datagram == came, "a packet that does not open was changed");
                Err(error)
            }
        }
    }
}

/// Whether two datagrams are the same, by their checksums: a fuzzer looks over the shoulder of whoever compares bytes, learns what
/// a genuine packet is, and sends it in an input in which nobody did.
fn same(one: &[u8], other: &[u8]) -> bool {
    crc32c::crc32c(one) == crc32c::crc32c(other)
}

/// Whether it is RTP or RTCP by its first byte (RFC 7983 section 7).
fn first_is_secured(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (128..=191).contains(first))
}
