use super::*;

fn offer(labels: &[&str]) -> Offer {
    let mut text = String::from("v=0\n");
    for label in labels {
        text += &format!("m=audio 4000 RTP/AVP 0\na=label:{label}\n");
    }
    Offer::parse(text.as_bytes()).unwrap()
}

fn from(uri: &str) -> Signalling<'_> {
    Signalling { from: HeaderParty { display_name: Some("Ann"), uri }, broadworks_correlation: None }
}

fn parsed(elements: &str) -> Metadata {
    let text = format!("<recording xmlns='urn:ietf:params:xml:ns:recording:1'>{elements}</recording>");
    Metadata::parse(text.as_bytes()).unwrap()
}

/// Metadata with participants (address, streams) and streams (label, mode); ids are addresses and labels.
fn drafted(people: &[(&str, &[&str])], streams: &[(&str, &str)], extension: &str) -> Metadata {
    let mut elements = String::new();
    for (aor, sends) in people {
        let sends: String = sends.iter().map(|id| format!("<send>{id}</send>")).collect();
        elements += &format!("<participant id='{aor}'><aor>{aor}</aor>{sends}</participant>");
    }
    for (label, mode) in streams {
        elements += &format!("<stream id='{label}'><label>{label}</label><mode>{mode}</mode></stream>");
    }
    parsed(&format!("{elements}<extensiondata>{extension}</extensiondata>"))
}

#[test]
fn lines_have_roles() {
    /// Roles as letters: l(ocal), m(ixed), o(ther).
    fn check(labels: &[&str], metadata: Option<&Metadata>, roles: &str) {
        let facts = session_facts(&from("sip:src@example.com"), &offer(labels), Ok(metadata));
        let found: String = facts
            .tracks
            .iter()
            .map(|role| match (role.local, role.mixed) {
                (true, false) => 'l',
                (false, true) => 'm',
                (false, false) => 'o',
                (true, true) => '!',
            })
            .collect();
        assert_eq!(found, roles, "{labels:?} {metadata:?}");
    }
    let two = [("1", "separate"), ("2", "separate")];
    check(&["1", "2"], None, "lo");
    check(&["2", "1"], None, "ol");
    check(&["7", "8"], None, "lo");
    check(&["1"], None, "m");
    check(&["1", "2"], Some(&drafted(&[("a", &["1"]), ("b", &["2"])], &two, "")), "lo");
    check(&["2", "1"], Some(&drafted(&[("a", &["1"]), ("b", &["2"])], &two, "")), "ol");
    check(&["1", "2"], Some(&drafted(&[("a", &["1"]), ("b", &["2"]), ("c", &["2"])], &two, "")), "lo");
    check(&["1"], Some(&drafted(&[("a", &["1"]), ("b", &["1"])], &[("1", "separate")], "")), "m");
    check(&["1"], Some(&drafted(&[("a", &["1"]), ("b", &[])], &[("1", "mixed")], "")), "m");
    check(&["1"], Some(&drafted(&[("a", &["1"])], &[("1", "separate")], "")), "l");
    check(&["1", "2"], Some(&drafted(&[("a", &[]), ("b", &["1"])], &two, "")), "lo");
    check(&["1", "2"], Some(&drafted(&[("a", &[]), ("b", &["1"])], &two, "<broadWorksRecordingMetadata/>")), "ol");
    check(&["1", "2"], Some(&drafted(&[], &[], "")), "lo");
    check(&["x", "y"], Some(&drafted(&[("a", &["1"]), ("b", &["2"])], &two, "")), "lo");
    check(&["x", "y"], Some(&drafted(&[("a", &["y"]), ("b", &["x"])], &[], "")), "ol");
    check(
        &["1", "2"],
        Some(&drafted(
            &[("a", &["1"]), ("b@h", &["2"])],
            &two,
            "<broadWorksRecordingMetadata><userID>sip:b@H</userID></broadWorksRecordingMetadata>",
        )),
        "ol",
    );
}

