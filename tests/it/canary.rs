//! The coordinator is blind: nothing that only members may know is on its disk, in its logs or on
//! any wire to it, in any spelling.

use std::fs;

use peerloom_tests::secrets::{Secret, contains};
use peerloom_tests::{Chance, CoordinatorPlan, Mesh, Node, Plan};

#[test]
fn no_secret_reaches_the_coordinators_disk_logs_or_wires() {
    let mut chance = Chance::new();
    let mut mesh = Plan::of(&["laptop", "build"])
        .coordinator(CoordinatorPlan::recorded().argument("--log=trace"))
        .relay_only("laptop")
        .start();
    let mut secrets = Vec::new();
    let mut canary = |secrets: &mut Vec<Secret>, name: &str| {
        let text = hex::encode(chance.bytes(24));
        secrets.push(Secret::new(format!("the body {name}"), text.as_bytes()));
        secrets.push(Secret::new(format!("the bytes of the body {name}"), &hex::decode(&text).unwrap()));
        text
    };

    // By relay, by queue, and with an invite used.
    let live = canary(&mut secrets, "sent live");
    assert_eq!(mesh.node("laptop").send("build", &live)["path"], "relay");
    let vps = mesh.stranger("vps");
    let invite = mesh.node("laptop").invite(&[]);
    secrets.push(Secret::new("the invite code", invite.code.as_bytes()));
    secrets.push(Secret::new("the invite code without dashes", invite.code.replace('-', "").as_bytes()));
    secrets.push(Secret::new("the invite's 80 bits", &crockford(&invite.code)));
    vps.join(&invite).ok();
    mesh.node("laptop").await_online("vps", false);
    let queued = canary(&mut secrets, "queued");
    assert_eq!(mesh.node("laptop").send("vps", &queued)["state"], "accepted");
    let unused = mesh.node("laptop").invite(&[]);
    secrets.push(Secret::new("the bits of an unused invite", &crockford(&unused.code)));
    // The database as it is while mail waits in it, and once more at the end.
    let mut places = disk(&mesh);
    mesh.admit_joined(vps);
    mesh.node("vps").await_texts(&[&queued]);
    mesh.node("build").await_texts(&[&live]);
    for node in ["laptop", "build", "vps"] {
        secrets.extend(keys(mesh.node(node)));
    }
    mesh.coordinator.stop();
    places.extend(disk(&mesh));
    places.push(("what the coordinator printed".to_owned(), mesh.coordinator.printed().into_bytes()));
    let wires = mesh.coordinator.proxy().conversations();
    let wires = wires.iter().enumerate().map(|(n, wire)| (format!("connection {n}"), wire.readable()));
    places.extend(wires);

    // The search sees what is there: handles are public, and so are members' keys.
    let seen = |what: &[u8]| places.iter().filter(|(_, bytes)| contains(bytes, what)).count();
    assert!(seen(b"vps") >= 3, "handles stand in the log, on disk and on the wire");
    assert!(places.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 50_000);
    assert!(secrets.len() > 20, "{} secrets", secrets.len());
    for secret in &secrets {
        for (place, bytes) in &places {
            assert_eq!(secret.found_in(bytes), None, "in {place}");
        }
    }
}

/// Every file of the coordinator, but for its own secrets, which are nobody else's.
fn disk(mesh: &Mesh) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(mesh.coordinator.data()).expect("the data directory can be read");
    let paths = files.map(|file| file.expect("the data directory can be read").path());
    paths.map(|path| (path.display().to_string(), fs::read(&path).expect("its files can be read"))).collect()
}

/// Every secret a node keeps: seeds of its identity keys, secrets of its prekeys.
fn keys(node: &Node) -> Vec<Secret> {
    let mut keys =
        vec![Secret::new(format!("the member key of {}", node.handle()), &node.seed("member.key"))];
    if node.handle() == "laptop" {
        keys.push(Secret::new("the owner key", &node.seed("owner.key")));
    }
    let prekeys = peerloom_tests::sql::blobs(&node.database(), "SELECT secret FROM prekeys");
    assert!(!prekeys.is_empty());
    keys.extend(prekeys.iter().map(|secret| Secret::new(format!("a prekey of {}", node.handle()), secret)));
    let own = peerloom_tests::sql::blobs(&node.database(), "SELECT value FROM meta WHERE key = 'fp_secret'");
    keys.extend(own.iter().map(|secret| Secret::new("a fingerprint key", secret)));
    keys
}

/// The 80 bits of a code (protocol.md §8).
fn crockford(code: &str) -> Vec<u8> {
    let digits = code.chars().filter(|c| *c != '-').map(|c| {
        let digit = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(c).expect("a Crockford character");
        u128::try_from(digit).expect("below 32")
    });
    let bits = digits.fold(0_u128, |bits, digit| (bits << 5) | digit);
    bits.to_be_bytes()[6..].to_vec()
}
