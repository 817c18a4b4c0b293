//! Every key, declared once: its type, its default, its range and its documentation, which is also the text of the sample
//! file `etc/callvault.toml`.

mod webex;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigError;
use crate::layers::Merged;
use crate::macros::settings;
use crate::mail::{MailTls, SizeLimit};
use crate::portal_file::PortalKeys;
use crate::setting::{KeySpec, Setting, read_within};
use crate::values::{
    ArchiveCodec, ArchiveKeys, BitRate, Bytes, ClientCertificate, DialDigits, HttpListen, KeptDirection, KeptTraffic,
    LicenceModel, Listen, LogLevel, MediaAddress, Patterns, PeerList, PortRange, PreservedPeriod, PublicKeyTexts,
    RecordingMode, RetentionPeriod, RetentionRule, Texts, UnknownUser, WhoDeletes, WhoMay,
};
use crate::zone::ZoneName;
use crate::{Config, Effective};

pub use webex::{Webex, WebexRules};

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
        /// The name by which clients reach SIP over TLS, as they are told it (in Webex Control Hub, for example). The certificate must be
        /// for it, or clients that look refuse it; `check`, `doctor` and health say when it is not. Empty: nobody looks.
        tls_name: String = "\"\"",
        /// Mutual TLS: a PEM file of the authorities that sign the clients' certificates. Empty: clients are not asked for one.
        /// It is also what the certificate of a client is held against when the recorder has to connect to it.
        tls_client_ca: Option<PathBuf> = "\"\"",
        /// With `tls_client_ca`: `required` refuses clients that show no certificate; `optional` takes them, but still
        /// refuses a wrong certificate. Optional is for the time in which clients get theirs.
        tls_client_certificate: ClientCertificate = "\"required\"",
        /// How long before the certificate expires health and `--check` begin to say so. Long enough for whoever has to renew it.
        tls_expiry_warning: Duration = "\"30d\"" in "1d" ..= "365d",
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
    /// What is the same for the whole organisation.
    pub struct Organisation in "organisation." {
        /// The time zone in which dates and times are told and in which days, months and years are counted, by its name in the
        /// IANA database ("Europe/Rome"). `system`: the machine's own; name it where the machine runs in UTC.
        time_zone: ZoneName = "\"system\"",
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
        /// How often the journal is synced to the device. What a power cut can cost at most; one sync serves all calls. With many calls it is
        /// synced sooner, whenever 4 MiB wait for it.
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
        /// Largest picture of a user, as a PNG, JPEG or BMP file. They are sealed in the catalogue, each in one piece.
        picture_max: Bytes = "\"200KiB\"" in "1KiB" ..= "700KiB",
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
        /// For how long it can be looked up who called whom in a call that was not kept, and by which rule
        /// (`callvaultctl discards list`). `0s`: it is counted and not noted.
        discards_kept: Duration = "\"30d\"" in "0s" ..= "3650d",
    }
}

