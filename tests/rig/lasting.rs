//! Calls that live through deaths and restarts, each packet of which says which it is: what is lost is counted packet by packet, by who
//! sent it and by the appliance, and both must come to the same.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Appliance;
use super::inspect::archived_packets;
use super::rtp::{PACKET, Source};
use super::shapes::{Facts, webex};
use super::sip::Client;
use super::sound::FRAME;

/// Packets of 20 ms that one kill may cost a track: what gathers in a batch (`journal.batch_interval`).
pub const LOST_PER_KILL_MAX: usize = 10;

/// Ticks of a packet of 20 ms.
const PACKET_TICKS: u64 = 960;

/// A call that lives through it all.
pub struct Call {
    pub facts: Facts,
    pub client: Client,
    pub media: Vec<SocketAddr>,
    is_tcp: bool,
}

impl Call {
    /// Every other call is over TCP.
    pub fn begin(appliance: &Appliance, number: u32) -> Self {
        let facts = Facts::incoming(number);
        let is_tcp = number % 2 == 1;
        let mut client = if is_tcp { Client::tcp(appliance.sip()) } else { Client::udp(appliance.sip()) };
        let media = client.call(&webex(&facts, appliance.sip()));
        assert_eq!(media.len(), 2);
        Self { facts, client, media, is_tcp }
    }

    /// Where a connection has died, the client makes another.
    pub fn come_back(&mut self) {
        if self.is_tcp {
            self.client.reconnect();
        }
    }
}

/// The payload of a packet says which it is.
pub fn payload(call: usize, track: usize, number: u32) -> Vec<u8> {
    let mut bytes = vec![0x55; FRAME];
    bytes[..2].copy_from_slice(&u16::try_from(call).unwrap().to_be_bytes());
    bytes[2] = u8::try_from(track).unwrap();
    bytes[3..7].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends on all tracks of all calls until told to stop, and then says how many packets each has got.
pub fn talk(media: &[Vec<SocketAddr>], over: &AtomicBool, sent: &AtomicU32) {
    let mut lines = Vec::new();
    for (call, tracks) in media.iter().enumerate() {
        for (track, to) in tracks.iter().enumerate() {
            let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
            socket.connect(to).unwrap();
            let ssrc = 0xc0de_0000 + u32::try_from(call * 2 + track).unwrap();
            lines.push((socket, Source::new(ssrc, 0, 160), call, track));
        }
    }
    let begun = Instant::now();
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        for (socket, source, call, track) in &mut lines {
            socket.send(&source.packet(&payload(*call, *track, number))).unwrap();
        }
        number += 1;
        sent.store(number, Ordering::Relaxed);
        thread::sleep((begun + PACKET * number).saturating_duration_since(Instant::now()));
    }
}

/// Ends what [`talk`] says when it is dropped: also when a test fails, which would wait for it for ever.
pub struct Silence<'a>(pub &'a AtomicBool);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The stretches of numbers below `sent` that are not there.
pub fn missing(stored: &BTreeSet<u32>, sent: u32) -> Vec<usize> {
    let mut stretches = Vec::new();
    let mut length = 0;
    for number in 0..sent {
        if stored.contains(&number) {
            stretches.extend((length > 0).then_some(length));
            length = 0;
        } else {
            length += 1;
        }
    }
    stretches.extend((length > 0).then_some(length));
    stretches
}

/// What may be missing of a track.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// In how many places.
    pub stretches: usize,
    /// Packets in all.
    pub packets: usize,
}

impl Allowed {
    /// After so many kills of the recorder.
    pub fn by_kills(kills: u32) -> Self {
        Self { stretches: kills as usize, packets: LOST_PER_KILL_MAX * kills as usize }
    }
}

/// What one track of a recording has come to: how many packets are missing.
pub fn check_track(
    appliance: &Appliance,
    recording: &Value,
    (call, track): (usize, usize),
    sent: u32,
    allowed: Allowed,
) -> u64 {
    let row = &recording["tracks"][track];
    let (packets, lost) = (row["packets"].as_u64().unwrap(), row["lost"].as_u64().unwrap());
    let mut stored = BTreeSet::new();
    let mut offsets = BTreeSet::new();
    for (encoding, packet) in archived_packets(appliance, recording, row["label"].as_str().unwrap()) {
        assert_eq!(encoding, "PCMU");
        let number = u32::from_be_bytes(packet.payload[3..7].try_into().unwrap());
        assert_eq!(packet.payload, payload(call, track, number), "a packet of another track");
        assert!(stored.insert(number), "packet {number} is there twice");
        offsets.insert(packet.position as i128 - i128::from(number) * i128::from(PACKET_TICKS));
    }
    let stretches = missing(&stored, sent);
    let absent: usize = stretches.iter().sum();
    let about = format!("call {call}, track {track}: {sent} sent, {packets} kept, {lost} lost, missing {stretches:?}");
    assert_eq!(offsets.len(), 1, "every packet is where it belongs: {about}");
    assert_eq!((packets, lost), (stored.len() as u64, absent as u64), "counted as it is: {about}");
    assert_eq!(packets + lost, u64::from(sent), "{about}");
    // Two kills before anything was written between them leave one stretch.
    assert!(stretches.len() <= allowed.stretches, "nothing is lost but by a kill: {about}");
    assert!(absent <= allowed.packets, "{about}");
    lost
}

/// A call says where it is again, on a connection of its own where the old one has died.
pub fn reinvite(appliance: &Appliance, call: &mut Call) {
    call.come_back();
    let invite = webex(&call.facts, appliance.sip());
    assert_eq!(call.client.invite(&invite).status, 200, "a re-INVITE is answered");
}

/// Makes calls, does something under them, and judges every packet: at most ten of 20 ms may be missing for each kill and track.
pub fn through(appliance: &Appliance, calls: u32, first: u32, kills: u32, disturb: impl FnMut(&mut [Call])) -> String {
    through_losing(appliance, calls, first, Allowed::by_kills(kills), disturb)
}

/// The same, where so much may be missing at most.
pub fn through_losing(
    appliance: &Appliance,
    calls: u32,
    first: u32,
    allowed: Allowed,
    mut disturb: impl FnMut(&mut [Call]),
) -> String {
    let mut live: Vec<Call> = (0..calls).map(|number| Call::begin(appliance, first + number)).collect();
    let media: Vec<Vec<SocketAddr>> = live.iter().map(|call| call.media.clone()).collect();
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| talk(&media, &over, &sent));
        let _silence = Silence(&over);
        thread::sleep(Duration::from_millis(1_500));
        disturb(&mut live);
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
    });
    let sent = sent.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(500));
    let ids: Vec<String> = live.iter().map(|call| call.facts.call_id.clone()).collect();
    for mut call in live {
        call.come_back();
        call.client.bye();
    }
    let mut lost = 0;
    for (call, id) in ids.iter().enumerate() {
        let recording = appliance.archived(id);
        lost += (0..2).map(|track| check_track(appliance, &recording, (call, track), sent, allowed)).sum::<u64>();
    }
    // A hundred calls take every port there is, and ports rest for two seconds before they are given again.
    thread::sleep(Duration::from_secs(3));
    format!("{lost} packets of {} are lost in {calls} calls", u64::from(sent) * 2 * u64::from(calls))
}
