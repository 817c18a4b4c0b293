//! What clients do in the middle of a call: SIPp, whose SIP is not ours, signals and sends; what must repeat or cross itself on the wire
//! comes from the rig's own client. One session is one row, whatever happens in it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::time::Duration;

use rig::inspect::archived_packets;
use rig::offer::{Line, Offer};
use rig::rtp::{Source, play, play_ulaw};
use rig::shapes::{Facts, Webex, multipart, rfc7865_metadata, webex, webex_metadata, webex_offering};
use rig::sip::{Client, Invite};
use rig::sipp::Script;
use rig::sound::{FRAME, find_exact, from_ulaw, g722, opus, packets, position, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for, wait_until};
use serde_json::Value;

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";
const MULTIPART: &str = "multipart/mixed;boundary=UniqueBroadWorksBoundary";
/// Length of a part of a call in packets.
const PART: usize = 25;

fn voice(seed: u64, length: usize) -> Vec<Vec<u8>> {
    packets(&speech(seed, 110.0 + seed as f64 * 7.0, 8_000, length * FRAME))
}

/// A session description and metadata in one body.
fn both(sdp: &str, metadata: &str) -> String {
    multipart(&[
        ("application/rs-metadata+xml", "Content-Disposition:recording-session\r\n", metadata),
        ("application/sdp", "", sdp),
    ])
}

/// The appliance's only recording, once nothing is to be done for it any more.
fn only(appliance: &Appliance) -> Value {
    wait_until("the call is over", || appliance.get("/v1/calls")["calls"].as_array().unwrap().is_empty());
    let recording = wait_for("its row", || {
        appliance.recordings().into_iter().next().filter(|row| match row["verdict"].as_str() {
            Some("no-media" | "discarded") => true,
            _ => row["archive"]["state"] == "archived",
        })
    });
    assert_eq!(appliance.recordings().len(), 1, "one session is one row");
    appliance.assert_verifies();
    recording
}

fn tracks(recording: &Value) -> Vec<(&str, &str, u64, u64, u64)> {
    let number = |track: &Value, name: &str| track[name].as_u64().unwrap();
    let of = |track| -> (&str, &str, u64, u64, u64) {
        let track: &Value = track;
        let (label, codec) = (track["label"].as_str().unwrap(), track["codec"].as_str().unwrap());
        (label, codec, number(track, "packets"), number(track, "lost"), number(track, "duplicates"))
    };
    recording["tracks"].as_array().unwrap().iter().map(of).collect()
}

fn codes(recording: &Value) -> Vec<&str> {
    recording["flaws"].as_array().unwrap().iter().map(|flaw| flaw["code"].as_str().unwrap()).collect()
}

/// A good recording of these tracks (label, codec, packets), without loss and without a flaw.
fn check_good(recording: &Value, expected: &[(&str, &str, usize)]) {
    assert_eq!((recording["verdict"].as_str(), codes(recording)), (Some("ok"), vec![]), "{recording:#}");
    let expected: Vec<_> = expected.iter().map(|(label, codec, count)| (*label, *codec, *count as u64, 0, 0)).collect();
    assert_eq!(tracks(recording), expected, "{recording:#}");
}

/// That each channel is exactly what was said on it, as far as anything was.
fn check_heard(appliance: &Appliance, recording: &Value, channels: &[&[&[Vec<u8>]]]) {
    let wav = appliance.wav(recording);
    assert_eq!(wav.channels.len(), channels.len());
    for (n, (channel, said)) in wav.channels.iter().zip(channels).enumerate() {
        find_exact(channel, &from_ulaw(&said.concat().concat())).unwrap_or_else(|error| panic!("channel {n}: {error}"));
    }
}

const FROM: &str = "\"Ludovica Ferrante\"<sip:+390508600001@198.51.100.7;user=phone>";

