//! Passwords: how they are kept, what one must be, and how attempts are slowed down. Randomness and time come in as arguments.

use std::{collections::HashMap, fmt};

use argon2::{
    Argon2, PasswordHasher as _, PasswordVerifier as _,
    password_hash::{PasswordHash, SaltString},
};

/// Characters of a password at least (NIST SP 800-63B asks for eight; what is behind this one are other people's calls).
pub const CHARS_MIN: usize = 12;

/// Bytes at most: what is longer only costs time to be hashed.
pub const BYTES_MAX: usize = 256;

/// Attempts that fail before there is a pause after each.
const FREE_FAILURES: u32 = 3;

/// The first pause; each is twice the one before.
const PAUSE_MS: i64 = 2_000;

/// The longest pause. Attempts are never refused for good: whoever knows an address could lock its user out.
const PAUSE_MS_MAX: i64 = 15 * 60_000;

/// Names that are remembered; beyond it those that may try again are forgotten, and if there is none, all.
const NAMES_MAX: usize = 10_000;

/// Of nothing that anybody knows: verified where there is no password, so that it takes as long.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Y2FsbHZhdWx0IG5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a password is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weak {
    /// Fewer than [`CHARS_MIN`] characters.
    Short,
    /// More than [`BYTES_MAX`] bytes.
    Long,
    /// Of one or two different characters, or with the user's name in it.
    Guessable,
    /// As the one before.
    Same,
}

impl fmt::Display for Weak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "a password has at least 12 characters; several words are easy to remember",
            Self::Long => "a password has at most 256 bytes",
            Self::Guessable => {
                "this password is too easy to guess: it must not hold your name, nor one character again and again"
            }
            Self::Same => "the new password must be another one",
        })
    }
}

/// Whether `password` may be the new one of the user with that e-mail, who had `old`.
///
/// # Errors
/// [`Weak`], for the user to read.
pub fn check(password: &str, email: &str, old: &str) -> Result<(), Weak> {
    let name = email.split('@').next().unwrap_or_default().to_lowercase();
    let mut different: Vec<char> = password.chars().collect();
    let count = different.len();
    different.sort_unstable();
    different.dedup();
    if count < CHARS_MIN {
        return Err(Weak::Short);
    }
    if password.len() > BYTES_MAX {
        return Err(Weak::Long);
    }
    if different.len() < 3 || name.chars().count() >= 4 && password.to_lowercase().contains(&name) {
        return Err(Weak::Guessable);
    }
    if password == old { Err(Weak::Same) } else { Ok(()) }
}

/// What is kept of a password: Argon2id with the parameters of its authors' library (19 MiB, two passes), which are those that OWASP
/// names, as a PHC string.
///
/// # Errors
/// It could not be hashed, for want of memory.
pub fn hash(password: &str, salt: &[u8; 16]) -> Result<String, Unhashed> {
    let salt = SaltString::encode_b64(salt).map_err(|_| Unhashed)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|_| Unhashed)?;
    Ok(hash.to_string())
}

/// A password that could not be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unhashed;

impl fmt::Display for Unhashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hash a password")
    }
}

impl std::error::Error for Unhashed {}

/// Whether `password` is the one of which `kept` was kept. Without one it takes as long, and is false: the time tells nobody which users
/// there are.
pub fn verify(password: &str, kept: Option<&str>) -> bool {
    let text = if password.len() > BYTES_MAX { "" } else { password };
    let Ok(hash) = PasswordHash::new(kept.unwrap_or(NOBODYS)) else { return false };
    let is_right = Argon2::default().verify_password(text.as_bytes(), &hash).is_ok();
    is_right && kept.is_some() && password.len() <= BYTES_MAX
}

/// Attempts to sign in that failed, by name, whether or not there is such a user. `Debug` shows no names.
#[derive(Default)]
pub struct Attempts(HashMap<String, (u32, i64)>);

impl Attempts {
    /// How long, in milliseconds from `now_ms` (of any clock), that name has to wait before it may try; none: it may now.
    pub fn wait_ms(&self, name: &str, now_ms: i64) -> Option<i64> {
        let (_, until_ms) = self.0.get(name)?;
        let left = until_ms.saturating_sub(now_ms);
        (left > 0).then_some(left)
    }

