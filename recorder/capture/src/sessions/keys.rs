//! The SRTP keys of media lines: which crypto attribute of an offer is taken, and what answers it (RFC 4568).

use std::collections::HashMap;

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
pub(super) struct OwnKeys(HashMap<usize, MasterKey>);

impl OwnKeys {
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
            let protector = Protector::new(&answer).ok().map(Box::new);
            let ours = answer.to_text().expect("an answer has a suite and a key");
            if let Some(own) = answer.keys.into_iter().next() {
                self.0.insert(line, own.key);
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

/// Whether what comes on the line can be opened: it is not secured, or has a key and a suite that are taken.
pub(super) fn can_be_opened(line: &MediaLine) -> bool {
    !line.is_secure() || chosen(line).is_some()
}
