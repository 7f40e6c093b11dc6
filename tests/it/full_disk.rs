//! A full disk: a clear refusal, nothing acknowledged that is not kept, and everything goes on once
//! there is space.

use peerloom_tests::disk::SmallDisk;
use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Mesh, skip};

const DISK_BYTES: u64 = 24 << 20;

#[test]
fn a_node_whose_disk_is_full_refuses_sends_keeps_what_it_acknowledged_and_recovers() {
    let mesh = Mesh::start();
    let disk = match SmallDisk::mount(&mesh.dir().join("disk"), DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let mut small = mesh.stranger("small");
    small.move_onto(&disk);
    small.join(&mesh.node("laptop").invite(&[])).ok();
    small.up();
    let mut wanted = vec!["before".to_owned()];
    small.send("build", "before");

    disk.fill();
    // What the log of the database already occupies may still take a message or two.
    let big = "x".repeat(60_000);
    let mut refusal = None;
    for n in 0..2_000 {
        let text = format!("{n} {big}");
        let answer = small.run(&["send", "build", &text, "--wait", "none", "--json"]);
        if answer.code != 0 {
            refusal = Some(answer);
            break;
        }
        wanted.push(text);
    }
    let refusal = refusal.expect("a full disk refuses");
    assert_eq!(refusal.clone().refused(1), "disk-full", "{}", refusal.stdout);
    assert!(small.running().ended().is_none(), "the daemon stays\n{}", small.tail());
    // Mail for it waits where there is space.
    mesh.node("laptop").json(&["send", "small", &format!("for you {big}"), "--wait", "accepted"]);

    disk.free();
    until("sends to be taken again", SOON, || {
        let answer = small.run(&["send", "build", "after", "--wait", "none", "--json"]);
        if answer.code == 0 { Ok(()) } else { Err(format!("{}\n{}", answer.stdout, small.tail())) }
    });
    wanted.push("after".to_owned());
    mesh.node("build").await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
    small.await_texts(&[&format!("for you {big}")]);
    // What was acknowledged outlives the process, too.
    small.kill9();
    small.up();
    small.await_texts(&[&format!("for you {big}")]);
}

#[test]
fn a_coordinator_whose_disk_is_full_accepts_nothing_says_so_and_recovers() {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let disk = match SmallDisk::mount(&mesh.dir().join("disk"), DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    mesh.coordinator.kill9();
    mesh.coordinator.move_onto(&disk);
    mesh.coordinator.start();
    for handle in ["laptop", "vps"] {
        let mut node = mesh.stranger(handle);
        node.set("PEERLOOM_DIRECT", "false");
        mesh.admit(node);
    }
    let away = mesh.stranger("away");
    away.join(&mesh.node("laptop").invite(&[])).ok();
    mesh.node("laptop").await_online(away.handle(), false);
    let laptop = mesh.node("laptop");
    let mut wanted = vec!["before".to_owned()];
    assert_eq!(laptop.send("away", "before")["state"], "accepted");

    disk.fill();
    let big = "x".repeat(120_000);
    let mut held = None;
    for n in 0..1_000 {
        let text = format!("{n} {big}");
        let id = laptop.hand_over("away", &text);
        wanted.push(text);
        let not_ready = mesh.coordinator.ask("GET", "/ready", None).status == 503;
        if not_ready {
            held = Some(id);
            break;
        }
    }
    let held = held.expect("a full disk makes the coordinator unready");
    assert_eq!(mesh.coordinator.ask("GET", "/health", None).status, 200);
    assert_eq!(laptop.state(&held), "queued", "nothing is accepted that is not on the disk");
    // Mail for somebody who is there waits with the rest, or passes: lost it is not.
    laptop.hand_over("vps", "meanwhile");

    disk.free();
    until("the coordinator to be ready again", SOON, || {
        let ready = mesh.coordinator.ask("GET", "/ready", None);
        if ready.status == 200 {
            Ok(())
        } else {
            Err(format!("{}\n{}", ready.text(), mesh.coordinator.tail()))
        }
    });
    mesh.node("laptop").await_state(&held, &["accepted"]);
    // And what it accepted outlives the process.
    mesh.coordinator.kill9();
    mesh.coordinator.start();
    mesh.admit_joined(away);
    mesh.node("away").await_texts(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
    mesh.node("vps").await_texts(&["meanwhile"]);
}
