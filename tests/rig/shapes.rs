//! Bodies in the shapes that clients send.

use std::net::{IpAddr, SocketAddr};

use super::offer::connection;
use super::sip::Invite;

/// The boundary that BroadWorks and Webex always take.
const BOUNDARY: &str = "UniqueBroadWorksBoundary";

/// What a call is about.
#[derive(Clone)]
pub struct Facts {
    /// The recorded user.
    pub local_number: String,
    pub local_name: String,
    pub remote_number: String,
    pub outgoing: bool,
    /// Unique to the call: by it a test finds its recording.
    pub call_id: String,
}

impl Facts {
    /// A call from outside to the recorded user; `number` makes it unlike others.
    pub fn incoming(number: u32) -> Self {
        Self {
            local_number: format!("+3905086{number:05}"),
            local_name: "Ludovica Ferrante".into(),
            remote_number: format!("+4930770{number:05}"),
            outgoing: false,
            call_id: format!("callhalf-{number}:0"),
        }
    }
}

/// Two lines of audio with labels 1 and 2, each offering Opus, µ-law, A-law, G.722 and events.
pub fn sdp(ip: IpAddr) -> String {
    let line = |label: u8, port: u16| {
        format!(
            "m=audio {port} RTP/AVP 111 101 0 8 9\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n\
             a=ptime:20\r\na=sendonly\r\na=label:{label}\r\n"
        )
    };
    let address = connection(ip);
    let head = format!("v=0\r\no=BroadWorks 11 1 {address}\r\ns=-\r\nc={address}\r\nt=0 0\r\n");
    head + &line(1, 30_000) + &line(2, 30_002)
}

/// An INVITE as Webex Calling sends it.
pub fn webex(facts: &Facts, client: SocketAddr) -> Invite {
    webex_offering(facts, &sdp(client.ip()))
}

/// The same with a session description of the test's own.
pub fn webex_offering(facts: &Facts, sdp: &str) -> Invite {
    let body = multipart(&[
        ("application/rs-metadata+xml", "Content-Disposition:recording-session\r\n", &webex_metadata(facts)),
        ("application/sdp", "", sdp),
    ]);
    Invite {
        from: format!("\"{}\"<sip:{}@client.example;user=phone>", facts.local_name, facts.local_number),
        headers: "Supported:\r\nRecv-Info:\r\nPrivacy: none\r\n".into(),
        content_type: format!("multipart/mixed;boundary={BOUNDARY}"),
        body: body.into_bytes(),
    }
}

/// Parts in their wrapping: media type, further header lines, content.
pub fn multipart(parts: &[(&str, &str, &str)]) -> String {
    let parts = parts
        .iter()
        .map(|(kind, headers, content)| format!("--{BOUNDARY}\r\nContent-Type:{kind}\r\n{headers}\r\n{content}\r\n"));
    parts.collect::<String>() + &format!("--{BOUNDARY}--\r\n")
}

/// The metadata of BroadWorks 3.0 as Webex Calling sends them with an INVITE.
pub fn webex_metadata(facts: &Facts) -> String {
    Webex::of(facts).text()
}

/// What BroadWorks says about a call at one moment.
pub struct Webex<'a> {
    pub facts: &'a Facts,
    /// `complete` or `partial`; a partial document names no streams.
    pub mode: &'static str,
    /// All ids begin with it: other ones are another session, as after a transfer.
    pub ids: &'static str,
    /// The others: number, and whether they are (still) heard.
    pub remotes: Vec<(String, bool)>,
    /// One stream has everybody.
    pub mixed: bool,
    /// Who the call was before it was transferred.
    pub redirected_from: Option<String>,
}

impl<'a> Webex<'a> {
    pub fn of(facts: &'a Facts) -> Self {
        let remotes = vec![(facts.remote_number.clone(), true)];
        Self { facts, mode: "complete", ids: "0c", remotes, mixed: false, redirected_from: None }
    }

