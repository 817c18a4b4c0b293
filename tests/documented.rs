//! What the documents say can be done is done here: every shell block of README.md and docs/ is classified in the first line of its fence, and
//! what can run against an appliance runs against one. Every command line is one that `callvaultctl` takes, every verb is described, every
//! setting that is named exists, and every link leads to a heading that is there.
//!
//! | fence | what becomes of it |
//! |---|---|
//! | `sh run` | runs, block after block, in a shell beside an appliance with a user and a recording; each must end with 0 |
//! | `sh in FILE` | needs a machine of its own, or a peer: the test FILE does the same, and has each command's verb in it |
//! | `sh example: WHY` | is not run, for that reason |
//! | `text of COMMAND` | its first line is what the command prints, but for words with digits |
//! | `text`, `toml`, `json`, `http` | no commands |

#![allow(clippy::unwrap_used)]

#[path = "documented/pages.rs"]
mod pages;
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use pages::{Block, Page};
use rig::Appliance;

/// One appliance at a time: a self-test beside four others on a small machine judges the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// What looks like a setting and is a file, a field of JSON, a name in templates, or a credential.
const NO_SETTINGS: [&str; 6] =
    ["store.identity", "archive.state", "mail.password", "recording.id", "webex.secret", "webex.com"];

/// Stands where a page says ID and only the command line is looked at.
const SOME_RECORDING: &str = "0199c0de-0000-7000-8000-000000000001";

/// What blocks find besides the appliance: shell that makes `sudo` nothing and the command that of this build.
const PRELUDE: &str = "set -euo pipefail\nshopt -s expand_aliases\nsudo() { \"$@\"; }\ncallvaultctl() { \"$CTL\" --config target/run/callvault.toml \"$@\"; }\n";

/// What a block is, or what is wrong with how it is classified.
enum Class<'a> {
    Run,
    In(&'a str),
    Example,
    TextOf(&'a str),
    NoCommands,
}

fn class(block: &Block) -> Result<Class<'_>, String> {
    let info = block.info.as_str();
    match info.split_once(' ') {
        Some(("sh", "run")) => Ok(Class::Run),
        Some(("sh", rest)) => match (rest.strip_prefix("in "), rest.strip_prefix("example: ")) {
            (Some(file), _) => Ok(Class::In(file)),
            (_, Some(why)) if why.len() > 10 => Ok(Class::Example),
            _ => Err(format!("{}: `{info}` says neither run nor in nor example with a reason", block.place)),
        },
        Some(("text", rest)) if rest.starts_with("of ") => Ok(Class::TextOf(&rest[3..])),
        None if ["text", "toml", "json", "http"].contains(&info) => Ok(Class::NoCommands),
        _ => Err(format!("{}: the fence `{info}` is not classified", block.place)),
    }
}

/// A folder like the one that README.md speaks of, beside an appliance with a recording.
struct Beside {
    appliance: Appliance,
    folder: tempfile::TempDir,
    recording: String,
}

