//! Direct links between two nodes of which one speaks no QUIC.

use peerloom_tests::Plan;
use peerloom_tests::wait::{SOON, until};
use serde_json::json;

#[test]
fn two_nodes_of_which_one_speaks_no_quic_talk_directly_over_webrtc() {
    let mesh = Plan::of(&["laptop", "build"]).setting("build", "PEERLOOM_TRANSPORTS", "webrtc").start();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    let first = laptop.send("build", "by relay");
    assert_eq!(first["path"], "relay", "{first}");
    for (node, peer) in [(laptop, "build"), (build, "laptop")] {
        until("a direct link", SOON, || {
            let seen = node.peer(peer).unwrap_or_default();
            if seen["path"] == "direct" { Ok(()) } else { Err(seen.to_string()) }
        });
        assert_eq!(node.peer(peer).expect("just seen")["transport"], "webrtc");
    }

    let large = "x".repeat(100_000);
    let mut wanted = vec!["by relay".to_owned()];
    for text in ["one", "two", &large, "three"] {
        let sent = laptop.send("build", text);
        let said = (&sent["state"], &sent["path"], &sent["transport"]);
        assert_eq!(said, (&json!("stored"), &json!("direct"), &json!("webrtc")), "{sent}");
        wanted.push(text.to_owned());
    }
    let back = build.send("laptop", "back");
    assert_eq!((&back["path"], &back["transport"]), (&json!("direct"), &json!("webrtc")), "{back}");
    build.await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());

    // The link goes with the node that made it, and is made again.
    let mut mesh = mesh;
    mesh.node_mut("build").down();
    mesh.node_mut("build").up();
    let (laptop, build) = (mesh.node("laptop"), mesh.node("build"));
    laptop.await_online("build", true);
    laptop.send("build", "again");
    until("another direct link", SOON, || {
        let seen = build.peer("laptop").unwrap_or_default();
        if seen["transport"] == "webrtc" { Ok(()) } else { Err(seen.to_string()) }
    });
}
