//! Every key, declared once: its type, its default, its range and its documentation, which is also the text of the sample
//! file `etc/callvault.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigError;
use crate::layers::Merged;
use crate::macros::settings;
use crate::setting::{KeySpec, Setting, read_within};
use crate::values::{
    ArchiveCodec, ArchiveKeys, BitRate, Bytes, ClientCertificate, DialDigits, HttpListen, KeptDirection, KeptTraffic,
    Listen, LogLevel, MediaAddress, Patterns, PeerList, PortRange, PublicKeyTexts, RecordingMode, Texts, UnknownUser,
    WhoDeletes, WhoMay,
};
use crate::{Config, Effective};

settings! {
    /// Where things are on this machine. (These keys stand before the first section.)
    pub struct Folders in "" {
        /// Everything that must survive a restart: journal, catalogue, queue, keys and, unless `store.path` says
        /// otherwise, the archives. Put it on a disk that honours fsync.
        data_dir: PathBuf = "\"/var/lib/callvault\"",
        /// Sockets and the checkpoints of live sessions. Must be on tmpfs: the key of a call that is not kept must
        /// never reach a disk.
        runtime_dir: PathBuf = "\"/run/callvault\"",
    }
}

settings! {
    /// Where the SIPREC clients (Webex Calling, session border controllers) reach the recorder, and which of them may.
    pub struct Sip in "sip." {
        /// Addresses for SIP over UDP. One address, or a list; an empty list switches UDP off.
        udp: Listen = "[\"0.0.0.0:5060\"]",
        /// Addresses for SIP over TCP. Prefer it where the client can: an INVITE with metadata is larger than what UDP
        /// carries in one packet.
        tcp: Listen = "[\"0.0.0.0:5060\"]",
        /// Addresses for SIP over TLS 1.2 and 1.3, normally port 5061. It needs `tls_certificate` and `tls_key`.
        tls: Listen = "[]",
        /// The certificate that clients are shown: a PEM file with it first and then those between it and the authority
        /// that clients trust. When the file changes, or on SIGHUP, it is read again: new connections get the new one, and
        /// those that are open, with their calls, go on.
        tls_certificate: Option<PathBuf> = "\"\"",
        /// The private key of that certificate, a PEM file without a passphrase. Empty: the systemd credential `sip-tls.key`
        /// (`LoadCredential=`), which needs a restart to change.
        tls_key: Option<PathBuf> = "\"\"",
        /// Mutual TLS: a PEM file of the authorities that sign the clients' certificates. Empty: clients are not asked for one.
        /// It is also what the certificate of a client is held against when the recorder has to connect to it.
        tls_client_ca: Option<PathBuf> = "\"\"",
        /// With `tls_client_ca`: `required` refuses clients that show no certificate; `optional` takes them, but still
        /// refuses a wrong certificate. Optional is for the time in which clients get theirs.
        tls_client_certificate: ClientCertificate = "\"required\"",
        /// Networks that SIP is taken from. Connections of everyone else are closed at once; datagrams are dropped, but for a
        /// few a second whose INVITEs are answered 403, so that who sets up a client sees what is missing. By default this machine and the private networks,
        /// because a recorder that is open to the world can be filled by the world. Webex Calling reaches you from its
        /// own public networks: add those of your region.
        allowed_peers: PeerList = "[\"127.0.0.0/8\", \"::1/128\", \"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\"]",
        /// The name in the `Server` header of answers. It says nothing about version or machine, on purpose.
        server_name: String = "\"callvault\"",
        /// How often a client that has session timers (RFC 4028) is asked to show that its session is still there; longer
        /// intervals that it asks for are shortened to this. A session that is not refreshed and brings no audio is
        /// ended. `0s`: nobody is asked, and what a client asks for is taken. Half an hour is what the RFC recommends.
        session_expires: Duration = "\"30m\"" in "0s" ..= "1d",
        /// The shortest such interval that is agreed to. Less than the 90 seconds of the RFC is traffic without use.
        session_expires_min: Duration = "\"90s\"" in "90s" ..= "1h",
    }
}

