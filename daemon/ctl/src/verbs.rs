//! The verbs: each asks, and prints what it got.

use std::collections::BTreeMap;

use callvault_config::Config;
use serde_json::{Value, json};

use crate::Surroundings;
use crate::cli::{self, Cli, Verb};
use crate::client::{Client, Method, Request, escaped, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{NOTHING, duration, parse_time, size, text, time};
use crate::table::{Table, harmless, write_pairs};
use crate::{
    annotate, audit, backup, completeness, deliveries, discards, doctor, drain, export, keys, mail, recording, recover,
    retention, selftest, settings, setup, store, tokens, users, webex,
};

/// Recordings asked for at a time when all are wanted.
const PAGE: u32 = 200;

/// Pages followed for `--all`: two million recordings. A cursor that never ends is a fault of the daemon, not a reason to
/// ask for ever.
const PAGES_MAX: usize = 10_000;

/// What a verb works with.
pub(crate) struct Session<'a, 'b> {
    pub(crate) config: &'a Config,
    pub(crate) client: &'a Client,
    pub(crate) json: bool,
    pub(crate) around: &'a mut Surroundings<'b>,
}

/// Runs the verb.
pub(crate) fn run(cli: &Cli, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    match &cli.verb {
        Verb::Config(cli::Configuration::Check) => return check_config(cli, around),
        Verb::Config(cli::Configuration::Sample) => {
            write!(around.stdout, "{}", callvault_config::documented_defaults())?;
            return Ok(Exit::Done);
        }
        // The daemon's own program does it: nothing else touches its data.
        Verb::Recover(parameters) => return recover::run(cli, parameters, around),
        Verb::Doctor => return doctor::run(cli, around),
        Verb::Setup(given) => return setup::run(cli, given, around),
        Verb::Backup(parameters) => return backup::make(cli, parameters, around),
        Verb::Restore(parameters) => return backup::restore(cli, parameters, around),
        _ => {}
    }
    let config = Config::load(&cli.config, around.environment.clone())
        .map_err(|errors| CtlError::Configuration(callvault_config::render_errors(&errors).trim_end().to_owned()))?;
    let client = Client::new(&config, cli.token_file.as_deref());
    let mut session = Session { config: &config, client: &client, json: cli.json, around };
    match &cli.verb {
        Verb::Status => session.status(),
        Verb::Calls(cli::Calls { action: None }) => session.calls(),
        Verb::Calls(cli::Calls { action: Some(action) }) => session.control_call(action),
        Verb::Recordings(verb) => session.recordings(verb),
        Verb::Jobs(verb) => session.jobs(verb),
        Verb::Keys(verb) => keys::run(&mut session, verb),
        Verb::Deliveries(verb) => deliveries::run(&mut session, verb),
        Verb::Recording(verb) => recording::run(&mut session, verb),
        Verb::Tokens(verb) => tokens::run(&mut session, verb),
        Verb::Store(verb) => store::run(&mut session, verb),
        Verb::Retention(verb) => retention::run(&mut session, verb),
        Verb::Audit(verb) => audit::run(&mut session, verb),
        Verb::Drain(parameters) => drain::run(&mut session, parameters),
        Verb::Selftest(parameters) => selftest::run(&mut session, parameters),
        Verb::Config(_) => session.show_config(),
        Verb::Settings(verb) => settings::run(&mut session, verb),
        Verb::Mail(verb) => mail::run(&mut session, verb),
        Verb::Users(verb) => users::run(&mut session, verb),
        Verb::Webex(verb) => webex::run(&mut session, verb),
        Verb::Completeness(parameters) => completeness::run(&mut session, parameters),
        Verb::Discards(verb) => discards::run(&mut session, verb),
        Verb::Recover(_) | Verb::Doctor | Verb::Setup(_) | Verb::Backup(_) | Verb::Restore(_) => Ok(Exit::Usage),
    }
}

/// What `callvaultd --check` says; where there is no callvaultd, the configuration alone is checked.
fn check_config(cli: &Cli, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let (program, mut command) = recover::daemon();
    let checked = if program.exists() {
        let said = recover::output(&program, command.arg("--config").arg(&cli.config).arg("--check"))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        callvault_config::Checked { ok: said.status.success(), text }
    } else {
        callvault_config::check(&cli.config, around.environment.clone())
    };
    if cli.json {
        writeln!(around.stdout, "{:#}", json!({"ok": checked.ok, "lines": checked.text.lines().collect::<Vec<_>>()}))?;
    } else {
        write!(around.stdout, "{}", checked.text)?;
    }
    Ok(if checked.ok { Exit::Done } else { Exit::Failed })
}

impl Session<'_, '_> {
    /// Prints the endpoint's JSON when that is wanted; says whether it was.
    pub(crate) fn printed_json(&mut self, value: &Value) -> Result<bool, CtlError> {
        if self.json {
            writeln!(self.around.stdout, "{value:#}")?;
        }
        Ok(self.json)
    }

    pub(crate) fn say(&mut self, text: &str) -> Result<(), CtlError> {
        Ok(writeln!(self.around.stdout, "{text}")?)
    }

    pub(crate) fn write_table(&mut self, table: &Table, when_empty: &str) -> Result<(), CtlError> {
        if table.is_empty() {
            return self.say(when_empty);
        }
        Ok(table.write(self.around.stdout)?)
    }

    /// Asks a person to confirm; without one it is taken as confirmed, as scripts mean what they say.
    pub(crate) fn confirmed(&mut self, question: &str, already: bool) -> Result<bool, CtlError> {
        if already || !self.around.answers {
            return Ok(true);
        }
        write!(self.around.stderr, "{question} [y/N] ")?;
        self.around.stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn status(&mut self) -> Result<Exit, CtlError> {
        let health = self.client.health()?;
        let status = self.client.json(&Request::get("/v1/status", "ask for the appliance's status"))?;
        let overall = health["status"].as_str().unwrap_or("unknown").to_owned();
        let exit = if overall == "failing" { Exit::Failed } else { Exit::Done };
        let mut both = status.clone();
        if let Some(fields) = both.as_object_mut() {
            fields.insert("health".into(), health.clone());
        }
        if self.printed_json(&both)? {
            return Ok(exit);
        }
        self.say(&format!("callvault is {}", harmless(&overall)))?;
        let mut table = Table::new(&["COMPONENT", "STATUS", "REASON"]);
        for (name, component) in health["components"].as_object().into_iter().flatten() {
            table.row([name.clone(), text(&component["status"]), text(&component["reason"])]);
        }
        if !table.is_empty() {
            self.say("")?;
            table.write(self.around.stdout)?;
        }
        let mut pairs = Vec::new();
        // The table above says it better.
        let mut rest = status;
        if let Some(object) = rest.as_object_mut() {
            object.remove("health");
        }
        flatten("", &rest, &mut pairs);
        if !pairs.is_empty() {
            self.say("")?;
            let pairs: Vec<(&str, String)> = pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            write_pairs(self.around.stdout, &pairs)?;
        }
        Ok(exit)
    }

    fn calls(&mut self) -> Result<Exit, CtlError> {
        let answer = self.client.json(&Request::get("/v1/calls", "list the calls"))?;
        if self.printed_json(&answer)? {
            return Ok(Exit::Done);
        }
        let mut table = Table::new(&[
            "STARTED",
            ">LENGTH",
            "DIRECTION",
            "USER",
            "OTHER",
            "NAME",
            ">TRACKS",
            ">PACKETS",
            "STATE",
            "KEPT",
            "ID",
        ]);
        for call in rows(&answer, "calls", "list the calls")? {
            // Either the number of tracks or the tracks themselves.
            let tracks =
                call["tracks"].as_array().map_or_else(|| text(&call["tracks"]), |tracks| tracks.len().to_string());
            table.row([
                time(&call["started_at"], &self.around.zone),
                duration(&call["duration_ms"]),
                text(&call["direction"]),
                text(&call["local_number"]),
                text(&call["remote_number"]),
                text(&call["remote_name"]),
                tracks,
                text(&call["packets"]),
                text(&call["state"]),
                kept(&call["kept"]),
                text(&call["id"]),
            ]);
        }
        self.write_table(&table, "no call is being recorded")?;
        Ok(Exit::Done)
    }

    fn control_call(&mut self, action: &cli::CallAction) -> Result<Exit, CtlError> {
        let (word, id) = action.parts();
        let path = format!("/v1/calls/{id}/{word}");
        let answer = self.client.json(&Request::new(Method::Post, path, format!("{word} the call {id}")))?;
        if !self.printed_json(&answer)? {
            let (state, now) = (text(&answer["state"]), text(&answer["id"]));
            let kept = kept(&answer["kept"]);
            self.say(&harmless(&format!("{now}: {state}, kept: {kept}")))?;
        }
        Ok(Exit::Done)
    }

    fn recordings(&mut self, verb: &cli::Recordings) -> Result<Exit, CtlError> {
        if let Some(done) = annotate::run(self, verb) {
            return done;
        }
        match verb {
            cli::Recordings::List(list) => self.list(list),
            cli::Recordings::Show { id } => self.show(id),
            cli::Recordings::Export(parameters) => export::run(self, parameters),
            cli::Recordings::Verify { id } => self.verify(id.as_deref()),
            cli::Recordings::Delete { ids, yes } => self.delete(ids, *yes),
            cli::Recordings::Preserve { .. }
            | cli::Recordings::Release { .. }
            | cli::Recordings::Note { .. }
            | cli::Recordings::Tag { .. } => Ok(Exit::Usage),
        }
    }

    /// All pages of a search.
    pub(crate) fn all(&self, search: &cli::Search) -> Result<Value, CtlError> {
        let mut answer = self.page(search, PAGE, None)?;
        let mut pages = 1;
        while let Some(cursor) = answer["next"].as_str().map(str::to_owned)
            && pages < PAGES_MAX
        {
            let mut page = self.page(search, PAGE, Some(&cursor))?;
            if let (Some(all), Some(more)) = (answer["recordings"].as_array_mut(), page["recordings"].as_array_mut()) {
                all.append(more);
            }
            answer["next"] = page["next"].take();
            pages += 1;
        }
        Ok(answer)
    }

    fn list(&mut self, list: &cli::List) -> Result<Exit, CtlError> {
        let answer = match list.all {
            true => self.all(&list.search)?,
            false => self.page(&list.search, list.limit, list.cursor.as_deref())?,
        };
        if self.printed_json(&answer)? {
            return Ok(Exit::Done);
        }
        let mut table =
            Table::new(&["STARTED", ">LENGTH", "DIRECTION", "USER", "OTHER", "NAME", "VERDICT", "ARCHIVE", "ID"]);
        for recording in rows(&answer, "recordings", "list the recordings")? {
            table.row([
                time(&recording["started_at"], &self.around.zone),
                duration(&recording["duration_ms"]),
                text(&recording["direction"]),
                text(&recording["local_number"]),
                text(&recording["remote_number"]),
                text(&recording["remote_name"]),
                text(&recording["verdict"]),
                text(&recording["archive"]["state"]),
                text(&recording["id"]),
            ]);
        }
        self.write_table(&table, "no recording fits")?;
        if let Some(cursor) = answer["next"].as_str() {
            writeln!(self.around.stderr, "there are more: add --all, or --cursor {}", harmless(cursor))?;
        }
        Ok(Exit::Done)
    }

    fn page(&self, search: &cli::Search, limit: u32, cursor: Option<&str>) -> Result<Value, CtlError> {
        let now = jiff::Timestamp::now();
        let moment = |text: &Option<String>| {
            let parsed = text.as_ref().map(|text| parse_time(text, &self.around.zone, now));
            parsed.transpose().map_err(|error| CtlError::Usage(format!("list the recordings: {error}")))
        };
        let parameters = [
            ("from", moment(&search.from)?),
            ("to", moment(&search.to)?),
            ("verdict", search.verdict.clone()),
            ("direction", search.direction.clone()),
            ("traffic", search.traffic.clone()),
            ("number", search.number.clone()),
            ("number_match", search.number_match.clone()),
            ("owner", search.owner.clone()),
            ("group", search.group.clone()),
            ("tag", (!search.tag.is_empty()).then(|| search.tag.join(","))),
            ("note", search.note.clone()),
            ("preserved", search.preserved.map(|preserved| preserved.to_string())),
            ("duration_min_ms", search.duration_min_ms.map(|ms| ms.to_string())),
            ("duration_max_ms", search.duration_max_ms.map(|ms| ms.to_string())),
            ("limit", Some(limit.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        self.client.json(&Request::get(with_query("/v1/recordings", &parameters), "list the recordings").long())
    }

    fn show(&mut self, id: &str) -> Result<Exit, CtlError> {
        let request = Request::get(format!("/v1/recordings/{id}"), format!("show the recording {id}"));
        let recording = self.client.json(&request)?;
        if self.printed_json(&recording)? {
            return Ok(Exit::Done);
        }
        let field = |name: &str| text(&recording[name]);
        let party = |number: &str, name: &str| match (field(number), field(name)) {
            (number, name) if name == NOTHING => number,
            (number, name) => format!("{number} ({name})"),
        };
        let archive = &recording["archive"];
        let pairs = [
            ("recording", field("id")),
            ("verdict", field("verdict")),
            ("began", time(&recording["started_at"], &self.around.zone)),
            ("ended", time(&recording["ended_at"], &self.around.zone)),
            ("length", duration(&recording["duration_ms"])),
            ("direction", field("direction")),
            ("user", party("local_number", "local_name")),
            ("other party", party("remote_number", "remote_name")),
            ("traffic", field("traffic")),
            ("owner", field("owner")),
            ("call id", field("call_id")),
            ("linked with", field("linked")),
            (
                "archive",
                format!("{}, {}, store {}", text(&archive["state"]), size(&archive["bytes"]), text(&archive["store"])),
            ),
        ];
        write_pairs(self.around.stdout, &pairs)?;
        self.show_tracks(&recording)?;
        annotate::show(self, &recording)?;
        for flaw in recording["flaws"].as_array().into_iter().flatten() {
            self.say(&format!("flaw: {}", harmless(&flaw_text(flaw))))?;
        }
        Ok(Exit::Done)
    }

    fn show_tracks(&mut self, recording: &Value) -> Result<(), CtlError> {
        let mut table =
            Table::new(&["TRACK", "PARTICIPANT", "CODEC", ">PACKETS", ">LOST", ">DUPLICATES", ">LATE", ">GAPS"]);
        for track in recording["tracks"].as_array().into_iter().flatten() {
            let figures = ["packets", "lost", "duplicates", "late"].map(|name| text(&track[name]));
            let row = ["label", "participant", "codec"].map(|name| text(&track[name])).into_iter().chain(figures);
            table.row(row.chain([duration(&track["gaps_ms"])]));
        }
        self.say("")?;
        self.write_table(&table, "no tracks")
    }

    fn verify(&mut self, id: Option<&str>) -> Result<Exit, CtlError> {
        let (path, what) = match id {
            Some(id) => (format!("/v1/recordings/{id}/verify"), format!("verify the recording {id}")),
            None => ("/v1/verify".into(), "verify the recordings".to_owned()),
        };
        let answer = self.client.json(&Request::get(path, what.clone()).long())?;
        let findings = rows(&answer, "findings", &what)?;
        let exit = if findings.is_empty() { Exit::Done } else { Exit::Failed };
        if self.printed_json(&answer)? {
            return Ok(exit);
        }
        let mut table = Table::new(&[">INVARIANT", "RECORDING", "WHERE", "WHAT", "DETAILS"]);
        let mut remedies = BTreeMap::new();
        for finding in findings {
            table.row(["invariant", "recording", "where", "kind", "text"].map(|name| text(&finding[name])));
            if let (Some(number), Some(remedy)) = (finding["invariant"].as_u64(), finding["remedy"].as_str()) {
                remedies.insert(number, remedy.to_owned());
            }
        }
        let checked = text(&answer["checked"]);
        let plural = |count: usize, one: &str, many: &str| if count == 1 { one.to_owned() } else { many.to_owned() };
        let what = plural(answer["checked"].as_u64().unwrap_or(0) as usize, "recording", "recordings");
        if table.is_empty() {
            self.say(&format!("{checked} {what} checked: whole"))?;
        } else {
            table.write(self.around.stdout)?;
            let found = plural(findings.len(), "flaw", "flaws");
            for (number, remedy) in remedies {
                self.say(&harmless(&format!("invariant {number}: {remedy}")))?;
            }
            self.say(&format!("{checked} {what} checked: {} {found} found", findings.len()))?;
        }
        Ok(exit)
    }

    fn delete(&mut self, ids: &[String], yes: bool) -> Result<Exit, CtlError> {
        let what = if ids.len() == 1 { "this recording".to_owned() } else { format!("these {} recordings", ids.len()) };
        if !self.confirmed(&format!("Delete {what} for ever? Nothing can bring it back."), yes)? {
            self.say("nothing was deleted")?;
            return Ok(Exit::Failed);
        }
        for id in ids {
            let request =
                Request::new(Method::Delete, format!("/v1/recordings/{id}"), format!("delete the recording {id}"));
            let answer = self.client.json(&request)?;
            if !self.json {
                self.say(&format!("deleted {id}"))?;
            } else if !answer.is_null() {
                self.printed_json(&answer)?;
            }
        }
        Ok(Exit::Done)
    }

    fn jobs(&mut self, verb: &cli::Jobs) -> Result<Exit, CtlError> {
        match verb {
            cli::Jobs::List => self.list_jobs(),
            cli::Jobs::Retry { ids } => self.retry_jobs(ids),
        }
    }

    fn list_jobs(&mut self) -> Result<Exit, CtlError> {
        let answer = self.client.json(&Request::get("/v1/jobs", "list the jobs"))?;
        if self.printed_json(&answer)? {
            return Ok(Exit::Done);
        }
        let mut table = Table::new(&["JOB", "STATE", ">TRIES", "NEXT", "LAST ERROR"]);
        for job in rows(&answer, "jobs", "list the jobs")? {
            table.row([
                text(&job["id"]),
                text(&job["state"]),
                text(&job["attempts"]),
                time(&job["next_at"], &self.around.zone),
                text(&job["last_error"]),
            ]);
        }
        self.write_table(&table, "there are no jobs")?;
        Ok(Exit::Done)
    }

    fn retry_jobs(&mut self, ids: &[String]) -> Result<Exit, CtlError> {
        for id in ids {
            let path = format!("/v1/jobs/{}/retry", escaped(id));
            let answer =
                self.client.json(&Request::new(Method::Post, path, format!("retry the job {}", harmless(id))))?;
            if !self.json {
                self.say(&format!("{} will be tried again", harmless(id)))?;
            } else if !answer.is_null() {
                self.printed_json(&answer)?;
            }
        }
        Ok(Exit::Done)
    }

    fn show_config(&mut self) -> Result<Exit, CtlError> {
        let entries = self.config.effective();
        if self.json {
            let entries: Vec<Value> =
                entries.iter().map(|e| json!({"key": e.key, "value": e.value, "origin": e.origin})).collect();
            self.printed_json(&Value::Array(entries))?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(&["KEY", "VALUE", "SET IN"]);
        for entry in entries {
            table.row([entry.key.to_owned(), entry.value.clone(), entry.origin.clone()]);
        }
        table.write(self.around.stdout)?;
        Ok(Exit::Done)
    }
}

/// The list in an answer.
pub(crate) fn rows<'v>(answer: &'v Value, name: &str, what: &str) -> Result<&'v Vec<Value>, CtlError> {
    answer[name]
        .as_array()
        .ok_or_else(|| CtlError::Answer { what: what.to_owned(), detail: format!("it has no list `{name}`") })
}

/// Whether a call is kept; nothing while nobody has decided.
fn kept(value: &Value) -> String {
    value.as_bool().map_or_else(|| NOTHING.into(), |kept| if kept { "yes" } else { "no" }.into())
}

/// A flaw as a sentence: `code: text`, or whatever it is.
fn flaw_text(flaw: &Value) -> String {
    match (flaw["code"].as_str(), flaw["text"].as_str()) {
        (Some(code), Some(text)) => format!("{code}: {text}"),
        _ => text(flaw),
    }
}

/// An object of any depth as dotted names and values. Byte counts and durations are told by the ends of their names.
pub(crate) fn flatten(prefix: &str, value: &Value, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, pairs);
            }
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (index, entry) in entries.iter().enumerate() {
                flatten(&format!("{prefix}.{}", index + 1), entry, pairs);
            }
        }
        _ if prefix.is_empty() => {}
        _ => {
            let shown = match () {
                () if prefix.ends_with("_bytes") || prefix.ends_with(".bytes") => size(value),
                () if prefix.ends_with("_ms") => duration(value),
                () => text(value),
            };
            pairs.push((harmless(prefix).replace('_', " "), shown));
        }
    }
}
