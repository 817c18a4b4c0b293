//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Operate the callvault appliance: its health, calls, recordings, jobs and keys.
#[derive(Debug, Parser)]
#[command(name = "callvaultctl", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// The configuration of the appliance; tells where the daemon listens.
    #[arg(long, global = true, value_name = "FILE", default_value = callvault_config::DEFAULT_PATH)]
    pub(crate) config: PathBuf,
    /// Print the daemon's JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Ask with the token in this file instead of the control token; then it is for that token's user to see and do.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_STATUS: &str =
    "Exit status: 0 done, 1 failed or something is wrong, 2 wrong command line, 3 the daemon cannot be reached.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// How the appliance is doing: every component with what is wrong and what to do.
    Status,
    /// The calls that are being recorded now; with an action: pause, resume, stop, start or keep the recording of one.
    Calls(Calls),
    /// Find, show, export, verify and delete recordings.
    #[command(subcommand)]
    Recordings(Box<Recordings>),
    /// Work after the calls: what waits, runs or is parked.
    #[command(subcommand)]
    Jobs(Jobs),
    /// Deliveries of recordings to others: uploads, posts, files in a folder.
    #[command(subcommand)]
    Deliveries(Deliveries),
    /// The keys that recordings are sealed to.
    #[command(subcommand)]
    Keys(Keys),
    /// Stop recording as a whole, start it again, or see which it is.
    #[command(subcommand)]
    Recording(Recording),
    /// How long recordings stay: what would be deleted, and the answer to what is asked before that.
    #[command(subcommand)]
    Retention(Retention),
    /// Where archives are, and moving them to another folder or share.
    #[command(subcommand)]
    Store(StoreVerb),
    /// Tokens with which programs and people use the appliance.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Who did what: the audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Ask for what a first start needs, check each answer for real, and write the configuration.
    Setup(Box<Setup>),
    /// Look at everything that the appliance needs (configuration, keys, store, ports, certificate, mail server, clock and more), running or
    /// stopped, and say what is wrong and what to do.
    Doctor,
    /// Take no new calls and let those in progress end.
    Drain(Drain),
    /// Call the appliance as a SIPREC client would, and compare what was recorded with what was said.
    Selftest(Selftest),
    /// Make a lost or damaged catalogue again from store and journal; callvaultd must be stopped.
    Recover(Recover),
    /// Make a backup of keys, catalogue and settings, while everything goes on.
    Backup(Backup),
    /// Put a backup into the empty data folder of a new machine; callvaultd must be stopped.
    Restore(Restore),
    /// The configuration.
    #[command(subcommand)]
    Config(Configuration),
    /// The settings that are in force in the daemon.
    #[command(subcommand)]
    Settings(Settings),
    /// Mail to users.
    #[command(subcommand)]
    Mail(MailVerb),
    /// The users that recordings belong to.
    #[command(subcommand)]
    Users(Users),
    /// Calls that were not kept, and by which rule.
    #[command(subcommand)]
    Discards(Discards),
    /// Webex: its authorisation, and how it stands.
    #[command(subcommand)]
    Webex(crate::webex::Webex),
    /// Compare the call detail records of Webex with what is held: which calls are missing, short or extra.
    Completeness(Completeness),
}