settings! {
    /// How the audio is received.
    pub struct Media in "media." {
        /// The address that callers are told to send audio to. `auto`: the one at which the call's INVITE arrived, which
        /// is right unless signalling and audio use different networks.
        address: MediaAddress = "\"auto\"",
        /// The UDP ports for audio, two for each track (RTP on the even one, RTCP on the next). They must be open in the
        /// firewall. A call has one track for each party, normally two: 10,000 ports are 2,500 calls.
        ports: PortRange = "\"20000-29999\"",
        /// A session of which no track received anything for so long is ended, so that a client that vanished without
        /// a BYE does not hold ports for ever. Long, because a caller on hold sends nothing either.
        timeout: Duration = "\"2h\"" in "10s" ..= "7d",
        /// The same for a session of which every track is paused, on hold, or stopped from here: nothing need come then,
        /// but a client that sends nothing at all for so long is gone, and its pause must not hold ports for ever.
        paused_timeout: Duration = "\"24h\"" in "10s" ..= "30d",
        /// The receive buffer of each audio socket. It bridges the time in which the recorder is restarted; the
        /// kernel's own default holds about 5 seconds of a G.711 stream. (Capped by `net.core.rmem_max`.)
        receive_buffer_bytes: Bytes = "\"512KiB\"" in "64KiB" ..= "16MiB",
        /// Whether senders are told about every 5 seconds, by RTCP receiver reports, how they are received. They show
        /// loss and jitter in their own statistics then, and know that somebody listens. Each is one small packet to
        /// where the audio comes from; switch them off only where a firewall complains about them.
        receiver_reports: bool = "true",
    }
}

settings! {
    /// Limits on everything that a peer can make grow. At a limit the appliance refuses what is new and keeps what is
    /// going on.
    pub struct Limits in "limits." {
        /// Most sessions at once. Above it an INVITE is answered 503 with Retry-After. Each session needs two ports and
        /// two open files for each track.
        sessions_max: u32 = "2000" in "1" ..= "20000",
        /// Most tracks of one session; further media lines of an offer are declined, the call is recorded without them.
        tracks_per_session_max: u32 = "8" in "1" ..= "64",
        /// Longest SIP message, body included. Real ones are below 20 KiB; the longest metadata of large conferences
        /// stays below 100.
        message_bytes_max: Bytes = "\"256KiB\"" in "16KiB" ..= "4MiB",
        /// Most sessions at once of one address. 0: no limit but `sessions_max`, which is right as long as one session border
        /// controller brings all calls.
        sessions_per_peer_max: u32 = "0" in "0" ..= "20000",
        /// Most new sessions a second, of all addresses; twice as many at once after a pause. Above it an INVITE is answered
        /// 503 with Retry-After; what belongs to a call that is there is never refused. A new session costs about a millisecond
        /// of a processor. 0: no limit.
        invites_per_second: u32 = "300" in "0" ..= "100000",
        /// The same of one address, so that a client that has gone wild does not lock out the others. 0: no limit.
        invites_per_peer_per_second: u32 = "200" in "0" ..= "100000",
        /// Most connections (TCP and TLS) of SIPREC clients at once. Beyond it the oldest that never carried a message makes
        /// room for a new one; if there is none, the new one is closed.
        connections_max: u32 = "512" in "1" ..= "10000",
        /// The same of one address. Clients use a few connections for all their calls, some one for each call; half of all
        /// leaves room for others.
        connections_per_peer_max: u32 = "256" in "1" ..= "10000",
        /// A connection without a call on it that says nothing for so long is closed; its client opens another when it
        /// needs one. A keep-alive counts as saying something. A connection on which nothing ever came is closed after 30
        /// seconds.
        connection_idle: Duration = "\"1h\"" in "10s" ..= "7d",
        /// Most connections to the health and control endpoint at once.
        http_connections_max: u32 = "32" in "4" ..= "1000",
        /// What a refused client is told to wait before it tries again.
        retry_after: Duration = "\"10s\"" in "1s" ..= "1h",
    }
}

settings! {
    /// The journal: the encrypted log on local disk (`journal` in the data folder) that all live sessions are written to.
    pub struct Journal in "journal." {
        /// How often the journal is synced to the device. What a power cut can cost at most; one sync serves all calls.
        commit_interval: Duration = "\"1s\"" in "50ms" ..= "1m",
        /// How long audio is collected before it is sealed and appended. What a crash of the recorder can cost at most.
        batch_interval: Duration = "\"200ms\"" in "20ms" ..= "1s",
        /// A journal file that has grown to this size is closed and a new one is begun. A file's space is free again when
        /// every recording in it is archived, so smaller files free space sooner.
        file_bytes_max: Bytes = "\"256MiB\"" in "1MiB" ..= "16GiB",
        /// A journal file that is this old is closed and a new one is begun, so that quiet times free space too.
        file_age_max: Duration = "\"10m\"" in "1s" ..= "1d",
        /// With less free space than this on the journal's disk, new calls are refused (503) so that those in progress
        /// can end. Two tracks of G.711 need about 60 MiB an hour.
        spool_free_min: Bytes = "\"2GiB\"" in "16MiB" ..= "1TiB",
    }
}

