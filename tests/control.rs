//! Calls that somebody controls while they go on: paused and stopped at the moment that it is said, kept when it is asked for, and
//! gone for ever when it is not.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_journal::LaneEnd;
use callvault_journal::facts::SessionEvent;
use rig::inspect::{archived_packets, archived_pauses, lanes_of};
use rig::offer::Offer;
use rig::shapes::{Facts, webex_metadata, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, check_parts, packets, speech, tone};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for};
use serde_json::{Value, json};

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";
const ON_DEMAND: &str = "[archive]\ncodec = \"as-received\"\n[recording]\nmode = \"on-demand\"\n";
/// Length of a part of a call in packets.
const PART: usize = 25;

/// By how much a pause may be longer or shorter in the recording than it was, in samples: 40 ms.
const SLACK: usize = 320;

fn voice(seed: u64) -> Vec<Vec<u8>> {
    packets(&speech(seed, 110.0 + seed as f64 * 3.0, 8_000, PART * FRAME))
}

/// What must not be kept.
fn secret(seed: u64) -> Vec<Vec<u8>> {
    packets(&tone(2_650.0 + seed as f64 * 0.41, 9_000.0, 8_000, PART * FRAME))
}

/// A live call whose client speaks, the same on both tracks.
struct Call<'a> {
    appliance: &'a Appliance,
    facts: Facts,
    offer: Offer,
    client: Client,
    speaker: Speaker,
}

impl<'a> Call<'a> {
    fn begin(appliance: &'a Appliance, number: u32) -> Self {
        let facts = Facts::incoming(number);
        let offer = Offer::two(appliance.place.ip);
        let mut client = Client::udp(appliance.sip());
        let media = client.call(&webex_offering(&facts, &offer.text()));
        Self { appliance, facts, offer, client, speaker: Speaker::start(&media) }
    }

    /// Says something; the number of the packet that it began with.
    fn say(&self, said: &[Vec<u8>]) -> usize {
        self.speaker.say_all(&[said, said])
    }

    /// Says at once what is not to be kept.
    fn say_secret(&self, said: &[Vec<u8>]) {
        self.speaker.say_now(&[said, said]);
    }

    /// What the list of live calls has of it.
    fn listed(&self) -> Value {
        wait_for("the call in the list", || {
            let calls = self.appliance.get("/v1/calls")["calls"].as_array().unwrap().clone();
            calls.into_iter().find(|call| call["local_number"] == self.facts.local_number.as_str())
        })
    }

    fn id(&self) -> String {
        self.listed()["id"].as_str().unwrap().to_owned()
    }

