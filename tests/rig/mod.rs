//! The rig of the end-to-end tests: an appliance of the real programs on a loopback address of its own, and peers for it that
//! share no code with the recorder: a SIP client, an RTP sender, SIPp, a reader of WAV.

#![allow(dead_code, unreachable_pub)] // each test program uses its part

pub mod appliance;
pub mod http;
#[cfg(target_arch = "x86_64")]
pub mod injection;
pub mod inspect;
pub mod keeper;
pub mod lasting;
pub mod mail;
pub mod offer;
pub mod place;
pub mod portal;
pub mod postfix;
pub mod process;
pub mod random;
pub mod receiver;
pub mod rtp;
pub mod shapes;
pub mod share;
pub mod sip;
pub mod sipp;
pub mod sound;
pub mod speaker;
pub mod srtp;
pub mod tls;
pub mod traffic;
pub mod webex;

use std::thread;
use std::time::{Duration, Instant};

pub use appliance::Appliance;

/// After this long a condition that was waited for is taken never to come: generous, because machines that test are slow.
const GIVE_UP: Duration = Duration::from_secs(90);

/// Waits until `condition` gives something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < GIVE_UP, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// [`wait_for`] of something that is only true or not.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
