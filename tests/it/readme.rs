//! What the papers tell people to type exists.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use peerloom_tests::source::root;
use peerloom_tests::{Answer, program, run};

/// Lines of the fenced blocks of a paper, continuation lines joined.
fn shell_lines(paper: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(paper)).unwrap_or_else(|error| panic!("{paper}: {error}"));
    let mut lines = Vec::new();
    let mut fence: Option<String> = None;
    for line in text.replace("\\\n", " ").lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
        } else if matches!(fence.as_deref(), Some("sh" | "text" | "console" | "bash" | "")) {
            // A prompt may say on which machine: `vps$ …`.
            lines.push(line.split_once("$ ").map_or(line, |(_, command)| command).trim().to_owned());
        }
    }
    lines
}

fn help(words: &[&str]) -> Answer {
    let mut command = Command::new(program(words[0]));
    command.args(&words[1..]).arg("--help");
    run(command, b"")
}

#[test]
fn every_command_and_flag_in_the_readme_exists() {
    let mut checked = BTreeSet::new();
    for line in shell_lines("README.md") {
        let words: Vec<&str> = line.split(" # ").next().unwrap_or_default().split_whitespace().collect();
        let Some((program, arguments)) = words.split_first() else { continue };
        // The program may be named where the build put it.
        let Some(binary) = program.rsplit('/').next().filter(|name| name.starts_with("peerloom")) else {
            continue;
        };
        let verbs: Vec<&str> = arguments.iter().take_while(|word| !word.starts_with('-')).copied().collect();
        let verb = verbs.first().copied().unwrap_or_default();
        let answer = help(&[&[binary], &verbs[..verbs.len().min(1)]].concat());
        assert_eq!(answer.code, 0, "README.md names `{binary} {verb}`, which is no verb");
        for flag in arguments.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or_default();
            assert!(
                answer.stdout.contains(flag),
                "README.md names `{flag}` of `{binary} {verb}`, which does not have it"
            );
        }
        checked.insert(format!("{binary} {verb}"));
    }
    assert!(checked.contains("peerloom demo"), "the README shows the demo: {checked:?}");
    assert!(checked.len() >= 5, "the README shows the first five minutes: {checked:?}");
}

#[test]
fn every_script_and_cargo_alias_in_the_papers_exists() {
    let config = fs::read_to_string(root().join(".cargo/config.toml")).unwrap_or_default();
    let built_in =
        ["build", "test", "bench", "run", "doc", "clippy", "fmt", "install", "nextest", "fuzz", "check"];
    let mut seen = BTreeSet::new();
    for paper in ["README.md", "ARCHITECTURE.md"] {
        for line in shell_lines(paper) {
            let words: Vec<&str> = line.split(" # ").next().unwrap_or_default().split_whitespace().collect();
            match words[..] {
                ["cargo", verb, ..] if !verb.starts_with(['-', '+']) => {
                    let alias = config
                        .lines()
                        .any(|line| line.split('=').next().is_some_and(|name| name.trim() == verb));
                    assert!(
                        built_in.contains(&verb) || alias,
                        "{paper} names `cargo {verb}`, which is neither built in nor an alias"
                    );
                    seen.insert(format!("cargo {verb}"));
                }
                // What a build makes is there after it; everything else named by a path must be now.
                [path, ..] if path.contains('/') && !path.starts_with("target/") && !path.contains("://") => {
                    assert!(root().join(path).exists(), "{paper} names {path}, which is not there");
                    seen.insert(path.to_owned());
                }
                _ => {}
            }
        }
    }
    assert!(seen.contains("tests/run"), "the README names the command that passes all tests: {seen:?}");
}

#[test]
fn every_exit_code_in_the_readme_is_the_one_in_the_help() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let help = help(&["peerloom"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let named = readme
        .split("Exit codes: ")
        .nth(1)
        .and_then(|rest| rest.split(". ").next())
        .expect("the README lists them");
    for code in named.split(", ") {
        let word: String = code.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert!(help.contains(&word), "README.md says {word:?}, --help says {help:?}");
    }
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    for paper in ["README.md", "ARCHITECTURE.md", "PROTOCOL.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(paper)).unwrap_or_else(|error| panic!("{paper}: {error}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(root().join(path).exists(), "{paper} links to {path}, which is not there");
        }
    }
}
