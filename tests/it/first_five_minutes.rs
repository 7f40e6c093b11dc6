//! The first five minutes of design/product.md, as they are written, and the documents that
//! scripts rely on from the first day.

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Invite, Mesh, Process, has_shape, run};
use serde_json::json;

#[test]
fn the_first_five_minutes_go_as_they_are_written() {
    let mesh = Mesh::empty(CoordinatorPlan::plain());
    let (mut laptop, mut build) = (mesh.stranger("laptop"), mesh.stranger("build"));

    let origin = mesh.coordinator.origin();
    let made = laptop.run(&["init", "acme", "--coordinator", &origin, "--name", "laptop"]).ok();
    assert!(made.stdout.contains("recovery"), "init prints the recovery key once: {}", made.stdout);
    laptop.up_detached(&[]);

    let invited = laptop.run(&["invite"]).ok();
    let invite = read_invite(&invited.stdout, &origin);
    build.run_with(&["join", &invite.url, "--name", "build"], &invite.code).ok();
    build.up_detached(&[]);
    // Nobody types faster than a node connects; a test does.
    laptop.await_online("build", true);

    let sent = laptop.run(&["send", "build", "hello from behind a NAT"]).ok();
    assert!(sent.stdout.starts_with("stored at build in "), "{}", sent.stdout);

    let mut reading =
        Process::start("the reader", build.command(&["inbox", "--follow"]), &mesh.dir().join("inbox.out"));
    until("the reader to show the message", SOON, || {
        let printed = reading.printed();
        let shown =
            printed.lines().any(|line| line.contains("laptop") && line.contains("hello from behind a NAT"));
        if shown { Ok(()) } else { Err(printed) }
    });
    assert!(reading.ended().is_none(), "--follow goes on\n{}", reading.tail());

    let pinged = laptop.run(&["ping", "build"]).ok();
    assert!(pinged.stdout.contains("relay ") && pinged.stdout.contains("direct quic "), "{}", pinged.stdout);
    laptop.run(&["down"]).ok();
    build.run(&["down"]).ok();
}

/// Both lines of an invite as people get them.
fn read_invite(printed: &str, origin: &str) -> Invite {
    let word = |wanted: &dyn Fn(&str) -> bool| {
        let found = printed.split_whitespace().find(|word| wanted(word));
        found.unwrap_or_else(|| panic!("an invite has two lines: {printed}")).to_owned()
    };
    let crockford = |text: &str| text.chars().all(|c| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(c));
    let start = format!("{origin}/i/");
    let url = word(&|word| word.strip_prefix(&start).is_some_and(|id| id.len() == 8 && crockford(id)));
    let code = word(&|word| {
        let groups: Vec<&str> = word.split('-').collect();
        groups.len() == 4 && groups.iter().all(|group| group.len() == 4 && crockford(group))
    });
    Invite { url, code }
}

#[test]
fn every_document_of_the_first_day_has_its_fields() {
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));

    let invite = laptop.json(&["invite"]);
    has_shape(&invite, &json!({"url": "text", "code": "text", "expires_at_ms": "number", "uses": "number"}));
    assert_eq!(invite["uses"], 1);

    let status = laptop.json(&["status"]);
    has_shape(&status, &status_shape());
    assert_eq!((&status["running"], &status["coordinator"]["state"]), (&json!(true), &json!("connected")));
    assert_eq!(status["mesh"]["name"], "acme");
    // Genesis, the first admin, one who joined.
    assert_eq!(status["mesh"]["head"]["size"], 3);
    assert_eq!((&status["me"]["handle"], &status["peers_online"]), (&json!("laptop"), &json!(1)));

    let sent = laptop.json(&["send", "build", "one"]);
    let send_shape = json!({"id": "text", "state": "text", "path": "text|null", "transport": "text|null", "elapsed_ms": "number"});
    has_shape(&sent, &send_shape);
    assert_eq!(sent["state"], "stored");
    let id = sent["id"].as_str().expect("an id");
    assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");

    let message = laptop.json(&["message", id]);
    assert_eq!(message["id"], id);
    has_shape(
        &message["recipients"][0],
        &json!({"handle": "text", "state": "text", "path": "text|null", "at_ms": "number"}),
    );
    assert_eq!(message["recipients"][0]["handle"], "build");

    let inbox = build.inbox();
    let [row] = &inbox[..] else { panic!("one message was sent: {inbox:?}") };
    has_shape(row, &inbox_shape());
    assert_eq!((&row["id"], &row["text"], &row["channel"]), (&json!(id), &json!("one"), &json!("dm")));
    assert_eq!((&row["from"]["handle"], &row["from"]["key"]), (&json!("laptop"), &status["me"]["member"]));

    let ping = laptop.json(&["ping", "build"]);
    has_shape(
        &ping,
        &json!({"peer": "text", "samples": "list", "direct": "bool", "why_not_direct": "text|null"}),
    );
    for sample in ping["samples"].as_array().expect("a list") {
        has_shape(sample, &json!({"path": "text", "transport": "text", "rtt_ms": "number|null"}));
    }

    let peer = laptop.await_direct("build");
    has_shape(&peer, &peer_shape());
    assert_eq!(
        (&peer["online"], &peer["transport"], &peer["kind"]),
        (&json!(true), &json!("quic"), &json!("member"))
    );
}

