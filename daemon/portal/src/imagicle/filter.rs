//! The filters of the list: `name=value`, where the value begins with an operator and a colon, or is to be equal.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Problem;

/// Recordings of one page at most: without `pageSize` everything is given that [`super::ROWS_MAX`] lets be looked at.
const PAGE_SIZE_MAX: usize = super::ROWS_MAX;

/// When something has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum When {
    /// Whenever.
    #[default]
    Any,
    /// In that second.
    At(Timestamp),
    /// Later.
    After(Timestamp),
    /// Earlier.
    Before(Timestamp),
    /// From the one to the other.
    Between(Timestamp, Timestamp),
}

impl When {
    fn has(self, at: Timestamp) -> bool {
        match self {
            Self::Any => true,
            Self::At(wanted) => at.as_second() == wanted.as_second(),
            Self::After(wanted) => at > wanted,
            Self::Before(wanted) => at < wanted,
            Self::Between(first, last) => first <= at && at <= last,
        }
    }

    /// From when on, and before when, something has to be looked for: at least that.
    fn span(self) -> (Option<Timestamp>, Option<Timestamp>) {
        let next = |at: Timestamp| at.checked_add(SignedDuration::from_secs(1)).ok();
        let second = |at: Timestamp| Timestamp::from_second(at.as_second()).ok();
        match self {
            Self::Any => (None, None),
            Self::At(at) => (second(at), next(at)),
            Self::After(at) => (Some(at), None),
            Self::Before(at) => (None, Some(at)),
            Self::Between(first, last) => (Some(first), next(last)),
        }
    }
}

/// Which recordings are wanted, and which page of them. `Debug` shows numbers and names: it is for tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// From 0.
    page: usize,
    /// None: all of them.
    page_size: Option<usize>,
    start: When,
    end: When,
    local: Option<String>,
    /// Whether it is enough to contain it.
    remote: Option<(String, bool)>,
    owner: Option<String>,
    /// As the daemon calls it.
    direction: Option<&'static str>,
}

/// Understands a query.
///
/// # Errors
/// 400 with reason 0 for a filter, 1 for a page.
pub fn understand_list(query: &str) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    for (name, value) in pairs(query)? {
        if value.is_empty() {
            continue;
        }
        let page = || value.parse::<usize>().map_err(|_| Problem::new(400, 1, "page and pageSize are numbers, from 0"));
        match name.to_ascii_lowercase().as_str() {
            "page" => wanted.page = page()?,
            "pagesize" => wanted.page_size = Some(page()?),
            "starttime" => wanted.start = when(&value)?,
            "endtime" => wanted.end = when(&value)?,
            "localpartynumber" => wanted.local = Some(equal(&value)?),
            "remotepartynumber" | "remoteparty" => {
                wanted.remote = Some(match value.strip_prefix("contains:") {
                    Some(part) => (digits(part), true),
                    None => (digits(&equal(&value)?), false),
                });
            }
            "ownerusername" => wanted.owner = Some(equal(&value)?.to_lowercase()),
            "direction" => {
                let known = [("0", "unknown"), ("1", "incoming"), ("2", "outgoing")];
                let value = equal(&value)?;
                let found = known.into_iter().find(|(number, _)| *number == value);
                let (_, word) = found.ok_or_else(|| Problem::new(400, 0, "direction is 0, 1 or 2"))?;
                wanted.direction = Some(word);
            }
            _ => return Err(Problem::new(400, 0, "there is a filter that is not known here")),
        }
    }
    if wanted.page_size.is_some_and(|size| size == 0 || size > PAGE_SIZE_MAX) {
        return Err(Problem::new(400, 1, format!("pageSize is 1 to {PAGE_SIZE_MAX}")));
    }
    Ok(wanted)
}