settings! {
    /// How much may be used, where that is agreed.
    pub struct Licence in "licence." {
        /// `none`: no limit but `limits`. `channels`: calls at once. `users`: users in the directory whose calls are recorded.
        model: LicenceModel = "\"none\"",
        /// Calls at once with the model `channels`; above it an INVITE is answered 503, and health says so.
        channels_max: u32 = "2000" in "1" ..= "20000",
        /// Users with the model `users`; above it no more are taken into the directory, and health says so when they are
        /// more already. Users whose mode is `never`, and the catch-all, do not count.
        users_max: u32 = "100000" in "1" ..= "100000",
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
        /// read with the appliance's key even when the catalogue is lost. `catalogue` keeps it in the catalogue alone: once a
        /// recording is deleted, no copy of its archive can be opened, wherever one was made; but a catalogue that is lost takes all
        /// archives with it, escrow keys included, so back it up. It holds for archives that are made from then on.
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
    /// How long recordings stay. When the time has come they are deleted for ever: the key first, then the audio; what remains is that
    /// there was one, and the audit log. A rule that is made shorter takes effect when somebody has confirmed how many recordings that
    /// deletes (`callvaultctl retention plan`, `callvaultctl retention confirm`); until then the one before it goes on.
    pub struct Retention in "retention." {
        /// `keep-all`: nothing is deleted, and there is nothing to preserve. `12-months`, `48-months`, `4-hours`: so long after the end of
        /// the call. `custom`: as long as `period` says.
        rule: RetentionRule = "\"keep-all\"",
        /// With `custom`: so many hours, days, months or years, such as "90 days"; at most 100 years. A month is a month of the calendar in
        /// `organisation.time_zone`; where it is too short, its last day counts.
        period: RetentionPeriod = "\"12 months\"",
        /// How much longer preserved recordings stay: `for-ever`, until somebody lets them go, or so many hours, days, months or years
        /// after their ordinary time.
        preserved: PreservedPeriod = "\"for-ever\"",
        /// How often what is due is deleted.
        interval: Duration = "\"5m\"" in "1s" ..= "1d",
        /// Whether a recording whose upload is still to be made stays until it was.
        wait_for_upload: bool = "true",
        /// When a run would delete more than this share of all recordings, in percent, it deletes nothing and asks: that is more often
        /// a wrong setting or a wrong clock than what somebody wants. 100: never.
        confirm_share: u32 = "20" in "1" ..= "100",
        /// So many recordings are deleted without a question, whatever share they are and whether or not the rule was made shorter.
        confirm_few: u32 = "50" in "0" ..= "1000000",
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
    /// The portal, `callvault-portal`: pages for people. It is a process of its own, with a user of its own, and comes to the daemon through a
    /// socket at which nobody else is served.
    pub struct Portal in "portal." {
        /// The socket. Empty: there is no portal.
        socket: Option<PathBuf> = "\"\"",
        /// The user whose processes may use it, by name or number, beside the daemon's own.
        user: String = "\"callvault-portal\"",
        /// How long people stay signed in. After that they sign in again.
        session_max: Duration = "\"12h\"" in "5m" ..= "30d",
        /// Requests of the portal that are answered at once. A person who plays a recording has one of them until the sound has come.
        requests_max: u32 = "64" in "4" ..= "512",
    }
}

settings! {
    /// Signing in at the portal with OpenID Connect: at Webex, or at another provider that the organisation has. It comes beside passwords
    /// and never makes users: who signs in must be in the directory, under the e-mail that the provider tells of them.
    pub struct Oidc in "oidc." {
        /// The provider's issuer, exactly as it writes it itself, such as `https://idbroker-b-us.webex.com/idb`. Empty: passwords alone.
        issuer: String = "\"\"",
        /// What people read on the button: "Sign in with …".
        name: String = "\"Webex\"",
        /// The identifier that the provider gave this client.
        client_id: String = "\"\"",
        /// The file with the client's secret, on its first line; it is read for each sign-in. Empty: the systemd credential `oidc.secret`
        /// (`LoadCredential=`), and where there is none, a public client without a secret.
        client_secret: Option<PathBuf> = "\"\"",
        /// Where the provider sends people back to: the portal's address and `/sign-in/back`, such as
        /// `https://recordings.example.com:8443/sign-in/back`. It has to be registered with the provider in the same words.
        redirect: String = "\"\"",
        /// What is asked for. `openid` has to be in it, and what makes the provider tell the e-mail.
        scope: String = "\"openid email\"",
        /// The claim of the ID token that has the e-mail.
        claim: String = "\"email\"",
        /// Whether an e-mail counts of which the provider says nothing about having verified it. Only where nobody can choose
        /// their e-mail at the provider themselves. One that it says is not verified never counts.
        takes_unverified: bool = "false",
        /// The proxy through which the provider is asked, `http://host:port`. Empty: directly.
        proxy: String = "\"\"",
        /// A PEM file of authorities that are trusted for it beside those of this machine. Empty: none.
        ca: Option<PathBuf> = "\"\"",
        /// How long the provider may take for an answer. Somebody waits for it.
        timeout: Duration = "\"10s\"" in "1s" ..= "1m",
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
    /// What becomes of recordings once they are archived: they can be uploaded to Voice Analytics (`[analytics]`), posted to a web
    /// server of your own (`[webhook]`), and put into a folder (`[export_folder]`), each by itself. What is sent is an MP3 that is not
    /// encrypted any more: whoever receives it is answerable for it. These keys are for all three.
    pub struct Uploads in "uploads." {
        /// How many recordings are delivered at once, to each of them.
        parallel: u32 = "2" in "1" ..= "16",
        /// How many deliveries may begin in a minute, to each of them, so that a service that counts requests is not
        /// annoyed when there is a backlog. 0: no limit.
        per_minute: u32 = "60" in "0" ..= "6000",
        /// How long connecting may take.
        connect_timeout: Duration = "\"10s\"" in "1s" ..= "5m",
        /// How long nothing may move on a connection before it is given up: long enough for a service that thinks.
        timeout: Duration = "\"60s\"" in "1s" ..= "1h",
        /// How long one request may take at all, the upload of an hour's call over a slow line included.
        total_timeout: Duration = "\"1h\"" in "10s" ..= "1d",
    }
}

settings! {
    /// Voice Analytics: every recording that has an owner with an e-mail address is uploaded by itself, as an MP3.
    pub struct Analytics in "analytics." {
        /// Switches it on. Recordings that are archived from then on are uploaded; what is still to be uploaded when it is
        /// switched off waits in the queue and goes when it is on again.
        enabled: bool = "false",
        /// The service's address, without `/v1/recordings`.
        url: String = "\"https://eu.api.imagicle.com/voice-analytics\"",
        /// Where access tokens are given out (OAuth 2.0, client credentials). The service's documentation names it.
        token_url: String = "\"\"",
        /// The client's identifier that you were given.
        client_id: String = "\"\"",
        /// A file with the client's secret, one line. Empty: the systemd credential `analytics.secret` (`LoadCredential=`). It is
        /// read whenever a token is asked for, so it can be replaced while the appliance runs.
        client_secret: Option<PathBuf> = "\"\"",
        /// What the token is to be good for.
        scope: String = "\"voice-analytics/recordings.write\"",
        /// The e-mail address under which recordings are uploaded whose owner is not known, or has no address. Empty: such
        /// recordings are not uploaded.
        fallback_user: String = "\"\"",
        /// The language that is spoken, as the service names it: `en-US`. Empty: the service finds out.
        language: String = "\"\"",
        /// How many people speak on a recording, from 2. 0: as many as it has tracks.
        speakers: u32 = "0" in "0" ..= "10",
        /// A proxy for HTTP, `http://host:port`. Variables such as HTTPS_PROXY are not looked at.
        proxy: String = "\"\"",
        /// A file with `user:password` for the proxy.
        proxy_credentials: Option<PathBuf> = "\"\"",
        /// A PEM file of authorities to be trusted beside those of the system: for a proxy that opens TLS.
        ca: Option<PathBuf> = "\"\"",
    }
}

settings! {
    /// A web server of your own: each recording is posted to it, metadata and MP3 in one request that is signed.
    pub struct Webhook in "webhook." {
        /// Switches it on. As `analytics.enabled`.
        enabled: bool = "false",
        /// Where recordings are posted to. https, or http on this machine itself.
        url: String = "\"\"",
        /// A file with the shared secret that requests are signed with, one line. Empty: the systemd credential
        /// `webhook.secret` (`LoadCredential=`).
        secret: Option<PathBuf> = "\"\"",
        /// As `analytics.proxy`.
        proxy: String = "\"\"",
        /// As `analytics.proxy_credentials`.
        proxy_credentials: Option<PathBuf> = "\"\"",
        /// A PEM file of authorities to be trusted beside those of the system: for a server with a certificate of your own.
        ca: Option<PathBuf> = "\"\"",
    }
}

settings! {
    /// A folder: each recording is put into it as an MP3 with a JSON file beside it.
    pub struct ExportFolder in "export_folder." {
        /// Switches it on. As `analytics.enabled`.
        enabled: bool = "false",
        /// The folder, local or on a share. It must be there: it is never made, so that nothing is written below the mount
        /// point of a share that is away. Keep it apart from `data_dir` and `store.path`.
        path: Option<PathBuf> = "\"\"",
    }
}

settings! {
    /// Mail that tells users of their recordings: those users whose record says so, each of their own calls.
    pub struct Mail in "mail." {
        /// The name or address of the mail server that takes mail from this machine. Empty: no mail is sent, and none is sent later for
        /// calls that ended meanwhile.
        server: String = "\"\"",
        /// Its port. 0: the usual one, 587 for `starttls`, 465 for `tls`, 25 for `none`.
        port: u32 = "0" in "0" ..= "65535",
        /// `starttls`: the connection is encrypted by STARTTLS, and given up when the server does not offer it. `tls`: encrypted
        /// from its beginning. `none`: everybody between here and the server can read the mails, and the audio in them.
        tls: MailTls = "\"starttls\"",
        /// A PEM file of the authorities that the server's certificate must be signed by. Empty: those that this machine trusts.
        ca: Option<PathBuf> = "\"\"",
        /// The name to sign in with. Empty: without signing in.
        user: String = "\"\"",
        /// The file with the password, on its first line; it is read for each mail. Empty: the systemd credential `mail.password`
        /// (`LoadCredential=`).
        password_file: Option<PathBuf> = "\"\"",
        /// The address that mails come from, such as "callvault@example.com". Needed where `server` is set.
        from: String = "\"\"",
        /// The name beside that address.
        sender_name: String = "\"Call recording\"",
        /// How long the server may take for one step. RFC 5321 recommends minutes, for servers under load on the open Internet;
        /// yours is near, and what is not sent now is tried again.
        timeout: Duration = "\"30s\"" in "1s" ..= "10m",
        /// Audio that is larger than this is not attached, and the mail says so; from 1 MiB, or "off" for no limit. In a mail it takes
        /// a third more: what fits here fits servers that take 20 MiB. An hour of a call with two sides is about 20 MiB.
        attachment_max: SizeLimit = "\"15MiB\"",
        /// A folder of templates that take the place of those that are built in, which docs/operations.md describes. Empty: none.
        templates: Option<PathBuf> = "\"\"",
        /// The language of mails to users of whose preferred language there are no templates: `en`, `it`, `de`, `fr`, `es`, or one that
        /// the folder has.
        language: String = "\"en\"",
    }
}

settings! {
    /// The processes that decode and encode audio, apart from everything else.
    pub struct Render in "render." {
        /// A run that takes longer is ended and counts as failed. An hour of a call takes about ten seconds.
        timeout: Duration = "\"10m\"" in "10s" ..= "1d",
        /// How many recordings are archived at once; 0: as many as there are processors. Archiving waits for disks as much as it
        /// calculates, and gives way to everything that calls need, so more than one is right on one processor too.
        parallel: u32 = "0" in "0" ..= "64",
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
pub type Section = (&'static str, &'static [&'static str], &'static [KeySpec]);

/// The sections in the order of the documentation.
pub(crate) const SECTIONS: [Section; 29] = [
    ("", Folders::ABOUT, Folders::KEYS),
    ("organisation", Organisation::ABOUT, Organisation::KEYS),
    ("sip", Sip::ABOUT, Sip::KEYS),
    ("media", Media::ABOUT, Media::KEYS),
    ("limits", Limits::ABOUT, Limits::KEYS),
    ("journal", Journal::ABOUT, Journal::KEYS),
    ("recording", Recording::ABOUT, Recording::KEYS),
    ("directory", Directory::ABOUT, Directory::KEYS),
    ("filters", Filters::ABOUT, Filters::KEYS),
    ("licence", Licence::ABOUT, Licence::KEYS),
    ("numbers", Numbers::ABOUT, Numbers::KEYS),
    ("archive", Archive::ABOUT, Archive::KEYS),
    ("store", Store::ABOUT, Store::KEYS),
    ("retention", Retention::ABOUT, Retention::KEYS),
    ("http", Http::ABOUT, Http::KEYS),
    ("portal", Portal::ABOUT, Portal::KEYS),
    ("oidc", Oidc::ABOUT, Oidc::KEYS),
    ("permissions", Permissions::ABOUT, Permissions::KEYS),
    ("keys", Keys::ABOUT, Keys::KEYS),
    ("queue", Queue::ABOUT, Queue::KEYS),
    ("uploads", Uploads::ABOUT, Uploads::KEYS),
    ("analytics", Analytics::ABOUT, Analytics::KEYS),
    ("webhook", Webhook::ABOUT, Webhook::KEYS),
    ("export_folder", ExportFolder::ABOUT, ExportFolder::KEYS),
    ("mail", Mail::ABOUT, Mail::KEYS),
    ("webex", Webex::ABOUT, Webex::KEYS),
    ("webex_rules", WebexRules::ABOUT, WebexRules::KEYS),
    ("render", Render::ABOUT, Render::KEYS),
    ("log", Log::ABOUT, Log::KEYS),
];

/// The sections with their keys, in the order of the documentation.
pub fn sections() -> impl Iterator<Item = Section> {
    SECTIONS.into_iter()
}

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
    let licence = Licence::read(merged, errors);
    let permissions = Permissions::read(merged, errors);
    let retention = Retention::read(merged, errors);
    let (store, http, keys) = (Store::read(merged, errors), Http::read(merged, errors), Keys::read(merged, errors));
    let (queue, render, log) = (Queue::read(merged, errors), Render::read(merged, errors), Log::read(merged, errors));
    let (uploads, analytics) = (Uploads::read(merged, errors), Analytics::read(merged, errors));
    let (portal, oidc) = (Portal::read(merged, errors), Oidc::read(merged, errors));
    let (webhook, export_folder) = (Webhook::read(merged, errors), ExportFolder::read(merged, errors));
    let (organisation, mail) = (Organisation::read(merged, errors), Mail::read(merged, errors));
    let (webex, webex_rules) = (Webex::read(merged, errors), WebexRules::read(merged, errors));
    let folders = folders?;
    let mut config = Config {
        data_dir: absolute(base, &folders.data_dir),
        runtime_dir: absolute(base, &folders.runtime_dir),
        organisation: organisation?,
        sip: sip?,
        media: media?,
        limits: limits?,
        journal: journal?,
        recording: recording?,
        directory: directory?,
        filters: filters?,
        numbers: numbers?,
        licence: licence?,
        archive: archive?,
        store: store?,
        retention: retention?,
        http: http?,
        portal: portal?,
        oidc: oidc?,
        permissions: permissions?,
        keys: keys?,
        queue: queue?,
        uploads: uploads?,
        analytics: analytics?,
        webhook: webhook?,
        export_folder: export_folder?,
        mail: mail?,
        webex: webex?,
        webex_rules: webex_rules?,
        render: render?,
        log: log?,
        effective: effective(merged),
        base: base.to_owned(),
        file: PathBuf::new(),
        from_portal: PortalKeys::default(),
    };
    let of_uploads = [
        &mut config.analytics.client_secret,
        &mut config.analytics.proxy_credentials,
        &mut config.analytics.ca,
        &mut config.webhook.secret,
        &mut config.webhook.proxy_credentials,
        &mut config.webhook.ca,
        &mut config.export_folder.path,
        &mut config.portal.socket,
        &mut config.webex.client_secret,
        &mut config.webex.proxy_credentials,
        &mut config.webex.ca,
        &mut config.oidc.client_secret,
        &mut config.oidc.ca,
    ];
    for path in of_uploads {
        *path = path.take().map(|path| absolute(base, &path));
    }
    for path in [&mut config.sip.tls_certificate, &mut config.sip.tls_key, &mut config.sip.tls_client_ca] {
        *path = path.take().map(|path| absolute(base, &path));
    }
    for path in [&mut config.mail.ca, &mut config.mail.password_file, &mut config.mail.templates] {
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
# `udp` of the section [sip], CALLVAULT__DATA_DIR the key `data_dir`. What administrators change in the portal is in a file
# that the daemon writes, conf.d/50-portal.toml in the data folder: it is read among those files, by its name.
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
