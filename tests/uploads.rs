//! Recordings are delivered to others: each exactly once, whatever the other side does and whenever the daemon dies.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;

use rig::receiver::{At, CLIENT_ID, CLIENT_SECRET, Fault, Receiver, WEBHOOK_SECRET};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::{Appliance, wait_for, wait_until};
use serde_json::Value;

const USER: &str = "recordings@example.com";

/// Long enough to be delivered: a second and a bit.
const PACKETS: usize = 60;

/// An appliance that delivers to the receiver by all ways, ready.
fn appliance(receiver: &Receiver, more: &str) -> Appliance {
    let base = receiver.base();
    let mut appliance = Appliance::prepare(&format!(
        "[queue]\nbackoff_min = \"100ms\"\nbackoff_max = \"1s\"\n[uploads]\nper_minute = 0\n\
         [analytics]\nenabled = true\nurl = \"{base}/voice-analytics\"\ntoken_url = \"{base}/oauth2/token\"\n\
         client_id = \"{CLIENT_ID}\"\nclient_secret = \"files/analytics.secret\"\nfallback_user = \"{USER}\"\n\
         [webhook]\nenabled = true\nurl = \"{base}/hook\"\nsecret = \"files/webhook.secret\"\n\
         [export_folder]\nenabled = true\npath = \"files/out\"\n{more}"
    ));
    fs::create_dir_all(appliance.home().join("files/out")).unwrap();
    fs::write(appliance.home().join("files/analytics.secret"), format!("{CLIENT_SECRET}\n")).unwrap();
    fs::write(appliance.home().join("files/webhook.secret"), WEBHOOK_SECRET).unwrap();
    appliance.launch();
    appliance
}

/// A call; its recording once it is archived.
fn record(appliance: &Appliance, number: u32) -> Value {
    let facts = Facts::incoming(number);
    let voices = [1, 2].map(|n| packets(&speech(u64::from(number) * 2 + n, 140.0, 8_000, PACKETS * FRAME)));
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    appliance.archived(&facts.call_id)
}

fn id(recording: &Value) -> String {
    recording["id"].as_str().unwrap().to_owned()
}

fn is_mp3(bytes: &[u8]) -> bool {
    bytes.len() > 1_000 && bytes[0] == 0xff && bytes[1] & 0xe0 == 0xe0
}

/// The delivery of a recording to a sink, once it is done.
fn delivered(appliance: &Appliance, id: &str, sink: &str) -> Value {
    wait_for("the delivery of the recording", || {
        let deliveries = appliance.get(&format!("/v1/recordings/{id}/deliveries"));
        let deliveries = deliveries["deliveries"].as_array().unwrap().clone();
        deliveries.into_iter().find(|one| one["sink"] == sink && one["step"] == "delivered")
    })
}

/// The files of the export folder.
fn exported(appliance: &Appliance) -> Vec<std::path::PathBuf> {
    let mut files = rig::inspect::files_below(&appliance.home().join("files/out"));
    files.retain(|path| !path.ends_with(".callvault-export"));
    files.sort();
    files
}

