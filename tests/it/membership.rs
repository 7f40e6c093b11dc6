//! Who belongs: revoking, leaving, several meshes under one roof, several roofs on one machine.

use std::fs;

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Mesh, Plan};
use serde_json::{Value, json};

#[test]
fn a_revoked_member_is_refused_everywhere_and_its_senders_are_told() {
    let mut mesh = Plan::of(&["laptop", "build", "vps"]).start();
    mesh.node_mut("build").down();
    // This one waits for build at the coordinator when it is revoked.
    let waiting = mesh.node("vps").json(&["send", "build", "too late", "--wait", "accepted"]);
    let waiting = waiting["id"].as_str().expect("an id").to_owned();

    mesh.node("laptop").json(&["revoke", "build", "--reason", "lost"]);

    let row = mesh.node("vps").await_state(&waiting, &["rejected"]);
    assert_eq!(row["code"], "revoked", "{row}");
    for sender in ["laptop", "vps"] {
        until(&format!("{sender} to refuse a send to build"), SOON, || {
            let answer = mesh.node(sender).run(&["send", "build", "hello?", "--wait", "none", "--json"]);
            if answer.code == 0 {
                return Err(format!("{answer:?}"));
            }
            assert_eq!(answer.refused(5), "revoked");
            Ok(())
        });
    }
    // The revoked one may come up, but it gets nowhere, and says so.
    mesh.node_mut("build").start();
    until("build to say that it was revoked", SOON, || {
        let status = mesh.node("build").json(&["status"]);
        let said = status.to_string();
        if status["coordinator"]["state"] != "connected" && said.contains("revoked") {
            Ok(())
        } else {
            Err(said)
        }
    });
    let answer = mesh.node("build").run(&["send", "laptop", "let me in", "--timeout", "1s", "--json"]);
    assert_ne!(answer.code, 0, "{answer:?}");
    assert_eq!(mesh.node("laptop").texts(), Vec::<String>::new());
}

#[test]
fn a_member_that_is_up_and_direct_is_cut_off_when_it_is_revoked() {
    let mesh = Plan::of(&["laptop", "build", "vps"]).start();
    let (vps, build) = (mesh.node("vps"), mesh.node("build"));
    build.send("vps", "while a member");
    build.await_direct("vps");

    mesh.node("laptop").json(&["revoke", "build"]);

    until("the direct path to be gone", SOON, || {
        let peer = vps.run(&["peers", "--json"]).ok().json();
        let rows = peer["peers"].as_array().expect("a list");
        let direct = rows.iter().any(|row| row["handle"] == "build" && row["path"] == "direct");
        if direct { Err(peer.to_string()) } else { Ok(()) }
    });
    build.run(&["send", "vps", "after", "--timeout", "1s", "--json"]);
    vps.send("laptop", "we go on");
    mesh.node("laptop").await_texts(&["we go on"]);
    assert_eq!(vps.texts(), ["while a member"]);
    // Its key is spent: the same handle may not return either.
    let members = mesh.node("laptop").run(&["member", "list", "--json"]).ok().json();
    let row = members["members"].as_array().expect("a list").iter().find(|row| row["handle"] == "build");
    assert_eq!(row.map(|row| &row["revoked"]), Some(&json!(true)), "{members}");
}

#[test]
fn only_those_with_authority_revoke() {
    let mesh = Plan::of(&["laptop", "build", "vps"]).start();
    mesh.node("build").run(&["revoke", "vps", "--json"]).refused(5);
    mesh.node("build").run(&["revoke", "laptop", "--json"]).refused(5);
    mesh.node("build").run(&["invite", "--json"]).refused(5);
    mesh.node("build").run(&["revoke", "nobody", "--json"]).refused(4);
    mesh.node("build").send("vps", "still here");
    mesh.node("vps").await_texts(&["still here"]);
}

