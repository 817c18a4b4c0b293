//! What each call of a run is: who talks to whom, in which codec, in which client's manner. Everything follows from the
//! run's number and the call's index, so nothing has to be remembered between sending and judging.

use crate::SelftestParams;
use crate::g711::Law;
use crate::voice::Voice;

/// In whose manner the session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// As Webex Calling (BroadWorks) does: no `Require`, a bare `src`, metadata of the pre-RFC draft with BroadWorks'
    /// own block, metadata before SDP.
    Webex,
    /// As RFC 7866 and RFC 7865 say, SDP before metadata.
    Rfc,
}

/// Which way the call went, seen from the recorded user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Incoming,
    Outgoing,
    /// The RFC's metadata does not say.
    Unknown,
}

impl Direction {
    /// As recordings say it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
            Self::Unknown => "unknown",
        }
    }
}

/// One call. Index 0 of an array is the recorded user (label 1, left channel), index 1 the other party.
#[derive(Debug, Clone)]
pub(crate) struct CallPlan {
    pub(crate) index: usize,
    pub(crate) shape: Shape,
    pub(crate) direction: Direction,
    pub(crate) laws: [Law; 2],
    pub(crate) numbers: [String; 2],
    pub(crate) names: [String; 2],
    /// The SIP Call-ID.
    pub(crate) call_id: String,
    /// BroadWorks' id of the call half, in the Webex shape.
    pub(crate) call_half: String,
    /// Frames of 20 ms in each track.
    pub(crate) frames: u32,
    run: u64,
}

impl CallPlan {
    pub(crate) fn new(index: usize, params: &SelftestParams) -> Self {
        let shape = if index.is_multiple_of(2) { Shape::Webex } else { Shape::Rfc };
        let direction = match (shape, (index / 2).is_multiple_of(2)) {
            (Shape::Rfc, _) => Direction::Unknown,
            (Shape::Webex, true) => Direction::Outgoing,
            (Shape::Webex, false) => Direction::Incoming,
        };
        let mut plan = Self {
            index,
            shape,
            direction,
            laws: if (index / 2).is_multiple_of(2) { [Law::Mu, Law::A] } else { [Law::A, Law::Mu] },
            numbers: [String::new(), String::new()],
            names: [format!("Self-test user {}", index + 1), format!("Self-test caller {}", index + 1)],
            call_id: format!("selftest-{:016x}-{index}", params.run),
            call_half: format!("callhalf-{:016x}-{index}:0", params.run),
            frames: params.seconds * 1000 / 20,
            run: params.run,
        };
        // A thousand numbers a side are reserved; starting somewhere else in each run keeps neighbouring runs apart.
        let offset = plan.random("numbers") as usize;
        plan.numbers[0] = format!("+442079460{:03}", (offset + index) % 1000);
        plan.numbers[1] = format!("+441632960{:03}", (offset / 1000 + index) % 1000);
        plan
    }

    /// A number that looks random and is the same each time the same purpose asks.
    pub(crate) fn random(&self, purpose: &str) -> u64 {
        // The numbers belong to the run, so that consecutive calls get consecutive ones; all else to the call.
        let index = if purpose == "numbers" { 0 } else { self.index as u64 + 1 };
        let mut hash = self.run ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93);
        // FNV-1a over the purpose, then a finisher that spreads every bit (as in SplitMix64).
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    }

    /// A UUID (version 4 in form) for that purpose.
    pub(crate) fn uuid(&self, purpose: &str) -> String {
        let (high, low) = (self.random(purpose), self.random(&format!("{purpose} low")));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            0x8000 | low >> 48 & 0x3fff,
            low & 0xffff_ffff_ffff
        )
    }

    /// An id in RFC 7865's form: sixteen bytes in base64.
    pub(crate) fn base64_id(&self, purpose: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = u128::from(self.random(purpose)) << 64 | u128::from(self.random(&format!("{purpose} low")));
        // 128 bits are 21 characters and 2 bits, which the 22nd carries in its upper half.
        let character = |place: u32| {
            let six = if place == 21 { (bits << 4) & 0x30 } else { bits >> (122 - 6 * place) & 0x3f };
            char::from(ALPHABET[six as usize])
        };
        (0..22).map(character).chain("==".chars()).collect()
    }

    /// The speaker of a track.
    pub(crate) fn voice(&self, track: usize) -> Voice {
        Voice::new(2 * self.index as u64 + track as u64, track == 1)
    }

    /// What a perfect recording of a track holds.
    pub(crate) fn expected(&self, track: usize) -> Vec<i16> {
        let (law, mut voice) = (self.laws[track], self.voice(track));
        (0..self.frames).flat_map(|_| voice.frame()).map(|sample| law.carried(sample)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::Transport;

    fn params(run: u64) -> SelftestParams {
        let address = "127.0.0.1:5060".parse().unwrap();
        SelftestParams {
            transport: Transport::Udp,
            address,
            calls: 1000,
            seconds: 2,
            archive_wait: Duration::ZERO,
            run,
        }
    }

    #[test]
    fn ids_and_pairs_of_numbers_are_unique_within_a_run_and_between_runs() {
        let mut seen = HashSet::new();
        for run in [1, 2] {
            for index in 0..1000 {
                let plan = CallPlan::new(index, &params(run));
                for id in
                    [plan.call_id.clone(), plan.call_half.clone(), plan.uuid("session"), plan.base64_id("session")]
                {
                    assert!(seen.insert(id.clone()), "{id} twice");
                }
                assert!(seen.insert(plan.numbers.join(" ")), "{:?} twice", plan.numbers);
            }
        }
    }

    #[test]
    fn every_number_is_reserved_for_fiction() {
        for index in 0..1000 {
            let plan = CallPlan::new(index, &params(index as u64));
            assert!(plan.numbers[0].starts_with("+442079460") && plan.numbers[0].len() == 13, "{}", plan.numbers[0]);
            assert!(plan.numbers[1].starts_with("+441632960") && plan.numbers[1].len() == 13, "{}", plan.numbers[1]);
        }
    }

    #[test]
    fn ids_have_their_form() {
        let plan = CallPlan::new(3, &params(99));
        let uuid = plan.uuid("x");
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{uuid}");
        assert_eq!(plan.base64_id("x").len(), 24);
        assert_eq!(plan.uuid("x"), uuid);
        assert_ne!(plan.uuid("y"), uuid);
    }

    #[test]
    fn both_shapes_both_directions_and_both_laws_occur_in_four_calls() {
        let plans: Vec<CallPlan> = (0..4).map(|index| CallPlan::new(index, &params(5))).collect();
        assert!(plans.iter().any(|p| p.direction == Direction::Incoming));
        assert!(plans.iter().any(|p| p.direction == Direction::Outgoing));
        assert!(plans.iter().any(|p| p.shape == Shape::Rfc));
        for track in 0..2 {
            assert!(plans.iter().any(|p| p.laws[track] == Law::Mu) && plans.iter().any(|p| p.laws[track] == Law::A));
        }
    }
}