/// The answers that `setup` is given instead of asking; what is not given is asked on a terminal, and stays as it is elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Where SIP over UDP is taken, such as 10.0.0.5:5060; several separated by commas, or none.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) udp: Option<String>,
    /// The same for SIP over TCP.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) tcp: Option<String>,
    /// The same for SIP over TLS.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) tls: Option<String>,
    /// Networks that SIP is taken from, separated by commas; for Webex Calling add those of your region.
    #[arg(long, value_name = "NETWORKS")]
    pub(crate) allowed_peers: Option<String>,
    /// The address that callers are told to send audio to, or auto.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) media_address: Option<String>,
    /// The UDP ports for audio, such as 20000-29999.
    #[arg(long, value_name = "PORTS")]
    pub(crate) media_ports: Option<String>,
    /// The certificate for SIP over TLS, with those above it.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<String>,
    /// Its private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<String>,
    /// The name by which clients reach the recorder over TLS, which the certificate must be for; or none.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The folder for archives, or none for the one in the data folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) store: Option<String>,
    /// The folder for archives is on a share: refuse it while none is mounted there.
    #[arg(long)]
    pub(crate) share: bool,
    /// How long recordings stay: keep-all, 12-months, 48-months, 4-hours or custom.
    #[arg(long, value_name = "RULE")]
    pub(crate) retention: Option<String>,
    /// With custom: for how long, such as "90 days".
    #[arg(long, value_name = "PERIOD")]
    pub(crate) retention_period: Option<String>,
    /// The organisation's time zone, such as Europe/Rome, or system.
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// The mail server, or none.
    #[arg(long, value_name = "HOST")]
    pub(crate) mail_server: Option<String>,
    /// Its port; 0 for the usual one.
    #[arg(long, value_name = "PORT")]
    pub(crate) mail_port: Option<String>,
    /// How the way there is protected: starttls, tls or none.
    #[arg(long, value_name = "HOW")]
    pub(crate) mail_tls: Option<String>,
    /// The authorities that its certificate must be signed by, or none for those that this machine trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) mail_ca: Option<String>,
    /// The name to sign in with, or none.
    #[arg(long, value_name = "USER")]
    pub(crate) mail_user: Option<String>,
    /// The file with the password; a password itself is never given on a command line.
    #[arg(long, value_name = "FILE")]
    pub(crate) mail_password_file: Option<String>,
    /// The address that mails come from.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mail_from: Option<String>,
    /// Ask nothing: take what is given here, and leave the rest as it is.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Check, show what would be written, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write it although a check failed, for what is not there yet.
    #[arg(long)]
    pub(crate) anyway: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Calls {
    #[command(subcommand)]
    pub(crate) action: Option<CallAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CallAction {
    /// Store nothing of the call until it is resumed, whatever the client does.
    Pause(CallId),
    /// Store the call again; a pause of the client's own goes on.
    Resume(CallId),
    /// End the recording; the call goes on.
    Stop(CallId),
    /// Begin another recording of a call whose recording was stopped, or keep one that is recorded on demand.
    Start(CallId),
    /// Keep the recording of a call that is recorded on demand.
    Keep(CallId),
}

#[derive(Debug, Args)]
pub(crate) struct CallId {
    /// The call, as `callvaultctl calls` shows it in the last column.
    #[arg(value_parser = recording_id)]
    pub(crate) id: String,
}

impl CallAction {
    /// The word for it, and for which call.
    pub(crate) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Pause(call) => ("pause", &call.id),
            Self::Resume(call) => ("resume", &call.id),
            Self::Stop(call) => ("stop", &call.id),
            Self::Start(call) => ("start", &call.id),
            Self::Keep(call) => ("keep", &call.id),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Wait until the last call has ended.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Take new calls again.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) cancel: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Recordings {
    /// List recordings, the newest first.
    List(List),
    /// Everything known about one recording.
    Show {
        #[arg(value_parser = recording_id)]
        id: String,
    },
    /// Write a recording's audio to a file, or the audio of all that is searched for into a folder.
    Export(Export),
    /// Keep a recording beyond its time.
    Preserve {
        #[arg(value_parser = recording_id)]
        id: String,
    },
    /// Let a preserved recording go with its time again.
    Release {
        #[arg(value_parser = recording_id)]
        id: String,
    },
    /// Write, change and delete notes on recordings.
    Note {
        #[command(subcommand)]
        verb: NoteVerb,
    },
    /// Tag recordings.
    Tag {
        #[command(subcommand)]
        verb: TagVerb,
    },
    /// Check that recordings are whole: all of them, or one.
    Verify {
        #[arg(value_parser = recording_id)]
        id: Option<String>,
    },
    /// Delete recordings for ever: the key first, then the audio.
    Delete {
        #[arg(value_parser = recording_id, required = true)]
        ids: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// To whom a recording is owed, and how far that is.
    List {
        #[arg(value_parser = recording_id)]
        id: String,
    },
    /// Have recordings delivered that were archived before this was switched on.
    Send {
        /// To whom.
        #[arg(long, value_parser = ["analytics", "webhook", "export_folder"])]
        to: String,
        #[arg(value_parser = recording_id, required = true)]
        ids: Vec<String>,
    },
}

/// Which recordings.
#[derive(Debug, Args)]
pub(crate) struct Completeness {
    /// Files with answers of Webex's detailed call history, each an object with a list named items. Without any, the records that the
    /// appliance reads by itself.
    pub(crate) files: Vec<PathBuf>,
    /// Without files: only calls begun at or after this time, as `recordings list` takes it; without it a day ago.
    #[arg(long, value_name = "TIME", conflicts_with = "files")]
    pub(crate) from: Option<String>,
    /// Only calls begun before this time.
    #[arg(long, value_name = "TIME", conflicts_with = "files")]
    pub(crate) to: Option<String>,
    /// Only calls of this location, as Webex names it.
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub(crate) location: Option<String>,
    /// Only calls of this user, as Webex names them.
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub(crate) user: Option<String>,
    /// The recording platform by which Webex knows this appliance; several may be given. Without it, every one but Webex's own.
    #[arg(long, value_name = "NAME", requires = "files")]
    pub(crate) platform: Vec<String>,
    /// What is wrong as comma-separated values.
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Debug, Default, Args)]
#[group(id = "search", multiple = true)]
pub(crate) struct Search {
    /// Only those begun at or after this time: "2026-11-05", "2026-11-05T14:30", RFC 3339, or so long ago: "2h", "7d".
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only those begun before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Only those with this verdict.
    #[arg(long, value_parser = ["ok", "degraded", "failed", "no-media", "discarded"])]
    pub(crate) verdict: Option<String>,
    /// Only calls in this direction, seen from the recorded user.
    #[arg(long, value_parser = ["incoming", "outgoing", "unknown"])]
    pub(crate) direction: Option<String>,
    /// Only calls within the organisation, or with others.
    #[arg(long, value_parser = ["internal", "external", "unknown"])]
    pub(crate) traffic: Option<String>,
    /// Only calls with this number on either side: its end, or all of it if it begins with "+".
    #[arg(long)]
    pub(crate) number: Option<String>,
    /// Which part of the number was given.
    #[arg(long, requires = "number", value_parser = ["prefix", "suffix", "part"])]
    pub(crate) number_match: Option<String>,
    /// Only recordings of this user.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Only recordings of the users in this group.
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Only those with this tag; given several times, with all of them.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Only those with this text in a note.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Only those that are preserved, or are not.
    #[arg(long, value_name = "true|false")]
    pub(crate) preserved: Option<bool>,
    /// Only those of at least so many milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) duration_min_ms: Option<u64>,
    /// Only those of at most so many milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) duration_max_ms: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) search: Search,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Go on where a list ended.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// All of them, however many.
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NoteVerb {
    /// Write a note.
    Add {
        #[arg(value_parser = recording_id)]
        id: String,
        /// What it says.
        text: String,
        /// Which moment it is about, in milliseconds from the recording's start.
        #[arg(long, value_name = "MS")]
        at_ms: Option<u64>,
    },
    /// Change what a note says.
    Edit {
        #[arg(value_parser = recording_id)]
        id: String,
        /// The note's id, as `recordings show` shows it.
        #[arg(value_parser = note_id)]
        note: String,
        /// What it says from now on.
        text: String,
    },
    /// Delete a note.
    Delete {
        #[arg(value_parser = recording_id)]
        id: String,
        /// The note's id, as `recordings show` shows it.
        #[arg(value_parser = note_id)]
        note: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TagVerb {
    /// Add a tag.
    Add {
        #[arg(value_parser = recording_id)]
        id: String,
        tag: String,
    },
    /// Take a tag away.
    Remove {
        #[arg(value_parser = recording_id)]
        id: String,
        tag: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[arg(value_parser = recording_id, required_unless_present = "folder", conflicts_with_all = ["folder", "search"])]
    pub(crate) id: Option<String>,
    /// Export all that is searched for into this folder, a file a call, with manifest.csv and manifest.json. Started again, it goes on.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "start_ms", "end_ms", "force"])]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) search: Search,
    /// Recordings exported at once.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "folder", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) parallel: u32,
    /// The format; by default that of the file's ending, else WAV.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The file to write; "-" is standard output. By default ID.wav, ID.opus or ID.mp3 in this folder.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only from this many milliseconds into the recording.
    #[arg(long, value_name = "MS")]
    pub(crate) start_ms: Option<u64>,
    /// Only up to this many milliseconds into the recording.
    #[arg(long, value_name = "MS")]
    pub(crate) end_ms: Option<u64>,
    /// Replace the file if there is one.
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// The formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Uncompressed, for other programs.
    Wav,
    /// Small and good.
    Opus,
    /// Plays everywhere.
    Mp3,
}

impl Format {
    /// The word for it, which is also the ending of files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Opus => "opus",
            Self::Mp3 => "mp3",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// List the jobs: what waits, runs or is parked, and what was done lately.
    List,
    /// Try parked or waiting jobs again now.
    Retry {
        /// The jobs, as `jobs list` names them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make the appliance's first key without starting the daemon.
    Init,
    /// The public keys that recordings are sealed to.
    Show,
    /// Make a new key for recordings from now on; the old one stays for those before.
    Rotate {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Recording {
    /// Refuse new calls until recording is started again, whatever is restarted meanwhile; calls in progress go on.
    Stop {
        /// Why; health shows it.
        #[arg(long)]
        reason: String,
    },
    /// Take new calls again.
    Start,
    /// Whether recording is stopped, since when and why.
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Retention {
    /// Show the rule, what is due, and what has to be confirmed before it is deleted.
    Plan,
    /// Delete what is due now instead of in some minutes; what has to be confirmed stays.
    Run {
        /// Show what would be deleted, and delete nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Confirm what retention asks: a rule that was made shorter, an unusually large deletion, or a clock that jumped.
    Confirm {
        /// What is asked, as `retention plan` names it.
        token: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// The stores, what they have, and how far a move is.
    Status,
    /// Have new archives go to another folder, and move those that there are, while everything goes on. It needs no restart, and goes on
    /// by itself after one.
    Migrate {
        /// The folder, a whole path, on a disk or a mounted share.
        #[arg(long, value_name = "FOLDER")]
        to: String,
        /// Most megabytes a second; without this as fast as it goes.
        #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: Option<u32>,
        /// Only say what would be moved, and whether there is room.
        #[arg(long)]
        dry_run: bool,
        /// Wait until everything is moved.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a token and show it, once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// What it gives at most; never more than its user may.
        #[arg(long, value_parser = ["record-only", "base", "group-supervisor", "administrator"])]
        level: String,
        /// The Webex e-mail of the user whose it is; only an administrator's token needs none.
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        /// Days until it is worth nothing; without this it has no end.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3660))]
        expires: Option<u32>,
    },
    /// List the tokens; what they are is not kept.
    List,
    /// Make a token worthless, at once and for good.
    Revoke {
        /// The token's id, as `tokens list` shows it in the last column.
        #[arg(value_parser = token_id)]
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List entries, the newest first.
    List {
        #[command(flatten)]
        filter: AuditFilter,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on where a list ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Check that no entry was changed, taken out or cut off.
    Verify {
        /// What an earlier check gave as head: shows that nothing up to there was cut off.
        #[arg(long)]
        head: Option<String>,
    },
    /// Write entries to standard output, the oldest first.
    Export {
        #[command(flatten)]
        filter: AuditFilter,
        /// The form: a table for spreadsheets, or a JSON object a line.
        #[arg(long, value_enum, default_value_t = AuditFormat::Csv)]
        format: AuditFormat,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditFilter {
    /// Only from this time on: "2026-11-05", "2026-11-05T14:30", RFC 3339, or so long ago: "2h", "7d".
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Only this action, for example play, delete, settings.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only what this user or token did: an e-mail, a token's name, or operator.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only what was done to this recording.
    #[arg(long, value_name = "ID", value_parser = recording_id)]
    pub(crate) recording: Option<String>,
    /// Only what went so.
    #[arg(long, value_parser = ["allowed", "refused", "failed"])]
    pub(crate) outcome: Option<String>,
}

/// The forms of an exported audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditFormat {
    /// Comma-separated values.
    Csv,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("lock").required(true))]
pub(crate) struct Backup {
    /// The file to make, which must not be there.
    pub(crate) file: PathBuf,
    /// The file with the passphrase that opens it, of twelve characters or more.
    #[arg(long, value_name = "FILE", group = "lock")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The age recipient (age1…) that it is made for: then nothing on this machine opens it. `age-keygen` makes one.
    #[arg(long, value_name = "AGE", group = "lock")]
    pub(crate) recipient: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("lock").required(true))]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) file: PathBuf,
    /// The file with the passphrase that it was made with.
    #[arg(long, value_name = "FILE", group = "lock")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The file of the age identity that belongs to the recipient that it was made for.
    #[arg(long, value_name = "FILE", group = "lock")]
    pub(crate) identity_file: Option<PathBuf>,
    /// Read it, look whether its keys open its catalogue, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Say what would be done, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on although the store is not there; run it again when it is, for the recordings that only its archives know of.
    #[arg(long)]
    pub(crate) without_store: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Selftest {
    /// Calls at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) calls: usize,
    /// Length of each call in seconds.
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub(crate) seconds: u32,
    /// How to call; by default over UDP where the appliance listens there.
    #[arg(long)]
    pub(crate) transport: Option<Transport>,
    /// Call this address instead of the configured one.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) sip: Option<SocketAddr>,
    /// Seconds to wait for the archives after the last call.
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) wait: u64,
}

/// The transports of a self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// SIP over UDP.
    Udp,
    /// SIP over TCP.
    Tcp,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Settings {
    /// The value in force, where it was set, and what waits for a restart: of all keys, of a section, or of one key.
    Show {
        /// A key such as `mail.server`, or a section such as `mail`.
        key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MailVerb {
    /// Send a mail that tells of a made-up call, now, and say what the mail server said.
    Test {
        /// To whom.
        address: String,
        /// In which language: `en`, `it`, `de`, `fr`, `es`, or one that `mail.templates` has.
        #[arg(long)]
        language: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Configuration {
    /// Check the configuration and report every error with its line.
    Check,
    /// Every key with the value in force and where it is set.
    Show,
    /// The documented sample file with all defaults.
    Sample,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Take users from a file: new ones come, known ones change, all of them or none.
    Import(ImportUsers),
    /// Synchronise users with Webex now, all of them or none, and say what was done.
    Sync(SyncUsers),
    /// Who is recorded at Webex and unknown here, users whose calls Webex does not send, and calls of the last seven days whose user
    /// nobody knows.
    Unmatched,
    /// The users that there are.
    List,
    /// One user, every field.
    Show {
        /// The Webex e-mail.
        email: String,
        /// Write the user's picture to this file instead.
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
    },
    /// Set fields of a user, or make one.
    Set {
        /// The Webex e-mail.
        email: String,
        /// Fields with their values, for example group=Sales level=group-supervisor; an empty value empties the field.
        #[arg(required_unless_present_any = ["picture", "no_picture"], value_name = "FIELD=VALUE", value_parser = field_and_value)]
        fields: Vec<(String, String)>,
        /// The user's picture, a PNG, JPEG or BMP file.
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
        /// The user has no picture any more.
        #[arg(long, conflicts_with = "picture")]
        no_picture: bool,
    },
    /// Remove a user. The recordings stay, with the name that the owner had.
    Remove {
        /// The Webex e-mail.
        email: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SyncUsers {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// It is meant, although unusually many users would be removed.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) confirm: bool,
    /// Show what earlier ones did instead.
    #[arg(long, conflicts_with_all = ["dry_run", "confirm"])]
    pub(crate) history: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportUsers {
    /// The file: CSV whose first line names the fields, or TOML with an array of tables named user.
    pub(crate) file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove the users that are not in the file.
    #[arg(long)]
    pub(crate) remove_missing: bool,
    /// It is meant, although unusually many users would be removed.
    #[arg(long)]
    pub(crate) confirm: bool,
}

fn field_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write FIELD=VALUE, for example group=Sales")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Discards {
    /// List calls that were not kept, the newest first.
    List {
        /// Only those of this rule, as the list names it, for example filter-blacklist.
        #[arg(long)]
        rule: Option<String>,
        /// Only those that ended at or after this time, as `recordings list` takes it.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only those that ended before this time.
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
}

fn note_id(text: &str) -> Result<String, String> {
    recording_id(text).map_err(|_| "not the id of a note; `callvaultctl recordings show` shows them".to_owned())
}

fn token_id(text: &str) -> Result<String, String> {
    recording_id(text).map_err(|_| "not the id of a token; `callvaultctl tokens list` shows them".to_owned())
}

/// An id in the form that recordings have: a wrong one is told here, where the hint fits, not by the daemon.
fn recording_id(text: &str) -> Result<String, String> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("not the id of a recording; `callvaultctl recordings list` shows them in its last column".into())
    }
}
