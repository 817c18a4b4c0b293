//! Authorising, as an administrator asks for it.

use std::time::{Duration, Instant};

use callvault_http::{Answer, ApiError, ErrorKind};
use callvault_webex::Next;
use callvault_webex_client::{Fault, authorise_url, code_in};
use jiff::Timestamp;
use rand::Rng as _;
use serde_json::json;

use super::{NOTE, client, client_settings, locked, with_clock};
use crate::appliance::Appliance;

/// How long the answer to an authorisation may take: an administrator has to sign in, and perhaps look for a second factor.
const ANSWER_WITHIN: Duration = Duration::from_secs(30 * 60);

/// An authorisation that was begun.
pub(super) struct Begun {
    state: String,
    until: Instant,
}

fn refused(fault: &Fault) -> ApiError {
    let kind = match fault {
        Fault::Answer(_) => ErrorKind::Unprocessable,
        Fault::Unreachable(_) | Fault::Keep(_) | Fault::Stopping => ErrorKind::Unavailable,
        _ => ErrorKind::Conflict,
    };
    ApiError::new(kind, fault.to_string())
}

/// `url`, which an administrator opens; `redirect_url`, where the browser comes back to; `expires_s`.
pub(super) fn begin(appliance: &Appliance) -> Answer {
    let settings = client_settings(&appliance.settings());
    let mut random = [0_u8; 16];
    rand::rng().fill_bytes(&mut random);
    let state: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = authorise_url(&settings, &state);
    *locked(&appliance.webex.begun) = Some(Begun { state, until: Instant::now() + ANSWER_WITHIN });
    Ok(json!({"url": url, "redirect_url": settings.redirect_url, "expires_s": ANSWER_WITHIN.as_secs()}))
}

/// As [`status`].
pub(super) fn finish(appliance: &Appliance, answer: &str) -> Answer {
    let state = {
        let begun = locked(&appliance.webex.begun);
        begun.as_ref().filter(|begun| begun.until > Instant::now()).map(|begun| begun.state.clone())
    };
    let state = state.ok_or_else(|| {
        let text = "no authorisation was begun, or it took too long: begin again with `callvaultctl webex authorise`";
        ApiError::new(ErrorKind::Conflict, text)
    })?;
    let code = code_in(answer, &state).map_err(|fault| refused(&fault))?;
    let settings = appliance.settings();
    let client = client(&settings).map_err(|fault| refused(&fault))?;
    let access = &appliance.webex.access;
    appliance.with_webex(|outside| client.authorise(access, &code, outside)).map_err(|fault| refused(&fault))?;
    *locked(&appliance.webex.begun) = None;
    done(appliance)
}

/// As [`status`].
pub(super) fn service_app(appliance: &Appliance, token: &str) -> Answer {
    let settings = appliance.settings();
    let client = client(&settings).map_err(|fault| refused(&fault))?;
    let access = &appliance.webex.access;
    appliance
        .with_webex(|outside| client.authorise_service_app(access, token, outside))
        .map_err(|fault| refused(&fault))?;
    done(appliance)
}

fn done(appliance: &Appliance) -> Answer {
    appliance.notes.clear(NOTE);
    tracing::info!("Webex is authorised");
    appliance.webex.bell.ring();
    status(appliance)
}

/// `enabled`, `authorised`, `usable` (there is a token that lives), `state`, `reason`, `renewal_at`, `sync`, `records`.
pub(super) fn status(appliance: &Appliance) -> Answer {
    let (settings, webex) = (appliance.settings(), &appliance.webex);
    let (next, is_usable) = with_clock(|outside| webex.access.standing(outside));
    let state = match &next {
        Next::Use | Next::Renew | Next::Store(_) => "authorised",
        Next::Wait(_) => "renewal-fails",
        Next::Authorise(Some(_)) => "dead",
        Next::Authorise(None) => "not-authorised",
    };
    let reason = match &next {
        Next::Authorise(Some(dead)) => Some(dead.to_string()),
        Next::Authorise(None) => Some(Fault::NotAuthorised.to_string()),
        _ => webex.access.failure().map(|fault| fault.to_string()),
    };
    let again_at = if let Next::Wait(at) = next { Some(at.to_string()) } else { None };
    let moment = |s: i64| Timestamp::from_second(s).ok().filter(|_| s > 0).map(|at| at.to_string());
    let read = |counter: &std::sync::atomic::AtomicI64| moment(counter.load(std::sync::atomic::Ordering::Relaxed));
    let parts = [NOTE, super::SYNC_NOTE, super::RECORDS_NOTE, super::MISSING_NOTE];
    let problems: Vec<String> = parts.into_iter().filter_map(|part| appliance.notes.get(part)).collect();
    Ok(json!({
        "enabled": settings.webex.enabled, "authorised": webex.is_authorised(), "usable": is_usable, "state": state,
        "reason": reason, "again_at": again_at, "sync_at": settings.webex.sync_at,
        "synced_at": read(&webex.counts.synced_at_s), "syncing_since": locked(&webex.turn).running_since(),
        "records": settings.webex.records, "records_read_to": read(&webex.counts.read_to_s),
        "problems": problems,
    }))
}