#[test]
fn every_recording_is_delivered_once_whatever_the_other_side_does() {
    let receiver = Receiver::start();
    receiver.fail(At::Token, &[Fault::Status(500, None)]);
    receiver.fail(
        At::Create,
        &[Fault::Status(429, Some("1")), Fault::TokensExpire, Fault::Close, Fault::Status(500, None)],
    );
    receiver.fail(At::Put, &[Fault::Close, Fault::BadDigest, Fault::DoneAndClosed, Fault::Status(503, Some("1"))]);
    receiver.fail(At::Hook, &[Fault::Status(503, Some("1")), Fault::DoneAndClosed, Fault::Close]);
    let appliance = appliance(&receiver, "");
    // Nobody's calls.
    let selftest = appliance.ctl(&["selftest", "--calls", "1", "--seconds", "2"]);
    assert!(selftest.status.success(), "{}", String::from_utf8_lossy(&selftest.stderr));
    let recordings: Vec<Value> = (1..=3).map(|number| record(&appliance, number)).collect();
    for recording in &recordings {
        let told = delivered(&appliance, &id(recording), "analytics");
        assert!(told["remote_id"].as_str().is_some_and(|id| id.starts_with('r')), "{told}");
        delivered(&appliance, &id(recording), "webhook");
        delivered(&appliance, &id(recording), "export_folder");
    }
    wait_until("all jobs are done", || appliance.jobs_left().is_empty());

    let complete = receiver.complete();
    assert_eq!(complete.len(), 3);
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 3);
    for recording in &recordings {
        let id = id(recording);
        let mine: Vec<_> =
            complete.iter().filter(|entry| entry.asked["fileName"].as_str().unwrap().contains(&id)).collect();
        assert_eq!(mine.len(), 1, "{id}");
        assert_eq!(mine[0].asked["user"]["email"], USER);
        assert_eq!(mine[0].asked["callData"]["direction"], "IN");
        assert_eq!(mine[0].asked["callData"]["speakers"], 2);
        assert_eq!(mine[0].asked["callData"]["remoteParty"]["number"], recording["remote_number"]);
        assert!(mine[0].puts.iter().all(|put| is_mp3(put)));
        let hook: Vec<_> = hooks.iter().filter(|hook| hook.key == id).collect();
        assert_eq!(hook.len(), 1, "{id}");
        // Rendered for each anew, and the same.
        assert_eq!(hook[0].audio, mine[0].puts[0]);
        let files: Vec<_> =
            exported(&appliance).into_iter().filter(|path| path.to_str().unwrap().contains(&id)).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        assert_eq!(fs::read(&files[1]).unwrap(), hook[0].audio);
        let json: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
        assert_eq!(json["recording_id"], id.as_str());
    }
    assert_eq!(exported(&appliance).len(), 6, "{:?}", exported(&appliance));
    receiver.assert_kept_to_the_shape();

    // Metrics are of a moment ago.
    let metrics = wait_for("the metrics of the deliveries", || {
        let metrics = rig::http::ask(appliance.place.http(), "GET", "/metrics", None).unwrap();
        let metrics = String::from_utf8(metrics.body).unwrap();
        let counted = "callvault_deliveries_total{sink=\"analytics\",outcome=\"delivered\"} 3";
        let none_left = "callvault_deliveries_waiting{sink=\"analytics\"} 0";
        (metrics.contains(counted) && metrics.contains(none_left)).then_some(metrics)
    });
    let said = appliance.log() + &metrics;
    for private in [CLIENT_SECRET, WEBHOOK_SECRET, "token-1", "sig=", USER, "+4930770", "Ferrante"] {
        assert!(!said.contains(private), "{private} is in the log");
    }
}

#[test]
fn a_daemon_that_is_killed_at_any_step_delivers_once() {
    let receiver = Receiver::start();
    let mut appliance = appliance(&receiver, "");
    let steps = [
        (At::Token, Fault::Stall, 1),
        (At::Create, Fault::Stall, 1),
        // An entry without audio stays behind: the answer that names it never came.
        (At::Create, Fault::DoneAndStall, 2),
        (At::Put, Fault::Stall, 1),
        (At::Put, Fault::DoneAndStall, 1),
        (At::Hook, Fault::Stall, 1),
        (At::Hook, Fault::DoneAndStall, 1),
    ];
    let mut entries = 0;
    for (number, (at, fault, adds)) in (10..).zip(steps.clone()) {
        let before = receiver.count(at);
        receiver.fail(at, std::slice::from_ref(&fault));
        let recording = record(&appliance, number);
        wait_until("the step under way", || receiver.count(at) > before);
        // The sinks are independent: what is killed while the hook is under way must not be the other upload too.
        if at == At::Hook || fault == Fault::DoneAndStall && at == At::Put {
            wait_until("the audio taken", || {
                receiver.complete().iter().any(|e| e.asked["fileName"].as_str().unwrap().contains(&id(&recording)))
            });
        }
        appliance.kill();
        appliance.launch();
        delivered(&appliance, &id(&recording), "analytics");
        delivered(&appliance, &id(&recording), "webhook");
        delivered(&appliance, &id(&recording), "export_folder");
        entries += adds;
        let mine = |name: &str| name.contains(&id(&recording));
        let complete = receiver.complete().iter().filter(|e| mine(e.asked["fileName"].as_str().unwrap())).count();
        assert_eq!(complete, 1, "{at:?} {fault:?}");
        assert_eq!(receiver.entries().len(), entries, "{at:?} {fault:?}");
        assert_eq!(receiver.hooks().iter().filter(|hook| mine(&hook.key)).count(), 1, "{at:?} {fault:?}");
    }
    assert_eq!(exported(&appliance).len(), 2 * steps.len());
    receiver.assert_kept_to_the_shape();
    appliance.assert_verifies();
}

