//! Walking through the pages of a list: what each answer means and what is asked for next. The next page is where the answer's `Link`
//! says (RFC 8288, `rel="next"`), never where one would guess it.

/// Pages of one list at most: ten times what the largest organisation has.
pub const PAGES_MAX: usize = 10_000;

/// How often in a row an answer may be none before the walk is given up.
pub const FAILURES_MAX: u32 = 8;

/// The longest that a service is waited for, in milliseconds, whatever it asks for.
pub const WAIT_MS_MAX: u64 = 15 * 60 * 1000;

/// The first pause after a failure that says nothing about when to come again, in milliseconds; it doubles with each.
const WAIT_MS_MIN: u64 = 1_000;

/// Characters of an address at most.
const URL_CHARS_MAX: usize = 8_192;

/// What is done next.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// This address is asked for.
    Get(String),
    /// The same again after so many milliseconds.
    Wait(u64),
    /// All pages are there.
    Done,
    /// It ends here, and nothing of it may be used: half a directory is not a small one.
    Failed(WalkError),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold what was asked for.
        match self {
            Self::Get(_) => f.write_str("Get"),
            Self::Wait(ms) => write!(f, "Wait({ms})"),
            Self::Done => f.write_str("Done"),
            Self::Failed(error) => write!(f, "Failed({error:?})"),
        }
    }
}

/// Why a walk ended early. The texts say who does what about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// 401.
    #[error(
        "Webex does not know the token any more; it is renewed, and if that fails, an administrator authorises again"
    )]
    Unauthorised,
    /// 403: a scope or a role that is not there.
    #[error(
        "Webex refuses this list: give the authorising administrator the role and the scopes that it needs, then authorise again"
    )]
    Forbidden,
    /// 423, 429, 5xx and no answer, too often in a row.
    #[error("Webex did not answer properly several times in a row; it is tried again later")]
    Unavailable,
    /// Another status.
    #[error("Webex refused the request with status {0}")]
    Refused(u16),
    /// The next page is said to be on another machine, to which no token of ours goes.
    #[error("the next page of the list is said to be somewhere else than the list; it was not asked for")]
    Elsewhere,
    /// A page that was there already, or more than [`PAGES_MAX`].
    #[error("the list of Webex has no end")]
    Endless,
}

/// The walk through one list. The address that is asked for is with the caller.
#[derive(Debug)]
pub struct Walk {
    origin: String,
    seen: std::collections::BTreeSet<u64>,
    failures: u32,
}

/// An answer, as far as a walk looks at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageAnswer<'a> {
    /// The status; none where there was no whole answer.
    pub status: Option<u16>,
    /// `Link`, all its values joined by commas.
    pub link: Option<&'a str>,
    /// `Retry-After`.
    pub retry_after: Option<&'a str>,
}

impl Walk {
    /// A walk that begins at `first`, which is what to ask for.
    pub fn new(first: &str) -> Self {
        let mut walk = Self { origin: origin(first).to_owned(), seen: Default::default(), failures: 0 };
        walk.is_new(first);
        walk
    }

    fn is_new(&mut self, url: &str) -> bool {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        url.hash(&mut hash);
        self.seen.insert(hash.finish())
    }

    /// What an answer means. Where the next is [`Step::Get`] or [`Step::Done`] its page is to be taken, otherwise not.
    pub fn answered(&mut self, answer: PageAnswer<'_>) -> Step {
        match answer.status {
            Some(200..=299) => {
                self.failures = 0;
                self.next(answer.link)
            }
            Some(401) => Step::Failed(WalkError::Unauthorised),
            Some(403) => Step::Failed(WalkError::Forbidden),
            None | Some(408 | 423 | 425 | 429 | 500..) => self.later(answer.retry_after),
            Some(status) => Step::Failed(WalkError::Refused(status)),
        }
    }

    fn later(&mut self, retry_after: Option<&str>) -> Step {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            return Step::Failed(WalkError::Unavailable);
        }
        let asked_ms = retry_after.and_then(|text| text.trim().parse::<u64>().ok()).map(|s| s.saturating_mul(1000));
        let own_ms = WAIT_MS_MIN << (self.failures - 1).min(20);
        Step::Wait(asked_ms.unwrap_or(own_ms).clamp(WAIT_MS_MIN, WAIT_MS_MAX))
    }

    fn next(&mut self, link: Option<&str>) -> Step {
        let Some(next) = link.and_then(next_of) else { return Step::Done };
        if origin(next) != self.origin || next.chars().count() > URL_CHARS_MAX {
            return Step::Failed(WalkError::Elsewhere);
        }
        if self.seen.len() >= PAGES_MAX || !self.is_new(next) {
            return Step::Failed(WalkError::Endless);
        }
        Step::Get(next.to_owned())
    }
}

