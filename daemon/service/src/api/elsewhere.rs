//! Signing in at the organisation's provider (OpenID Connect). The portal sends the browser there and hands on what it comes back with;
//! everything else is done here, so that neither the client's secret nor a provider's word passes through the process that meets strangers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_access::{Caller, Through};
use callvault_config::Oidc;
use callvault_http::{Answer, ApiError, CameBack, Elsewhere, ErrorKind};
use callvault_oidc::{
    ANSWER_BYTES_MAX, ATTEMPT_SECONDS_MAX, Attempt, Client, Expected, Keys, OidcError, discovery_url, id_token_in,
    token_form, verify,
};
use callvault_upload::{Fetched, SecretFile, Web, WebSettings, check_url};
use jiff::Timestamp;
use rand::Rng;
use serde_json::json;

use super::sign_in::{begin_session, refuse};
use crate::appliance::Appliance;

/// For how long what the provider says of itself is used before it is asked again.
const USED_MAX: Duration = Duration::from_secs(3_600);

/// Browsers for which the provider is being asked at once: each has one of the portal's requests meanwhile, and the others need theirs.
const ASKING_MAX: usize = 8;

/// What is known of the provider.
#[derive(Debug, Default)]
pub(super) struct Provider {
    known: Mutex<Option<(callvault_oidc::Provider, Keys, Instant)>>,
    asking: AtomicUsize,
}

/// A turn to ask the provider.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(asking: &'a AtomicUsize) -> Result<Self, ApiError> {
        let turn = Self(asking);
        if asking.fetch_add(1, Ordering::Relaxed) >= ASKING_MAX {
            return Err(ApiError::new(ErrorKind::Unavailable, "many people sign in just now; try again"));
        }
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`callvault_http::Api::sign_in_elsewhere`].
pub(super) fn sign_in(appliance: &Appliance, caller: &Caller, step: &Elsewhere) -> Answer {
    let oidc = &appliance.config.oidc;
    if *step == Elsewhere::Offered {
        return Ok(json!({"provider": (!oidc.issuer.is_empty()).then_some(&oidc.name)}));
    }
    if caller.through != Through::Portal || caller.token.is_some() {
        return Err(ApiError::new(ErrorKind::Forbidden, "people sign in at the portal; programs use a token"));
    }
    if oidc.issuer.is_empty() {
        let text = "there is no other way to sign in than with a password; an administrator sets oidc.issuer";
        return Err(ApiError::new(ErrorKind::NotFound, text));
    }
    let provider = &appliance.access.door.elsewhere;
    let _turn = Turn::take(&provider.asking)?;
    let client = Client { id: oidc.client_id.clone(), redirect: oidc.redirect.clone(), scope: oidc.scope.clone() };
    match step {
        Elsewhere::Finish(back) => finish(appliance, caller, &client, back),
        _ => {
            let (about, _) = provider.of(oidc, false)?;
            let mut random = [0; 96];
            rand::rng().fill_bytes(&mut random);
            let attempt = Attempt::new(&random);
            let url = attempt.authorization_url(&about, &client);
            Ok(json!({"url": url, "attempt": attempt.to_text(), "seconds": ATTEMPT_SECONDS_MAX}))
        }
    }
}

/// The browser is back: whose it is, by the provider's word, and a session if that is somebody here.
fn finish(appliance: &Appliance, caller: &Caller, client: &Client, back: &CameBack) -> Answer {
    let refused = |caller: &Caller, rule, text: &str| {
        refuse(appliance, caller, rule);
        Err(ApiError::new(ErrorKind::Unauthorized, text))
    };
    let attempt = Attempt::of_text(&back.attempt).filter(|attempt| attempt.is_state(&back.state));
    let Some(attempt) = attempt else {
        return refused(
            caller,
            "provider-state",
            "this sign-in was not begun in this browser, or too long ago; begin again",
        );
    };
    let email = match email(appliance, client, &attempt, &back.code) {
        Ok(email) => email,
        Err(Failed::Away(error)) => return Err(error),
        Err(Failed::Refused(error)) => {
            tracing::warn!("failed to {error}, when somebody signed in at the provider");
            return refused(
                caller,
                "provider",
                "what the provider said was not believed; begin again, or ask an administrator",
            );
        }
    };
    let caller = Caller::visitor(&email, &caller.from);
    let user = appliance.access.people.by_email(&email).filter(|user| user.removed_at.is_none());
    match user {
        Some(user) => begin_session(appliance, &caller, &user, "provider"),
        None => refused(&caller, "no-user", "the provider knows you, but you are no user here; ask an administrator"),
    }
}

