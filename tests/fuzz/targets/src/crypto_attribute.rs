//! A crypto attribute (RFC 4568), as text behind `a=crypto:`: what is read is written and read again as the same.

use callvault_srtp::sdes::{self, CryptoAttribute};
use callvault_srtp::{Protector, Unprotector};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Reads each line of the input, chooses one, and answers it.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let offered: Vec<CryptoAttribute> = text.lines().take(8).filter_map(|line| sdes::parse(line).ok()).collect();
    for attribute in &offered {
        assert!(attribute.is_supported() == Unprotector::new(attribute).is_ok());
        if attribute.is_supported() {
            let written = attribute.to_text().expect("what is supported can be written");
            let again = sdes::parse(written.expose()).expect("what was written can be read");
            let rewritten = again.to_text().expect("what is supported can be written");
            assert!(rewritten.expose() == written.expose() && again.keys.len() == attribute.keys.len());
        }
    }
    let Some(chosen) = sdes::choose(&offered) else {
        assert!(offered.iter().all(|attribute| !attribute.is_supported()));
        return;
    };
    let answer = chosen.answer(None, &mut StdRng::seed_from_u64(1)).expect("what was chosen can be answered");
    assert!(answer.tag == chosen.tag && answer.suite == chosen.suite && Protector::new(&answer).is_ok());
}