settings! {
    /// Which calls are kept. A call that is recorded on demand is recorded from its beginning, but the key to it stays in
    /// memory until somebody asks for the call to be kept (`callvaultctl calls keep`, the API, or the client itself). When it
    /// ends unasked, its key is forgotten and nobody can ever read what was written of it.
    pub struct Recording in "recording." {
        /// `always`: every call is kept. `on-demand`: those that somebody asks for.
        mode: RecordingMode = "\"always\"",
        /// Users whose calls are recorded on demand although the mode is `always`: the user's id as the client's metadata
        /// has it, a number, or an address such as \"ann@example.com\". A few; a directory of users will take its place.
        on_demand_users: Texts = "[]",
        /// Values of BroadWorks' `recordingType` by which the client asks for the call to be kept, in any case. It is not
        /// published which value Webex uses; \"on\" comes with calls that are kept in any case and is left out for that reason.
        keep_types: Texts = "[\"keep\", \"kept\", \"save\", \"saved\"]",
    }
}

settings! {
    /// Whose calls they are: the users come by `callvaultctl users import`.
    pub struct Directory in "directory." {
        /// What becomes of a call of nobody in the directory: `discard`, or `keep` it for administrators only. As long as the directory is
        /// empty every call is kept; a user that is marked `catch_all` owns what would be discarded otherwise.
        unknown: UnknownUser = "\"discard\"",
    }
}

settings! {
    /// Calls that are not kept, whosever they are. Of such a call there is no audio that anyone could read, only that it was, when,
    /// and which rule says so.
    pub struct Filters in "filters." {
        /// Which calls are kept: `incoming` ones, `outgoing` ones, seen from the user, or `both`. Where the signalling does not tell, a call
        /// is kept.
        direction: KeptDirection = "\"both\"",
        /// Which calls are kept: `internal` ones, whose other party is a user or has a number of `numbers.internal`; `external` ones; or
        /// `both`. Where nothing tells, a call is kept.
        traffic: KeptTraffic = "\"both\"",
        /// Numbers of others whose calls are not kept. In a pattern `.` is one digit, `!` any number of digits, none included, `[2-5]` one of
        /// these, `[^2-5]` one that is not: `7100`, `72.`, `+4989!`.
        blacklist: Patterns = "[]",
    }
}

settings! {
    /// How numbers are written where the organisation is, so that one number written in two ways is one number.
    pub struct Numbers in "numbers." {
        /// The country's code, for example `49`; empty: only numbers with `+` are known to be whole.
        country_code: DialDigits = "\"\"",
        /// What is dialled before an area code; `0` in most countries, empty where nothing is.
        national_prefix: DialDigits = "\"0\"",
        /// What is dialled for `+`.
        international_prefix: DialDigits = "\"00\"",
        /// Patterns, as in `filters.blacklist`, of the organisation's own numbers and extensions.
        internal: Patterns = "[]",
    }
}

settings! {
    /// What becomes of a recording after the call.
    pub struct Archive in "archive." {
        /// `opus`: about a fifth of the space of G.711 at no loss that ears notice; calls that came as Opus are kept bit
        /// for bit. `as-received`: every payload exactly as the wire carried it.
        codec: ArchiveCodec = "\"opus\"",
        /// Effort of the Opus encoder, 0 to 10. Above 5 speech gains next to nothing and costs more time.
        complexity: u32 = "5" in "0" ..= "10",
        /// Bits a second for each track, or "auto" to let the encoder choose. 24000 is transparent for telephone speech.
        bit_rate: BitRate = "24000",
        /// Where the sealed key of an archive is: `file` puts it into the archive, which then stands alone and can be
        /// read with the appliance's key even when the catalogue is lost. (`catalogue` is not available in this version.)
        keys: ArchiveKeys = "\"file\"",
    }
}

settings! {
    /// Where the archives live.
    pub struct Store in "store." {
        /// A local folder, or a network share mounted on this machine. Empty: `store` in the data folder.
        path: Option<PathBuf> = "\"\"",
        /// How long the store may take for one step: a folder, a write of some bytes, a sync of a few megabytes. A share
        /// that takes longer is taken to hang: what has to do with it waits until it answers again, and nothing else does.
        /// Longer than ordinary trouble of a file server, such as a fail-over that is quick; shorter than what people wait
        /// who want to listen.
        timeout: Duration = "\"30s\"" in "1s" ..= "10m",
    }
}