#[test]
fn the_recorded_user_is_found() {
    fn check(uri: &str, people: &[(&str, &[&str])], aor: &str) {
        let metadata = drafted(people, &[("1", "separate"), ("2", "separate")], "");
        let facts = session_facts(&from(uri), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.local.aor.as_deref(), Some(aor), "{uri} {people:?}");
        assert_eq!(facts.call.remotes.len(), people.len() - 1);
        assert_eq!(facts.call.direction, CallDirection::Unknown);
    }
    check("sip:src@h", &[("a@h", &[]), ("b@h", &[])], "a@h");
    check("sip:src@h", &[("a@h", &["2"]), ("b@h", &["1"])], "b@h");
    check("sip:src@h", &[("a@h", &["1"]), ("b@h", &["1"])], "a@h");
    check("sip:b@h", &[("a@h", &["1"]), ("b@h", &["2"])], "b@h");
    check("sip:+123@other", &[("a@h", &["1"]), ("+123@h", &["2"])], "+123@h");
}

#[test]
fn the_header_names_whom_it_means() {
    fn check(uri: &str, people: &[(&str, &[&str])], number: Option<&str>, name: Option<&str>) {
        let metadata = drafted(people, &[], "");
        let facts = session_facts(&from(uri), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.local.number.as_deref(), number, "{uri}");
        assert_eq!(facts.call.local.name.as_deref(), name, "{uri}");
    }
    check("sip:+123@h", &[("sip:+123@h", &[]), ("sip:7@h", &[])], Some("+123"), Some("Ann"));
    check("sip:src@h", &[("sip:+123@h", &[]), ("sip:7@h", &[])], Some("+123"), None);
    check("sip:+9@h", &[], Some("+9"), Some("Ann"));
}

/// BroadWorks' data of a call of this half.
fn half(leg: &str, calling: &str, called: &str) -> String {
    format!(
        "<broadWorksRecordingMetadata><callType><{leg}><callingPartyNumber>{calling}</callingPartyNumber><calledPartyNumber>{called}</calledPartyNumber><dialedDigits>0999</dialedDigits></{leg}></callType></broadWorksRecordingMetadata>"
    )
}

#[test]
fn broadworks_numbers_are_found() {
    fn check(uri: &str, extension: &str, direction: CallDirection, local: Option<&str>, remote: Option<&str>) {
        let metadata = drafted(&[("u@h", &["1"]), ("sip:7711@h", &["2"])], &[], extension);
        let facts = session_facts(&from(uri), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.direction, direction, "{extension}");
        assert_eq!(facts.call.local.number.as_deref(), local, "{extension}");
        assert_eq!(facts.call.remotes[0].number.as_deref(), remote, "{extension}");
    }
    use CallDirection::{Incoming, Outgoing, Unknown};
    check("sip:+10@h", &half("origCall", "1", "sip:+20@h"), Outgoing, Some("+10"), Some("+20"));
    check("sip:+10@h", &half("termCall", "sip:+30@h", "1"), Incoming, Some("+10"), Some("+30"));
    check("sip:u@h", &half("origCall", "tel:+11", "+20"), Outgoing, Some("+11"), Some("+20"));
    check("sip:u@h", &half("termCall", "+30", "sip:12@h"), Incoming, Some("12"), Some("+30"));
    check("sip:u@h", &half("origCall", "", "sip:x@h"), Outgoing, None, Some("0999"));
    check("sip:u@h", &half("termCall", "sip:anonymous@h", ""), Incoming, None, Some("7711"));
    check("sip:+10@h", "<broadWorksRecordingMetadata/>", Unknown, Some("+10"), Some("7711"));
}

