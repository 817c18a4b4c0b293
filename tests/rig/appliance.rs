//! An appliance in a folder of its own.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Response};
use super::keeper::Keeper;
use super::place::{MEDIA_PORT, Place};
use super::sound::Wav;
use super::{process, wait_for, wait_until};

/// How much of the daemon's log a failed test shows.
const LOG_SHOWN_BYTES: u64 = 20_000;

/// An appliance; its processes and folders go when it is dropped.
pub struct Appliance {
    pub place: Place,
    home: TempDir,
    runtime: TempDir,
    daemon: Option<Child>,
    /// Who starts the daemon, where it is not the test alone.
    pub keeper: Option<Keeper>,
}

impl Appliance {
    /// Folders and configuration, nothing started. `settings` is TOML that wins over the rig's.
    pub fn prepare(settings: &str) -> Self {
        let place = Place::take();
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // What must not reach a disk is kept where there is none.
        let runtime = TempDir::with_prefix_in("callvault-test-", "/dev/shm").unwrap();
        let (sip, http) = (place.sip(), place.http());
        let text = format!(
            "data_dir = {data:?}\nruntime_dir = {runtime:?}\n\n[sip]\nudp = \"{sip}\"\ntcp = \"{sip}\"\n\n\
             [media]\naddress = \"{ip}\"\nports = \"{first}-{last}\"\n\n[limits]\nsessions_max = 100\n\n\
             [journal]\nspool_free_min = \"16MiB\"\n\n[http]\nlisten = \"{http}\"\n",
            data = home.path().join("data"),
            runtime = runtime.path(),
            ip = place.ip,
            first = MEDIA_PORT,
            last = MEDIA_PORT + 399,
        );
        for folder in ["conf.d", "tmp"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        fs::write(home.path().join("callvault.toml"), text).unwrap();
        fs::write(home.path().join("conf.d/test.toml"), settings).unwrap();
        Self { place, home, runtime, daemon: None, keeper: None }
    }

    /// [`Appliance::prepare`], started and ready.
    pub fn start(settings: &str) -> Self {
        let mut appliance = Self::prepare(settings);
        appliance.launch();
        appliance
    }

    /// [`Appliance::start`], by a service manager.
    pub fn start_kept(settings: &str, keeper: Keeper) -> Self {
        let mut appliance = Self::prepare(settings);
        appliance.keeper = Some(keeper);
        appliance.launch();
        appliance
    }

    /// Other settings than those that it was prepared with; in force with the next start.
    pub fn configure(&self, settings: &str) {
        fs::write(self.home.path().join("conf.d/test.toml"), settings).unwrap();
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn sip(&self) -> SocketAddr {
        self.place.sip()
    }

    fn command(&self, program: &str) -> Command {
        self.with_settings(Command::new(program))
    }

    fn with_settings(&self, mut command: Command) -> Command {
        command.arg("--config").arg(self.home.path().join("callvault.toml")).env_clear();
        command.env("TMPDIR", self.home.path().join("tmp")).env("TZ", "UTC");
        command.stdin(Stdio::null());
        command
    }

    /// A daemon on this appliance's configuration, to its end; for those that are to fail.
    pub fn daemon_output(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_callvaultd")).args(arguments).output().unwrap()
    }

    /// `callvaultctl`.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_callvaultctl")).args(arguments).output().unwrap()
    }

    /// Starts the daemon and does not wait for it.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let daemon = env!("CARGO_BIN_EXE_callvaultd");
        let mut command = if let Some(keeper) = &self.keeper {
            // The daemon takes descriptors only where they are meant for its process, whose number is the shell's.
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"]).arg(daemon);
            let mut command = self.with_settings(command);
            keeper.hand_over(&mut command);
            command
        } else {
            self.command(daemon)
        };
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts the daemon by another program that becomes it, such as `unshare`, and does not wait for it.
    pub fn spawn_by(&mut self, program: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(env!("CARGO_BIN_EXE_callvaultd"));
        command.arg("--config").arg(self.home.path().join("callvault.toml"));
        command.env("TMPDIR", self.home.path().join("tmp")).env("TZ", "UTC").stdin(Stdio::null());
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("this test needs the program"));
    }

    /// Starts the daemon so that it is killed when one of its threads is about to make the `nth` of these system calls on one of these
    /// files, which strace(1) does.
    pub fn spawn_killed_at(&mut self, (system_calls, nth): (&str, u32), files: &[PathBuf]) {
        let inject = format!("inject={system_calls}:signal=KILL:when={nth}");
        let trace = format!("trace={system_calls}");
        let mut program = vec!["strace", "-D", "-f", "-q", "-e", "signal=none", "-e", &trace, "-e", &inject];
        program.extend(["-o", "/dev/null"]);
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        program.extend(files.iter().flat_map(|file| ["-P", file.as_str()]));
        self.spawn_by(&program);
    }

