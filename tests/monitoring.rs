//! The alerts and the dashboard against the metrics of an appliance that runs: what they ask for is there, under these names and labels; and
//! the metrics against what is written about them.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::tls::{Authority, GOOD};
use rig::{Appliance, wait_until};
use serde_json::Value;

/// What Prometheus itself adds to a series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// Metrics that have no series until something happens, with their labels.
const NOT_YET: [(&str, &str); 3] = [
    ("callvault_recordings_discarded_total", "rule"),
    ("callvault_recordings_not_ok_total", "reason"),
    ("callvault_recordings_deleted_total", "rule"),
];

/// Metrics that are there where Webex is switched on, with their labels.
const WITH_WEBEX: [(&str, Option<&str>); 3] = [
    ("callvault_webex_calls", Some("verdict")),
    ("callvault_webex_authorised", None),
    ("callvault_webex_synced_seconds", None),
];

/// There from the second minute on, and only while the disk fills.
const WHILE_IT_FILLS: &str = "callvault_spool_headroom_seconds";

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A name by the conventions: ours, in small letters, and in base units, which stand last but for `_total`.
fn check_name(name: &str) {
    let short = name.strip_prefix("callvault_").unwrap_or_else(|| panic!("{name} is not ours"));
    let words: Vec<&str> = short.strip_suffix("_total").unwrap_or(short).split('_').collect();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    assert!(words.iter().all(is_word), "{name}");
    let scaled =
        ["ms", "milliseconds", "us", "minutes", "hours", "days", "s", "kb", "kib", "mb", "mib", "gb", "percent"];
    assert!(!words.iter().any(|word| scaled.contains(word)), "{name} is not in seconds, bytes or a ratio");
    let unit = words.iter().position(|word| ["seconds", "bytes", "ratio"].contains(word));
    let is_rate = words.ends_with(&["per", "second"]);
    assert!(is_rate || unit.is_none_or(|at| at + 1 == words.len()), "{name}: its unit is not last");
}

/// The names of all metrics, each with its labels; the form is looked at on the way.
fn metrics(appliance: &Appliance) -> BTreeMap<String, BTreeSet<String>> {
    let response = rig::http::ask(appliance.place.http(), "GET", "/metrics", None).unwrap();
    let text = String::from_utf8(response.body).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut helped, mut typed, mut series) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    assert!(text.ends_with('\n'), "the last line is not whole");
    // Everything of a metric stands together: its help, its type, its series.
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && help.len() > 10, "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
            check_name(name);
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(name == family && !typed.contains_key(name), "not after its help, or twice: {line}");
            typed.insert(name.to_owned(), kind.to_owned());
            found.entry(name.to_owned()).or_default();
        } else {
            let (what, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            assert!(series.insert(what.to_owned()), "twice: {line}");
            let Expr::VectorSelector(VectorSelector { name, matchers, .. }) = parser::parse(what).unwrap() else {
                panic!("no series: {line}")
            };
            let name = name.unwrap();
            assert_eq!(name, family, "apart from its help: {line}");
            assert!(helped.contains(&name) && typed.contains_key(&name), "neither help nor type before {line}");
            found.entry(name).or_default().extend(matchers.matchers.iter().map(|matcher| matcher.name.clone()));
        }
    }
    for (name, label) in NOT_YET {
        found.get_mut(name).unwrap().insert(label.to_owned());
    }
    for (name, label) in WITH_WEBEX {
        let short = name.strip_prefix("callvault_").unwrap();
        assert!(file("daemon/service/src/metrics/webex.rs").contains(&format!("\"{short}\"")), "{name}");
        found.entry(name.to_owned()).or_default().extend(label.map(str::to_owned));
    }
    let short = WHILE_IT_FILLS.strip_prefix("callvault_").unwrap();
    assert!(file("daemon/service/src/metrics.rs").contains(&format!("metric(\"{short}\", \"gauge\"")));
    found.entry(WHILE_IT_FILLS.to_owned()).or_default();
    found
}

/// The selectors of an expression, and the labels that it groups by.
#[derive(Default)]
struct Asked {
    selectors: Vec<(String, Vec<String>)>,
}

impl ExprVisitor for Asked {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        let selector = match expr {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        if let Some(selector) = selector {
            let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone()).collect();
            self.selectors.push((selector.name.clone().unwrap(), labels));
        }
        Ok(true)
    }
}

/// Every metric and label that an expression asks for is there.
fn check(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let expr = parser::parse(expression).unwrap_or_else(|error| panic!("{error}: {expression}"));
    let mut asked = Asked::default();
    walk_expr(&mut asked, &expr).unwrap();
    assert!(!asked.selectors.is_empty(), "{expression}");
    for (name, labels) in asked.selectors {
        let known = metrics.get(&name).unwrap_or_else(|| panic!("no metric {name}: {expression}"));
        let wrong = labels.iter().find(|label| !known.contains(*label) && !OF_PROMETHEUS.contains(&label.as_str()));
        assert_eq!(wrong, None, "{name} has no such label: {expression}");
    }
}

/// The anchors of a page, as its headings give them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(anchor).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let ours = Authority::new("ours");
    let appliance = rig::tls::start("", &ours.sign(GOOD), None);
    let facts = Facts::incoming(61_001);
    let voice = packets(&speech(1, 140.0, 8_000, 20 * FRAME));
    let mut client = Client::udp(appliance.sip());
    play_ulaw(&client.call(&webex(&facts, appliance.sip())), &[&voice, &voice]);
    client.bye();
    appliance.archived(&facts.call_id);
    wait_until("the metrics have the call", || metrics(&appliance)["callvault_jobs"].contains("kind"));
    let metrics = metrics(&appliance);

    let rules = file("packaging/monitoring/callvault.rules.yml");
    let expressions: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    let count = |what: &str| rules.lines().filter(|line| line.trim().starts_with(what)).count();
    assert_eq!(expressions.len(), count("- alert:"));
    expressions.iter().for_each(|expression| check(expression, &metrics));
    let pages: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("remedy: ")).collect();
    assert_eq!(count("remedy:"), expressions.len());
    for remedy in pages {
        let (page, anchor) = remedy.trim_matches('"').split_once('#').unwrap();
        assert!(anchors(&file(page)).contains(anchor), "{remedy}");
    }

    let dashboard: Value = serde_json::from_str(&file("packaging/monitoring/callvault.dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets: Vec<&str> = panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(targets.len() > 20);
    targets.iter().for_each(|expression| check(expression, &metrics));

    // What there is is written down.
    let page = file("docs/operations.md");
    for name in metrics.keys() {
        let short = name.strip_prefix("callvault_").unwrap();
        assert!(page.contains(&format!("`{short}")), "{name} is not in docs/operations.md");
    }
}
