//! The command line as scripts and newcomers meet it: help for every verb, completions, JSON also
//! for errors and for nothing at all.

use std::process::Command;

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Mesh, Plan, program, run};
use serde_json::json;

const VERBS: [&str; 22] = [
    "init",
    "invite",
    "join",
    "leave",
    "up",
    "down",
    "logs",
    "status",
    "peers",
    "ping",
    "netcheck",
    "why",
    "trace",
    "send",
    "inbox",
    "message",
    "outbox",
    "member",
    "revoke",
    "doctor",
    "completions",
    "demo",
];

fn peerloom(arguments: &[&str]) -> peerloom_tests::Answer {
    let mut command = Command::new(program("peerloom"));
    command.args(arguments);
    run(command, b"")
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let overview = peerloom(&["--help"]).ok().stdout;
    for verb in VERBS {
        assert!(
            overview.lines().any(|line| line.trim_start().starts_with(verb)),
            "--help lists {verb}: {overview}"
        );
        let help = peerloom(&[verb, "--help"]).ok().stdout;
        assert!(help.contains(&format!("peerloom {verb}")), "{verb} --help shows an example: {help}");
        for flag in ["--json", "--mesh"] {
            assert!(help.contains(flag), "{verb} takes {flag}: {help}");
        }
    }
    assert!(overview.contains("Exit codes"), "{overview}");
    let version = peerloom(&["--version"]).ok().stdout;
    assert!(version.starts_with("peerloom 0."), "{version}");
}

#[test]
fn completions_know_every_verb_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = peerloom(&["completions", shell]).ok().stdout;
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} completes {verb}");
        }
    }
}

#[test]
fn errors_are_json_when_json_is_asked_for_and_plain_words_otherwise() {
    let mesh = Mesh::empty(CoordinatorPlan::plain());
    let node = mesh.stranger("nobody");
    // No mesh, no daemon: every verb that needs one says so in the same form.
    let need_a_mesh: [&[&str]; 13] = [
        &["send", "build", "x"],
        &["inbox"],
        &["peers"],
        &["ping", "build"],
        &["netcheck"],
        &["why", "build"],
        &["trace", "build"],
        &["message", "00112233445566778899aabbccddeeff"],
        &["outbox"],
        &["member", "list"],
        &["revoke", "build"],
        &["invite"],
        &["leave"],
    ];
    for arguments in need_a_mesh {
        let code = node.refused(3, arguments);
        assert!(!code.is_empty(), "{arguments:?}");
        let plain = node.run(arguments).exits(3);
        assert!(plain.stdout.is_empty(), "{plain:?}");
        assert!(plain.stderr.starts_with("error: ") && plain.stderr.contains("\nnext: "), "{plain:?}");
    }
    // Mistakes that the parser finds are no exception.
    node.run(&["send", "--jsno", "--json"]).refused(2);
    node.run(&["--json"]).refused(2);
    node.run(&["up", "--new", "acme", "--json"]).refused(2);
}

#[test]
fn empty_answers_are_json_too() {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let laptop = mesh.stranger("laptop");
    mesh.admit(laptop);
    let laptop = mesh.node("laptop");
    assert_eq!(laptop.json(&["peers"])["peers"], json!([]));
    assert_eq!(laptop.inbox().len(), 0);
    laptop.run(&["outbox", "--json"]).ok().lines();
    laptop.run(&["invite", "list", "--json"]).ok().lines();
    let members = laptop.json(&["member", "list"]);
    assert_eq!(
        (&members["members"][0]["handle"], &members["members"][0]["role"]),
        (&json!("laptop"), &json!("admin"))
    );
}

#[test]
fn a_daemon_that_is_down_is_told_apart_from_a_mesh_that_is_missing() {
    let mut mesh = Mesh::start();
    mesh.node_mut("laptop").down();
    let laptop = mesh.node("laptop");
    let status = laptop.run(&["status", "--json"]);
    assert_eq!(status.json()["running"], false, "{status:?}");
    let answer = laptop.run(&["send", "build", "x", "--json"]);
    assert_eq!(answer.code, 6, "the node is not running: {answer:?}");
    assert!(answer.stdout.contains("peerloom up"), "{answer:?}");
}

