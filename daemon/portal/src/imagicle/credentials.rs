//! HTTP Basic (RFC 7617): who asks, and the session that stands for it, so that not each call costs a password's hash and a session.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cookie;

/// Sessions that are remembered; beyond it the one that ends first is forgotten.
pub const SESSIONS_MAX: usize = 200;

/// How long one is used: whoever has another password or level meanwhile does not wait long for it to count.
pub const USED_MAX: Duration = Duration::from_secs(600);

/// What an API token begins with.
const TOKEN: &str = "cvt-";

/// A name and a password. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    name: String,
    password: String,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Basic")
    }
}

impl Basic {
    /// What an `Authorization` field says; none where it says nothing of that kind.
    pub fn of(field: &str) -> Option<Self> {
        let (scheme, coded) = field.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(coded.trim()).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }

    /// The API token, where the password is one.
    pub fn token(&self) -> Option<&str> {
        Some(self.password.as_str()).filter(|text| text.starts_with(TOKEN) && cookie::is_session(text))
    }

    /// The body of a sign-in.
    pub fn sign_in(&self) -> String {
        json!({"user": self.name, "password": self.password}).to_string()
    }

    fn key(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.name.len().to_be_bytes())
            .chain_update(&self.name)
            .chain_update(&self.password)
            .finalize()
            .into()
    }
}

/// The sessions in use. The passwords themselves are not kept.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<[u8; 32], (String, Instant)>);

impl Sessions {
    /// The one of these credentials.
    pub fn of(&self, basic: &Basic, now: Instant) -> Option<String> {
        let (session, until) = self.0.get(&basic.key())?;
        (now < *until).then(|| session.clone())
    }

    /// Remembers one that is good for so long.
    pub fn keep(&mut self, basic: &Basic, session: String, good: Duration, now: Instant) {
        self.0.retain(|_, (_, until)| now < *until);
        if self.0.len() >= SESSIONS_MAX
            && let Some(first) = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key)
        {
            self.0.remove(&first);
        }
        self.0.insert(basic.key(), (session, now + good.min(USED_MAX)));
    }

    /// Forgets one that is not good any more.
    pub fn forget(&mut self, basic: &Basic) {
        self.0.remove(&basic.key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_strictly() {
        let check = |field: &str, expected: Option<(&str, &str)>| {
            let found = Basic::of(field).map(|basic| (basic.name, basic.password));
            assert_eq!(found, expected.map(|(name, password)| (name.into(), password.into())), "{field}");
        };
        check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame")));
        check("basic YTpiOmM=", Some(("a", "b:c")));
        check("Basic YQ==", None);
        check("Basic !", None);
        check("Basic", None);
        check("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None);
    }

    #[test]
    fn a_session_is_used_for_a_while_by_who_began_it() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let of = |name: &str, password: &str| Basic { name: name.into(), password: password.into() };
        let mut sessions = Sessions::default();
        sessions.keep(&of("ann", "x"), "cvt-1".into(), s(3_600), start);
        let check = |sessions: &Sessions, basic: &Basic, at_s: u64, expected: Option<&str>| {
            assert_eq!(sessions.of(basic, start + s(at_s)).as_deref(), expected);
        };
        check(&sessions, &of("ann", "x"), 599, Some("cvt-1"));
        check(&sessions, &of("ann", "x"), 600, None);
        check(&sessions, &of("ann", "y"), 0, None);
        check(&sessions, &of("an", "nx"), 0, None);
        sessions.forget(&of("ann", "x"));
        check(&sessions, &of("ann", "x"), 0, None);
        for n in 0..SESSIONS_MAX + 5 {
            sessions.keep(&of(&n.to_string(), "x"), "cvt-2".into(), s(60), start);
        }
        assert!(sessions.0.len() <= SESSIONS_MAX);
        assert_eq!(of("ann", "cvt-12").token(), Some("cvt-12"));
        assert_eq!(of("ann", "cvt-1 2").token(), None);
        assert_eq!(of("ann", "secret").token(), None);
    }
}
