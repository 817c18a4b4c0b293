//! The whole life of an authorisation against the stand-in: given, renewed, rotated, refused, dead, given again.

#![allow(clippy::unwrap_used)]

mod standin;

use callvault_webex::Dead;
use callvault_webex_client::{Access, Fault};
use serde_json::json;
use standin::{Around, StandIn};

/// Two weeks, the life of a token, in seconds.
const LIFE_S: i64 = 1_209_599;

fn token(webex: &StandIn, access: &Access, around: &Around) -> Result<String, Fault> {
    around.with(|outside| webex.client().token(access, outside).map(|token| token.to_string()))
}

#[test]
fn an_authorisation_is_kept_before_it_is_used_and_renewed_at_half_of_its_life() {
    let (webex, around) = (StandIn::start(), Around::default());
    let access = webex.authorised(&around);
    let first = token(&webex, &access, &around).unwrap();
    assert_eq!(around.kept.lock().unwrap().last().unwrap().access, first);
    around.later(LIFE_S / 2 - 60);
    assert_eq!(token(&webex, &access, &around).unwrap(), first);
    around.later(120);
    let second = token(&webex, &access, &around).unwrap();
    assert_ne!(second, first);
    let kept = around.kept.lock().unwrap().clone();
    assert_eq!((kept.len(), kept[1].access.as_str()), (2, second.as_str()));
    assert_ne!(kept[0].refresh, kept[1].refresh, "the new token of renewal is kept");
}

#[test]
fn who_dies_between_receiving_and_storing_has_what_was_stored_before() {
    let (webex, around) = (StandIn::start(), Around::default());
    let access = webex.authorised(&around);
    let stored = around.kept.lock().unwrap().last().unwrap().clone();
    around.later(LIFE_S / 2 + 60);
    around.full.store(true, std::sync::atomic::Ordering::Relaxed);
    // Renewed at the service, and not on the device: what there was is used.
    assert_eq!(token(&webex, &access, &around).unwrap(), stored.access);
    assert_eq!(webex.requests("/access_token"), 2);
    around.full.store(false, std::sync::atomic::Ordering::Relaxed);
    // Another process, with what is on the device.
    let access = Access::new(Some(stored.clone()));
    assert_ne!(token(&webex, &access, &around).unwrap(), stored.access);
    assert_eq!(around.kept.lock().unwrap().len(), 2);
}

#[test]
fn what_could_not_be_stored_is_stored_later_and_not_asked_for_again() {
    let (webex, around) = (StandIn::start(), Around::default());
    let access = webex.authorised(&around);
    around.later(LIFE_S / 2 + 60);
    around.full.store(true, std::sync::atomic::Ordering::Relaxed);
    token(&webex, &access, &around).unwrap();
    around.full.store(false, std::sync::atomic::Ordering::Relaxed);
    let second = token(&webex, &access, &around).unwrap();
    assert_eq!(around.kept.lock().unwrap().last().unwrap().access, second);
    assert_eq!(webex.requests("/access_token"), 2);
}

#[test]
fn a_dead_authorisation_is_told_from_a_passing_failure() {
    #[track_caller]
    fn check(told: &serde_json::Value, expected: Option<Dead>) {
        let (webex, around) = (StandIn::start(), Around::default());
        let access = webex.authorised(&around);
        webex.set(told);
        around.later(LIFE_S / 2 + 60);
        // Dead or not, what there is lives until its end.
        assert!(token(&webex, &access, &around).is_ok(), "{told}");
        assert_eq!(access.dead(), expected, "{told}");
    }
    check(&json!({"dead": "invalid_grant"}), Some(Dead::Withdrawn));
    check(&json!({"revoke": "all"}), Some(Dead::Withdrawn));
    check(&json!({"client_secret": "another"}), Some(Dead::Client));
    for kind in [json!(500), json!(503), json!(429), json!("cut"), json!("html")] {
        check(&json!({"faults": [{"path": "access_token", "kind": kind}]}), None);
    }
}

