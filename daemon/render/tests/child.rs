//! The driver with a real child: this test program, which becomes a render process, or one that misbehaves, when it is started under
//! another name.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use callvault_render_protocol::*;
use support::*;

type Child = fn() -> ExitCode;
type Test = fn(&Programs);

/// What a child does, by the name that it is started under.
const CHILDREN: [(&str, Child); 10] = [
    ("callvault-render", callvault_render::main),
    ("exits", || ExitCode::from(7)),
    ("takes-nothing", || wait_forever()),
    ("answers-nothing", || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).unwrap();
        wait_forever()
    }),
    ("talks-nonsense", || says(&[0x55; 5_000])),
    ("talks-without-end", || {
        let mut block = Vec::new();
        write_frame(&mut block, &FromRender::Data(vec![0; DATA_BYTES_MAX]), &mut Vec::new()).unwrap();
        while std::io::stdout().write_all(&block).is_ok() {}
        ExitCode::SUCCESS
    }),
    ("fails-and-stops-reading", || {
        let failed = FromRender::Failed { kind: FailureKind::Encoder, text: "for a test".into() };
        let mut frame = Vec::new();
        write_frame(&mut frame, &failed, &mut Vec::new()).unwrap();
        // Long enough for the daemon to fill the pipe.
        std::thread::sleep(Duration::from_millis(300));
        says(&frame)
    }),
    ("looks-around", look_around),
    ("writes-a-file", || {
        let beside = std::env::args_os().next().unwrap();
        let _ = std::fs::write(PathBuf::from(beside).with_extension("written"), b"x");
        says(b"it may write files")
    }),
    ("computes-forever", || {
        let mut n = 0_u64;
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }),
];

fn wait_forever() -> ExitCode {
    loop {
        std::thread::park();
    }
}

fn says(bytes: &[u8]) -> ExitCode {
    std::io::stdout().write_all(bytes).unwrap();
    std::io::stdout().flush().unwrap();
    wait_forever()
}

/// Reports, as a failure's text, what a sandboxed process can see and do.
fn look_around() -> ExitCode {
    let mut first = [0; 4];
    std::io::stdin().read_exact(&mut first).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() - 1;
    let environment = std::env::vars_os().count();
    let folder = std::env::current_dir().unwrap();
    let text = format!(
        "no new privileges {}, descriptors {descriptors}, environment {environment}, folder {}, network {}",
        field("NoNewPrivs:"),
        folder.display(),
        network()
    );
    let mut frame = Vec::new();
    write_frame(&mut frame, &FromRender::Failed { kind: FailureKind::Unsupported, text }, &mut Vec::new()).unwrap();
    says(&frame)
}

/// The network namespace of this process.
fn network() -> String {
    std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string()
}

/// Whether this process may make a network namespace without further ado (CAP_SYS_ADMIN, bit 21).
fn may_separate_networks() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() & (1 << 21) != 0
}

/// The caller's error type.
#[derive(Debug)]
enum Error {
    Render(RenderError),
    Source,
    Sink,
}

impl From<RenderError> for Error {
    fn from(error: RenderError) -> Self {
        Self::Render(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Render(error) => error.fmt(f),
            Self::Source => f.write_str("source"),
            Self::Sink => f.write_str("sink"),
        }
    }
}

struct Programs(tempfile::TempDir);

