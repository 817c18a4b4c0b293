//! What holds for whatever a peer sends.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use callvault_sip::{Limits, Message, multipart, parse_datagram};
use callvault_siprec::{
    AnswerParams, DEFAULT_PREFERENCE, HeaderParty, Merge, Metadata, Offer, PARTICIPANTS_MAX, Ports, SESSIONS_MAX,
    STREAMS_MAX, Signalling, answer, session_facts, without_keys,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// The bodies in the corpus: session descriptions and metadata, on their own and in messages.
struct Bodies {
    sdp: Vec<Vec<u8>>,
    metadata: Vec<Vec<u8>>,
}

static BODIES: LazyLock<Bodies> = LazyLock::new(|| {
    let mut bodies = Bodies { sdp: Vec::new(), metadata: Vec::new() };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut files: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .flat_map(|client| fs::read_dir(client.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    // A seed must find the same file again.
    files.sort();
    for path in files {
        let bytes = fs::read(&path).unwrap();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("sdp") => bodies.sdp.push(bytes),
            Some("xml") => bodies.metadata.push(bytes),
            Some("sip") => {
                // Without a length, the body goes to the end.
                let text = String::from_utf8(bytes).unwrap();
                let text: String = text.split_inclusive('\n').filter(|line| !line.contains("{length}")).collect();
                let message = parse_datagram(text.as_bytes(), &Limits::default()).unwrap().unwrap();
                let Message::Request(request) = message else { panic!("{} is no request", path.display()) };
                for part in multipart::bodies(&request).unwrap().parts {
                    let list = if part.is_sdp() { &mut bodies.sdp } else { &mut bodies.metadata };
                    list.push(part.body);
                }
            }
            _ => {}
        }
    }
    assert!(bodies.sdp.len() > 20 && bodies.metadata.len() > 20);
    bodies
});

fn sdp() -> impl Strategy<Value = Vec<u8>> {
    mutated(&BODIES.sdp)
}

fn metadata() -> impl Strategy<Value = Vec<u8>> {
    mutated(&BODIES.metadata)
}

/// A body of the corpus with some of its bytes changed, taken out or doubled.
fn mutated(bodies: &'static [Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    (prop::sample::select(bodies), proptest::collection::vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
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

/// Whatever follows whatever, what is known stays within bounds, and the same again is nothing new.
fn check_merges(first: &[u8], later: &[u8]) -> Result<(), TestCaseError> {
    let (Ok(mut known), Ok(later)) = (Metadata::parse(first), Metadata::parse(later)) else {
        return Ok(());
    };
    known.merge(later.clone());
    prop_assert!(known.participants.len() <= PARTICIPANTS_MAX);
    prop_assert!(known.streams.len() <= STREAMS_MAX);
    prop_assert!(known.sessions.len() <= SESSIONS_MAX);
    prop_assert_eq!(known.merge(later), Merge::Unchanged);
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

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_answer(&bytes)?;
        let _ = Metadata::parse(&bytes);
    }

    #[test]
    fn changed_offers_are_answered(bytes in sdp()) {
        check_answer(&bytes)?;
    }

    #[test]
    fn odd_offers_are_answered(bytes in sdp_like()) {
        check_answer(&bytes)?;
    }

    #[test]
    fn changed_bodies_give_facts(
        sdp in sdp(),
        xml in metadata(),
        uri in "\\PC{0,40}",
    ) {
        check_facts(&sdp, &xml, &uri)?;
    }

    #[test]
    fn changed_metadata_is_merged(first in metadata(), later in metadata()) {
        check_merges(&first, &later)?;
    }

    #[test]
    fn any_header_names_participants(values in proptest::collection::vec("(sip:[0-9]{1,4}@h)?;?(media-index=)?\\PC{0,20}", 0..5)) {
        let metadata = Metadata::from_cisco_participants(values.iter().map(String::as_str));
        prop_assert!(metadata.is_none_or(|known| known.participants.len() <= values.len()));
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
