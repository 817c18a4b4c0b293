//! Whether a call stayed within the organisation.

use callvault_journal::facts::CallFacts;
use serde::{Deserialize, Serialize};

use crate::call::main_remote;

/// Longest number that is taken for an extension.
pub const EXTENSION_DIGITS_MAX: usize = 6;

/// Longest number that may as well be an emergency or service number (112, 911, 118) as an extension.
const SERVICE_DIGITS_MAX: usize = 3;

/// Whether a call stayed within the organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// Both sides belong to it.
    Internal,
    /// The other side does not.
    External,
    /// The signalling does not tell.
    #[default]
    Unknown,
}

/// Whether a call stayed within the organisation, as far as the signalling tells without a directory of its numbers: the main
/// remote party is internal when it is a user of the recorded user's own domain or has an extension, and external when it has a
/// full number.
pub fn traffic(call: &CallFacts) -> Traffic {
    let Some(remote) = main_remote(call) else {
        return Traffic::Unknown;
    };
    let domain = |address: &Option<String>| address.as_deref().and_then(domain_of);
    let own = domain(&call.local.user_id).or_else(|| domain(&call.local.aor));
    if own.is_some() && own == domain(&remote.aor) && remote.number.is_none() {
        return Traffic::Internal;
    }
    let Some(number) = remote.number.as_deref() else {
        return Traffic::Unknown;
    };
    let digits = number.chars().filter(char::is_ascii_digit).count();
    if number.starts_with('+') || digits > EXTENSION_DIGITS_MAX {
        Traffic::External
    } else if digits > SERVICE_DIGITS_MAX {
        Traffic::Internal
    } else {
        Traffic::Unknown
    }
}

/// The domain of an address, when it has a user part.
fn domain_of(address: &str) -> Option<String> {
    let (_, host) = address.rsplit_once('@')?;
    let host = host.split([';', ':', '>', '?']).next()?.trim();
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use callvault_journal::facts::Party;

    #[test]
    fn traffic_is_told() {
        fn check(number: Option<&str>, aor: &str, expected: Traffic) {
            let call = CallFacts {
                local: Party { user_id: Some("u@org.example.com".to_owned()), ..Party::default() },
                remotes: vec![Party {
                    number: number.map(str::to_owned),
                    aor: Some(aor.to_owned()),
                    ..Party::default()
                }],
                ..CallFacts::default()
            };
            assert_eq!(traffic(&call), expected, "{number:?} {aor}");
        }
        check(Some("+14085550123"), "sip:+14085550123@192.0.2.1", Traffic::External);
        check(Some("0505550123"), "", Traffic::External);
        check(Some("7711"), "sip:7711@192.0.2.1;user=phone", Traffic::Internal);
        check(Some("201234"), "", Traffic::Internal);
        check(Some("2012345"), "", Traffic::External);
        check(Some("112"), "", Traffic::Unknown);
        check(Some("+14085550123"), "sip:x@org.example.com", Traffic::External);
        check(None, "x@ORG.example.com", Traffic::Internal);
        check(None, "sip:x@other.example.com", Traffic::Unknown);
        check(None, "", Traffic::Unknown);
        assert_eq!(traffic(&CallFacts::default()), Traffic::Unknown);
    }
}