impl Programs {
    /// This program under each child's name. A folder that the sandbox's user can enter.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in CHILDREN {
            std::os::unix::fs::symlink(std::env::current_exe().unwrap(), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spawn(&self, name: &str, limits: Limits) -> Renderer {
        Renderer::spawn(&self.path(name), None, limits).unwrap()
    }
}

fn wav_job(seconds: u64) -> Job {
    job(Output::Wav, vec![track(Codec::Pcmu, 8_000, 0)], seconds * 48_000)
}

/// More packets than pipes and buffers hold: `seconds` of them.
fn packets(seconds: u64) -> impl Iterator<Item = Result<Packet, Error>> {
    (0..seconds * 50).map(|n| Ok(packet(0, n * 960, vec![0x80; 160])))
}

fn collect(renderer: &mut Renderer, job: &Job) -> Result<(Stats, Vec<u8>), Error> {
    let mut file = Vec::new();
    let stats = renderer.run(job, packets(60), |output| {
        let FromRender::Data(data) = output else { panic!("only data is expected") };
        file.extend(data);
        Ok(())
    })?;
    Ok((stats, file))
}

fn patient() -> Limits {
    Limits { stall_max: Duration::from_secs(60), ..Limits::default() }
}

fn impatient() -> Limits {
    Limits { stall_max: Duration::from_millis(300), ..Limits::default() }
}

fn jobs_follow_each_other(programs: &Programs) {
    let mut renderer = programs.spawn("callvault-render", patient());
    let (stats, file) = collect(&mut renderer, &wav_job(60)).unwrap();
    assert_eq!((stats.tracks[0].packets, stats.ticks), (3_000, 60 * 48_000));
    assert_eq!(wav(&file).1, [vec![32_124; 480_000], vec![0; 480_000]]);

    // A job that the child gives up while packets are still coming, and one that is not even sent.
    let unsupported = job(Output::Wav, vec![track(Codec::Other("G729".into()), 8_000, 0)], 960);
    let error = collect(&mut renderer, &unsupported).unwrap_err();
    assert!(
        matches!(&error, Error::Render(error) if error.is_permanent()) && error.to_string().contains("G729"),
        "{error}"
    );
    assert!(renderer.is_ready());
    assert!(matches!(
        collect(&mut renderer, &Job { channels: 9, ..wav_job(1) }),
        Err(Error::Render(RenderError::BadJob(_)))
    ));
    assert!(renderer.is_ready());

    assert_eq!(collect(&mut renderer, &wav_job(60)).unwrap().1, file);
}

fn tracks_come_out(programs: &Programs) {
    let mut renderer = programs.spawn("callvault-render", patient());
    let job = Job { output: Output::OpusTracks { bit_rate: 0, complexity: 0 }, ..wav_job(10) };
    let mut count = 0;
    let stats = renderer.run(&job, packets(10), |output| {
        count += usize::from(matches!(output, FromRender::OpusPacket { .. }));
        Ok::<(), Error>(())
    });
    assert_eq!((count, stats.unwrap().tracks[0].output.as_ref().unwrap().pre_skip), (501, 312));
}

/// A short call in a long silence needs no more memory than the call. Holding the silence would take 350 MB.
fn a_long_silence_is_streamed(programs: &Programs) {
    let mut renderer = programs.spawn("callvault-render", Limits { memory_bytes_max: 160 << 20, ..patient() });
    let three_hours = 3 * 3_600 * 48_000;
    let job = Job { channels: 1, end_ticks: three_hours, ..wav_job(0) };
    let mut bytes = 0;
    let packets = [Ok(packet(0, 0, vec![0x80; 160])), Ok(packet(0, three_hours - 960, vec![0x80; 160]))];
    let result = renderer.run(&job, packets.into_iter(), |output| {
        if let FromRender::Data(data) = output {
            bytes += data.len();
        }
        Ok::<(), Error>(())
    });
    result.unwrap();
    assert_eq!(bytes, 44 + 3 * 3_600 * 16_000);
}

/// An error of the caller's own comes back as it is, and the child is not used again.
fn a_callers_error_comes_back(programs: &Programs) {
    let mut renderer = programs.spawn("callvault-render", patient());
    let failing = packets(20).chain(std::iter::once(Err(Error::Source))).chain(packets(20));
    assert!(matches!(renderer.run(&wav_job(60), failing, |_| Ok(())), Err(Error::Source)));
    assert!(matches!(collect(&mut renderer, &wav_job(1)), Err(Error::Render(RenderError::Spent))));

    let mut renderer = programs.spawn("callvault-render", patient());
    assert!(matches!(renderer.run(&wav_job(60), packets(60), |_| Err(Error::Sink)), Err(Error::Sink)));
    assert!(!renderer.is_ready());
}

/// A child that misbehaves ends the job with an error that names it, is not permanent, and blocks nobody.
fn check_misbehaviour(programs: &Programs, child: &str, limits: Limits, expected: &str) {
    let mut renderer = programs.spawn(child, limits);
    let error = collect(&mut renderer, &wav_job(60)).unwrap_err();
    assert!(error.to_string().contains(expected), "{child}: {error}");
    assert!(matches!(&error, Error::Render(error) if !error.is_permanent()), "{child}");
    assert!(!renderer.is_ready(), "{child}");
}

fn a_child_that_misbehaves_is_ended(programs: &Programs) {
    check_misbehaviour(programs, "exits", patient(), "exit status: 7");
    check_misbehaviour(programs, "takes-nothing", impatient(), "stood still");
    check_misbehaviour(programs, "answers-nothing", impatient(), "stood still");
    check_misbehaviour(programs, "talks-nonsense", patient(), "a frame above the limit");
    check_misbehaviour(programs, "talks-without-end", patient(), "more data than the job can account for");
    check_misbehaviour(
        programs,
        "answers-nothing",
        Limits { job_max: Duration::from_millis(300), ..patient() },
        "limit for one job",
    );
    check_misbehaviour(programs, "writes-a-file", patient(), "SIGXFSZ");
    check_misbehaviour(programs, "computes-forever", Limits { cpu_s_max: 1, ..patient() }, "died (signal");
}

/// Its failure counts, and the feeder that waits for it to read on is not waited for.
fn a_child_that_fails_and_stops_reading_blocks_nobody(programs: &Programs) {
    let limits = Limits { stall_max: Duration::from_secs(1), ..Limits::default() };
    let error = collect(&mut programs.spawn("fails-and-stops-reading", limits), &wav_job(60)).unwrap_err();
    assert_eq!(error.to_string(), "render: for a test");
}

fn a_slow_source_is_no_stall(programs: &Programs) {
    let mut renderer = programs.spawn("callvault-render", impatient());
    let slow = packets(1).enumerate().map(|(n, packet)| {
        if n == 25 {
            std::thread::sleep(Duration::from_secs(1));
        }
        packet
    });
    renderer.run(&wav_job(1), slow, |_| Ok::<(), Error>(())).unwrap();
}

fn the_child_has_nothing(programs: &Programs) {
    let mut renderer =
        programs.spawn("looks-around", Limits { stall_max: Duration::from_secs(5), ..Limits::default() });
    let seen = collect(&mut renderer, &wav_job(1)).unwrap_err().to_string();
    let expected = "no new privileges 1, descriptors 3, environment 0, folder /";
    assert!(seen.contains(expected), "{seen}");
    if may_separate_networks() {
        assert!(!seen.contains(&network()), "{seen}");
    } else {
        println!("not privileged: whether the child has a network of its own is not tested");
    }
}

fn a_program_that_is_not_there_is_named(_: &Programs) {
    let error = Renderer::spawn(Path::new("/nonexistent/callvault-render"), None, Limits::default()).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/callvault-render") && !error.is_permanent(), "{error}");
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_owned()));
    if let Some((_, child)) = CHILDREN.iter().find(|(child, _)| name.as_deref() == Some(child.as_ref())) {
        return child();
    }
    let tests: [(&str, Test); 9] = [
        ("jobs_follow_each_other", jobs_follow_each_other),
        ("tracks_come_out", tracks_come_out),
        ("a_long_silence_is_streamed", a_long_silence_is_streamed),
        ("a_callers_error_comes_back", a_callers_error_comes_back),
        ("a_child_that_misbehaves_is_ended", a_child_that_misbehaves_is_ended),
        ("a_child_that_fails_and_stops_reading_blocks_nobody", a_child_that_fails_and_stops_reading_blocks_nobody),
        ("a_slow_source_is_no_stall", a_slow_source_is_no_stall),
        ("the_child_has_nothing", the_child_has_nothing),
        ("a_program_that_is_not_there_is_named", a_program_that_is_not_there_is_named),
    ];
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let programs = Programs::new();
    let mut passed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(&filter)) {
        test(&programs);
        println!("test {name} ... ok");
        passed += 1;
    }
    // The line that the sum over all test programs is taken from.
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored");
    ExitCode::SUCCESS
}