enum Failed {
    /// It cannot be asked.
    Away(ApiError),
    /// What it says is not taken.
    Refused(OidcError),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Away(error)
    }
}

impl From<OidcError> for Failed {
    fn from(error: OidcError) -> Self {
        Self::Refused(error)
    }
}

/// Whose code that is.
fn email(appliance: &Appliance, client: &Client, attempt: &Attempt, code: &str) -> Result<String, Failed> {
    let (oidc, provider) = (&appliance.config.oidc, &appliance.access.door.elsewhere);
    let (about, keys) = provider.of(oidc, false)?;
    let secret = secret(oidc).map(|file| file.read()).transpose().map_err(|error| away(&error))?;
    let secret = secret.as_ref().map(|secret| secret.expose().as_str());
    let form = token_form(code, attempt.verifier(), client, secret);
    let asked = web(oidc)?.post_form(&about.token_endpoint, &form, ANSWER_BYTES_MAX, &|| false);
    let given = asked.map_err(|error| away(&error))?;
    match given.status {
        200 => {}
        400..500 => {
            return Err(OidcError::Answer(
                "it refuses the code; are oidc.client_id, the secret and oidc.redirect right?",
            )
            .into());
        }
        _ => return Err(away(&"it answers with an error of its own").into()),
    }
    let token = id_token_in(&given.body)?;
    let expected = Expected {
        issuer: &about.issuer,
        client: &client.id,
        nonce: attempt.nonce(),
        now_s: Timestamp::now().as_second(),
        claim: &oidc.claim,
        takes_unverified: oidc.takes_unverified,
    };
    match verify(&token, &keys, &expected) {
        // Providers change their keys without a word.
        Err(OidcError::UnknownKey) => Ok(verify(&token, &provider.of(oidc, true)?.1, &expected)?),
        done => Ok(done?),
    }
}

impl Provider {
    /// What the provider says of itself, asked for if it is not known, or if it is to be news.
    fn of(&self, oidc: &Oidc, is_news: bool) -> Result<(callvault_oidc::Provider, Keys), ApiError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((about, keys, at)) = known
            && !is_news
            && at.elapsed() < USED_MAX
        {
            return Ok((about, keys));
        }
        let web = web(oidc)?;
        let about = told(&web, &discovery_url(&oidc.issuer))?;
        let about = callvault_oidc::Provider::parse(&oidc.issuer, &about, |url| check_url(url).is_ok());
        let about = about.map_err(|error| away(&error))?;
        let keys = Keys::parse(&told(&web, &about.jwks_uri)?).map_err(|error| away(&error))?;
        let now = (about.clone(), keys.clone(), Instant::now());
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok((about, keys))
    }
}

fn told(web: &Web, url: &str) -> Result<Vec<u8>, ApiError> {
    match web.get(url, None, ANSWER_BYTES_MAX, &|| false) {
        Ok(Fetched { status: 200, body, .. }) => Ok(body),
        Ok(_) => Err(away(&"it does not say what it is; is oidc.issuer right?")),
        Err(error) => Err(away(&error)),
    }
}

/// People are told that it is away; why, the log says.
fn away(why: &dyn std::fmt::Display) -> ApiError {
    tracing::error!("failed to ask the provider that people sign in at (oidc.issuer): {why}");
    ApiError::new(
        ErrorKind::Unavailable,
        "the provider cannot be asked just now; try again, or sign in with a password",
    )
}

fn web(oidc: &Oidc) -> Result<Web, ApiError> {
    let settings = WebSettings {
        section: "oidc",
        proxy: Some(oidc.proxy.clone()).filter(|proxy| !proxy.is_empty()),
        proxy_credentials: None,
        ca: oidc.ca.clone(),
        connect_within: oidc.timeout,
        silent_max: oidc.timeout,
        total_max: oidc.timeout,
        keeps_connection: false,
    };
    Web::new(&settings).map_err(|error| away(&error))
}

/// Where the client's secret is, if it has one.
fn secret(oidc: &Oidc) -> Option<SecretFile> {
    let credential = || Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("oidc.secret"));
    let path = oidc.client_secret.clone().or_else(|| credential().filter(|path| path.exists()))?;
    Some(SecretFile { key: "oidc.client_secret", path: Some(path) })
}