#[test]
fn a_dead_authorisation_is_repaired_by_authorising_again() {
    let (webex, around) = (StandIn::start(), Around::default());
    let access = webex.authorised(&around);
    webex.set(&json!({"revoke": "all"}));
    around.later(LIFE_S + 60);
    assert_eq!(token(&webex, &access, &around), Err(Fault::Dead(Dead::Withdrawn)));
    webex.authorise(&access, &around).unwrap();
    assert!(token(&webex, &access, &around).is_ok());
    assert_eq!(access.dead(), None);
}

#[test]
fn a_clock_that_is_wrong_costs_a_renewal_and_nothing_else() {
    for wrong_s in [10 * 365 * 86_400, -(10 * 365 * 86_400)] {
        let (webex, around) = (StandIn::start(), Around::default());
        let access = webex.authorised(&around);
        around.later(wrong_s);
        assert!(token(&webex, &access, &around).is_ok(), "{wrong_s}");
        assert_eq!((access.dead(), webex.requests("/access_token")), (None, 2), "{wrong_s}");
        around.later(-wrong_s);
        assert!(token(&webex, &access, &around).is_ok(), "{wrong_s}");
        assert_eq!(access.dead(), None, "{wrong_s}");
    }
}

#[test]
fn a_service_app_begins_with_its_refresh_token() {
    let (webex, around) = (StandIn::start(), Around::default());
    webex.authorised(&around);
    let refresh = around.kept.lock().unwrap().last().unwrap().refresh.clone();
    let access = Access::default();
    around.with(|outside| webex.client().authorise_service_app(&access, &format!(" {refresh}\n"), outside)).unwrap();
    assert!(token(&webex, &access, &around).is_ok());
    let wrong = around.with(|outside| webex.client().authorise_service_app(&access, "nonsense", outside));
    assert!(matches!(wrong, Err(Fault::Answer(_))), "{wrong:?}");
    assert!(token(&webex, &access, &around).is_ok(), "what was there before stays");
}

#[test]
fn without_an_authorisation_it_says_who_does_what() {
    let (webex, around) = (StandIn::start(), Around::default());
    let fault = token(&webex, &Access::default(), &around).unwrap_err();
    assert!(fault.needs_somebody() && fault.to_string().contains("callvaultctl webex authorise"), "{fault}");
    assert_eq!(webex.seen()["seen"], json!({}));
}

#[test]
fn what_comes_back_from_the_browser_may_be_a_refusal() {
    #[track_caller]
    fn check(told: &serde_json::Value, expected: &str) {
        let (webex, around) = (StandIn::start(), Around::default());
        webex.set(told);
        let fault = webex.authorise(&Access::default(), &around).unwrap_err();
        assert!(fault.to_string().contains(expected), "{told}: {fault}");
    }
    check(&json!({"dead": "access_denied"}), "access was denied");
    check(&json!({"scopes": []}), "webex.scopes");
    check(&json!({"client_secret": "another"}), "correct its id and its secret");
}

#[test]
fn faults_never_name_a_token_or_the_secret() {
    let (webex, around) = (StandIn::start(), Around::default());
    for kind in [json!(400), json!(401), json!(403), json!(500), json!("cut"), json!("html")] {
        webex.set(&json!({"faults": []}));
        let access = webex.authorised(&around);
        webex.set(&json!({"revoke": "access", "faults": [{"path": "", "kind": kind}]}));
        around.later(LIFE_S + 60);
        let fault = token(&webex, &access, &around).unwrap_err();
        let text = format!("{fault} {fault:?} {access:?}");
        let seen = webex.seen();
        let tokens = seen["access"].as_array().unwrap().iter().chain(seen["refresh"].as_array().unwrap());
        for secret in tokens.filter_map(|token| token.as_str()).chain([standin::SECRET, "standin-"]) {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