/// Scheme and authority of an address.
fn origin(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let length = url[after..].find(['/', '?', '#']).unwrap_or(url.len() - after);
    &url[..after + length]
}

/// The target of the first link whose relation is `next`. Commas and semicolons may be in targets, which are in angle brackets.
fn next_of(links: &str) -> Option<&str> {
    let mut rest = links;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
        };
        if after[..end].split(';').any(is_next) {
            return Some(target);
        }
        rest = &after[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "https://webexapis.com/v1/people?max=100";

    fn check(answers: &[(Option<u16>, Option<&str>, Option<&str>)], expected: &Step) {
        let mut walk = Walk::new(FIRST);
        let mut last = Step::Done;
        for (status, link, retry_after) in answers {
            last = walk.answered(PageAnswer { status: *status, link: *link, retry_after: *retry_after });
        }
        assert_eq!(&last, expected, "{answers:?}");
    }

    #[test]
    fn what_an_answer_means() {
        let failed = |error| Step::Failed(error);
        check(&[(Some(200), None, None)], &Step::Done);
        check(&[(Some(401), None, None)], &failed(WalkError::Unauthorised));
        check(&[(Some(403), None, None)], &failed(WalkError::Forbidden));
        check(&[(Some(404), None, None)], &failed(WalkError::Refused(404)));
        check(&[(Some(302), None, None)], &failed(WalkError::Refused(302)));
        check(&[(Some(429), None, Some("7"))], &Step::Wait(7_000));
        check(&[(Some(423), None, Some("0"))], &Step::Wait(1_000));
        check(&[(Some(429), None, Some("99999999999999999999"))], &Step::Wait(1_000));
        check(&[(Some(429), None, Some("18446744073709551615"))], &Step::Wait(WAIT_MS_MAX));
        check(&[(Some(500), None, None)], &Step::Wait(1_000));
        check(&[(None, None, None), (Some(504), None, None)], &Step::Wait(2_000));
        check(&[(Some(500), None, None); FAILURES_MAX as usize - 1], &Step::Wait(64_000));
        check(&[(Some(500), None, None); FAILURES_MAX as usize], &failed(WalkError::Unavailable));
    }

    #[test]
    fn a_page_that_comes_makes_failures_forgotten() {
        let mut walk = Walk::new(FIRST);
        for page in 0..20 {
            assert_eq!(walk.answered(PageAnswer { status: Some(503), ..PageAnswer::default() }), Step::Wait(1_000));
            let link = format!("<{FIRST}&after={page}>; rel=\"next\"");
            let answer = PageAnswer { status: Some(200), link: Some(&link), retry_after: None };
            assert_eq!(walk.answered(answer), Step::Get(format!("{FIRST}&after={page}")));
        }
    }

    #[test]
    fn where_the_next_page_is() {
        let link = |link: &'static str, expected: Step| check(&[(Some(200), Some(link), None)], &expected);
        let get = |url: &str| Step::Get(url.to_owned());
        link(
            "<https://webexapis.com/v1/people?after=a,b;c>; rel=\"next\"",
            get("https://webexapis.com/v1/people?after=a,b;c"),
        );
        link(
            "<https://webexapis.com/1>; rel=prev, <https://webexapis.com/2>; title=\"x\"; rel=next",
            get("https://webexapis.com/2"),
        );
        link(
            "<https://webexapis.com/2>; rel=\"last next\", <https://webexapis.com/1>; rel=first",
            get("https://webexapis.com/2"),
        );
        link("<https://webexapis.com/1>; rel=\"prev\"", Step::Done);
        link("nonsense; rel=next", Step::Done);
        link("<https://webexapis.com/1", Step::Done);
        for elsewhere in [
            "<https://webexapis.com.example.net/v1/people>; rel=next",
            "<http://webexapis.com/v1/people>; rel=next",
            "<https://webexapis.com:444/v1/people>; rel=next",
            "<https://webexapis.com@example.net/v1/people>; rel=next",
            "<https://webexapis.com\\@example.net/>; rel=next",
            "</v1/people?after=1>; rel=next",
        ] {
            link(elsewhere, Step::Failed(WalkError::Elsewhere));
        }
        let again = Some("<https://webexapis.com/v1/people?max=100>; rel=\"next\"");
        check(&[(Some(200), again, None)], &Step::Failed(WalkError::Endless));
    }
}
