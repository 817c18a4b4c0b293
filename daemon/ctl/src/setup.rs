//! `callvaultctl setup`: asks for what a first start needs, has the daemon's doctor look at each answer, shows what would be
//! written, and writes it to a file of its own in `conf.d`. Until then nothing is on any disk, the password of mail included.

mod file;
mod looks;
mod questions;
mod terminal;

use std::path::{Path, PathBuf};

use callvault_config::Config;
use serde_json::json;

use self::looks::Finding;
use self::questions::{Kind, Question, TOPICS, Topic, Values, quoted};
use crate::Surroundings;
use crate::cli::{Cli, Setup};
use crate::error::{CtlError, Exit};
use crate::table::harmless;

/// What was answered so far.
#[derive(Debug, Default)]
struct Answers {
    /// What differs from what is in force, or was given, in TOML.
    values: Values,
    /// The password of mail, where one was typed.
    password: Option<String>,
    /// What is wrong and was taken all the same.
    accepted: Vec<Finding>,
}

/// What a run works with.
struct Run<'a, 'b> {
    cli: &'a Cli,
    given: &'a Setup,
    around: &'a mut Surroundings<'b>,
    /// The configuration as it is.
    now: Config,
    /// Where the configuration stands, whole.
    path: PathBuf,
    asks: bool,
}

/// Asks, looks, shows and writes.
pub(crate) fn run(cli: &Cli, given: &Setup, around: &mut Surroundings<'_>) -> Result<Exit, CtlError> {
    let asks = !given.yes && !cli.json && around.answers;
    if !asks && !given.yes && !given.dry_run {
        let text = "set the appliance up: there is no terminal to ask on; give the answers as flags, and --yes to write them (or --dry-run to see them)";
        return Err(CtlError::Usage(text.into()));
    }
    let now = Config::load(&cli.config, around.environment.clone())
        .map_err(|errors| CtlError::Configuration(callvault_config::render_errors(&errors).trim_end().to_owned()))?;
    let path = std::path::absolute(&cli.config).unwrap_or_else(|_| cli.config.clone());
    let mut run = Run { cli, given, around, now, path, asks };
    let answers = run.answered()?;
    run.finish(answers)
}

impl Run<'_, '_> {
    /// All topics, each looked at before the next.
    fn answered(&mut self) -> Result<Answers, CtlError> {
        let mut answers = Answers::default();
        for topic in &TOPICS {
            self.topic(topic, &mut answers)?;
        }
        Ok(answers)
    }

    /// One topic, until it is well or taken as it is. Without a terminal it is looked at once, and only where something was given.
    fn topic(&mut self, topic: &Topic, answers: &mut Answers) -> Result<(), CtlError> {
        let is_given = topic.questions.iter().any(|question| (question.given)(self.given).is_some());
        if self.asks {
            writeln!(self.around.stderr, "\n{}", topic.name)?;
        } else if !is_given {
            return Ok(());
        }
        let mut is_first = true;
        loop {
            for question in topic.questions {
                self.answer(question, is_first, answers)?;
            }
            let wrong = self.look(topic.parts, answers)?;
            let has_problem = wrong.iter().any(|finding| finding.is_problem);
            if self.asks {
                for finding in &wrong {
                    let what = if finding.is_problem { "wrong" } else { "to be looked at" };
                    writeln!(self.around.stderr, "{what}: {}", harmless(&finding.text))?;
                }
            }
            if !has_problem {
                return Ok(());
            }
            if !self.asks || !terminal::again()? {
                answers.accepted.extend(wrong.into_iter().filter(|finding| finding.is_problem));
                return Ok(());
            }
            is_first = false;
        }
    }

    /// The answer to one question: what was given, what a person says, or what is in force.
    fn answer(&mut self, question: &Question, is_first: bool, answers: &mut Answers) -> Result<(), CtlError> {
        let values = self.values_with(answers);
        let given = (question.given)(self.given);
        if let (Some(text), true) = (given, is_first) {
            answers.values.insert(question.key.to_owned(), question.read(text));
            return Ok(());
        }
        if !self.asks || !question.is_asked(&values) {
            return Ok(());
        }
        if question.kind == Kind::Secret {
            if let Some(secret) = terminal::secret(question)? {
                let path = file::password_path_for(&self.path);
                answers.values.insert(question.key.to_owned(), quoted(&path.display().to_string()));
                answers.password = Some(secret);
            }
            return Ok(());
        }
        let shown = question.shown(values.get(question.key).map_or("", String::as_str));
        let text = terminal::ask(question, &shown)?;
        // What was not touched stays as it is written, a relative path too.
        if text.trim() != shown {
            answers.values.insert(question.key.to_owned(), question.read(&text));
        }
        Ok(())
    }

