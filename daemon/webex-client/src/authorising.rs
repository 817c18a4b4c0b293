//! Authorising, and having a token that is good.

use std::sync::{Mutex, MutexGuard, PoisonError};

use callvault_upload::encoded;
use callvault_webex::{Authorisation, Dead, Grant, Next, Renewal};
use zeroize::Zeroizing;

use crate::{Client, Fault, Outside};

/// Longest answer of the address that gives out tokens, in bytes.
const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters of a code or a token that somebody pastes, at most.
const PASTED_CHARS_MAX: usize = 8_192;

/// The authorisation, for all threads that use it.
#[derive(Debug, Default)]
pub struct Access {
    known: Mutex<Authorisation>,
    /// Held by whoever asks for a token and stores it: two at once would each make the other's worthless.
    asking: Mutex<()>,
    /// What was wrong when a renewal failed.
    failure: Mutex<Option<Fault>>,
}

impl Access {
    /// With what is stored.
    pub fn new(grant: Option<Grant>) -> Self {
        Self { known: Mutex::new(Authorisation::new(grant)), ..Self::default() }
    }

    fn known(&self) -> MutexGuard<'_, Authorisation> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is dead; none while it lives, or when there never was one.
    pub fn dead(&self) -> Option<Dead> {
        self.known().dead()
    }

    /// What is to be done, and whether there is a token that can be used.
    pub fn standing(&self, outside: &Outside<'_>) -> (Next, bool) {
        let (known, now) = (self.known(), (outside.now)());
        (known.next(now), known.token(now).is_some())
    }

    /// Why the last attempt at renewal failed; none where it did not.
    pub fn failure(&self) -> Option<Fault> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, fault: Option<Fault>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(crate) fn refused(&self) {
        self.known().refused();
    }

    pub(crate) fn accepted(&self) {
        self.known().accepted();
    }
}

/// Where an administrator authorises (RFC 6749 section 4.1.1). `state` comes back with the answer, and has to be unguessable.
pub fn authorise_url(settings: &crate::ClientSettings, state: &str) -> String {
    format!(
        "{}/authorize?client_id={}&response_type=code&redirect_uri={}&scope={}&state={}",
        settings.url.trim_end_matches('/'),
        encoded(&settings.client_id),
        encoded(&settings.redirect_url),
        encoded(&settings.scopes),
        encoded(state)
    )
}

/// The code in what came back (RFC 6749 section 4.1.2): the whole address, or its query. It has to have the state that was given out.
///
/// # Errors
/// [`Fault::Answer`].
pub fn code_in(answer: &str, state: &str) -> Result<Zeroizing<String>, Fault> {
    let answer = answer.trim();
    if answer.chars().count() > PASTED_CHARS_MAX {
        return Err(Fault::Answer("this is longer than any answer of Webex: paste the address that the browser shows"));
    }
    let query = answer.split_once('?').map_or(answer, |(_, query)| query);
    let query = query.split(['#', ' ']).next().unwrap_or_default();
    let value = |wanted: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| decoded(value))
    };
    if let Some(error) = value("error") {
        return Err(Fault::Answer(match error.as_str() {
            "access_denied" => {
                "Webex says that access was denied: an administrator of Webex has to allow the integration in the Control Hub, and then authorise again"
            }
            "invalid_scope" => {
                "Webex says that the integration may not have these scopes: register all of webex.scopes with it, then authorise again"
            }
            _ => "Webex refused the authorisation: look at the integration in the Control Hub, then authorise again",
        }));
    }
    if value("state").as_deref() != Some(state) {
        return Err(Fault::Answer(
            "this is not the answer to the authorisation that was begun last: begin again with `callvaultctl webex authorise`, and paste the whole address that the browser shows at the end",
        ));
    }
    let code = value("code").filter(|code| !code.is_empty());
    code.map(Zeroizing::new).ok_or(Fault::Answer(
        "there is no code in this: paste the whole address that the browser shows after you have agreed",
    ))
}

