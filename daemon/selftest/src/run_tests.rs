//! Whole runs against a stand-in for the appliance that does what it should, and makes one mistake in each of some calls.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::message::Message;
use crate::plan::CallPlan;

/// What the stand-in does wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mistake {
    None,
    Swapped,
    Hole,
    WrongNumber,
    Refused,
    Lost,
    NotArchived,
}

const MISTAKES: [Mistake; 8] = [
    Mistake::None,
    Mistake::None,
    Mistake::Swapped,
    Mistake::Hole,
    Mistake::WrongNumber,
    Mistake::Refused,
    Mistake::Lost,
    Mistake::NotArchived,
];

/// The packets of each call's two tracks.
type Heard = Arc<Mutex<HashMap<usize, [Vec<Vec<u8>>; 2]>>>;

/// Recorder and appliance in one.
struct StandIn {
    plans: Vec<CallPlan>,
    mistakes: Vec<Mistake>,
    heard: Heard,
}

impl StandIn {
    fn answer(plans: &[CallPlan], mistakes: &[Mistake], heard: &Heard, message: &Message) -> Option<String> {
        let plan = plans.iter().find(|plan| plan.call_id == message.call_id())?;
        match message.method() {
            "INVITE" if mistakes[plan.index] == Mistake::Refused => {
                Some(message::response(message, "503 Service Unavailable"))
            }
            "INVITE" => {
                let ports = [0, 1].map(|track| listen(plan.index, track, heard));
                let [a, b] = plan.laws.map(|law| law.payload_type());
                let sdp = format!(
                    "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio {} RTP/AVP {a}\r\na=label:1\r\nm=audio {} RTP/AVP {b}\r\na=label:2\r\n",
                    ports[0], ports[1]
                );
                let head = message::response(message, "200 OK").replace("Content-Length: 0\r\n\r\n", "");
                Some(format!("{head}Contact: <sip:127.0.0.1>\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()))
            }
            "ACK" => None,
            _ => Some(message::response(message, "200 OK")),
        }
    }

    fn channel(&self, index: usize, track: usize) -> Vec<i16> {
        let law = self.plans[index].laws[track];
        let mut packets = self.heard.lock().unwrap()[&index][track].clone();
        let first = u16::from_be_bytes([packets[0][2], packets[0][3]]);
        packets.sort_by_key(|p| u16::from_be_bytes([p[2], p[3]]).wrapping_sub(first));
        packets.iter().flat_map(|p| p[12..].iter().map(|code| law.decode(*code))).collect()
    }
}

/// Takes the packets of a track on a port of its own.
fn listen(index: usize, track: usize, heard: &Heard) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            heard.lock().unwrap().entry(index).or_default()[track].push(buffer[..length].to_vec());
        }
    });
    port
}

impl Appliance for StandIn {
    fn recordings(&self, cursor: Option<&str>) -> Result<Value, String> {
        // Two a page, the newest first, behind someone else's call.
        let from: usize = cursor.map_or(0, |c| c.parse().unwrap());
        let mut all =
            vec![json!({"id": "other", "call_id": "x", "local_number": "1", "started_at": "2999-01-01T00:00:00Z"})];
        all.extend(
            self.plans
                .iter()
                .rev()
                .filter(|p| self.mistakes[p.index] != Mistake::Lost)
                .map(|p| self.recording(&p.index.to_string()).unwrap()),
        );
        let page: Vec<Value> = all.iter().skip(from).take(2).cloned().collect();
        let next = (from + 2 < all.len()).then(|| (from + 2).to_string());
        Ok(json!({"recordings": page, "next": next}))
    }

    fn recording(&self, id: &str) -> Result<Value, String> {
        let plan = &self.plans[id.parse::<usize>().unwrap()];
        let mistake = self.mistakes[plan.index];
        let track = |label: &str| json!({"label": label, "packets": plan.frames, "lost": 0, "duplicates": 0});
        // Which of the two ids a recording shows is the appliance's own business.
        let call_id = if plan.index == 0 { &plan.call_half } else { &plan.call_id };
        Ok(json!({
            "id": id,
            "call_id": call_id,
            "verdict": "ok",
            "started_at": jiff::Timestamp::now().to_string(),
            "duration_ms": plan.frames * 20,
            "direction": plan.direction.as_str(),
            "local_number": if mistake == Mistake::WrongNumber { "+1" } else { plan.numbers[0].as_str() },
            "remote_number": plan.numbers[1],
            "remote_name": plan.names[1],
            "tracks": [track("1"), track("2")],
            "flaws": [],
            "archive": {"state": if mistake == Mistake::NotArchived { "journal" } else { "archived" }},
        }))
    }

    fn wav(&self, id: &str) -> Result<Vec<u8>, String> {
        let index = id.parse::<usize>().unwrap();
        let mut channels = [self.channel(index, 0), self.channel(index, 1)];
        match self.mistakes[index] {
            Mistake::Swapped => channels.swap(0, 1),
            Mistake::Hole => channels[0][4_000..8_000].fill(0),
            _ => {}
        }
        Ok(wav::tests::write(8000, &[&channels[0], &channels[1]]))
    }
}

