//! Whether a request was begun by a page of ours. The cookie's `SameSite=Strict` already keeps other sites' requests without a session;
//! this stands behind it, and covers signing in, which needs none.

/// The header field that pages of ours send with everything that changes something. A form cannot send it, and a script of another origin
/// would have to ask first, which is not answered.
pub const FIELD: &str = "x-callvault";

/// What the gadget says in it.
pub const GADGET: &str = "gadget";

/// What of a request tells where it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Host`, or HTTP/2's authority.
    pub host: Option<&'a str>,
    /// Whether [`FIELD`] is there.
    pub has_field: bool,
}

/// Whether it may be answered: `changes` when it is not a GET or HEAD.
pub fn is_ours(told: Told<'_>, changes: bool) -> bool {
    let site = match told.fetch_site {
        None | Some("same-origin") => true,
        // typed into the address bar
        Some("none") => !changes,
        Some(_) => false,
    };
    let origin = told.origin.is_none_or(|origin| {
        told.host
            .is_some_and(|host| origin.strip_prefix("https://").is_some_and(|from| from.eq_ignore_ascii_case(host)))
    });
    site && origin && (told.has_field || !changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_pages_of_ours_are_answered() {
        let check = |site: &str, origin: &str, has_field: bool, changes: bool, expected: bool| {
            let some = |text: &'static str| (!text.is_empty()).then_some(text);
            let (site, origin): (&'static str, &'static str) = (site.to_owned().leak(), origin.to_owned().leak());
            let told =
                Told { fetch_site: some(site), origin: some(origin), host: Some("calls.example:8443"), has_field };
            assert_eq!(is_ours(told, changes), expected, "{site} {origin} {has_field} {changes}");
        };
        let own = "https://calls.example:8443";
        check("same-origin", own, true, true, true);
        check("same-origin", "https://CALLS.example:8443", true, true, true);
        check("same-origin", own, false, true, false);
        check("same-origin", "", false, false, true);
        check("", "", true, true, true);
        check("", "", false, true, false);
        check("", "", false, false, true);
        check("none", "", false, false, true);
        check("none", "", true, true, false);
        check("cross-site", "", true, true, false);
        check("cross-site", "", false, false, false);
        check("same-site", own, true, true, false);
        check("", "https://calls.example", true, true, false);
        check("", "http://calls.example:8443", true, true, false);
        check("", "null", true, true, false);
        check("", "https://evil.example", false, false, false);
    }
}
