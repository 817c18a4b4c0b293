//! Access tokens by client credentials (RFC 6749 section 4.4): kept until shortly before they expire, got by one thread at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_seal::Secret;

use crate::analytics::AnalyticsSettings;
use crate::answer::said;
use crate::{Meaning, SecretText, Token, Trouble, Web, meaning};

/// A token is not used in the last minute of its life, or the last tenth where that is less: a request takes time, and clocks differ.
const MARGIN_S: u64 = 60;

struct Held {
    text: Arc<SecretText>,
    until: Instant,
}

/// The token in use. Shared by all threads that deliver to the same service; whoever needs a new one gets it while the others wait.
#[derive(Default)]
pub struct Tokens(Mutex<Option<Held>>);

impl Tokens {
    /// A token that is good, from memory or from the service. `refused` is one that was refused, and is not to be used any more.
    pub(crate) fn get(
        &self,
        web: &Web,
        settings: &AnalyticsSettings,
        refused: Option<&Arc<SecretText>>,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Arc<SecretText>, Trouble> {
        // Held while it is asked for: the others would only ask for the same.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have got a new one since ours was refused.
        let is_good = |one: &Held| one.until > Instant::now() && refused.is_none_or(|it| !Arc::ptr_eq(it, &one.text));
        if let Some(good) = held.as_ref().filter(|one| is_good(one)) {
            return Ok(Arc::clone(&good.text));
        }
        *held = None;
        let asked = Instant::now();
        let token = ask(web, settings, stopping)?;
        let margin_s = MARGIN_S.min(token.lifetime_s / 10);
        let text = Arc::new(token.text);
        let until = asked + Duration::from_secs(token.lifetime_s.saturating_sub(margin_s));
        *held = Some(Held { text: Arc::clone(&text), until });
        Ok(text)
    }
}

fn ask(web: &Web, settings: &AnalyticsSettings, stopping: &dyn Fn() -> bool) -> Result<Token, Trouble> {
    const WHAT: &str = "get an access token";
    let secret = settings.client_secret.read()?;
    // Section 2.3.1: user and password of Basic are form-encoded first.
    let (user, password) = (encoded(&settings.client_id), Secret::new(encoded(secret.expose())));
    let form = format!("grant_type=client_credentials&scope={}", encoded(&settings.scope));
    let request = web
        .client
        .post(&settings.token_url)
        .basic_auth(user, Some(password.expose()))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form);
    let answer = web.ask(request, stopping).map_err(|error| error.about_sink(WHAT))?;
    let said = said(&answer);
    match meaning(&answer, (settings.now)()) {
        Meaning::Good => Token::parse(&answer.body).map_err(|wrong| {
            Trouble::sink(format!("{WHAT}: the service answered, but {wrong}; is analytics.token_url right?"))
        }),
        Meaning::Busy { wait_ms } => {
            Err(Trouble::Sink { wait_ms, text: format!("{WHAT}: the service {said}; it is tried again by itself") })
        }
        Meaning::Failed => Err(Trouble::sink(format!("{WHAT}: the service {said}; it is tried again by itself"))),
        Meaning::Unauthorised | Meaning::Refused | Meaning::Elsewhere => Err(Trouble::sink(format!(
            "{WHAT}: the service {said}; see analytics.token_url, analytics.client_id, analytics.scope and the file of analytics.client_secret"
        ))),
    }
}

/// As in forms and queries: everything but letters, digits and `*-._` as percent signs (a space may be one too).
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            super::encoded("voice-analytics/recordings.write a&b=ü"),
            "voice-analytics%2Frecordings.write%20a%26b%3D%C3%BC"
        );
    }
}
