//! Tokens as a provider makes them, and as somebody makes them who would like to be somebody else.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use callvault_oidc::{Expected, Keys, OidcError, id_token_in, verify};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;

const EXPECTED: Expected<'static> = Expected {
    issuer: "https://idp.example",
    client: "callvault",
    nonce: "n-1",
    now_s: NOW,
    claim: "email",
    takes_unverified: false,
};

/// A provider's keys.
struct Signer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    fn rsa_jwk(&self, id: &str) -> Value {
        // RFC 8017 appendix A.1.1, with the lengths that 2,048 bits and the usual exponent give
        let der = self.rsa.public_key().as_ref();
        let (n, e) = (&der[9..265], &der[267..270]);
        json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": coded(n), "e": coded(e)})
    }

    fn ec_jwk(&self, id: &str) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"kty": "EC", "kid": id, "crv": "P-256", "x": coded(&point[1..33]), "y": coded(&point[33..])})
    }

    fn keys(&self) -> Keys {
        keys(&[self.rsa_jwk("r"), self.ec_jwk("e")])
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
        let random = SystemRandom::new();
        let signature = if header["alg"] == "ES256" {
            self.ec.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
        } else {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
            signature
        };
        format!("{signed}.{}", coded(signature))
    }
}

fn keys(jwks: &[Value]) -> Keys {
    Keys::parse(json!({"keys": jwks}).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.example", "aud": "callvault", "sub": "7", "nonce": "n-1", "exp": NOW + 300, "iat": NOW,
        "email": "Ann@Example.com", "email_verified": true,
    })
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "r", "typ": "JWT"})
}

#[test]
fn a_good_token_says_who_it_is() {
    let signer = Signer::new();
    let check = |header: Value, claims: Value| {
        let found = verify(&signer.token(&header, &claims), &signer.keys(), &EXPECTED);
        assert_eq!(found.as_deref(), Ok("ann@example.com"), "{header} {claims}");
    };
    check(header(), claims());
    check(json!({"alg": "ES256", "kid": "e"}), claims());
    // one key of that kind is the one that is meant
    check(json!({"alg": "RS256"}), claims());
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    check(header(), with("aud", json!(["callvault"])));
    check(header(), with("azp", json!("callvault")));
    check(header(), with("exp", json!(NOW - 119)));
    check(header(), with("iat", json!(NOW + 119)));
    check(header(), with("email_verified", json!("true")));
}

#[test]
fn a_token_that_says_something_else_is_not_believed() {
    let signer = Signer::new();
    let check = |name: &str, value: Value, because: &str| {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        let found = verify(&signer.token(&header(), &claims), &signer.keys(), &EXPECTED);
        assert!(matches!(found, Err(OidcError::Token(text)) if text.contains(because)), "{name}: {found:?}");
    };
    check("iss", json!("https://idp.example/"), "another provider");
    check("iss", Value::Null, "another provider");
    check("aud", json!("another"), "somebody else");
    check("aud", json!(["callvault", "another"]), "somebody else");
    check("aud", Value::Null, "somebody else");
    check("azp", json!("another"), "somebody else");
    check("azp", json!(["callvault"]), "somebody else");
    check("nonce", json!("n-2"), "another attempt");
    check("nonce", json!(""), "another attempt");
    check("nonce", Value::Null, "another attempt");
    check("exp", json!(NOW - 121), "expired");
    check("exp", json!("tomorrow"), "until when");
    check("exp", Value::Null, "until when");
    check("iat", json!(NOW + 121), "only later");
    check("iat", Value::Null, "when it was made");
    check("nbf", json!(NOW + 121), "only later");
    check("email", Value::Null, "no e-mail");
    check("email", json!("ann"), "no e-mail");
    check("email", json!("ann@example.com\nx"), "no e-mail");
    check("email_verified", json!(false), "verified");
    check("email_verified", json!("false"), "verified");
    check("email_verified", Value::Null, "verified");
}

