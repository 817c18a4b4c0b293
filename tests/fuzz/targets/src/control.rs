//! Messages between daemon and recorder: what is read can be written and is the same again.

use std::fmt::Debug;

use callvault_control::{Network, ToDaemon, ToRecorder, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the input as a message in either direction.
pub fn run(input: &[u8]) {
    check::<ToRecorder>(input);
    if let Some(ToRecorder::Start(start)) = check(input) {
        for network in &start.allowed_peers {
            check_network(network);
        }
    }
    check::<ToDaemon>(input);
}

fn check<M: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Option<M> {
    let message: M = decode(input).ok()?;
    let written = encode(&message).expect("what was read within the limit can be written within it");
    let again: M = decode(&written).expect("what was written can be read");
    // By what is written, so that a number that is not equal to itself does not matter.
    assert!(encode(&again).is_ok_and(|again| again == written), "the message changed on the way");
    Some(message)
}

fn check_network(network: &Network) {
    let _ = network.contains(network.address);
    let _ = network.contains([127, 0, 0, 1].into());
}