#[test]
fn other_clients_words_are_used() {
    /// The participants' addresses are `12` and `other`; the client adds `extension`.
    fn check(other: &str, extension: &str, direction: CallDirection, remote: Option<&str>, name: Option<&str>) {
        let metadata = drafted(&[("12", &["1"]), (other, &["2"])], &[("1", ""), ("2", "")], extension);
        let facts = session_facts(&from("sip:src@h"), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.direction, direction, "{extension}");
        assert_eq!(facts.call.local.number.as_deref(), Some("12"), "{extension}");
        assert_eq!(facts.call.remotes[0].number.as_deref(), remote, "{extension}");
        assert_eq!(facts.call.remotes[0].name.as_deref(), name, "{extension}");
    }
    use CallDirection::{Incoming, Outgoing, Unknown};
    let ribbon = |from, to| format!("<callData><fromhdr>{from}</fromhdr><tohdr>{to}</tohdr></callData>");
    check("a@h", &ribbon("&lt;sip:12@x&gt;", "\"Bo\" &lt;sip:34@x&gt;"), Outgoing, Some("34"), Some("Bo"));
    check("a@h", &ribbon("\"Bo\" &lt;sip:34@x&gt;", "sip:12@x"), Incoming, Some("34"), Some("Bo"));
    check("a@h", &ribbon("sip:34@x", "sip:56@x"), Unknown, None, None);
    check("a@h", &ribbon("sip:12@x", "sip:12@x"), Unknown, None, None);
    let metaswitch = |half, dialed| {
        format!(
            "<metaswitchRecordingMetadata><callType>{half}</callType><recordedParty>12</recordedParty><callingPartyNumber>78</callingPartyNumber><dialedDigits>{dialed}</dialedDigits></metaswitchRecordingMetadata>"
        )
    };
    check("a@h", &metaswitch("originating", "934"), Outgoing, Some("934"), None);
    check("34", &metaswitch("originating", "934"), Outgoing, Some("34"), None);
    check("a@h", &metaswitch("terminating", "100"), Incoming, Some("78"), None);
}

#[test]
fn who_called_follows_from_either_party() {
    /// Whether the recorded user and the other are said to have called.
    fn check(own: &str, other: &str, direction: CallDirection) {
        let person = |id: &str, said: &str| {
            let said = match said {
                "" => String::new(),
                said => format!("<extensiondata><callingParty>{said}</callingParty></extensiondata>"),
            };
            format!("<participant id='{id}'><aor>{id}</aor><send>{id}</send>{said}</participant>")
        };
        let metadata = parsed(&format!("{}{}", person("a", own), person("b", other)));
        let facts = session_facts(&from("sip:src@h"), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.direction, direction, "{own} {other}");
    }
    check("true", "false", CallDirection::Outgoing);
    check("false", "true", CallDirection::Incoming);
    check("", "true", CallDirection::Incoming);
    check("", "false", CallDirection::Outgoing);
    check("", "", CallDirection::Unknown);
}

#[test]
fn placeholders_are_nobody() {
    fn check(people: &[(&str, &[&str])], local: Option<&str>, remotes: &[&str]) {
        let metadata = drafted(people, &[("1", ""), ("2", "")], "");
        let facts = session_facts(&from("sip:ASBCE@asbce.com"), &offer(&["1", "2"]), Ok(Some(&metadata)));
        assert_eq!(facts.call.local.aor.as_deref(), local, "{people:?}");
        let found: Vec<&str> = facts.call.remotes.iter().map(|party| party.aor.as_deref().unwrap()).collect();
        assert_eq!(found, remotes, "{people:?}");
        assert_eq!(facts.flaws[0].code, "participant-placeholder");
    }
    const NOBODY: &str = "sip:ASBCE@asbce.com";
    check(&[(NOBODY, &["1"]), ("a@h", &["2"])], Some("a@h"), &[]);
    check(&[("a@h", &["2"]), (NOBODY, &["1"]), ("b@h", &["1"])], Some("a@h"), &["b@h"]);
    check(&[(NOBODY, &["1"])], Some(NOBODY), &[]);
}

#[test]
fn a_line_that_nobody_sends_stays_whose_it_was() {
    /// Whose line is local after one more document; the recorded user's is the second, which has label 1.
    fn check(change: &str, local: [bool; 2]) {
        let person = |id| format!("<participant participant_id='{id}'><nameID aor='sip:{id}@h'/></participant>");
        let stream = |id, label| format!("<stream stream_id='{id}'><label>{label}</label></stream>");
        let sends =
            |id, stream| format!("<participantstreamassoc participant_id='{id}'>{stream}</participantstreamassoc>");
        let mut known = parsed(&format!(
            "{}{}{}{}{}{}",
            person("b"),
            person("a"),
            stream("s", 1),
            stream("t", 2),
            sends("b", "<send>s</send>"),
            sends("a", "<send>t</send>")
        ));
        known.merge(parsed(change));
        let facts = session_facts(&from("sip:a@h"), &offer(&["1", "2"]), Ok(Some(&known)));
        let found: Vec<bool> = facts.tracks.iter().map(|role| role.local).collect();
        assert_eq!(found, local, "{change}");
    }
    const PARTIAL: &str = "<datamode>partial</datamode>";
    const BOTH_SILENT: &str =
        "<participantstreamassoc participant_id='a'/><participantstreamassoc participant_id='b'/>";
    check(PARTIAL, [false, true]);
    check(&format!("{PARTIAL}{BOTH_SILENT}"), [false, true]);
    check(
        &format!(
            "{PARTIAL}<participantstreamassoc participant_id='a'><send>s</send></participantstreamassoc><participantstreamassoc participant_id='b'/>"
        ),
        [true, false],
    );
}

