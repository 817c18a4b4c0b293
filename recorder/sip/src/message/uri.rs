//! URIs, read lightly: enough to answer and to send, with the text kept as it came.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::fields::Params;
use super::headers::one_line;

/// A SIP, SIPS or tel URI (RFC 3261 section 19.1, RFC 3966), or any other text that stood where one belongs.
///
/// Reading never fails; what is not there is empty. Two URIs are equal when their texts are.
#[derive(Clone)]
pub struct Uri {
    raw: String,
    scheme: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    params: Params,
}

impl Uri {
    /// Reads a URI without its angle brackets.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let raw = one_line(text);
        let (scheme, rest) = match raw.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme, rest) => (scheme.to_ascii_lowercase(), rest),
            _ => (String::new(), raw.as_str()),
        };
        if scheme == "tel" {
            let (number, params) = split_once_or_all(rest, ';');
            let (user, params) = (Some(number.trim().to_owned()), Params::parse(params));
            return Self { scheme, user, host: String::new(), port: None, params, raw };
        }
        let (user, rest) = match user_end(rest) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (rest, _headers) = split_once_or_all(rest, '?');
        let (host_port, params) = split_once_or_all(rest, ';');
        let (host, port) = split_host_port(host_port);
        // A password (RFC 3261 section 19.1.1, deprecated) is nobody's number.
        let user = user.map(|user| split_once_or_all(user, ':').0.to_owned());
        let (host, params) = (host.to_owned(), Params::parse(params));
        Self { scheme, user, host, port, params, raw }
    }

    /// The whole URI as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// The scheme in lower case: "sip", "sips", "tel"; empty when there is none.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user part (the number of a tel URI) without a password, still percent-encoded.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, when one is given and is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters: `transport`, `user`, `lr`, …
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Where the URI points when its host is an address; names are not resolved here. Port 5060, or 5061 for sips, unless given.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        let port = self.port.unwrap_or(if self.scheme == "sips" { 5061 } else { 5060 });
        Some(SocketAddr::new(address, port))
    }
}

impl PartialEq for Uri {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Uri {}

impl fmt::Display for Uri {
    /// The text as it came, except that spaces, which would end it early, are percent-encoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.raw.contains([' ', '\t']) {
            return f.write_str(&self.raw.replace([' ', '\t'], "%20"));
        }
        f.write_str(&self.raw)
    }
}

impl fmt::Debug for Uri {
    /// Leaves out the user part, which is a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.user.is_some() { "…@" } else { "" };
        write!(f, "{}:{user}{}", self.scheme, self.host)
    }
}

fn is_scheme(text: &str, rest: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        // "host.example:5060" without a scheme has the same shape.
        && (!text.contains('.') || rest.starts_with("//"))
}

/// Where the user part ends. It may hold `;` and `?`, and sloppy peers put a whole `user@domain` into it: the last `@` before the
/// headers counts.
fn user_end(rest: &str) -> Option<usize> {
    let first = rest.find('@')?;
    let headers = rest[first..].find('?').map_or(rest.len(), |at| first + at);
    rest[..headers].rfind('@')
}

fn split_once_or_all(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// Splits `host:port`; an IPv6 address may stand with or without brackets. A port that is no port is dropped.
pub(crate) fn split_host_port(text: &str) -> (&str, Option<u16>) {
    let text = text.trim();
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.trim().strip_prefix(':').and_then(|port| port.trim().parse().ok());
        return (host.trim(), port);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host.trim(), port.trim().parse().ok()),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, scheme: &str, user: Option<&str>, host: &str, port: Option<u16>) {
        let uri = Uri::parse(text);
        let got = (uri.scheme(), uri.user(), uri.host(), uri.port());
        assert_eq!(got, (scheme, user, host, port), "{text:?}");
    }

    #[test]
    fn uris_come_apart() {
        check("sip:alice@example.com:5070;user=phone", "sip", Some("alice"), "example.com", Some(5070));
        check("SIP:+15551230100@192.0.2.1;user=phone", "sip", Some("+15551230100"), "192.0.2.1", None);
        check("sip:192.0.2.1:5060;transport=udp", "sip", None, "192.0.2.1", Some(5060));
        check("sips:[2001:db8::1]:5061", "sips", None, "2001:db8::1", Some(5061));
        check("sip:2001:db8::1", "sip", None, "2001:db8::1", None);
        check("tel:+1-555-0100;phone-context=x", "tel", Some("+1-555-0100"), "", None);
        check("sip:a;b=c?d:pw@host?Subject=x", "sip", Some("a;b=c?d"), "host", None);
        check("sip:a@inner@outer", "sip", Some("a@inner"), "outer", None);
        check("192.0.2.1:5060", "", None, "192.0.2.1", Some(5060));
        check("sip:host:99999", "sip", None, "host", None);
        check("soap.beep://192.0.2.1:3002", "soap.beep", None, "//192.0.2.1", Some(3002));
        check("", "", None, "", None);
        check("@", "", Some(""), "", None);
    }

    #[test]
    fn parameters_and_addresses_are_read() {
        let uri = Uri::parse("sip:192.0.2.7;lr;transport=tcp");
        assert!(uri.params().has("LR"));
        assert_eq!(uri.params().get("transport"), Some("tcp"));
        assert_eq!(uri.socket_addr(), "192.0.2.7:5060".parse().ok());
        assert_eq!(Uri::parse("sip:example.com").socket_addr(), None);
    }

    #[test]
    fn debug_keeps_the_user_to_itself() {
        assert_eq!(format!("{:?}", Uri::parse("sip:alice@example.com")), "sip:…@example.com");
    }
}
