//! A provider's keys (RFC 7517, 7518): those with which tokens are signed, and nothing else.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::OidcError;

/// Keys of a provider that are looked at.
pub const KEYS_MAX: usize = 64;

/// Keys.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug, Clone)]
enum Public {
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point, not compressed.
    P256(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set of keys. What is not for signing, or of a kind that is not taken, is passed over.
    ///
    /// # Errors
    /// [`OidcError::Keys`]: it is none, or has none to be used.
    pub fn parse(body: &[u8]) -> Result<Self, OidcError> {
        let set: Set = serde_json::from_slice(body).map_err(|_| OidcError::Keys("it is no set of keys"))?;
        let jwks = set.keys.into_iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Key> = jwks.filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(OidcError::Keys("there is none that tokens may be signed with (RS256, ES256)"));
        }
        Ok(Self(keys))
    }

    /// Whether `signature` is one of `signed` by the key with that id, and the key one for that algorithm. Without an id there has to be
    /// exactly one such key.
    pub(crate) fn verify(
        &self,
        id: Option<&str>,
        algorithm: &str,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), OidcError> {
        let mut found = self.0.iter().filter(|key| key.is_for(algorithm) && (id.is_none() || key.id.as_deref() == id));
        let key = found.next().ok_or(OidcError::UnknownKey)?;
        if found.next().is_some() {
            return Err(OidcError::Token("it does not say which key it is signed with"));
        }
        let done = match &key.public {
            Public::Rsa(n, e) => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature),
            Public::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature),
        };
        done.map_err(|_| OidcError::Token("its signature is wrong"))
    }
}

impl Key {
    fn of(jwk: Jwk) -> Option<Self> {
        let is = |given: &Option<String>, wanted: &str| given.as_deref().is_none_or(|given| given == wanted);
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| !bytes.is_empty());
        if !is(&jwk.used_for, "sig") {
            return None;
        }
        let public = match jwk.kty.as_str() {
            "RSA" if is(&jwk.alg, "RS256") => Public::Rsa(bytes(jwk.n)?, bytes(jwk.e)?),
            "EC" if jwk.crv.as_deref() == Some("P-256") && is(&jwk.alg, "ES256") => {
                let (x, y) = (bytes(jwk.x)?, bytes(jwk.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                Public::P256([vec![4], x, y].concat())
            }
            _ => return None,
        };
        Some(Self { id: jwk.kid, public })
    }

    /// A key is for one algorithm: what else the token says of it counts for nothing.
    fn is_for(&self, algorithm: &str) -> bool {
        matches!((&self.public, algorithm), (Public::Rsa(..), "RS256") | (Public::P256(_), "ES256"))
    }
}