    /// Controls the call and gives the answer, which must be a good one.
    fn control(&self, id: &str, action: &str) -> Value {
        let response = self.appliance.ask("POST", &format!("/v1/calls/{id}/{action}"));
        assert_eq!(response.status, 200, "{action}: {}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// The client says something about its media.
    fn tell(&mut self, direction: &'static str) {
        self.offer = self.offer.next(|offer| offer.direct(Some(direction)));
        assert_eq!(self.client.reinvite(&self.offer.text()).status, 200);
    }

    fn end(self) {
        drop(self.speaker);
        self.client.bye();
    }
}

fn check_nothing_of(appliance: &Appliance, recording: &Value, secrets: &[&[Vec<u8>]]) {
    for label in ["1", "2"] {
        let archived = archived_packets(appliance, recording, label);
        let found = archived.iter().filter(|(_, packet)| secrets.concat().contains(&packet.payload)).count();
        assert_eq!(found, 0, "packets that are not to be kept are in the archive");
    }
}

fn check_channels(appliance: &Appliance, recording: &Value, parts: &[(&[Vec<u8>], usize)]) {
    for (n, channel) in appliance.wav(recording).channels.iter().enumerate() {
        check_parts(channel, parts, SLACK, &format!("channel {n}"));
    }
}

#[test]
fn a_pause_by_control_takes_hold_at_once_and_the_client_cannot_end_it() {
    let appliance = Appliance::start(AS_RECEIVED);
    let mut call = Call::begin(&appliance, 1);
    let (first, second) = (voice(1), voice(2));
    let secrets = [secret(1), secret(2), secret(3), secret(4)];
    let began = call.say(&first);
    let id = call.id();
    let answer = call.control(&id, "pause");
    call.say_secret(&secrets[0]);
    assert_eq!(
        (&answer["id"], &answer["state"], &answer["paused_by"]),
        (&json!(id), &json!("paused"), &json!(["control"]))
    );
    assert_eq!(call.control(&id, "pause")["state"], "paused", "said twice is the same as once");
    // The client says that it sends: it is not the one who decides that.
    call.tell("sendonly");
    call.say_secret(&secrets[1]);
    // Both pause; whoever resumes first resumes nothing.
    call.tell("inactive");
    call.say_secret(&secrets[2]);
    let answer = call.control(&id, "resume");
    assert_eq!((&answer["state"], &answer["paused_by"]), (&json!("paused"), &json!(["client"])));
    call.say_secret(&secrets[3]);
    call.tell("sendonly");
    let again = call.say(&second);
    assert_eq!(call.listed()["state"], "recording");
    let facts = call.facts.clone();
    call.end();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    check_nothing_of(&appliance, &recording, &secrets.each_ref().map(Vec::as_slice));
    check_channels(&appliance, &recording, &[(&first, began), (&second, again)]);
    assert!(archived_pauses(&appliance, &recording).iter().all(|pauses| !pauses.is_empty()));
}

#[test]
fn a_stop_ends_the_recording_and_not_the_call_and_a_start_begins_another() {
    let appliance = Appliance::start(AS_RECEIVED);
    let call = Call::begin(&appliance, 2);
    let (first, second, unheard) = (voice(3), voice(4), secret(5));
    let began = call.say(&first);
    let id = call.id();
    assert_eq!(call.control(&id, "stop")["state"], "stopped");
    call.say_secret(&unheard);
    // It is a recording like any other while the call goes on.
    let stopped = appliance.archived_by_id(&id);
    assert_eq!(stopped["verdict"], "ok", "{stopped:#}");
    for action in ["pause", "resume"] {
        let response = appliance.ask("POST", &format!("/v1/calls/{id}/{action}"));
        assert_eq!((action, response.status), (action, 409));
    }
    let started = call.control(&id, "start");
    assert_eq!(started["state"], "recording");
    let later = started["id"].as_str().unwrap().to_owned();
    assert_ne!(later, id);
    let again = call.say(&second);
    call.end();
    let later = appliance.archived_by_id(&later);
    assert_eq!(later["verdict"], "ok", "{later:#}");
    let stopped = appliance.archived_by_id(&id);
    assert_eq!((&stopped["linked"], &later["linked"]), (&json!([later["id"]]), &json!([stopped["id"]])));
    assert_eq!((&later["call_id"], &later["local_name"]), (&stopped["call_id"], &stopped["local_name"]));
    for (recording, part) in [(&stopped, (&first[..], began)), (&later, (&second[..], again))] {
        check_nothing_of(&appliance, recording, &[&unheard]);
        check_channels(&appliance, recording, &[part]);
    }
    appliance.assert_verifies();
}

/// The row of a call that is not archived.
fn discarded(appliance: &Appliance, id: &str) -> Value {
    wait_for("the row", || Some(appliance.ask("GET", &format!("/v1/recordings/{id}"))).filter(|r| r.status == 200))
        .json()
}

#[test]
fn on_demand_and_not_asked_for_is_gone_for_ever() {
    let appliance = Appliance::start(ON_DEMAND);
    let call = Call::begin(&appliance, 3);
    let said = voice(5);
    call.say(&said);
    let listed = call.listed();
    assert_eq!((&listed["state"], &listed["kept"]), (&json!("on-demand"), &json!(false)), "{listed:#}");
    let id = call.id();
    let number = call.facts.local_number.clone();
    call.end();
    let row = discarded(&appliance, &id);
    assert_eq!(row["verdict"], "discarded", "{row:#}");
    let lanes = lanes_of(&appliance, &row);
    assert!(!lanes.is_empty() && lanes.iter().map(|lane| lane.bytes).sum::<u64>() > 0, "the audio is in the journal");
    for lane in &lanes {
        assert!(!lane.has_key, "a key to it is in the journal");
        assert!(matches!(lane.end, Some(LaneEnd::Discarded)), "{:?}", lane.end);
    }
    let audio = appliance.ask("GET", &format!("/v1/recordings/{id}/audio?format=wav"));
    assert_ne!(audio.status, 200);
    assert!(!row.to_string().contains(&number), "the row says nothing of who called: {row:#}");
}

/// A way to ask for a call (by its recording's id) to be kept, with its name.
type Way<'a> = (&'a str, &'a dyn Fn(&mut Call<'_>, &str));