    /// From now on the daemon is killed when its thread of this name, or any where it is empty, is about to make the `nth` of these system
    /// calls (counted for each thread, as strace(1) does) on one of these files, as long as what is returned is there.
    pub fn kill_at(&self, thread: &str, (system_calls, nth): (&str, u32), files: &[PathBuf]) -> Tracer {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.daemon()));
        let read = |task: &PathBuf, name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
        let wanted = || {
            let tasks = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
            tasks.filter(|task| thread.is_empty() || read(task, "comm").trim() == thread)
        };
        let target = wanted().next().expect("there is such a thread");
        let target = if thread.is_empty() {
            self.daemon().to_string()
        } else {
            target.file_name().unwrap().to_str().unwrap().to_owned()
        };
        let mut command = Command::new("strace");
        command.args(["-q", "-e", "signal=none", "-o", "/dev/null", "-p", &target]);
        command.args(thread.is_empty().then_some("-f"));
        command.args(["-e", &format!("trace={system_calls}")]);
        command.args(["-e", &format!("inject={system_calls}:signal=KILL:when={nth}")]);
        command.args(files.iter().flat_map(|file| [Path::new("-P"), file]));
        let tracer = Tracer(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_until("what is to be traced to be so", || {
            wanted().all(|task| !read(&task, "status").contains("TracerPid:\t0\n"))
        });
        tracer
    }

    /// Whether the daemon was killed; then its recorder is gone too when this returns.
    pub fn is_killed(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return true };
        let Some(status) = daemon.try_wait().unwrap() else { return false };
        assert!(status.code().is_none(), "the daemon ended by itself: {status}");
        self.daemon = None;
        // Its recorder, and what it was about to start, which has copies of its locks until it is its own program.
        for lock in ["lock", "recorder.lock"].map(|name| self.data().join(name)) {
            wait_until("the end of all that it started", || {
                File::open(&lock).is_ok_and(|file| file.try_lock().is_ok()) || !lock.exists()
            });
        }
        true
    }

    /// [`Appliance::launch`] under strace(1), which writes these system calls of the daemon and of all that it starts to `trace`.
    pub fn launch_traced(&mut self, system_calls: &str, trace: &Path) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        // The tracer is the grandchild, so that this child is the daemon itself.
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-y", "-q", "-s", "64", "-e", "signal=none", "-e"])
            .arg(format!("trace={system_calls}"));
        command.arg("-o").arg(trace).arg(env!("CARGO_BIN_EXE_callvaultd"));
        command.arg("--config").arg(self.home.path().join("callvault.toml"));
        command.env("TMPDIR", self.home.path().join("tmp")).env("TZ", "UTC").stdin(Stdio::null());
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("this test needs strace"));
        self.wait_ready();
    }

    /// Starts the daemon and waits until calls are recorded.
    pub fn launch(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    pub fn wait_ready(&mut self) {
        wait_until("the appliance is ready", || {
            let daemon = self.daemon.as_mut().expect("it was started");
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("the daemon ended by itself: {status}");
            }
            self.is_ready()
        });
    }

    pub fn is_ready(&self) -> bool {
        http::ask(self.place.http(), "GET", "/ready", None).is_ok_and(|response| response.status == 200)
    }

    pub fn daemon(&self) -> u32 {
        self.daemon.as_ref().expect("it was started").id()
    }

    /// The recorder; waits for it when it is between two lives.
    pub fn recorder(&self) -> u32 {
        let daemon = self.daemon();
        wait_for("a recorder", || process::children(daemon, "callvault-recorder").first().copied())
    }

    /// Ends the daemon as `systemctl stop` does, and sees that it ends well.
    pub fn stop(&mut self) {
        process::send(self.daemon(), Signal::SIGTERM);
        self.wait_ended();
    }

    /// Sees that the daemon, which was told to end, ends well.
    pub fn wait_ended(&mut self) {
        let mut daemon = self.daemon.take().expect("it was started");
        let status = wait_for("the daemon's end", || daemon.try_wait().unwrap());
        assert!(status.success(), "the daemon ended with {status}");
    }

    /// `kill -9` of the daemon, and the recorder's end that follows from it: what systemd, too, waits for before it starts another.
    pub fn kill(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let recorders = process::children(daemon.id(), "callvault-recorder");
        process::send(daemon.id(), Signal::SIGKILL);
        daemon.wait().unwrap();
        wait_until("the recorder's end", || recorders.iter().all(|recorder| !process::lives(*recorder)));
    }

    /// `kill -9` of the daemon and nothing else: its recorder may be there still when another daemon is started.
    pub fn kill_alone(&mut self) {
        let mut daemon = self.daemon.take().expect("it was started");
        process::send(daemon.id(), Signal::SIGKILL);
        daemon.wait().unwrap();
    }

    /// Ends the daemon as far as it can be ended while one of its threads is in a call that the kernel cannot break off: waits until it
    /// runs no more, but not for the end of the process.
    pub fn leave(&mut self, signal: Signal) -> Left {
        let daemon = self.daemon.take().expect("it was started");
        let recorders = process::children(daemon.id(), "callvault-recorder");
        process::send(daemon.id(), signal);
        wait_until("the recorder's end", || recorders.iter().all(|recorder| !process::lives(*recorder)));
        wait_until("the end of its main thread", || !process::lives(daemon.id()));
        Left(daemon)
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }

    /// What the daemon and the recorder have logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn token(&self) -> String {
        fs::read_to_string(self.data().join("control.token")).unwrap().trim().to_owned()
    }

    pub fn ask(&self, method: &str, path: &str) -> Response {
        http::ask(self.place.http(), method, path, Some(&self.token())).unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        let response = self.ask("GET", path);
        assert_eq!(response.status, 200, "{path}: {}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// All recordings, the newest first.
    pub fn recordings(&self) -> Vec<Value> {
        self.get("/v1/recordings?limit=1000")["recordings"].as_array().unwrap().clone()
    }

    /// The recording of the call with this identifier, once it has one.
    pub fn recording(&self, call_id: &str) -> Value {
        wait_for("the recording of the call", || {
            self.recordings().into_iter().find(|recording| recording["call_id"] == call_id)
        })
    }

    /// The recording with this id once it is archived.
    pub fn archived_by_id(&self, id: &str) -> Value {
        wait_for("the archive of the recording", || {
            let recording = self.ask("GET", &format!("/v1/recordings/{id}"));
            Some(recording)
                .filter(|r| r.status == 200)
                .map(|r| r.json())
                .filter(|r| r["archive"]["state"] == "archived")
        })
    }

    /// The recording of the call once it is archived.
    pub fn archived(&self, call_id: &str) -> Value {
        wait_for("the archive of the call", || {
            let recording = self.recording(call_id);
            (recording["archive"]["state"] == "archived").then_some(recording)
        })
    }

    /// The jobs that are not done.
    pub fn jobs_left(&self) -> Vec<Value> {
        let mut jobs = self.get("/v1/jobs")["jobs"].as_array().unwrap().clone();
        jobs.retain(|job| job["state"] != "done");
        jobs
    }

    /// A recording's audio.
    pub fn wav(&self, recording: &Value) -> Wav {
        let id = recording["id"].as_str().unwrap();
        let response = self.ask("GET", &format!("/v1/recordings/{id}/audio?format=wav"));
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
        Wav::parse(&response.body)
    }

    /// What `callvaultctl recordings verify` says, and its exit status.
    pub fn verify(&self) -> (i32, Value) {
        let output = self.ctl(&["recordings", "verify", "--json"]);
        let said = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), said)
    }

    /// That everything there is, is whole.
    pub fn assert_verifies(&self) {
        let (status, said) = self.verify();
        assert_eq!(status, 0, "{said:#}");
    }

    fn show_log(&self) {
        let Ok(mut log) = File::open(self.log_path()) else { return };
        let length = log.metadata().map_or(0, |about| about.len());
        let _ = log.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN_BYTES)));
        let mut text = Vec::new();
        let _ = log.read_to_end(&mut text);
        eprintln!("---- the daemon's log ----\n{}---- end of the log ----", String::from_utf8_lossy(&text));
    }
}

