//! INVITE to 200 as the client measures it while 200 calls are recorded. Daemon, recorder, client and the calls' audio are the real ones.
//!
//! Two floors are measured in the same run, through the same client, in turns with the INVITEs: the same INVITE to a server that
//! does nothing but answer, which is what machine and client cost; and an OPTIONS to the recorder, which is what any answer of its
//! costs. Printed are also the bar and whether it is met. Nothing is asserted about times.

#![allow(clippy::unwrap_used)]

mod floor;
#[path = "../tests/rig/mod.rs"]
mod rig;

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use floor::{Bench, quantile, time};
use rig::random::Chance;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::traffic::traffic;
use rig::{Appliance, process};

/// Within this an INVITE is to be answered in 99 of 100 cases.
const BAR: Duration = Duration::from_millis(10);
/// Between two rounds on average: about 70 new calls a second, of which each ends at once.
const BETWEEN: Duration = Duration::from_millis(12);
/// So many pairs that those of ended calls can rest.
const SETTINGS: &str = "[media]\nports = \"16000-25999\"\n[limits]\nsessions_max = 1000\n";
/// No run of this benchmark takes longer, in packets of 20 ms.
const PACKETS_MAX: usize = 50 * 600;

fn main() {
    let bench = Bench::begin_without_table("latency: INVITE to 200, as the client measures it over UDP on loopback");
    let (calls, rounds) = (bench.pick(200, 10), bench.pick(3_000, 50));
    let appliance = Appliance::start(SETTINGS);
    let mut media = Vec::new();
    let live: Vec<Client> = (0..calls)
        .map(|number| {
            let mut client = Client::udp(appliance.sip());
            media.extend(client.call(&webex(&Facts::incoming(number), appliance.sip())));
            client
        })
        .collect();
    let streams = media.len();
    let voice = packets(&speech(1, 130.0, 8_000, 50 * FRAME));
    let talk = traffic(media, voice.iter().cycle().take(PACKETS_MAX).cloned().collect());
    thread::sleep(bench.pick(Duration::from_secs(2), Duration::ZERO));

    let recorder = appliance.recorder();
    let (began, began_cpu_ms) = (Instant::now(), process::cpu_ms(recorder));
    let mut times = measure(&appliance, rounds);
    let share = (process::cpu_ms(recorder) - began_cpu_ms) as f64 / began.elapsed().as_millis().max(1) as f64;
    drop(talk);
    println!(
        "  {calls} calls live with {streams} streams of 50 packets a second, {:.0} new calls a second; the recorder takes {:.0} % of a core",
        rounds as f64 / began.elapsed().as_secs_f64(),
        100.0 * share
    );
    print(&mut times, rounds);
    for client in live {
        client.bye();
    }
}

/// What is measured, in the order of [`measure`]'s columns.
const WHAT: [&str; 3] = ["INVITE", "OPTIONS to the recorder", "INVITE to a server that only answers"];

/// Times in nanoseconds of each of [`WHAT`]; they take turns.
fn measure(appliance: &Appliance, rounds: u32) -> [Vec<f64>; 3] {
    let answering = only_answers(appliance.sip());
    let mut times = [const { Vec::new() }; 3];
    let mut chance = Chance(1);
    for round in 0..rounds {
        let invite = webex(&Facts::incoming(50_000 + round), appliance.sip());
        for turn in 0..WHAT.len() {
            let what = (turn + round as usize) % WHAT.len();
            let mut client = Client::udp(if what == 2 { answering } else { appliance.sip() });
            match what {
                1 => assert_eq!(client.options().expect("an answer").status, 200),
                _ => assert_eq!(client.invite(&invite).status, 200),
            }
            times[what].push(client.took().as_nanos() as f64);
            if what == 0 {
                client.bye();
            }
        }
        // Not in step with the sweep nor with the packets of the calls.
        thread::sleep(BETWEEN.mul_f64(0.5 + chance.below(1_000) as f64 / 1_000.0));
    }
    times
}

/// A server that answers each INVITE with a 200 of a few lines; it ends with the program.
fn only_answers(beside: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind((beside.ip(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(message) =
                buffer[..length].starts_with(b"INVITE").then(|| String::from_utf8_lossy(&buffer[..length]))
            else {
                continue;
            };
            let cseq = message.lines().find(|line| line.starts_with("CSeq:")).unwrap();
            let answer = format!("SIP/2.0 200 OK\r\nTo: <sip:{address}>;tag=1\r\n{cseq}\r\nContent-Length: 0\r\n\r\n");
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    });
    address
}

fn print(times: &mut [Vec<f64>; 3], rounds: u32) {
    println!("  {:<42} {:>9} {:>9} {:>9} {:>9}", format!("{rounds} round trips"), "p50", "p99", "p99.9", "longest");
    let figures = times.each_mut().map(|times| [0.5, 0.99, 0.999, 1.0].map(|at| quantile(times, at)));
    for (what, figures) in WHAT.iter().zip(&figures) {
        let [p50, p99, p999, longest] = figures.map(time);
        println!("  {what:<42} {p50:>9} {p99:>9} {p999:>9} {longest:>9}");
    }
    for (floor, figures_of_floor) in WHAT.iter().zip(&figures).skip(1) {
        let ratio = |n: usize| format!("{:.1}", figures[0][n] / figures_of_floor[n]);
        println!("  {:<42} {:>9} {:>9} {:>9}", format!("ratio to {floor}"), ratio(0), ratio(1), ratio(2));
    }
    let met = if figures[0][1] <= BAR.as_nanos() as f64 { "met" } else { "NOT met" };
    println!("  the bar: 99 of 100 INVITEs answered within {}: {met}", time(BAR.as_nanos() as f64));
}
