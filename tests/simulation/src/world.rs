//! The world: clients, network, two processes, two disks and time, all made from one seed and stepped by one thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use callvault_capture::simulated::{self, Beginning, Life, Recorder, Shelf};
use callvault_control::{CheckpointKey, Decision, Network, Start, ToDaemon};
use callvault_journal::ReadAt;
use callvault_queue::{Job, JobId, JobKind, State};
use callvault_sip::{Limits, Message, NameAddr, parse_datagram};
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
use crate::truth::{End, Said, Truth};

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

/// A recorder that is to die by itself does so within so many steps: writes to the journal and to checkpoints, messages that leave.
const STEPS_MAX: u64 = 300;

const ROOM_BYTES: u64 = 1 << 30;
const PORTS: [u16; 5] = [20_000, 20_002, 20_004, 20_006, 20_008];

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sessions accepted.
    pub sessions: u64,
    /// How often another recorder went on with a session.
    pub gone_on: u64,
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
    /// To the generation that asked: the answer to another goes with its connection.
    Verdict {
        generation: Uuid,
        recording: Uuid,
        decision: Decision,
    },
    /// Somebody asks for a recording to be kept.
    Keep(Uuid),
}

/// An INVITE that was just heard: its call, its number, and whether it asks for a pause.
type Asked = (u16, u32, bool);

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
    recorder: Option<(Recorder, Life)>,
    shelf: Shelf,
    boot: Uuid,
    /// The daemon's key of the checkpoints, which each daemon makes for itself.
    checkpoint_key: [u8; 32],
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
    /// What somebody asked to be deleted.
    unwanted: BTreeSet<Uuid>,
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
            ready: Default::default(),
            dice: dice.fork(),
            bug,
            killed_in: None,
            wrong: None,
            archives: 0,
            too_late: BTreeSet::new(),
            began: BTreeMap::new(),
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
            shelf: Shelf::default(),
            boot: Uuid::from_u128(seed.into()),
            checkpoint_key: [0; 32],
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
            unwanted: BTreeSet::new(),
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
        self.outcome.gone_on = self.truth.gone_on;
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
                    // What finds the buffer of its socket full never arrived.
                    if simulated::arrive(port, from, bytes.clone()) {
                        self.truth.arrived(packet, port, self.now_ns, &bytes);
                    }
                }
                Delivery::Told(message) => self.told(&message),
                Delivery::Verdict { generation, recording, decision } if generation == self.generation => {
                    self.verdict(recording, decision);
                }
                Delivery::Verdict { .. } => {}
                Delivery::Keep(recording) => {
                    if let Some((recorder, _)) = self.recorder.as_mut().filter(|(recorder, _)| recorder.is_ready())
                        && recorder.keep(recording)
                    {
                        self.truth.decided(recording, Said::Keep);
                    }
                }
            }
        }
    }

    fn verdict(&mut self, recording: Uuid, decision: Decision) {
        let Some((recorder, life)) = &mut self.recorder else { return };
        if !recorder.is_ready() {
            // It waits in the control connection.
            let generation = self.generation;
            return self.send(STEP_NS / MS, Delivery::Verdict { generation, recording, decision });
        }
        let said = match &decision {
            Decision::Keep => Said::Keep,
            Decision::Discard { .. } => Said::Discard,
            Decision::OnDemand => Said::OnDemand,
        };
        let counts = self.truth.is_undecided(recording);
        self.out.note(|| format!("verdict on {recording}: {decision:?}, counts {counts}"));
        recorder.verdict(recording, decision);
        if counts && !life.is_over() {
            self.truth.decided(recording, said);
            if said == Said::OnDemand && recording.as_bytes()[14].is_multiple_of(2) {
                let delay_ms = self.dice.between(100, 2_000);
                self.send(delay_ms, Delivery::Keep(recording));
            }
        }
    }

    fn told(&mut self, message: &ToDaemon) {
        match message {
            ToDaemon::Decide { recording, .. } => {
                // The rule of this world looks at the id alone, so that it says the same when it is asked twice.
                let decision = match recording.as_bytes()[15] % 5 {
                    0 => Decision::Discard { rule: "every fifth".into() },
                    1 => Decision::OnDemand,
                    _ => Decision::Keep,
                };
                if self.dice.one_in(6) && !self.calm {
                    return;
                }
                let delay = self.dice.between(1, 400);
                self.send(delay, Delivery::Verdict { generation: self.generation, recording: *recording, decision });
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
        let Some((mut recorder, life)) = self.recorder.take() else { return };
        while recorder.is_ready()
            && !life.is_over()
            && let Some((from, bytes)) = self.sip_waiting.pop_front()
        {
            self.hears(&mut recorder, from, &bytes);
        }
        if signals {
            recorder.signalling_turn();
            self.pass_on(&mut recorder, None);
        }
        if sweeps {
            recorder.media_turn();
        }
        if appends {
            recorder.journal_turn();
        }
        if syncs {
            recorder.sync();
        }
        let is_over = life.is_over();
        self.recorder = Some((recorder, life));
        if is_over {
            self.kill_recorder();
        }
    }

    /// The recorder hears a message.
    fn hears(&mut self, recorder: &mut Recorder, from: SocketAddr, bytes: &[u8]) {
        let parsed = parse_datagram(bytes, &Limits::default());
        let Ok(Some(Message::Request(request))) = parsed else {
            recorder.receive(from, bytes);
            return self.pass_on(recorder, None);
        };
        let call = request.headers.get("Call-ID").and_then(Client::call_of).unwrap_or_default();
        self.out.note(|| format!("of call {call}: {}", first_line(bytes)));
        let cseq = request.headers.get("CSeq").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let tag = request.headers.get("To").and_then(tag_of).unwrap_or_default();
        let is_inactive = String::from_utf8_lossy(&request.body).contains("a=inactive");
        let asked = match request.method.to_string().as_str() {
            "INVITE" => {
                self.truth.asked(call, &tag, cseq, self.now_ns);
                Some((call, cseq, is_inactive))
            }
            "BYE" => {
                self.truth.leaving(call, &tag, self.now_ns);
                None
            }
            _ => None,
        };
        recorder.receive(from, bytes);
        self.pass_on(recorder, asked);
    }

    /// Sends what the recorder wants sent, and notes what it means. `asked` is the INVITE that was just heard.
    fn pass_on(&mut self, recorder: &mut Recorder, asked: Option<Asked>) {
        for (call_id, recording) in recorder.take_named() {
            self.truth.named(Client::call_of(&call_id).unwrap_or_default(), recording);
        }
        for (to, bytes) in recorder.take_sent() {
            let Some(call) = to.port().checked_sub(10_000) else { continue };
            self.note_sent(call, &bytes, asked);
            self.outcome.trace = self.outcome.trace.rotate_left(5) ^ bytes.len() as u64 ^ self.now_ns;
            self.send_datagram(|| Delivery::ToClient(call, bytes.clone()));
        }
        for message in recorder.take_told() {
            if let ToDaemon::Ended { recording } = &message
                && self.truth.durable.insert(*recording)
                && !self.out.spool.end_is_durable(*recording)
            {
                self.out.say(format!("the daemon is told of the end of recording {recording}, which is not durable"));
            }
            match message {
                // What a recorder says first is waited for.
                ToDaemon::Resumed { recordings } => self.out.ready.1.extend(recordings),
                ToDaemon::Ready { generation, .. } => {
                    self.out.ready.0 = Some(generation);
                    self.supervise(Event::Ready);
                }
                _ if self.dice.one_in(6) && !self.calm => {}
                message => {
                    let delay = self.dice.between(1, 30);
                    self.send(delay, Delivery::Told(message));
                }
            }
        }
    }

    /// What a message of the recorder's means.
    fn note_sent(&mut self, call: u16, bytes: &[u8], asked: Option<Asked>) {
        self.out.note(|| format!("to call {call}: {}", first_line(bytes)));
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(Message::Request(request))) if request.method.to_string() == "BYE" => {
                let tag = request.headers.get("From").and_then(tag_of).unwrap_or_default();
                self.truth.ended(call, &tag, self.now_ns);
            }
            Ok(Some(Message::Response(response))) => {
                let tag = response.headers.get("To").and_then(tag_of).unwrap_or_default();
                let method = response.headers.get("CSeq").and_then(|text| text.split(' ').nth(1)).unwrap_or_default();
                match (asked.filter(|asked| asked.0 == call), method, response.status) {
                    (Some((call, cseq, inactive)), "INVITE", 200) => {
                        let ports = client::ports(&response.body);
                        self.truth.answered(call, &tag, cseq, inactive, ports, self.now_ns);
                    }
                    // Also where there is no such dialog any more.
                    (_, "BYE", 200..) => self.truth.ended(call, &tag, self.now_ns),
                    _ => {}
                }
            }
            _ => {}
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
            // Named by the wall clock, as the daemon does: nothing may depend on their order.
            let ms = self.out.unix_ms;
            let random = [self.dice.next().to_le_bytes(); 2].concat();
            let mut bytes = [0; 10];
            bytes.copy_from_slice(&random[..10]);
            self.generation = Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid();
        }
        self.sync_what_was_left();
        let dies_in = (!self.calm && self.dice.one_in(4)).then(|| self.dice.below(STEPS_MAX));
        let life = Life::new(dies_in);
        let planted = match self.out.bug {
            Some(Bug::Recorder(planted)) => Some(planted),
            _ => None,
        };
        let seed = self.dice.next();
        let device = self.out.spool.device.clone();
        let begun = Recorder::begin(Beginning {
            settings: self.settings(),
            folder: self.out.spool.folder(&life),
            journal: &move |name: &str| device.reading(name).map(|reading| Box::new(reading) as Box<dyn ReadAt>),
            shelf: self.shelf.clone(),
            life: life.clone(),
            ports: &PORTS,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 5_060)),
            seed,
            planted,
        });
        let Ok((mut recorder, goes_on)) = begun else { return self.supervise(Event::StartFailed) };
        self.out.note(|| format!("generation {} begins and goes on with {goes_on:?}", self.generation));
        // One that dies at that leaves what it has not come to.
        if !life.is_over()
            && let Err(wrong) = self.truth.went_on(&goes_on, self.now_ns)
        {
            self.out.say(wrong);
        }
        self.out.live = Some(self.generation);
        self.out.began.entry(self.generation).or_insert(self.now_ns);
        self.out.ready = Default::default();
        self.supervise(Event::Started);
        self.pass_on(&mut recorder, None);
        self.recorder = Some((recorder, life));
    }

    /// What dead recorders have written and not synced, the daemon does before another begins.
    fn sync_what_was_left(&mut self) {
        let device = &self.out.spool.device;
        let inodes: Vec<_> = device.names().iter().filter_map(|name| device.inode(name)).collect();
        let synced: Vec<bool> =
            inodes.iter().map(|inode| device.open_and_sync(*inode).is_ok() && !device.has_failed(*inode)).collect();
        if synced.iter().all(|is_synced| *is_synced) {
            self.truth.synced();
        }
    }

    fn settings(&self) -> Start {
        let local = Ipv4Addr::LOCALHOST.into();
        Start {
            generation: self.generation,
            journal_dir: "/simulated".into(),
            checkpoint_dir: Some("/simulated".into()),
            checkpoint_key: CheckpointKey::from_bytes(self.checkpoint_key),
            boot: self.boot,
            sockets_stay: false,
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
            sessions_per_peer_max: 0,
            invites_per_second: 0,
            invites_per_peer_per_second: 0,
            connections_max: 10,
            connections_per_peer_max: 10,
            connection_idle_s: 60,
            body_bytes_max: 64 * 1024,
            media_timeout_s: 20,
            paused_timeout_s: 60,
            receiver_reports: true,
            commit_interval_ms: COMMIT_MS as u32,
            batch_interval_ms: BATCH_MS as u32,
            file_bytes_max: (48 * 1024) << (self.seed % 4),
            file_age_max_s: 5,
            spool_free_min_bytes: 0,
        }
    }

    /// Whether the spool's disk was in trouble lately.
    fn was_in_trouble(&self) -> bool {
        self.trouble_ns + AFTER_TROUBLE_NS > self.now_ns
    }

    /// The recorder is gone, and with it what it had taken for so long.
    fn recorder_is_gone(&mut self, loss_ns: Option<u64>) {
        if self.recorder.take().is_none() {
            return;
        }
        let loss_ns = loss_ns.filter(|_| !self.was_in_trouble());
        self.truth.recorder_died(self.now_ns, loss_ns);
        self.out.live = None;
    }

    /// It dies, and the next one goes on with its sessions.
    fn kill_recorder(&mut self) {
        if self.recorder.is_none() {
            return;
        }
        self.out.note(|| "the recorder is killed".to_owned());
        self.outcome.deaths[0] += 1;
        self.recorder_is_gone(Some(KILL_LOSS_NS));
        self.supervise(Event::Exited);
    }

    /// The orderly end of a recorder, which is what it does when the daemon is gone, too.
    fn stop_recorder(&mut self) {
        if let Some((mut recorder, life)) = self.recorder.take() {
            let is_flushed = recorder.stop();
            self.pass_on(&mut recorder, None);
            self.recorder = Some((recorder, life));
            self.out.note(|| format!("the recorder stops, flushed: {is_flushed}"));
            if is_flushed {
                self.recorder = None;
                self.out.live = None;
                self.truth.stopped(self.now_ns);
            } else {
                // It died while it was flushing, or its disk took nothing: nothing of what waited is promised.
                self.recorder_is_gone(None);
            }
        }
        self.sip_waiting.clear();
        self.truth.nobody_goes_on(End::Killed, &self.out.spool);
    }

    // ---- the daemon ----

    fn daemon_turn(&mut self) {
        if self.daemon.is_none() && self.now_ns >= self.daemon_back_ns {
            self.daemon = Some(Daemon::start(&mut self.out));
            self.out.ready = Default::default();
            self.checkpoint_key = [self.dice.next().to_le_bytes(); 4].concat().try_into().unwrap_or_default();
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
                self.unwanted.insert(id);
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
        self.truth.power_cut(loss_ns, &self.out);
        self.recorder_is_gone(Some(POWER_LOSS_NS));
        self.truth.nobody_goes_on(End::PowerCut, &self.out.spool);
        self.shelf.clear();
        self.boot = Uuid::from_u128(self.boot.as_u128().wrapping_add(1 << 64));
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
                self.truth.clock_set(self.now_ns, self.was_in_trouble());
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
            if session.end != Some(End::InOrder) {
                continue;
            }
            let id = session.recording;
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
        let is_left_over = |name: &String| {
            // Open: a recorder that dies just after an end was durable leaves the recording's checkpoint. One that begins when that
            // recording is archived and its journal gone opens another part of it, which no row takes.
            let is_known = |file: Uuid| self.out.too_late.contains(&file);
            callvault_journal::parse_file_name(name).is_some_and(|file| is_known(file.0))
        };
        let has_no_files = has_parked || self.out.spool.device.names().iter().all(is_left_over);
        is_archived && has_no_jobs && catalogue.owed.is_empty() && has_no_files
    }

    fn check_at_rest(&mut self) -> Result<(), String> {
        self.truth.check(&self.out)?;
        self.out.stable.check()?;
        if let Some(id) = self.out.stable.catalogue.tombstones.iter().find(|id| !self.unwanted.contains(*id)) {
            return Err(format!("recording {id} was deleted and nobody asked for it"));
        }
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

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

fn tag_of(field: &str) -> Option<String> {
    NameAddr::parse(field).tag().map(str::to_owned)
}
