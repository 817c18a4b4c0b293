//! Our answer to an offer (RFC 3264, section 6; RFC 7866, section 7.2).

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::codec::Codec;
use crate::sdp::{MediaLine, Offer};

/// Codecs in the order in which we like them: Opus first, since it is kept as it came; then what any player decodes.
pub const DEFAULT_PREFERENCE: &[&str] = &["opus", "PCMU", "PCMA", "G722"];

/// Our RTP and RTCP port on a media line; both the same to multiplex (RFC 5761), which is done only where it was offered.
pub type Ports = (u16, u16);

/// What an answer is made with.
#[derive(Debug, Clone)]
pub struct AnswerParams<'a> {
    /// Address on which we take the media.
    pub address: IpAddr,
    /// `o=` session id: the same in every answer of a dialog.
    pub session_id: u64,
    /// `o=` session version: one more in every answer that differs from the one before.
    pub version: u64,
    /// Our ports for each media line of the offer, in its order. A line without ports, or beyond the slice, is refused.
    pub ports: &'a [Option<Ports>],
    /// Encoding names in the order of preference; what is not named follows in the offered order.
    pub prefer: &'a [&'a str],
}

/// A media line that the answer accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct NegotiatedTrack {
    /// Place of the media line in the offer, from 0. It stays the same through a dialog (RFC 3264, section 8).
    pub media_line: usize,
    /// The line's label; its number from 1 where the offer has none.
    pub label: String,
    /// Every offered codec, in the order of the answer. Payload types may change with each offer.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio in a packet, where the offer says.
    pub ptime_ms: Option<u32>,
    /// Whether nothing is sent on it for now: what is missing meanwhile is missing on purpose.
    pub paused: bool,
    /// Whether RTP and RTCP share our one port.
    pub rtcp_mux: bool,
    /// Our ports.
    pub ports: Ports,
    /// The client's address as offered.
    pub remote_address: Option<String>,
    /// The client's RTP port.
    pub remote_port: u16,
    /// The client's RTCP port.
    pub remote_rtcp_port: Option<u16>,
    /// Whether the answer has keys for it: what comes is SRTP, whatever the transport is called.
    pub secured: bool,
}

/// What an accepted media line is answered with.
#[derive(Clone, Copy)]
struct Given<'a> {
    ports: Ports,
    crypto: Option<&'a str>,
}

/// Answers an offer: the text of the answer, and a track for each accepted media line.
///
/// Every audio line that has a port from the client and ports from us is accepted with all its codecs, since what comes is
/// carried as received. The answer depends on nothing but its arguments. It has no keys: see [`answer_secured`].
pub fn answer(offer: &Offer, params: &AnswerParams<'_>) -> (String, Vec<NegotiatedTrack>) {
    answer_secured(offer, params, &[])
}

/// As [`answer`], with a crypto attribute for the media lines whose keys were agreed on (RFC 4568, section 5.1.2).
///
/// `crypto` has the attribute's value (tag, suite, our key: what follows `a=crypto:`) for each media line of the offer, in its
/// order; None, or nothing, for a line that is answered without. It is written for a line of whatever RTP profile, as long as
/// the offer has crypto attributes for it: under RTP/AVP they are a best-effort offer, which becomes SRTP by this answer and
/// stays RTP without it (RFC 8643, section 3).
///
/// A line of a secure profile can be answered without one, and is then accepted as it stands; RFC 4568 wants it refused. Whoever
/// wants that gives no ports for it.
///
/// The text then holds our keys: whoever stores or logs it takes [`without_keys`](crate::without_keys).
pub fn answer_secured(
    offer: &Offer,
    params: &AnswerParams<'_>,
    crypto: &[Option<&str>],
) -> (String, Vec<NegotiatedTrack>) {
    let AnswerParams { address, session_id, version, .. } = params;
    let family = match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    };
    let mut text = format!(
        "v=0\r\no=callvault {session_id} {version} IN {family} {address}\r\ns=callvault\r\nc=IN {family} {address}\r\nt=0 0\r\n"
    );
    let mut tracks = Vec::new();
    for (index, line) in offer.media.iter().enumerate() {
        let ports = params.ports.get(index).copied().flatten();
        match ports.filter(|_| line.is_recordable() && line.port != 0) {
            Some(ports) => {
                let crypto = crypto.get(index).copied().flatten().filter(|value| may_answer(line, value));
                let given = Given { ports, crypto };
                let track = accept(index, line, given, params.prefer);
                describe(&mut text, line, &track, given);
                tracks.push(track);
            }
            None => refuse(&mut text, line),
        }
    }
    (text, tracks)
}

