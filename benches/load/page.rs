//! The page: figures as a table and as plots, in one file that needs nothing else.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::report::{Run, Step, bars};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 62.0;
/// Above the plot stand the names of its lines.
const TOP: f64 = 26.0;
const BOTTOM: f64 = 38.0;
const RIGHT: f64 = 18.0;
/// Colours of the lines of a plot, which can be told apart by most eyes.
const COLOURS: [&str; 3] = ["#0b62a4", "#c25e00", "#3d8b37"];

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1c1c1c}\
    h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1em;margin:.2em 0}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:1.4em}\
    svg{width:100%;height:auto;font:11px system-ui,sans-serif}table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}\
    td,th{padding:.25em .6em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}.no{color:#b00020;font-weight:600}.ok{color:#2a6b26}";

/// Some values over the number of calls.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// Writes `load.json` and `load.html` beside what cargo builds.
pub(crate) fn write(run: &Run) {
    put("load", &run.json(), &steps_page(run));
}

/// Writes a run's two files.
pub(crate) fn put(name: &str, json: &Value, page: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(folder.join(name).with_extension("json"), serde_json::to_vec_pretty(json).unwrap()).unwrap();
    fs::write(folder.join(name).with_extension("html"), page).unwrap();
    println!("  {name}.json and {name}.html are in {}", folder.display());
}

fn steps_page(run: &Run) -> String {
    let over = |name, value: fn(&Step) -> f64| Line {
        name,
        points: run.steps.iter().map(|step| (step.calls as f64, value(step))).collect(),
    };
    let calls = "calls at once";
    let plots = [
        plot(
            "CPU, % of a core",
            calls,
            &[
                over("recorder", |s| 100.0 * s.core_per_call[1] * s.calls as f64),
                over("daemon", |s| 100.0 * s.core_per_call[0] * s.calls as f64),
            ],
        ),
        plot(
            "CPU of one call, % of a core",
            calls,
            &[over("all processes", |s| 100.0 * s.core_per_all() / s.calls as f64)],
        ),
        plot(
            "Memory, MiB",
            calls,
            &[
                over("all processes", |s| s.live.memory_kib() as f64 / 1024.0),
                over("recorder", |s| s.live.0[1].memory_kib as f64 / 1024.0),
                over("daemon", |s| s.live.0[0].memory_kib as f64 / 1024.0),
            ],
        ),
        plot("INVITE to 200, ms", calls, &[over("p50", |s| s.invite_ms[0]), over("p99", |s| s.invite_ms[1])]),
        plot("To the journal, KB/s", calls, &[over("appended", |s| s.journal_bytes_per_s / 1e3)]),
        plot(
            "From a call's end, s",
            calls,
            &[
                over("playable, p99", |s| s.playable_s[1]),
                over("archived, p50", |s| s.archived_s[0]),
                over("archived, the last", |s| s.archived_s[2]),
            ],
        ),
        plot("Most bytes waiting in a socket", calls, &[over("bytes", |s| s.socket_bytes_max as f64)]),
        plot(
            "Memory while the calls of the last step spoke, MiB",
            "seconds",
            &[Line {
                name: "all processes",
                points: run
                    .steps
                    .last()
                    .map_or(Vec::new(), |s| s.memory.iter().map(|(at, kib)| (*at, kib / 1024.0)).collect()),
            }],
        ),
    ];
    page(
        &format!("callvault {}: load", run.version),
        &format!("{}. {}.", run.machine, run.words),
        &(verdicts(run) + &table(run)),
        &plots,
    )
}

/// A whole page.
pub(crate) fn page(title: &str, what: &str, before: &str, plots: &[String]) -> String {
    let (title, what) = (escaped(title), escaped(what));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{what}</p>{before}<div class=\"plots\">{}</div></html>\n",
        plots.concat(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn verdicts(run: &Run) -> String {
    let item = |(text, met): (String, bool)| {
        let (class, word) = if met { ("ok", "met") } else { ("no", "not met") };
        format!("<li><span class=\"{class}\">{word}</span>: {}</li>", escaped(&text))
    };
    format!("<ul>{}</ul>", bars(run).into_iter().map(item).collect::<String>())
}

fn table(run: &Run) -> String {
    let mut text =
        "<table><tr><th>calls<th>packets<th>missing<th>lost<th>late<th>dropped<th>syncs/s<th>disk, KB/s<th>KiB a call\
        <th>playable, s<th>archived, s<th>archive, × real time<th>sender behind, µs</tr>"
            .to_owned();
    for s in &run.steps {
        let _ = write!(
            text,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1}<td>{:.0}<td>{:.1}<td>{:.2}<td>{:.1}<td>{:.0}<td>{:.0}</tr>",
            s.calls,
            s.packets,
            s.missing,
            s.lost_on_purpose,
            s.late_on_purpose,
            s.socket_drops,
            s.commits_per_s,
            s.written_bytes_per_s / 1e3,
            s.kib_per_call(),
            s.playable_s[1],
            s.archived_s[2],
            s.archive_speed(),
            s.behind_us[1],
        );
    }
    text + "</table>"
}

/// A plot of lines given as points.
pub(crate) fn plot_points(title: &str, below: &str, lines: &[(&str, Vec<(f64, f64)>)]) -> String {
    let lines: Vec<Line<'_>> = lines.iter().map(|(name, points)| Line { name, points: points.clone() }).collect();
    plot(title, below, &lines)
}

fn plot(title: &str, below: &str, lines: &[Line<'_>]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let x_max = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let step = tick(points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max));
    let y_max = step * (points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) / step).ceil().max(1.0);
    let place = |(x, y): (f64, f64)| (LEFT + WIDTH * x / x_max, TOP + HEIGHT * (1.0 - y / y_max));
    let mut svg = String::new();
    let mut at = 0.0;
    while at <= y_max + step / 2.0 {
        let (_, y) = place((0.0, at));
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"#e3e3e3\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            number(at)
        );
        at += step;
    }
    let mut marks = Vec::new();
    for x in points().map(|point| point.0) {
        // Numbers that would lie on each other are left out.
        if points().count() <= 40 && marks.iter().all(|other: &f64| (other - x).abs() * WIDTH / x_max > 28.0) {
            marks.push(x);
        }
    }
    if marks.is_empty() {
        marks = (0..=4).map(|n| x_max * f64::from(n) / 4.0).collect();
    }
    for x in marks {
        let (at, _) = place((x, 0.0));
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP + HEIGHT + 16.0,
            number(x)
        );
    }
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: String =
            line.points.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let _ = write!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        if line.points.len() <= 20 {
            for (x, y) in line.points.iter().map(|point| place(*point)) {
                let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            LEFT + 130.0 * n as f64,
            TOP - 12.0,
            escaped(line.name)
        );
    }
    format!(
        "<figure style=\"margin:0\"><h2>{}</h2><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">{svg}\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text></svg></figure>",
        escaped(title),
        LEFT + WIDTH + RIGHT,
        TOP + HEIGHT + BOTTOM,
        escaped(title),
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 33.0,
        escaped(below),
    )
}

/// The distance of lines that people like: 1, 2 or 5 times a power of ten, four to eight of them.
fn tick(most: f64) -> f64 {
    let power = 10_f64.powf((most / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|times| times * power).find(|step| most / step >= 3.5).unwrap_or(power)
}

fn number(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        v if v.abs() >= 10_000.0 => format!("{:.0}k", v / 1e3),
        v if v.abs() >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}