#[test]
fn updates_with_metadata_alone_change_the_facts_and_no_audio() {
    for transport in ["u1", "t1"] {
        let appliance = Appliance::start(AS_RECEIVED);
        let (a, b) = (voice(1, 2 * PART), voice(2, 2 * PART));
        let known = [("1", "sip:+390508600001@example.com", "Ludovica"), ("2", "sip:anonymous@invalid", "")];
        let later = [known[0], ("2", "sip:+49307700002@example.net", "Edda Sommer")];
        let mut call = Script::new(FROM);
        call.invite(
            "Require: siprec\r\n",
            MULTIPART,
            &both(&Offer::two(appliance.place.ip).text(), &rfc7865_metadata("u", &known)),
        );
        call.play(&[&a[..PART], &b[..PART]]);
        let metadata = rfc7865_metadata("u", &later);
        call.update(&metadata).update(&metadata);
        call.play(&[&a[PART..], &b[PART..]]).run(&appliance, transport);
        let recording = only(&appliance);
        check_good(&recording, &[("1", "PCMU", 2 * PART), ("2", "PCMU", 2 * PART)]);
        assert_eq!(
            (&recording["remote_number"], &recording["remote_name"]),
            (&"+49307700002".into(), &"Edda Sommer".into())
        );
        check_heard(&appliance, &recording, &[&[&a], &[&b]]);
    }
}

#[test]
fn a_codec_changes_twice_in_a_call() {
    let appliance = Appliance::start(AS_RECEIVED);
    let wide = speech(5, 140.0, 16_000, PART * 320);
    let full = speech(6, 150.0, 48_000, PART * 960);
    let parts = [(0, 160, voice(4, PART)), (9, 160, g722(&wide)), (98, 960, opus(&full))];
    let formats = [(0, "PCMU/8000"), (9, "G722/8000"), (98, "opus/48000/2")];
    let mut offer = Offer::two(appliance.place.ip);
    let mut call = Script::new(FROM);
    for (n, ((payload_type, step, said), format)) in parts.iter().zip(formats).enumerate() {
        offer = offer.next(|offer| offer.lines.iter_mut().for_each(|line| line.formats = vec![format]));
        match n {
            0 => call.invite("", MULTIPART, &both(&offer.text(), &webex_metadata(&Facts::incoming(3)))),
            _ => call.invite("", "application/sdp", &offer.text()),
        };
        for source in &mut call.sources {
            (source.payload_type, source.step) = (*payload_type, *step);
        }
        call.play(&[said, said]);
    }
    call.run(&appliance, "u1");
    let recording = only(&appliance);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    for (track, label) in tracks(&recording).into_iter().zip(["1", "2"]) {
        assert_eq!((track.0, track.2, track.3, track.4), (label, 3 * PART as u64, 0, 0), "{recording:#}");
        let archived = archived_packets(&appliance, &recording, label);
        let archived: Vec<_> = archived.iter().map(|(codec, p)| (codec.to_lowercase(), p.payload.clone())).collect();
        let sent = parts.iter().zip(["pcmu", "g722", "opus"]);
        let sent: Vec<_> =
            sent.flat_map(|((.., said), codec)| said.iter().map(|p| (codec.to_owned(), p.clone()))).collect();
        assert!(archived == sent, "every payload is there with the codec that it was sent in");
    }
    // All of it can be played: at the highest of the three rates. Where the clock changes, the time of arrival counts, so the
    // moments in which the client signalled and sent nothing are there too.
    let wav = appliance.wav(&recording);
    let (played_ms, lasted_ms) =
        (wav.samples() * 1_000 / wav.rate, recording["duration_ms"].as_u64().unwrap() as usize);
    assert_eq!(wav.rate, 48_000);
    assert!((3 * PART * 20..=lasted_ms + 40).contains(&played_ms), "{played_ms} ms, of a call of {lasted_ms} ms");
}

#[test]
fn audio_that_moves_to_another_port_and_address_goes_on() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(5);
    let said = [voice(7, PART), voice(8, PART)];
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    for (part, ssrc) in [(0_u16, 0x11_u32), (1, 0x11), (2, 0x77)] {
        if part > 0 {
            let moved = offer.next(|offer| offer.lines.iter_mut().for_each(|line| line.port += 100 * part));
            assert_eq!(client.reinvite(&Offer { version: 1 + u32::from(part), ..moved }.text()).audio_ports().len(), 2);
        }
        // Every part from sockets of its own; the last from other sources too.
        let first = u32::from(part) * PART as u32;
        let source = |n: u32| Source::new(ssrc + n, 0, 160).beginning_at(first as u16, first * 160);
        play(&media, &mut [(source(0), &said[0][..]), (source(0x1000), &said[1][..])]);
    }
    client.bye();
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", 3 * PART), ("2", "PCMU", 3 * PART)]);
    for (channel, said) in appliance.wav(&recording).channels.iter().zip(&said) {
        let heard = from_ulaw(&said.concat());
        let first = position(channel, &heard).expect("the first part");
        let second = first + heard.len() + position(&channel[first + heard.len()..], &heard).expect("the second part");
        position(&channel[second + heard.len()..], &heard).expect("the third part");
    }
}

