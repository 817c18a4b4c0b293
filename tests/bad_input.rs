//! What is wrong gets a clear answer, and costs nothing that was right.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::process::Output;
use std::time::Duration;

use rig::rtp::play_ulaw;
use rig::shapes::{Facts, multipart, sdp, webex};
use rig::sip::{Answer, Client, Invite};
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::{Appliance, http, wait_until};

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

fn voices(packets_count: usize) -> [Vec<Vec<u8>>; 2] {
    [(81, 120.0), (82, 220.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, packets_count * FRAME)))
}

/// Makes a good call while something else goes on; it must come out whole.
fn during_a_good_call<T>(appliance: &Appliance, number: u32, packets_count: usize, meanwhile: impl FnOnce() -> T) -> T {
    let facts = Facts::incoming(number);
    let voices = voices(packets_count);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| play_ulaw(&media, &[&voices[0], &voices[1]]));
        meanwhile()
    });
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "the good call was harmed: {recording:#}");
    for (channel, voice) in appliance.wav(&recording).channels.iter().zip(&voices) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
    }
    result
}

fn good(appliance: &Appliance, number: u32) -> Invite {
    webex(&Facts::incoming(number), appliance.sip())
}

/// The answer to an INVITE that is made from a good one.
fn answer(appliance: &Appliance, spoil: impl FnOnce(&mut Invite)) -> Answer {
    let mut invite = good(appliance, 900);
    spoil(&mut invite);
    let mut client = Client::tcp(appliance.sip());
    let answer = client.invite(&invite);
    if answer.status == 200 {
        client.bye();
    }
    answer
}

#[test]
fn spoilt_invites_are_refused_with_a_reason_and_the_call_beside_them_is_whole() {
    let appliance = Appliance::start(AS_RECEIVED);
    let ip = appliance.place.ip;
    let check = |status: u16, spoil: &dyn Fn(&mut Invite)| {
        let answer = answer(&appliance, spoil);
        assert_eq!(answer.status, status, "{}", answer.head);
        assert!(answer.header("Warning").is_some_and(|text| text.contains("399")), "a reason: {}", answer.head);
    };
    let with_sdp = |invite: &mut Invite, text: &str| {
        (invite.content_type, invite.body) = ("application/sdp".into(), text.as_bytes().to_vec());
    };
    during_a_good_call(&appliance, 1, 150, || {
        // No audio.
        check(488, &|invite| with_sdp(invite, "this is no session description\r\n"));
        check(488, &|invite| with_sdp(invite, "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"));
        check(488, &|invite| with_sdp(invite, &sdp(ip).replace("m=audio", "m=video")));
        check(488, &|invite| {
            with_sdp(invite, &sdp(ip).replace("m=audio 30000", "m=audio 0").replace("m=audio 30002", "m=audio 0"))
        });
        // Parts that cannot be told apart.
        check(400, &|invite| invite.body = b"one thing and another".to_vec());
        check(400, &|invite| {
            invite.content_type = "multipart/mixed".into();
            invite.body = b"one thing and another".to_vec();
        });
    });
    appliance.assert_verifies();
}

