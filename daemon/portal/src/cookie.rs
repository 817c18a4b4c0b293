//! The cookies that hold sessions. `__Host-`: a browser takes it over HTTPS alone, from this host alone, and gives it to nobody else;
//! `HttpOnly`: to no script; `SameSite=Strict`: with no request that another site began.
//!
//! The gadget stands in a frame of Webex's, where a strict cookie is never sent. It has one of its own, kept apart for each site that
//! frames it (`Partitioned`), and only requests that name the gadget in [`crate::origin::FIELD`], which no other site can, are answered by it.

/// Whose cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The portal's pages.
    Pages,
    /// The gadget in its frame.
    Gadget,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pages => "__Host-callvault",
            Self::Gadget => "__Host-callvault-gadget",
        }
    }

    fn attributes(self) -> &'static str {
        match self {
            Self::Pages => "Path=/; Secure; HttpOnly; SameSite=Strict",
            Self::Gadget => "Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
        }
    }
}

/// The longest session that is believed to be one, in bytes.
const SESSION_BYTES_MAX: usize = 128;

/// The session of that kind in the `Cookie` header fields; none when there is none, or when there are several, which no browser sends.
pub fn session<'a>(kind: Kind, fields: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut found = fields.into_iter().flat_map(|field| field.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == kind.name()).then_some(value)
    });
    let first = found.next().filter(|value| is_session(value))?;
    found.next().is_none().then_some(first)
}

/// Whether it could be a session: what else it may hold never comes into a header.
pub fn is_session(text: &str) -> bool {
    (1..=SESSION_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The name of the one that ties somebody who comes back from a provider to who was sent there.
pub const ATTEMPT: &str = "__Host-callvault-attempt";

/// The attempt to sign in at a provider that is in the `Cookie` header fields; none when there is none, or several.
pub fn attempt<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut found = fields.into_iter().flat_map(|field| field.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == ATTEMPT).then_some(value)
    });
    let first = found.next().filter(|value| is_attempt(value))?;
    found.next().is_none().then_some(first)
}

/// Whether it could be an attempt.
pub fn is_attempt(text: &str) -> bool {
    (1..=2 * SESSION_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The `Set-Cookie` of an attempt. `Lax`: the way back begins at another site.
pub fn begin_attempt(attempt: &str, seconds: u64) -> String {
    format!("{ATTEMPT}={attempt}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}

/// The one that ends it.
pub fn end_attempt() -> String {
    format!("{ATTEMPT}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// The `Set-Cookie` that begins a session of so many seconds.
pub fn begin(kind: Kind, session: &str, seconds: u64) -> String {
    format!("{}={session}; {}; Max-Age={seconds}", kind.name(), kind.attributes())
}

/// The one that ends it.
pub fn end(kind: Kind) -> String {
    format!("{}=; {}; Max-Age=0", kind.name(), kind.attributes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_is_found_and_nothing_else() {
        let check = |fields: &[&str], expected: Option<&str>| {
            assert_eq!(session(Kind::Pages, fields.iter().copied()), expected, "{fields:?}");
        };
        check(&["__Host-callvault=cvt-12"], Some("cvt-12"));
        check(&["a=b; __Host-callvault=cvt-12; c=d"], Some("cvt-12"));
        check(&["a=b", "__Host-callvault=cvt-12"], Some("cvt-12"));
        check(&[], None);
        check(&["callvault=cvt-12"], None);
        check(&["__Host-callvault="], None);
        check(&["__Host-callvault=a\r\nb"], None);
        check(&["__Host-callvault=a b"], None);
        check(&["__Host-callvault=a; __Host-callvault=b"], None);
        check(&["__Host-callvault=a", "__Host-callvault=a"], None);
        check(&[&format!("__Host-callvault={}", "a".repeat(129))], None);
    }

    #[test]
    fn pages_and_gadget_have_sessions_of_their_own() {
        let check = |kind: Kind, fields: &str, expected: Option<&str>| {
            assert_eq!(session(kind, [fields]), expected, "{kind:?}: {fields}");
        };
        check(Kind::Gadget, "__Host-callvault=cvt-12", None);
        check(Kind::Pages, "__Host-callvault-gadget=cvt-13", None);
        check(Kind::Gadget, "__Host-callvault=cvt-12; __Host-callvault-gadget=cvt-13", Some("cvt-13"));
        check(Kind::Pages, "__Host-callvault=cvt-12; __Host-callvault-gadget=cvt-13", Some("cvt-12"));
    }
}
