//! The recordings API of Imagicle as its documentation gives it, by curl against the real portal and daemon: what integrations do that were
//! written for it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rig::offer::Offer;
use rig::portal::{Portal, socket};
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, decoded, packets, speech, tone_level};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for};
use serde_json::{Value, json};

/// Frequencies of the two parties in files that are sent, in Hz.
const TONES: [f64; 2] = [440.0, 1_000.0];

/// Seconds of such a file.
const FILE_S: u64 = 3;

struct Sut {
    appliance: Appliance,
    portal: Portal,
    administrator: String,
    user: String,
}

/// An answer: status, and what came.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }
}

impl Sut {
    fn start() -> Self {
        let mut appliance = Appliance::prepare("");
        let socket = socket(&appliance);
        appliance
            .configure(&format!("[portal]\nsocket = {socket:?}\nuser = \"root\"\n[retention]\nrule = \"12-months\"\n"));
        appliance.launch();
        let number = Facts::incoming(1).local_number;
        let csv = format!(
            "webex_email;first_extension;group;level\nann@example.com;{number};Sales;base\nmario_rossi@example.com;346;;base\n"
        );
        let file = appliance.home().join("users.csv");
        fs::write(&file, csv).unwrap();
        let imported = appliance.ctl(&["users", "import", file.to_str().unwrap()]);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let token = |arguments: &[&str]| {
            let made = appliance.ctl(&[&["--json", "tokens", "create", "--name"], arguments].concat());
            let made: Value = serde_json::from_slice(&made.stdout).unwrap();
            made["token"].as_str().unwrap().to_owned()
        };
        let administrator = token(&["integration", "--level", "administrator"]);
        let user = token(&["ann", "--level", "base", "--user", "ann@example.com"]);
        let portal = Portal::start(&appliance);
        Self { appliance, portal, administrator, user }
    }

    /// What curl gets there, with these options.
    fn curl(&self, who: &str, target: &str, options: &[&str]) -> Answer {
        let out = self.appliance.home().join("answer");
        let url = format!("{}/fw/Apps/Recorder/WebAPI/{target}", self.portal.url());
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code}", "--globoff"]);
        command.arg("--cacert").arg(&self.portal.root).arg("--output").arg(&out);
        command.args(["--user", &format!("integration:{who}")]).args(options).arg(url);
        let output = command.output().expect("curl cannot be run (Debian: curl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status = String::from_utf8_lossy(&output.stdout).parse().unwrap();
        let body = fs::read(&out).unwrap_or_default();
        let _ = fs::remove_file(out);
        Answer { status, body }
    }

    fn get(&self, target: &str) -> Answer {
        self.curl(&self.administrator, target, &[])
    }

    /// Sends a recording as the documentation has it.
    fn post(&self, metadata: &Value, kind: &str, file: &Path) -> Answer {
        let data = self.appliance.home().join("jsondata");
        fs::write(&data, metadata.to_string()).unwrap();
        let data = format!("jsondata=<{};type=application/json", data.display());
        let attachment = format!("attachment=@{};type={kind}", file.display());
        self.curl(&self.administrator, "Recordings", &["--form", &data, "--form", &attachment])
    }

    /// A file of both tones, as ffmpeg writes it.
    fn file(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.appliance.home().join(name);
        let tone = |frequency: f64| format!("sine=frequency={frequency}:sample_rate=48000:duration={FILE_S}");
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i", &tone(TONES[0])]);
        command.args(["-f", "lavfi", "-i", &tone(TONES[1]), "-filter_complex", "[0][1]amerge=inputs=2"]);
        let status = command.args(options).arg(&path).status().expect("ffmpeg cannot be run (Debian: ffmpeg)");
        assert!(status.success(), "ffmpeg failed to write {name}");
        path
    }
}

fn metadata(started_at: &jiff::Timestamp) -> Value {
    json!({
        "startDateTime": started_at.to_string(), "duration": format!("PT{FILE_S}S"), "direction": 1,
        "localParty": {"username": "mario_rossi", "phoneNumber": "346"},
        "remoteParty": {"phoneNumber": "+390584123456", "firstName": "Anna", "lastName": "Bianchi"},
        "pbxInfo": {"callId": "100"}, "notes": "Some notes", "preserved": true,
    })
}

fn ago(days: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)
}

