//! Everything that a daemon works on and that outlives it, and the points at which it can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use callvault_seal::{Keyring, PrivateKey, PublicKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::bug::Bug;
use crate::device::Device;
use crate::dice::Dice;
use crate::spool::Spool;
use crate::stable::Stable;

/// The daemon was killed here, or the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Killed;

/// The store: a disk that can be elsewhere, with another beneath its mount point.
pub(crate) struct Store {
    pub(crate) device: Device,
    /// What is written to the mount point while nothing is mounted there.
    pub(crate) below: Device,
    pub(crate) is_away: bool,
    /// System calls do not return before this moment.
    pub(crate) hangs_until_ns: u64,
}

/// See the module.
pub(crate) struct Outside {
    pub(crate) spool: Spool,
    pub(crate) store: Store,
    pub(crate) stable: Stable,
    pub(crate) now_ns: u64,
    pub(crate) unix_ms: u64,
    /// The generation that a recorder is writing now.
    pub(crate) live: Option<Uuid>,
    /// The recorder that said that it is ready, and the recordings that it said it goes on with.
    pub(crate) ready: (Option<Uuid>, BTreeSet<Uuid>),
    pub(crate) dice: Dice,
    pub(crate) bug: Option<Bug>,
    /// Points until the daemon is killed.
    pub(crate) killed_in: Option<u32>,
    pub(crate) wrong: Option<String>,
    pub(crate) archives: u64,
    /// Generations with a part of a recording that was archived before.
    pub(crate) too_late: BTreeSet<Uuid>,
    /// When each generation began.
    pub(crate) began: BTreeMap<Uuid, u64>,
}

impl Outside {
    /// A point between two steps.
    pub(crate) fn point(&mut self) -> Result<(), Killed> {
        match &mut self.killed_in {
            Some(0) => Err(Killed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Something of note.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if is_traced() {
            println!("{:>8} ms  {}", self.now_ns / 1_000_000, text());
        }
    }

    pub(crate) fn say(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// Whether `TRACE` is set: then everything of note is printed as it happens.
pub(crate) fn is_traced() -> bool {
    static TRACED: OnceLock<bool> = OnceLock::new();
    *TRACED.get_or_init(|| std::env::var_os("TRACE").is_some())
}

/// The appliance's keys, the same in all simulations: making them is slow and decides nothing.
pub(crate) fn keys() -> &'static (Keyring, PublicKey) {
    static KEYS: OnceLock<(Keyring, PublicKey)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let private = PrivateKey::generate(&mut StdRng::seed_from_u64(1));
        let public = PublicKey::from_text(&private.public().to_text()).expect("its own text is a key");
        (Keyring::new(private, Vec::new()).expect("one key is a keyring"), public)
    })
}
