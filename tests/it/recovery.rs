//! A coordinator that is not alone with its store. What it promised holds, and nobody has to help.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use peerloom_tests::wait::SOON;
use peerloom_tests::{Coordinator, CoordinatorPlan, Mesh, Plan, sql};

/// What a coordinator ends with when another took its database over.
const FENCED: i32 = 12;

#[test]
fn of_two_coordinators_on_one_database_the_older_ends_and_has_promised_nothing_since() {
    let mut mesh = Mesh::start();
    mesh.node_mut("build").down();
    mesh.node("laptop").send("build", "before");

    // The lock is in the directory: a second directory whose database is the same file gets past it.
    let second = mesh.dir().join("second");
    let mut newer = Coordinator::new(&second, CoordinatorPlan::plain());
    fs::create_dir_all(newer.data()).expect("an own directory");
    let data = mesh.coordinator.data().to_owned();
    fs::copy(data.join("coordinator.key"), newer.data().join("coordinator.key")).expect("the key is there");
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        symlink(data.join(file), newer.data().join(file)).expect("an own directory");
    }
    newer.start();
    let waiting = mesh.node("laptop").hand_over("build", "after");

    let status = mesh.coordinator.running().exit_status(SOON);

    assert_eq!(status.code(), Some(FENCED), "{}", mesh.coordinator.printed());
    let said = mesh.coordinator.printed();
    assert!(said.contains("taken over by another peerloom-coordinator"), "{said}");
    assert_eq!(mesh.node("laptop").state(&waiting), "queued", "nobody has promised anything for it");
    newer.stop();
    mesh.coordinator.start();
    mesh.node_mut("build").up();
    mesh.node("build").await_texts(&["before", "after"]);
}

/// A coordinator's data directory as a backup has it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("an own directory");
    for entry in fs::read_dir(from).expect("the data is there") {
        let entry = entry.expect("an own directory can be read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("an own file can be copied");
    }
}

#[test]
fn mail_accepted_after_the_backup_arrives_though_the_backup_is_put_back() {
    let mut mesh = Plan::of(&["laptop", "build"]).relay_only("laptop").start();
    mesh.node_mut("build").down();
    mesh.node("laptop").send("build", "before the backup");
    // Taken while it runs, as backups are: SQLite's files are copied with its log.
    let (data, backup) = (mesh.coordinator.data().to_owned(), mesh.dir().join("backup"));
    copy(&data, &backup);
    let lost = mesh.node("laptop").hand_over("build", "after the backup");
    mesh.node("laptop").await_state(&lost, &["accepted"]);

    mesh.coordinator.stop();
    fs::remove_dir_all(&data).expect("the data can be removed");
    copy(&backup, &data);
    mesh.coordinator.start();
    mesh.node_mut("build").up();

    mesh.node("build").await_texts(&["before the backup", "after the backup"]);
    mesh.node("laptop").await_state(&lost, &["stored", "surfaced"]);
}

/// Every entry of the log that a node or the coordinator keeps.
fn log_of(database: &Path) -> Vec<Vec<u8>> {
    sql::blobs(database, "SELECT entry FROM log ORDER BY idx")
}

#[test]
fn a_member_admitted_after_the_backup_is_still_one_and_there_is_one_log() {
    let mut mesh = Plan::of(&["laptop", "build"]).relay_only("laptop").start();
    let (data, backup) = (mesh.coordinator.data().to_owned(), mesh.dir().join("backup"));
    mesh.coordinator.stop();
    copy(&data, &backup);
    mesh.coordinator.start();
    ["laptop", "build"].iter().for_each(|node| mesh.node(node).await_connected());
    let late = mesh.stranger("late");
    mesh.admit(late);
    mesh.node("late").send("laptop", "I am in");
    mesh.node_mut("build").down();

    // Whoever knows of it comes back in any order; the mesh's owner last.
    mesh.node_mut("laptop").down();
    mesh.coordinator.stop();
    fs::remove_dir_all(&data).expect("the data can be removed");
    copy(&backup, &data);
    mesh.coordinator.start();
    mesh.node("late").await_connected();
    mesh.node_mut("build").up();
    mesh.node("build").await_online("late", true);
    mesh.node("late").send("build", "still in");
    mesh.node("build").await_texts(&["still in"]);
    // No admin's log was compared yet: a place given now might be taken.
    assert_eq!(mesh.node("build").refused(1, &["leave"]), "comparing");
    let alarms = mesh.node("late").json(&["status"])["alarms"].to_string();
    assert!(alarms.contains("gave it the rest"), "{alarms}");
    mesh.node_mut("laptop").up();

    let logs = ["laptop", "build", "late"].map(|node| log_of(&mesh.node(node).database()));
    assert_eq!(logs[0].len(), 4, "genesis and three members");
    assert_eq!(logs[0], log_of(&mesh.coordinator.database()));
    assert!(logs.iter().all(|log| *log == logs[0]), "there is one log");
}
