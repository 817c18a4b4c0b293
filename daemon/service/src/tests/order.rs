//! Packets come out in the order of their positions, however they lie in the journal.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::rig::{Generation, Rig, both, pcmu};
use crate::sound::{Reading, open_lanes};

/// How the packets lie in the journal.
enum Order {
    /// Those within so many of each other change places, by this seed.
    Shuffled(usize, u64),
    /// Of so many at a time first those of one track, then those of the other: sockets that were drained one after the other.
    Drained(usize),
}

fn check(order: &Order) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    let sorted = both(&pcmu(), 150);
    let mut audio = sorted.clone();
    match *order {
        Order::Shuffled(reach, seed) => {
            let mut rng = StdRng::seed_from_u64(seed);
            audio.chunks_mut(reach).for_each(|some| some.shuffle(&mut rng));
        }
        Order::Drained(reach) => audio.chunks_mut(reach).for_each(|some| some.sort_by_key(|p| p.track)),
    }
    call.audio(&mut generation, &audio);
    call.end(&mut generation);
    generation.finish();
    crate::ingest::Ingest::new(&running.appliance).round();
    let pinned = running.appliance.journals.pin(call.id);
    let lanes = open_lanes(&pinned, &running.appliance.keyring).unwrap();
    let reading = Reading::of_journal(&pinned.folder, &lanes).unwrap();
    let all: Vec<_> = reading.packets(&pinned.folder, &lanes, 0..u64::MAX).unwrap().map(|p| p.unwrap()).collect();
    assert!(all.is_sorted_by_key(|p| p.position));
    let mut given: Vec<_> = all.iter().map(|p| (p.position, p.track, p.payload.clone())).collect();
    given.sort();
    let expected: Vec<_> = sorted.iter().map(|p| (p.at_ms * 48, p.track, p.payload.clone())).collect();
    assert_eq!(given, expected);
}

#[test]
fn shuffled_packets_come_out_sorted() {
    check(&Order::Shuffled(1, 1));
    check(&Order::Shuffled(2, 2));
    check(&Order::Shuffled(10, 3));
    check(&Order::Shuffled(20, 4));
    check(&Order::Drained(100));
    check(&Order::Drained(300));
}

/// More sources than a track has numbers for are counted, not mixed up.
#[test]
fn sources_beyond_the_numbers_have_no_place_and_are_counted() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut first = Generation::begin(&running);
    let mut call = first.call(&[pcmu()]);
    call.keep(&mut first);
    let mut audio = both(&pcmu(), 256);
    audio.retain(|p| p.track == 0);
    for (source, p) in (0_u8..=255).zip(&mut audio) {
        p.source = source;
    }
    call.audio(&mut first, &audio);
    call.end(&mut first);
    first.finish();
    crate::ingest::Ingest::new(&running.appliance).round();
    let pinned = running.appliance.journals.pin(call.id);
    let twice: Vec<_> = pinned.iter().chain(pinned.iter()).cloned().collect();
    let lanes = open_lanes(&twice, &running.appliance.keyring).unwrap();
    let reading = Reading::of_journal(&pinned.folder, &lanes).unwrap();
    assert_eq!(reading.unplaced, 256);
    assert_eq!(running.row(call.id).tracks[0].packets, 256);
}
