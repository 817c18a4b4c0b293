//! A session description: what is offered is answered line by line, and both readers take the answer.

use std::net::IpAddr;

use callvault_siprec::{
    AnswerParams, DEFAULT_PREFERENCE, HeaderParty, MEDIA_LINES_MAX, Offer, Ports, Signalling, answer_secured,
    session_facts, without_keys,
};
use callvault_srtp::sdes;

/// What our own key is made of, here.
const OWN_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";

/// Reads the offer and answers it.
pub fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let struck = without_keys(text);
        assert!(struck.matches('\n').count() == text.matches('\n').count());
        let lines = Offer::parse(struck.as_bytes()).map(|offer| offer.media).unwrap_or_default();
        let mut left = lines.iter().flat_map(|line| &line.crypto);
        assert!(!left.any(|crypto| crypto.expose().to_ascii_lowercase().contains("inline:")), "keys were left");
    }
    let Ok(offer) = Offer::parse(input) else { return };
    assert!((1..=MEDIA_LINES_MAX).contains(&offer.media.len()) && offer.recordable().next().is_some());
    for secured in [false, true] {
        check_answer(&offer, secured);
    }
    let signalling = Signalling { from: HeaderParty::default(), broadworks_correlation: None };
    let facts = session_facts(&signalling, &offer, Ok(None));
    assert!(facts.tracks.len() == offer.recordable().count());
}

fn check_answer(offer: &Offer, secured: bool) {
    let ports: Vec<Option<Ports>> =
        (0..offer.media.len()).map(|index| (index % 3 != 2).then_some((20_000, 20_001))).collect();
    let crypto: Vec<Option<String>> = offer
        .media
        .iter()
        .map(|line| {
            let offered: Vec<_> = line.crypto.iter().filter_map(|line| sdes::parse(line.expose()).ok()).collect();
            let chosen = sdes::choose(&offered).filter(|_| secured)?;
            Some(format!("{} {} inline:{OWN_KEY}", chosen.tag, chosen.suite?.name()))
        })
        .collect();
    let crypto: Vec<Option<&str>> = crypto.iter().map(Option::as_deref).collect();
    let params = AnswerParams {
        address: IpAddr::from([192, 0, 2, 1]),
        session_id: 1,
        version: 1,
        ports: &ports,
        prefer: DEFAULT_PREFERENCE,
    };
    let (text, tracks) = answer_secured(offer, &params, &crypto);
    assert!(text.lines().filter(|line| line.starts_with("m=")).count() == offer.media.len());
    let strict = sdp_types::Session::parse(text.as_bytes()).expect("the answer is read by a strict reader");
    assert!(strict.medias.len() == offer.media.len());
    for (index, media) in strict.medias.iter().enumerate() {
        let track = tracks.iter().find(|track| track.media_line == index);
        assert!((media.port != 0) == track.is_some(), "accepted and refused are not told apart");
        let Some(track) = track else { continue };
        assert!(ports[index].is_some() && track.codecs.len() == offer.media[index].codecs.len());
        let keys = media.attributes.iter().filter(|attribute| attribute.attribute == "crypto").count();
        assert!(keys == usize::from(track.secured) && (!track.secured || crypto[index].is_some()));
    }
    if tracks.is_empty() {
        return;
    }
    let again = Offer::parse(text.as_bytes()).expect("the answer reads as an offer");
    assert!(again.media.len() == offer.media.len());
    for track in &tracks {
        let line = &again.media[track.media_line];
        assert!(line.is_recordable() && line.port == 20_000 && line.codecs.len() == track.codecs.len());
    }
}
