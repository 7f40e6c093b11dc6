//! A message is sealed once: the direct link, the relay, the mailbox and a second relay connection
//! carry the very same bytes.

use peerloom_proto::endpoint::PathKind;
use peerloom_proto::{EnvHash, MessageId, UnverifiedEnvelope};
use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Plan, Puppet, secrets, sql};

const ID: [u8; 16] = [0x5a; 16];

#[test]
fn one_envelope_is_byte_identical_on_the_direct_link_on_the_relay_and_in_the_mailbox() {
    let mesh = Plan::of(&["laptop"]).coordinator(CoordinatorPlan::recorded()).start();
    let home = mesh.stranger("build");
    home.join(&mesh.node("laptop").invite(&[])).ok();
    let mut build = Puppet::play(&home);
    build.until("a welcome", |build| build.is_connected().then_some(()));
    let laptop = build.peer("laptop");
    build.until("the sender to see it", |_| {
        mesh.node("laptop").peer("build").is_some_and(|peer| peer["online"] == true).then_some(())
    });
    mesh.node("laptop").hand_over("build", "warm up");
    build
        .until("a direct path", |build| (build.is_direct(&laptop) && build.inbox().len() == 1).then_some(()));

    // It comes directly, and nobody answers: the sender grows suspicious and sends a copy by relay.
    build.withhold(MessageId(ID));
    let wait_none = ["send", "build", "one sealing", "--id", &hex::encode(ID), "--wait", "none"];
    mesh.node("laptop").json(&wait_none);
    let both = [PathKind::Direct, PathKind::Relay];
    build.until("a copy on each path", |build| {
        both.iter().all(|path| build.captured().iter().any(|copy| copy.path == *path)).then_some(())
    });

    // Nobody receipted the copy, so it waits in the mailbox.
    let in_mailbox = until("the mailbox to hold it", SOON, || {
        let mail = sql::blobs(&mesh.coordinator.database(), "SELECT bytes FROM mail WHERE kind = 0");
        let found = mail.into_iter().find(|bytes| id_of(bytes) == Some(MessageId(ID)));
        found.ok_or_else(|| "other mail".to_owned())
    });
    let captured: Vec<(PathKind, Vec<u8>)> =
        build.captured().iter().map(|copy| (copy.path, copy.envelope.to_vec())).collect();
    assert_eq!(captured[0].0, PathKind::Direct, "the direct path was used first");
    for (path, bytes) in &captured {
        assert_eq!(*bytes, in_mailbox, "the copy that came by {path:?}");
    }

    // And the sender's own connection carried them so: read off the wire between it and the coordinator.
    let wires = mesh.coordinator.proxy().conversations();
    let mut said = wires.iter().filter_map(|wire| wire.messages()).flat_map(|messages| messages.up);
    let on_the_wire = said.any(|message| secrets::contains(&message, &in_mailbox));
    assert!(on_the_wire, "the relay's wire carries the mailbox's bytes");

    // Once received the message is one message, and its mail is gone.
    build.let_in();
    build.until("the sender to know that it is stored", |_| {
        (mesh.node("laptop").state(&hex::encode(ID)) == "stored").then_some(())
    });
    assert_eq!(build.inbox(), ["warm up", "one sealing"]);
    let hash = envelope(&in_mailbox).expect("an envelope").env_hash();
    build.until("the mailbox to let it go", |_| {
        let hashes = sql::blobs(&mesh.coordinator.database(), "SELECT env_hash FROM mail WHERE kind = 0");
        (!hashes.contains(&hash_bytes(&hash))).then_some(())
    });
}

fn hash_bytes(hash: &EnvHash) -> Vec<u8> {
    hash.0.to_vec()
}

fn envelope(bytes: &[u8]) -> Option<UnverifiedEnvelope> {
    UnverifiedEnvelope::parse(bytes.to_vec().into()).ok()
}

fn id_of(bytes: &[u8]) -> Option<MessageId> {
    envelope(bytes).map(|envelope| envelope.header().id)
}
