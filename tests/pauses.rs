//! What is said in a pause is nowhere: not in the journal, not in the archive, not in any export. However the client says it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::HashSet;
use std::thread;
use std::time::Instant;

use callvault_journal::facts::SessionEvent;
use rig::inspect::{archived_packets, archived_pauses, lanes_of};
use rig::offer::{Offer, connection};
use rig::shapes::{Facts, multipart, webex_metadata, webex_offering};
use rig::sip::{Client, Invite};
use rig::sound::{FRAME, check_parts, decoded, from_ulaw, packets, position, speech, tone, tone_level};
use rig::speaker::Speaker;
use rig::srtp::{SUITE, key, send};
use rig::{Appliance, wait_for};
use serde_json::Value;

/// What is said before, in and after a pause, in packets.
const BEFORE: usize = 25;
const DURING: usize = 40;
const AFTER: usize = 25;

/// What is said in a pause is a tone that no voice of the rig has.
const TONE_HZ: f64 = 2_700.0;
const TONE_AMPLITUDE: f64 = 9_000.0;

/// Loudest that the tone's frequency may be in an export: what a lossy codec smears there of a voice.
const TRACE_MAX: f64 = TONE_AMPLITUDE / 30.0;

/// By how much a pause may be longer or shorter in the recording than it was.
const TOLERANCE_MS: u64 = 40;

/// How a message of the client's comes.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Reinvite,
    /// RFC 3311.
    Update,
    /// A re-INVITE with the metadata beside the session description.
    Multipart,
}

/// A way to pause a call, and to resume it.
struct Spelling {
    name: &'static str,
    by: By,
    /// What the first offer says; with it, a call may begin paused.
    first: fn(&mut Offer),
    pause: fn(&mut Offer),
    resume: fn(&mut Offer),
    /// Which tracks it pauses.
    paused: [bool; 2],
}

const PLAIN: Spelling = Spelling {
    name: "",
    by: By::Reinvite,
    first: |_| {},
    pause: |_| {},
    resume: |offer| {
        let ip = offer.ip;
        offer.address = Some(connection(ip));
        offer.direct(Some("sendonly"));
    },
    paused: [true, true],
};

fn inactive(offer: &mut Offer) {
    offer.direct(Some("inactive"));
}

fn nowhere(offer: &mut Offer) {
    offer.address = Some("IN IP4 0.0.0.0".into());
}

const SPELLINGS: &[Spelling] = &[
    Spelling { name: "a=inactive", pause: inactive, ..PLAIN },
    Spelling {
        name: "a=inactive and c=0.0.0.0",
        pause: |offer| {
            inactive(offer);
            nowhere(offer);
        },
        ..PLAIN
    },
    Spelling { name: "c=0.0.0.0, sendonly all the same", pause: nowhere, ..PLAIN },
    Spelling {
        name: "c=0.0.0.0 without a direction, resumed with an address and no direction",
        pause: |offer| {
            offer.direct(None);
            nowhere(offer);
        },
        resume: |offer| offer.address = Some(connection(offer.ip)),
        ..PLAIN
    },
    Spelling {
        name: "no direction from the beginning, then inactive, then none again",
        first: |offer| offer.direct(None),
        pause: inactive,
        resume: |offer| offer.direct(None),
        ..PLAIN
    },
    Spelling {
        name: "c=0.0.0.0 on each line",
        pause: |offer| offer.lines.iter_mut().for_each(|line| line.address = Some("IN IP4 0.0.0.0".into())),
        resume: |offer| offer.lines.iter_mut().for_each(|line| line.address = None),
        ..PLAIN
    },
    Spelling { name: "c=::", pause: |offer| offer.address = Some("IN IP6 ::".into()), ..PLAIN },
    Spelling {
        name: "a=inactive for the whole session",
        pause: |offer| {
            offer.direct(None);
            offer.direction = Some("inactive");
        },
        resume: |offer| offer.direction = Some("sendonly"),
        ..PLAIN
    },
    Spelling { name: "a=recvonly", pause: |offer| offer.direct(Some("recvonly")), ..PLAIN },
    Spelling {
        name: "port 0 on both lines, and back",
        pause: |offer| offer.lines.iter_mut().for_each(|line| line.port = 0),
        resume: |offer| offer.lines.iter_mut().zip([30_000, 30_002]).for_each(|(line, port)| line.port = port),
        ..PLAIN
    },
    Spelling {
        name: "port 0 on the second line, and back",
        pause: |offer| offer.lines[1].port = 0,
        resume: |offer| offer.lines[1].port = 30_002,
        paused: [false, true],
        ..PLAIN
    },
    Spelling {
        name: "a=inactive on the second line alone",
        pause: |offer| offer.lines[1].direction = Some("inactive"),
        resume: |offer| offer.lines[1].direction = Some("sendonly"),
        paused: [false, true],
        ..PLAIN
    },
    Spelling {
        name: "as BroadWorks pauses and resumes: one codec is left, c=0.0.0.0 and no direction, then the address again",
        first: |offer| {
            offer
                .lines
                .iter_mut()
                .for_each(|line| line.formats = vec![(0, "PCMU/8000"), (8, "PCMA/8000"), (9, "G722/8000")]);
        },
        pause: |offer| {
            offer.lines.iter_mut().for_each(|line| line.formats = vec![(0, "")]);
            offer.direct(None);
            nowhere(offer);
        },
        resume: |offer| offer.address = Some(connection(offer.ip)),
        ..PLAIN
    },
    Spelling { name: "a=inactive in an UPDATE", by: By::Update, pause: inactive, ..PLAIN },
    Spelling { name: "a=inactive with all metadata", by: By::Multipart, pause: inactive, ..PLAIN },
    Spelling { name: "paused from the beginning", first: inactive, pause: inactive, ..PLAIN },
];

