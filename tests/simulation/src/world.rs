//! The world: clients, network, two processes, two disks and time, all made from one seed and stepped by one thread.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callvault_capture::simulated::{self, Recorder};
use callvault_control::{Decision, Network, Start, ToDaemon};
use callvault_queue::{Job, JobId, JobKind, State};
use callvault_sip::{Limits, Message, parse_datagram};
use callvault_supervise::{Action, Event, Supervisor};
use uuid::{Builder, Uuid};

use crate::bug::Bug;
use crate::client::{self, Client, MS, PacketId, Sending};
use crate::daemon::Daemon;
use crate::device::Device;
use crate::dice::Dice;
use crate::outside::{Killed, Outside, Store, keys};
use crate::spool::Spool;
use crate::stable::Stable;
use crate::truth::{End, Truth};

/// One step of time.
const STEP_NS: u64 = 10 * MS;
/// The longest pause between two sweeps.
const SWEEP_NS_MAX: u64 = 30 * MS;
/// How long calls begin and things go wrong.
const TROUBLE_NS: u64 = 14_000 * MS;
/// How long the appliance has to come to rest with its recorder alive, and in steps of a second without.
const REST_NS: u64 = 45_000 * MS;
const REST_STEPS_MAX: u32 = 800;
/// The earliest moment, so that differences do not go below zero.
const BEGIN_NS: u64 = 1_000_000 * MS;
const WALL_BEGIN_NS: i64 = 1_800_000_000_000_000_000;

/// Settings of the recorder, the usual ones.
const COMMIT_MS: u64 = 1_000;
const BATCH_MS: u64 = 200;
/// What may be lost when a recorder is killed: a batch, a sweep, and what is on its way between the threads.
const KILL_LOSS_NS: u64 = (BATCH_MS + 100) * MS;
/// And at a power cut: a commit besides, with the time of two syncs.
const POWER_LOSS_NS: u64 = KILL_LOSS_NS + (COMMIT_MS + 400) * MS;
/// After a disk was in trouble so long ago nothing of it is left.
const AFTER_TROUBLE_NS: u64 = 8_000 * MS;

const ROOM_BYTES: u64 = 1 << 30;
const PORTS: [u16; 5] = [20_000, 20_002, 20_004, 20_006, 20_008];

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sessions accepted.
    pub sessions: u64,
    /// Packets found in archives and compared with what arrived.
    pub packets: u64,
    /// Recorders killed, daemons killed, power cuts.
    pub deaths: [u64; 3],
    /// Archives put on record.
    pub archives: u64,
    /// Recordings deleted.
    pub deleted: u64,
    /// A number that is the same whenever the same happened.
    pub trace: u64,
}

enum Delivery {
    Sip(SocketAddr, Vec<u8>),
    ToClient(u16, Vec<u8>),
    Rtp(u16, PacketId, Vec<u8>),
    Told(ToDaemon),
    Verdict(Uuid, Decision),
}