impl Wanted {
    /// What the daemon is asked, but for the cursor: at least everything that is wanted.
    pub fn query(&self) -> String {
        let (from, to) = self.start.span();
        let mut query = String::from("limit=1000");
        let mut add = |name: &str, value: &str| query.push_str(&format!("&{name}={}", encoded(value)));
        if let Some(from) = from {
            add("from", &from.to_string());
        }
        if let Some(to) = to {
            add("to", &to.to_string());
        }
        if let Some(direction) = self.direction {
            add("direction", direction);
        }
        match (&self.local, &self.remote) {
            (Some(local), _) => add("number", local),
            (None, Some((remote, is_part))) if remote.bytes().any(|byte| byte.is_ascii_digit()) => {
                add("number", remote);
                if *is_part {
                    add("number_match", "part");
                }
            }
            _ => {}
        }
        if let Some(owner) = self.owner.as_ref().filter(|owner| owner.contains('@')) {
            add("owner", owner);
        }
        query
    }

    /// Whether a recording, as the daemon tells of it, is wanted.
    pub fn has(&self, recording: &Value) -> bool {
        let text = |name: &str| recording.get(name).and_then(Value::as_str);
        let time = |name: &str| text(name).and_then(|text| text.parse::<Timestamp>().ok());
        let number = |name: &str| text(name).map(digits).unwrap_or_default();
        let is_when = |when: When, name: &str| when == When::Any || time(name).is_some_and(|at| when.has(at));
        is_when(self.start, "started_at")
            && is_when(self.end, "ended_at")
            && self.local.as_ref().is_none_or(|wanted| number("local_number") == digits(wanted))
            && self.remote.as_ref().is_none_or(|(wanted, is_part)| match is_part {
                true => number("remote_number").contains(wanted.as_str()),
                false => number("remote_number") == *wanted,
            })
            && self.owner.as_ref().is_none_or(|wanted| is_user(wanted, text("owner").unwrap_or_default()))
            && self.direction.is_none_or(|wanted| text("direction") == Some(wanted))
    }

    /// Which of those that are wanted are on the page: positions from 0.
    pub fn page(&self) -> std::ops::Range<usize> {
        match self.page_size {
            None => 0..usize::MAX,
            Some(size) => {
                let first = self.page.saturating_mul(size);
                first..first.saturating_add(size)
            }
        }
    }
}

/// Whether a name is that of the user with this e-mail: the e-mail itself, or what is before the `@`.
pub(super) fn is_user(name: &str, email: &str) -> bool {
    let name = name.to_lowercase();
    let email = email.to_lowercase();
    !name.is_empty() && (name == email || email.split_once('@').is_some_and(|(user, _)| user == name))
}

/// A number without what is there for the eye.
pub(super) fn digits(number: &str) -> String {
    number.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '/')).collect::<String>().to_lowercase()
}

fn when(value: &str) -> Result<When, Problem> {
    let bad =
        || Problem::new(400, 0, "a time is ISO 8601, after equals:, before:, after: or between: (two, with a comma)");
    let time = |text: &str| text.trim().parse::<Timestamp>().map_err(|_| bad());
    if let Some(rest) = value.strip_prefix("after:") {
        return time(rest).map(When::After);
    }
    if let Some(rest) = value.strip_prefix("before:") {
        return time(rest).map(When::Before);
    }
    if let Some(rest) = value.strip_prefix("between:") {
        let (first, last) = rest.split_once([',', ';', '|']).ok_or_else(bad)?;
        return Ok(When::Between(time(first)?, time(last)?));
    }
    time(value.strip_prefix("equals:").unwrap_or(value)).map(When::At)
}

fn equal(value: &str) -> Result<String, Problem> {
    let value = value.strip_prefix("equals:").unwrap_or(value);
    let operators = ["contains:", "before:", "after:", "between:"];
    if operators.iter().any(|operator| value.starts_with(operator)) {
        return Err(Problem::new(400, 0, "this filter has to be equal"));
    }
    Ok(value.to_owned())
}

