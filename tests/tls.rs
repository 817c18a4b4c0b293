//! SIP over TLS, IPv6, and connections that die in a call, with the real programs.

#![allow(clippy::unwrap_used)]

mod rig;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::Signal;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::srtp::{key, secured, send};
use rig::tls::{Authority, EXPIRED, GOOD, NAME, VERSIONS, connect, metric, prepare, start};
use rig::{Appliance, process, wait_until};

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

/// Two voices in packets of µ-law.
fn voices(seed: u64) -> [Vec<Vec<u8>>; 2] {
    [(seed, 120.0), (seed + 1, 200.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, 100 * FRAME)))
}

/// A call by this client, whose recording has every sample.
fn good_call(appliance: &Appliance, mut client: Client, number: u32, meanwhile: impl FnOnce(&mut Client)) {
    let (facts, voices) = (Facts::incoming(number), voices(number.into()));
    let to = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&to, &[&voices[0], &voices[1]]);
    meanwhile(&mut client);
    client.bye();
    assert_recorded(appliance, &facts, &voices);
}

fn assert_recorded(appliance: &Appliance, facts: &Facts, voices: &[Vec<Vec<u8>>; 2]) {
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let wav = appliance.wav(&recording);
    for (channel, voice) in wav.channels.iter().zip(voices) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
    }
}

#[test]
fn calls_over_both_versions_are_recorded() {
    let ours = Authority::new("ours");
    let appliance = start(AS_RECEIVED, &ours.sign(GOOD), None);
    for (version, number) in VERSIONS.into_iter().zip(501..) {
        let stream = connect(appliance.place.tls(), &ours, None, version).unwrap();
        good_call(&appliance, Client::tls(appliance.place.tls(), stream), number, |_| {});
    }
    assert_eq!(metric(&appliance, "sip_tls_handshakes_total{result=\"ok\"}"), 2.0);
    assert_eq!(metric(&appliance, "sip_connections_accepted_total{transport=\"tls\"}"), 2.0);
    assert!(metric(&appliance, "tls_certificate_expires_seconds") > 6e10);
    assert_eq!(appliance.get("/health")["components"]["certificates"]["status"], "ok");
    assert!(!appliance.log().contains("BEGIN "));
}

#[test]
fn a_call_with_tls_and_srtp_is_recorded() {
    let ours = Authority::new("ours");
    let appliance = start(AS_RECEIVED, &ours.sign(GOOD), None);
    let (facts, voices) = (Facts::incoming(511), voices(511));
    let keys = [key(1), key(2)];
    let stream = connect(appliance.place.tls(), &ours, None, VERSIONS[1]).unwrap();
    let mut client = Client::tls(appliance.place.tls(), stream);
    let to = client.call(&secured(&facts, appliance.sip(), &keys));
    let senders: Vec<Child> =
        to.into_iter().zip(&keys).zip(&voices).map(|((to, key), voice)| send(to, key, voice.concat())).collect();
    for mut sender in senders {
        assert!(sender.wait().unwrap().success(), "ffmpeg failed");
    }
    client.bye();
    assert_recorded(&appliance, &facts, &voices);
}

#[test]
fn under_mutual_tls_only_the_right_certificate_is_taken() {
    let (ours, theirs, others) = (Authority::new("ours"), Authority::new("theirs"), Authority::new("others"));
    let appliance = start(AS_RECEIVED, &ours.sign(GOOD), Some(&theirs));
    let to = appliance.place.tls();
    let count = |result: &str| metric(&appliance, &format!("sip_tls_handshakes_total{{result=\"{result}\"}}"));
    let check = |shown: Option<&rig::tls::Pair>, result: &str| {
        for version in VERSIONS {
            let before = count(result);
            assert!(connect(to, &ours, shown, version).is_err(), "{result}");
            wait_until("the failed handshake is counted", || count(result) > before);
        }
    };
    check(None, "no-client-certificate");
    check(Some(&others.sign(GOOD)), "unknown-authority");
    check(Some(&theirs.sign(EXPIRED)), "expired");
    let stream = connect(to, &ours, Some(&theirs.sign(GOOD)), VERSIONS[1]).unwrap();
    good_call(&appliance, Client::tls(to, stream), 521, |_| {});
    assert!(appliance.log().contains("a TLS handshake with"), "the log says so");
}

