//! What a provider says of itself (OpenID Connect Discovery 1.0).

use serde::Deserialize;

use crate::OidcError;

/// Bytes of any answer of a provider that are read.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Provider {
    /// Its name, which is in its tokens.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    /// Where a code becomes a token.
    pub token_endpoint: String,
    /// Where its keys are.
    pub jwks_uri: String,
}

/// Where the description of the provider with that name is (section 4).
pub fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

impl Provider {
    /// Reads the description of the provider `issuer`. `may_ask` says whether something may be asked at an address, and a secret sent there.
    ///
    /// # Errors
    /// [`OidcError::Provider`]: it is somebody else's, or leaves something out.
    pub fn parse(issuer: &str, body: &[u8], may_ask: impl Fn(&str) -> bool) -> Result<Self, OidcError> {
        let provider: Self =
            serde_json::from_slice(body).map_err(|_| OidcError::Provider("it is not the JSON that discovery gives"))?;
        // Section 4.3: exactly what was asked for, or another's tokens would be taken for this one's.
        if provider.issuer != issuer {
            return Err(OidcError::Provider(
                "it is that of another issuer; write the issuer as the provider writes it",
            ));
        }
        let endpoints = [&provider.authorization_endpoint, &provider.token_endpoint, &provider.jwks_uri];
        if !endpoints.into_iter().all(|endpoint| may_ask(endpoint)) {
            return Err(OidcError::Provider("one of its addresses is not https"));
        }
        if provider.authorization_endpoint.contains(|c: char| c.is_control() || c == ' ' || c == '#' || !c.is_ascii()) {
            return Err(OidcError::Provider("one of its addresses is none"));
        }
        Ok(provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_its_own_and_whole() {
        let check = |issuer: &str, body: &str, is_good: bool| {
            let found = Provider::parse(issuer, body.as_bytes(), |url| url.starts_with("https://"));
            assert_eq!(found.is_ok(), is_good, "{issuer} {body}: {found:?}");
        };
        let whole = r#"{"issuer": "https://idp/x", "authorization_endpoint": "https://idp/a", "token_endpoint": "https://idp/t", "jwks_uri": "https://idp/k", "more": 1}"#;
        check("https://idp/x", whole, true);
        check("https://idp/x/", whole, false);
        check("https://evil", whole, false);
        check("https://idp/x", &whole.replace("https://idp/t", "http://idp/t"), false);
        check("https://idp/x", &whole.replace("https://idp/a", "https://idp/a\\r\\nx: y"), false);
        check("https://idp/x", &whole.replace("jwks_uri", "jwks"), false);
        check("https://idp/x", "", false);
        assert_eq!(discovery_url("https://idp/x/"), "https://idp/x/.well-known/openid-configuration");
    }
}