settings! {
    /// The endpoint for health checks, metrics and `callvaultctl`.
    pub struct Http in "http." {
        /// A loopback address with port, or `unix:PATH`. It has no TLS, so other addresses are refused.
        listen: HttpListen = "\"127.0.0.1:8088\"",
    }
}

settings! {
    /// Who may do what with recordings, beside what each permission level may anyway: users with their own, group supervisors with
    /// those of their groups too, administrators with all. Each is open to the level named and those above it.
    pub struct Permissions in "permissions." {
        /// Who may delete recordings by hand; retention is not by hand. `nobody-irreversibly`: nobody, ever, and this setting
        /// can never be changed again, not by editing this file either.
        delete: WhoDeletes = "\"administrators\"",
        /// Who may take audio away as a file, and export recordings. Whoever may see a recording may play it.
        download: WhoMay = "\"administrators\"",
        /// Who may preserve recordings, which keeps them beyond the time of retention.
        preserve: WhoMay = "\"users\"",
    }
}

settings! {
    /// The keys that recordings are sealed to.
    pub struct Keys in "keys." {
        /// The folder of the appliance's private keys. Empty: `keys` in the data folder. Back it up apart from the data:
        /// without it no recording can ever be read.
        path: Option<PathBuf> = "\"\"",
        /// Public keys that every new recording is sealed to as well, one of which can then read it without the
        /// appliance. Make the pair elsewhere and keep its private half off this machine.
        escrow: PublicKeyTexts = "[]",
    }
}

settings! {
    /// Work after the call: archiving, later uploads and mail. A job that fails is tried again, later and later.
    pub struct Queue in "queue." {
        /// Tries before a job is parked, where it waits for `callvaultctl jobs retry`. With the pauses below 100 tries
        /// are about four days. Archiving and deleting are never given up for the number of tries.
        attempts_max: u32 = "100" in "1" ..= "100000",
        /// The pause after the first failure. Each further one is doubled and then shortened by chance, so that jobs
        /// that failed together do not return together.
        backoff_min: Duration = "\"2s\"" in "100ms" ..= "1h",
        /// The longest pause.
        backoff_max: Duration = "\"1h\"" in "1s" ..= "1d",
    }
}

settings! {
    /// The processes that decode and encode audio, apart from everything else.
    pub struct Render in "render." {
        /// A run that takes longer is ended and counts as failed. An hour of a call takes about ten seconds.
        timeout: Duration = "\"10m\"" in "10s" ..= "1d",
        /// How many recordings are archived at once. More only helps with more processors, which calls should not have
        /// to share.
        parallel: u32 = "1" in "1" ..= "64",
        /// Whether dialled digits are inaudible in what is played and exported: where a client reports them as telephone
        /// events, its track is silent meanwhile. They stay in the recording itself.
        mask_tones: bool = "true",
        /// The program that decodes rare codecs: G.729, G.726, G.723.1, AMR, AMR-WB, iLBC, GSM. It may be missing: such calls
        /// are recorded all the same, and can be played once it is there.
        ffmpeg: PathBuf = "\"/usr/bin/ffmpeg\"",
    }
}

settings! {
    /// The log (standard error, or the system's journal under systemd).
    pub struct Log in "log." {
        /// The least important kind of event to log: `error`, `warn`, `info`, `debug` or `trace`.
        level: LogLevel = "\"info\"",
        /// Whether phone numbers and names may appear in the log. This version never writes them there, whatever is set
        /// here. Leave it off unless you are looking for a fault: logs are copied to places where recordings are not.
        personal_data: bool = "false",
    }
}

/// A section: its name without brackets (empty for the keys before the first section), what it is about, its keys.
pub(crate) type Section = (&'static str, &'static [&'static str], &'static [KeySpec]);

/// The sections in the order of the documentation.
pub(crate) const SECTIONS: [Section; 17] = [
    ("", Folders::ABOUT, Folders::KEYS),
    ("sip", Sip::ABOUT, Sip::KEYS),
    ("media", Media::ABOUT, Media::KEYS),
    ("limits", Limits::ABOUT, Limits::KEYS),
    ("journal", Journal::ABOUT, Journal::KEYS),
    ("recording", Recording::ABOUT, Recording::KEYS),
    ("directory", Directory::ABOUT, Directory::KEYS),
    ("filters", Filters::ABOUT, Filters::KEYS),
    ("numbers", Numbers::ABOUT, Numbers::KEYS),
    ("archive", Archive::ABOUT, Archive::KEYS),
    ("store", Store::ABOUT, Store::KEYS),
    ("http", Http::ABOUT, Http::KEYS),
    ("permissions", Permissions::ABOUT, Permissions::KEYS),
    ("keys", Keys::ABOUT, Keys::KEYS),
    ("queue", Queue::ABOUT, Queue::KEYS),
    ("render", Render::ABOUT, Render::KEYS),
    ("log", Log::ABOUT, Log::KEYS),
];

/// Every key, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = &'static KeySpec> {
    SECTIONS.iter().flat_map(|(_, _, keys)| keys.iter())
}