#[test]
fn a_media_line_that_is_added_later_is_recorded_from_then_on() {
    let appliance = Appliance::start(AS_RECEIVED);
    let (a, b) = (voice(9, 2 * PART), voice(10, PART));
    let two = Offer::two(appliance.place.ip);
    let one = Offer { lines: vec![two.lines[0].clone()], ..two.clone() };
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&one.text(), &webex_metadata(&Facts::incoming(9)))).play(&[&a[..PART]]);
    call.invite("", "application/sdp", &two.next(|_| {}).text()).play(&[&a[PART..], &b]);
    call.run(&appliance, "t1");
    let recording = only(&appliance);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let counts = [("1", "PCMU", 2 * PART as u64, 0, 0), ("2", "PCMU", PART as u64, 0, 0)];
    assert_eq!(tracks(&recording), counts, "{recording:#}");
    check_heard(&appliance, &recording, &[&[&a], &[&b]]);
}

#[test]
fn a_media_line_that_is_taken_away_stays_as_far_as_it_went() {
    let appliance = Appliance::start(AS_RECEIVED);
    let (a, b) = (voice(11, 2 * PART), voice(12, PART));
    let two = Offer::two(appliance.place.ip);
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&two.text(), &webex_metadata(&Facts::incoming(11)))).play(&[&a[..PART], &b]);
    call.invite("", "application/sdp", &two.next(|offer| offer.lines[1].port = 0).text()).play(&[&a[PART..]]);
    call.run(&appliance, "u1");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", 2 * PART), ("2", "PCMU", PART)]);
    check_heard(&appliance, &recording, &[&[&a], &[&b]]);
}

#[test]
fn one_stream_with_everybody_is_one_track() {
    let appliance = Appliance::start(AS_RECEIVED);
    let said = voice(13, PART);
    let facts = Facts::incoming(13);
    let two = Offer::two(appliance.place.ip);
    let offer = Offer { lines: vec![two.lines[0].clone()], ..two };
    let metadata = Webex { mixed: true, ..Webex::of(&facts) };
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&offer.text(), &metadata.text())).play(&[&said]).run(&appliance, "u1");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", PART)]);
    assert_eq!(recording["remote_number"], facts.remote_number.as_str());
    check_heard(&appliance, &recording, &[&[&said]]);
}

#[test]
fn a_transfer_with_every_id_new_stays_one_recording_of_the_new_party() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(15);
    let (a, b) = (voice(15, 2 * PART), voice(16, 2 * PART));
    let offer = Offer::two(appliance.place.ip);
    let new = "+49891234567".to_owned();
    let transferred = Webex {
        ids: "7f",
        remotes: vec![(new.clone(), true)],
        redirected_from: Some(facts.remote_number.clone()),
        ..Webex::of(&facts)
    };
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&offer.text(), &webex_metadata(&facts))).play(&[&a[..PART], &b[..PART]]);
    let moved = offer.next(|offer| offer.direct(None));
    call.invite("", "application/sdp", &moved.text());
    call.invite("", MULTIPART, &both(&moved.next(|offer| offer.direct(Some("sendonly"))).text(), &transferred.text()));
    call.play(&[&a[PART..], &b[PART..]]).run(&appliance, "u1");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", 2 * PART), ("2", "PCMU", 2 * PART)]);
    assert_eq!((&recording["call_id"], &recording["remote_number"]), (&facts.call_id.into(), &new.into()));
    check_heard(&appliance, &recording, &[&[&a], &[&b]]);
}

#[test]
fn a_conference_is_followed_through_its_updates() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(17);
    let (a, b) = (voice(17, 2 * PART), voice(18, 2 * PART));
    let third = "+33155500177".to_owned();
    let with_third = vec![(facts.remote_number.clone(), true), (third.clone(), true)];
    let joined = Webex { remotes: with_third.clone(), ..Webex::of(&facts) }.text();
    let told_again = Webex { mode: "partial", remotes: with_third, ..Webex::of(&facts) }.text();
    let left = vec![(facts.remote_number.clone(), false), (third.clone(), true)];
    let left = Webex { mode: "partial", remotes: left, ..Webex::of(&facts) }.text();
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&Offer::two(appliance.place.ip).text(), &webex_metadata(&facts)));
    call.play(&[&a[..PART], &b[..PART]]);
    call.update(&joined).update(&joined).update(&told_again).update(&left);
    call.play(&[&a[PART..], &b[PART..]]).run(&appliance, "t1");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", 2 * PART), ("2", "PCMU", 2 * PART)]);
    assert_eq!(recording["remote_number"], third.as_str(), "who is left");
    check_heard(&appliance, &recording, &[&[&a], &[&b]]);
}

