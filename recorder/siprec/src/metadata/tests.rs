use super::*;

fn parsed(text: &str) -> Metadata {
    Metadata::parse(text.as_bytes()).unwrap()
}

/// A standard document around these elements.
fn standard(elements: &str) -> String {
    format!("<recording xmlns='urn:ietf:params:xml:ns:recording:1'>{elements}</recording>")
}

#[test]
fn shapes_are_recognised() {
    fn check(text: &str, shape: Shape) {
        let metadata = parsed(text);
        assert_eq!(metadata.shape, shape, "{text}");
        let flawed = metadata.flaws.iter().any(|flaw| flaw.code == "unknown-shape");
        assert_eq!(flawed, shape == Shape::Unknown);
    }
    check("<recording xmlns='urn:ietf:params:xml:ns:recording:1'/>", Shape::Rfc7865);
    check("<x:recording xmlns:x='urn:ietf:params:xml:ns:recording:1'/>", Shape::Rfc7865);
    check("<recording xmlns='urn:ietf:params:xml:ns:recording'/>", Shape::Draft);
    check("<recording><participantsessionassoc/></recording>", Shape::Rfc7865);
    check("<recording_metadata xmlns='urn:ietf:params:xml:ns:siprec'/>", Shape::Draft);
    check("<recording_metadata><recording id='1'/></recording_metadata>", Shape::Draft);
    check("<wrap><recording_metadata/></wrap>", Shape::Draft);
    check(
        "<recording_metadata><extensiondata><broadWorksRecordingMetadata/></extensiondata></recording_metadata>",
        Shape::Broadworks,
    );
    check("<html/>", Shape::Unknown);
}

#[test]
fn participants_are_read() {
    fn check(element: &str, aors: &[&str], names: &[&str], sends: &[&str], recvs: &[&str]) {
        let metadata = parsed(&standard(element));
        let participant = &metadata.participants[0];
        assert_eq!(participant.id, "p", "{element}");
        assert_eq!(participant.aors, aors, "{element}");
        assert_eq!(participant.names, names, "{element}");
        assert_eq!(participant.sends, sends, "{element}");
        assert_eq!(participant.recvs, recvs, "{element}");
    }
    check(
        "<participant participant_id='p'><nameID aor='sip:a@b'><name xml:lang='de'> Ä &amp; Ö </name></nameID><nameID aor='tel:1'/></participant>",
        &["sip:a@b", "tel:1"],
        &["Ä & Ö"],
        &[],
        &[],
    );
    check(
        "<participant id='p'><aor>sip:a@b</aor><name>Ann</name><send><id>s</id></send><recv>t</recv></participant>",
        &["sip:a@b"],
        &["Ann"],
        &["s"],
        &["t"],
    );
    check(
        "<participantstreamassoc participant_id='p'><send>s</send><send>u</send></participantstreamassoc><participant participant_id='p'><nameID aor='x'/></participant>",
        &["x"],
        &[],
        &["s", "u"],
        &[],
    );
    check(
        "<participant participant_id='p'><nameID aor='x'/><participantstreamassoc><recv>t</recv></participantstreamassoc></participant>",
        &["x"],
        &[],
        &[],
        &["t"],
    );
    check(
        "<session id='q'><participant id='p'><aor><!-- c -->a<![CDATA[@b]]></aor></participant></session>",
        &["a@b"],
        &[],
        &[],
        &[],
    );
}

#[test]
fn streams_are_read() {
    fn check(element: &str, stream: Stream) {
        assert_eq!(parsed(&standard(element)).streams, [stream], "{element}");
    }
    let stream = |session: Option<&str>, label: Option<&str>, mode| Stream {
        id: "s".to_owned(),
        session_id: session.map(str::to_owned),
        label: label.map(str::to_owned),
        mode,
        media_line: None,
    };
    check("<stream stream_id='s' session_id='q'><label>96</label></stream>", stream(Some("q"), Some("96"), None));
    check(
        "<stream id='s' session='q'><label> 16777227 </label><mode>Mixed</mode></stream>",
        stream(Some("q"), Some("16777227"), Some(StreamMode::Mixed)),
    );
    check(
        "<stream id='s'><mode>separate</mode></stream><stream id='s'><label>1</label></stream>",
        stream(None, Some("1"), Some(StreamMode::Separate)),
    );
}