fn serve_udp(plans: Vec<CallPlan>, mistakes: Vec<Mistake>, heard: Heard) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let mut answered: HashMap<String, String> = HashMap::new();
        let mut invites = 0;
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let (message, _) = Message::read(&buffer[..length], false).unwrap().unwrap();
            invites += usize::from(message.method() == "INVITE");
            if invites == 1 && message.method() == "INVITE" {
                // The first INVITE is lost on the way; its repetition is not.
                continue;
            }
            let key = format!("{} {}", message.method(), message.call_id());
            if let Some(answer) = StandIn::answer(&plans, &mistakes, &heard, &message) {
                let answer = answered.entry(key).or_insert(answer);
                socket.send_to(answer.as_bytes(), from).unwrap();
            }
        }
    });
    address
}

fn serve_tcp(plans: Vec<CallPlan>, mistakes: Vec<Mistake>, heard: Heard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (plans, mistakes, heard) = (plans.clone(), mistakes.clone(), Arc::clone(&heard));
            std::thread::spawn(move || serve_stream(stream.unwrap(), &plans, &mistakes, &heard));
        }
    });
    address
}

fn serve_stream(mut stream: TcpStream, plans: &[CallPlan], mistakes: &[Mistake], heard: &Heard) {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        pending.extend_from_slice(&buffer[..length]);
        while let Ok(Some((message, length))) = Message::read(&pending, true) {
            pending.drain(..length);
            if let Some(answer) = StandIn::answer(plans, mistakes, heard, &message) {
                // In two pieces, with a keep-alive before it, as streams do.
                let (a, b) = answer.split_at(answer.len() / 2);
                stream.write_all(format!("\r\n\r\n{a}").as_bytes()).unwrap();
                stream.write_all(b.as_bytes()).unwrap();
            }
        }
    }
}

fn hold(transport: Transport, mistakes: &[Mistake]) -> Report {
    let mut params = SelftestParams {
        transport,
        address: "127.0.0.1:1".parse().unwrap(),
        calls: mistakes.len(),
        seconds: 2,
        archive_wait: Duration::from_secs(2),
        run: u64::from(std::process::id()),
    };
    let plans: Vec<CallPlan> = (0..mistakes.len()).map(|index| CallPlan::new(index, &params)).collect();
    let heard = Heard::default();
    let serve = if transport == Transport::Udp { serve_udp } else { serve_tcp };
    params.address = serve(plans.clone(), mistakes.to_vec(), Arc::clone(&heard));
    let stand_in = StandIn { plans, mistakes: mistakes.to_vec(), heard };
    let mut stages = Vec::new();
    let report = run(&params, &stand_in, &mut |progress| stages.push(progress)).unwrap();
    assert!(stages.iter().all(|p| p.done <= p.total));
    assert_eq!(stages.last().unwrap().stage, Stage::Comparing);
    report
}

#[test]
fn calls_that_were_recorded_well_are_good_and_each_mistake_is_named() {
    let report = hold(Transport::Udp, &MISTAKES);
    let problems = |mistake: Mistake| {
        let index = MISTAKES.iter().position(|m| *m == mistake).unwrap();
        report.calls[index].problems.join("\n")
    };
    let text = report.text();
    let named = |mistake: Mistake, expected: &str| assert!(problems(mistake).contains(expected), "{mistake:?}\n{text}");
    assert_eq!((report.passed, report.failed, report.ok), (2, 6, false), "{text}");
    assert_eq!(problems(Mistake::None), "");
    named(Mistake::Swapped, "the left channel holds the other party");
    named(Mistake::Hole, "the left channel differs from what was sent between 0.5 s and 1.0 s");
    named(Mistake::WrongNumber, "local_number is +1; it was +44207946");
    named(Mistake::Refused, "refused with 503");
    named(Mistake::Lost, "no recording of this call appeared");
    named(Mistake::NotArchived, "not archived yet (state journal)");
    for call in &report.calls[..2] {
        assert!(call.left.as_ref().unwrap().exact && call.right.as_ref().unwrap().exact, "{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["calls"][0]["left"]["exact"], true);
}

#[test]
fn over_tcp_too() {
    let report = hold(Transport::Tcp, &[Mistake::None; 3]);
    assert!(report.ok, "{}", report.text());
    assert!(report.text().contains("3 of 3 calls of 2 s over TCP were recorded"));
}

#[test]
fn nobody_there_is_said_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        let params =
            SelftestParams { transport, address: free, calls: 2, seconds: 2, archive_wait: Duration::ZERO, run: 1 };
        let stand_in = StandIn { plans: Vec::new(), mistakes: Vec::new(), heard: Heard::default() };
        let report = run(&params, &stand_in, &mut |_| {}).unwrap();
        assert_eq!(report.failed, 2);
        assert!(report.calls[0].problems[0].contains("is callvaultd running?"), "{}", report.text());
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let good = SelftestParams {
        transport: Transport::Udp,
        address: "127.0.0.1:5060".parse().unwrap(),
        calls: 1,
        seconds: 2,
        archive_wait: Duration::ZERO,
        run: 1,
    };
    let stand_in = StandIn { plans: Vec::new(), mistakes: Vec::new(), heard: Heard::default() };
    let check = |params: SelftestParams, expected: &str| {
        let error = run(&params, &stand_in, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(SelftestParams { calls: 0, ..good.clone() }, "0 calls are not between 1 and 1000");
    check(SelftestParams { calls: 1001, ..good.clone() }, "1001 calls");
    check(SelftestParams { seconds: 1, ..good.clone() }, "1 seconds are not between 2 and 600");
    check(SelftestParams { address: "0.0.0.0:5060".parse().unwrap(), ..good }, "name a definite one");
}