/// Whether this may stand behind `a=crypto:` in the answer to a line: the line asks for keys, and the value is one line.
fn may_answer(line: &MediaLine, value: &str) -> bool {
    !line.crypto.is_empty() && !value.is_empty() && !value.contains(char::is_control)
}

fn accept(index: usize, line: &MediaLine, given: Given<'_>, prefer: &[&str]) -> NegotiatedTrack {
    let ports = given.ports;
    let mut codecs = line.codecs.clone();
    // A stable sort: what is equally liked stays in the offered order.
    codecs.sort_by_key(|codec| prefer.iter().position(|name| codec.is(name)).unwrap_or(prefer.len()));
    NegotiatedTrack {
        media_line: index,
        label: line.label.clone(),
        codecs,
        ptime_ms: line.ptime_ms,
        paused: line.is_paused(),
        rtcp_mux: line.rtcp_mux && ports.0 == ports.1,
        ports,
        remote_address: line.address.clone(),
        remote_port: line.port,
        remote_rtcp_port: line.rtcp_port(),
        secured: given.crypto.is_some(),
    }
}

fn describe(text: &mut String, line: &MediaLine, track: &NegotiatedTrack, given: Given<'_>) {
    let (rtp, rtcp) = track.ports;
    let _ = write!(text, "m=audio {rtp} {}", line.proto);
    for codec in &track.codecs {
        let _ = write!(text, " {}", codec.payload_type);
    }
    text.push_str("\r\n");
    let mut attribute = |value: String| {
        let _ = write!(text, "a={value}\r\n");
    };
    for codec in &track.codecs {
        if let Some(rtpmap) = codec.rtpmap() {
            attribute(format!("rtpmap:{rtpmap}"));
        }
        if let Some(fmtp) = &codec.fmtp {
            attribute(format!("fmtp:{} {fmtp}", codec.payload_type));
        }
    }
    if let Some(value) = given.crypto {
        attribute(format!("crypto:{value}"));
    }
    if let Some(ptime_ms) = track.ptime_ms {
        attribute(format!("ptime:{ptime_ms}"));
    }
    if track.rtcp_mux {
        attribute("rtcp-mux".to_owned());
    } else if Some(rtcp) != rtp.checked_add(1) {
        attribute(format!("rtcp:{rtcp}"));
    }
    attribute(if track.paused { "inactive" } else { "recvonly" }.to_owned());
    name(text, line);
}

fn refuse(text: &mut String, line: &MediaLine) {
    let kind = match &line.kind {
        crate::MediaKind::Audio => "audio",
        crate::MediaKind::Video => "video",
        crate::MediaKind::Other(name) => name,
    };
    // A refused line still needs a format; the number is not looked at (RFC 3264, section 6).
    let formats = match line.formats.is_empty() {
        true => "0".to_owned(),
        false => line.formats.join(" "),
    };
    let _ = write!(text, "m={kind} 0 {} {formats}\r\n", line.proto);
    name(text, line);
}

/// Echoes what names the line, and only what the offer gave: some clients match the answer by it.
fn name(text: &mut String, line: &MediaLine) {
    if let Some(mid) = &line.mid {
        let _ = write!(text, "a=mid:{mid}\r\n");
    }
    if line.label_given {
        let _ = write!(text, "a=label:{}\r\n", line.label);
    }
}