/// Something that was said on both tracks.
type Said = [Vec<Vec<u8>>; 2];

fn voices(seed: u64, length: usize) -> Said {
    [(seed, 120.0), (seed + 1, 210.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, length * FRAME)))
}

/// The tone; no two of its packets are the same, and none is like those of another call.
fn secret(number: u32) -> Vec<Vec<u8>> {
    let frequency = TONE_HZ + f64::from(number) * 0.37;
    packets(&tone(frequency, TONE_AMPLITUDE, 8_000, DURING * FRAME))
}

/// A call with a pause as it was made.
struct Paused {
    facts: Facts,
    before: Said,
    after: Said,
    /// What was said on a track that was not paused.
    meanwhile: Vec<Vec<u8>>,
    secret: Vec<Vec<u8>>,
    /// Number of the packet that each part began with.
    at: [usize; 3],
    /// Shortest and longest that the pause can have been, in milliseconds.
    length_ms: [u64; 2],
    paused: [bool; 2],
    /// An archive's time begins with the first sound, so a pause before it is none there.
    begins_paused: bool,
}

/// The client says something new about the media, in its way.
fn tell(client: &mut Client, by: By, facts: &Facts, offer: &Offer) {
    let sdp = offer.text();
    let answer = match by {
        By::Reinvite => client.reinvite(&sdp),
        By::Update => client.ask("UPDATE", "Content-Type: application/sdp\r\n", sdp.as_bytes()),
        By::Multipart => {
            let metadata = webex_metadata(facts);
            let parts =
                [("application/rs-metadata+xml", "Content-Disposition:recording-session\r\n", metadata.as_str())];
            let body = multipart(&[parts[0], ("application/sdp", "", &sdp)]).into_bytes();
            let content_type = "multipart/mixed;boundary=UniqueBroadWorksBoundary".into();
            client.invite(&Invite { from: "<sip:x@127.0.0.1>".into(), headers: String::new(), content_type, body })
        }
    };
    assert_eq!(answer.status, 200, "{}", answer.head);
}