/// A daemon that was left behind.
pub struct Left(Child);

impl Left {
    /// Waits until it is gone for good.
    pub fn gone(mut self) {
        wait_until("the old daemon's end", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_log();
        }
        let Some(mut daemon) = self.daemon.take() else { return };
        let recorders = process::children(daemon.id(), "callvault-recorder");
        // Nothing here may panic: a second one would hide the first.
        let _ = daemon.kill();
        let _ = daemon.wait();
        let begun = Instant::now();
        while recorders.iter().any(|recorder| process::lives(*recorder)) && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Makes the archives of this appliance fail, until [`let_archive`]: a file lies where a folder of the store must be.
pub fn keep_from_archiving(appliance: &Appliance) {
    for year in years() {
        fs::write(appliance.data().join("store").join(year), "").unwrap();
    }
}

/// Ends what [`keep_from_archiving`] began.
pub fn let_archive(appliance: &Appliance) {
    for year in years() {
        fs::remove_file(appliance.data().join("store").join(year)).unwrap();
    }
}

/// This year and the next, which may begin during the test.
fn years() -> [String; 2] {
    let year = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year();
    [year.to_string(), (year + 1).to_string()]
}

/// What watches a daemon's system calls; it lets go of the daemon when it is dropped.
pub struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        crate::rig::process::send(self.0.id(), nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
