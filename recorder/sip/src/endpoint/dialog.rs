//! Dialogs (RFC 3261 section 12): what is remembered of one, and the requests that it makes. All of it is plain data, so that a
//! checkpoint can carry it to the next recorder.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::connects::Destination;
use super::server::Core;
use super::session_timer::SessionTimer;
use super::{EndpointConfig, Flow, TransactionId, TransportKind, respond};
use crate::message::{Field, Headers, Method, NameAddr, Request, Response, Uri};

/// One dialog, of which we are the called side.
pub(super) struct Dialog {
    pub(super) call_id: Field,
    pub(super) local_tag: String,
    pub(super) remote_tag: String,
    /// The INVITE's To with our tag: the From of our requests.
    pub(super) local: Field,
    /// The INVITE's From: the To of our requests.
    pub(super) remote: Field,
    /// The peer's Contact: the Request-URI of our requests.
    pub(super) remote_target: Uri,
    /// The Record-Route elements in their order (section 12.1.1).
    pub(super) route_set: Vec<String>,
    /// Our host as the peer was told it.
    pub(super) local_host: String,
    /// Our Contact as the peer was told it; empty until the dialog is accepted.
    pub(super) contact: String,
    pub(super) local_cseq: u32,
    /// The highest CSeq number of the peer's requests.
    pub(super) remote_cseq: u32,
    /// Where the peer was last heard.
    pub(super) flow: Flow,
    pub(super) flow_open: bool,
    /// Accepted, and not only asked for.
    pub(super) confirmed: bool,
    /// The INVITE or UPDATE that awaits its answer.
    pub(super) pending: Option<TransactionId>,
    /// The INVITE whose 2xx awaits its ACK.
    pub(super) unacked: Option<TransactionId>,
    /// Our 2xx had an offer that the ACK is to answer.
    pub(super) offer_outstanding: bool,
    pub(super) ending: Ending,
    pub(super) session_timer: Option<SessionTimer>,
    /// The peer has said that it takes UPDATE.
    pub(super) peer_allows_update: bool,
    /// The server transactions of the dialog; names grow, so the oldest is the first.
    pub(super) transactions: BTreeSet<TransactionId>,
}

/// How far our own BYE is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    /// Nobody asked for one.
    No,
    /// Waits for the ACK (section 15: not before the ACK, or before waiting for it is over); holds the Reason.
    AwaitsAck(Option<String>),
    /// It is sent; holds the Reason, with which the next recorder sends it again.
    Sent(Option<String>),
}

impl Dialog {
    /// The dialog that an initial INVITE asks for. A missing Contact is replaced by From, and one that is no address either by where
    /// the INVITE came from: better a BYE that may get lost than a call that is not recorded.
    pub(super) fn from_invite(config: &EndpointConfig, request: &Request, flow: &Flow, core: &Core, tag: &str) -> Self {
        let field = |name: &str| request.headers.field(name).map_or_else(|| Field::new(name, ""), |f| f.renamed(name));
        let (from, to) = (field("From"), field("To"));
        let routes = request.headers.list("Record-Route").into_iter();
        let route_set = routes.filter(|route| has_host(NameAddr::parse(route).uri())).map(str::to_owned).collect();
        let from_uri = || Some(NameAddr::parse(from.value()).uri().clone()).filter(has_host);
        let remote_target = target(&request.headers).or_else(from_uri);
        let mut dialog = Self {
            call_id: field("Call-ID"),
            remote_tag: core.from_tag.clone(),
            local: to.renamed("From").with_suffix(&format!(";tag={tag}")),
            remote: from.renamed("To"),
            remote_target: remote_target.unwrap_or_else(|| Uri::parse(&format!("sip:{}", flow.peer))),
            route_set,
            local_host: respond::host(config, flow, request),
            contact: String::new(),
            local_cseq: 0,
            remote_cseq: core.cseq,
            flow: *flow,
            flow_open: true,
            confirmed: false,
            pending: None,
            unacked: None,
            offer_outstanding: false,
            ending: Ending::No,
            session_timer: None,
            peer_allows_update: false,
            transactions: BTreeSet::new(),
            local_tag: tag.to_owned(),
        };
        dialog.note_allowed(&request.headers);
        dialog
    }

    /// Takes over the Contact of a request that was accepted (section 12.2.2), or of a response that accepts one of ours.
    pub(super) fn refresh_target(&mut self, headers: &Headers) {
        if let Some(uri) = target(headers) {
            self.remote_target = uri;
        }
    }

