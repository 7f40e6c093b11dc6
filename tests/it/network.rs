//! What people are told of the network: where a node is, why a path is the one it is, and how it came
//! about. Every word has its evidence.

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{Mesh, Node, Plan, has_shape};
use serde_json::{Value, json};

fn way_shape() -> Value {
    json!({
        "schema_version": "number",
        "peer": {"handle": "text", "presence": "text", "path": "text", "transport": "text|null",
            "rtt_ms": "number|null", "rtt_at_ms": "number|null", "remote": "text|null",
            "since_ms": "number|null", "why_not_direct": "text|null"},
        "why": "text",
        "here": {"mapping": "text", "ports": "text", "text": "text"},
        "there": "object|null",
        "checked_at_ms": "number|null",
        "candidates": "list",
        "timeline": "list",
    })
}

/// The events of a peer's timeline, oldest first.
fn events(node: &Node, peer: &str) -> Vec<String> {
    let trace = node.json(&["trace", peer]);
    let rows = trace["timeline"].as_array().expect("a list");
    rows.iter().map(|row| row["event"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn netcheck_says_that_udp_works_once_the_coordinator_has_answered_and_when() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let network = until("a STUN answer", SOON, || {
        let network = laptop.json(&["netcheck"]);
        if network["udp"] == "works" { Ok(network) } else { Err(network.to_string()) }
    });

    let shape = json!({
        "schema_version": "number", "mesh": "text", "udp": "text",
        "nat": {"mapping": "text", "ports": "text", "text": "text"},
        "candidates": "list", "stun": "list",
        "mapping_life": {"at_least_ms": "number|null", "under_ms": "number|null"},
        "skew_ms": "number|null", "datagrams_dropped": "number",
    });
    has_shape(&network, &shape);
    assert_eq!(network["nat"]["mapping"], "none", "{network}");
    let answered = network["stun"].as_array().expect("a list").iter().find(|row| !row["mapped"].is_null());
    let answered = answered.expect("a server that answered");
    has_shape(answered, &json!({"address": "text", "rtt_ms": "number", "answered_at_ms": "number"}));
    let addresses = network["candidates"].as_array().expect("a list");
    assert!(addresses.iter().any(|row| row["address"] == answered["mapped"]), "{network}");

    let shown = laptop.run(&["netcheck"]).ok();
    assert!(shown.stdout.contains("STUN servers answered, last "), "{shown:?}");
    assert!(!shown.stdout.contains("mapping kept"), "there is no NAT to keep one: {shown:?}");
    assert!(shown.stderr.contains("next: peerloom ping"), "{shown:?}");
}

#[test]
fn the_way_to_a_peer_is_told_before_during_and_after_a_direct_link() {
    let mut mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    let before = laptop.json(&["why", "build"]);
    has_shape(&before, &way_shape());
    assert_eq!((&before["peer"]["path"], &before["checked_at_ms"]), (&json!("relay"), &Value::Null));
    assert_eq!(before["peer"]["why_not_direct"], "not tried yet: nothing was sent", "{before}");
    assert!(before["peer"]["since_ms"].is_number(), "{before}");

    let pong = laptop.json(&["ping", "build", "--until", "direct"]);
    assert_eq!((&pong["direct"], &pong["why_not_direct"]), (&json!(true), &Value::Null));
    let during = laptop.json(&["trace", "build"]);
    has_shape(&during, &way_shape());
    let remote = during["peer"]["remote"].as_str().expect("an address").to_owned();
    assert!(during["why"].as_str().is_some_and(|why| why.contains(&remote)), "{during}");
    assert!(during["there"]["mapping"].is_string() && during["checked_at_ms"].is_number(), "{during}");
    let tried = during["candidates"].as_array().expect("a list");
    // Whoever was dialled may have heard the peer and have its own question still under way.
    let was_met = |row: &Value| row["state"] == "proven" || row["state"] == "heard";
    assert!(tried.iter().any(|row| row["address"] == *remote && was_met(row)), "{during}");
    let shown = laptop.run(&["trace", "build"]).ok().stdout;
    assert!(shown.contains("addresses tried") && shown.contains(&format!("host  {remote}")), "{shown}");

    mesh.node_mut("build").down();
    let laptop = mesh.node("laptop");
    laptop.await_online("build", false);
    let after = laptop.json(&["why", "build"]);
    assert_eq!((&after["peer"]["presence"], &after["peer"]["path"]), (&json!("away"), &json!("none")));
    assert_eq!((&after["peer"]["rtt_ms"], &after["peer"]["transport"]), (&Value::Null, &Value::Null));
    assert!(after["why"].as_str().is_some_and(|why| why.starts_with("build is away")), "{after}");
    let row = laptop.run(&["peers"]).ok().stdout;
    assert!(row.contains("it is away"), "{row}");
    let told = events(laptop, "build");
    let places = ["relay", "direct", "away"].map(|event| told.iter().position(|told| told == event));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{told:?}");
    assert_eq!(laptop.refused(6, &["ping", "build", "--until", "direct"]), "peer-unreachable");
}

#[test]
fn a_ping_of_a_peer_that_is_direct_makes_no_second_link() {
    let mesh = Mesh::start();
    let laptop = mesh.node("laptop");
    laptop.json(&["ping", "build", "--until", "direct"]);
    let row = mesh.node("laptop").await_direct("build");

    let again = laptop.json(&["ping", "build"]);

    assert_eq!((&again["direct"], &again["upgraded_after_ms"]), (&json!(true), &Value::Null), "{again}");
    assert_eq!(laptop.await_direct("build")["since_ms"], row["since_ms"]);
}

#[test]
fn whoever_waits_for_a_direct_path_that_cannot_come_gets_7_and_the_reason() {
    let mesh = Plan::of(&["laptop", "build"]).relay_only("build").start();
    let laptop = mesh.node("laptop");

    let waited = laptop.run(&["ping", "build", "--until", "direct", "--timeout", "300ms"]).exits(7);

    assert!(
        waited.stderr.contains("not direct: ") && waited.stderr.contains("next: peerloom why"),
        "{waited:?}"
    );
    let way = laptop.json(&["why", "build"]);
    let why = way["peer"]["why_not_direct"].as_str().expect("a reason");
    assert!(way["why"].as_str().is_some_and(|text| text.ends_with(why)), "{way}");
    assert!(way["peer"]["rtt_ms"].is_number() && way["peer"]["rtt_at_ms"].is_number(), "{way}");
    let shown = laptop.run(&["peers"]).ok().stdout;
    assert!(shown.contains(why) && shown.contains(" ago"), "{shown}");
    let off = mesh.node("build").json(&["netcheck"]);
    assert_eq!((&off["udp"], &off["candidates"]), (&json!("off"), &json!([])));
    laptop.refused(2, &["ping", "build", "--timeout", "61s"]);
    laptop.run(&["ping", "build", "--until", "relay"]).exits(2);
}

#[test]
fn whether_a_peer_is_there_is_not_claimed_without_a_coordinator_or_a_link() {
    let mut mesh = Plan::of(&["laptop", "build"]).relay_only("laptop").start();
    mesh.coordinator.kill9();
    let laptop = mesh.node("laptop");

    let way = until("the laptop to miss its coordinator", SOON, || {
        let way = laptop.json(&["why", "build"]);
        if way["peer"]["presence"] == "online" { Err(way.to_string()) } else { Ok(way) }
    });

    assert_eq!((&way["peer"]["presence"], &way["peer"]["path"]), (&json!("unknown"), &json!("none")));
    assert!(way["why"].as_str().is_some_and(|why| why.contains("coordinator is not connected")), "{way}");
    let status = laptop.json(&["status"]);
    assert!(status["coordinator"]["since_ms"].is_number(), "{status}");
    let ping = laptop.run(&["ping", "build", "--json"]).exits(6);
    assert!(ping.error_text().contains("the coordinator is not connected"), "{ping:?}");
}

#[test]
fn a_peer_that_does_not_exist_is_4_and_this_node_itself_is_2() {
    let mesh = Plan::of(&["laptop"]).start();
    let laptop = mesh.node("laptop");
    for verb in ["why", "trace", "ping"] {
        assert_eq!(laptop.refused(4, &[verb, "nobody"]), "unknown-peer");
        let plain = laptop.run(&[verb, "nobody"]).exits(4);
        assert!(plain.stderr.contains("next: peerloom peers"), "{plain:?}");
        assert_eq!(laptop.refused(2, &[verb, "laptop"]), "to-self");
    }
}