#[test]
fn three_parties_with_a_line_each_are_three_tracks() {
    let appliance = Appliance::start(AS_RECEIVED);
    let said = [voice(19, PART), voice(20, PART), voice(21, PART)];
    let mut offer = Offer::two(appliance.place.ip);
    offer.lines.push(Line::ulaw("3", 30_004));
    let parties = [
        ("1", "sip:+390508600001@example.com", "Ludovica Ferrante"),
        ("2", "sip:+49307700019@example.net", "Edda Sommer"),
        ("3", "sip:+33155500019@example.org", "Rémi Blanc"),
    ];
    let mut call = Script::new(FROM);
    call.invite("Require: siprec\r\n", MULTIPART, &both(&offer.text(), &rfc7865_metadata("three", &parties)));
    call.play(&[&said[0], &said[1], &said[2]]).run(&appliance, "u1");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", PART), ("2", "PCMU", PART), ("3", "PCMU", PART)]);
    let names: Vec<_> = recording["tracks"].as_array().unwrap().iter().map(|t| t["participant"].clone()).collect();
    assert_eq!(names, parties.map(|(.., name)| name));
    for (said, label) in said.iter().zip(["1", "2", "3"]) {
        let archived = archived_packets(&appliance, &recording, label);
        assert!(archived.iter().map(|(_, packet)| &packet.payload).eq(said), "track {label}");
    }
    // Stereo all the same: the recorded user on the left, everybody else on the right.
    let wav = appliance.wav(&recording);
    assert_eq!(wav.channels.len(), 2);
    find_exact(&wav.channels[0], &from_ulaw(&said[0].concat())).unwrap();
}

#[test]
fn two_streams_with_the_same_source_number_are_two_tracks() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(23);
    let said = [voice(23, PART), voice(24, PART)];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let source = || Source::new(0x0511_0511, 0, 160);
    play(&media, &mut [(source(), &said[0][..]), (source(), &said[1][..])]);
    client.bye();
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", PART), ("2", "PCMU", PART)]);
    check_heard(&appliance, &recording, &[&[&said[0]], &[&said[1]]]);
}

/// A call of which every message comes three times. What a client may repeat over UDP is answered as before.
fn repeat_everything(connect: fn(std::net::SocketAddr) -> Client, is_udp: bool) {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(25);
    let said = [voice(25, PART), voice(26, PART)];
    let offer = Offer::two(appliance.place.ip);
    let mut client = connect(appliance.sip());
    let invite = |client: &mut Client, invite: &Invite| {
        let request = client.begin_invite(invite);
        (0..3).for_each(|_| client.send(&request));
        let answer = client.finish_invite(&request);
        assert_eq!(answer.status, 200, "{}", answer.head);
        // Behind the acknowledgement nothing answers them any more (RFC 6026), and nothing begins by them.
        (0..2).for_each(|_| client.acknowledge());
        (0..2).for_each(|_| client.send(&request));
        answer
    };
    let again = |client: &mut Client, method: &str, headers: &str, body: &str| {
        let first = client.ask(method, headers, body.as_bytes());
        assert_eq!(first.status, 200, "{method}: {}", first.head);
        for _ in 0..if is_udp { 2 } else { 0 } {
            let again = client.ask_again(method);
            assert_eq!((again.status, again.header("To")), (first.status, first.header("To")), "{method}");
        }
    };
    let first = invite(&mut client, &webex_offering(&facts, &offer.text()));
    let media: Vec<_> = first.audio_ports().into_iter().map(|port| (appliance.place.ip, port).into()).collect();
    play_ulaw(&media, &[&said[0], &said[1]]);
    let later = invite(&mut client, &webex_offering(&facts, &offer.next(|_| {}).text()));
    assert_eq!(later.audio_ports(), first.audio_ports());
    again(&mut client, "UPDATE", "Content-Type: application/rs-metadata+xml\r\n", &webex_metadata(&facts));
    again(&mut client, "BYE", "", "");
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", PART), ("2", "PCMU", PART)]);
    check_heard(&appliance, &recording, &[&[&said[0]], &[&said[1]]]);
}

#[test]
fn everything_may_come_again_over_udp() {
    repeat_everything(Client::udp, true);
}