#[test]
fn on_demand_and_asked_for_is_kept_from_its_beginning() {
    let by_control = |call: &mut Call<'_>, id: &str| {
        assert_eq!(call.control(id, "keep")["kept"], true);
        assert_eq!(call.control(id, "keep")["kept"], true, "kept once is kept");
    };
    let by_start = |call: &mut Call<'_>, id: &str| assert_eq!(call.control(id, "start")["kept"], true);
    let by_metadata = |call: &mut Call<'_>, _: &str| {
        let metadata = webex_metadata(&call.facts).replace("<recordingType>on<", "<recordingType>keep<");
        let headers = "Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n";
        assert_eq!(call.client.ask("UPDATE", headers, metadata.as_bytes()).status, 200);
    };
    let by_ctl = |call: &mut Call<'_>, id: &str| {
        let output = call.appliance.ctl(&["calls", "keep", id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let ways: [Way<'_>; 4] =
        [("control", &by_control), ("start", &by_start), ("metadata", &by_metadata), ("callvaultctl", &by_ctl)];
    let appliance = Appliance::start(ON_DEMAND);
    for (number, (way, keep)) in (10..).zip(ways) {
        let mut call = Call::begin(&appliance, number);
        let said = [voice(u64::from(number)), voice(u64::from(number) + 10)];
        let began = call.say(&said[0]);
        let id = call.id();
        keep(&mut call, &id);
        wait_for(way, || (call.listed()["kept"] == true).then_some(()));
        let went_on = call.say(&said[1]);
        call.end();
        let recording = appliance.archived_by_id(&id);
        assert_eq!((way, recording["verdict"].as_str()), (way, Some("ok")), "{recording:#}");
        check_channels(&appliance, &recording, &[(&said[0], began), (&said[1], went_on)]);
    }
}

#[test]
fn pauses_by_control_are_written_down_as_such_and_ctl_can_ask_for_them() {
    let appliance = Appliance::start("[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n");
    rig::appliance::keep_from_archiving(&appliance);
    let call = Call::begin(&appliance, 20);
    call.say(&voice(20));
    let id = call.id();
    for action in ["pause", "resume"] {
        let output = appliance.ctl(&["calls", action, &id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let facts = call.facts.clone();
    call.end();
    let recording = appliance.recording(&facts.call_id);
    let by =
        lanes_of(&appliance, &recording).into_iter().flat_map(|lane| lane.events).filter_map(|event| match event {
            SessionEvent::Paused(pause) => Some(("paused", pause.track, pause.by)),
            SessionEvent::Resumed(pause) => Some(("resumed", pause.track, pause.by)),
            _ => None,
        });
    let expected = ["paused", "resumed"].map(|what| (what, None, "control".to_owned()));
    assert_eq!(by.collect::<Vec<_>>(), expected);
    let nobody = "01900000-0000-7000-8000-000000000001";
    for action in ["pause", "resume", "stop", "start", "keep"] {
        assert_eq!(appliance.ask("POST", &format!("/v1/calls/{nobody}/{action}")).status, 404, "{action}");
        assert!(!appliance.ctl(&["calls", action, nobody]).status.success(), "{action}");
    }
    assert_eq!(appliance.ask("POST", &format!("/v1/calls/{nobody}/burn")).status, 404);
    assert_eq!(appliance.ask("GET", &format!("/v1/calls/{nobody}/pause")).status, 405);
}
