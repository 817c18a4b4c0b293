//! The ID token: a JWS (RFC 7515) with claims (RFC 7519, OpenID Connect Core section 2), and whether it is believed (section 3.1.3.7).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use crate::{Keys, OidcError};

/// Bytes of a token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Seconds by which the provider's clock may differ from ours.
pub const LEEWAY_S: i64 = 120;

/// Bytes of an e-mail (RFC 5321 section 4.5.3.1).
const EMAIL_BYTES_MAX: usize = 320;

/// What a token has to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// By whom.
    pub issuer: &'a str,
    /// For whom: our identifier.
    pub client: &'a str,
    /// In which attempt.
    pub nonce: &'a str,
    /// Seconds since 1970.
    pub now_s: i64,
    /// The claim that has the user's e-mail.
    pub claim: &'a str,
    /// Whether the e-mail counts although the provider does not say that it verified it.
    pub takes_unverified: bool,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that have to be understood, of which none is.
    crit: Option<Value>,
}

/// The token in what the provider gave for a code.
///
/// # Errors
/// [`OidcError::Answer`].
pub fn id_token_in(body: &[u8]) -> Result<String, OidcError> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| OidcError::Answer("it is no JSON"))?;
    let token =
        answer.get("id_token").and_then(Value::as_str).ok_or(OidcError::Answer("there is no ID token in it"))?;
    Ok(token.to_owned())
}

/// Whose token that is: the e-mail, in small letters.
///
/// # Errors
/// [`OidcError::UnknownKey`]: perhaps the keys have changed, and are to be fetched again. [`OidcError::Token`]: it is not believed.
pub fn verify(token: &str, keys: &Keys, expected: &Expected<'_>) -> Result<String, OidcError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(OidcError::Token("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(NO_TOKEN)?;
    let (header, payload) = signed.split_once('.').ok_or(NO_TOKEN)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| NO_TOKEN);
    let header: Header = serde_json::from_slice(&bytes(header)?).map_err(|_| NO_TOKEN)?;
    if header.crit.is_some() {
        return Err(OidcError::Token("it has extensions that are not known"));
    }
    // `none` and everything with a shared secret is not on the list.
    if !matches!(header.alg.as_str(), "RS256" | "ES256") {
        return Err(OidcError::Token("it is not signed in a way that is taken here (RS256, ES256)"));
    }
    keys.verify(header.kid.as_deref(), &header.alg, signed.as_bytes(), &bytes(signature)?)?;
    let claims: Map<String, Value> = serde_json::from_slice(&bytes(payload)?).map_err(|_| NO_TOKEN)?;
    said(&claims, expected)?;
    email(&claims, expected)
}

const NO_TOKEN: OidcError = OidcError::Token("it is no signed token");

/// Whether it was said by that provider, to us, in this attempt, just now.
fn said(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), OidcError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(OidcError::Token("another provider made it"));
    }
    let audience: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_for_us = audience.contains(&expected.client);
    let by_us =
        text("azp").map_or(audience.len() == 1 && !claims.contains_key("azp"), |party| party == expected.client);
    if !is_for_us || !by_us {
        return Err(OidcError::Token("it was made for somebody else"));
    }
    let nonce = text("nonce").unwrap_or_default();
    if nonce.is_empty() || !bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes())) {
        return Err(OidcError::Token("it was made for another attempt to sign in"));
    }
    let second = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    let (now, leeway) = (expected.now_s as f64, LEEWAY_S as f64);
    let expires = second("exp").ok_or(OidcError::Token("it does not say until when it is good"))?;
    if expires <= now - leeway {
        return Err(OidcError::Token("it has expired, or a clock is wrong"));
    }
    let begins =
        [second("iat").ok_or(OidcError::Token("it does not say when it was made"))?, second("nbf").unwrap_or(0.0)];
    if begins.into_iter().any(|begin| begin > now + leeway) {
        return Err(OidcError::Token("it is good only later, or a clock is wrong"));
    }
    Ok(())
}

fn email(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<String, OidcError> {
    let email = claims.get(expected.claim).and_then(Value::as_str).unwrap_or_default().trim();
    let is_one = email.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty());
    if !is_one || email.len() > EMAIL_BYTES_MAX || email.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(OidcError::Token("there is no e-mail in it; is oidc.claim right, and oidc.scope?"));
    }
    let is_verified = match claims.get("email_verified") {
        Some(Value::Bool(is_so)) => *is_so,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    // What is said to be not verified is never taken; what nothing is said of, where the operator says so.
    let is_denied = claims.get("email_verified").is_some() && !is_verified;
    if is_denied || !is_verified && !expected.takes_unverified {
        return Err(OidcError::Token("the provider does not say that it verified the e-mail"));
    }
    Ok(email.to_lowercase())
}
