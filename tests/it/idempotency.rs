//! One id is one send: repeated it changes nothing, reused it is refused, retired it stays so.

use peerloom_tests::{CoordinatorPlan, Mesh, Node, Plan};
use serde_json::{Value, json};

const ID: &str = "00112233445566778899aabbccddeeff";

#[test]
fn the_same_send_under_one_id_happens_once_and_reports_the_same() {
    let mesh = Mesh::start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));

    let first = laptop.json(&["send", "build", "once", "--id", ID]);
    let again = laptop.json(&["send", "build", "once", "--id", ID]);

    assert_eq!((&first["id"], &first["state"]), (&json!(ID), &json!("stored")));
    assert_eq!((&again["id"], &again["state"]), (&json!(ID), &json!("stored")));
    assert_eq!(again["repeated"], true, "{again}");
    laptop.send("build", "after");
    build.await_texts(&["once", "after"]);
}

#[test]
fn an_id_used_for_anything_else_is_a_conflict_and_sends_nothing() {
    let mesh = Plan::of(&["laptop", "build", "vps"]).start();
    let laptop = mesh.node("laptop");
    laptop.json(&["send", "build", "once", "--id", ID]);

    let others: [&[&str]; 4] = [
        &["send", "build", "twice", "--id", ID],
        &["send", "vps", "once", "--id", ID],
        &["send", "--to", "build", "--to", "vps", "once", "--id", ID],
        &["send", "build", "once", "--content-type", "text/html", "--id", ID],
    ];
    for other in others {
        assert_eq!(laptop.refused(8, other), "conflict", "{other:?}");
    }
    let over_the_api = json!({"to": ["build"], "text": "thrice", "id": ID});
    let response = laptop.api("POST", "/v1/messages", Some(&over_the_api));
    assert_eq!((response.status, &response.json()["error"]["code"]), (409, &json!("conflict")));

    laptop.send("build", "after");
    laptop.send("vps", "after");
    mesh.node("build").await_texts(&["once", "after"]);
    mesh.node("vps").await_texts(&["after"]);
}

#[test]
fn an_id_twice_in_one_batch_is_one_message_and_its_reuse_fails_alone() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let line = |id: &str, text: &str| json!({"to": ["build"], "text": text, "id": id}).to_string() + "\n";
    let second = "ffeeddccbbaa99887766554433221100";

    let batch = [line(ID, "a"), line(ID, "a"), line(ID, "b"), line(second, "c")].concat();
    let answers = laptop.run_with(&["send", "--batch", "--json"], &batch).lines();

    assert_eq!(answers.len(), 4, "one answer a line: {answers:?}");
    assert_eq!(
        (&answers[0]["id"], &answers[1]["id"], &answers[3]["id"]),
        (&json!(ID), &json!(ID), &json!(second))
    );
    assert_eq!(answers[2]["error"]["code"], "conflict", "{answers:?}");
    mesh.node("build").await_texts(&["a", "c"]);
}

#[test]
fn an_id_is_remembered_over_a_restart() {
    let mut mesh = Mesh::start();
    mesh.node("laptop").json(&["send", "build", "once", "--id", ID]);
    mesh.node_mut("laptop").kill9();
    mesh.node_mut("laptop").up();

    assert_eq!(mesh.node("laptop").json(&["send", "build", "once", "--id", ID])["repeated"], true);
    assert_eq!(mesh.node("laptop").refused(8, &["send", "build", "other", "--id", ID]), "conflict");
    mesh.node("build").await_texts(&["once"]);
}

/// A mesh whose coordinator is down, so that nothing that is sent leaves the node.
fn cut_off() -> Mesh {
    let mut mesh =
        Plan::of(&["laptop", "build"]).relay_only("laptop").coordinator(CoordinatorPlan::plain()).start();
    mesh.coordinator.kill9();
    mesh
}

fn rows(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let page = node.run(&[&["outbox", "list", "--json"], arguments].concat()).ok();
    let lines = page.lines();
    // A list may be one document with rows, or a line each.
    match lines.first().map(|first| &first["rows"]) {
        Some(Value::Array(rows)) => rows.clone(),
        _ => lines,
    }
}

#[test]
fn an_expired_message_is_sent_again_under_a_fresh_id_and_its_old_id_stays_retired() {
    let mut mesh = cut_off();
    let laptop = mesh.node("laptop");
    let waits = ["send", "build", "late", "--id", ID, "--life", "1s", "--wait", "none"];
    assert_eq!(laptop.json(&waits)["state"], "queued");
    let row = laptop.await_state(ID, &["expired"]);
    assert_eq!(row["code"], "expired", "{row}");
    assert_eq!(rows(laptop, &["--failed"]).len(), 1);
    assert_eq!(laptop.json(&["status"])["outbox"], json!({"pending": 0, "dead": 1}));

    // Requeued too early it would only expire again.
    mesh.coordinator.start();
    mesh.node("laptop").await_connected();
    let requeued = mesh.node("laptop").json(&["outbox", "requeue", ID]);

    let fresh = requeued["requeued"][0]["id"].as_str().expect("a fresh id").to_owned();
    assert_eq!(requeued["requeued"][0]["old"], ID, "{requeued}");
    assert_ne!(fresh, ID);
    mesh.node("laptop").await_state(&fresh, &["stored"]);
    mesh.node("build").await_texts(&["late"]);
    assert_eq!(mesh.node("laptop").refused(8, &["send", "build", "late", "--id", ID]), "conflict");
    assert_eq!(mesh.node("laptop").refused(4, &["outbox", "requeue", ID]), "not-failed");
    assert_eq!(mesh.node("laptop").json(&["status"])["outbox"], json!({"pending": 0, "dead": 0}));
    mesh.node("build").await_texts(&["late"]);
}

#[test]
fn a_message_never_transmitted_can_be_aborted_and_then_is_never_sent() {
    let mut mesh = cut_off();
    let laptop = mesh.node("laptop");
    laptop.json(&["send", "build", "regretted", "--id", ID, "--wait", "none"]);
    laptop.json(&["outbox", "abort", ID]);
    assert_eq!(laptop.state(ID), "aborted");

    mesh.coordinator.start();
    mesh.node("laptop").await_connected();
    mesh.node("laptop").send("build", "meant");
    mesh.node("build").await_texts(&["meant"]);
    assert_eq!(mesh.node("laptop").state(ID), "aborted");
}

#[test]
fn a_message_that_was_stored_can_be_neither_aborted_nor_requeued() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    laptop.json(&["send", "build", "done", "--id", ID]);
    laptop.run(&["outbox", "abort", ID, "--json"]).refused(4);
    assert_eq!(laptop.refused(4, &["outbox", "requeue", ID]), "not-failed");
    assert_eq!(laptop.state(ID), "stored");
    assert_eq!(rows(laptop, &[]).len(), 0, "nothing is open");
    assert_eq!(rows(laptop, &["--delivered"]).len(), 1);
}
