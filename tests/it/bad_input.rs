//! What people and machines get wrong: each mistake has its own message and exit code, and what was
//! there before it is there after it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use peerloom_proto::IdentityKey;
use peerloom_tests::disk::is_root;
use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Invite, Mesh, Plan, join_with_key, ports, program, run, skip};
use serde_json::json;

#[test]
fn an_unknown_peer_is_named_with_those_that_are_similar() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let answer = laptop.run(&["send", "biuld", "hello", "--json"]);
    assert_eq!(answer.clone().refused(4), "unknown-peer");
    assert!(answer.error_text().contains("biuld"), "{answer:?}");
    for verb in [&["ping", "nobody"][..], &["revoke", "nobody"], &["inbox", "--from", "nobody"]] {
        assert_eq!(laptop.refused(4, verb), "unknown-peer", "{verb:?}");
    }
    assert_eq!(laptop.refused(2, &["send", "laptop", "to myself"]), "to-self");
}

#[test]
fn a_message_at_the_limit_arrives_whole_and_one_over_it_is_refused() {
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    // Room for a kilobyte of what stands around the text.
    let whole = "0123456789abcdef".repeat(((1 << 20) - (5 << 10)) / 16);
    let over = "x".repeat(1 << 20);

    laptop.run_with(&["send", "build", "-", "--json"], &whole).ok();
    let refused = laptop.run_with(&["send", "build", "-", "--json"], &over);
    assert_eq!(refused.clone().refused(2), "too-large");
    let response = laptop.api("POST", "/v1/messages", Some(&json!({"to": ["build"], "text": over})));
    assert_eq!((response.status, &response.json()["error"]["code"]), (413, &json!("too-large")));

    laptop.await_direct("build");
    laptop.run_with(&["send", "build", "-", "--json"], &whole).ok();
    laptop.send("build", "small again");
    build.await_texts(&[&whole, &whole, "small again"]);
}

#[test]
fn requests_that_mean_nothing_are_usage_errors() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let wrong: [&[&str]; 7] = [
        &["send", "build"],
        &["send", "build", "text", "--id", "short"],
        &["send", "build", "text", "--life", "8d"],
        &["send", "build", "text", "--priority", "urgent"],
        &["message", "nonsense"],
        &["invite", "--uses", "1000"],
        &["nonsense"],
    ];
    for arguments in wrong {
        laptop.run(&[arguments, &["--json"]].concat()).refused(2);
    }
    for (method, path, status) in [("GET", "/v1/nothing", 404), ("DELETE", "/v1/status", 400)] {
        let response = laptop.api(method, path, None);
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.json()["error"]["code"].is_string(), "{}", response.text());
    }
    let unknown =
        laptop.api("POST", "/v1/messages", Some(&json!({"to": ["build"], "text": "x", "colour": "red"})));
    assert_eq!(unknown.status, 400, "{}", unknown.text());
    let empty = laptop.api("POST", "/v1/messages", Some(&json!({"to": [], "text": "x"})));
    assert_eq!(empty.status, 400, "{}", empty.text());
    mesh.node("build").await_texts(&[]);
}

