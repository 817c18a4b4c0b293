//! The sample file says what the program does.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use callvault_config::{Config, documented_defaults, schema};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/callvault.toml");

/// To write the file anew after a change of the schema: `UPDATE_SAMPLE=1 cargo test -p callvault-config --test sample`.
#[test]
fn the_sample_is_what_the_schema_documents() {
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        std::fs::write(SAMPLE, documented_defaults()).unwrap();
    }
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    assert!(
        sample == documented_defaults(),
        "etc/callvault.toml differs from the schema; see the comment of this test"
    );
}

#[test]
fn the_sample_with_every_key_uncommented_equals_the_defaults() {
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    // Prose begins with `# `, a key with `#` alone.
    let keys = |line: &str| line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase());
    let text: String =
        sample.lines().map(|line| if keys(line) { format!("{}\n", &line[1..]) } else { format!("{line}\n") }).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callvault.toml");
    std::fs::write(&path, text).unwrap();
    let config =
        Config::load(&path, []).unwrap_or_else(|errors| panic!("{}", callvault_config::render_errors(&errors)));
    let defaults = Config::defaults(folder.path());
    for (entry, default) in config.effective().iter().zip(defaults.effective()) {
        assert_eq!((entry.key, &entry.value), (default.key, &default.value));
        assert!(entry.origin.contains("callvault.toml:"), "{} is not in the sample", entry.key);
    }
    assert_eq!(config.effective().len(), schema::keys().count());
}

#[test]
fn every_key_has_a_sentence_and_bounds_that_hold_its_default() {
    for spec in schema::keys() {
        assert!(spec.doc.concat().contains('.'), "{} has no sentence", spec.key);
        if let Some((least, greatest)) = spec.range {
            for bound in [least, greatest] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("c.toml");
                std::fs::write(&path, format!("{} = \"{bound}\"", spec.key)).unwrap();
                if let Err(errors) = Config::load(&path, []) {
                    // A bound may clash with another key's default, but must be a value of its own key.
                    assert!(errors.iter().all(|e| e.column == 0), "{}", callvault_config::render_errors(&errors));
                }
            }
        }
    }
    assert_eq!(Config::defaults(Path::new("/")).effective().len(), schema::keys().count());
}