#[test]
fn leaving_is_understood() {
    const PEOPLE: &str = "<session session_id='q'/><session session_id='r'/><participant participant_id='p'><nameID aor='x'/></participant>";
    fn check(elements: &str, left: bool) {
        let metadata = parsed(&standard(&format!("{PEOPLE}{elements}")));
        assert_eq!(metadata.participants[0].left, left, "{elements}");
    }
    const LEFT_Q: &str = "<participantsessionassoc participant_id='p' session_id='q'><disassociate-time>1</disassociate-time></participantsessionassoc>";
    const IN_R: &str = "<participantsessionassoc participant_id='p' session_id='r'/>";
    const R_ENDS: &str = "<session session_id='r'><stop-time>2</stop-time></session>";
    check("", false);
    check(IN_R, false);
    check(LEFT_Q, true);
    check(&format!("{LEFT_Q}{IN_R}"), false);
    check(&format!("{LEFT_Q}{IN_R}{R_ENDS}"), true);
    check("<participantstreamassoc participant_id='p'/>", false);
}

#[test]
fn vendor_data_is_read() {
    let metadata = parsed(
        "<recording_metadata><extensiondata><bw:broadWorksRecordingMetadata xmlns:bw='b' version='2.0'>
        <bw:callID>c</bw:callID><bw:callType><bw:termCall><bw:callingPartyNumber>1</bw:callingPartyNumber>
        <bw:redirectInfo><bw:numOfRedirections>3</bw:numOfRedirections></bw:redirectInfo></bw:termCall></bw:callType>
        <bw:redirectedCall><bw:redirectedToPartynumber>2</bw:redirectedToPartynumber></bw:redirectedCall>
        <bw:acd><bw:acdName>Desk</bw:acdName></bw:acd><bw:recordingType>whatever</bw:recordingType><bw:novelty/>
        </bw:broadWorksRecordingMetadata></extensiondata></recording_metadata>",
    );
    let facts = metadata.broadworks.unwrap();
    assert_eq!(facts.version.as_deref(), Some("2.0"));
    assert_eq!(facts.call_id.as_deref(), Some("c"));
    assert_eq!(facts.leg, Some(CallLeg::Terminating));
    assert_eq!(facts.calling_number.as_deref(), Some("1"));
    assert_eq!(facts.called_number, None);
    assert_eq!(facts.redirections, Some(3));
    assert_eq!(facts.recording_type.as_deref(), Some("whatever"));
    assert_eq!(facts.redirected_call.unwrap().to_number.as_deref(), Some("2"));
    assert_eq!(facts.acd.unwrap().name.as_deref(), Some("Desk"));
}

#[test]
fn deviations_are_flaws() {
    fn check(elements: &str, codes: &[&str]) {
        let metadata = parsed(&standard(elements));
        let found: Vec<&str> = metadata.flaws.iter().map(|flaw| flaw.code).collect();
        assert_eq!(found, codes, "{elements}");
    }
    check("<dataMode>complete</dataMode>", &[]);
    check("<datamode>sideways</datamode>", &["datamode-unknown"]);
    check("<stream/><stream stream_id=''/>", &["id-missing"]);
    check("<participantstreamassoc participant_id='nobody'/>", &["association-unresolved"]);
    check("<participant participant_id='x'/><stream stream_id='x'/>", &["id-reused"]);
    check(&(0..=STREAMS_MAX).map(|n| format!("<stream id='{n}'/>")).collect::<String>(), &["metadata-limit"]);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    fn check(text: &str, wanted: impl Fn(&SiprecError) -> bool) {
        let error = Metadata::parse(text.as_bytes()).unwrap_err();
        assert!(wanted(&error), "{error:?}");
        assert!(error.to_string().starts_with("read the recording metadata: "));
    }
    let at = |wanted: (u32, u32)| move |error: &SiprecError| matches!(error, SiprecError::MetadataMalformed { line, column, .. } if (*line, *column) == wanted);
    let complex = |error: &SiprecError| matches!(error, SiprecError::MetadataTooComplex { .. });
    check("", at((1, 1)));
    check("no xml", at((1, 1)));
    check("<recording>\n <session>\n", at((2, 11)));
    check("<recording>\n </session>", at((2, 2)));
    check("<recording>\n <x:y></recording>", at((2, 3)));
    check("<recording>\n<session start=>\n", at((2, 16)));
    check("<!DOCTYPE r [<!ENTITY a 'b'>]><recording>&a;</recording>", |error| {
        matches!(error, SiprecError::MetadataHasDtd)
    });
    check(&"<a>".repeat(DEPTH_MAX + 1), complex);
    check(&format!("<a {}/>", "b='' ".repeat(65)), complex);
    check(&format!("<a>{}</a>", "<b xmlns='c'/>".repeat(257)), complex);
    check(&format!("<a>{}</a>", "<b/>".repeat(20_000)), complex);
    check(&" ".repeat(METADATA_BYTES_MAX + 1), |error| matches!(error, SiprecError::MetadataTooLarge { .. }));
}

