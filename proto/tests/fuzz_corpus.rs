//! The fuzz corpora, replayed through the same functions that the fuzzers call.

#[expect(unreachable_pub, reason = "the fuzz crate, whose library this file is, is used from outside")]
#[path = "../fuzz/src/lib.rs"]
mod fuzzing;

use std::fs;
use std::path::{Path, PathBuf};

fn files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = listed.map(|entry| entry.expect("a listed file").path()).collect();
    files.sort();
    files
}

#[test]
fn every_file_of_every_corpus_is_survived() {
    for (target, run) in fuzzing::TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let bytes = fs::read(&file).expect("a readable corpus");
            // Named in the captured output, should the target panic.
            eprintln!("{}", file.display());
            run(&bytes);
        }
    }
}

#[test]
fn every_target_has_its_file_and_its_seeds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let seeds = fuzzing::seeds();
    let seeded: Vec<&str> = seeds.iter().map(|(target, _)| *target).collect();
    let targets: Vec<&str> = fuzzing::TARGETS.iter().map(|(target, _)| *target).collect();
    assert_eq!(seeded, targets);
    for target in targets {
        assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).is_file(), "{target}");
    }
}

#[test]
fn seeds_and_their_mutations_are_survived() {
    for ((target, run), (_, seeds)) in fuzzing::TARGETS.iter().zip(fuzzing::seeds()) {
        for seed in seeds {
            for place in (0..seed.len()).step_by(seed.len() / 16 + 1) {
                let mut bytes = seed.clone();
                bytes[place] ^= 1 << (place % 8);
                eprintln!("{target}: bit {} of byte {place}", place % 8);
                run(&bytes);
                run(&seed[..place]);
            }
        }
    }
}
