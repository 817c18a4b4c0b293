//! What holds for whatever a peer sends.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use callvault_siprec::{
    AnswerParams, DEFAULT_PREFERENCE, HeaderParty, Metadata, Offer, Ports, Signalling, answer, session_facts,
    without_keys,
};
use proptest::prelude::*;

const SDP: &[u8] = include_bytes!("../../../tests/corpus/webex/offer.sdp");
const DRAFT: &[u8] = include_bytes!("../../../tests/corpus/broadworks/redirected.xml");
const STANDARD: &[u8] = include_bytes!("../../../tests/corpus/rfc7865/two-parties.xml");

/// A body with some of its bytes changed, taken out or doubled.
fn mutated(body: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..body.len(), any::<u8>(), 0..4_u8);
    proptest::collection::vec(change, 0..12).prop_map(move |changes| {
        let mut bytes = body.to_vec();
        for (at, byte, kind) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, byte),
                _ => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend(tail);
                }
            }
        }
        bytes
    })
}

/// Text made of what session descriptions are made of.
fn sdp_like() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "m=(audio|video|x)? ?[0-9]{0,6}(/[0-9]{0,6})? ?(RTP/AVP|RTP/SAVP|UDP)?( [0-9]{1,3}){0,5}",
        "a=(rtpmap|fmtp|ptime|rtcp|label|mid|crypto|sendonly|inactive)?:?[0-9 A-Za-z/.=|]{0,20}",
        "c=IN IP[46] [0-9a-f.:/]{0,12}",
        "[a-z]=?\\PC{0,10}",
    ];
    let ending = prop_oneof![Just("\r\n"), Just("\n"), Just("\r"), Just(" \n")];
    proptest::collection::vec((line, ending), 0..30).prop_map(|lines| {
        let text: String = lines.into_iter().map(|(line, ending)| line + ending).collect();
        text.into_bytes()
    })
}

/// An answer repeats the offer's lines, accepts none without ports, and is read by a strict reader.
fn check_answer(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(offer) = Offer::parse(bytes) else {
        return Ok(());
    };
    let ports: Vec<Option<Ports>> =
        (0..offer.media.len()).map(|index| (index % 3 != 2).then_some((20_000, 20_001))).collect();
    let params = AnswerParams {
        address: IpAddr::from([192, 0, 2, 1]),
        session_id: 1,
        version: 1,
        ports: &ports,
        prefer: DEFAULT_PREFERENCE,
    };
    let (text, tracks) = answer(&offer, &params);
    let strict = sdp_types::Session::parse(text.as_bytes()).unwrap();
    prop_assert_eq!(strict.medias.len(), offer.media.len());
    for (index, media) in strict.medias.iter().enumerate() {
        let accepted = tracks.iter().any(|track| track.media_line == index);
        prop_assert_eq!(media.port != 0, accepted);
        prop_assert!(!accepted || ports[index].is_some());
        let offered = &offer.media[index];
        prop_assert_eq!(&media.proto, &offered.proto);
        if accepted {
            prop_assert_eq!(media.fmt.split(' ').count(), offered.codecs.len());
        }
    }
    Ok(())
}

fn check_facts(sdp: &[u8], xml: &[u8], uri: &str) -> Result<(), TestCaseError> {
    let Ok(offer) = Offer::parse(sdp) else {
        return Ok(());
    };
    let metadata = Metadata::parse(xml);
    let known = metadata.as_ref().map(Some);
    let signalling =
        Signalling { from: HeaderParty { display_name: Some(uri), uri }, broadworks_correlation: Some(uri) };
    let facts = session_facts(&signalling, &offer, known);
    prop_assert_eq!(facts.tracks.len(), offer.recordable().count());
    prop_assert!(facts.tracks.iter().all(|role| !(role.local && role.mixed)));
    prop_assert!(!facts.call.shape.is_empty() || metadata.is_err());
    if let Ok(metadata) = metadata {
        let mut merged = metadata.clone();
        merged.merge(metadata);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_answer(&bytes)?;
        let _ = Metadata::parse(&bytes);
    }

    #[test]
    fn changed_offers_are_answered(bytes in mutated(SDP)) {
        check_answer(&bytes)?;
    }

    #[test]
    fn odd_offers_are_answered(bytes in sdp_like()) {
        check_answer(&bytes)?;
    }

    #[test]
    fn changed_bodies_give_facts(
        sdp in mutated(SDP),
        xml in prop_oneof![mutated(DRAFT), mutated(STANDARD)],
        uri in "\\PC{0,40}",
    ) {
        check_facts(&sdp, &xml, &uri)?;
    }

    #[test]
    fn no_key_survives_the_striking(bytes in sdp_like(), key in "[A-Z]{12}") {
        let mut text = String::from_utf8(bytes).unwrap();
        text += &format!("\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^31\n");
        let struck = without_keys(&text);
        prop_assert!(!struck.contains(&key));
        prop_assert_eq!(struck.matches('\n').count(), text.matches('\n').count());
    }
}