    /// An attempt begins. It counts as failed until [`Attempts::succeeded`], so that several at once gain nothing.
    pub fn begun(&mut self, name: &str, now_ms: i64) {
        if self.0.len() >= NAMES_MAX && !self.0.contains_key(name) {
            self.0.retain(|_, (_, until_ms)| *until_ms > now_ms);
            if self.0.len() >= NAMES_MAX {
                self.0.clear();
            }
        }
        let (failures, until_ms) = self.0.entry(name.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        let doublings = failures.saturating_sub(FREE_FAILURES);
        if doublings > 0 {
            let pause =
                PAUSE_MS.checked_shl(doublings - 1).filter(|ms| (0..PAUSE_MS_MAX).contains(ms) && doublings < 32);
            *until_ms = now_ms.saturating_add(pause.unwrap_or(PAUSE_MS_MAX));
        }
    }

    /// It was the right one.
    pub fn succeeded(&mut self, name: &str) {
        self.0.remove(name);
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts").field("names", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hashed_is_known_again_and_nothing_else_is() {
        let kept = hash("correct horse battery", &[7; 16]).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        let check = |password: &str, kept: Option<&str>, expected: bool| {
            assert_eq!(verify(password, kept), expected, "{password:?}");
        };
        check("correct horse battery", Some(&kept), true);
        check("correct horse batterY", Some(&kept), false);
        check("", Some(&kept), false);
        check("correct horse battery", None, false);
        check("correct horse battery", Some("correct horse battery"), false);
        check("correct horse battery", Some(""), false);
        check(&"a".repeat(BYTES_MAX + 1), Some(&hash("", &[1; 16]).unwrap()), false);
        assert_ne!(kept, hash("correct horse battery", &[8; 16]).unwrap());
    }

    #[test]
    fn what_nobody_knows_is_hashed_with_the_same_work() {
        let (nobodys, real) = (PasswordHash::new(NOBODYS).unwrap(), hash("correct horse battery", &[7; 16]).unwrap());
        let real = PasswordHash::new(&real).unwrap();
        assert_eq!((nobodys.algorithm, nobodys.version, &nobodys.params), (real.algorithm, real.version, &real.params));
        assert_eq!(nobodys.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[test]
    fn a_new_password_is_long_and_not_easily_guessed() {
        let refused = |password: &str| check(password, "ann.bell@example.com", "the old one 123").err();
        assert_eq!(refused("correct horse"), None);
        assert_eq!(refused("dodici àèìòù"), None);
        assert_eq!(refused("elevenchars"), Some(Weak::Short));
        assert_eq!(refused(&"ab c".repeat(65)), Some(Weak::Long));
        assert_eq!(refused("ababababababab"), Some(Weak::Guessable));
        assert_eq!(refused("I am Ann.Bell, hello"), Some(Weak::Guessable));
        assert_eq!(refused("the old one 123"), Some(Weak::Same));
    }

    #[test]
    fn pauses_grow_end_and_are_forgotten_after_the_right_password() {
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            attempts.begun("ann", 1_000);
            pauses.push(attempts.wait_ms("ann", 1_000).unwrap_or(0));
        }
        assert_eq!(&pauses[..7], [0, 0, 0, 2_000, 4_000, 8_000, 16_000]);
        assert!(pauses.windows(2).all(|two| two[0] <= two[1]) && pauses[39] == PAUSE_MS_MAX, "{pauses:?}");
        assert_eq!(attempts.wait_ms("bob", 1_000), None);
        assert_eq!(attempts.wait_ms("ann", 1_000 + PAUSE_MS_MAX), None);
        attempts.succeeded("ann");
        assert_eq!(attempts.wait_ms("ann", 1_000), None);
    }

    #[test]
    fn names_do_not_fill_the_memory() {
        let mut attempts = Attempts::default();
        for n in 0..NAMES_MAX + 10 {
            attempts.begun(&n.to_string(), 0);
        }
        assert!(attempts.0.len() <= NAMES_MAX);
    }
}