#[test]
fn an_unreachable_coordinator_is_said_so_and_a_node_comes_up_without_it() {
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    let mut mesh = Mesh::start();
    let stranger = mesh.stranger("stranger");
    let refused = stranger.run(&["init", "acme", "--coordinator", &nobody, "--name", "stranger", "--json"]);
    assert_eq!(refused.clone().refused(6), "coordinator-unreachable");
    assert!(refused.error_text().contains(&nobody), "{refused:?}");
    let invite = Invite { url: format!("{nobody}/i/7Q2M9KXA"), code: "4Z7P-1QXK-88TN-RW3D".to_owned() };
    assert_eq!(stranger.join(&invite).refused(6), "coordinator-unreachable");

    mesh.node_mut("laptop").down();
    mesh.coordinator.kill9();
    mesh.node_mut("laptop").start();
    until("the node to say that it is offline", SOON, || {
        let status = mesh.node("laptop").json(&["status"]);
        if status["coordinator"]["state"] == "offline" { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(mesh.node("laptop").refused(6, &["invite"]), "coordinator-away");
}

#[test]
fn another_origin_of_the_same_coordinator_is_refused() {
    let mesh = Mesh::empty(CoordinatorPlan::plain());
    let elsewhere = format!("http://localhost:{}", mesh.coordinator.port());
    let node = mesh.stranger("laptop");
    let refused = node.run(&["init", "acme", "--coordinator", &elsewhere, "--name", "laptop", "--json"]);
    assert_eq!(refused.clone().refused(5), "origin");
    assert!(refused.stdout.contains(&mesh.coordinator.origin()), "{refused:?}");
    for nonsense in ["not an origin", "ftp://mesh.example", "http://mesh.example/path"] {
        let refused = node.run(&["init", "acme", "--coordinator", nonsense, "--name", "laptop", "--json"]);
        assert_eq!(refused.refused(2), "origin", "{nonsense}");
    }
}

#[test]
fn a_clock_that_is_off_by_an_hour_stops_sending_keeps_the_outbox_and_says_so() {
    const HOUR: &str = "3600000";
    let mut mesh = Plan::of(&["laptop", "build"]).relay_only("laptop").start();
    for offset in [HOUR.to_owned(), format!("-{HOUR}")] {
        let laptop = mesh.node_mut("laptop");
        laptop.down();
        laptop.set("PEERLOOM_CLOCK_OFFSET_MS", &offset);
        laptop.start();
        until("the node to speak of its clock", SOON, || {
            let status = laptop.json(&["status"]);
            let coordinator = &status["coordinator"];
            let why = coordinator["why"].as_str().unwrap_or_default();
            if coordinator["state"] != "connected" && why.contains("clock") {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        let answer =
            laptop.run(&["send", "build", &format!("off by {offset}"), "--timeout", "300ms", "--json"]);
        assert!(answer.code == 6 || answer.code == 7, "queued, not sent: {answer:?}");
        let mut late = mesh.stranger("late");
        late.set("PEERLOOM_CLOCK_OFFSET_MS", &offset);
        let answer =
            late.run(&["init", "x", "--coordinator", &mesh.coordinator.origin(), "--name", "late", "--json"]);
        assert_eq!(answer.refused(1), "clock");
    }
    assert_eq!(mesh.node("build").texts(), Vec::<String>::new());
    let laptop = mesh.node_mut("laptop");
    laptop.down();
    laptop.set("PEERLOOM_CLOCK_OFFSET_MS", "0");
    laptop.up();
    mesh.node("build").await_texts(&[&format!("off by {HOUR}"), &format!("off by -{HOUR}")]);
}

#[test]
fn another_user_of_the_machine_gets_nothing_from_the_socket() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program("peerloom"))
            .args(arguments);
        command.env("PEERLOOM_HOME", laptop.home());
        run(command, b"")
    };
    let open =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    // The directory alone keeps others out.
    open(mesh.dir(), 0o755);
    let shut = as_nobody(&["status", "--json"]);
    assert_ne!(shut.code, 0, "{shut:?}");

    // And if somebody opened it and the socket, the user at the other end is still asked.
    open(laptop.home(), 0o755);
    open(&laptop.socket(), 0o777);
    let refused = as_nobody(&["status", "--json"]);
    assert_eq!(refused.clone().refused(5), "other-user", "{refused:?}");
    as_nobody(&["send", "build", "not mine", "--json"]).refused(5);
    open(laptop.home(), 0o700);

    laptop.send("build", "mine");
    mesh.node("build").await_texts(&["mine"]);
}

#[test]
fn a_home_too_deep_for_a_socket_is_refused_with_advice() {
    let mesh = Mesh::empty(CoordinatorPlan::plain());
    let deep = mesh.stranger(&"deep-".repeat(6)).home().join("d".repeat(60));
    let mut command = Command::new(program("peerloom"));
    command.args(["up", "--json"]).env("PEERLOOM_HOME", &deep);
    let answer = run(command, b"");
    assert_eq!(answer.clone().refused(2), "socket-path");
    assert!(answer.stdout.contains("PEERLOOM_HOME"), "{answer:?}");
}

#[test]
fn off_loopback_a_mesh_needs_the_token_that_the_coordinator_printed_once() {
    let origin = "--origin=http://mesh.example";
    let mesh = Mesh::empty(CoordinatorPlan::plain().argument(origin));
    let entries = json!({"entries": []});
    let refused = mesh.coordinator.ask("POST", "/v2/meshes", Some(&entries));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("token")));
    let token = fs::read_to_string(mesh.coordinator.data().join("mesh-token")).expect("the token is kept");
    assert!(mesh.coordinator.printed().contains(token.trim()), "it was printed");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let response = peerloom_tests::http::on_port(
        mesh.coordinator.port(),
        "POST",
        "/v2/meshes",
        &[&bearer],
        Some(&entries),
    )
    .unwrap();
    assert_eq!(
        response.status,
        400,
        "the token opens the door, nothing stands behind it: {}",
        response.text()
    );
}

#[test]
fn an_ambiguous_prefix_lists_its_candidates_and_a_longer_one_is_enough() {
    // Found by searching: these two keys begin with the same eight digits.
    let twins = [36_759, 90_773].map(key_of);
    let prefix = "437b8f98";
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    for (key, handle) in twins.iter().zip(["castor", "pollux"]) {
        let response = join_with_key(&mesh.coordinator, &laptop.invite(&[]), key, handle);
        assert_eq!(response.status, 200, "{}", response.text());
    }
    until("both to be known", SOON, || {
        let known = laptop.peer("castor").is_some() && laptop.peer("pollux").is_some();
        if known { Ok(()) } else { Err("not yet".to_owned()) }
    });

    let answer = laptop.run(&["send", prefix, "to whom?", "--json"]);

    assert_eq!(answer.clone().refused(4), "ambiguous");
    for candidate in ["castor", "pollux"] {
        assert!(answer.error_text().contains(candidate), "{answer:?}");
    }
    let key = hex::encode(twins[1].id().0);
    let sent = laptop.json(&["send", &key[..12], "to pollux"]);
    assert_eq!((&sent["state"], &sent["recipients"][0]["handle"]), (&json!("accepted"), &json!("pollux")));
}

fn key_of(n: u64) -> IdentityKey {
    let mut seed = [0x42; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    IdentityKey::from_seed(&seed)
}