/// The parameters of a query. A `+` is a plus sign: numbers begin with one.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let bad = || Problem::new(400, 0, "the query is not percent-encoded UTF-8");
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name).ok_or_else(bad)?, decoded(value).ok_or_else(bad)?))
    });
    pairs.collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encoded: all but what RFC 3986 calls unreserved.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_take_what_they_say() {
        let recording = json!({
            "started_at": "2023-01-01T10:00:00.250Z", "ended_at": "2023-01-01T10:01:30.000Z", "direction": "incoming",
            "local_number": "225", "remote_number": "+39 0584 123456", "owner": "john_doe@example.com",
        });
        let check = |query: &str, has: bool| {
            assert_eq!(understand_list(query).unwrap().has(&recording), has, "{query}");
        };
        check("", true);
        check("startTime=after:2023-01-01T00:00:00Z", true);
        check("startTime=after:2023-01-01T10:00:01Z", false);
        check("startTime=before:2023-01-01T10:00:00Z", false);
        check("startTime=2023-01-01T10:00:00Z", true);
        check("startTime=equals:2023-01-01T10:00:01Z", false);
        check("startTime=2023-01-01T12:00:00%2B02:00", true);
        check("startTime=between:2023-01-01T00:00:00Z,2023-01-02T00:00:00Z", true);
        check("startTime=between:2023-01-02T00:00:00Z,2023-01-03T00:00:00Z", false);
        check("endTime=before:2023-01-01T10:01:31Z", true);
        check("endTime=before:2023-01-01T10:01:30Z", false);
        check("localPartyNumber=225", true);
        check("localPartyNumber=25", false);
        check("remotePartyNumber=contains:+39", true);
        check("remotePartyNumber=contains:%2B390584", true);
        check("remoteParty=contains:+1234", false);
        check("remotePartyNumber=+390584123456", true);
        check("remotePartyNumber=123456", false);
        check("ownerUsername=john_doe", true);
        check("ownerUsername=JOHN_DOE@example.com", true);
        check("ownerUsername=john", false);
        check("direction=1", true);
        check("direction=2", false);
    }

    #[test]
    fn the_daemon_is_asked_for_no_less() {
        let check =
            |query: &str, expected: &str| assert_eq!(understand_list(query).unwrap().query(), expected, "{query}");
        check("page=2&pageSize=25", "limit=1000");
        check("startTime=after:2023-01-01T00:00:00Z", "limit=1000&from=2023-01-01T00%3A00%3A00Z");
        check("startTime=2023-01-01T00:00:00Z", "limit=1000&from=2023-01-01T00%3A00%3A00Z&to=2023-01-01T00%3A00%3A01Z");
        check("endTime=after:2023-01-01T00:00:00Z", "limit=1000");
        check(
            "remotePartyNumber=contains:+39&direction=2",
            "limit=1000&direction=outgoing&number=%2B39&number_match=part",
        );
        check("localPartyNumber=225&remotePartyNumber=7", "limit=1000&number=225");
        check("ownerUsername=john_doe", "limit=1000");
        check("ownerUsername=a%26b@x", "limit=1000&owner=a%26b%40x");
    }

    #[test]
    fn what_is_wrong_has_its_reason() {
        let check = |query: &str, reason: u8| {
            let problem = understand_list(query).unwrap_err();
            assert_eq!((problem.status, problem.reason), (400, Some(reason)), "{query}");
        };
        check("page=x", 1);
        check("page=-1", 1);
        check("pageSize=0", 1);
        check("pageSize=20001", 1);
        check("startTime=yesterday", 0);
        check("startTime=between:2023-01-01T00:00:00Z", 0);
        check("direction=3", 0);
        check("localPartyNumber=contains:2", 0);
        check("colour=red", 0);
        check("direction=%zz", 0);
    }

    #[test]
    fn pages_are_counted_from_nought() {
        let check = |query: &str, expected: std::ops::Range<usize>| {
            assert_eq!(understand_list(query).unwrap().page(), expected, "{query}");
        };
        check("", 0..usize::MAX);
        check("page=0&pageSize=25", 0..25);
        check("page=2&pageSize=25", 50..75);
        check("page=18446744073709551615&pageSize=25", usize::MAX..usize::MAX);
    }
}
