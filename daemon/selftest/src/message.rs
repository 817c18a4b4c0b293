//! SIP messages, as far as a client needs them: the requests that it sends, and just enough reading of what comes back.

use std::net::{IpAddr, SocketAddr};

use crate::Transport;
use crate::plan::{CallPlan, Direction, Shape};

/// Longest message that is accepted from a peer; answers have one or two kilobytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The boundary between the parts of an INVITE's body; BroadWorks always uses this one.
const BOUNDARY: &str = "UniqueBroadWorksBoundary";

/// The addresses of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) transport: Transport,
    pub(crate) target: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Where the two tracks are sent from.
    pub(crate) media: [SocketAddr; 2],
}

/// The INVITE that opens the session.
pub(crate) fn invite(plan: &CallPlan, at: &Addresses) -> String {
    let sdp = offer(plan, at);
    let (metadata_first, metadata) = match plan.shape {
        Shape::Webex => (true, webex_metadata(plan, at.local.ip())),
        Shape::Rfc => (false, rfc_metadata(plan)),
    };
    let metadata_part = format!(
        "Content-Type:application/rs-metadata+xml\r\nContent-Disposition:recording-session\r\n\r\n{metadata}\r\n"
    );
    let sdp_part = format!("Content-Type: application/sdp\r\n\r\n{sdp}\r\n");
    let parts = if metadata_first { [metadata_part, sdp_part] } else { [sdp_part, metadata_part] };
    let body = format!("--{BOUNDARY}\r\n{}--{BOUNDARY}\r\n{}--{BOUNDARY}--\r\n", parts[0], parts[1]);
    let transport = at.transport.as_str();
    let own_headers = match plan.shape {
        Shape::Webex => format!(
            "Contact: <sip:{};transport={transport}>;src\r\nSupported:\r\nRecv-Info:\r\nPrivacy: none\r\n\
             X-BroadWorks-Correlation-Info: {}\r\n\
             Accept: application/media_control+xml,application/sdp,application/x-broadworks-call-center+xml\r\n\
             Allow: ACK,BYE,CANCEL,INFO,INVITE,OPTIONS,PRACK,REFER,NOTIFY\r\n\
             Content-Type: multipart/mixed;boundary={BOUNDARY}\r\n",
            at.local,
            plan.uuid("tracking"),
        ),
        Shape::Rfc => format!(
            "Contact: <sip:selftest@{};transport={transport}>;+sip.src\r\nRequire: siprec\r\n\
             Accept: application/sdp, application/rs-metadata\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
             Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n",
            at.local,
        ),
    };
    let head = request_head("INVITE", 1, plan, at, &target_uri(at), "", "invite");
    format!("{head}{own_headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A request without a body within the dialog, or the ACK of an answer. `branch` names the transaction.
pub(crate) fn in_dialog(
    method: &str,
    sequence: u32,
    plan: &CallPlan,
    at: &Addresses,
    answer: &Answered,
    branch: &str,
) -> String {
    let head = request_head(method, sequence, plan, at, &answer.contact, &answer.to_tag, branch);
    let routes: String = answer.routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
    format!("{head}{routes}Content-Length: 0\r\n\r\n")
}

/// What a final answer to the INVITE fixes for all that follows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    /// Where requests within the dialog are addressed.
    pub(crate) contact: String,
    pub(crate) to_tag: String,
    /// The route set, in the order of the requests.
    pub(crate) routes: Vec<String>,
}

impl Answered {
    pub(crate) fn of(message: &Message, at: &Addresses) -> Self {
        let contact = message.header("Contact", "m").map(uri_of).filter(|uri| !uri.is_empty());
        let tag = message
            .header("To", "t")
            .and_then(|to| to.split(";tag=").nth(1))
            .map(|tag| tag.split(';').next().unwrap_or_default());
        let mut routes: Vec<String> = message.headers("Record-Route").map(str::to_owned).collect();
        routes.reverse();
        Self {
            contact: contact.map_or_else(|| target_uri(at), str::to_owned),
            to_tag: tag.unwrap_or_default().to_owned(),
            routes,
        }
    }
}

/// The plain answer to a request that the recorder sends within the dialog.
pub(crate) fn response(request: &Message, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for (name, short) in [("Via", "v"), ("From", "f"), ("To", "t"), ("Call-ID", "i"), ("CSeq", "CSeq")] {
        for value in request.values(name, short) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text + "Content-Length: 0\r\n\r\n"
}

fn request_head(
    method: &str,
    sequence: u32,
    plan: &CallPlan,
    at: &Addresses,
    uri: &str,
    to_tag: &str,
    branch: &str,
) -> String {
    let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK{:016x};rport\r\nMax-Forwards: 70\r\n\
         From: \"{}\"<sip:{}@{};user=phone>;tag={:016x}\r\nTo: <{}>{to_tag}\r\nCall-ID: {}\r\nCSeq: {sequence} {method}\r\n\
         User-Agent: callvault-selftest\r\n",
        at.transport.as_str().to_uppercase(),
        at.local,
        plan.random(branch),
        plan.names[0],
        plan.numbers[0],
        bare(at.local.ip()),
        plan.random("tag"),
        target_uri(at),
        plan.call_id,
    )
}

/// The recorder's address as a URI, without a user part, as Webex writes it.
pub(crate) fn target_uri(at: &Addresses) -> String {
    format!("sip:{};transport={}", at.target, at.transport.as_str())
}

/// An address as it stands in a URI.
fn bare(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn offer(plan: &CallPlan, at: &Addresses) -> String {
    let ip = at.local.ip();
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let id = plan.random("sdp") >> 33;
    let mut sdp = format!("v=0\r\no=BroadWorks {id} 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n");
    for (track, law) in plan.laws.iter().enumerate() {
        let (payload_type, name) = (law.payload_type(), if law.payload_type() == 0 { "PCMU" } else { "PCMA" });
        sdp.push_str(&format!(
            "m=audio {} RTP/AVP {payload_type} 101\r\na=rtpmap:{payload_type} {name}/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=fmtp:101 0-15\r\na=ptime:20\r\na=label:{}\r\na=sendonly\r\n",
            at.media[track].port(),
            track + 1,
        ));
    }
    sdp
}

/// Where the users of a self-test are: no real user can be there (RFC 2606 section 2), and the policy keeps calls of this domain
/// whatever its settings, as they would not be found otherwise.
const DOMAIN: &str = "selftest.invalid";

fn webex_metadata(plan: &CallPlan, ip: IpAddr) -> String {
    let id = |purpose: &str| format!("urn:uuid:{}", plan.uuid(purpose));
    let ip = bare(ip);
    let [local, remote] = &plan.numbers;
    let user = format!("selftest{:08x}@{DOMAIN}", plan.random("user") >> 32);
    let (element, calling, called) =
        if plan.direction == Direction::Incoming { ("termCall", remote, local) } else { ("origCall", local, remote) };
    let dialed = if element == "origCall" {
        format!("<dialedDigits>sip:{remote}@{ip};user=phone</dialedDigits>")
    } else {
        String::new()
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <recording_metadata xmlns=\"urn:ietf:params:xml:ns:siprec\">\n<dataMode>complete</dataMode>\n\
         <recording id=\"{rec}\"><requestor>SRC</requestor><type>selective</type></recording>\n\
         <group id=\"{group}\" recording=\"{rec}\"><initiator>sip:{user}</initiator></group>\n\
         <session id=\"{session}\" group=\"{group}\"><start-time>{now}</start-time></session>\n\
         <participant id=\"{p1}\" session=\"{session}\"><aor>sip:{user}</aor><send><id>{s1}</id></send></participant>\n\
         <participant id=\"{p2}\" session=\"{session}\"><aor>sip:{remote}@{ip};user=phone</aor><send><id>{s2}</id></send></participant>\n\
         <stream id=\"{s1}\" session=\"{session}\"><label>1</label><mode>separate</mode></stream>\n\
         <stream id=\"{s2}\" session=\"{session}\"><label>2</label><mode>separate</mode></stream>\n\
         <extensiondata id=\"{ext}\" parent=\"{session}\">\
         <broadWorksRecordingMetadata xmlns=\"http://schema.broadsoft.com/broadworksCallRecording\" version=\"3.0\">\
         <extTrackingID>{tracking}</extTrackingID><serviceProviderID>SELFTEST</serviceProviderID><groupID>SELFTESTL1</groupID>\
         <userID>{user}</userID><callID>{half}</callID><callType><{element}>\
         <callingPartyNumber>sip:{calling}@{ip};user=phone</callingPartyNumber>\
         <calledPartyNumber>sip:{called}@{ip};user=phone</calledPartyNumber>{dialed}</{element}></callType>\
         <recordingType>on</recordingType></broadWorksRecordingMetadata></extensiondata>\n</recording_metadata>\n",
        rec = id("recording"),
        group = id("group"),
        session = id("session"),
        p1 = id("participant 1"),
        p2 = id("participant 2"),
        s1 = id("stream 1"),
        s2 = id("stream 2"),
        ext = id("extension"),
        tracking = plan.uuid("tracking"),
        half = plan.call_half,
        now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00"),
    )
}

fn rfc_metadata(plan: &CallPlan) -> String {
    let session = plan.base64_id("session");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\n\
         <datamode>complete</datamode>\n<session session_id=\"{session}\"><start-time>{now}</start-time></session>\n"
    );
    let ids: Vec<(String, String)> = (1..=2)
        .map(|n| (plan.base64_id(&format!("participant {n}")), plan.base64_id(&format!("stream {n}"))))
        .collect();
    for (track, (participant, _)) in ids.iter().enumerate() {
        xml.push_str(&format!(
            "<participant participant_id=\"{participant}\"><nameID aor=\"sip:{}@{DOMAIN}\"><name xml:lang=\"en\">{}</name></nameID></participant>\n",
            plan.numbers[track], plan.names[track]
        ));
    }
    for (track, (_, stream)) in ids.iter().enumerate() {
        xml.push_str(&format!(
            "<stream stream_id=\"{stream}\" session_id=\"{session}\"><label>{}</label></stream>\n",
            track + 1
        ));
    }
    xml.push_str(&format!("<sessionrecordingassoc session_id=\"{session}\"><associate-time>{now}</associate-time></sessionrecordingassoc>\n"));
    for (track, (participant, stream)) in ids.iter().enumerate() {
        let other = &ids[1 - track].1;
        xml.push_str(&format!(
            "<participantsessionassoc participant_id=\"{participant}\" session_id=\"{session}\"><associate-time>{now}</associate-time></participantsessionassoc>\n\
             <participantstreamassoc participant_id=\"{participant}\"><send>{stream}</send><recv>{other}</recv></participantstreamassoc>\n"
        ));
    }
    xml + "</recording>\n"
}

/// A message that came from the recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    start: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Message {
    /// Reads one message from the front of the bytes; gives it with its length. `Ok(None)`: not all of it is there yet.
    pub(crate) fn read(bytes: &[u8], stream: bool) -> Result<Option<(Self, usize)>, String> {
        let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
            let hopeless = bytes.len() > MESSAGE_BYTES_MAX || !stream;
            return if hopeless { Err("the recorder sent something that is not SIP".into()) } else { Ok(None) };
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            match (line.starts_with([' ', '\t']), line.split_once(':'), headers.last_mut()) {
                (true, _, Some((_, value))) => *value = format!("{value} {}", line.trim()),
                (false, Some((name, value)), _) => headers.push((name.trim().to_owned(), value.trim().to_owned())),
                _ => return Err("the recorder sent a header without a colon".into()),
            }
        }
        let mut message = Self { start, headers, body: String::new() };
        let length = match message.header("Content-Length", "l").map(str::parse::<usize>) {
            Some(Ok(length)) if length <= MESSAGE_BYTES_MAX => length,
            Some(_) => return Err("the recorder sent a Content-Length that cannot be right".into()),
            None => bytes.len() - head_end,
        };
        let Some(body) = bytes.get(head_end..head_end + length) else {
            return if stream { Ok(None) } else { Err("the recorder sent a datagram that is cut short".into()) };
        };
        message.body = String::from_utf8_lossy(body).into_owned();
        Ok(Some((message, head_end + length)))
    }

    /// The status code; `None` for a request.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The status with its phrase, for a person.
    pub(crate) fn status_line(&self) -> &str {
        self.start.strip_prefix("SIP/2.0 ").unwrap_or(&self.start)
    }

    /// The method of a request; empty for a response.
    pub(crate) fn method(&self) -> &str {
        if self.status().is_some() { "" } else { self.start.split(' ').next().unwrap_or_default() }
    }

    /// The method that a response answers.
    pub(crate) fn answered_method(&self) -> &str {
        self.header("CSeq", "CSeq").and_then(|value| value.split_whitespace().nth(1)).unwrap_or_default()
    }

    pub(crate) fn call_id(&self) -> &str {
        self.header("Call-ID", "i").unwrap_or_default()
    }

    /// The first value of a header, by its long or its compact name.
    pub(crate) fn header(&self, name: &'static str, short: &'static str) -> Option<&str> {
        self.values(name, short).next()
    }

    fn headers(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.values(name, name)
    }

    fn values(&self, name: &'static str, short: &'static str) -> impl Iterator<Item = &str> {
        let named =
            move |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name) || key.eq_ignore_ascii_case(short);
        self.headers.iter().filter(named).map(|(_, value)| value.as_str())
    }
}

