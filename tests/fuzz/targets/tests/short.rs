//! The short run: every seed, and a fixed number of changed ones, through every target. A seed that is found by the long run is put
//! into the folder of its target and is tried here ever after.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use callvault_fuzz_targets::mutation::Mutator;
use callvault_fuzz_targets::{INPUT_BYTES_MAX, TARGETS, target};

/// Changed seeds for each target: a second or two. Without optimisation a tenth of it, which takes as long.
const MUTATIONS: u32 = if cfg!(debug_assertions) { 2_000 } else { 20_000 };

fn seeds_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds")
}

/// The seeds of a target, in the order of their names, so that the changes are the same everywhere.
fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(seeds_dir().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Keeps the input at hand for the case that the target panics on it.
struct Tried<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let crc = crc32c::crc32c(self.input);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{crc:08x}", self.name));
        if fs::write(&path, self.input).is_ok() {
            let folder = format!("tests/fuzz/seeds/{}", self.name);
            eprintln!("the input is kept in {}; put it into {folder} to have it tried first", path.display());
        }
    }
}

fn try_input(name: &str, input: &[u8]) {
    let tried = Tried { name, input };
    (target(name).unwrap().run)(tried.input);
}

fn check(name: &str) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    for (path, seed) in &seeds {
        assert!(seed.len() <= INPUT_BYTES_MAX, "{} is longer than an input may be", path.display());
        try_input(name, seed);
    }
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, seed)| seed).collect();
    let mut mutator = Mutator::new(1);
    for _ in 0..MUTATIONS {
        try_input(name, &mutator.mutate(&seeds));
    }
    // What looks for new code begins with these.
    for input in [&[][..], &[0], &[0xff; 300], &[0; 300], &[b'\n'; 300], &[b'<'; 300], &[b'"'; 300]] {
        try_input(name, input);
    }
}

macro_rules! targets_are_tried {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tried_and_has_seeds_and_a_program() {
            let tried = [$(stringify!($name)),*];
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(tried.as_slice(), names.as_slice());
            let listed = |folder: PathBuf| {
                let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
                let mut names: Vec<String> =
                    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
                names.sort();
                names
            };
            let mut sorted = names.clone();
            sorted.sort_unstable();
            assert_eq!(listed(seeds_dir()), sorted);
            assert_eq!(listed(seeds_dir().join("../engine/src/bin")), sorted);
        }
    };
}

targets_are_tried![
    sip_message,
    sip_endpoint,
    multipart,
    sdp,
    metadata,
    rtp,
    rtcp,
    srtp,
    crypto_attribute,
    journal,
    journal_contents,
    archive,
    archive_contents,
    timeline,
    control,
    render,
];