#[test]
fn what_is_refused_is_parked_and_can_be_driven_again() {
    let receiver = Receiver::start();
    receiver.fail(At::Create, &[Fault::Status(400, None)]);
    let appliance = appliance(&receiver, "");
    let recording = record(&appliance, 30);
    let job = format!("upload:{}", id(&recording));
    let parked = wait_for("the parked job", || {
        appliance.jobs_left().into_iter().find(|one| one["id"] == job.as_str() && one["state"] == "parked")
    });
    assert!(parked["last_error"].as_str().unwrap().contains("answered 400 (told_so)"), "{parked}");
    let deliveries = appliance.get(&format!("/v1/recordings/{}/deliveries", id(&recording)));
    assert!(deliveries.to_string().contains("answered 400 (told_so)"), "{deliveries}");
    assert_eq!(receiver.complete().len(), 0);
    let retried = appliance.ctl(&["jobs", "retry", &job]);
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    delivered(&appliance, &id(&recording), "analytics");
    assert_eq!(receiver.complete().len(), 1);
}

#[test]
fn a_service_that_does_not_know_us_is_told_by_health_and_costs_no_attempts() {
    let receiver = Receiver::start();
    receiver.fail(At::Token, &vec![Fault::Status(400, None); 1_000]);
    let appliance = appliance(&receiver, "");
    let recordings: Vec<Value> = (40..42).map(|number| record(&appliance, number)).collect();
    let health = wait_for("the trouble in health", || {
        let health = rig::http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
        (health["components"]["analytics"]["status"] == "degraded").then_some(health)
    });
    assert!(health.to_string().contains("analytics.client_secret"), "{health}");
    for recording in &recordings {
        delivered(&appliance, &id(recording), "webhook");
    }
    assert!(appliance.jobs_left().iter().all(|job| job["state"] != "parked"));
    receiver.mend();
    for recording in &recordings {
        delivered(&appliance, &id(recording), "analytics");
    }
    wait_until("health is well again", || {
        let health = rig::http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
        health["components"]["analytics"]["status"] == "ok"
    });
    assert_eq!(receiver.complete().len(), 2);
}

#[test]
fn what_is_not_delivered_when_a_sink_is_switched_off_goes_when_it_is_on_again() {
    let receiver = Receiver::start();
    receiver.fail(At::Put, &vec![Fault::Status(500, None); 1_000]);
    let mut appliance = appliance(&receiver, "");
    let recording = record(&appliance, 50);
    wait_until("an attempt", || receiver.count(At::Put) > 0);
    appliance.stop();
    let on = fs::read_to_string(appliance.home().join("conf.d/test.toml")).unwrap();
    appliance.configure(&on.replace("[analytics]\nenabled = true", "[analytics]\nenabled = false"));
    receiver.mend();
    appliance.launch();
    let while_off = record(&appliance, 51);
    delivered(&appliance, &id(&while_off), "webhook");
    assert_eq!(receiver.complete().len(), 0);
    assert!(appliance.jobs_left().iter().any(|job| job["id"] == format!("upload:{}", id(&recording))));
    appliance.stop();
    appliance.configure(&on);
    appliance.launch();
    delivered(&appliance, &id(&recording), "analytics");
    assert_eq!(receiver.complete().len(), 1, "what was archived meanwhile is not owed");

    // It is sent when somebody wants it, once.
    let send = |id: &str| appliance.ctl(&["deliveries", "send", "--to", "analytics", id]);
    assert!(send(&id(&while_off)).status.success());
    delivered(&appliance, &id(&while_off), "analytics");
    let again = send(&id(&while_off));
    assert!(String::from_utf8_lossy(&again.stderr).contains("it was delivered at"), "{again:?}");
    assert_eq!(receiver.complete().len(), 2);
}
