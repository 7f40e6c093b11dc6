//! What happens to a message on its way: it waits, it moves between paths, it arrives once and in
//! order, and every word said about it is true.

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Mesh, Node, Plan};
use serde_json::{Value, json};

#[test]
fn a_message_to_a_peer_that_is_away_waits_through_a_coordinator_restart_until_it_is_up() {
    let mut mesh = Mesh::start();
    mesh.node_mut("build").down();
    let laptop = mesh.node("laptop");

    let sent = laptop.json(&["send", "build", "while you were away", "--wait", "accepted"]);
    assert_eq!(sent["state"], "accepted");
    let id = sent["id"].as_str().expect("an id").to_owned();

    mesh.coordinator.stop();
    mesh.coordinator.start();
    assert_eq!(mesh.node("laptop").state(&id), "accepted");

    mesh.node_mut("build").up();
    mesh.node("build").await_texts(&["while you were away"]);
    let inbox = mesh.node("build").inbox();
    assert_eq!(inbox[0]["path"], "queue", "{inbox:?}");
    let row = mesh.node("laptop").await_state(&id, &["stored"]);
    assert_eq!(row["handle"], "build");
}

#[test]
fn a_send_to_a_peer_that_was_never_there_returns_when_the_coordinator_has_it() {
    let mut mesh = Mesh::start();
    let away = mesh.stranger("away");
    away.join(&mesh.node("laptop").invite(&[])).ok();
    mesh.node("laptop").await_online(away.handle(), false);

    let sent = mesh.node("laptop").send("away", "for later");

    assert_eq!(sent["state"], "accepted");
    mesh.admit_joined(away);
    mesh.node("away").await_texts(&["for later"]);
}

#[test]
fn a_send_while_the_coordinator_is_down_is_queued_here_and_goes_out_when_it_is_back() {
    let mut mesh = Plan::of(&["laptop", "build"]).relay_only("laptop").start();
    mesh.coordinator.kill9();
    let laptop = mesh.node("laptop");

    let answer = laptop.run(&["send", "build", "patience", "--timeout", "300ms", "--json"]);
    assert!(answer.code == 7 || answer.code == 6, "queued, not lost: {answer:?}");

    mesh.coordinator.start();
    mesh.node("build").await_texts(&["patience"]);
}

#[test]
fn the_first_message_goes_by_relay_and_later_ones_directly_without_loss_double_or_disorder() {
    let mesh = Plan::of(&["laptop", "build"]).coordinator(CoordinatorPlan::plain().unlimited()).start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    let mut wanted = vec!["0".to_owned()];

    let first = laptop.send("build", "0");
    assert_eq!((&first["path"], &first["transport"]), (&json!("relay"), &json!("websocket")), "{first}");
    // The stream goes on while the path changes underneath.
    let mut paths = Vec::new();
    until("messages to go directly", SOON, || {
        for _ in 0..20 {
            wanted.push(wanted.len().to_string());
            laptop.hand_over("build", wanted.last().expect("just pushed"));
        }
        let path = laptop.peer("build").map_or(Value::Null, |peer| peer["path"].clone());
        paths.push(path.to_string());
        if path == "direct" { Ok(()) } else { Err(paths.join(" ")) }
    });
    wanted.push("last".to_owned());
    let last = laptop.send("build", "last");

    assert_eq!(
        (&last["path"], &last["transport"], &last["state"]),
        (&json!("direct"), &json!("quic"), &json!("stored"))
    );
    build.await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
    let arrived: Vec<Value> = build.inbox().iter().map(|message| message["path"].clone()).collect();
    assert_eq!((&arrived[0], arrived.last()), (&json!("relay"), Some(&json!("direct"))), "{arrived:?}");
}

#[test]
fn a_relay_only_node_stays_on_the_relay_and_says_why() {
    let mesh = Plan::of(&["laptop", "build"]).relay_only("build").start();
    let laptop = mesh.node("laptop");
    for n in 0..5 {
        assert_eq!(laptop.send("build", &n.to_string())["path"], "relay");
    }

    let ping = laptop.json(&["ping", "build", "--timeout", "1s"]);

    assert_eq!(ping["direct"], false, "{ping}");
    assert!(ping["why_not_direct"].as_str().is_some_and(|why| !why.is_empty()), "{ping}");
    let samples = ping["samples"].as_array().expect("a list");
    assert!(!samples.is_empty() && samples.iter().all(|sample| sample["path"] == "relay"), "{ping}");
    mesh.node("build").await_texts(&["0", "1", "2", "3", "4"]);
}

#[test]
fn a_node_whose_configuration_says_relay_only_neither_offers_nor_takes_a_direct_path() {
    let mesh = Plan::of(&["laptop", "build"]).setting("laptop", "PEERLOOM_PATH", "relay-only").start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    for n in 0..3 {
        assert_eq!(laptop.send("build", &n.to_string())["path"], "relay");
        assert_eq!(build.send("laptop", &n.to_string())["path"], "relay");
    }
    let why =
        |node: &Node, peer: &str| node.json(&["ping", peer, "--timeout", "1s"])["why_not_direct"].clone();
    assert_eq!(why(laptop, "build"), "the configuration here keeps this peer on the relay");
    assert_eq!(why(build, "laptop"), "the peer makes no direct links");
}