impl Beside {
    fn new() -> Self {
        let appliance = Appliance::start("");
        let selftest = appliance.ctl(&["selftest"]);
        assert!(selftest.status.success(), "{selftest:?}");
        let recording = appliance.recordings()[0]["id"].as_str().unwrap().to_owned();
        let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path();
        for made in ["target/release", "mnt/share", "mnt/elsewhere", "root"] {
            fs::create_dir_all(path.join(made)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_callvaultctl"), path.join("target/release/callvaultctl")).unwrap();
        symlink(appliance.home(), path.join("target/run")).unwrap();
        fs::write(path.join("users.csv"), "webex_email,first_name,last_name\nann@example.com,Ann,Example\n").unwrap();
        let passphrase = path.join("root/backup.passphrase");
        fs::write(&passphrase, "twelve or more characters\n").unwrap();
        fs::set_permissions(passphrase, fs::Permissions::from_mode(0o600)).unwrap();
        let import = appliance.ctl(&["users", "import", path.join("users.csv").to_str().unwrap()]);
        assert!(import.status.success(), "{import:?}");
        Self { appliance, folder, recording }
    }

    /// The text of a block with the places of this test in it.
    fn here(&self, text: &str) -> String {
        let folder = self.folder.path().display();
        text.split('\n')
            .map(|line| {
                let words = line.split(' ').map(|word| if word == "ID" { self.recording.as_str() } else { word });
                words.collect::<Vec<_>>().join(" ")
            })
            .collect::<Vec<_>>()
            .join("\n")
            .replace("http://127.0.0.1:8088", &format!("http://{}", self.appliance.place.http()))
            .replace(" /mnt/", &format!(" {folder}/mnt/"))
            .replace(" /root/", &format!(" {folder}/root/"))
    }

    fn shell(&self, script: &str) -> Output {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("{PRELUDE}{script}")).current_dir(self.folder.path());
        shell.env("CTL", env!("CARGO_BIN_EXE_callvaultctl")).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The words of a line that are the same each time.
fn shape(line: &str) -> Vec<&str> {
    line.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect()
}

/// Runs what a page says can be run; one shell for all of it, so that what an earlier block has set is there in a later one.
fn check_runs(path: &str) {
    let page = Page::read(path);
    let (mut script, mut shown) = (String::new(), Vec::new());
    for block in &page.blocks {
        match class(block).unwrap() {
            Class::Run => script += &format!("echo '== {}' >&2\n{}\n", block.place, block.text),
            Class::TextOf(command) => shown.push((command, block)),
            _ => {}
        }
    }
    assert!(!script.is_empty() || !shown.is_empty(), "{path} has nothing that runs");
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let beside = Beside::new();
    let output = beside.shell(&beside.here(&script));
    assert!(output.status.success(), "{path}: {}\n{}", output.status, said(&output));
    for (command, block) in shown {
        let output = said(&beside.shell(command));
        let wanted = shape(block.text.lines().next().unwrap());
        assert!(output.lines().any(|line| shape(line) == wanted), "{}: `{command}` says\n{output}", block.place);
    }
}

#[test]
fn what_the_readme_says_can_be_run_runs() {
    check_runs("README.md");
}

#[test]
fn what_the_operators_are_told_to_run_runs() {
    check_runs("docs/operations.md");
}

#[test]
fn what_the_integrators_are_told_to_run_runs() {
    check_runs("docs/api.md");
}

#[test]
fn what_the_pages_for_single_tasks_say_can_be_run_runs() {
    for page in pages::all() {
        let runs = |block: &Block| matches!(class(block), Ok(Class::Run | Class::TextOf(_)));
        if page.path.matches('/').count() > 1 && page.blocks.iter().any(runs) {
            check_runs(&page.path);
        }
    }
}

#[test]
fn every_block_is_classified_and_what_is_run_elsewhere_is_there() {
    let mut wrong = Vec::new();
    for block in pages::all().iter().flat_map(|page| &page.blocks) {
        match class(block) {
            Err(error) => wrong.push(error),
            Ok(Class::In(file)) => wrong.extend(not_in(file, block)),
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The commands of a block that the test which is said to run them does not name.
fn not_in(file: &str, block: &Block) -> Vec<String> {
    let Ok(text) = fs::read_to_string(pages::root().join(file)) else {
        return vec![format!("{}: there is no {file}", block.place)];
    };
    // What a comment says is not done.
    let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let missing = |line: &String| pages::verb(line).is_some_and(|verb| !text.contains(&verb));
    let missing = block.lines().into_iter().filter(missing);
    missing.map(|line| format!("{}: {file} does not run `{line}`", block.place)).collect()
}

#[test]
fn every_command_line_is_one_that_the_command_takes() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for page in pages::all() {
        for said in page.commands() {
            looked_at += 1;
            let words = said
                .words
                .iter()
                .map(|word| if word.trim_end_matches('…') == "ID" { SOME_RECORDING } else { word.as_str() });
            let parsed = callvault_ctl::command().try_get_matches_from(words);
            let Err(error) = parsed else { continue };
            // In a sentence a command is often only named; what is named must be there all the same.
            let kind = format!("{:?}", error.kind());
            let only_named = [
                "MissingRequiredArgument",
                "DisplayHelpOnMissingArgumentOrSubcommand",
                "MissingSubcommand",
                "DisplayHelp",
                "DisplayVersion",
            ];
            if said.inline && only_named.contains(&kind.as_str()) {
                continue;
            }
            wrong.push(format!("{}: {}: {error}", page.path, said.words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 60, "only {looked_at} command lines were found");
}

#[test]
fn every_verb_of_the_command_is_described() {
    let text = pages::all().into_iter().map(|page| page.text).collect::<String>();
    let mut missing = Vec::new();
    for verb in
        callvault_ctl::command().get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
    {
        let name = verb.get_name();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(&format!("`{name}")) || line.contains(&format!("callvaultctl {name}")))
            .collect();
        if lines.is_empty() {
            missing.push(name.to_owned());
        }
        for action in verb.get_subcommands().filter(|action| action.get_name() != "help") {
            if !lines.iter().any(|line| pages::has_word(line, action.get_name())) {
                missing.push(format!("{name} {}", action.get_name()));
            }
        }
    }
    assert!(missing.is_empty(), "nothing in README.md and docs/ describes: {missing:?}");
}

#[test]
fn every_setting_that_is_named_exists() {
    let known: BTreeSet<&str> = callvault_config::schema::keys().map(|key| key.key).collect();
    let sections: BTreeSet<&str> =
        known.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect();
    let mut wrong = Vec::new();
    for page in pages::all() {
        for name in page.inline().filter_map(|code| pages::setting(&code)) {
            let section = name.split('.').next().unwrap();
            if sections.contains(section) && !NO_SETTINGS.contains(&name.as_str()) && !known.contains(name.as_str()) {
                wrong.push(format!("{}: {name}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "there are no such settings:\n{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_to_a_heading_that_is_there() {
    let mut wrong = Vec::new();
    for page in pages::all() {
        for link in page.links() {
            if let Some(problem) = pages::broken(Path::new(&page.path).parent().unwrap(), &link) {
                wrong.push(format!("{}: {link}: {problem}", page.path));
            }
        }
    }
    for (place, link) in pages::named_elsewhere() {
        if let Some(problem) = pages::broken(Path::new(""), &link) {
            wrong.push(format!("{place}: {link}: {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
