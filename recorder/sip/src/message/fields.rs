//! The header fields that the endpoint reads: parameters, Via, From/To/Contact, CSeq.

use std::fmt;
use std::net::IpAddr;

use super::headers::{Headers, quoted_end, split_list};
use super::parse::is_token;
use super::uri::{Uri, split_host_port};

/// Parameters behind `;`, in their order, looked up without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// Name and value as they came; quotes included.
    items: Vec<(String, Option<String>)>,
}

impl Params {
    /// Reads what stands behind the first `;`. Empty parameters are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let items = split_list(text, b';')
            .into_iter()
            .filter(|item| !item.is_empty())
            .map(|item| match item.split_once('=') {
                Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
                None => (item.to_owned(), None),
            })
            .collect();
        Self { items }
    }

    /// The value of the first parameter called `name`, without its quotes. A parameter without a value is "not there" here; see [`Self::has`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.items.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.as_deref().map(unquoted)
    }

    /// Whether there is a parameter called `name`, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.items.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// Names and values in their order, values as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.items.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Gives `name` the value, in its old place when it was there.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.items.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            Some(item) => item.1 = Some(value.to_owned()),
            None => self.items.push((name.to_owned(), Some(value.to_owned()))),
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.items {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Params {
    /// Names only: values may be numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.items.iter().map(|(name, _)| name)).finish()
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// One Via element (RFC 3261 section 20.42).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    transport: String,
    host: String,
    port: Option<u16>,
    params: Params,
}

impl Via {
    /// Reads one element; `None` without a transport and a host. Whitespace may stand anywhere.
    #[must_use]
    pub fn parse(element: &str) -> Option<Self> {
        let (head, params) = element.split_once(';').unwrap_or((element, ""));
        let mut protocol = head.splitn(3, '/');
        let (name, _version, rest) = (protocol.next()?, protocol.next()?, protocol.next()?);
        if !name.trim().eq_ignore_ascii_case("SIP") {
            return None;
        }
        let (transport, sent_by) = rest.trim().split_once([' ', '\t'])?;
        let (host, port) = split_host_port(sent_by);
        // A transport that is no token (section 25.1) could hold a comma, and be two elements when it is written again; a host with
        // brackets would be another.
        if host.is_empty() || host.contains([' ', '\t', '[', ']']) || !transport.bytes().all(is_token) {
            return None;
        }
        let transport = transport.to_ascii_uppercase();
        Some(Self { transport, host: host.to_owned(), port, params: Params::parse(params) })
    }

    /// The topmost Via of a message.
    #[must_use]
    pub fn topmost(headers: &Headers) -> Option<Self> {
        Self::parse(headers.list("Via").first()?)
    }

    /// "UDP", "TCP", "TLS", …
    #[must_use]
    pub fn transport(&self) -> &str {
        &self.transport
    }

    /// The host of sent-by, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of sent-by, when given.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters: `branch`, `rport`, `received`, …
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The branch, which names the transaction.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    /// Notes where the request really came from (RFC 3261 section 18.2.1, RFC 3581 section 4).
    pub(crate) fn note_source(&mut self, source: std::net::SocketAddr) {
        // A listener for both families shows IPv4 peers as mapped addresses.
        let ip = source.ip().to_canonical();
        let rport = self.params.has("rport");
        let stated: Option<IpAddr> = self.host.parse().ok();
        if rport || stated != Some(ip) {
            self.params.set("received", &ip.to_string());
        }
        if rport {
            self.params.set("rport", &source.port().to_string());
        }
    }

    /// sent-by in one spelling, for comparing.
    pub(crate) fn sent_by(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} ", self.transport)?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

/// From, To, Contact, Route and their like: a URI with an optional display name (RFC 3261 section 20.10).
///
/// Reading never fails. It accepts display names that should have been quoted, a missing `>`, and parameters that stand inside the
/// brackets where they belong outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    display_name: Option<DisplayName>,
    uri: Uri,
    params: Params,
}

/// A name that stays out of Debug.
#[derive(Clone, PartialEq, Eq)]
struct DisplayName(String);

impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl NameAddr {
    /// Reads one element of such a field.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let (quoted, rest) = match text.strip_prefix('"').and_then(|_| quoted_end(text.as_bytes(), 0)) {
            Some(end) => (Some(unescaped(&text[1..end])), &text[end + 1..]),
            None => (None, text),
        };
        if let Some(open) = rest.find('<') {
            let name = quoted.unwrap_or_else(|| rest[..open].trim().trim_matches('"').to_owned());
            let inside = &rest[open + 1..];
            let (uri, behind) = inside.split_once('>').unwrap_or((inside, ""));
            let params = behind.split_once(';').map_or("", |(_, params)| params);
            return Self { display_name: named(name), uri: Uri::parse(uri), params: Params::parse(params) };
        }
        // Without brackets, parameters are the field's (RFC 3261 section 20).
        let (uri, params) = match rest.split_once(';') {
            // A user part may hold `;`.
            Some(_) if rest.contains('@') => {
                let at = rest.rfind('@').unwrap_or(0);
                let end = rest[at..].find(';').map_or(rest.len(), |semicolon| at + semicolon);
                (&rest[..end], rest.get(end + 1..).unwrap_or(""))
            }
            Some(split) => split,
            None => (rest, ""),
        };
        Self { display_name: quoted.and_then(named), uri: Uri::parse(uri), params: Params::parse(params) }
    }

    /// The display name, unquoted; `None` when there is none or it is empty.
    #[must_use]
    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_ref().map(|name| name.0.as_str())
    }

    /// The URI.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The field's own parameters, behind the URI.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The tag, wherever the peer put it.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }

    /// The value of a parameter of the field or, where the peer misplaced it, of the URI.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).or_else(|| self.uri.params().get(name))
    }

    /// Whether the field or its URI has the parameter, with or without a value.
    #[must_use]
    pub fn has_param(&self, name: &str) -> bool {
        self.params.has(name) || self.uri.params().has(name)
    }
}