#[test]
fn the_main_remote_party_comes_first() {
    fn check(numbers: &[Option<&str>], active_count: usize, number: &str, expected: &[Option<&str>]) {
        let mut remotes: Vec<Party> =
            numbers.iter().map(|number| Party { number: number.map(str::to_owned), ..Party::default() }).collect();
        name_main_remote(&mut remotes, active_count, number.to_owned());
        let found: Vec<Option<&str>> = remotes.iter().map(|party| party.number.as_deref()).collect();
        assert_eq!(found, expected, "{numbers:?} {number}");
    }
    check(&[], 0, "7711", &[Some("7711")]);
    check(&[None], 1, "+1", &[Some("+1")]);
    check(&[Some("7711")], 1, "+3905557711", &[Some("+3905557711")]);
    check(&[Some("7711")], 1, "+3905550000", &[Some("+3905550000")]);
    check(&[Some("+100"), Some("+200")], 2, "+200", &[Some("+200"), Some("+100")]);
    check(&[Some("+100")], 1, "+200", &[Some("+100")]);
    check(&[None, Some("+200")], 1, "+200", &[None, Some("+200")]);
}

#[test]
fn sessions_of_a_built_in_bridge_share_the_legs_of_their_call() {
    fn legs(parameters: &str) -> Option<String> {
        session_facts(&from(&format!("sip:2000@h;{parameters}")), &offer(&["1"]), Ok(None)).call.tracking_id
    }
    fn check(parameters: &str, expected: Option<&str>) {
        assert_eq!(legs(parameters).as_deref(), expected, "{parameters}");
    }
    let agent = "x-refci=12;x-nearendclusterid=East;x-farendrefci=11;x-farendclusterid=east";
    check(&format!("x-nearend;{agent}"), Some("11@east 12@east"));
    check(&format!("x-farend;{agent}"), Some("11@east 12@east"));
    // The other party's phone, where it is recorded as well.
    check(
        "x-nearend;x-refci=11;x-nearendclusterid=east;x-farendrefci=12;x-farendclusterid=east",
        Some("11@east 12@east"),
    );
    check("x-nearend;x-refci=12", Some("12@"));
    check("x-nearend;x-refci=", None);
    check("x-nearend", None);
    check("x-refci=12", None);
}

#[test]
fn unreadable_metadata_is_a_flaw_and_no_more() {
    fn check(error: SiprecError, code: &str) {
        let facts = session_facts(&from("sip:+10@h"), &offer(&["1", "2"]), Err(&error));
        assert_eq!(facts.flaws[0].code, code);
        assert!(facts.flaws[0].text.starts_with("failed to read"));
        assert_eq!(facts.call.local.number.as_deref(), Some("+10"));
        assert_eq!(facts.tracks.len(), 2);
    }
    check(Metadata::parse(b"<a>").unwrap_err(), "metadata-malformed");
    check(SiprecError::MetadataHasDtd, "metadata-refused");
}

#[test]
fn flaws_between_the_bodies_are_noted() {
    fn check(labels: &[&str], metadata: &Metadata, codes: &[&str]) {
        let facts = session_facts(&from("sip:a@h"), &offer(labels), Ok(Some(metadata)));
        let found: Vec<&str> = facts.flaws.iter().map(|flaw| flaw.code).collect();
        assert_eq!(found, codes, "{labels:?} {metadata:?}");
    }
    let good = drafted(&[("a", &["1"]), ("b", &["2"])], &[("1", ""), ("2", "")], "");
    check(&["1", "2"], &good, &[]);
    check(&["x", "y"], &good, &["label-unmatched"]);
    check(&["1"], &good, &["stream-unresolved"]);
    check(&["1"], &parsed("<datamode>partial</datamode>"), &["metadata-partial", "participants-missing"]);
}