#[test]
fn whoever_leaves_is_gone_for_the_others_and_its_files_are_kept_aside() {
    let mesh = Mesh::start();
    let build = mesh.node("build");
    let left = build.mesh_dir();
    let store = fs::metadata(left.join("node.db")).expect("a member has a store").len();
    build.json(&["leave"]);

    until("laptop to see that build left", SOON, || {
        let answer = mesh.node("laptop").run(&["send", "build", "?", "--wait", "none", "--json"]);
        if answer.code == 5 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    build.run(&["send", "laptop", "?", "--json"]).refused(3);
    let kept = walk(build.home()).into_iter().filter(|path| path.ends_with("node.db")).collect::<Vec<_>>();
    assert_eq!(kept.len(), 1, "the store is kept: {kept:?}");
    assert!(fs::metadata(&kept[0]).expect("it is there").len() >= store.min(4096));
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("an own directory can be read") {
        let path = entry.expect("an own directory can be read").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[test]
fn one_daemon_serves_several_meshes_and_asks_which_when_it_matters() {
    let mut acme = Mesh::start();
    let other = Mesh::empty(CoordinatorPlan::plain());
    // laptop makes a second mesh at another coordinator, while its daemon runs.
    let laptop = acme.node("laptop");
    laptop.json(&["init", "garden", "--coordinator", &other.coordinator.origin(), "--name", "gardener"]);
    laptop.await_connected();
    let invited = laptop.json(&["invite", "--mesh", "garden"]);
    let shed = acme.stranger("shed");
    let invite = peerloom_tests::Invite {
        url: invited["url"].as_str().expect("a text").to_owned(),
        code: invited["code"].as_str().expect("a text").to_owned(),
    };
    shed.join(&invite).ok();
    acme.admit_joined(shed);

    let laptop = acme.node("laptop");
    assert_eq!(laptop.refused(4, &["send", "build", "which?"]), "ambiguous-mesh");
    laptop.json(&["send", "build", "to work", "--mesh", "acme"]);
    laptop.json(&["send", "shed", "to the garden", "--mesh", "garden"]);
    assert_eq!(laptop.refused(4, &["send", "shed", "wrong mesh", "--mesh", "acme"]), "unknown-peer");
    assert_eq!(laptop.refused(3, &["status", "--mesh", "nowhere"]), "no-such-mesh");
    acme.node("build").await_texts(&["to work"]);
    acme.node("shed").await_texts(&["to the garden"]);

    // Both are there again after a restart.
    acme.node_mut("laptop").kill9();
    acme.node_mut("laptop").up();
    let status = acme.node("laptop").api("GET", "/v1/status", None).json();
    let names: Vec<&Value> =
        status["meshes"].as_array().expect("a list").iter().map(|mesh| &mesh["mesh"]["name"]).collect();
    assert!(
        names.len() == 2 && names.contains(&&json!("acme")) && names.contains(&&json!("garden")),
        "{status}"
    );
}

#[test]
fn homes_do_not_see_each_other_and_one_home_has_one_daemon() {
    let mesh = Mesh::start();
    let other = mesh.stranger("other");
    other.run(&["send", "build", "hello", "--json"]).refused(3);
    let status = other.run(&["status", "--json"]);
    assert!(status.code == 3 || status.json()["running"] == false, "{status:?}");
    let second = mesh.node("laptop").run(&["up", "--json"]);
    assert_eq!(second.refused(8), "home-locked");
    mesh.node("laptop").send("build", "undisturbed");
}

#[test]
fn the_files_of_a_home_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mesh = Mesh::start();
    let home = mesh.node("laptop").home().to_owned();
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    for path in walk(&home) {
        let mode = mode(path.as_ref());
        assert_eq!(mode & 0o077, 0, "{path} is {mode:o}");
    }
    assert_eq!(mode(mesh.coordinator.data()), 0o700);
    for path in walk(mesh.coordinator.data()) {
        let mode = mode(path.as_ref());
        assert_eq!(mode & 0o077, 0, "{path} is {mode:o}");
    }
}