/// A value of a query without its percent signs.
fn decoded(value: &str) -> Option<String> {
    let (mut bytes, mut out) = (value.bytes(), Vec::with_capacity(value.len()));
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

impl Client {
    /// An administrator has agreed: the code becomes a token, which is stored, and takes the place of whatever there was.
    ///
    /// # Errors
    /// What Webex or the device says.
    pub fn authorise(&self, access: &Access, code: &str, outside: &Outside<'_>) -> Result<(), Fault> {
        let redirect_url = self.settings.redirect_url.clone();
        let fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &redirect_url)];
        self.take(access, &fields, None, outside)
    }

    /// The same with the refresh token that Webex shows for a Service App.
    ///
    /// # Errors
    /// As for [`Client::authorise`].
    pub fn authorise_service_app(&self, access: &Access, refresh: &str, outside: &Outside<'_>) -> Result<(), Fault> {
        let refresh = refresh.trim();
        let is_token = refresh.len() <= PASTED_CHARS_MAX && refresh.bytes().all(|byte| byte.is_ascii_graphic());
        if refresh.is_empty() || !is_token {
            return Err(Fault::Answer("this is no refresh token: copy it whole from the page of the Service App"));
        }
        self.take(access, &[("grant_type", "refresh_token"), ("refresh_token", refresh)], Some(refresh), outside)
    }

    fn take(
        &self,
        access: &Access,
        fields: &[(&str, &str)],
        refresh: Option<&str>,
        outside: &Outside<'_>,
    ) -> Result<(), Fault> {
        let _one_at_a_time = access.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = self.ask_token(fields, outside)?;
        match status {
            200..=299 => {}
            400 | 401 => return Err(refusal(&body)),
            _ => return Err(Fault::Walk(callvault_webex::WalkError::Refused(status))),
        }
        let now = (outside.now)();
        let refresh = refresh.map(|refresh| Grant {
            access: String::new(),
            refresh: refresh.to_owned(),
            given_at: now,
            access_s: 0,
            refresh_s: None,
        });
        let grant = Grant::read(&body, refresh.as_ref(), now).map_err(Fault::Form)?;
        access.known().authorised(grant);
        store(access, outside)
    }

    /// A token that is good, renewed where it is time.
    ///
    /// # Errors
    /// Where there is none. While a renewal fails, what there is is used to its end.
    pub fn token(&self, access: &Access, outside: &Outside<'_>) -> Result<Zeroizing<String>, Fault> {
        self.keep_fresh(access, outside)?;
        let known = access.known();
        let now = (outside.now)();
        if let Some(token) = known.token(now) {
            return Ok(Zeroizing::new(token.to_owned()));
        }
        match (known.dead(), known.next(now)) {
            (Some(dead), _) => Err(Fault::Dead(dead)),
            (None, Next::Authorise(_)) => Err(Fault::NotAuthorised),
            (None, _) => {
                drop(known);
                Err(access.failure().unwrap_or(Fault::Walk(callvault_webex::WalkError::Unavailable)))
            }
        }
    }

    /// Renews the token where it is time, and stores what was received. That Webex cannot be had now is no error.
    ///
    /// # Errors
    /// [`Fault::Stopping`]; where there is nothing that could be used and something of ours is in the way.
    pub fn keep_fresh(&self, access: &Access, outside: &Outside<'_>) -> Result<(), Fault> {
        if matches!(access.standing(outside).0, Next::Use | Next::Wait(_) | Next::Authorise(_)) {
            return Ok(());
        }
        let _one_at_a_time = access.asking.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it while we waited.
        let next = access.standing(outside).0;
        if matches!(next, Next::Store(_)) {
            return without_harm(access, store(access, outside), outside);
        }
        if next != Next::Renew {
            return Ok(());
        }
        let Some(refresh) = access.known().refresh().map(|text| Zeroizing::new(text.to_owned())) else { return Ok(()) };
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
        let asked = self.ask_token(&fields, outside);
        let now = (outside.now)();
        match asked {
            Ok((status, body)) => {
                access.known().renewed(&Renewal::Answer(status, &body), now);
                let is_well = matches!(status, 200..=299);
                access.failed((!is_well).then_some(Fault::Walk(callvault_webex::WalkError::Refused(status))));
            }
            Err(Fault::Stopping) => return Err(Fault::Stopping),
            Err(fault) => {
                access.known().renewed(&Renewal::None, now);
                access.failed(Some(fault));
            }
        }
        without_harm(access, store(access, outside), outside)
    }

    /// Asks for a token; status and body.
    fn ask_token(&self, fields: &[(&str, &str)], outside: &Outside<'_>) -> Result<(u16, Zeroizing<Vec<u8>>), Fault> {
        let settings = &self.settings;
        let secret = settings.client_secret.read().map_err(|trouble| Fault::Settings(trouble.to_string()))?;
        let mut all = vec![("client_id", settings.client_id.as_str()), ("client_secret", secret.expose().as_str())];
        all.extend(fields);
        let url = format!("{}/access_token", settings.url.trim_end_matches('/'));
        let fetched = self.web.post_form(&url, &all, TOKEN_ANSWER_BYTES_MAX, outside.stopping)?;
        Ok((fetched.status, Zeroizing::new(fetched.body)))
    }
}

/// Puts what was received on the device; only then it is used.
fn store(access: &Access, outside: &Outside<'_>) -> Result<(), Fault> {
    let next = access.known().next((outside.now)());
    if let Next::Store(grant) = next {
        (outside.keep)(&grant).map_err(Fault::Keep)?;
        access.known().stored();
        access.failed(None);
    }
    Ok(())
}

/// What cannot be stored now is stored another time, as long as there is a token that lives.
fn without_harm(access: &Access, stored: Result<(), Fault>, outside: &Outside<'_>) -> Result<(), Fault> {
    let Err(fault) = stored else { return Ok(()) };
    access.failed(Some(fault.clone()));
    if access.standing(outside).1 { Ok(()) } else { Err(fault) }
}

/// What a refusal of the code says.
fn refusal(body: &[u8]) -> Fault {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("error").and_then(serde_json::Value::as_str) {
        Some("invalid_client" | "unauthorized_client") => Fault::Dead(Dead::Client),
        _ => Fault::Answer(
            "Webex does not take this: a code is good for some minutes and once, and webex.redirect_url must be as it is registered with the integration; authorise again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_taken_from_the_answer_to_what_was_asked() {
        fn check(answer: &str, expected: Option<&str>) {
            assert_eq!(code_in(answer, "s1").ok().as_deref().map(String::as_str), expected, "{answer}");
        }
        check("http://localhost:8990/callback?code=abc&state=s1", Some("abc"));
        check("code=a%2Fb&state=s1", Some("a/b"));
        check(" http://localhost:8990/callback?state=s1&code=abc#x \n", Some("abc"));
        check("http://localhost:8990/callback?code=abc&state=other", None);
        check("http://localhost:8990/callback?code=abc", None);
        check("http://localhost:8990/callback?code=&state=s1", None);
        check("http://localhost:8990/callback?error=access_denied&state=s1", None);
        check("abc", None);
        check("code=%zz&state=s1", None);
        check(&format!("code={}&state=s1", "a".repeat(10_000)), None);
    }
}