#[test]
fn an_expired_certificate_of_ours_is_told_and_shown() {
    let ours = Authority::new("ours");
    let appliance = start(AS_RECEIVED, &ours.sign(EXPIRED), None);
    let to = appliance.place.tls();
    let error = connect(to, &ours, None, VERSIONS[1]).unwrap_err();
    assert!(error.to_lowercase().contains("expired"), "{error}");
    wait_until("the refusal is counted", || {
        metric(&appliance, "sip_tls_handshakes_total{result=\"refused-by-peer\"}") > 0.0
    });
    let health = rig::http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
    let certificates = &health["components"]["certificates"];
    assert_eq!(certificates["status"], "failing", "{health:#}");
    assert!(certificates.to_string().contains("2021-12-31"), "{health:#}");
    let checked = appliance.daemon_output(&["--check"]);
    assert!(!checked.status.success() && String::from_utf8_lossy(&checked.stdout).contains("expired on 2021"));
}

#[test]
fn without_a_usable_certificate_the_rest_goes_on() {
    let ours = Authority::new("ours");
    let mut appliance = prepare(AS_RECEIVED, &ours.sign(GOOD), None);
    fs::write(appliance.home().join("key.pem"), &ours.sign(GOOD).key).unwrap();
    let checked = appliance.daemon_output(&["--check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("replace both together"), "{said}");
    appliance.launch();
    assert!(connect(appliance.place.tls(), &ours, None, VERSIONS[1]).is_err());
    good_call(&appliance, Client::tcp(appliance.sip()), 531, |_| {});
    let health = rig::http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
    assert_eq!(health["components"]["certificates"]["status"], "failing", "{health:#}");
    // Mended, it is in force without a restart.
    let fresh = ours.sign(GOOD);
    fresh.install(appliance.home());
    wait_until("TLS is taken", || connect(appliance.place.tls(), &ours, None, VERSIONS[1]).is_ok());
}

#[test]
fn plain_text_and_half_open_handshakes_harm_nobody() {
    let ours = Authority::new("ours");
    let appliance = start(AS_RECEIVED, &ours.sign(GOOD), None);
    let to = appliance.place.tls();
    let mut plain = TcpStream::connect(to).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    plain.write_all(b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"SIP/"), "plain text was answered on the port of TLS");
    wait_until("it is counted", || metric(&appliance, "sip_tls_handshakes_total{result=\"plaintext\"}") == 1.0);

    let half_open: Vec<TcpStream> = (0..200_u32)
        .map(|n| {
            let mut stream = TcpStream::connect(to).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
            }
            stream
        })
        .collect();
    let stream = connect(to, &ours, None, VERSIONS[1]).unwrap();
    good_call(&appliance, Client::tls(to, stream), 541, |_| {});
    wait_until("they are gone", || {
        metric(&appliance, "sip_connections{transport=\"tls\"}") == 0.0
            && metric(&appliance, "sip_tls_handshakes_total{result=\"timeout\"}") == 200.0
    });
    drop(half_open);
}

