//! The habits of the house, as far as a program can see them.

use std::fs;

use peerloom_tests::source::{SourceFile, all_rust_files, files_with, root};

/// Lines a file may have; past that it holds two nouns (layout.md, when to split).
const LINES_MAX: usize = 450;

/// Lines a file of tests or harness may have: a world and its words are one noun.
const TEST_LINES_MAX: usize = 750;

/// Files that may be longer, each with its reason.
const LONGER: [(&str, &str); 0] = [];

fn offences(look: impl Fn(&SourceFile) -> Vec<(usize, String)>) -> Vec<String> {
    let files = all_rust_files();
    assert!(files.len() > 100, "the walk finds the workspace: {}", files.len());
    let of = |file: &SourceFile| {
        look(file).into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.path)).collect::<Vec<_>>()
    };
    files.iter().flat_map(of).collect()
}

#[track_caller]
fn none(offences: Vec<String>, rule: &str) {
    assert!(offences.is_empty(), "{rule}\n{}", offences.join("\n"));
}

/// Lines of code, tests left out, that hold this.
fn code_with(file: &SourceFile, word: &str) -> Vec<(usize, String)> {
    if file.is_test() {
        return Vec::new();
    }
    let found = file.code_lines().into_iter().filter(|(_, line)| line.contains(word));
    found.map(|(number, line)| (number, line.trim().to_owned())).collect()
}

#[test]
fn files_are_short_and_the_exceptions_are_real() {
    let long = offences(|file| {
        let lines = file.text.lines().count();
        let excused = LONGER.iter().any(|(path, _)| *path == file.path);
        let most = if file.is_test() { TEST_LINES_MAX } else { LINES_MAX };
        if lines > most && !excused { vec![(lines, format!("longer than {most} lines"))] } else { Vec::new() }
    });
    none(long, "open a file for the second noun");
    for (path, reason) in LONGER {
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        assert!(text.lines().count() > LINES_MAX, "{path} needs no exception any more ({reason})");
    }
}

#[test]
fn modules_are_named_by_their_file() {
    none(
        offences(
            |file| if file.path.ends_with("/mod.rs") { vec![(1, "mod.rs".to_owned())] } else { Vec::new() },
        ),
        "foo.rs beside foo/, never foo/mod.rs",
    );
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let silent = offences(|file| {
        let first = file.text.lines().find(|line| !line.is_empty()).unwrap_or_default();
        let is_test = file.path.ends_with("tests.rs") || file.path.contains("/tests/");
        if first.starts_with("//!") || is_test { Vec::new() } else { vec![(1, first.to_owned())] }
    });
    none(silent, "a module doc at the top tells the flow");
}

#[test]
fn lints_are_expected_with_a_reason_and_never_just_allowed() {
    none(offences(|file| code_with(file, &["#[", "allow("].concat())), "use #[expect(lint, reason = \"…\")]");
    none(
        offences(|file| code_with(file, &["#![", "allow("].concat())),
        "use #![expect(lint, reason = \"…\")]",
    );
}

#[test]
fn nothing_is_half_done() {
    for word in ["todo!(", "unimplemented!(", "dbg!("] {
        none(offences(|file| code_with(file, word)), "finish it or leave it out");
    }
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let marked = offences(|file| {
        let lines = file.text.lines().enumerate();
        let found = lines.filter(|(_, line)| {
            marks.iter().any(|mark| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == mark))
        });
        found.map(|(at, line)| (at + 1, line.trim().to_owned())).collect()
    });
    none(marked, "open an issue, or do it");
}

#[test]
fn failures_are_answered_and_not_unwrapped() {
    none(
        offences(|file| code_with(file, &[".unwr", "ap()"].concat())),
        "name the error, or expect() with the invariant that rules it out",
    );
    none(
        offences(|file| {
            code_with(file, "process::exit").into_iter().filter(|_| !file.path.ends_with("main.rs")).collect()
        }),
        "only main ends the process",
    );
}

#[test]
fn the_tree_does_not_know_whose_machine_it_was_written_on() {
    // Spelt so that this line is not found itself.
    let own = ["work", "root", "Users"].map(|top| format!("/{top}/"));
    let files = files_with(root(), &["rs", "toml", "md", "sql", "yml", "yaml", "sh", "json", "html"]);
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| file.text.lines().enumerate().map(move |(at, line)| (file, at, line)))
        .filter(|(_, _, line)| own.iter().any(|path| line.contains(path.as_str())))
        .map(|(file, at, line)| format!("{}:{}: {}", file.path, at + 1, line.trim()))
        .collect();
    none(found, "no path of one machine stands in the tree");
}

#[test]
fn comments_are_plain() {
    let banners = offences(|file| {
        let banner = |line: &str| {
            let text = line.trim_start().trim_start_matches('/').trim();
            text.len() > 5 && text.chars().all(|c| "-=*#~".contains(c))
        };
        let emoji = |line: &str| {
            line.chars()
                .any(|c| ('\u{1f300}'..='\u{1faff}').contains(&c) || ('\u{2705}'..='\u{274c}').contains(&c))
        };
        let lines = file.text.lines().enumerate();
        lines
            .filter(|(_, line)| line.trim_start().starts_with("//") && (banner(line) || emoji(line)))
            .map(|(at, line)| (at + 1, line.trim().to_owned()))
            .collect()
    });
    none(banners, "no banner lines, no pictures");
}