#[test]
fn the_doctor_looks_at_everything_and_fails_when_something_is_wrong() {
    let mut mesh = Mesh::start();
    let report = mesh.node("laptop").json(&["doctor"]);
    let checks = report["checks"].as_array().expect("a list");
    assert!(checks.len() >= 5, "{report}");
    assert!(checks.iter().all(|check| check["level"] != "fail"), "{report}");
    mesh.coordinator.kill9();
    // The doctor reports what the node has noticed, and a socket's end takes a moment to arrive.
    until("the laptop to miss its coordinator", SOON, || {
        let status = mesh.node("laptop").json(&["status"]);
        if status["coordinator"]["state"] == "connected" { Err(status.to_string()) } else { Ok(()) }
    });
    let report = mesh.node("laptop").run(&["doctor", "--json"]);
    assert!(
        report.json()["checks"].as_array().expect("a list").iter().any(|check| check["level"] != "ok"),
        "{report:?}"
    );
    assert!(report.stdout.contains("coordinator"), "{report:?}");
}

#[test]
fn the_api_describes_itself() {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let laptop = mesh.stranger("laptop");
    mesh.admit(laptop);
    let document = mesh.node("laptop").api("GET", "/v1/openapi.json", None).json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document}");
    let paths = document["paths"].as_object().expect("paths");
    let expected = [
        "/v1/status",
        "/v1/peers",
        "/v1/messages",
        "/v1/messages/batch",
        "/v1/messages/{id}",
        "/v1/inbox",
        "/v1/cursors/{name}",
        "/v1/outbox",
        "/v1/outbox/requeue",
        "/v1/outbox/abort",
        "/v1/ping",
        "/v1/network",
        "/v1/peers/{peer}/way",
        "/v1/members",
        "/v1/members/revoke",
        "/v1/invites",
        "/v1/leave",
        "/v1/events",
        "/v1/shutdown",
        "/v1/doctor",
        "/v1/meshes/init",
        "/v1/meshes/join",
    ];
    for path in expected {
        assert!(paths.contains_key(path), "{path} is described; there are {:?}", paths.keys());
    }
}

#[test]
fn what_a_peer_wrote_cannot_command_the_terminal() {
    let mesh = Mesh::start();
    let hostile = "\u{1b}[2J\u{1b}]0;owned\u{7}plain\u{202e}txet\u{9b}31m";
    mesh.node("laptop").run_with(&["send", "build", "-"], hostile).ok();
    let shown = mesh.node("build").run(&["inbox"]).ok().stdout;
    assert!(shown.contains("plain"), "{shown:?}");
    let commands = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!shown.contains(commands), "{shown:?}");
    let json = mesh.node("build").run(&["inbox", "--json"]).ok();
    assert!(!json.stdout.contains(commands), "{:?}", json.stdout);
    assert_eq!(json.json()["text"], hostile, "programs get every character");
}

#[test]
fn the_log_is_shown_and_holds_neither_keys_nor_texts() {
    let mut mesh = Plan::of(&["laptop", "build"]).setting("laptop", "PEERLOOM_LOG", "debug").start();
    mesh.node("laptop").send("build", "a text nobody logs");
    let shown = mesh.node("laptop").run(&["logs", "--lines", "5"]).ok();
    let lines = shown.stdout.lines().count();
    assert!((1..=5).contains(&lines), "{shown:?}");
    mesh.node_mut("laptop").down();
    let logged = mesh.node("laptop").logged();
    let seed = hex::encode(mesh.node("laptop").seed("member.key"));
    assert!(logged.contains("Mesh started."), "{logged}");
    assert!(!logged.contains("a text nobody logs") && !logged.contains(&seed), "{logged}");
}
