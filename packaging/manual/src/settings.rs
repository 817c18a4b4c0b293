//! callvault.toml(5): every setting with its default, its range and its reason, from the settings' own declarations.

use std::io;

use callvault_config::KeySpec;
use callvault_config::schema::{Section, sections};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// What stands before the settings.
const ABOUT: [&str; 3] = [
    "The configuration of callvaultd(8) is TOML. A key that is not set has its default, also after an update that improves the default.",
    "Later layers win, key by key, and a list is replaced: the defaults; /etc/callvault/callvault.toml; each /etc/callvault/conf.d/*.toml, in the order of their names; variables of the environment, of which CALLVAULT__SIP__UDP is the key udp of the section [sip], and CALLVAULT__DATA_DIR the key data_dir. An unknown key is an error.",
    "Durations are written \"200ms\", \"10m\" (ms, s, m, h, d), sizes \"16MiB\" (B, KiB, MiB, GiB, TiB). A relative path is relative to the folder of the file. callvaultctl config check says what is wrong, with file, line and column, before anything is restarted.",
];

/// The page as troff.
pub(crate) fn page() -> io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    // A page that names its date would be another one in each build.
    roff.control("TH", ["callvault.toml", "5", "", "callvault", "File formats"]);
    heading(&mut roff, "NAME");
    roff.text([roman("callvault.toml - the settings of the callvault call recorder")]);
    heading(&mut roff, "SYNOPSIS");
    roff.text([italic("/etc/callvault/callvault.toml"), roman(", "), italic("/etc/callvault/conf.d/*.toml")]);
    heading(&mut roff, "DESCRIPTION");
    for paragraph in ABOUT {
        roff.control("PP", []).text([roman(paragraph)]);
    }
    for section in sections() {
        describe_section(&mut roff, section);
    }
    heading(&mut roff, "SEE ALSO");
    roff.text([roman("callvault(7), callvaultd(8), callvaultctl(1)")]);
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(text)
}

fn describe_section(roff: &mut Roff, (name, about, keys): Section) {
    heading(roff, &if name.is_empty() { "BEFORE THE FIRST SECTION".to_owned() } else { format!("[{name}]") });
    roff.text(marked(&joined(about)));
    for spec in keys {
        describe_key(roff, spec);
    }
}

fn describe_key(roff: &mut Roff, spec: &KeySpec) {
    let field = spec.key.rsplit('.').next().unwrap_or(spec.key);
    roff.control("TP", []).text([bold(field), roman(" = "), roman(spec.default)]);
    let mut text = joined(spec.doc);
    if let Some((least, greatest)) = spec.range {
        text.push_str(&format!(" From {least} to {greatest}."));
    }
    roff.text(marked(&text));
}

fn heading(roff: &mut Roff, text: &str) {
    roff.control("SH", [text]);
}

/// The lines of a documentation comment as one.
fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// What stands between backticks is bold.
fn marked(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_with_its_default() {
        let text = String::from_utf8(page().unwrap()).unwrap();
        for spec in callvault_config::schema::keys() {
            let field = spec.key.rsplit('.').next().unwrap();
            assert!(text.contains(&format!("\\fB{field}\\fR")), "{}", spec.key);
        }
        for (name, ..) in sections().filter(|(name, ..)| !name.is_empty()) {
            assert!(text.contains(&format!("[{name}]")), "{name}");
        }
    }

    #[test]
    fn what_is_between_backticks_is_bold() {
        assert_eq!(marked("use `x` so"), [roman("use "), bold("x"), roman(" so")]);
    }
}
