//! Webex: a thread that keeps the authorisation alive, synchronises users once a day and when it is told to, and reads call detail records.
//!
//! # What is guaranteed
//!
//! 1. A token that was received is on the device, sealed, before it is used; what there was before is let go by the write that replaces it.
//! 2. A synchronisation changes all or nothing: everything is asked for first, then there is a plan, then guards, then one transaction.
//! 3. What is wrong with Webex is told and nothing else stops: the directory stays as it was, and calls are recorded.
//!
//! What is decided is in `callvault_webex`, how it is asked for in `callvault_webex_client`.

mod authorising;
mod comparing;
mod reading;
mod syncing;
mod unmatched;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use callvault_access::audit::Entry;
use callvault_access::{Action, Caller, On};
use callvault_catalogue::{Catalogue, WebexRun};
use callvault_config::Config;
use callvault_http::{Answer, ApiError, ErrorKind, WebexCall};
use callvault_policy::overload::Rank;
use callvault_webex::{Dead, Grant, Next, Rule, Sums};
use callvault_webex_client::{Access, Client, ClientSettings, Fault, Outside, SecretFile, WebSettings};
use jiff::Timestamp;
use serde_json::json;

use crate::appliance::{Appliance, Bell};
use crate::mailing::{self, Told};
use crate::overload;

/// Part under which health shows what is wrong with the authorisation.
pub(crate) const NOTE: &str = "webex";

/// Part under which health shows that users were not synchronised.
pub(crate) const SYNC_NOTE: &str = "webex-sync";

/// Part under which health shows that call detail records are not read.
pub(crate) const RECORDS_NOTE: &str = "webex-records";

/// Part under which health shows that calls are missing.
pub(crate) const MISSING_NOTE: &str = "webex-missing";

/// Longest sleep between two looks.
const LOOK: Duration = Duration::from_secs(20);

/// How long a mail to the administrators that could not be sent waits, at first and at most.
const TELL_AGAIN: Duration = Duration::from_secs(60);
const TELL_AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// What is known of Webex. Each lock guards one thing.
pub(crate) struct Webex {
    access: Access,
    begun: Mutex<Option<authorising::Begun>>,
    turn: Mutex<syncing::Turn>,
    /// Wakes the thread.
    pub(crate) bell: Bell,
    /// Calls of the last day by verdict, as they were compared last.
    compared: Mutex<Option<(Timestamp, Sums)>>,
    pub(crate) counts: Counts,
    started_at: Timestamp,
}

/// What became of what was done since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) syncs: AtomicU64,
    pub(crate) syncs_failed: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) records: AtomicU64,
    /// Who is on one side alone, as the last synchronisation found it; at Webex, and here.
    pub(crate) unknown: AtomicU64,
    pub(crate) unrecorded: AtomicU64,
    /// In seconds since the Unix epoch; 0: never.
    pub(crate) synced_at_s: AtomicI64,
    pub(crate) read_to_s: AtomicI64,
}

