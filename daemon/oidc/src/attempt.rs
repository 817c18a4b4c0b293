//! One attempt to sign in: what is sent along, and what has to come back.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Provider;

/// How long somebody may take at the provider: to find a password, and a telephone for the second factor.
pub const ATTEMPT_SECONDS_MAX: u64 = 600;

/// Characters of 32 bytes in base64url.
const PART_CHARS: usize = 43;

/// Who we are to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The identifier that the provider gave us.
    pub id: String,
    /// Where the provider sends people back to, as it is registered there.
    pub redirect: String,
    /// What is asked for, with spaces between; `openid` has to be in it.
    pub scope: String,
}

/// An attempt. `Debug` shows nothing.
#[derive(Clone)]
pub struct Attempt {
    state: String,
    nonce: String,
    verifier: String,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempt")
    }
}

impl Attempt {
    /// A new one, of randomness that nobody can guess.
    pub fn new(random: &[u8; 96]) -> Self {
        let text = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&random[range]);
        Self { state: text(0..32), nonce: text(32..64), verifier: text(64..96) }
    }

    /// As the browser keeps it, in a cookie that no script reads and that goes to nobody else.
    pub fn to_text(&self) -> String {
        format!("{}.{}.{}", self.state, self.nonce, self.verifier)
    }

    /// Reads what [`Attempt::to_text`] wrote; none where it is something else.
    pub fn of_text(text: &str) -> Option<Self> {
        let is_part = |part: &&str| {
            part.len() == PART_CHARS && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let parts: Vec<&str> = text.split('.').filter(is_part).collect();
        let [state, nonce, verifier] = parts.try_into().ok()?;
        let attempt = Self { state: state.into(), nonce: nonce.into(), verifier: verifier.into() };
        (attempt.to_text() == text).then_some(attempt)
    }

    /// What ties the way back to this attempt and, in a cookie, to the browser that began it.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// What has to be in the token.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What proves to the provider that who has the code is who asked for it (RFC 7636).
    pub fn verifier(&self) -> &str {
        &self.verifier
    }

    /// Whether that is the state of this attempt; takes as long wherever it differs.
    pub fn is_state(&self, text: &str) -> bool {
        self.state.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// Where the browser is sent.
    pub fn authorization_url(&self, provider: &Provider, client: &Client) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()));
        let fields = [
            ("response_type", "code"),
            ("client_id", &client.id),
            ("redirect_uri", &client.redirect),
            ("scope", &client.scope),
            ("state", &self.state),
            ("nonce", &self.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let begin = if provider.authorization_endpoint.contains('?') { '&' } else { '?' };
        let query: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("{}{begin}{}", provider.authorization_endpoint, query.join("&"))
    }
}

/// The fields of the form that a code is exchanged with (RFC 6749 section 4.1.3, RFC 7636 section 4.5). The secret goes with it in the form
/// (`client_secret_post`); a client without one is public, and PKCE is all that there is.
pub fn token_form<'a>(
    code: &'a str,
    verifier: &'a str,
    client: &'a Client,
    secret: Option<&'a str>,
) -> Vec<(&'static str, &'a str)> {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", client.redirect.as_str()),
        ("client_id", client.id.as_str()),
        ("code_verifier", verifier),
    ];
    fields.extend(secret.map(|secret| ("client_secret", secret)));
    fields
}

/// Percent-encoded: all but what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
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
    use super::*;

    #[test]
    fn the_browser_is_sent_with_everything_and_without_the_verifier() {
        let attempt = Attempt::new(&std::array::from_fn(|n| u8::try_from(n).unwrap()));
        let client =
            Client { id: "a b".into(), redirect: "https://x/sign-in/back".into(), scope: "openid email".into() };
        let provider = Provider {
            issuer: "https://idp".into(),
            authorization_endpoint: "https://idp/authorize?tenant=1".into(),
            token_endpoint: String::new(),
            jwks_uri: String::new(),
        };
        let url = attempt.authorization_url(&provider, &client);
        let begin = "https://idp/authorize?tenant=1&response_type=code&client_id=a%20b&redirect_uri=https%3A%2F%2Fx%2Fsign-in%2Fback&scope=openid%20email&state=";
        assert!(url.starts_with(begin), "{url}");
        assert!(url.ends_with("&code_challenge_method=S256") && !url.contains(attempt.verifier()));
        assert!(url.contains(&format!("state={}&nonce={}", attempt.state(), attempt.nonce())));
        let all = [attempt.state(), attempt.nonce(), attempt.verifier()];
        assert!(all.iter().all(|text| text.len() == 43) && all[0] != all[1] && all[1] != all[2]);
        assert!(attempt.is_state(attempt.state()) && !attempt.is_state("") && !attempt.is_state(attempt.nonce()));
    }

    #[test]
    fn an_attempt_comes_back_as_it_went() {
        let attempt = Attempt::new(&[7; 96]);
        let check = |text: &str, is_one: bool| {
            let found = Attempt::of_text(text);
            assert_eq!(found.map(|found| found.to_text() == text), is_one.then_some(true), "{text}");
        };
        let text = attempt.to_text();
        check(&text, true);
        check("", false);
        check("..", false);
        check(&text[1..], false);
        check(&format!("{text}.x"), false);
        check(&format!(".{text}"), false);
        check(&text.replace('B', "&"), false);
    }

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let attempt = Attempt {
            state: String::new(),
            nonce: String::new(),
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
        };
        let provider = Provider {
            issuer: String::new(),
            authorization_endpoint: "https://idp/a".into(),
            token_endpoint: String::new(),
            jwks_uri: String::new(),
        };
        let client = Client { id: String::new(), redirect: String::new(), scope: String::new() };
        let url = attempt.authorization_url(&provider, &client);
        assert!(url.contains("code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&"), "{url}");
    }
}