#[test]
fn an_e_mail_that_nothing_is_said_of_is_taken_where_the_operator_says_so() {
    let signer = Signer::new();
    let expected = Expected { takes_unverified: true, ..EXPECTED };
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("email_verified");
    let check = |claims: &Value| verify(&signer.token(&header(), claims), &signer.keys(), &expected);
    assert!(check(&claims).is_ok());
    claims["email_verified"] = json!(false);
    assert!(check(&claims).is_err(), "what is said to be not verified was taken");
}

#[test]
fn a_token_of_others_is_not_believed() {
    let (signer, other) = (Signer::new(), Signer::new());
    let known = signer.keys();
    let check = |token: &str, keys: &Keys, because: &str| {
        let found = verify(token, keys, &EXPECTED).unwrap_err();
        assert!(found.to_string().contains(because), "{found}");
    };
    let good = signer.token(&header(), &claims());
    check(&other.token(&header(), &claims()), &known, "signature is wrong");
    check(&other.token(&json!({"alg": "ES256", "kid": "e"}), &claims()), &known, "signature is wrong");
    // keys that rotated
    let unknown = signer.token(&json!({"alg": "RS256", "kid": "new"}), &claims());
    assert_eq!(verify(&unknown, &known, &EXPECTED), Err(OidcError::UnknownKey));
    // no signature, or one by a secret that everybody knows: the public key
    let none =
        |alg: &str| format!("{}.{}.", coded(json!({"alg": alg, "kid": "r"}).to_string()), coded(claims().to_string()));
    for alg in ["none", "None", "HS256", "RS512", "PS256", "rs256", ""] {
        check(&none(alg), &known, "not signed in a way");
    }
    check(&none("RS256"), &known, "signature is wrong");
    // a key for the one algorithm is none for the other
    let crossed = signer.token(&json!({"alg": "ES256", "kid": "r"}), &claims());
    assert_eq!(verify(&crossed, &known, &EXPECTED), Err(OidcError::UnknownKey));
    check(&signer.token(&json!({"alg": "RS256", "kid": "r", "crit": ["b64"]}), &claims()), &known, "extensions");
    let two = keys(&[signer.rsa_jwk("a"), other.rsa_jwk("b")]);
    check(&signer.token(&json!({"alg": "RS256"}), &claims()), &two, "which key");
    // changed on the way
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let forged = claims().to_string().replace("Ann@", "Eve@");
    check(&format!("{head}.{}.{signature}", coded(forged)), &known, "signature is wrong");
    check(&format!("{good}="), &known, "no signed token");
    check("", &known, "no signed token");
    check("a.b", &known, "no signed token");
    check(&"a".repeat(20_000), &known, "too long");
}

#[test]
fn keys_for_something_else_are_none() {
    let signer = Signer::new();
    let with = |name: &str, value: Value| {
        let mut key = signer.rsa_jwk("r");
        key[name] = value;
        key
    };
    let check = |key: Value, is_one: bool| {
        let found = Keys::parse(json!({"keys": [key]}).to_string().as_bytes());
        assert_eq!(found.is_ok(), is_one, "{key}");
    };
    check(with("kid", Value::Null), true);
    check(with("use", json!("enc")), false);
    check(with("alg", json!("RS512")), false);
    check(with("kty", json!("oct")), false);
    check(with("n", json!("")), false);
    check(with("n", json!("%")), false);
    check(json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}), false);
    check(json!(7), false);
    assert!(Keys::parse(b"[]").is_err());
    // a key that is too short is there, and nothing is good that is signed with it
    let short = keys(&[with("n", json!(coded([0xc1; 128])))]);
    assert!(verify(&signer.token(&header(), &claims()), &short, &EXPECTED).is_err());
}

#[test]
fn the_answer_has_a_token() {
    assert_eq!(id_token_in(br#"{"access_token": "x", "id_token": "a.b.c"}"#).as_deref(), Ok("a.b.c"));
    assert!(id_token_in(b"{}").is_err() && id_token_in(b"<html>").is_err());
}

proptest! {
    #[test]
    fn nothing_that_comes_panics(token in "[a-zA-Z0-9_.-]{0,200}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        let known = Keys::default();
        let _ = verify(&token, &known, &EXPECTED);
        let _ = Keys::parse(&body);
        let _ = id_token_in(&body);
    }
}