#[test]
fn a_direct_path_outlives_the_coordinator() {
    let mut mesh = Mesh::start();
    mesh.node("laptop").send("build", "warm up");
    mesh.node("laptop").await_direct("build");
    mesh.node("build").await_direct("laptop");

    mesh.coordinator.kill9();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    let there = laptop.send("build", "still here?");
    let back = build.send("laptop", "still here");

    for sent in [&there, &back] {
        assert_eq!((&sent["state"], &sent["path"]), (&json!("stored"), &json!("direct")), "{sent}");
    }
    build.await_texts(&["warm up", "still here?"]);
    laptop.await_texts(&["still here"]);
}

#[test]
fn a_recipient_that_dies_on_a_direct_path_gets_the_rest_when_it_is_back_in_order() {
    let mut mesh = Plan::of(&["laptop", "build"]).coordinator(CoordinatorPlan::plain().unlimited()).start();
    mesh.node("laptop").send("build", "0");
    mesh.node("laptop").await_direct("build");

    for n in 1..100 {
        mesh.node("laptop").hand_over("build", &n.to_string());
        if n == 50 {
            mesh.node_mut("build").kill9();
        }
    }
    mesh.node_mut("build").up();

    let wanted: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    mesh.node("build").await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn one_send_reaches_several_recipients_each_with_its_own_state() {
    let mut mesh = Plan::of(&["laptop", "build", "vps"]).start();
    mesh.node_mut("vps").down();
    let laptop = mesh.node("laptop");

    let sent =
        laptop.json(&["send", "--to", "build", "--to", "vps", "release at five", "--wait", "accepted"]);

    let id = sent["id"].as_str().expect("an id").to_owned();
    mesh.node("build").await_texts(&["release at five"]);
    let state_of = |handle: &str| {
        let message = mesh.node("laptop").json(&["message", &id]);
        let rows = message["recipients"].as_array().expect("a list").clone();
        rows.iter().find(|row| row["handle"] == handle).map(|row| row["state"].clone()).unwrap_or_default()
    };
    until("build to have stored it", SOON, || {
        if state_of("build") == "stored" { Ok(()) } else { Err(state_of("build").to_string()) }
    });
    assert_eq!(state_of("vps"), "accepted");
    mesh.node_mut("vps").up();
    mesh.node("vps").await_texts(&["release at five"]);
}

#[test]
fn events_tell_of_every_step_to_whoever_listens() {
    use std::io::{BufRead, BufReader, Write};
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    let mut socket = std::os::unix::net::UnixStream::connect(build.socket()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(b"GET /v1/events?types=inbox HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));

    laptop.send("build", "an event");

    let data = lines.find_map(|line| line.strip_prefix("data:").map(str::trim).map(str::to_owned)).unwrap();
    let event: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((&event["type"], &event["message"]["text"]), (&json!("inbox"), &json!("an event")), "{event}");
}

#[test]
fn a_sender_faster_than_its_allowance_is_slowed_down_and_loses_nothing() {
    let mesh = Plan::of(&["laptop", "build"])
        .relay_only("laptop")
        .coordinator(CoordinatorPlan::plain().argument("--member-messages-per-second=100"))
        .start();
    let wanted: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let lines: String =
        wanted.iter().map(|text| json!({"to": ["build"], "text": text}).to_string() + "\n").collect();

    mesh.node("laptop").run_with(&["send", "--batch", "--json"], &lines).ok();

    mesh.node("build").await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        mesh.coordinator.ask("GET", "/metrics", None).text().contains("code=\"rate\""),
        "the allowance was met"
    );
}

#[test]
fn a_node_that_goes_down_says_goodbye_and_a_send_to_it_returns_at_once() {
    let mut mesh = Mesh::start();
    mesh.node_mut("build").down();
    let laptop = mesh.node("laptop");
    laptop.await_online("build", false);

    let sent = laptop.send("build", "good night");

    assert_eq!(sent["state"], "accepted");
    assert!(sent["elapsed_ms"].as_u64().is_some_and(|elapsed| elapsed < 5_000), "{sent}");
}

#[test]
fn a_reader_sees_every_message_once_although_it_and_its_node_die_in_between() {
    let mut mesh = Plan::of(&["laptop", "build"]).coordinator(CoordinatorPlan::plain().unlimited()).start();
    let wanted: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let mut read = Vec::new();
    for chunk in wanted.chunks(20) {
        for text in chunk {
            mesh.node("laptop").hand_over("build", text);
        }
        let limit = chunk.len().to_string();
        let follow = ["inbox", "--follow", "--cursor", "bot", "--limit", &limit, "--json"];
        let lines = mesh.node("build").run(&follow).ok().lines();
        read.extend(lines.iter().map(|line| line["text"].as_str().expect("a text").to_owned()));
        mesh.node_mut("build").kill9();
        mesh.node_mut("build").up();
    }
    assert_eq!(read, wanted);
    let rest = mesh.node("build").run(&["inbox", "--cursor", "bot", "--json"]).ok();
    assert_eq!(rest.lines().len(), 0, "{rest:?}");
}
