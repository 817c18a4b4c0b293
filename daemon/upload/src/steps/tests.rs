//! The machine against a world that answers as it likes.

use proptest::prelude::*;

use super::*;

const MD5: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";

fn created(number: u32) -> Created {
    let number = number.to_string();
    Created { presigned_url: format!("https://a.example/{number}"), state: number.clone(), recording_id: number }
}

/// Runs an attempt against these answers (to creates and puts, in turn; good when they run out). Gives the steps as a line, and how it ended.
fn run(before: Option<Begun>, answers: &[Meaning]) -> (String, Action) {
    let mut delivery = Delivery::new(before, MD5);
    let (mut answers, mut steps, mut number, mut noted) = (answers.iter().copied(), Vec::new(), 0, None);
    for _ in 0..32 {
        let action = delivery.next().clone();
        match &action {
            Action::Token { renew } => {
                steps.push(if *renew { "renew" } else { "token" });
                delivery.has_token();
            }
            Action::Create => {
                steps.push("create");
                number += 1;
                delivery.created(answers.next().unwrap_or(Meaning::Good), "answered", Ok(created(number)));
            }
            Action::Note(begun) => {
                steps.push("note");
                noted = Some(begun.clone());
                delivery.noted();
            }
            Action::Put(begun) => {
                steps.push("put");
                assert!(noted.is_none() || noted.as_ref() == Some(begun), "nothing is put before it is noted");
                assert_eq!(begun.md5, MD5);
                delivery.put(answers.next().unwrap_or(Meaning::Good), "answered");
            }
            Action::Delivered(_) | Action::Stop(_) => return (steps.join(" "), action),
        }
    }
    panic!("it goes round in circles: {steps:?}");
}

fn begun(refusals: u32) -> Begun {
    Begun { remote_id: "0".into(), state: "0".into(), url: "https://a.example/0".into(), md5: MD5.into(), refusals }
}

#[test]
fn each_answer_leads_on() {
    #[track_caller]
    fn check(before: Option<Begun>, answers: &[Meaning], steps: &str, ending: &str) {
        let (took, action) = run(before, answers);
        let ended = match action {
            Action::Delivered(_) => "delivered",
            Action::Stop(Trouble::Recording(_)) => "later",
            Action::Stop(Trouble::Refused(_)) => "refused",
            Action::Stop(Trouble::Sink { .. }) => "sink",
            _ => "other",
        };
        assert_eq!((took.as_str(), ended), (steps, ending));
    }
    use Meaning::*;
    let busy = Busy { wait_ms: Some(5) };
    check(None, &[], "token create note put", "delivered");
    check(None, &[Unauthorised], "token create renew create note put", "delivered");
    check(None, &[Unauthorised, Unauthorised], "token create renew create", "sink");
    check(None, &[busy], "token create", "sink");
    check(None, &[Elsewhere], "token create", "sink");
    check(None, &[Failed], "token create", "later");
    check(None, &[Refused], "token create", "refused");
    check(None, &[Good, busy], "token create note put", "sink");
    check(None, &[Good, Failed], "token create note put", "later");
    check(None, &[Good, Refused], "token create note put note token create note put", "delivered");
    check(None, &[Good, Refused, Good, Refused], "token create note put note token create note put", "later");
    // after a crash
    check(Some(begun(0)), &[], "put", "delivered");
    check(Some(begun(0)), &[Failed], "put", "later");
    check(Some(begun(0)), &[Refused], "put note token create note put", "delivered");
    check(Some(Begun { md5: "other".into(), ..begun(0) }), &[], "token create note put", "delivered");
    check(Some(Begun { url: String::new(), ..begun(0) }), &[], "token create note put", "delivered");
    // an old URL that has expired is not held against the recording, fresh ones are
    check(Some(begun(REFUSALS_MAX - 1)), &[Refused], "put note token create note put", "delivered");
    check(Some(begun(REFUSALS_MAX - 1)), &[Refused, Good, Refused], "put note token create note put", "refused");
    // given up, and driven again by somebody
    check(Some(begun(REFUSALS_MAX)), &[Refused], "put note token create note put", "delivered");
}

#[test]
fn what_asks_for_a_pause_says_how_long() {
    let (_, action) = run(None, &[Meaning::Busy { wait_ms: Some(5) }]);
    assert!(matches!(action, Action::Stop(Trouble::Sink { wait_ms: Some(5), .. })));
}

#[test]
fn an_answer_that_cannot_be_read_is_no_refusal() {
    let mut delivery = Delivery::new(None, MD5);
    delivery.has_token();
    delivery.created(Meaning::Good, "answered 200", Err("it is empty"));
    assert!(matches!(delivery.next(), Action::Stop(Trouble::Recording(_))));
}

#[test]
fn a_url_is_forgotten_once_it_was_used_up_or_refused() {
    let (_, delivered) = run(Some(begun(0)), &[]);
    assert!(matches!(delivered, Action::Delivered(begun) if begun.url.is_empty() && begun.remote_id == "0"));
    let mut delivery = Delivery::new(Some(begun(0)), MD5);
    delivery.put(Meaning::Refused, "answered 403");
    assert!(delivery.begun().url.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever comes back, an attempt ends after few steps, and is delivered only by a put that went well.
    #[test]
    fn an_attempt_ends(
        answers in proptest::collection::vec(prop_oneof![
            Just(Meaning::Good), Just(Meaning::Unauthorised), Just(Meaning::Busy { wait_ms: None }),
            Just(Meaning::Failed), Just(Meaning::Elsewhere), Just(Meaning::Refused),
        ], 0..12),
        refusals in 0..8_u32,
        begins_before in any::<bool>(),
    ) {
        let (steps, action) = run(begins_before.then(|| begun(refusals)), &answers);
        prop_assert!(steps.matches("create").count() <= 3, "{}", steps);
        if matches!(action, Action::Delivered(_)) {
            prop_assert!(steps.ends_with("put"));
        }
    }
}