/// Makes a call with a pause in it.
fn make_call(appliance: &Appliance, number: u32, spelling: &Spelling) -> Paused {
    let facts = Facts::incoming(number);
    let seed = u64::from(number) * 10;
    let (before, after) = (voices(seed, BEFORE), voices(seed + 2, AFTER));
    let [meanwhile, _] = voices(seed + 4, DURING);
    let secret = secret(number);
    let mut offer = Offer::two(appliance.place.ip);
    (spelling.first)(&mut offer);
    let begins_paused = offer.lines.iter().any(|line| line.direction == Some("inactive"));

    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let speaker = Speaker::start(&media);
    let say = |said: &Said| speaker.say_all(&[&said[0], &said[1]]);
    let first = if begins_paused { 0 } else { say(&before) };

    let asked = Instant::now();
    offer = offer.next(spelling.pause);
    tell(&mut client, spelling.by, &facts, &offer);
    let paused = Instant::now();
    // Once the pause is confirmed, nothing of what comes may be kept: not even what comes at once.
    let second = speaker.say_now(&spelling.paused.map(|paused| if paused { &secret[..] } else { &meanwhile[..] }));
    offer = offer.next(spelling.resume);
    let shortest = paused.elapsed();
    tell(&mut client, spelling.by, &facts, &offer);
    let longest = asked.elapsed();
    let third = say(&after);
    drop(speaker);
    client.bye();

    let before = if begins_paused { [Vec::new(), Vec::new()] } else { before };
    let length_ms = [shortest, longest].map(|length| length.as_millis() as u64);
    let (at, paused) = ([first, second, third], spelling.paused);
    Paused { facts, before, after, meanwhile, secret, at, length_ms, paused, begins_paused }
}

impl Paused {
    fn is_secret(&self, payloads: impl IntoIterator<Item = Vec<u8>>) -> usize {
        let secret: HashSet<&Vec<u8>> = self.secret.iter().collect();
        payloads.into_iter().filter(|payload| secret.contains(payload)).count()
    }

    /// In each channel is what was said outside of the pause, in its place, and nothing else.
    fn check_exact(&self, channels: &[Vec<i16>], what: &str) {
        for (n, channel) in channels.iter().enumerate() {
            let [first, second, third] = self.at;
            let meanwhile = if self.paused[n] { &[][..] } else { &self.meanwhile[..] };
            let parts = [(&self.before[n][..], first), (meanwhile, second), (&self.after[n][..], third)];
            // Behind a pause the time of arrival says where the audio goes on.
            let slack = if self.paused[n] { 8 * TOLERANCE_MS as usize } else { 0 };
            check_parts(channel, &parts, slack, &format!("{what}, channel {n}"));
        }
    }

    fn check_pauses(&self, pauses: &[Vec<(u64, u64)>], what: &str) {
        for (n, pauses) in pauses.iter().enumerate() {
            let lengths: Vec<u64> = pauses.iter().map(|(from, to)| to - from).collect();
            let [shortest, longest] = self.length_ms;
            let fits = |length: &u64| (shortest.saturating_sub(TOLERANCE_MS)..=longest + TOLERANCE_MS).contains(length);
            let expected = usize::from(self.paused[n] && !self.begins_paused);
            assert_eq!(lengths.len(), expected, "{what}, pauses of track {n}: {lengths:?}");
            assert!(lengths.iter().all(fits), "{what}: {lengths:?} ms on record, {shortest} to {longest} in truth");
        }
    }
}

/// No tone in what is exported, whatever the format.
fn check_exports(appliance: &Appliance, recording: &Value, what: &str) {
    for format in ["wav", "mp3", "opus"] {
        for (n, channel) in exported(appliance, recording, format).iter().enumerate() {
            let level = tone_level(channel, 8_000, TONE_HZ);
            assert!(level < TRACE_MAX, "{what}, {format}, channel {n}: the tone is there with {level:.0}");
        }
    }
}

fn exported(appliance: &Appliance, recording: &Value, format: &str) -> Vec<Vec<i16>> {
    let id = recording["id"].as_str().unwrap();
    let response = appliance.ask("GET", &format!("/v1/recordings/{id}/audio?format={format}"));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    decoded(&response.body, 8_000, 2)
}

fn appliance(codec: &str) -> Appliance {
    Appliance::start(&format!("[archive]\ncodec = \"{codec}\"\n[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n"))
}

/// The recording once its first attempt at an archive has failed, so that it is in the journal alone.
fn in_journal(appliance: &Appliance, call_id: &str) -> Value {
    wait_for("the archive that fails", || {
        Some(appliance.recording(call_id)).filter(|recording| recording["archive"]["state"] == "failed")
    })
}

fn archive(appliance: &Appliance, recording: &Value, call_id: &str) -> Value {
    let job = format!("/v1/jobs/archive:{}/retry", recording["id"].as_str().unwrap());
    assert_eq!(appliance.ask("POST", &job).status, 200);
    appliance.archived(call_id)
}