    /// A request of ours was answered: what the answer tells of the peer.
    pub(super) fn note_answer(&mut self, response: &Response) {
        self.note_allowed(&response.headers);
        if (200..300).contains(&response.status) {
            self.refresh_target(&response.headers);
        }
    }

    /// A request within the dialog (section 12.2.1.1), to be sent over this transport.
    pub(super) fn request(
        &mut self,
        config: &EndpointConfig,
        method: Method,
        branch: &str,
        kind: TransportKind,
    ) -> Request {
        self.local_cseq = self.local_cseq.saturating_add(1);
        let (uri, routes) = self.routing();
        let mut request = Request::new(method, &uri);
        let headers = &mut request.headers;
        let (transport, host, port) = (kind.via_name(), &self.local_host, self.flow.local.port());
        headers.push("Via", &format!("SIP/2.0/{transport} {host}:{port};branch={branch};rport"));
        headers.push("Max-Forwards", "70");
        for route in routes {
            headers.push("Route", &route);
        }
        headers.push_field(self.local.clone());
        headers.push_field(self.remote.clone());
        headers.push_field(self.call_id.clone());
        headers.push("CSeq", &format!("{} {}", self.local_cseq, request.method));
        if request.method != Method::Bye {
            headers.push("Contact", &self.contact);
        }
        if !config.server_name.is_empty() {
            headers.push("User-Agent", &config.server_name);
        }
        request
    }

    /// Request-URI and Route values; a first route without `lr` is a strict router (section 12.2.1.1).
    fn routing(&self) -> (String, Vec<String>) {
        let target = self.remote_target.to_string();
        let Some(first) = self.route_set.first() else { return (target, Vec::new()) };
        let first = NameAddr::parse(first);
        if first.has_param("lr") {
            return (target, self.route_set.clone());
        }
        let mut routes = self.route_set[1..].to_vec();
        routes.push(format!("<{target}>"));
        (first.uri().to_string(), routes)
    }

    /// Where our requests go, the likeliest first.
    ///
    /// On a connection that is its other end. A datagram goes where RFC 3261 section 8.1.2 says when that is an address, and every
    /// other repetition to where the peer was last heard: of the two, one is right behind every NAT and proxy that has been seen.
    pub(super) fn next_hops(&self) -> Vec<SocketAddr> {
        if self.flow.kind.is_reliable() {
            return vec![self.flow.peer];
        }
        let stated = self.next_uri().socket_addr();
        let usable = stated.filter(|hop| self.is_usable(hop.ip()) && *hop != self.flow.peer);
        usable.into_iter().chain([self.flow.peer]).collect()
    }

    /// Where a connection can be made for our requests once the peer's is closed, the likeliest first; none over UDP.
    ///
    /// That is where section 8.1.2 says when it is an address; and, because that may be one behind a NAT or a name, the peer's own
    /// address at the same port. What was secured stays so.
    pub(super) fn destinations(&self) -> Vec<Destination> {
        if !self.flow.kind.is_reliable() {
            return Vec::new();
        }
        let uri = self.next_uri();
        let asked = uri.params().get("transport").is_some_and(|transport| transport.eq_ignore_ascii_case("tls"));
        let secured = self.flow.kind == TransportKind::Tls || uri.scheme() == "sips" || asked;
        let kind = if secured { TransportKind::Tls } else { TransportKind::Tcp };
        let port = uri.port().filter(|port| *port != 0).unwrap_or(kind.default_port());
        let stated = uri.host().parse().ok().filter(|ip| self.is_usable(*ip) && *ip != self.flow.peer.ip());
        let to = |ip| Destination { kind, local: self.flow.local, peer: SocketAddr::new(ip, port) };
        stated.into_iter().chain([self.flow.peer.ip()]).map(to).collect()
    }

    /// The URI that decides where our requests go (section 8.1.2).
    fn next_uri(&self) -> Uri {
        match self.route_set.first() {
            Some(route) => NameAddr::parse(route).uri().clone(),
            None => self.remote_target.clone(),
        }
    }

    fn is_usable(&self, ip: IpAddr) -> bool {
        !ip.is_unspecified() && ip.is_ipv4() == self.flow.local.is_ipv4()
    }
}

fn target(headers: &Headers) -> Option<Uri> {
    let contacts = headers.list("Contact");
    let uri = NameAddr::parse(contacts.first()?).uri().clone();
    has_host(&uri).then_some(uri)
}

/// Whether a request can be sent to it: one without is not even a line of a message.
fn has_host(uri: &Uri) -> bool {
    !uri.host().is_empty()
}