/// The URI in a header such as `"name" <sip:…>;param`.
fn uri_of(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split(';').next().unwrap_or_default().trim(),
    }
}

/// Where the answer wants each of the two tracks; the error says what is wrong with it.
pub(crate) fn media_targets(plan: &CallPlan, sdp: &str) -> Result<[SocketAddr; 2], String> {
    let connection = |line: &str| {
        line.strip_prefix("c=IN IP4 ").or(line.strip_prefix("c=IN IP6 ")).and_then(|ip| ip.trim().parse().ok())
    };
    let mut session_address: Option<IpAddr> = None;
    let mut lines: Vec<(&str, Option<IpAddr>, Option<&str>)> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            lines.push((line, None, None));
        } else if let Some(ip) = connection(line) {
            *lines.last_mut().map_or(&mut session_address, |(_, address, _)| address) = Some(ip);
        } else if let (Some(label), Some((_, _, slot))) = (line.strip_prefix("a=label:"), lines.last_mut()) {
            *slot = Some(label.trim());
        }
    }
    if lines.len() != 2 {
        return Err(format!("the answer has {} media lines; the offer had 2", lines.len()));
    }
    let target = |track: usize| {
        let (line, address, label) = lines[track];
        let number = track + 1;
        let mut words = line.trim_start_matches("m=audio ").split_whitespace();
        let port: u16 = words
            .next()
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| format!("the answer's media line {number} has no port"))?;
        let payload_type = plan.laws[track].payload_type().to_string();
        if port == 0 {
            return Err(format!("the answer declines track {number}"));
        }
        if !words.any(|word| word == payload_type) {
            return Err(format!("the answer lacks the offered codec (payload type {payload_type}) of track {number}"));
        }
        if label != Some(number.to_string().as_str()) {
            return Err(format!("the answer does not repeat the label of track {number}"));
        }
        let ip = address.or(session_address).filter(|ip| !ip.is_unspecified());
        ip.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| format!("the answer names no address for track {number}"))
    };
    Ok([target(0)?, target(1)?])
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
