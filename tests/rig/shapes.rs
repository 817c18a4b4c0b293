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
    webex_offering(facts, client, &sdp(client.ip()))
}

/// The same with a session description of the test's own.
pub fn webex_offering(facts: &Facts, client: SocketAddr, sdp: &str) -> Invite {
    let body = multipart(&[
        ("application/rs-metadata+xml", "Content-Disposition:recording-session\r\n", &webex_metadata(facts)),
        ("application/sdp", "", sdp),
    ]);
    Invite {
        from: format!("\"{}\"<sip:{}@{};user=phone>", facts.local_name, facts.local_number, client.ip()),
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

/// The metadata of BroadWorks 3.0 as Webex Calling sends them.
pub fn webex_metadata(facts: &Facts) -> String {
    let Facts { local_number, remote_number, call_id, .. } = facts;
    let (kind, calling, called) = match facts.outgoing {
        true => ("origCall", local_number, remote_number),
        false => ("termCall", remote_number, local_number),
    };
    let user = "mm41rig7dv@55120934.int10.bcld.webex.com";
    let (session, user_stream, other_stream) = ("urn:uuid:0c01", "urn:uuid:0c11", "urn:uuid:0c12");
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><dataMode>complete</dataMode>
<recording id="urn:uuid:0c00"><requestor>SRC</requestor><type>selective</type></recording>
<session id="{session}"><start-time>2026-05-11T10:20:30.000+0200</start-time></session>
<participant id="urn:uuid:0c21" session="{session}"><aor>sip:{user}</aor><send><id>{user_stream}</id></send></participant>
<participant id="urn:uuid:0c22" session="{session}"><aor>sip:{remote_number}@198.51.100.7;user=phone</aor><send><id>{other_stream}</id></send></participant>
<stream id="{user_stream}" session="{session}"><label>1</label><mode>separate</mode></stream>
<stream id="{other_stream}" session="{session}"><label>2</label><mode>separate</mode></stream>
<extensiondata id="urn:uuid:0c31" parent="{session}">
<broadWorksRecordingMetadata version="3.0" xmlns="http://schema.broadsoft.com/broadworksCallRecording">
<extTrackingID>0c41-{call_id}</extTrackingID><serviceProviderID>WBVDW000519</serviceProviderID><groupID>WBVDW000519L3</groupID>
<userID>{user}</userID><callID>{call_id}</callID>
<callType><{kind}><callingPartyNumber>sip:{calling}@198.51.100.7;user=phone</callingPartyNumber>
<calledPartyNumber>sip:{called}@198.51.100.7;user=phone</calledPartyNumber></{kind}></callType>
<recordingType>on</recordingType></broadWorksRecordingMetadata></extensiondata></recording_metadata>
"#
    )
}