impl Counts {
    /// What the last synchronisation that changed something left.
    fn synchronised(&self, run: &WebexRun) {
        self.synced_at_s.store(run.at.as_second(), Ordering::Relaxed);
        for (counter, field) in [(&self.unknown, "unknown_count"), (&self.unrecorded, "unrecorded_count")] {
            counter.store(run.report[field].as_u64().unwrap_or(0), Ordering::Relaxed);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Webex {
    /// Reads what is stored. An authorisation that does not open is none: an administrator authorises again.
    pub(crate) fn open(catalogue: &Catalogue) -> Self {
        let stored = catalogue.webex_grant().unwrap_or_else(|error| {
            tracing::error!("failed to {error}; Webex has to be authorised again");
            None
        });
        let grant = stored.and_then(|value| serde_json::from_value::<Grant>(value).ok());
        Self {
            access: Access::new(grant),
            begun: Mutex::default(),
            turn: Mutex::default(),
            bell: Bell::default(),
            compared: Mutex::default(),
            counts: Counts::default(),
            started_at: Timestamp::now(),
        }
    }

    /// Whether there is an authorisation that is not dead.
    pub(crate) fn is_authorised(&self) -> bool {
        with_clock(|outside| !matches!(self.access.standing(outside).0, Next::Authorise(_)))
    }

    /// Calls of the last day by verdict, and when they were compared.
    pub(crate) fn compared(&self) -> Option<(Timestamp, Sums)> {
        locked(&self.compared).clone()
    }
}

/// What needs nothing of the appliance but the clock.
fn with_clock<T>(run: impl FnOnce(&Outside<'_>) -> T) -> T {
    run(&Outside { now: &Timestamp::now, pause: &|_| false, stopping: &|| true, keep: &|_| Ok(()) })
}

impl Appliance {
    /// Lends what the client needs.
    fn with_webex<T>(&self, run: impl FnOnce(&Outside<'_>) -> T) -> T {
        let stopping = || self.stopping.load(Ordering::Relaxed);
        run(&Outside {
            now: &Timestamp::now,
            pause: &|ms| {
                self.stop_bell.wait(0, Duration::from_millis(ms));
                !stopping()
            },
            stopping: &stopping,
            keep: &|grant| {
                let value = serde_json::to_value(grant).map_err(|_| "failed to write the authorisation of Webex")?;
                self.catalogue.set_webex_grant(&value).map_err(|error| format!("failed to {error}"))
            },
        })
    }
}

/// The client's settings, as they are now.
fn client_settings(config: &Config) -> ClientSettings {
    let webex = &config.webex;
    let credential = || Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("webex.secret"));
    let rules = &config.webex_rules;
    let of_recording = ["native user id", "recording mode"];
    let wants_recording = [&rules.device_name, &rules.preferred_device_name, &rules.recording_mode]
        .into_iter()
        .any(|rule| of_recording.iter().any(|source| rule.contains(source)));
    ClientSettings {
        url: webex.url.clone(),
        records_url: webex.records_url.clone(),
        client_id: webex.client_id.clone(),
        client_secret: SecretFile { key: "webex.client_secret", path: webex.client_secret.clone().or_else(credential) },
        redirect_url: webex.redirect_url.clone(),
        scopes: webex.scopes.clone(),
        organisations: webex.organisations.0.clone(),
        workspaces: webex.workspaces,
        virtual_lines: webex.virtual_lines,
        wants_recording,
        web: WebSettings {
            section: "webex",
            proxy: Some(webex.proxy.clone()).filter(|proxy| !proxy.is_empty()),
            proxy_credentials: webex
                .proxy_credentials
                .as_ref()
                .map(|path| SecretFile { key: "webex.proxy_credentials", path: Some(path.clone()) }),
            ca: webex.ca.clone(),
            connect_within: config.uploads.connect_timeout,
            silent_max: config.uploads.timeout,
            total_max: config.uploads.total_timeout,
            keeps_connection: true,
        },
    }
}

/// A client by the settings as they are now.
fn client(config: &Config) -> Result<Client, Fault> {
    Client::new(client_settings(config))
}

/// The thread.
pub(crate) fn run(appliance: &Arc<Appliance>) {
    overload::give_way(Rank::Exports);
    let (mut heard, mut between) = (0, Between::default());
    while !appliance.stopping.load(Ordering::Relaxed) {
        between.pass(appliance);
        heard = appliance.webex.bell.wait(heard, LOOK);
    }
}

/// What is remembered between two looks.
#[derive(Default)]
pub(crate) struct Between {
    /// When the administrators are told of a death, where they could not be told before, and how long that waits then.
    tell_at: Option<(Instant, Duration)>,
    schedule: syncing::Schedule,
    read_at: Option<Instant>,
}

impl Between {
    /// Looks once, and does what it is time for.
    pub(crate) fn pass(&mut self, appliance: &Appliance) {
        let (settings, webex) = (appliance.settings(), &appliance.webex);
        if !settings.webex.enabled {
            [NOTE, SYNC_NOTE, RECORDS_NOTE, MISSING_NOTE].into_iter().for_each(|part| appliance.notes.clear(part));
            return;
        }
        let client = match client(&settings) {
            Ok(client) => client,
            Err(fault) => {
                return appliance.notes.set(NOTE, format!("failed to use the settings of Webex: {fault}"));
            }
        };
        let kept = appliance.with_webex(|outside| client.keep_fresh(&webex.access, outside));
        self.tell(appliance, kept.err());
        syncing::look(appliance, &settings, &client, &mut self.schedule);
        let is_time = self.read_at.is_none_or(|at| at.elapsed() >= settings.webex.records_interval);
        if settings.webex.records && is_time && webex.is_authorised() {
            self.read_at = Some(Instant::now());
            reading::read(appliance, &settings, &client);
        }
        // Mostly it is work that finds the authorisation dead.
        if webex.access.dead().is_some() {
            self.tell(appliance, None);
        }
    }

    /// Shows how the authorisation stands, and tells the administrators when it dies.
    fn tell(&mut self, appliance: &Appliance, fault: Option<Fault>) {
        let (access, notes) = (&appliance.webex.access, &appliance.notes);
        let dead = access.dead();
        if let Some(dead) = dead {
            notes.set(NOTE, dead.to_string());
        } else if !appliance.webex.is_authorised() {
            notes.set(NOTE, Fault::NotAuthorised.to_string());
        } else if let Some(fault) = fault.or_else(|| access.failure()).filter(|fault| *fault != Fault::Stopping) {
            notes.set(NOTE, format!("the token of Webex could not be renewed: {fault}"));
        } else {
            notes.clear(NOTE);
        }
        match dead {
            Some(dead) => self.mail(appliance, dead),
            None => self.tell_at = None,
        }
    }

    /// Tells the administrators once of each death, whenever this is started again in between. What is on record is that they were told, so
    /// who dies in the middle of it tells them twice.
    fn mail(&mut self, appliance: &Appliance, dead: Dead) {
        let waited = self.tell_at.map_or(Duration::ZERO, |(_, waits)| waits);
        if self.tell_at.is_some_and(|(at, _)| at > Instant::now()) {
            return;
        }
        let grant = appliance.catalogue.webex_grant().ok().flatten();
        let which = json!({"dead": format!("{dead:?}"), "given_at": grant.map(|grant| grant["given_at"].clone())});
        if appliance.catalogue.webex_told().ok().flatten().as_ref() == Some(&which) {
            return;
        }
        let text = format!(
            "{dead}.\n\nUntil then users are not synchronised; those that are known stay, and their calls are recorded.\n\ncallvaultctl webex authorise\n"
        );
        match mailing::tell_administrators(appliance, "Webex has to be authorised again", &text) {
            Told::Somebody => {
                self.tell_at = None;
                if let Err(error) = appliance.catalogue.set_webex_told(&which) {
                    // Rather twice than for ever.
                    self.tell_at = Some((Instant::now() + TELL_AGAIN_MAX, TELL_AGAIN_MAX));
                    tracing::error!("failed to {error}");
                }
            }
            Told::Failed => {
                let waits = (waited * 2).clamp(TELL_AGAIN, TELL_AGAIN_MAX);
                self.tell_at = Some((Instant::now() + waits, waits));
            }
            // As soon as there is a mail server and an administrator; looking for them costs nothing.
            Told::Nobody => self.tell_at = None,
        }
    }
}

/// What is asked over the control endpoint.
pub(crate) fn answer(appliance: &Arc<Appliance>, caller: &Caller, wanted: &WebexCall) -> Answer {
    let entry = |action, what: &str| appliance.entry(caller, action).with("webex", what);
    let change = |action, what: &str| -> Result<Entry, ApiError> {
        let entry = entry(action, what);
        appliance.allow(caller, action, On::Everything, &entry)?;
        if !appliance.settings().webex.enabled {
            let text = "webex.enabled is false; an administrator of this machine sets it, and webex.client_id, in the configuration";
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        Ok(entry)
    };
    match wanted {
        WebexCall::Status => {
            appliance.permit_all(caller, Action::SeeSettings)?;
            authorising::status(appliance)
        }
        WebexCall::Begin => {
            let entry = change(Action::Settings, "authorisation begun")?;
            appliance.audit(&entry)?;
            authorising::begin(appliance)
        }
        WebexCall::Finish(pasted) => {
            let entry = change(Action::Settings, "authorised")?;
            appliance.audit(&entry)?;
            authorising::finish(appliance, &pasted.answer)
        }
        WebexCall::ServiceApp(pasted) => {
            let entry = change(Action::Settings, "authorised as a service app")?;
            appliance.audit(&entry)?;
            authorising::service_app(appliance, &pasted.answer)
        }
        WebexCall::Sync(wanted) => {
            let entry = change(Action::ChangeUsers, if wanted.is_dry_run { "dry run" } else { "synchronised" })?;
            syncing::begin(appliance, *wanted, entry)
        }
        WebexCall::Runs => {
            appliance.permit_all(caller, Action::Users)?;
            syncing::runs(appliance)
        }
        WebexCall::Run(id) => {
            appliance.permit_all(caller, Action::Users)?;
            syncing::report(appliance, *id)
        }
        WebexCall::Unmatched => {
            appliance.permit_all(caller, Action::Users)?;
            unmatched::unmatched(appliance)
        }
        WebexCall::Completeness(query) => {
            appliance.permit_all(caller, Action::Search)?;
            comparing::completeness(appliance, query)
        }
    }
}

/// The rules, which the configuration has checked.
fn rules(config: &Config) -> callvault_webex::Rules {
    config.webex_rules.rules().unwrap_or_default()
}

/// Whether pictures are synchronised.
fn wants_pictures(config: &Config) -> bool {
    rules(config).iter().any(|(field, rule)| field == "picture" && matches!(rule, Rule::EveryTime(_)))
}