#[test]
fn what_is_only_odd_is_recorded_and_flagged() {
    let appliance = Appliance::start(AS_RECEIVED);
    let check = |spoil: &dyn Fn(&mut Invite), expected: &str| {
        let known = appliance.recordings().len();
        assert_eq!(answer(&appliance, spoil).status, 200, "{expected}");
        wait_until("a recording more", || appliance.recordings().len() > known);
        let recording = appliance.recordings().remove(0);
        let flaws = recording["flaws"].as_array().unwrap();
        let mut told = flaws.iter().map(|flaw| format!("{}: {}", flaw["code"], flaw["text"]));
        assert!(told.any(|told| told.contains(expected)), "{expected}: {recording:#}");
    };
    let replace = |invite: &mut Invite, from: &str, to: &str| {
        let text = String::from_utf8(invite.body.clone()).unwrap();
        assert!(text.contains(from));
        invite.body = text.replace(from, to).into_bytes();
    };
    check(&|invite| replace(invite, "</recording_metadata>", "<unclosed>"), "metadata-malformed");
    let dtd = "<!DOCTYPE a [<!ENTITY b \"c\">]>";
    check(&|invite| replace(invite, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>", dtd), "metadata-refused");
    check(&|invite| invite.content_type = "multipart/mixed".into(), "multipart-boundary-missing");
    check(&|invite| invite.content_type = "multipart/mixed;boundary=another".into(), "multipart-boundary-mismatch");
    check(&|invite| replace(invite, "UniqueBroadWorksBoundary--", ""), "multipart-closing-boundary-missing");
    check(
        &|invite| {
            (invite.content_type, invite.body) = ("application/sdp".into(), sdp(appliance.place.ip).into_bytes());
        },
        "metadata-missing",
    );
    check(&|invite| invite.headers += "Require: siprec, tomorrow\r\n", "extension-unknown");
    // Without an offer the client gets one.
    check(&|invite| invite.body.clear(), "offer-missing");
    let metadata = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>complete</datamode></recording>";
    check(
        &|invite| {
            let parts = [("application/rs-metadata+xml", "Content-Disposition:recording-session\r\n", metadata)];
            invite.body = multipart(&parts).into_bytes();
        },
        "offer-missing",
    );
}

#[test]
fn what_is_not_sip_or_far_too_long_is_survived() {
    let appliance = Appliance::start(AS_RECEIVED);
    during_a_good_call(&appliance, 2, 150, || {
        let mut noise = Client::udp(appliance.sip());
        for bytes in [
            &b""[..],
            b"\r\n\r\n",
            b"\0\0\0\0",
            &[0xff; 1_400],
            b"INVITE",
            b"INVITE sip:a SIP/2.0\r\n\r\n",
            b"SIP/2.0 200 OK\r\n\r\n",
        ] {
            noise.send(bytes);
        }
        // Ten megabytes of body: refused when they are announced, not when they have come.
        let mut long = good(&appliance, 901);
        long.body = vec![b'x'; 10_000_000];
        let answer = Client::tcp(appliance.sip()).invite(&long);
        assert!(matches!(answer.status, 413 | 513), "{}", answer.head);
        // A head without end.
        let mut endless = Client::tcp(appliance.sip());
        endless.send(b"INVITE sip:a SIP/2.0\r\n");
        endless.send(&b"Subject: and so on\r\n".repeat(20_000));
        assert!(appliance.is_ready());
    });
    let metrics = http::ask(appliance.place.http(), "GET", "/metrics", None).unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    let invalid = metrics.lines().find_map(|line| line.strip_prefix("callvault_sip_messages_invalid_total ")).unwrap();
    assert!(invalid.parse::<f64>().unwrap() >= 4.0, "{invalid} invalid messages were counted");
}

#[test]
fn a_source_that_is_not_allowed_is_refused() {
    let appliance = Appliance::start("[sip]\nallowed_peers = [\"192.0.2.0/24\"]\n");
    let answer = Client::udp(appliance.sip()).invite(&good(&appliance, 902));
    assert_eq!(answer.status, 403, "{}", answer.head);
    let answer = Client::tcp(appliance.sip()).try_invite(&good(&appliance, 902), Duration::from_secs(2));
    assert!(answer.is_none(), "a connection was taken");
    assert_eq!(appliance.recordings().len(), 0);
}

#[test]
fn limits_on_new_calls_leave_those_alone_that_are_there() {
    fn check(limits: &str, taken: u32, reason: &str, number: u32) {
        let appliance = Appliance::start(&format!("[limits]\n{limits}\n[archive]\ncodec = \"as-received\"\n"));
        let mut calls: Vec<Client> = (0..taken)
            .map(|n| {
                let mut client = Client::udp(appliance.sip());
                assert_eq!(client.invite(&good(&appliance, number + n)).status, 200, "{limits}");
                client
            })
            .collect();
        let answer = Client::udp(appliance.sip()).invite(&good(&appliance, number + taken));
        assert_eq!(answer.status, 503, "{limits}: {}", answer.head);
        assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
        // What belongs to a call has no limit.
        let mut call = calls.pop().unwrap();
        assert!(call.try_bye(), "{limits}");
        wait_until("the refusal is counted", || {
            let metrics = http::ask(appliance.place.http(), "GET", "/metrics", None).unwrap();
            let line = format!("callvault_sessions_limited_total{{reason=\"{reason}\"}} 1");
            String::from_utf8(metrics.body).unwrap().contains(&line)
        });
    }
    // Two at once, then one a second: an INVITE takes milliseconds.
    check("invites_per_second = 1", 2, "rate", 910);
    check("invites_per_peer_per_second = 1", 2, "rate", 920);
    check("sessions_per_peer_max = 3", 3, "share", 930);
}

#[test]
fn when_no_port_is_free_new_calls_are_told_to_try_later() {
    let appliance = Appliance::start("[media]\nports = \"16000-16003\"\n[archive]\ncodec = \"as-received\"\n");
    let answer = during_a_good_call(&appliance, 3, 100, || {
        let mut client = Client::udp(appliance.sip());
        client.invite(&good(&appliance, 903))
    });
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
    // The ports rest, then they are given again.
    wait_until("a call is taken again", || {
        let mut client = Client::udp(appliance.sip());
        let taken = client.invite(&good(&appliance, 904)).status == 200;
        taken && client.try_bye()
    });
    assert_eq!(appliance.get("/v1/status")["recordings"]["verdicts"]["ok"], 1);
}

#[test]
fn when_there_are_enough_calls_new_ones_are_told_to_try_later() {
    let appliance = Appliance::start("[limits]\nsessions_max = 1\n");
    let answer = during_a_good_call_as_opus(&appliance, || Client::tcp(appliance.sip()).invite(&good(&appliance, 905)));
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.header("Retry-After").is_some());
}

fn during_a_good_call_as_opus<T>(appliance: &Appliance, meanwhile: impl FnOnce() -> T) -> T {
    let mut client = Client::udp(appliance.sip());
    client.call(&good(appliance, 4));
    let result = meanwhile();
    client.bye();
    result
}

#[test]
fn after_a_drain_no_new_call_is_taken_and_the_last_one_ends_well() {
    let appliance = Appliance::start(AS_RECEIVED);
    during_a_good_call(&appliance, 5, 80, || {
        assert!(appliance.ctl(&["drain"]).status.success());
        wait_until("a refusal", || Client::udp(appliance.sip()).invite(&good(&appliance, 906)).status == 503);
        wait_until("readiness says so", || !appliance.is_ready());
    });
}

#[test]
fn the_control_endpoint_wants_its_token() {
    let appliance = Appliance::start("");
    let http = appliance.place.http();
    let token = appliance.token();
    let almost = format!("{}0", &token[..token.len() - 1]);
    let almost = if almost == token { format!("{}1", &token[..token.len() - 1]) } else { almost };
    for (method, path) in
        [("GET", "/v1/recordings"), ("GET", "/v1/status"), ("POST", "/v1/drain"), ("GET", "/v1/nothing")]
    {
        for wrong in [None, Some(""), Some("wrong"), Some(almost.as_str())] {
            let response = http::ask(http, method, path, wrong).unwrap();
            assert_eq!(response.status, 401, "{method} {path} with {wrong:?}");
            assert_eq!(response.json()["error"]["code"], "unauthorized");
        }
    }
    assert!(appliance.is_ready(), "nobody drained it");
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(http::ask(http, "GET", path, None).unwrap().status, 200, "{path}");
    }
    assert_eq!(appliance.ask("GET", "/v1/nothing").status, 404);
    assert_eq!(appliance.ask("PUT", "/v1/recordings").status, 405);
    assert_eq!(appliance.ask("GET", "/v1/recordings/zzz").status, 400);
    assert_eq!(appliance.ask("GET", "/v1/recordings/01900000-0000-7000-8000-000000000001").status, 404);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(appliance.data().join("control.token")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o077, 0, "the token is nobody else's");
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A daemon that must not start, and what it says.
fn check_refused(appliance: &Appliance, arguments: &[&str], expected: &[&str]) {
    let output = appliance.daemon_output(arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in expected {
        assert!(said.contains(expected), "lacks {expected:?}: {said}");
    }
}

#[test]
fn a_wrong_configuration_is_told_with_its_place_and_what_was_meant() {
    let check = |settings: &str, expected: &[&str]| {
        let appliance = Appliance::prepare(settings);
        check_refused(&appliance, &["--check"], expected);
        check_refused(&appliance, &[], expected);
        assert!(!appliance.data().exists(), "nothing was made");
    };
    check("\n[sip]\nupd = \"127.0.0.1:5060\"\n", &["test.toml:3", "sip.upd", "sip.udp"]);
    check("[media]\nports = \"29999-20000\"\n", &["test.toml:2", "media.ports"]);
    check("[archive\n", &["test.toml:1"]);
    check(
        "[journal]\ncommit_intervall = \"1s\"\n[stoer]\npath = \"/x\"\n",
        &["test.toml:2", "journal.commit_interval", "test.toml:3", "store"],
    );
    let good = Appliance::prepare("");
    let output = good.daemon_output(&["--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!good.data().exists(), "a check makes nothing");
}

#[test]
fn a_key_that_cannot_be_used_is_named_and_never_replaced() {
    let mut appliance = Appliance::start("");
    let key = appliance.data().join("keys/appliance.key");
    let name = key.to_str().unwrap().to_owned();
    appliance.stop();
    let content = fs::read(&key).unwrap();

    fs::write(&key, &content[..content.len() - 9]).unwrap();
    check_refused(&appliance, &[], &[&name]);
    assert_eq!(fs::read(&key).unwrap(), &content[..content.len() - 9]);

    fs::write(&key, "callvault-private-1:this is no key\n").unwrap();
    check_refused(&appliance, &[], &[&name]);

    // Even root cannot read a folder as a file.
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    check_refused(&appliance, &[], &[&name]);

    fs::remove_dir(&key).unwrap();
    check_refused(&appliance, &[], &[&name, "backup"]);
    assert!(!key.exists());

    // Another key than that of the data.
    let other = Appliance::start("");
    fs::copy(other.data().join("keys/appliance.key"), &key).unwrap();
    check_refused(&appliance, &[], &["key"]);

    fs::write(&key, content).unwrap();
    appliance.launch();
}

#[test]
fn a_second_daemon_on_the_same_data_says_who_has_it_and_harms_nobody() {
    let appliance = Appliance::start(AS_RECEIVED);
    during_a_good_call(&appliance, 6, 100, || {
        check_refused(&appliance, &[], &["another callvaultd", &appliance.daemon().to_string()]);
        // Another appliance whose address is taken.
        let other = Appliance::prepare(&format!("[sip]\nudp = \"{0}\"\ntcp = \"{0}\"\n", appliance.sip()));
        check_refused(&other, &[], &[&appliance.sip().to_string(), "another program"]);
        assert!(appliance.is_ready());
    });
}

#[test]
fn a_store_that_is_not_there_costs_no_call_and_is_not_written_to() {
    let mut appliance = Appliance::start(AS_RECEIVED);
    appliance.stop();
    let (store, away) = (appliance.data().join("store"), appliance.data().join("elsewhere"));
    fs::rename(&store, &away).unwrap();
    // What is below a mount point that nothing is mounted on.
    fs::create_dir(&store).unwrap();
    appliance.launch();
    let facts = Facts::incoming(7);
    let voices = voices(50);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    let recording = appliance.recording(&facts.call_id);
    let left = &appliance.wav(&recording).channels[0];
    find_exact(left, &from_ulaw(&voices[0].concat())).expect("it plays from the journal");
    wait_until("health says what is wrong", || {
        let health = http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
        health["components"]["store"]["status"] != "ok"
    });
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "nothing was written below the mount point");

    fs::remove_dir(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok");
    appliance.assert_verifies();
}
