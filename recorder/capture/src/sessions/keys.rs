//! The SRTP keys of media lines: which crypto attribute of an offer is taken, and what answers it (RFC 4568).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use callvault_seal::Secret;
use callvault_siprec::{MediaLine, Offer};
use callvault_srtp::sdes::{self, CryptoAttribute};
use callvault_srtp::{MasterKey, Protector, Unprotector};
use rand::CryptoRng;

/// What was agreed on for one media line.
pub(super) struct Agreed {
    /// The client's attribute, with the keys of what it sends.
    theirs: CryptoAttribute,
    /// Our attribute's value, for the answer.
    ours: Secret<String>,
    /// What secures with our key, to be had once: a second one would use its indices again.
    protector: Option<Box<Protector>>,
}

impl Agreed {
    pub(super) fn text(&self) -> &str {
        self.ours.expose()
    }

    /// The client's attribute, and what secures with our key.
    pub(super) fn into_parts(self) -> (CryptoAttribute, Option<Box<Protector>>) {
        (self.theirs, self.protector)
    }

    /// What secures with our key; none the second time.
    pub(super) fn take_protector(&mut self) -> Option<Box<Protector>> {
        self.protector.take()
    }

    /// For a track that begins with these keys.
    pub(super) fn unprotector(&self) -> Unprotector {
        Unprotector::new(&self.theirs).expect("only what is supported is chosen")
    }
}

/// Our own keys of a dialog, by media line: a later answer has the same, unless the suite changes. The reports on how the track is
/// received are secured with them.
#[derive(Default)]
pub(super) struct OwnKeys {
    keys: HashMap<usize, MasterKey>,
    /// Lines whose key another recorder has used: how far, only its checkpoint knows.
    used: BTreeSet<usize>,
}

impl OwnKeys {
    /// To be kept in memory for the next recorder.
    pub(super) fn stored(&self) -> BTreeMap<usize, MasterKey> {
        self.keys.iter().map(|(line, key)| (*line, key.copy())).collect()
    }

    pub(super) fn resumed(stored: BTreeMap<usize, MasterKey>) -> Self {
        Self { used: stored.keys().copied().collect(), keys: stored.into_iter().collect() }
    }

    /// Agrees on keys for those of the lines `taken` that offer some. A line of a plain profile with keys is a best-effort offer
    /// (RFC 8643), and becomes SRTP too.
    pub(super) fn agree(
        &mut self,
        offer: &Offer,
        taken: impl Iterator<Item = usize>,
        rng: &mut dyn CryptoRng,
    ) -> HashMap<usize, Agreed> {
        let mut agreed = HashMap::new();
        for line in taken {
            let Some(theirs) = offer.media.get(line).and_then(chosen) else { continue };
            let known = self.keys.get(&line);
            let answer = theirs.answer(known, rng).expect("only what is supported is chosen");
            let is_known = known.is_some_and(|known| answer.keys.first().is_some_and(|own| own.key.is(known)));
            let is_used = is_known && self.used.contains(&line);
            let protector = Protector::new(&answer).ok().filter(|_| !is_used).map(Box::new);
            let ours = answer.to_text().expect("an answer has a suite and a key");
            if let Some(own) = answer.keys.into_iter().next() {
                self.keys.insert(line, own.key);
            }
            if !is_known {
                self.used.remove(&line);
            }
            agreed.insert(line, Agreed { theirs, ours, protector });
        }
        agreed
    }
}

/// The attribute of a line that is taken, if any can be. Those that cannot be read are passed over.
fn chosen(line: &MediaLine) -> Option<CryptoAttribute> {
    let mut offered: Vec<_> = line.crypto.iter().filter_map(|value| sdes::parse(value.expose()).ok()).collect();
    let chosen = sdes::choose(&offered)?;
    let place = offered.iter().position(|attribute| std::ptr::eq(attribute, chosen))?;
    Some(offered.swap_remove(place))
}

/// The client's attribute that was taken, for a line of an offer that was answered before.
pub(super) fn theirs(line: &MediaLine) -> Option<CryptoAttribute> {
    chosen(line)
}

/// Whether what comes on the line can be opened: it is not secured, or has a key and a suite that are taken.
pub(super) fn can_be_opened(line: &MediaLine) -> bool {
    !line.is_secure() || chosen(line).is_some()
}
