//! Clients over IPv6, and an appliance that listens in several places at once.

#![allow(clippy::unwrap_used)]

mod rig;

use std::net::SocketAddr;

use rig::Appliance;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};

/// Beside the rig's own ports, which other appliances have on other addresses: those of IPv6's loopback are this test's alone, and
/// with `auto` the media sockets are bound to all addresses.
const SIP_6: &str = "[::1]:15064";
const MEDIA_PORTS: &str = "14600-14699";

fn voices() -> [Vec<Vec<u8>>; 2] {
    [(61, 120.0), (62, 220.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, 40 * FRAME)))
}

/// A call to this address; it must be recorded to the sample, its answer name the address that it came to.
fn check(appliance: &Appliance, number: u32, to: SocketAddr, connect: fn(SocketAddr) -> Client) {
    let (facts, voices) = (Facts::incoming(number), voices());
    let mut client = connect(to);
    let answer = client.invite(&webex(&facts, to));
    assert_eq!(answer.status, 200, "{}", answer.head);
    let family = if to.is_ipv6() { "IP6" } else { "IP4" };
    assert!(answer.body.contains(&format!("c=IN {family} {}\r\n", to.ip())), "{}", answer.body);
    let media: Vec<_> = answer.audio_ports().into_iter().map(|port| SocketAddr::new(to.ip(), port)).collect();
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{to}: {recording:#}");
    for (channel, voice) in appliance.wav(&recording).channels.iter().zip(&voices) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

#[test]
fn calls_are_taken_over_ipv6_and_on_every_address() {
    let mut appliance = Appliance::prepare("");
    let first = appliance.sip();
    let second = SocketAddr::new(first.ip(), first.port() + 1);
    let settings = format!(
        "[sip]\nudp = [\"{first}\", \"{second}\", \"{SIP_6}\"]\ntcp = [\"{second}\", \"{SIP_6}\"]\n\
         [media]\naddress = \"auto\"\nports = \"{MEDIA_PORTS}\"\n[archive]\ncodec = \"as-received\"\n"
    );
    std::fs::write(appliance.home().join("conf.d/test.toml"), settings).unwrap();
    appliance.launch();
    let six: SocketAddr = SIP_6.parse().unwrap();
    check(&appliance, 1, six, Client::udp);
    check(&appliance, 2, six, Client::tcp);
    check(&appliance, 3, first, Client::udp);
    check(&appliance, 4, second, Client::udp);
    check(&appliance, 5, second, Client::tcp);
    appliance.assert_verifies();
}

#[test]
fn a_client_that_is_not_allowed_is_refused_over_ipv6_too() {
    let mut appliance = Appliance::prepare("");
    let six = "[::1]:15066";
    let settings =
        format!("[sip]\nudp = [\"{six}\"]\ntcp = [\"{six}\"]\nallowed_peers = [\"127.0.0.0/8\", \"2001:db8::/32\"]\n");
    std::fs::write(appliance.home().join("conf.d/test.toml"), settings).unwrap();
    appliance.launch();
    let to: SocketAddr = six.parse().unwrap();
    let answer = Client::udp(to).invite(&webex(&Facts::incoming(9), to));
    assert_eq!(answer.status, 403, "{}", answer.head);
    assert_eq!(appliance.recordings().len(), 0);
}
