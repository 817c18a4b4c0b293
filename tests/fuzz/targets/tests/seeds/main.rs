//! Where the seeds come from: messages of the corpus of clients, and small journals, archives, packets and messages that are made
//! here. `UPDATE_SEEDS=1` writes them; without it the test says when they are not what they should be. Seeds whose names begin with
//! `found-` (inputs on which something did not hold) or `reached-` (some of those that reached code which no seed had reached) are from
//! a fuzzer and are left alone.
#![allow(clippy::unwrap_used)]

mod bytes;
mod corpus;
mod files;
mod messages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Seeds by target and name.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// All that is committed, in bytes: what everybody carries along who clones the repository.
const SEEDS_BYTES_MAX: u64 = 1 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds")
}

/// Adds a seed, unless the target has the same under another name.
fn add(seeds: &mut Seeds, target: &'static str, name: &str, bytes: Vec<u8>) {
    if !seeds.iter().any(|((of, _), other)| *of == target && *other == bytes) {
        seeds.insert((target, name.to_owned()), bytes);
    }
}

fn made() -> Seeds {
    let mut seeds = Seeds::new();
    corpus::add_all(&mut seeds);
    messages::add_all(&mut seeds);
    bytes::add_all(&mut seeds);
    files::add_all(&mut seeds);
    seeds
}

/// All files of all targets.
fn files() -> impl Iterator<Item = PathBuf> {
    let targets = fs::read_dir(folder()).unwrap().map(|target| target.unwrap().path());
    targets.flat_map(|target| fs::read_dir(target).unwrap()).map(|file| file.unwrap().path())
}

/// What is committed and was made here.
fn committed() -> BTreeMap<PathBuf, Vec<u8>> {
    let from_fuzzer = |name: &str| name.starts_with("found-") || name.starts_with("reached-");
    let made = files().filter(|path| !from_fuzzer(path.file_name().unwrap().to_str().unwrap()));
    made.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn the_seeds_are_what_they_are_made_from() {
    let made: BTreeMap<PathBuf, Vec<u8>> =
        made().into_iter().map(|((target, name), bytes)| (folder().join(target).join(name), bytes)).collect();
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        committed().keys().for_each(|path| fs::remove_file(path).unwrap());
        for (path, bytes) in &made {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let committed = committed();
    let other = |path: &&PathBuf| made.get(*path) != committed.get(*path);
    let differs: Vec<_> = made.keys().chain(committed.keys()).filter(other).collect();
    assert!(differs.is_empty(), "UPDATE_SEEDS=1 cargo test -p callvault-fuzz-targets --test seeds writes {differs:?}");
    let bytes: u64 = files().map(|path| path.metadata().unwrap().len()).sum();
    assert!((1..SEEDS_BYTES_MAX).contains(&bytes), "{bytes} bytes of seeds");
}