#[test]
fn tolerated_forms_are_read() {
    fn check(bytes: &[u8]) {
        let metadata = Metadata::parse(bytes).unwrap();
        assert_eq!(metadata.participants[0].name(), Some("Zoë"), "{bytes:?}");
    }
    check("<recording><participant><name>Zoë</name></participant></recording>".as_bytes());
    check(b"<recording><participant><name>Zo\xeb</name></participant></recording>");
    check(
        "\r\n <?xml version='1.0'?><recording><participant><name>Zoë</name></participant></recording>\r\n\0".as_bytes(),
    );
    check("\u{feff}<recording><participant><name>Zoë</name></participant></recording>".as_bytes());
    check("<RECORDING><Participant><NAME>Zoë</NAME></Participant></RECORDING>".as_bytes());
    check("<recording><!-- <<< > ' --><participant a='>'><name>Zoë</name></participant></recording>".as_bytes());
}

#[test]
fn a_deep_document_within_bounds_is_read() {
    let open: String = "<group>".repeat(DEPTH_MAX - 2);
    let close: String = "</group>".repeat(DEPTH_MAX - 2);
    let metadata = parsed(&format!("<recording>{open}<participant id='p'/>{close}</recording>"));
    assert_eq!(metadata.participants.len(), 1);
}

#[test]
fn long_texts_are_cut() {
    let name = "é".repeat(TEXT_CHARS_MAX + 5);
    let metadata = parsed(&standard(&format!("<participant id='p'><name>{name}</name></participant>")));
    assert_eq!(metadata.participants[0].names[0].chars().count(), TEXT_CHARS_MAX);
}

#[test]
fn slips_of_markup_are_flaws() {
    fn check(elements: &str, name: &str, mended: bool) {
        let metadata = parsed(&standard(elements));
        assert_eq!(metadata.participants[0].name(), Some(name), "{elements}");
        let flawed = metadata.flaws.iter().any(|flaw| flaw.code == "metadata-mended");
        assert_eq!(flawed, mended, "{elements}");
    }
    check("<participant id='p'><name>Ann &amp; Bo</name></participant>", "Ann & Bo", false);
    check("<participant id='p'><name>Ann & Bo</name></participant>", "Ann & Bo", true);
    check("<participant id=p><name lang=en>Ann</name></participant>", "Ann", true);
    check("<x:participant id='p'><y:name>Ann</y:name></x:participant>", "Ann", true);
}

#[test]
fn clients_own_words_are_read() {
    fn check(elements: &str, wanted: VendorCall) {
        assert_eq!(parsed(&standard(elements)).vendor.unwrap_or_default(), wanted, "{elements}");
    }
    let some = |text: &str| Some(text.to_owned());
    check("<extensiondata><recordingType>on</recordingType></extensiondata>", VendorCall::default());
    check(
        "<metaswitchRecordingMetadata><callType>terminating</callType><recordedParty>12</recordedParty><callingPartyNumber>34</callingPartyNumber><dialedDigits>99</dialedDigits><businessGroup>g</businessGroup></metaswitchRecordingMetadata>",
        VendorCall {
            leg: Some(CallLeg::Terminating),
            recorded: some("12"),
            calling: some("34"),
            called: some("12"),
            dialed: some("99"),
            group_id: some("g"),
            ..VendorCall::default()
        },
    );
    check(
        "<metaswitchRecordingMetadata><callType>Originating</callType><recordedParty>12</recordedParty><dialedDigits>99</dialedDigits></metaswitchRecordingMetadata>",
        VendorCall {
            leg: Some(CallLeg::Originating),
            recorded: some("12"),
            calling: some("12"),
            dialed: some("99"),
            ..VendorCall::default()
        },
    );
    check(
        "<group><callData><fromhdr>1</fromhdr><tohdr>2</tohdr><callid>3</callid><gcid>4</gcid></callData></group>",
        VendorCall {
            calling: some("1"),
            called: some("2"),
            call_id: some("3"),
            tracking_id: some("4"),
            ..VendorCall::default()
        },
    );
    let tracked = |id| VendorCall { tracking_id: some(id), ..VendorCall::default() };
    check("<session id='1'><ucid>00FA08002A0B3C65F1D2E4;encoding=hex</ucid></session>", tracked("002A0B3C65F1D2E4"));
    check("<session id='1'><AvayaUCID>other</AvayaUCID></session>", tracked("other"));
    check("<session id='00FA08002A0B3C65F1D2E4'/>", tracked("002A0B3C65F1D2E4"));
}

