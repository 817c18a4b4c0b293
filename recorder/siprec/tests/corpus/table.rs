//! The page of clients, written from what the cases showed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use callvault_siprec::{CallDirection, Party, SessionFacts};

use crate::case::Observed;

const HEAD: &str = "\
# SIPREC clients

What callvault makes of what each kind of client sends. This page is written by the tests of `recorder/siprec` from the messages in
`tests/corpus`, so it says no more than they show; `UPDATE_DOCS=1 cargo test -p callvault-siprec` writes it anew. A client that is
not here is read by the same rules, and a call is recorded whatever its metadata looks like.

- **Metadata**: the family of the documents, with the versions of BroadWorks' data.
- **Known by**: what marks an INVITE as a recording. `Require` is the option tag, `Contact` the feature tag in any spelling.
- **Media**: a media line for each side, or one with everybody mixed.
- **Numbers**, **names**: of the recorded party and of the others, where the client gives them.
- **Direction**: whether it can be told who called.
- **Linked**: whether an id tells that two recordings are halves of one call.
- **Parties change**: cases in which somebody joins, leaves or is transferred to.
- **Pause**: cases in which the client pauses the media.

";

/// The page for these clients.
pub(crate) fn page(clients: &[(&str, Vec<Observed>)]) -> String {
    let mut page = HEAD.to_owned();
    page +=
        "| Client | Metadata | Known by | Media | Numbers | Names | Direction | Linked | Parties change | Pause |\n";
    page += "|---|---|---|---|---|---|---|---|---|---|\n";
    for (name, cases) in clients {
        page += &row(name, cases);
    }
    page += "\n## The cases\n";
    for (name, cases) in clients {
        write!(page, "\n### {name}\n\n").unwrap();
        for case in cases {
            let flaws: BTreeSet<String> = facts(std::slice::from_ref(case))
                .flat_map(|facts| &facts.flaws)
                .map(|flaw| format!("`{}`", flaw.code))
                .collect();
            let noted = if flaws.is_empty() { String::new() } else { format!(" Noted: {}.", joined(flaws)) };
            writeln!(page, "- {}{noted}", case.about).unwrap();
        }
    }
    page
}

fn row(name: &str, cases: &[Observed]) -> String {
    let parties = |get: fn(&Party) -> &Option<String>| {
        let own = facts(cases).any(|facts| get(&facts.call.local).is_some());
        let others = facts(cases).flat_map(|facts| &facts.call.remotes).any(|party| get(party).is_some());
        match (own, others) {
            (true, true) => "both",
            (true, false) => "recorded party",
            (false, true) => "others",
            (false, false) => "–",
        }
    };
    let media = facts(cases).flat_map(|facts| &facts.tracks).map(|track| match track.mixed {
        true => "mixed".to_owned(),
        false => "separate".to_owned(),
    });
    let cells = [
        name.to_owned(),
        metadata(cases),
        joined(cases.iter().flat_map(|case| &case.recognised).map(|sign| format!("`{sign}`")).collect()),
        joined(media.collect()),
        parties(|party| &party.number).to_owned(),
        parties(|party| &party.name).to_owned(),
        yes(facts(cases).any(|facts| facts.call.direction != CallDirection::Unknown)),
        yes(facts(cases).any(|facts| facts.call.tracking_id.is_some())),
        yes(cases.iter().any(parties_change)),
        yes(cases.iter().any(|case| case.paused)),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn facts(cases: &[Observed]) -> impl Iterator<Item = &SessionFacts> {
    cases.iter().flat_map(|case| &case.facts)
}

fn metadata(cases: &[Observed]) -> String {
    let shapes: BTreeSet<String> = facts(cases)
        .map(|facts| match facts.call.shape.as_str() {
            "rfc7865" => "RFC 7865".to_owned(),
            "broadworks" => "BroadWorks".to_owned(),
            "draft" => "a draft of RFC 7865".to_owned(),
            "cisco" => "header fields".to_owned(),
            other => other.to_owned(),
        })
        .filter(|shape| !shape.is_empty())
        .collect();
    let versions: BTreeSet<String> = cases.iter().flat_map(|case| &case.versions).cloned().collect();
    match versions.is_empty() {
        true => joined(shapes),
        false => format!("{} {}", joined(shapes), joined(versions)),
    }
}

/// Whether others than before take part after some step.
fn parties_change(case: &Observed) -> bool {
    let others = |facts: &SessionFacts| {
        facts.call.remotes.iter().map(|party| (party.aor.clone(), party.labels.clone())).collect::<BTreeSet<_>>()
    };
    case.merged && case.facts.windows(2).any(|pair| others(&pair[0]) != others(&pair[1]))
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "–" }.to_owned()
}

fn joined(words: BTreeSet<String>) -> String {
    if words.is_empty() {
        return "–".to_owned();
    }
    words.into_iter().collect::<Vec<_>>().join(", ")
}