fn named(name: String) -> Option<DisplayName> {
    let name = name.trim();
    (!name.is_empty()).then(|| DisplayName(name.to_owned()))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// CSeq (RFC 3261 section 20.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The sequence number.
    pub number: u32,
    /// The method as written; empty when a sloppy peer left it out.
    pub method: String,
}

impl CSeq {
    /// Reads the field's value; `None` when it does not start with a number of 32 bits.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let number = value[..end].parse().ok()?;
        Some(Self { number, method: value[end..].trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_via(text: &str, want: Option<&str>) {
        assert_eq!(Via::parse(text).map(|via| via.to_string()).as_deref(), want, "{text:?}");
    }

    #[test]
    fn vias_come_apart() {
        check_via("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1", Some("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1"));
        check_via("SIP / 2.0 / udp  host : 5060 ; branch = a ;rport", Some("SIP/2.0/UDP host:5060;branch=a;rport"));
        check_via("SIP/2.0/TLS [2001:db8::1]", Some("SIP/2.0/TLS [2001:db8::1]"));
        check_via("SIP/2.0/UDP", None);
        check_via("HTTP/1.1/TCP host", None);
        check_via("SIP/\"a/b, \"c host", None);
        check_via("SIP/2.0/UDP ]:5060:[", None);
        check_via("", None);
    }

    fn check_source(via: &str, source: &str, want: &str) {
        let mut via = Via::parse(via).unwrap();
        via.note_source(source.parse().unwrap());
        assert_eq!(via.to_string(), want);
    }

    #[test]
    fn the_real_source_is_noted() {
        check_source("SIP/2.0/UDP 192.0.2.1;branch=a", "192.0.2.1:7", "SIP/2.0/UDP 192.0.2.1;branch=a");
        check_source("SIP/2.0/UDP h;branch=a", "192.0.2.1:7", "SIP/2.0/UDP h;branch=a;received=192.0.2.1");
        check_source(
            "SIP/2.0/UDP 10.0.0.1;rport;branch=a",
            "192.0.2.1:7",
            "SIP/2.0/UDP 10.0.0.1;rport=7;branch=a;received=192.0.2.1",
        );
        check_source("SIP/2.0/UDP h;received=198.51.100.1", "192.0.2.1:7", "SIP/2.0/UDP h;received=192.0.2.1");
    }

    fn check_addr(text: &str, name: Option<&str>, uri: &str, tag: Option<&str>) {
        let addr = NameAddr::parse(text);
        assert_eq!((addr.display_name(), addr.uri().as_str(), addr.tag()), (name, uri, tag), "{text:?}");
    }

    #[test]
    fn name_addrs_come_apart() {
        check_addr("\"A \\\"B\\\" <C>\"<sip:a@h>;tag=1", Some("A \"B\" <C>"), "sip:a@h", Some("1"));
        check_addr("Alice B. (x) <sip:a@h>;x;tag=1", Some("Alice B. (x)"), "sip:a@h", Some("1"));
        check_addr("sip:a@h;tag=1", None, "sip:a@h", Some("1"));
        check_addr("sip:a;b=c@h;tag=1", None, "sip:a;b=c@h", Some("1"));
        check_addr(
            "<sip:192.0.2.1:5060;transport=udp;tag=1",
            None,
            "sip:192.0.2.1:5060;transport=udp;tag=1",
            Some("1"),
        );
        check_addr("\"open <sip:a@h>;tag=1", Some("open"), "sip:a@h", Some("1"));
        check_addr("\"\" <sip:a@h>;tag=", None, "sip:a@h", None);
        check_addr("<tel:+15551230100>;tag=1", None, "tel:+15551230100", Some("1"));
        check_addr("\"A\" sip:a@h;tag=1", Some("A"), "sip:a@h", Some("1"));
        check_addr("", None, "", None);
    }

    #[test]
    fn feature_tags_are_found_inside_and_outside() {
        for contact in ["<sip:h>;+sip.src", "<sip:h;+sip.src>", "<sip:h;+sip.src", "<sip:h>;+SIP.SRC=\"TRUE\""] {
            assert!(NameAddr::parse(contact).has_param("+sip.src"), "{contact}");
        }
    }

    #[test]
    fn cseq_is_a_number_first() {
        assert_eq!(CSeq::parse(" 7  INVITE ").map(|c| (c.number, c.method)), Some((7, "INVITE".into())));
        assert_eq!(CSeq::parse("7").map(|c| (c.number, c.method)), Some((7, String::new())));
        for bad in ["", "INVITE", "-1 INVITE", "4294967296 INVITE"] {
            assert_eq!(CSeq::parse(bad), None, "{bad:?}");
        }
    }
}
