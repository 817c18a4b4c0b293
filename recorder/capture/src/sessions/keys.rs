//! The SRTP keys of media lines: which crypto attribute of an offer is taken, and what answers it (RFC 4568).

use std::collections::{BTreeMap, HashMap};

use callvault_seal::Secret;
use callvault_siprec::{MediaLine, Offer};
use callvault_srtp::sdes::{self, CryptoAttribute};
use callvault_srtp::{MasterKey, Unprotector};
use rand::CryptoRng;

/// What was agreed on for one media line.
pub(super) struct Agreed {
    /// The client's attribute, with the keys of what it sends.
    theirs: CryptoAttribute,
    /// Our attribute's value, for the answer.
    ours: Secret<String>,
}

impl Agreed {
    pub(super) fn text(&self) -> &str {
        self.ours.expose()
    }

    pub(super) fn into_theirs(self) -> CryptoAttribute {
        self.theirs
    }

    /// For a track that begins with these keys.
    pub(super) fn unprotector(&self) -> Unprotector {
        Unprotector::new(&self.theirs).expect("only what is supported is chosen")
    }
}

/// Our own keys of a dialog, by media line: a later answer has the same, unless the suite changes.
///
/// Nothing is sent on media lines as yet, so nothing is secured with them; a client wants one all the same.
#[derive(Default)]
pub(super) struct OwnKeys(HashMap<usize, MasterKey>);

impl OwnKeys {
    /// To be kept in memory for the next recorder.
    pub(super) fn stored(&self) -> BTreeMap<usize, MasterKey> {
        self.0.iter().map(|(line, key)| (*line, key.copy())).collect()
    }

    pub(super) fn resumed(stored: BTreeMap<usize, MasterKey>) -> Self {
        Self(stored.into_iter().collect())
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
            let answer = theirs.answer(self.0.get(&line), rng).expect("only what is supported is chosen");
            let ours = answer.to_text().expect("an answer has a suite and a key");
            if let Some(own) = answer.keys.into_iter().next() {
                self.0.insert(line, own.key);
            }
            agreed.insert(line, Agreed { theirs, ours });
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
