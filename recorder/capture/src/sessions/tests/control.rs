//! What people do about a live call, and on demand.

use callvault_control::{CallAction, CallState, Decision, Refusal};

use super::*;

impl Rig {
    fn control(&mut self, action: CallAction) -> (Result<CallState, Refusal>, Vec<String>) {
        let (moment, recording) = (self.moment(), self.asked[0]);
        let standing = self.sessions.control(moment, recording, action, &mut self.rng);
        (standing.map(|standing| standing.state), self.work())
    }

    fn decide(&mut self, decision: Decision) -> Vec<String> {
        self.sessions.verdict(self.moment(), self.asked[0], decision);
        self.work()
    }

    fn offered(&mut self, sdp: &str) -> Vec<String> {
        let seen = self.send("INVITE", "c", body(sdp, ""));
        self.send("ACK", "c", body("", ""));
        seen.into_iter().filter(|w| !w.starts_with("raw") && !w.starts_with("announce") && w != "200 INVITE").collect()
    }

    fn kept(&self) -> Option<bool> {
        self.sessions.by_dialog.values().next().unwrap().standing().kept
    }
}

/// A call of two tracks with this verdict.
fn call_with(decision: Decision) -> Rig {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    rig.decide(decision);
    rig
}

use CallAction::{Keep, Pause, Resume, Start as Begin, Stop};

#[test]
fn a_pause_by_control_and_one_by_the_client_know_nothing_of_each_other() {
    let mut rig = call_with(Decision::Keep);
    let pause = rig.control(Pause);
    assert_eq!(
        pause,
        (Ok(CallState::Paused), vec!["ignore 0".into(), "ignore 1".into(), "paused None by control".into()])
    );
    assert_eq!(rig.control(Pause), (Ok(CallState::Paused), vec![]));
    // What the client signals is written down and changes nothing of what is stored.
    assert_eq!(rig.offered(HOLD), ["paused None"]);
    assert_eq!(rig.offered(OFFER), ["resumed None"]);
    assert_eq!(rig.offered(HOLD), ["paused None"]);
    // The client's pause goes on.
    assert_eq!(rig.control(Resume), (Ok(CallState::Paused), vec!["resumed None by control".into()]));
    assert_eq!(rig.control(Resume), (Ok(CallState::Paused), vec![]));
    assert_eq!(rig.offered(OFFER), ["follow 0", "follow 1", "resumed None"]);
    assert_eq!(rig.offered(HOLD), ["ignore 0", "ignore 1", "paused None"]);
    assert_eq!(rig.control(Pause), (Ok(CallState::Paused), vec!["paused None by control".into()]));
    assert_eq!(rig.offered(OFFER), ["resumed None"]);
    let resume = rig.control(Resume);
    assert_eq!(
        resume,
        (Ok(CallState::Recording), vec!["follow 0".into(), "follow 1".into(), "resumed None by control".into()])
    );
}

#[test]
fn a_line_that_is_added_in_a_pause_by_control_is_not_stored_either() {
    let mut rig = rig();
    rig.call(&offer(&[(4000, "sendonly")]), "");
    let _ = rig.control(Pause);
    rig.send("INVITE", "c", body(&offer(TWO), ""));
    let opened = rig.added.take().unwrap();
    assert!(opened.paused);
    assert_eq!(rig.control(Resume).1, ["follow 0", "follow 1", "resumed None by control"]);
}

#[test]
fn a_stop_ends_the_recording_and_not_the_session() {
    let mut rig = call_with(Decision::Keep);
    assert_eq!(rig.control(Stop), (Ok(CallState::Stopped), vec!["cut stopped".into()]));
    assert_eq!(rig.control(Stop), (Ok(CallState::Stopped), vec![]));
    for action in [Pause, Resume] {
        assert_eq!(rig.control(action), (Err(Refusal::Stopped), vec![]));
    }
    assert_eq!(rig.control(Keep), (Ok(CallState::Stopped), vec![]));
    let first = rig.asked[0];
    let (state, seen) = rig.control(Begin);
    assert_eq!(state, Ok(CallState::Recording));
    assert_eq!(seen, ["open", "started", "begin", "Keep", "call", "track 0 local", "track 1"]);
    let session = rig.sessions.by_dialog.values().next().unwrap();
    assert_ne!(session.recording, first);
    assert_eq!(rig.started.last().unwrap().follows, Some(first));
    assert_eq!(rig.sessions.totals().started_again, 1);
    // The first recording's id still names the call.
    assert_eq!(rig.control(Begin), (Ok(CallState::Recording), vec![]));
    let seen = rig.send("BYE", "c", body("", ""));
    assert_eq!(seen, ["200 BYE", "close bye"]);
    assert_eq!(rig.control(Pause), (Err(Refusal::Unknown), vec![]));
    assert!(rig.sessions.by_recording.is_empty());
}

#[test]
fn a_recording_that_begins_in_a_pause_of_the_clients_says_so_and_ends_that_of_control() {
    let mut rig = call_with(Decision::Keep);
    let _ = rig.control(Pause);
    rig.offered(&OFFER.replacen("sendonly", "inactive", 1));
    let _ = rig.control(Stop);
    let seen = rig.control(Begin).1;
    assert_eq!(seen[2..4], ["follow 1", "begin"]);
    assert_eq!(seen.last().unwrap(), "paused Some(0)");
}