#[test]
fn who_called_is_read_of_each_participant() {
    fn check(text: &str, calling: Option<bool>) {
        let elements = format!(
            "<participant id='p'><extensiondata xmlns:k='k'><k:callingParty>{text}</k:callingParty></extensiondata></participant>"
        );
        assert_eq!(parsed(&standard(&elements)).participants[0].calling, calling, "{text}");
    }
    check("true", Some(true));
    check(" False ", Some(false));
    check("perhaps", None);
    check("", None);
}

/// A draft document with these participants: id, address, stream sent.
fn draft(mode: &str, people: &[(&str, &str, Option<&str>)]) -> Metadata {
    let mut text = format!("<recording_metadata><dataMode>{mode}</dataMode>");
    for (id, aor, stream) in people {
        let send = stream.map(|id| format!("<send><id>{id}</id></send>")).unwrap_or_default();
        text += &format!("<participant id='{id}'><aor>{aor}</aor>{send}</participant>");
    }
    parsed(&(text + "</recording_metadata>"))
}

#[test]
fn later_documents_are_merged() {
    /// What is known of the participants afterwards: id, address, streams, whether they take part.
    fn check(later: Metadata, merge: Merge, people: &[(&str, &str, &[&str], bool)]) {
        let mut known = draft("complete", &[("a", "x", Some("1")), ("b", "y", Some("2"))]);
        assert_eq!(known.merge(later.clone()), merge);
        let found: Vec<_> = known
            .participants
            .iter()
            .map(|p| (p.id.as_str(), p.aors[0].as_str(), p.sends.clone(), p.is_active()))
            .collect();
        let people: Vec<_> = people
            .iter()
            .map(|&(id, aor, sends, active)| (id, aor, sends.iter().map(|s| s.to_string()).collect::<Vec<_>>(), active))
            .collect();
        assert_eq!(found, people);
        let again = known.clone().merge(later);
        assert_eq!(again, Merge::Unchanged, "the same document again");
    }
    let a: (&str, &str, &[&str], bool) = ("a", "x", &["1"], true);
    let b: (&str, &str, &[&str], bool) = ("b", "y", &["2"], true);
    check(draft("complete", &[("a", "x", Some("1")), ("b", "y", Some("2"))]), Merge::Unchanged, &[a, b]);
    check(draft("complete", &[("c", "z", Some("1"))]), Merge::Replaced, &[("c", "z", &["1"], true)]);
    check(draft("partial", &[]), Merge::Unchanged, &[a, b]);
    check(draft("partial", &[("b", "y", None)]), Merge::Extended, &[a, ("b", "y", &[], false)]);
    check(draft("partial", &[("b", "z", Some("2"))]), Merge::Extended, &[a, ("b", "z", &["2"], true)]);
    check(draft("partial", &[("c", "z", Some("2"))]), Merge::Extended, &[a, b, ("c", "z", &["2"], true)]);
}

#[test]
fn a_standard_partial_that_does_not_speak_of_streams_leaves_them() {
    let mut known = parsed(&standard(
        "<participant participant_id='p'><nameID aor='x'/></participant><participantstreamassoc participant_id='p'><send>s</send></participantstreamassoc>",
    ));
    let renamed = parsed(&standard(
        "<datamode>partial</datamode><participant participant_id='p'><nameID aor='x'><name>Ann</name></nameID></participant>",
    ));
    assert_eq!(known.merge(renamed), Merge::Extended);
    assert_eq!(known.participants[0].name(), Some("Ann"));
    assert_eq!(known.participants[0].sends, ["s"]);
}