#[test]
fn recordings_are_listed_shown_downloaded_started_and_stopped() {
    let sut = Sut::start();
    let facts = Facts::incoming(1);
    let mut client = Client::udp(sut.appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(sut.appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let voice = |seed, pitch| packets(&speech(seed, pitch, 8_000, 3 * 50 * FRAME));
    let (ann, bob) = (voice(1, 120.0), voice(2, 210.0));
    thread::scope(|scope| {
        scope.spawn(|| speaker.say_all(&[&ann, &bob]));
        let line = facts.local_number.replace('+', "%2B");
        let live = wait_for("the live call", || {
            let live = sut.get(&format!("LiveRecordings?directoryNumber={line}")).json();
            live.as_array().filter(|live| live.len() == 1).map(|live| live[0].clone())
        });
        assert_eq!(live["remoteParty"]["phoneNumber"], json!(facts.remote_number), "{live}");
        let id = live["id"].as_str().unwrap();
        assert_eq!(sut.curl(&sut.user, &format!("LiveRecordings/{id}"), &["--request", "DELETE"]).status, 204);
        let body = json!({"directoryNumber": facts.local_number, "mode": 0}).to_string();
        let begun =
            sut.curl(&sut.user, "LiveRecordings", &["--header", "Content-Type: application/json", "--data", &body]);
        assert_eq!(begun.status, 201, "{}", String::from_utf8_lossy(&begun.body));
    });
    drop(speaker);
    client.bye();
    let ids: Vec<String> = wait_for("both recordings", || {
        let rows = sut.appliance.recordings();
        let is_done = rows.len() == 2 && rows.iter().all(|row| row["archive"]["state"] == "archived");
        is_done.then(|| rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect())
    });
    let list = sut.get("Recordings?page=0&pageSize=25&startTime=after:2023-01-01T00:00:00Z").json();
    assert_eq!(list["totalCount"], 2, "{list}");
    let listed: Vec<&str> =
        list["recordings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids, "newest first");
    assert_eq!(sut.get("Recordings?page=1&pageSize=1").json()["recordings"].as_array().unwrap().len(), 1);
    assert_eq!(sut.get("Recordings?direction=2").json()["totalCount"], 0);
    let detail = sut.get(&format!("Recordings/{}", ids[0])).json();
    assert_eq!((&detail["direction"], &detail["localPartyNumber"]), (&json!(1), &json!(facts.local_number)));
    let download = sut.get(&format!("Recordings/{}/Download", ids[0]));
    assert_eq!(download.status, 200);
    assert!(decoded(&download.body, 8_000, 2)[0].len() > 4_000);
    assert_eq!(sut.get(&format!("Recordings/{}", uuid::Uuid::now_v7())).status, 404);
    assert_eq!(sut.curl("nonsense", "Recordings", &[]).status, 401);
}

#[test]
fn every_documented_form_of_audio_is_taken_in_and_heard() {
    let sut = Sut::start();
    let check = |name: &str, kind: &str, options: &[&str], channels: usize| {
        let (file, began) = (sut.file(name, options), ago(30));
        let answer = sut.post(&metadata(&began), kind, &file);
        assert_eq!(answer.status, 201, "{name}: {}", String::from_utf8_lossy(&answer.body));
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let detail = sut.get(&format!("Recordings/{id}")).json();
        let expected = json!([1, "346", "+390584123456", "mario_rossi", "100", "PT3S"]);
        let found = json!([
            detail["direction"],
            detail["localPartyNumber"],
            detail["remotePartyNumber"],
            detail["owner"]["username"],
            detail["pbxInfo"]["callId"],
            detail["duration"],
        ]);
        assert_eq!(found, expected, "{name}: {detail}");
        let row = sut.appliance.archived_by_id(&id);
        assert_eq!(row["verdict"], "ok", "{name}: {row:#}");
        assert_eq!((&row["notes"][0]["text"], row["preserved"].is_object()), (&json!("Some notes"), true), "{row:#}");
        let wav = sut.appliance.wav(&row);
        assert_eq!(wav.channels.len(), channels, "{name}");
        let rate = wav.rate;
        assert!(wav.channels[0].len().abs_diff(usize::try_from(FILE_S).unwrap() * rate) < rate / 10, "{name}");
        for (channel, samples) in wav.channels.iter().enumerate() {
            let inner = &samples[rate / 2..5 * rate / 2];
            let levels = TONES.map(|frequency| tone_level(inner, rate, frequency));
            match channels {
                1 => assert!(levels.iter().all(|level| *level > 500.0), "{name}: {levels:?}"),
                _ => assert!(levels[channel] > 50.0 * levels[1 - channel], "{name}, {channel}: {levels:?}"),
            }
        }
    };
    check("pcm8.wav", "audio/wave", &["-ar", "8000", "-ac", "1", "-c:a", "pcm_u8"], 1);
    check("pcm16.wav", "audio/x-wav", &["-ar", "16000", "-c:a", "pcm_s16le"], 2);
    check("alaw.wav", "audio/wav", &["-ar", "8000", "-c:a", "pcm_alaw"], 2);
    check("mulaw.wav", "audio/vnd.wave", &["-ar", "8000", "-ac", "1", "-c:a", "pcm_mulaw"], 1);
    check("cd.wav", "audio/wave", &["-ar", "44100", "-c:a", "pcm_s16le"], 2);
    check("stereo.mp3", "audio/mpeg", &["-ar", "44100", "-b:a", "64k", "-joint_stereo", "0"], 2);
    check("mono.mp3", "audio/mpeg", &["-ar", "8000", "-ac", "1", "-b:a", "16k"], 1);
    // Retention has them as every other recording, the search finds them by when they were.
    let until = ago(29).to_string();
    assert_eq!(sut.get(&format!("Recordings?startTime=before:{until}")).json()["totalCount"], 7);
    sut.appliance.assert_verifies();
}

#[test]
fn what_cannot_be_taken_in_is_refused_with_the_documented_reason_and_leaves_nothing() {
    let sut = Sut::start();
    let file = sut.file("good.wav", &["-ar", "8000", "-c:a", "pcm_s16le"]);
    let good = metadata(&ago(30));
    let check = |answer: &Answer, status: u16, reason: Value| {
        assert_eq!((answer.status, &answer.json()["reason"]), (status, &reason), "{}", answer.json());
        assert!(answer.json()["message"].as_str().unwrap().len() > 10);
    };
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        sut.post(&changed, "audio/wave", &file)
    };
    check(&with("startDateTime", json!("soon")), 400, json!(1));
    check(&with("localParty", json!({"username": "nobody_at_all"})), 400, json!(1));
    assert_eq!(with("startDateTime", json!("2018-09-25T13:00:00Z")).status, 201, "a preserved one stays");
    let mut old = metadata(&ago(900));
    old["preserved"] = json!(false);
    check(&sut.post(&old, "audio/wave", &file), 409, Value::Null);
    check(&sut.post(&good, "text/plain", &file), 400, json!(2));
    let text = sut.appliance.home().join("text.wav");
    fs::write(&text, "no sound at all ".repeat(9_000)).unwrap();
    check(&sut.post(&good, "audio/wave", &text), 400, json!(2));
    let no_form = ["--header", "Content-Type: application/json", "--data", "{}"];
    check(&sut.curl(&sut.administrator, "Recordings", &no_form), 400, json!(0));
    check(&sut.curl(&sut.administrator, "Recordings", &["--form", "other=1"]), 400, json!(0));
    let attachment = format!("attachment=@{};type=audio/wave", file.display());
    check(&sut.curl(&sut.administrator, "Recordings", &["--form", &attachment]), 400, json!(0));
    assert_eq!(sut.curl(&sut.user, "Recordings", &["--form", &attachment]).status, 403);
    assert_eq!(sut.curl("nonsense", "Recordings", &["--form", &attachment]).status, 401);
    // The parts may come in either order.
    let data = format!("jsondata={good};type=application/json");
    assert_eq!(sut.curl(&sut.administrator, "Recordings", &["--form", &attachment, "--form", &data]).status, 201);

    // One that breaks off in the middle of its audio.
    let before = sut.appliance.recordings().len();
    let long = sut.file("long.wav", &["-ar", "48000", "-c:a", "pcm_s16le"]);
    let data = sut.appliance.home().join("jsondata");
    fs::write(&data, good.to_string()).unwrap();
    let mut command = Command::new("curl");
    command.args(["--silent", "--limit-rate", "100k", "--cacert"]).arg(&sut.portal.root);
    command.args(["--user", &format!("integration:{}", sut.administrator)]);
    command.arg("--form").arg(format!("jsondata=<{};type=application/json", data.display()));
    command.arg("--form").arg(format!("attachment=@{};type=audio/wave", long.display()));
    command.arg(format!("{}/fw/Apps/Recorder/WebAPI/Recordings", sut.portal.url()));
    let mut sending = command.stdout(Stdio::null()).spawn().unwrap();
    let is_coming = || coming(&sut.appliance) > 0;
    wait_for("the beginning of it", || is_coming().then_some(()));
    sending.kill().unwrap();
    sending.wait().unwrap();
    wait_for("it to be given up", || (!is_coming()).then_some(()));
    assert_eq!(sut.appliance.recordings().len(), before);
    // Others are not kept waiting by whoever sends nothing more.
    let stalled: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(sut.portal.address).unwrap()).collect();
    for mut stream in &stalled {
        let _ = stream.write_all(b"\x16\x03\x01");
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(with("notes", json!("after all of that")).status, 201);
    sut.appliance.assert_verifies();
}

/// Recordings that are coming: what of them is on the disk.
fn coming(appliance: &Appliance) -> usize {
    let folder = fs::read_dir(appliance.data().join("journal")).unwrap();
    folder.flatten().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "tmp")).count()
}