#[test]
fn sessions_do_not_have_recordings_without_end() {
    let mut rig = call_with(Decision::Keep);
    let mut last = Ok(CallState::Recording);
    for _ in 0..200 {
        let _ = rig.control(Stop);
        last = rig.control(Begin).0;
    }
    assert_eq!(last, Err(Refusal::TooMany));
    assert_eq!(rig.sessions.by_recording.len(), 100);
}

#[test]
fn on_demand_waits_for_somebody_who_asks() {
    let mut rig = call_with(Decision::OnDemand);
    assert_eq!(rig.kept(), Some(false));
    assert_eq!(rig.sessions.calls(rig.moment())[0].standing.state, CallState::OnDemand);
    assert_eq!(rig.control(Keep), (Ok(CallState::Recording), vec!["Keep".into()]));
    assert_eq!((rig.kept(), rig.control(Begin)), (Some(true), (Ok(CallState::Recording), vec![])));
    // A start is the same as long as there is nothing to begin.
    let mut rig = call_with(Decision::OnDemand);
    assert_eq!(rig.control(Begin), (Ok(CallState::Recording), vec!["Keep".into()]));
    // So is being asked before the daemon has said anything; what it says then is too late.
    let mut rig = self::rig();
    rig.call(OFFER, INCOMING);
    assert_eq!((rig.kept(), rig.control(Keep).1), (None, vec!["Keep".to_owned()]));
    assert!(rig.decide(Decision::OnDemand).is_empty());
    assert_eq!(rig.kept(), Some(true));
    // What was stopped unasked is gone.
    let mut rig = call_with(Decision::OnDemand);
    let _ = rig.control(Stop);
    assert_eq!(rig.control(Keep).0, Err(Refusal::Stopped));
}

#[test]
fn news_of_the_call_are_a_new_question_until_it_is_kept() {
    for (decision, expected) in [(Decision::OnDemand, &["reconsider", "ask"] as &[&str]), (Decision::Keep, &[])] {
        let mut rig = call_with(decision);
        let seen = rig.send("UPDATE", "c", body("", TRANSFERRED));
        let asked: Vec<_> = seen.iter().filter(|w| *w == "ask" || *w == "reconsider").collect();
        assert_eq!(asked, expected);
        let seen = rig.send("UPDATE", "c", body("", TRANSFERRED));
        assert!(!seen.contains(&"ask".to_owned()), "{seen:?}");
    }
}

#[test]
fn an_answer_to_an_older_question_is_believed_only_when_it_keeps() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    assert!(rig.send("UPDATE", "c", body("", TRANSFERRED)).contains(&"ask".to_owned()));
    assert!(rig.decide(Decision::OnDemand).is_empty());
    assert_eq!(rig.decide(Decision::OnDemand), ["OnDemand"]);
    let mut rig = self::rig();
    rig.call(OFFER, INCOMING);
    rig.send("UPDATE", "c", body("", TRANSFERRED));
    assert_eq!(rig.decide(Decision::Keep), ["Keep"]);
    assert!(rig.decide(Decision::OnDemand).is_empty());
}

#[test]
fn a_discarded_call_is_not_received_any_more_and_may_be_started() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    let rule = Decision::Discard { rule: "r".into() };
    assert_eq!(rig.decide(rule)[1..], ["cut discarded"]);
    assert_eq!(rig.kept(), Some(false));
    assert_eq!(rig.control(Begin).0, Ok(CallState::Recording));
    assert_eq!(rig.kept(), Some(true));
}

/// What the sweep would store, from nothing but the commands that it is given.
#[derive(Default)]
struct Stored {
    paused: [bool; 2],
    stopped: bool,
}

impl Stored {
    fn obey(&mut self, seen: &[String]) {
        for word in seen {
            match word.split_once(' ') {
                Some(("ignore", track)) => self.paused[track.parse::<usize>().unwrap()] = true,
                Some(("follow", track)) => self.paused[track.parse::<usize>().unwrap()] = false,
                Some(("cut", _)) => self.stopped = true,
                None if word == "begin" => self.stopped = false,
                _ => {}
            }
        }
    }
}

#[test]
fn whatever_happens_a_track_is_stored_while_nobody_wants_it_otherwise() {
    use rand::RngExt as _;
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rig = rig();
        let mut stored = Stored::default();
        stored.obey(&rig.call(&offer(TWO), ""));
        let (mut client, mut control, mut stopped) = ([false; 2], false, false);
        for step in 0..40 {
            let seen = match rng.random_range(0..6) {
                0 => {
                    control |= !stopped;
                    rig.control(Pause).1
                }
                1 => {
                    control &= stopped;
                    rig.control(Resume).1
                }
                2 => {
                    stopped = true;
                    rig.control(Stop).1
                }
                3 => {
                    (control, stopped) = (control && !stopped, false);
                    rig.control(Begin).1
                }
                _ => {
                    client = [rng.random_bool(0.5), rng.random_bool(0.5)];
                    let word = |paused: bool| if paused { "inactive" } else { "sendonly" };
                    let seen =
                        rig.send("INVITE", "c", body(&offer(&[(4000, word(client[0])), (4002, word(client[1]))]), ""));
                    rig.send("ACK", "c", body("", ""));
                    seen
                }
            };
            stored.obey(&seen);
            assert_eq!(stored.stopped, stopped, "seed {seed}, step {step}");
            let expected = client.map(|paused| paused || control);
            assert!(stopped || stored.paused == expected, "seed {seed}, step {step}: {:?}", stored.paused);
        }
    }
}