    /// What would be in force with these answers, as TOML.
    fn values_with(&self, answers: &Answers) -> Values {
        let now = self.now.effective().iter().map(|entry| (entry.key.to_owned(), entry.value.clone()));
        now.chain(answers.values.clone()).collect()
    }

    /// What is not well with these answers.
    fn look(&mut self, parts: &[&str], answers: &Answers) -> Result<Vec<Finding>, CtlError> {
        let config = match looks::configured(&self.path, &self.around.environment, &answers.values) {
            Ok(config) => config,
            Err(findings) => return Ok(findings),
        };
        let mut wrong = Vec::new();
        if parts.contains(&"store") && self.given.share {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let text = looks::no_share(&config.store_path(), &mounts);
            wrong.extend(text.map(|text| Finding { part: "store".into(), is_problem: true, text }));
        }
        if !parts.is_empty() {
            wrong.extend(looks::examined(&self.path, &answers.values, parts, answers.password.as_deref())?.0);
        }
        Ok(wrong)
    }

    /// Looks at all of it, shows what changes, and writes it.
    fn finish(&mut self, answers: Answers) -> Result<Exit, CtlError> {
        let config = match looks::configured(&self.path, &self.around.environment, &answers.values) {
            Ok(config) => config,
            Err(wrong) => return self.refuse(&wrong, "", Exit::Failed),
        };
        let changes = self.changes(&config)?;
        let path = file::path_for(&self.path);
        let failed = |what: &str, reason: String| CtlError::File { what: format!("{what} {}", path.display()), reason };
        let before = file::read(&path).map_err(|error| failed("read", error.to_string()))?;
        let after = file::compose(&before, &changes).map_err(|error| failed("change", error.to_string()))?;
        let after = if changes.is_empty() { before.clone() } else { after };
        let (mut wrong, running) = looks::examined(&self.path, &answers.values, &[], answers.password.as_deref())?;
        wrong.extend(answers.accepted.iter().filter(|one| !wrong.contains(one)).cloned().collect::<Vec<_>>());
        let difference = file::difference(&path, &before, &after);
        let has_problem = wrong.iter().any(|finding| finding.is_problem);
        let is_meant = self.given.anyway || self.asks;
        if self.given.dry_run || (has_problem && !is_meant) {
            let exit = if has_problem { Exit::Failed } else { Exit::Done };
            return self.refuse(&wrong, &difference, exit);
        }
        self.show(&wrong, &difference)?;
        if self.asks && !(difference.is_empty() && answers.password.is_none()) && !terminal::writes()? {
            writeln!(self.around.stdout, "nothing was written")?;
            return Ok(Exit::Failed);
        }
        if let Some(password) = &answers.password {
            let path = file::password_path_for(&self.path);
            file::write_secret(&path, &config.data_dir, password).map_err(|error| unwritable(&path, &error))?;
        }
        let old = if difference.is_empty() {
            None
        } else {
            file::write(&path, &self.path, &before, &after).map_err(|error| unwritable(&path, &error))?
        };
        let next = next_steps(&config, &changes, running);
        self.report(&wrong, &difference, Some(&path), old.as_deref(), &next)?;
        Ok(if has_problem { Exit::Failed } else { Exit::Done })
    }

    /// The keys that are to be written, with their values; what a later file sets cannot be set here.
    fn changes(&self, config: &Config) -> Result<Vec<(String, String)>, CtlError> {
        let path = file::path_for(&self.path);
        let mut changes = Vec::new();
        for (new, old) in config.effective().iter().zip(self.now.effective()) {
            if new.value == old.value {
                continue;
            }
            if file::is_later(&old.origin, &path) {
                return Err(CtlError::File {
                    what: format!("set {}", new.key),
                    reason: format!(
                        "it is set in {} too, which is read after {} and wins; take it away there, or change it there",
                        old.origin,
                        path.display()
                    ),
                });
            }
            changes.push((new.key.to_owned(), new.value.clone()));
        }
        Ok(changes)
    }

