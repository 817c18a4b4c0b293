//! Recording metadata: one document, or two with a NUL between them of which the second comes later.

use callvault_siprec::{
    HeaderParty, Merge, Metadata, Offer, PARTICIPANTS_MAX, SESSIONS_MAX, STREAMS_MAX, Signalling, TEXT_CHARS_MAX,
    number_of, session_facts,
};

const OFFER: &[u8] = b"v=0\r\nm=audio 4000 RTP/AVP 0\r\na=label:1\r\nm=audio 4002 RTP/AVP 0 8\r\na=label:2\r\n";
const URI: &str = "sip:+15551230100@192.0.2.9;user=phone";

/// Reads the documents, merges them, and makes facts of them.
pub fn run(input: &[u8]) {
    let mut documents = input.splitn(2, |&byte| byte == 0);
    let first = Metadata::parse(documents.next().unwrap_or_default());
    let offer = Offer::parse(OFFER).expect("an offer in good order");
    let signalling =
        Signalling { from: HeaderParty { display_name: Some("\"A\""), uri: URI }, broadworks_correlation: None };
    let later = documents.next().map(Metadata::parse);
    let (mut known, later) = match (first, later) {
        (Ok(known), Some(Ok(later))) => (known, later),
        (first, _) => {
            let facts = session_facts(&signalling, &offer, first.as_ref().map(Some));
            assert!(facts.tracks.len() == 2 && facts.tracks.iter().all(|track| !(track.local && track.mixed)));
            assert!(!facts.call.shape.is_empty() || first.is_err());
            first.iter().for_each(check);
            if let Some(text) = std::str::from_utf8(input).ok().filter(|text| !text.starts_with('<')) {
                check_text(text);
            }
            return;
        }
    };
    known.merge(later.clone());
    check(&known);
    assert!(known.merge(later) == Merge::Unchanged, "the same document again changes something");
    let facts = session_facts(&signalling, &offer, Ok(Some(&known)));
    assert!(facts.tracks.len() == 2);
}

/// Text that begins as no document does, where a header field has it.
fn check_text(text: &str) {
    let _ = number_of(text);
    let values: Vec<&str> = text.lines().collect();
    if let Some(known) = Metadata::from_cisco_participants(values.iter().copied()) {
        assert!(known.participants.len() <= values.len());
        check(&known);
    }
}

/// What is known of a call stays within its bounds.
fn check(known: &Metadata) {
    assert!(known.participants.len() <= PARTICIPANTS_MAX);
    assert!(known.streams.len() <= STREAMS_MAX && known.sessions.len() <= SESSIONS_MAX);
    let short = |text: &String| text.chars().count() <= TEXT_CHARS_MAX;
    for participant in &known.participants {
        let texts = participant.aors.iter().chain(&participant.names).chain(&participant.sends);
        assert!(texts.chain(&participant.recvs).chain([&participant.id]).all(short), "a text beyond the limit");
        let _ = (participant.is_active(), participant.is_placeholder(), participant.name());
    }
    assert!(known.streams.iter().all(|stream| short(&stream.id) && stream.label.iter().all(short)));
    assert!(known.sessions.iter().all(|session| short(&session.id)));
}