fn status_shape() -> serde_json::Value {
    json!({
        "running": "bool", "pid": "number", "peers_online": "number",
        "mesh": {"id": "text", "name": "text", "head": {"size": "number", "hash": "text"}},
        "me": {"handle": "text", "member": "text"},
        "coordinator": {"origin": "text", "state": "text"},
        "outbox": {"pending": "number", "dead": "number"},
    })
}

fn inbox_shape() -> serde_json::Value {
    json!({
        "id": "text", "from": {"handle": "text", "key": "text"}, "channel": "text", "text": "text",
        "sent_at_ms": "number", "received_at_ms": "number", "path": "text", "transport": "text|null",
        "priority": "text", "reply_to": "text|null",
    })
}

fn peer_shape() -> serde_json::Value {
    json!({
        "handle": "text", "key": "text", "kind": "text", "online": "bool", "status": "text", "path": "text",
        "transport": "text|null", "rtt_ms": "number|null", "groups": "list", "summary": "text",
    })
}

#[test]
fn a_peer_is_found_by_a_prefix_of_its_key() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let key = laptop.peer("build").expect("build is a peer")["key"].as_str().expect("a key").to_owned();
    laptop.send(&key[..8], "by eight digits");
    laptop.send(&key, "by all of them");
    mesh.node("build").await_texts(&["by eight digits", "by all of them"]);
    assert_eq!(laptop.refused(4, &["send", &key[..7], "by seven"]), "unknown-peer");
}

#[test]
fn text_comes_from_standard_input_and_many_sends_go_as_a_batch() {
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    laptop.run_with(&["send", "build", "-"], "from a pipe").ok();

    let lines: String =
        (0..50).map(|n| json!({"to": ["build"], "text": format!("batch {n}")}).to_string() + "\n").collect();
    let answers = laptop.run_with(&["send", "--batch", "--json"], &lines).ok().lines();

    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|answer| answer["id"].is_string()), "{answers:?}");
    let wanted: Vec<String> =
        std::iter::once("from a pipe".to_owned()).chain((0..50).map(|n| format!("batch {n}"))).collect();
    build.await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn reading_marks_a_message_surfaced_at_its_sender_and_looking_does_not() {
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    let sent = laptop.send("build", "read me");
    let id = sent["id"].as_str().expect("an id");

    assert_eq!(build.texts(), ["read me"]);
    assert_eq!(build.texts(), ["read me"]);
    assert_eq!(laptop.state(id), "stored");

    let read = run(build.command(&["inbox", "--follow", "--limit", "1", "--json"]), b"").ok().lines();
    assert_eq!(read[0]["text"], "read me");
    laptop.await_state(id, &["surfaced"]);

    // The cursor stands behind it: a later reader of the same name starts with the next message.
    laptop.send("build", "and me");
    let read = run(build.command(&["inbox", "--follow", "--limit", "1", "--json"]), b"").ok().lines();
    assert_eq!(read[0]["text"], "and me");
}