    pub fn text(&self) -> String {
        let Facts { local_number, call_id, .. } = self.facts;
        let (ids, remote_number) = (self.ids, &self.remotes[0].0);
        let (kind, calling, called) = match self.facts.outgoing {
            true => ("origCall", local_number, remote_number),
            false => ("termCall", remote_number, local_number),
        };
        let user = "mm41rig7dv@55120934.int10.bcld.webex.com";
        let (session, user_stream) = (format!("urn:uuid:{ids}01"), format!("urn:uuid:{ids}11"));
        let other_stream = if self.mixed { user_stream.clone() } else { format!("urn:uuid:{ids}12") };
        let participant = |n: usize, aor: &str, stream: Option<&str>| {
            let send = stream.map(|stream| format!("<send><id>{stream}</id></send>")).unwrap_or_default();
            format!(
                "<participant id=\"urn:uuid:{ids}2{n}\" session=\"{session}\"><aor>{aor}</aor>{send}</participant>\n"
            )
        };
        let mut people = participant(1, &format!("sip:{user}"), Some(&user_stream));
        for (n, (number, heard)) in (2..).zip(&self.remotes) {
            people += &participant(
                n,
                &format!("sip:{number}@198.51.100.7;user=phone"),
                heard.then_some(other_stream.as_str()),
            );
        }
        let stream = |id: &str, label: u8, mode: &str| {
            format!("<stream id=\"{id}\" session=\"{session}\"><label>{label}</label><mode>{mode}</mode></stream>\n")
        };
        let streams = match (self.mode, self.mixed) {
            ("partial", _) => String::new(),
            (_, true) => stream(&user_stream, 1, "mixed"),
            (_, false) => stream(&user_stream, 1, "separate") + &stream(&other_stream, 2, "separate"),
        };
        let redirected = self.redirected_from.iter().map(|from| {
            format!(
                "<redirectedCall><newExtTrackingID>{ids}41-{call_id}</newExtTrackingID>\
                 <redirectedFromPartyNumber>sip:{from}@198.51.100.7;user=phone</redirectedFromPartyNumber>\
                 <redirectedToPartynumber>sip:{remote_number}@198.51.100.7;user=phone</redirectedToPartynumber></redirectedCall>"
            )
        });
        let redirected: String = redirected.collect();
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><dataMode>{mode}</dataMode>
<recording id="urn:uuid:{ids}00"><requestor>SRC</requestor><type>selective</type></recording>
<session id="{session}"><start-time>2026-05-11T10:20:30.000+0200</start-time></session>
{people}{streams}<extensiondata id="urn:uuid:{ids}31" parent="{session}">
<broadWorksRecordingMetadata version="3.0" xmlns="http://schema.broadsoft.com/broadworksCallRecording">
<extTrackingID>{ids}41-{call_id}</extTrackingID><serviceProviderID>WBVDW000519</serviceProviderID><groupID>WBVDW000519L3</groupID>
<userID>{user}</userID><callID>{call_id}</callID>
<callType><{kind}><callingPartyNumber>sip:{calling}@198.51.100.7;user=phone</callingPartyNumber>
<calledPartyNumber>sip:{called}@198.51.100.7;user=phone</calledPartyNumber></{kind}></callType>
<recordingType>on</recordingType>{redirected}</broadWorksRecordingMetadata></extensiondata></recording_metadata>
"#,
            mode = self.mode,
        )
    }
}

/// RFC 7865's metadata of a call: label, address and name of each party, each with a stream of its own.
pub fn rfc7865_metadata(call_id: &str, parties: &[(&str, &str, &str)]) -> String {
    let party = |(n, (label, aor, name)): (usize, &(&str, &str, &str))| {
        format!(
            "<participant participant_id=\"rig-p{n}\"><nameID aor=\"{aor}\"><name>{name}</name></nameID></participant>\n\
             <stream stream_id=\"rig-s{n}\" session_id=\"rig-session\"><label>{label}</label></stream>\n\
             <participantsessionassoc participant_id=\"rig-p{n}\" session_id=\"rig-session\"/>\n\
             <participantstreamassoc participant_id=\"rig-p{n}\"><send>rig-s{n}</send></participantstreamassoc>\n"
        )
    };
    let parties: String = parties.iter().enumerate().map(party).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\n\
         <datamode>complete</datamode>\n<session session_id=\"rig-session\"><sipSessionID>{call_id}</sipSessionID></session>\n\
         {parties}</recording>\n"
    )
}