    fn show(&mut self, wrong: &[Finding], difference: &str) -> Result<(), CtlError> {
        if self.cli.json {
            return Ok(());
        }
        for finding in wrong {
            let what = if finding.is_problem { "PROBLEM" } else { "WARNING" };
            writeln!(self.around.stdout, "{what}  {}: {}", finding.part, harmless(&finding.text))?;
        }
        if difference.is_empty() {
            writeln!(self.around.stdout, "nothing changes in the configuration")?;
        } else {
            write!(self.around.stdout, "{difference}")?;
        }
        Ok(())
    }

    /// Shows it and writes nothing.
    fn refuse(&mut self, wrong: &[Finding], difference: &str, exit: Exit) -> Result<Exit, CtlError> {
        self.show(wrong, difference)?;
        self.report(wrong, difference, None, None, &[])?;
        Ok(exit)
    }

    /// What was done, and what comes next.
    fn report(
        &mut self,
        wrong: &[Finding],
        difference: &str,
        written: Option<&Path>,
        old: Option<&Path>,
        next: &[String],
    ) -> Result<(), CtlError> {
        if self.cli.json {
            let finding = |finding: &Finding| {
                let state = if finding.is_problem { "problem" } else { "warning" };
                json!({"part": finding.part, "state": state, "text": finding.text})
            };
            let findings: Vec<_> = wrong.iter().map(finding).collect();
            let written = written.filter(|_| !difference.is_empty());
            let all =
                json!({"written": written, "kept": old, "difference": difference, "findings": findings, "next": next});
            writeln!(self.around.stdout, "{all:#}")?;
            return Ok(());
        }
        match written {
            None if self.given.dry_run => writeln!(self.around.stdout, "\nnothing was written (--dry-run)")?,
            None => writeln!(
                self.around.stdout,
                "\nnothing was written; mend what is wrong, or give --anyway for what is not there yet"
            )?,
            Some(path) if !difference.is_empty() => writeln!(self.around.stdout, "\nwritten: {}", path.display())?,
            Some(_) => {}
        }
        if let Some(old) = old {
            writeln!(self.around.stdout, "the one before it: {}", old.display())?;
        }
        if !next.is_empty() {
            writeln!(self.around.stdout, "\nNext:")?;
        }
        for (number, step) in (1..).zip(next) {
            writeln!(self.around.stdout, "{number}. {step}")?;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> CtlError {
    CtlError::File {
        what: format!("write {}", path.display()),
        reason: format!("{error}; run callvaultctl as root, or as whom the folder belongs to"),
    }
}

/// What is to be done once it is written.
fn next_steps(config: &Config, changes: &[(String, String)], running: bool) -> Vec<String> {
    let waiting: Vec<&str> = changes
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| !callvault_config::takes_effect_at_once(key))
        .collect();
    let mut next = Vec::new();
    match (running, waiting.is_empty()) {
        (true, true) => next
            .push("callvaultd runs and takes it over by itself within seconds: callvaultctl settings show".to_owned()),
        (true, false) => next
            .push(format!("Have it in force, calls go on: systemctl restart callvaultd (for {})", waiting.join(", "))),
        (false, _) => next.push("Start it: systemctl enable --now callvaultd".to_owned()),
    }
    next.push("Call it: callvaultctl selftest".to_owned());
    next.push(format!(
        "Back up the private key, apart from the recordings: callvaultctl backup FILE --passphrase-file FILE (it is in {})",
        config.keys_path().display()
    ));
    let signalling: Vec<String> = [("udp", &config.sip.udp), ("tcp", &config.sip.tcp), ("tls", &config.sip.tls)]
        .into_iter()
        .flat_map(|(transport, listen)| listen.0.iter().map(move |address| format!("{transport} {}", address.port())))
        .collect();
    next.push(format!(
        "Open in the firewall: {}, and udp {}-{} for audio",
        signalling.join(", "),
        config.media.ports.first,
        config.media.ports.last
    ));
    let name =
        Some(config.sip.tls_name.as_str()).filter(|name| !name.is_empty()).unwrap_or("the address of this machine");
    next.push(format!("In Webex Control Hub, name {name} and its SIP port as the recording platform's address, and give users call recording"));
    next
}