#[test]
fn a_session_that_stops_is_left_by_all() {
    /// Of `a`, who is in `q` alone, and `b`, who is in `q` and `r`: who is left.
    fn check(changes: &str, left: [bool; 2]) {
        let person = |id| format!("<participant participant_id='{id}'><nameID aor='{id}'/></participant>");
        let mut known = parsed(&standard(&format!(
            "<session session_id='q'/><session session_id='r'/>{}{}{}{}{}",
            person("a"),
            person("b"),
            "<participantsessionassoc participant_id='a' session_id='q'/>",
            "<participantsessionassoc participant_id='b' session_id='q'/>",
            "<participantsessionassoc participant_id='b' session_id='r'/>",
        )));
        known.merge(parsed(&standard(&format!("<datamode>partial</datamode>{changes}"))));
        let found: Vec<bool> = known.participants.iter().map(|participant| participant.left).collect();
        assert_eq!(found, left, "{changes}");
    }
    const STOP_Q: &str = "<session session_id='q'><stop-time>1</stop-time></session>";
    const STOP_R: &str = "<session session_id='r'><stop-time>1</stop-time></session>";
    const A_JOINS_S: &str = "<session session_id='s'/><participantsessionassoc participant_id='a' session_id='s'/>";
    const B_LEAVES_Q: &str = "<participantsessionassoc participant_id='b' session_id='q'><disassociate-time>1</disassociate-time></participantsessionassoc>";
    check("", [false, false]);
    check(STOP_Q, [true, false]);
    check(&format!("{STOP_Q}{STOP_R}"), [true, true]);
    check(&format!("{STOP_Q}{A_JOINS_S}"), [false, false]);
    check(B_LEAVES_Q, [false, false]);
    check(&format!("{B_LEAVES_Q}{STOP_R}"), [false, true]);
}

#[test]
fn the_end_of_a_call_leaves_those_who_had_it() {
    /// Of `a` and `b`, of whom `b` leaves first, and then who else is said to go: who counts as there.
    fn check(last: &str, active: [bool; 2]) {
        let person = |id| format!("<participant participant_id='{id}'><nameID aor='{id}'/></participant>");
        let member = |id| format!("<participantsessionassoc participant_id='{id}' session_id='q'/>");
        let all = format!("<session session_id='q'/>{}{}{}{}", person("a"), person("b"), member("a"), member("b"));
        let mut known = parsed(&standard(&all));
        known.merge(parsed(&standard(&format!("<datamode>partial</datamode>{}", left("b")))));
        known.merge(parsed(&standard(last)));
        let found: Vec<bool> = known.participants.iter().map(Participant::is_active).collect();
        assert_eq!(found, active, "{last}");
    }
    fn left(id: &str) -> String {
        format!(
            "<participantsessionassoc participant_id='{id}' session_id='q'><disassociate-time>1</disassociate-time></participantsessionassoc>"
        )
    }
    let partial = |changes: &str| format!("<datamode>partial</datamode>{changes}");
    check(&partial(""), [true, false]);
    check(&partial(&left("a")), [true, false]);
    check(&partial("<session session_id='q'><stop-time>2</stop-time></session>"), [true, false]);
    let both = "<participant participant_id='a'><nameID aor='a'/></participant><participant participant_id='b'><nameID aor='b'/></participant>";
    check(&format!("<session session_id='q'/>{both}{}{}", left("a"), left("b")), [true, false]);
    check(&format!("<session session_id='q'/>{both}{}", left("a")), [false, true]);
}

#[test]
fn vendor_data_outlives_a_snapshot_without_it() {
    let with = "<recording_metadata><broadWorksRecordingMetadata><callID>c</callID></broadWorksRecordingMetadata></recording_metadata>";
    let mut known = parsed("<recording_metadata><extensiondata/></recording_metadata>");
    assert_eq!(known.merge(parsed("<recording_metadata><x/></recording_metadata>")), Merge::Unchanged);
    let mut known_with = parsed(
        &with.replace("<broad", "<extensiondata><broad").replace("</recording_", "</extensiondata></recording_"),
    );
    known_with.merge(parsed("<recording_metadata><participant id='p'/></recording_metadata>"));
    assert_eq!(known_with.shape, Shape::Broadworks);
    assert_eq!(known_with.broadworks.unwrap().call_id.as_deref(), Some("c"));
    assert_eq!(known_with.participants.len(), 1);
}

#[test]
fn partial_documents_cannot_make_it_grow_without_end() {
    let mut known = draft("complete", &[]);
    for n in 0..PARTICIPANTS_MAX + 3 {
        known.merge(draft("partial", &[(&format!("p{n}"), "x", None)]));
    }
    assert_eq!(known.participants.len(), PARTICIPANTS_MAX);
    assert_eq!(known.flaws.iter().filter(|flaw| flaw.code == "metadata-limit").count(), 1);
}