pub(crate) struct World {
    seed: u64,
    dice: Dice,
    out: Outside,
    truth: Truth,
    clients: Vec<Client>,
    network: BTreeMap<(u64, u64), Delivery>,
    sent: u64,
    /// What arrived at the SIP socket while nobody read it.
    sip_waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    recorder: Option<(Recorder, Arc<AtomicBool>)>,
    generation: Uuid,
    supervisor: Supervisor,
    beats: u64,
    daemon: Option<Daemon>,
    daemon_back_ns: u64,
    round_ns: u64,
    swept_ns: u64,
    now_ns: u64,
    wall_offset_ns: i64,
    trouble_ns: u64,
    heals_ns: u64,
    store_back_ns: u64,
    calm: bool,
    outcome: Outcome,
    accepted_before: u64,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = Dice::new(seed);
        simulated::reset_network();
        let calls = dice.between(2, 6);
        let clients = (0..calls)
            .map(|call| Client::new(call as u16, dice.fork(), TROUBLE_NS - 2_000 * MS).after(BEGIN_NS))
            .collect();
        let store = Store {
            device: Device::new(ROOM_BYTES),
            below: Device::new(ROOM_BYTES),
            is_away: false,
            hangs_until_ns: 0,
        };
        let out = Outside {
            spool: Spool::new(ROOM_BYTES, bug),
            store,
            stable: Stable::default(),
            now_ns: BEGIN_NS,
            unix_ms: 0,
            live: None,
            dice: dice.fork(),
            bug,
            killed_in: None,
            wrong: None,
            archives: 0,
        };
        Self {
            seed,
            dice,
            out,
            truth: Truth::default(),
            clients,
            network: BTreeMap::new(),
            sent: 0,
            sip_waiting: VecDeque::new(),
            recorder: None,
            generation: Uuid::nil(),
            supervisor: Supervisor::new(callvault_supervise::Limits::default(), Duration::from_nanos(BEGIN_NS)),
            beats: 0,
            daemon: None,
            daemon_back_ns: BEGIN_NS,
            round_ns: BEGIN_NS,
            swept_ns: BEGIN_NS,
            now_ns: BEGIN_NS,
            wall_offset_ns: 0,
            trouble_ns: 0,
            heals_ns: u64::MAX,
            store_back_ns: u64::MAX,
            calm: false,
            outcome: Outcome::default(),
            accepted_before: 0,
        }
    }

    /// Runs it from beginning to end.
    pub(crate) fn run(mut self) -> Result<Outcome, String> {
        self.set_clocks();
        while self.now_ns < BEGIN_NS + TROUBLE_NS {
            self.step()?;
            self.disturb();
        }
        self.calm_down();
        let rest = self.now_ns + REST_NS;
        // What was to die in a certain number of writes may do so yet, at any moment.
        while self.now_ns < rest && !(self.is_quiet() && self.recorder.is_some() && self.now_ns > rest - REST_NS / 2) {
            self.step()?;
        }
        self.check_while_alive()?;
        self.stop_recorder();
        for step in 0..REST_STEPS_MAX {
            // A job that was put off before the clock was set back waits for up to a day.
            self.now_ns += if step < REST_STEPS_MAX / 2 { 1_000 * MS } else { 600_000 * MS };
            self.set_clocks();
            self.daemon_turn();
            self.say()?;
            if self.is_at_rest() {
                break;
            }
        }
        self.check_at_rest()?;
        self.outcome.sessions = self.truth.sessions.len() as u64;
        self.outcome.packets = self.truth.packets_checked;
        self.outcome.archives = self.out.archives;
        Ok(self.outcome)
    }

    fn say(&self) -> Result<(), String> {
        let wrong = self.out.wrong.clone().or_else(|| self.out.spool.wrong());
        wrong.map_or(Ok(()), |wrong| Err(format!("at {} ms: {wrong}", (self.now_ns - BEGIN_NS) / MS)))
    }

    fn set_clocks(&mut self) {
        let wall = WALL_BEGIN_NS + (self.now_ns - BEGIN_NS) as i64 + self.wall_offset_ns;
        simulated::set_clocks(self.now_ns, wall);
        self.out.now_ns = self.now_ns;
        self.out.unix_ms = u64::try_from(wall / 1_000_000).unwrap_or(0);
    }

    fn step(&mut self) -> Result<(), String> {
        self.now_ns += STEP_NS;
        self.set_clocks();
        self.clients_turn();
        self.deliver();
        self.recorder_turn();
        self.daemon_turn();
        self.say()
    }

    // ---- the network ----

    fn send(&mut self, delay_ms: u64, delivery: Delivery) {
        self.sent += 1;
        self.network.insert((self.now_ns + delay_ms * MS, self.sent), delivery);
    }

    /// Through the lossy network: lost, once, or twice, in any order.
    fn send_datagram(&mut self, make: impl Fn() -> Delivery) {
        if self.dice.one_in(40) {
            return;
        }
        let copies = if self.dice.one_in(60) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_ms = self.dice.between(1, 45);
            self.send(delay_ms, make());
        }
    }

    fn clients_turn(&mut self) {
        for place in 0..self.clients.len() {
            let mut out = Vec::new();
            self.clients[place].turn(self.now_ns, &mut out);
            self.clients_say(place, out);
        }
    }

    fn clients_say(&mut self, place: usize, out: Vec<Sending>) {
        let address = self.clients[place].address();
        for sending in out {
            match sending {
                Sending::Sip(bytes) => self.send_datagram(|| Delivery::Sip(address, bytes.clone())),
                Sending::Rtp { port, packet, bytes } => {
                    self.send_datagram(|| Delivery::Rtp(port, packet, bytes.clone()));
                }
            }
        }
    }

    fn deliver(&mut self) {
        let later = self.network.split_off(&(self.now_ns + 1, 0));
        for delivery in std::mem::replace(&mut self.network, later).into_values() {
            match delivery {
                Delivery::Sip(from, bytes) => self.sip_waiting.push_back((from, bytes)),
                Delivery::ToClient(call, bytes) => {
                    let mut out = Vec::new();
                    let place = usize::from(call);
                    self.clients[place].receive(self.now_ns, &bytes, &mut out);
                    self.clients_say(place, out);
                }
                Delivery::Rtp(port, packet, bytes) => {
                    let from =
                        SocketAddr::from((Ipv4Addr::LOCALHOST, 30_000 + packet.call * 4 + u16::from(packet.track)));
                    self.truth.arrived(packet, port, self.now_ns, &bytes);
                    simulated::arrive(port, from, bytes);
                }
                Delivery::Told(message) => self.told(&message),
                Delivery::Verdict(recording, decision) => {
                    if let Some((recorder, _)) = &mut self.recorder {
                        self.truth.decided(self.generation, recording, decision == Decision::Keep);
                        recorder.verdict(recording, decision);
                    }
                }
            }
        }
    }

    fn told(&mut self, message: &ToDaemon) {
        match message {
            ToDaemon::Decide { recording, .. } => {
                // The rule of this world looks at the id alone, so that it says the same when it is asked twice.
                let is_kept = recording.as_bytes()[15] % 5 != 0;
                let decision = if is_kept { Decision::Keep } else { Decision::Discard { rule: "every fifth".into() } };
                if self.dice.one_in(6) && !self.calm {
                    return;
                }
                let delay = self.dice.between(1, 400);
                self.send(delay, Delivery::Verdict(*recording, decision));
            }
            ToDaemon::Ended { .. } | ToDaemon::Rotated { .. } => self.round_ns = self.now_ns,
            _ => {}
        }
    }

    // ---- the recorder ----

    fn recorder_turn(&mut self) {
        if self.daemon.is_some() {
            self.beats += 1;
            if self.recorder.is_some() {
                self.supervise(Event::Beat([self.beats; 3]));
            } else {
                self.supervise(Event::Tick);
            }
        }
        // Each thread takes its turn when it likes, and none of them waits long: the appliance's promises are of a machine that runs.
        let (signals, appends, syncs) = (!self.dice.one_in(8), !self.dice.one_in(4), self.dice.one_in(6));
        let sweeps = self.dice.one_in(2) || self.now_ns >= self.swept_ns + SWEEP_NS_MAX;
        if sweeps {
            self.swept_ns = self.now_ns;
        }
        let Some((mut recorder, dead)) = self.recorder.take() else { return };
        while let Some((from, bytes)) = self.sip_waiting.pop_front() {
            recorder.receive(from, &bytes);
            self.heard(&mut recorder, &bytes);
        }
        if signals {
            recorder.signalling_turn();
            self.pass_on(&mut recorder, None);
        }
        if sweeps {
            recorder.media_turn();
        }
        if appends {
            for recording in recorder.journal_turn() {
                self.truth.opened(self.generation, recording);
            }
        }
        if syncs {
            recorder.sync();
        }
        self.recorder = Some((recorder, dead));
        if self.recorder.as_ref().is_some_and(|(_, dead)| dead.load(Ordering::Relaxed)) {
            self.kill_recorder();
        }
    }

    /// What the recorder made of a message.
    fn heard(&mut self, recorder: &mut Recorder, bytes: &[u8]) {
        let Ok(Some(message)) = parse_datagram(bytes, &Limits::default()) else { return };
        let Message::Request(request) = message else { return self.pass_on(recorder, None) };
        let call = request.headers.get("Call-ID").and_then(Client::call_of).unwrap_or_default();
        let cseq = request.headers.get("CSeq").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let is_inactive = String::from_utf8_lossy(&request.body).contains("a=inactive");
        let what = match request.method.to_string().as_str() {
            "INVITE" => Some((call, cseq, is_inactive)),
            _ => None,
        };
        if request.method.to_string() == "BYE" {
            self.truth.ended(call, self.now_ns);
        }
        self.pass_on(recorder, what);
    }

    /// Sends what the recorder wants sent, and notes what it means. `asked` is the INVITE that was just heard.
    fn pass_on(&mut self, recorder: &mut Recorder, asked: Option<(u16, u32, bool)>) {
        for (to, bytes) in recorder.take_sent() {
            let Some(call) = to.port().checked_sub(10_000) else { continue };
            match parse_datagram(&bytes, &Limits::default()) {
                Ok(Some(Message::Request(request))) if request.method.to_string() == "BYE" => {
                    self.truth.ended(call, self.now_ns);
                }
                Ok(Some(Message::Response(response))) if response.status == 200 => {
                    if let Some((call, cseq, inactive)) = asked.filter(|asked| asked.0 == call) {
                        if recorder.accepted() > self.accepted_before {
                            self.accepted_before = recorder.accepted();
                            self.truth.accepted(call, self.generation, client::ports(&response.body), self.now_ns);
                        } else {
                            self.truth.offered(call, cseq, inactive, self.now_ns);
                        }
                    }
                }
                _ => {}
            }
            self.outcome.trace = self.outcome.trace.rotate_left(5) ^ bytes.len() as u64 ^ self.now_ns;
            self.send_datagram(|| Delivery::ToClient(call, bytes.clone()));
        }
        for message in recorder.take_told() {
            if let ToDaemon::Ended { recording } = &message
                && !self.out.spool.end_is_durable(*recording)
            {
                self.out.say(format!("the daemon is told of the end of recording {recording}, which is not durable"));
            }
            if self.dice.one_in(6) && !self.calm {
                continue;
            }
            let delay = self.dice.between(1, 30);
            self.send(delay, Delivery::Told(message));
        }
    }

    fn supervise(&mut self, event: Event) {
        for action in self.supervisor.handle(Duration::from_nanos(self.now_ns), event) {
            match action {
                Action::Start => self.start_recorder(),
                Action::Kill { .. } => self.kill_recorder(),
                _ => {}
            }
        }
    }

    fn start_recorder(&mut self) {
        let is_reused = self.out.has(Bug::GenerationReused) && !self.generation.is_nil();
        if !is_reused {
            let ms = self.now_ns / MS;
            let random = [self.dice.next().to_le_bytes(); 2].concat();
            let mut bytes = [0; 10];
            bytes.copy_from_slice(&random[..10]);
            self.generation = Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid();
        }
        let dies_in = (!self.calm && self.dice.one_in(6)).then(|| self.dice.below(40));
        let (folder, dead) = self.out.spool.folder(dies_in);
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 5_060));
        let planted = match self.out.bug {
            Some(Bug::Recorder(planted)) => Some(planted),
            _ => None,
        };
        let seed = self.dice.next();
        match Recorder::begin(self.settings(), folder, &PORTS, local, seed, planted) {
            Ok(recorder) => {
                self.out.note(|| format!("generation {} begins", self.generation));
                self.recorder = Some((recorder, dead));
                self.accepted_before = 0;
                self.out.live = Some(self.generation);
                self.supervise(Event::Started);
                self.supervise(Event::Ready);
            }
            Err(_) => self.supervise(Event::StartFailed),
        }
    }

    fn settings(&self) -> Start {
        let local = Ipv4Addr::LOCALHOST.into();
        Start {
            generation: self.generation,
            journal_dir: "/simulated".into(),
            recipients: vec![keys().1.to_text()],
            media_address: None,
            media_bound: local,
            sip_listeners: Vec::new(),
            allowed_peers: vec![Network { address: local, prefix: 8 }],
            server_name: "callvault".into(),
            session_expires_s: 1_800,
            session_expires_min_s: 90,
            sessions_max: 100,
            retry_after_s: 1,
            tracks_per_session_max: 4,
            connections_max: 10,
            connections_per_peer_max: 10,
            connection_idle_s: 60,
            body_bytes_max: 64 * 1024,
            media_timeout_s: 20,
            commit_interval_ms: COMMIT_MS as u32,
            batch_interval_ms: BATCH_MS as u32,
            file_bytes_max: 48 * 1024 << (self.seed % 4),
            file_age_max_s: 5,
            spool_free_min_bytes: 0,
        }
    }

    /// Whether the spool's disk was in trouble lately.
    fn was_in_trouble(&self) -> bool {
        self.trouble_ns + AFTER_TROUBLE_NS > self.now_ns
    }

    fn recorder_is_gone(&mut self, end: End, loss_ns: u64) {
        if self.recorder.take().is_none() {
            return;
        }
        let horizon_ns = (!self.was_in_trouble()).then(|| self.now_ns.saturating_sub(loss_ns));
        self.truth.recorder_died(self.generation, self.now_ns, horizon_ns, end, &self.out.spool);
        self.out.live = None;
        self.sip_waiting.clear();
    }

    fn kill_recorder(&mut self) {
        if self.recorder.is_none() {
            return;
        }
        self.out.note(|| "the recorder is killed".to_owned());
        self.outcome.deaths[0] += 1;
        self.recorder_is_gone(End::Killed, KILL_LOSS_NS);
        self.supervise(Event::Exited);
    }

    /// The orderly end of a recorder, which is what it does when the daemon is gone, too.
    fn stop_recorder(&mut self) {
        let Some((mut recorder, dead)) = self.recorder.take() else { return };
        let is_flushed = recorder.stop();
        for recording in recorder.journal_turn() {
            self.truth.opened(self.generation, recording);
        }
        self.pass_on(&mut recorder, None);
        self.recorder = Some((recorder, dead));
        self.out.note(|| format!("the recorder stops, flushed: {is_flushed}"));
        if is_flushed {
            self.recorder = None;
            self.out.live = None;
            for session in self.truth.sessions.iter_mut().filter(|s| s.to_ns.is_none()) {
                (session.to_ns, session.end) = (Some(self.now_ns), Some(End::Stopped));
            }
        } else {
            // It died while it was flushing, or its disk took nothing: nothing of what waited is promised.
            self.recorder_is_gone(End::Killed, u64::MAX);
        }
    }

    // ---- the daemon ----

    fn daemon_turn(&mut self) {
        if self.daemon.is_none() && self.now_ns >= self.daemon_back_ns {
            self.daemon = Some(Daemon::start(&mut self.out));
            self.supervisor =
                Supervisor::new(callvault_supervise::Limits::default(), Duration::from_nanos(self.now_ns));
            self.round_ns = self.now_ns;
        }
        let Some(mut daemon) = self.daemon.take() else { return };
        match self.daemon_works(&mut daemon) {
            Ok(()) => self.daemon = Some(daemon),
            Err(Killed) => self.daemon_died(),
        }
    }

    fn daemon_works(&mut self, daemon: &mut Daemon) -> Result<(), Killed> {
        if self.now_ns >= self.round_ns {
            self.round_ns = self.now_ns + 2_000 * MS;
            daemon.round(&mut self.out)?;
        }
        if !self.calm && self.dice.one_in(600) {
            let ids: Vec<Uuid> = self.out.stable.catalogue.rows.keys().copied().collect();
            if !ids.is_empty() {
                let id = ids[self.dice.below(ids.len() as u64) as usize];
                self.outcome.deleted += 1;
                daemon.delete(&mut self.out, id)?;
            }
        }
        if self.dice.one_in(5) || self.recorder.is_none() {
            daemon.work(&mut self.out)?;
        }
        Ok(())
    }

    /// The daemon was killed where it stood: the recorder hears it and ends in order, unless the power went.
    fn daemon_died(&mut self) {
        self.out.killed_in = None;
        self.daemon = None;
        self.daemon_back_ns = self.now_ns + self.dice.between(50, 1_500) * MS;
        if self.dice.one_in(2) {
            self.out.note(|| "the daemon is killed".to_owned());
            self.outcome.deaths[1] += 1;
            self.stop_recorder();
        } else {
            self.cut_power();
        }
    }

    fn cut_power(&mut self) {
        self.out.note(|| "the power goes".to_owned());
        self.outcome.deaths[2] += 1;
        self.daemon = None;
        self.out.killed_in = None;
        self.daemon_back_ns = self.now_ns + self.dice.between(50, 1_500) * MS;
        let loss_ns = if self.was_in_trouble() { u64::MAX } else { POWER_LOSS_NS };
        self.recorder_is_gone(End::PowerCut, POWER_LOSS_NS);
        self.truth.power_cut(loss_ns, &self.out.spool);
        self.out.spool.device.power_cut(&mut self.dice);
        self.out.store.device.power_cut(&mut self.dice);
        self.out.stable.jobs.power_cut();
        self.sip_waiting.clear();
        for port in PORTS {
            simulated::empty(port);
        }
    }

    // ---- what goes wrong ----

    fn disturb(&mut self) {
        if self.now_ns >= self.heals_ns {
            self.out.spool.device.heal(ROOM_BYTES);
            self.heals_ns = u64::MAX;
            self.trouble_ns = self.now_ns;
        } else if self.heals_ns != u64::MAX {
            self.trouble_ns = self.now_ns;
        }
        if self.now_ns >= self.store_back_ns {
            self.out.store.is_away = false;
            self.out.store.device.heal(ROOM_BYTES);
            self.store_back_ns = u64::MAX;
        }
        if !self.dice.one_in(150) {
            return;
        }
        let until = self.now_ns + self.dice.between(200, 3_000) * MS;
        let which = self.dice.below(14);
        self.out.note(|| format!("disturbance {which} until {} ms", until / MS));
        match which {
            0 | 1 => self.kill_recorder(),
            2 | 3 => {
                let points = self.dice.below(40) as u32;
                self.out.killed_in = Some(points);
            }
            4 => self.cut_power(),
            5 => self.spool_fails(until, |device, _| device.set_room(0)),
            6 => self.spool_fails(until, |device, dice| device.set_room(dice.below(20_000))),
            7 => self.spool_fails(until, |device, dice| device.fail_syncs(1 + dice.below(3) as u32)),
            8 => self.spool_fails(until, |device, dice| device.fail_creates(1 + dice.below(3) as u32)),
            9 => (self.out.store.is_away, self.store_back_ns) = (true, until),
            10 => {
                self.out.store.device.set_room(self.dice.below(60_000));
                self.store_back_ns = until;
            }
            11 => self.out.store.hangs_until_ns = until,
            12 => {
                self.out.store.device.flip_bits(1);
                self.out.store.device.fail_syncs(self.dice.below(2) as u32);
            }
            _ => {
                let jump = self.dice.below(200_000_000) as i64 - 100_000_000;
                self.wall_offset_ns += jump.saturating_mul(1_000_000);
            }
        }
    }

    fn spool_fails(&mut self, until: u64, how: impl FnOnce(&Device, &mut Dice)) {
        how(&self.out.spool.device, &mut self.dice);
        (self.heals_ns, self.trouble_ns) = (until, self.now_ns);
    }

    // ---- the end ----

    fn calm_down(&mut self) {
        self.calm = true;
        self.out.killed_in = None;
        self.out.spool.device.heal(ROOM_BYTES);
        self.out.store.device.heal(ROOM_BYTES);
        (self.out.store.is_away, self.out.store.hangs_until_ns) = (false, 0);
        for client in &mut self.clients {
            client.hurry(self.now_ns);
        }
    }

    /// Nobody calls any more.
    fn is_quiet(&self) -> bool {
        self.clients.iter().all(Client::is_over)
    }

    /// With the recorder still alive: what has ended has a row, without anybody being restarted.
    fn check_while_alive(&mut self) -> Result<(), String> {
        if self.recorder.is_none() || self.daemon.is_none() {
            return Err("nothing is broken any more, and the recorder or the daemon does not run".to_owned());
        }
        for session in &self.truth.sessions {
            let Some(id) = session.recording.filter(|_| session.end == Some(End::InOrder)) else { continue };
            let catalogue = &self.out.stable.catalogue;
            if !catalogue.rows.contains_key(&id) && !catalogue.tombstones.contains(&id) {
                return Err(format!("call {} ended long ago and has no row", session.call));
            }
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let catalogue = &self.out.stable.catalogue;
        let is_done = |job: &Job| matches!(job.state, State::Done { .. } | State::Parked { .. });
        let is_parked = |id: &Uuid| {
            let job = JobId::new(&JobKind::ARCHIVE, *id);
            let job = self.daemon.as_ref().and_then(|daemon| daemon.machine.get(&job));
            job.is_some_and(|job| matches!(job.state, State::Parked { .. }))
        };
        let is_archived =
            catalogue.rows.iter().all(|(id, row)| !row.has_audio || row.archive.is_some() || is_parked(id));
        let has_no_jobs = self.daemon.as_ref().is_some_and(|daemon| daemon.machine.jobs().all(is_done));
        // A recording whose job is parked waits for a person, and its journal with it.
        let has_parked = catalogue.rows.keys().any(is_parked);
        // A lane that was written again after a file had failed, and was let go and forgotten with the first copy, is entered anew by the
        // next daemon, which then keeps the second copy: known, and no loss.
        let is_left_over = |name: &String| {
            callvault_journal::parse_file_name(name).is_some_and(|file| self.out.spool.was_rewritten(file.0))
        };
        let has_no_files = has_parked || self.out.spool.device.names().iter().all(is_left_over);
        is_archived && has_no_jobs && catalogue.owed.is_empty() && has_no_files
    }

    fn check_at_rest(&mut self) -> Result<(), String> {
        self.truth.check(&self.out)?;
        self.out.stable.check()?;
        if !self.out.store.below.names().is_empty() {
            return Err("something was written below the mount point of the store".to_owned());
        }
        if let Some(id) = self
            .out
            .stable
            .catalogue
            .tombstones
            .iter()
            .find(|id| self.out.store.device.read(&format!("{id}.cva")).is_some())
        {
            return Err(format!("recording {id} was deleted and its archive is there"));
        }
        if !self.is_at_rest() {
            let jobs: Vec<String> = self
                .daemon
                .iter()
                .flat_map(|daemon| daemon.machine.jobs())
                .filter(|job| !matches!(job.state, State::Done { .. }))
                .map(|job| format!("{} {:?} {:?}", job.id, job.state, job.last_error))
                .collect();
            return Err(format!("it does not come to rest: jobs {jobs:?}, files {:?}", self.out.spool.device.names()));
        }
        Ok(())
    }
}
