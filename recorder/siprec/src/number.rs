//! Numbers out of addresses.

use std::net::IpAddr;

/// Longest number taken: E.164 has 15 digits; prefixes and service codes make some longer.
const NUMBER_CHARS_MAX: usize = 32;

/// The number in an address: the user part of a `sip`, `sips` or `tel` URI (RFC 3261, RFC 3966) or of an address without a
/// scheme, without parameters (`;user=phone`), password and visual separators. A leading `+` stays. None where the user part
/// is no number ("anonymous", an opaque id), so that whoever shows it can fall back on something better.
pub fn number_of(address: &str) -> Option<String> {
    let user = percent_decoded(user_part(address)?);
    let mut number = String::new();
    for c in without_extension_word(user.trim()).chars() {
        match c {
            '0'..='9' | '*' | '#' => number.push(c),
            '+' if number.is_empty() => number.push(c),
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return None,
        }
        if number.len() > NUMBER_CHARS_MAX {
            return None;
        }
    }
    number.chars().any(|c| c.is_ascii_digit()).then_some(number)
}

/// Without the word that some switches (SEMS among them) put before an extension: `Extension-7711`.
fn without_extension_word(user: &str) -> &str {
    const WORD: &str = "extension-";
    match user.split_at_checked(WORD.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(WORD) => rest,
        _ => user,
    }
}

/// The value of a URI's parameter; empty where it has none. Parameters of the user part count too: clients misplace them.
pub(crate) fn uri_param<'a>(address: &'a str, name: &str) -> Option<&'a str> {
    bare_uri(address).split(';').skip(1).find_map(|param| {
        let (own, value) = param.split_once('=').unwrap_or((param, ""));
        own.trim().eq_ignore_ascii_case(name).then(|| value.split(['@', '?']).next().unwrap_or(value).trim())
    })
}

/// The address reduced to `user@host`, to compare by: no display name, scheme, parameters or port, the host in lower case.
pub(crate) fn comparable(address: &str) -> String {
    let uri = without_scheme(bare_uri(address)).1;
    let (user, host) = match uri.rsplit_once('@') {
        Some((user, host)) => (user.split([';', ':']).next().unwrap_or(user), host),
        None => ("", uri),
    };
    let host = host.split([';', '?', '>']).next().unwrap_or(host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    format!("{user}@{}", host.trim().to_ascii_lowercase())
}

/// Whether two numbers may be the same line written differently: equal, or one the end of the other as an extension is.
pub(crate) fn may_be_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_start_matches('+'), other.trim_start_matches('+'));
    // Two digits in common say nothing.
    one == other || (one.len().min(other.len()) >= 3 && (one.ends_with(other) || other.ends_with(one)))
}

/// The user part; none where there is only a host. Without a scheme, what is no IP address is taken for a user.
fn user_part(address: &str) -> Option<&str> {
    let (scheme, rest) = without_scheme(bare_uri(address));
    let user = match (rest.rsplit_once('@'), scheme) {
        (Some((user, _)), _) => user,
        (None, None) if rest.parse::<IpAddr>().is_ok() => return None,
        (None, Some(scheme)) if !scheme.eq_ignore_ascii_case("tel") => return None,
        (None, _) => rest,
    };
    user.split([';', ':', '?']).next()
}

/// What stands between angle brackets, or everything.
fn bare_uri(address: &str) -> &str {
    let address = address.trim();
    match address.rsplit_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest).trim(),
        None => address,
    }
}

fn without_scheme(uri: &str) -> (Option<&str>, &str) {
    match uri.split_once(':') {
        Some((scheme, rest))
            if ["sip", "sips", "tel"].iter().any(|known| scheme.trim().eq_ignore_ascii_case(known)) =>
        {
            (Some(scheme.trim()), rest.trim())
        }
        _ => (None, uri),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_found() {
        fn check(address: &str, number: Option<&str>) {
            assert_eq!(number_of(address).as_deref(), number, "in {address:?}");
        }
        check("sip:+390505550123@192.0.2.10;user=phone", Some("+390505550123"));
        check("\"Ann\" <sips:7711@example.com:5061>;tag=1", Some("7711"));
        check("tel:+1-408-555-0123;phone-context=example.com", Some("+14085550123"));
        check("TEL:(050) 555.0123", Some("0505550123"));
        check("sip:%2B390505550123@example.com", Some("+390505550123"));
        check("sip:+39050;phone-context=+39@example.com", Some("+39050"));
        check("sip:7711:secret@example.com", Some("7711"));
        check("3125550199", Some("3125550199"));
        check("+14155550100", Some("+14155550100"));
        check("*44", Some("*44"));
        check("7711@example.com", Some("7711"));
        check("Extension-0165550142@example.com", Some("0165550142"));
        check("sip:Extension-desk@example.com", None);
        check("sip:anonymous@anonymous.invalid", None);
        check("sip:qq11ww22ee@31415926.example.com", None);
        check("sip:192.0.2.10:5060", None);
        check("sip:5060", None);
        check("192.0.2.10", None);
        check("2001:db8::1", None);
        check("", None);
        check("+", None);
        check("sip:%zz%4@h", None);
        check("123456789012345678901234567890123", None);
    }

    #[test]
    fn addresses_are_compared() {
        fn check(one: &str, other: &str, same: bool) {
            assert_eq!(comparable(one) == comparable(other), same, "{one} {other}");
        }
        check("sip:qq11@Example.COM", "qq11@example.com", true);
        check("<sip:qq11@example.com:5060;transport=tcp>", "qq11@example.com", true);
        check("sip:qq11@example.com;user=phone", "sip:qq11@example.com", true);
        check("sip:QQ11@example.com", "sip:qq11@example.com", false);
        check("sip:qq11@example.com", "sip:qq12@example.com", false);
    }

    #[test]
    fn parameters_are_found() {
        fn check(address: &str, value: Option<&str>) {
            assert_eq!(uri_param(address, "x-farendaddr"), value, "{address}");
        }
        check("sip:2000@h;x-nearend;x-farendaddr=1000", Some("1000"));
        check("<sip:2000@h;X-FarEndAddr=1000;x-refci=1>;tag=1", Some("1000"));
        check("sip:2000;x-farendaddr=1000@h", Some("1000"));
        check("sip:2000@h;x-farendaddr", Some(""));
        check("sip:x-farendaddr=1@h", None);
    }

    #[test]
    fn numbers_are_compared() {
        fn check(one: &str, other: &str, same: bool) {
            assert_eq!(may_be_same(one, other), same, "{one} {other}");
        }
        check("+390505550123", "390505550123", true);
        check("+390505557711", "7711", true);
        check("7711", "7712", false);
        check("+390505550111", "11", false);
    }

    proptest! {
        #[test]
        fn anything_goes_in(text in ".{0,80}") {
            let _ = comparable(&text);
            if let Some(number) = number_of(&text) {
                prop_assert!(number.chars().all(|c| "+*#0123456789".contains(c)));
                prop_assert_eq!(number_of(&number), Some(number.clone()));
            }
        }
    }
}
