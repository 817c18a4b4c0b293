//! The deciding parts of callvault in a simulated world.
//!
//! [`run`] makes a world from a seed and lets it run: SIPREC clients with scripts, a network that loses, repeats and reorders, the
//! recorder's real machines and loops (SIP endpoint, sessions, sweep, appender with its files), the daemon's steps in their written
//! order around the real scanner, reader, policy, queue machine, supervisor and archive format; disks with page caches, which lose or tear what was
//! not synced; and deaths of recorder, daemon and power between any two steps. Everything that happens follows from the seed. At the end, what
//! the appliance has is compared with what arrived at its sockets.
//!
//! Not real, and modelled by the procedures of the architecture: the glue of the recorder's signalling thread; the order of steps in
//! the daemon's ingest and jobs; the catalogue (transactions that are durable when they return) and the files of the queue.
//!
//! A simulation is worth what it can find: [`Bug`] has mistakes that are planted one at a time, and each must be found.

mod bug;
mod client;
mod daemon;
mod device;
mod dice;
mod outside;
mod sound;
mod spool;
mod stable;
mod truth;
mod working;
mod world;

pub use bug::Bug;
pub use callvault_capture::simulated::Planted;
pub use world::Outcome;

/// Runs the world of a seed, with a mistake planted or without.
///
/// # Errors
/// What is wrong, in a sentence: an invariant that does not hold.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome, String> {
    world::World::new(seed, bug).run()
}