/// The key of that name.
pub(crate) fn key(name: &str) -> Option<&'static KeySpec> {
    keys().find(|spec| spec.key == name)
}

/// Puts the typed configuration together from the merged layers, with all paths made absolute.
pub(crate) fn build(merged: &Merged, base: &Path) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let built = read_sections(merged, base, &mut errors);
    match built {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(errors),
    }
}

fn read_sections(merged: &Merged, base: &Path, errors: &mut Vec<ConfigError>) -> Option<Config> {
    let folders = Folders::read(merged, errors);
    let (sip, media, limits) = (Sip::read(merged, errors), Media::read(merged, errors), Limits::read(merged, errors));
    let (journal, archive) = (Journal::read(merged, errors), Archive::read(merged, errors));
    let recording = Recording::read(merged, errors);
    let directory = Directory::read(merged, errors);
    let filters = Filters::read(merged, errors);
    let numbers = Numbers::read(merged, errors);
    let permissions = Permissions::read(merged, errors);
    let (store, http, keys) = (Store::read(merged, errors), Http::read(merged, errors), Keys::read(merged, errors));
    let (queue, render, log) = (Queue::read(merged, errors), Render::read(merged, errors), Log::read(merged, errors));
    let folders = folders?;
    let mut config = Config {
        data_dir: absolute(base, &folders.data_dir),
        runtime_dir: absolute(base, &folders.runtime_dir),
        sip: sip?,
        media: media?,
        limits: limits?,
        journal: journal?,
        recording: recording?,
        directory: directory?,
        filters: filters?,
        numbers: numbers?,
        archive: archive?,
        store: store?,
        http: http?,
        permissions: permissions?,
        keys: keys?,
        queue: queue?,
        render: render?,
        log: log?,
        effective: effective(merged),
    };
    for path in [&mut config.sip.tls_certificate, &mut config.sip.tls_key, &mut config.sip.tls_client_ca] {
        *path = path.take().map(|path| absolute(base, &path));
    }
    config.store.path = config.store.path.map(|path| absolute(base, &path));
    config.keys.path = config.keys.path.map(|path| absolute(base, &path));
    config.render.ffmpeg = absolute(base, &config.render.ffmpeg);
    if let HttpListen::Unix(path) = &config.http.listen {
        config.http.listen = HttpListen::Unix(absolute(base, path));
    }
    Some(config)
}

/// The path, relative to the folder where it is relative, without `.` in it.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    let joined = base.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

fn effective(merged: &Merged) -> Vec<Effective> {
    keys()
        .filter_map(|spec| {
            let (raw, origin) = merged.find(spec.key)?;
            Some(Effective { key: spec.key, value: (spec.canonical)(&raw).ok()?, origin })
        })
        .collect()
}

/// The text of the sample file: every key, commented out at its default, with its documentation.
#[must_use]
pub fn documented_defaults() -> String {
    let mut text = String::from(HEAD);
    for (name, about, keys) in &SECTIONS {
        text.push('\n');
        comment(&mut text, about);
        if !name.is_empty() {
            text.push_str(&format!("[{name}]\n"));
        }
        for spec in *keys {
            text.push('\n');
            comment(&mut text, spec.doc);
            if let Some((least, greatest)) = spec.range {
                text.push_str(&format!("# From {least} to {greatest}.\n"));
            }
            let field = spec.key.rsplit('.').next().unwrap_or(spec.key);
            text.push_str(&format!("#{field} = {}\n", spec.default));
        }
    }
    text
}

const HEAD: &str = "\
# The configuration of callvault: every key with its default and the reason for it.
#
# A key that is commented out has the default that is shown, also after an update that improves the default: take away the
# `#` only from what you change. Changes are better kept in a file of your own, /etc/callvault/conf.d/NAME.toml: those files
# are read after this one, in the order of their names, and win. Variables win over files: CALLVAULT__SIP__UDP is the key
# `udp` of the section [sip], CALLVAULT__DATA_DIR the key `data_dir`.
#
# Check before you restart: callvaultctl config check
#
# Durations: ms, s, m, h, d (\"200ms\", \"10m\"). Sizes: B, KiB, MiB, GiB, TiB. A relative path is relative to the folder of
# this file.
";

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(&format!("#{line}\n"));
    }
}
