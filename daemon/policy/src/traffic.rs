//! Whether a call stayed within the organisation.

use callvault_directory::Directory;
use callvault_journal::facts::CallFacts;
use serde::{Deserialize, Serialize};

use crate::call::main_remote;
use crate::owner::names;

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

/// Whether a call stayed within the organisation, as the directory knows it: the main remote party is internal when it is a user or has a
/// number of the numbering plan. Where the plan has no patterns, or the party no number, it is what the signalling tells.
pub fn traffic_among(call: &CallFacts, directory: &Directory) -> Traffic {
    let Some(remote) = main_remote(call) else { return Traffic::Unknown };
    if directory.is_internal(&names(remote)) {
        return Traffic::Internal;
    }
    let is_number = |number: &str| directory.plan().number(number).is_some();
    if directory.plan().tells_internal() && remote.number.as_deref().is_some_and(is_number) {
        return Traffic::External;
    }
    traffic(call)
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

    #[test]
    fn the_directory_knows_better() {
        fn check(internal: &str, number: &str, expected: Traffic) {
            let patterns = internal.split_whitespace().map(|text| text.parse().unwrap()).collect();
            let plan = callvault_directory::NumberingPlan::new("39", "", "00", patterns);
            let user = callvault_directory::User {
                webex_email: "ann@x".to_owned(),
                first_extension: "+390501".to_owned(),
                ..Default::default()
            };
            let number = (!number.is_empty()).then(|| number.to_owned());
            let remotes = vec![Party { number, ..Party::default() }];
            let call = CallFacts { remotes, ..CallFacts::default() };
            assert_eq!(traffic_among(&call, &Directory::new([user], plan)), expected, "{internal} {call:?}");
        }
        check("", "+390501", Traffic::Internal);
        check("", "+390502", Traffic::External);
        check("", "7711", Traffic::Internal);
        check("", "112", Traffic::Unknown);
        check("77..", "7711", Traffic::Internal);
        check("77..", "7811", Traffic::External);
        check("77..", "112", Traffic::External);
        check("77.. +3906!", "0039 06 1", Traffic::External);
        check("77.. +3906!", "0039 06 1234567", Traffic::Internal);
        check("77..", "", Traffic::Unknown);
    }
}