#[test]
fn a_new_certificate_does_not_disturb_a_call() {
    let ours = Authority::new("ours");
    let appliance = start(AS_RECEIVED, &ours.sign(GOOD), None);
    let to = appliance.place.tls();
    let shown = || {
        let stream = connect(to, &ours, None, VERSIONS[1]).unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown();
    let stream = connect(to, &ours, None, VERSIONS[1]).unwrap();
    good_call(&appliance, Client::tls(to, stream), 551, |client| {
        // By the file system's hint.
        ours.sign(GOOD).install(appliance.home());
        wait_until("the next one is shown", || shown() != first);
        // A mistake changes nothing, and is told.
        let second = shown();
        fs::write(appliance.home().join("chain.pem"), "oops").unwrap();
        process::send(appliance.daemon(), Signal::SIGHUP);
        wait_until("health tells", || {
            let health = rig::http::ask(appliance.place.http(), "GET", "/health", None).unwrap().json();
            health["components"]["certificates"]["status"] == "degraded"
        });
        assert_eq!(shown(), second);
        assert!(client.options().is_some(), "the call's connection is gone");
    });
}

/// `openssl s_client`, connected and trusting this authority.
struct Openssl {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Openssl {
    fn connect(appliance: &Appliance, authority: &Authority, version: &str) -> Self {
        let trusted = appliance.home().join("authority.pem");
        fs::write(&trusted, authority.pem()).unwrap();
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", NAME, version, "-CAfile"])
            .arg(&trusted)
            .args(["-connect", &appliance.place.tls().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl cannot be run; `make test` installs it");
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn send(&mut self, message: &str) {
        self.child.stdin.as_mut().unwrap().write_all(message.replace('\n', "\r\n").as_bytes()).unwrap();
    }

    /// The status line of the next answer, and its header fields; the body is read and forgotten.
    fn answer(&mut self) -> (String, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "openssl ended: {lines:?}");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.output.read_exact(&mut body).unwrap();
        (lines.remove(0), lines)
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_client_that_is_not_ours_is_understood() {
    let ours = Authority::new("ours");
    let appliance = start("", &ours.sign(GOOD), None);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Openssl::connect(&appliance, &ours, version);
        let head = |method: &str, to: &str, cseq: u32| {
            format!(
                "{method} sip:recorder.example SIP/2.0\nVia: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{method}{cseq}\n\
                 From: <sip:a@client.example>;tag=1\nTo: <sip:recorder.example>{to}\nCall-ID: openssl{version}\nCSeq: {cseq} {method}\n\
                 Contact: <sip:a@127.0.0.1:5061;transport=tls>;+sip.src\nMax-Forwards: 70\n"
            )
        };
        client.send(&(head("OPTIONS", "", 1) + "Content-Length: 0\n\n"));
        assert_eq!(client.answer().0, "SIP/2.0 200 OK");
        let sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 30000 RTP/AVP 0\na=sendonly\na=label:1\n";
        let length = sdp.replace('\n', "\r\n").len();
        client.send(&format!(
            "{}Content-Type: application/sdp\nContent-Length: {length}\n\n{sdp}",
            head("INVITE", "", 2)
        ));
        let (status, fields) = client.answer();
        assert_eq!(status, "SIP/2.0 200 OK");
        let contact = fields.iter().find(|line| line.starts_with("Contact:")).unwrap();
        assert!(contact.contains(&appliance.place.tls().to_string()) && contact.contains("transport=tls"), "{contact}");
        let to = fields.iter().find_map(|line| line.strip_prefix("To: <sip:recorder.example>")).unwrap().to_owned();
        client.send(&(head("ACK", &to, 2) + "Content-Length: 0\n\n"));
        client.send(&(head("BYE", &to, 3) + "Content-Length: 0\n\n"));
        assert_eq!(client.answer().0, "SIP/2.0 200 OK");
    }
}

#[test]
fn calls_over_ipv6_and_ipv4_at_several_addresses() {
    let mut appliance = Appliance::prepare(AS_RECEIVED);
    let (v4, v6) = (appliance.sip(), appliance.place.ipv6());
    let text = format!(
        "[sip]\nudp = [\"{v4}\", \"{v6}\"]\ntcp = [\"{v4}\", \"{v6}\"]\n[media]\naddress = \"auto\"\nports = \"14000-14039\"\n"
    );
    fs::write(appliance.home().join("conf.d/several.toml"), text).unwrap();
    appliance.launch();
    for (client, number) in [Client::udp(v6), Client::tcp(v6), Client::udp(v4), Client::tcp(v4)].into_iter().zip(561..)
    {
        good_call(&appliance, client, number, |_| {});
    }
}

#[test]
fn a_client_whose_connection_dies_ends_its_call_over_another() {
    let appliance = Appliance::start(AS_RECEIVED);
    let client = Client::tcp(appliance.sip());
    good_call(&appliance, client, 571, |client| client.reconnect());
}

/// Takes one connection and one request on it, answers 200, and gives the request.
fn take_request(listener: TcpListener) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut reader = BufReader::new(stream);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut request).unwrap() > 0, "closed: {request}");
        }
        let kept: String = request
            .split_inclusive("\r\n")
            .filter(|line| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)))
            .collect();
        reader.get_mut().write_all(format!("SIP/2.0 200 OK\r\n{kept}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        // The connection stays until the recorder closes it.
        let _ = reader.read_to_end(&mut Vec::new());
        request
    })
}

#[test]
fn the_recorder_says_bye_over_a_connection_of_its_own() {
    let mut appliance = Appliance::start(AS_RECEIVED);
    let listener = TcpListener::bind((appliance.sip().ip(), 0)).unwrap();
    let contact: SocketAddr = listener.local_addr().unwrap();
    let mut client = Client::tcp(appliance.sip()).with_contact(contact);
    client.call(&webex(&Facts::incoming(581), appliance.sip()));
    client.disconnect();
    let taken = take_request(listener);
    wait_until("the recorder has seen the end of the connection", || {
        metric(&appliance, "sip_connections{transport=\"tcp\"}") == 0.0
    });
    appliance.stop();
    let request = taken.join().unwrap();
    assert!(request.starts_with(&format!("BYE sip:{contact}")), "{request}");
    assert!(request.contains(&format!("SIP/2.0/TCP {}", appliance.sip())), "{request}");
}