/// All spellings beside each other, first played from the journal, then archived.
fn every_spelling(codec: &str) {
    let appliance = appliance(codec);
    rig::appliance::keep_from_archiving(&appliance);
    let calls: Vec<Paused> = thread::scope(|scope| {
        let make = |(number, spelling)| {
            scope.spawn({
                let appliance = &appliance;
                move || make_call(appliance, number, spelling)
            })
        };
        let made: Vec<_> = (1..).zip(SPELLINGS).map(make).collect();
        made.into_iter().zip(SPELLINGS).map(|(made, s)| made.join().unwrap_or_else(|_| panic!("{}", s.name))).collect()
    });
    let calls = || calls.iter().zip(SPELLINGS);
    for (call, Spelling { name, .. }) in calls() {
        let recording = in_journal(&appliance, &call.facts.call_id);
        assert_eq!(recording["verdict"], "ok", "{name}: {recording:#}");
        let lanes = lanes_of(&appliance, &recording);
        let payloads = lanes.iter().flat_map(|lane| lane.packets.iter().map(|(_, payload)| payload.clone()));
        assert_eq!(call.is_secret(payloads), 0, "{name}: packets of the pause are in the journal");
        call.check_exact(&appliance.wav(&recording).channels, &format!("{name}, from the journal"));
    }
    rig::appliance::let_archive(&appliance);
    for (call, Spelling { name, .. }) in calls() {
        let recording = archive(&appliance, &appliance.recording(&call.facts.call_id), &call.facts.call_id);
        if codec == "as-received" {
            for label in ["1", "2"] {
                let archived = archived_packets(&appliance, &recording, label);
                let found = call.is_secret(archived.into_iter().map(|(_, packet)| packet.payload));
                assert_eq!(found, 0, "{name}: packets of the pause are in the archive");
            }
            call.check_exact(&appliance.wav(&recording).channels, &format!("{name}, from the archive"));
        }
        check_exports(&appliance, &recording, name);
        call.check_pauses(&archived_pauses(&appliance, &recording), name);
    }
    appliance.assert_verifies();
}

#[test]
fn nothing_of_a_pause_is_kept_when_payloads_are() {
    every_spelling("as-received");
}

#[test]
fn nothing_of_a_pause_is_kept_when_payloads_are_encoded() {
    every_spelling("opus");
}

#[test]
fn what_these_tests_look_for_is_found_where_there_is_no_pause() {
    let appliance = appliance("as-received");
    let spelling = Spelling { name: "no pause", pause: |_| {}, ..PLAIN };
    let call = make_call(&appliance, 90, &spelling);
    let recording = appliance.archived(&call.facts.call_id);
    let archived = archived_packets(&appliance, &recording, "1").into_iter().map(|(_, packet)| packet.payload);
    assert_eq!(call.is_secret(archived), DURING);
    for format in ["wav", "mp3", "opus"] {
        let level = tone_level(&exported(&appliance, &recording, format)[0], 8_000, TONE_HZ);
        assert!(level > TONE_AMPLITUDE / 2.0, "{format}: {level:.0}");
    }
    assert_eq!(archived_pauses(&appliance, &recording), [vec![], vec![]]);
}

#[test]
fn a_hold_just_before_the_end_keeps_what_comes_after_it_out() {
    let appliance = appliance("as-received");
    let facts = Facts::incoming(91);
    let (before, secret) = (voices(910, BEFORE), secret(91));
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let speaker = Speaker::start(&media);
    speaker.say_all(&[&before[0], &before[1]]);
    tell(&mut client, By::Reinvite, &facts, &offer.next(inactive));
    let second = speaker.say_all(&[&secret[..5], &secret[..5]]);
    client.bye();
    drop(speaker);
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let call = Paused {
        facts,
        before,
        after: [Vec::new(), Vec::new()],
        meanwhile: Vec::new(),
        secret,
        at: [0, second, second],
        length_ms: [0, 1_000],
        paused: [false, false],
        begins_paused: false,
    };
    call.check_exact(&appliance.wav(&recording).channels, "hold before the end");
    let archived = archived_packets(&appliance, &recording, "1").into_iter().map(|(_, packet)| packet.payload);
    assert_eq!(call.is_secret(archived), 0);
}

