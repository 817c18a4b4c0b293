//! Responses: what they copy from the request (RFC 3261 section 8.2.6), what they say about us, and where they go (section 18.2.2).

use std::net::{IpAddr, SocketAddr};

use super::connects::Destination;
use super::{EndpointConfig, Flow};
use crate::message::{Method, NameAddr, Request, Response, Via, split_list};

/// The methods that are served.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO";
/// The bodies that are understood. Both spellings of the metadata's type are in use (RFC 7866, RFC 9806).
pub(super) const ACCEPT: &str =
    "application/sdp, application/rs-metadata+xml, application/rs-metadata, multipart/mixed";
/// The extensions that are named as supported.
pub(super) const SUPPORTED: &str = "siprec, timer";

/// A response without a body: Via with the source noted, From, To with `tag` unless it has one, Call-ID, CSeq, Record-Route,
/// Server.
///
/// `None` when the request has no Via that could be read: nobody would know what the response is for.
pub(super) fn response(
    config: &EndpointConfig,
    flow: &Flow,
    request: &Request,
    status: u16,
    reason: &str,
    tag: &str,
) -> Option<Response> {
    let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
    let mut response = Response::new(status, reason);
    copy_vias(flow, request, &mut response)?;
    let copies = ["From", "To", "Call-ID", "CSeq"];
    for name in copies {
        if let Some(field) = request.headers.field(name) {
            let untagged = name == "To" && status > 100 && NameAddr::parse(field.value()).tag().is_none();
            let suffix = if untagged { format!(";tag={tag}") } else { String::new() };
            response.headers.push_field(field.renamed(name).with_suffix(&suffix));
        }
    }
    if (101..300).contains(&status) {
        for field in request.headers.all("Record-Route") {
            response.headers.push_field(field.clone());
        }
    }
    if status == 100
        && let Some(timestamp) = request.headers.field("Timestamp")
    {
        response.headers.push_field(timestamp.clone());
    }
    if !config.server_name.is_empty() {
        response.headers.push("Server", &config.server_name);
    }
    Some(response)
}

/// The Vias as they came, the source noted in the topmost. Empty ones in front of it are passed over, here as where it is looked for.
fn copy_vias(flow: &Flow, request: &Request, response: &mut Response) -> Option<()> {
    let mut top = Via::topmost(&request.headers)?;
    top.note_source(flow.peer);
    let mut top = Some(top.to_string());
    for field in request.headers.all("Via") {
        let Some(first) = top.take() else {
            response.headers.push_field(field.clone());
            continue;
        };
        let mut elements = split_list(field.value(), b',').into_iter().skip_while(|element| element.is_empty());
        if elements.next().is_none() {
            top = Some(first);
            continue;
        }
        let value = elements.fold(first, |value, element| value + ", " + element);
        response.headers.push("Via", &value);
    }
    Some(())
}

/// Where a response to this request goes: back on the connection, or to where the datagram came from, at the port that the peer asked
/// for: that of the datagram with `rport` (RFC 3581 section 4), else that of sent-by.
pub(super) fn destination(flow: &Flow, request: &Request) -> SocketAddr {
    if flow.kind.is_reliable() {
        return flow.peer;
    }
    match Via::topmost(&request.headers) {
        Some(via) if !via.params().has("rport") => SocketAddr::new(flow.peer.ip(), via.port().unwrap_or(5060)),
        _ => flow.peer,
    }
}

/// Where a connection may be made for the final answer to an INVITE whose own connection is closed (section 18.2.2): sent-by, when it
/// is an address and the peer's own. A name is not resolved, and nobody may point our answers at others.
pub(super) fn fallback(flow: &Flow, request: &Request) -> Option<Destination> {
    if !flow.kind.is_reliable() || request.method != Method::Invite {
        return None;
    }
    let via = Via::topmost(&request.headers)?;
    let ip: IpAddr = via.host().parse().ok()?;
    let port = via.port().unwrap_or(flow.kind.default_port());
    let peer = SocketAddr::new(ip, port);
    (ip == flow.peer.ip() && port != 0).then_some(Destination { kind: flow.kind, local: flow.local, peer })
}

/// Adds who we are and what we can do, as a 2xx to INVITE, UPDATE and OPTIONS tells it.
pub(super) fn add_capabilities(contact: &str, response: &mut Response) {
    response.headers.push("Contact", contact);
    response.headers.push("Allow", ALLOW);
    response.headers.push("Supported", SUPPORTED);
    response.headers.push("Accept", ACCEPT);
}

/// Our Contact, with the feature tag that RFC 7866 section 6.2 demands.
pub(super) fn contact(config: &EndpointConfig, flow: &Flow, request: &Request, user: Option<&str>) -> String {
    // RFC 3261 section 12.1.1: who is reached by sips answers by sips.
    let (scheme, transport) = match request.uri.scheme() {
        "sips" => ("sips", "tcp"),
        _ => ("sip", flow.kind.param_name()),
    };
    let (host, port) = (host(config, flow, request), flow.local.port());
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    format!("<{scheme}:{user}{host}:{port};transport={transport}>;+sip.srs")
}

/// Our host as the peer is told it, an IPv6 address in brackets.
pub(super) fn host(config: &EndpointConfig, flow: &Flow, request: &Request) -> String {
    let (local, asked) = (flow.local.ip(), request.uri.host());
    let host = match &config.contact_host {
        Some(host) => host.clone(),
        None if local.is_unspecified() && !asked.is_empty() => asked.to_owned(),
        None => local.to_string(),
    };
    match host.parse() {
        Ok(IpAddr::V6(_)) => format!("[{host}]"),
        _ => host,
    }
}

/// Adds caller's fields.
pub(super) fn add_fields(response: &mut Response, fields: &[(String, String)]) {
    for (name, value) in fields {
        response.headers.push(name, value);
    }
}

/// The reason phrase of RFC 3261 section 21 for the codes that are used here.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        500 => "Server Internal Error",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