#[test]
fn everything_may_come_again_over_tcp() {
    repeat_everything(Client::tcp, false);
}

#[test]
fn a_call_without_any_audio_has_no_media() {
    let appliance = Appliance::start(AS_RECEIVED);
    let mut call = Script::new(FROM);
    call.invite("", MULTIPART, &both(&Offer::two(appliance.place.ip).text(), &webex_metadata(&Facts::incoming(27))));
    call.run(&appliance, "u1");
    let recording = only(&appliance);
    assert_eq!(recording["verdict"], "no-media", "{recording:#}");
    assert_eq!(recording["call_id"], Facts::incoming(27).call_id.as_str());
}

/// A way to give a call up, with its name.
type Way<'a> = (&'a str, &'a dyn Fn(&mut Client, &Invite));

#[test]
fn a_call_that_is_given_up_at_once_leaves_one_row_and_no_port_taken() {
    // A CANCEL that crosses the answer changes nothing (RFC 3261 section 9.2); the BYE that follows it does.
    let cancel = |client: &mut Client, invite: &Invite| {
        let request = client.begin_invite(invite);
        client.send(&request);
        client.cancel(&request);
        assert_eq!(client.finish_invite(&request).status, 200);
        assert!(client.try_bye());
    };
    // A BYE that comes before the ACK, or instead of it.
    let bye = |client: &mut Client, invite: &Invite| {
        let request = client.begin_invite(invite);
        client.send(&request);
        assert_eq!(client.finish_invite(&request).status, 200);
        assert!(client.try_bye());
    };
    let ways: [Way<'_>; 2] = [("CANCEL", &cancel), ("BYE", &bye)];
    for (name, give_up) in ways {
        let appliance = Appliance::start("[media]\nports = \"16000-16003\"\n");
        let facts = Facts::incoming(29);
        give_up(&mut Client::udp(appliance.sip()), &webex(&facts, appliance.sip()));
        let recording = only(&appliance);
        assert_eq!((name, recording["verdict"].as_str()), (name, Some("no-media")), "{recording:#}");
        wait_until("its ports, which are all that there are, are given again", || {
            let mut client = Client::udp(appliance.sip());
            let taken = client.invite(&webex(&Facts::incoming(30), appliance.sip())).status == 200;
            taken && client.try_bye()
        });
    }
}

#[test]
fn a_client_that_vanishes_is_told_goodbye_and_what_it_said_is_kept() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n[media]\ntimeout = \"10s\"\n");
    let facts = Facts::incoming(31);
    let said = [voice(31, PART), voice(32, PART)];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&said[0], &said[1]]);
    let bye = client.answer_request("BYE", Duration::from_secs(60)).expect("a goodbye");
    assert!(bye.header("Reason").is_some_and(|reason| reason.contains("no media")), "{}", bye.head);
    let recording = only(&appliance);
    assert_eq!(tracks(&recording).iter().map(|track| track.2).sum::<u64>(), 2 * PART as u64, "{recording:#}");
    check_heard(&appliance, &recording, &[&[&said[0]], &[&said[1]]]);
}

#[test]
fn offers_that_cross_each_other_harm_no_audio() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(33);
    let said = [voice(33, 2 * PART), voice(34, 2 * PART)];
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::tcp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let speaker = Speaker::start_mute(&media);
    speaker.say(&[&said[0], &said[1]]);
    // A second offer before the first is answered: that one may be refused, for a while (RFC 3261 section 14.2).
    let invite = |sdp: &Offer| Invite {
        from: format!("<sip:{}@{}>", facts.local_number, appliance.place.ip),
        headers: String::new(),
        content_type: "application/sdp".into(),
        body: sdp.text().into_bytes(),
    };
    let first = client.begin_invite(&invite(&offer.next(|_| {})));
    let second = client.begin_invite(&invite(&offer.next(|offer| offer.version += 1)));
    client.send(&[first, second.clone()].concat());
    let answer = client.finish_invite(&second);
    assert!(matches!(answer.status, 200 | 491 | 500), "{}", answer.head);
    assert_eq!(client.reinvite(&offer.next(|offer| offer.version += 2).text()).status, 200, "and then all is well");
    speaker.say_all(&[]);
    drop(speaker);
    client.bye();
    let recording = only(&appliance);
    check_good(&recording, &[("1", "PCMU", 2 * PART), ("2", "PCMU", 2 * PART)]);
    check_heard(&appliance, &recording, &[&[&said[0]], &[&said[1]]]);
}