#[test]
fn a_pause_has_its_length_when_another_source_goes_on_after_it() {
    let appliance = appliance("as-received");
    let facts = Facts::incoming(92);
    let (before, after) = (voices(920, BEFORE), voices(922, AFTER));
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let speaker = Speaker::start(&media);
    let first = speaker.say_all(&[&before[0], &before[1]]);
    let paused = offer.next(inactive);
    tell(&mut client, By::Reinvite, &facts, &paused);
    for track in 0..2 {
        speaker.fill(track, None);
        speaker.redirect(track, |_, source| {
            *source = source.clone().beginning_at(60_000, 99);
            source.ssrc += 0x0100_0000;
        });
    }
    thread::sleep(rig::rtp::PACKET * DURING as u32);
    tell(&mut client, By::Reinvite, &facts, &paused.next(PLAIN.resume));
    let third = speaker.say_all(&[&after[0], &after[1]]);
    drop(speaker);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let truth = (third - first) * FRAME;
    for (n, channel) in appliance.wav(&recording).channels.iter().enumerate() {
        let begin = position(channel, &from_ulaw(&before[n].concat())).expect("what was said before the pause");
        let again = position(channel, &from_ulaw(&after[n].concat())).expect("what was said after it");
        let between = again - begin;
        assert!(
            between.abs_diff(truth) <= 8 * TOLERANCE_MS as usize,
            "channel {n}: {between} samples, {truth} in truth"
        );
    }
}

#[test]
fn pauses_are_written_down_with_who_asked_for_them() {
    let appliance = appliance("as-received");
    rig::appliance::keep_from_archiving(&appliance);
    let spelling = SPELLINGS.iter().find(|spelling| spelling.paused == [false, true]).unwrap();
    let call = make_call(&appliance, 93, spelling);
    let recording = in_journal(&appliance, &call.facts.call_id);
    let lanes = lanes_of(&appliance, &recording);
    let told: Vec<(bool, Option<u8>, &str)> = lanes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::Paused(pause) => Some((true, pause.track, pause.by.as_str())),
            SessionEvent::Resumed(pause) => Some((false, pause.track, pause.by.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(true, Some(1), "client"), (false, Some(1), "client")]);
    let paused_ms: Vec<u64> = (0..2).map(|n| recording["tracks"][n]["paused_ms"].as_u64().unwrap()).collect();
    let [shortest, longest] = call.length_ms;
    assert_eq!(paused_ms[0], 0);
    assert!((shortest.saturating_sub(TOLERANCE_MS)..=longest + TOLERANCE_MS).contains(&paused_ms[1]), "{paused_ms:?}");
}

#[test]
fn nothing_of_a_pause_is_kept_when_the_audio_is_secured() {
    let appliance = appliance("as-received");
    let facts = Facts::incoming(94);
    let (before, after, secret) = (voices(940, BEFORE), voices(942, AFTER), secret(94));
    let keys = [key(94), key(95)];
    let mut offer = Offer::two(appliance.place.ip);
    for (line, key) in offer.lines.iter_mut().zip(&keys) {
        line.profile = "RTP/SAVP";
        line.attributes.push(format!("a=crypto:1 {SUITE} inline:{key}"));
    }
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    // Each part is a source of its own: ffmpeg begins anew.
    let say = |said: [&[Vec<u8>]; 2]| {
        let senders: Vec<_> =
            media.iter().zip(&keys).zip(said).map(|((to, key), said)| send(*to, key, said.concat())).collect();
        senders.into_iter().for_each(|mut sender| assert!(sender.wait().unwrap().success(), "ffmpeg failed"));
    };
    say([&before[0], &before[1]]);
    let paused = offer.next(inactive);
    tell(&mut client, By::Reinvite, &facts, &paused);
    say([&secret, &secret]);
    tell(&mut client, By::Reinvite, &facts, &paused.next(PLAIN.resume));
    say([&after[0], &after[1]]);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    for (n, channel) in appliance.wav(&recording).channels.iter().enumerate() {
        let mut silent = channel.clone();
        for said in [&before[n], &after[n]] {
            let heard = from_ulaw(&said.concat());
            let at = position(channel, &heard).expect("what was said outside of the pause is there to the sample");
            silent[at..at + heard.len()].fill(0);
        }
        assert!(silent.iter().all(|sample| *sample == 0), "channel {n} has more than was said outside of the pause");
    }
    check_exports(&appliance, &recording, "secured");
}
