//! Stores that are not what they should be: detected, refused, kept byte for byte, and nothing made
//! anew in their place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use peerloom_tests::wait::SOON;
use peerloom_tests::{Answer, Coordinator, Mesh, Node, sql};

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Header,
    Middle,
    CutOff,
    Empty,
    Gone,
    Newer,
}

impl Damage {
    const ALL: [Self; 6] = [Self::Header, Self::Middle, Self::CutOff, Self::Empty, Self::Gone, Self::Newer];

    fn strike(self, database: &Path) {
        let mut bytes = fs::read(database).expect("the database is there");
        match self {
            Self::Header => bytes[..16].fill(0xab),
            Self::Middle => {
                let third = bytes.len() / 3;
                bytes[third..2 * third].fill(0xab);
            }
            Self::CutOff => bytes.truncate(bytes.len() / 2 + 100),
            Self::Empty => bytes.clear(),
            Self::Gone => return fs::remove_file(database).expect("it can be removed"),
            Self::Newer => return sql::change(database, "PRAGMA user_version = 99"),
        }
        fs::write(database, bytes).expect("it can be written");
    }

    /// A word that the refusal must hold, so that an operator knows what happened.
    fn word(self) -> &'static str {
        match self {
            Self::Header | Self::Middle | Self::CutOff | Self::Empty => "damaged",
            Self::Gone => "missing",
            Self::Newer => "newer",
        }
    }
}

/// Every file below a directory, but for logs, locks and sockets, which say nothing of mail.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("an own directory can be read") {
        let path = entry.expect("an own directory can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "log" {
                found.extend(contents(&path));
            }
        } else if !name.ends_with("lock") && !name.ends_with(".sock") {
            found.insert(path.clone(), fs::read(&path).expect("an own file can be read"));
        }
    }
    found
}

/// Puts a key back as it was: for its owner's eyes only.
fn restore_secret(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("it can be restored");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

#[track_caller]
fn refused(damage: Damage, answer: &Answer, database: &Path) {
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert_ne!(answer.code, 0, "{damage:?} is refused: {said}");
    assert!(said.contains(&database.display().to_string()), "{damage:?} names the file: {said}");
    assert!(said.contains(damage.word()), "{damage:?} says {:?}: {said}", damage.word());
}

fn same(damage: Damage, before: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) {
    let after = contents(dir);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "{damage:?} makes and removes nothing");
    for (path, bytes) in before {
        assert_eq!(Some(bytes), after.get(path), "{damage:?} left {} as it was", path.display());
    }
}

#[test]
fn a_nodes_damaged_store_is_refused_preserved_and_works_again_once_restored() {
    let mut mesh = Mesh::start();
    for n in 0..30 {
        mesh.node("laptop").send("build", &format!("message {n} {}", "x".repeat(2_000)));
    }
    let build = mesh.node_mut("build");
    build.down();
    let texts = 30;
    let database = build.database();
    let whole = fs::read(&database).expect("the store is there");

    for damage in Damage::ALL {
        damage.strike(&database);
        let before = contents(build.home());
        let answer = build.fails_to_start(SOON);
        refused(damage, &answer, &database);
        assert_eq!(answer.code, 1, "{answer:?}");
        same(damage, &before, build.home());
        fs::write(&database, &whole).expect("it can be restored");
    }

    build.up();
    assert_eq!(build.texts().len(), texts);
    mesh.node("laptop").send("build", "after the restore");
}

#[test]
fn a_node_without_its_key_or_with_a_torn_one_is_refused() {
    let mut mesh = Mesh::start();
    let build: &mut Node = mesh.node_mut("build");
    build.down();
    let key = build.mesh_dir().join("member.key");
    let whole = fs::read(&key).expect("the key is there");
    for torn in [Some(&whole[..20]), Some(b"not hexadecimal at all".as_slice()), Some(b""), None] {
        match torn {
            Some(bytes) => fs::write(&key, bytes).expect("it can be written"),
            None => fs::remove_file(&key).expect("it can be removed"),
        }
        let before = contents(build.home());
        let answer = build.fails_to_start(SOON);
        assert_eq!(answer.code, 1, "{torn:?}: {answer:?}");
        assert!(answer.stdout.contains("member.key"), "{torn:?}: {answer:?}");
        assert_eq!(before, contents(build.home()), "{torn:?}");
    }
    restore_secret(&key, &whole);
    build.up();
}

#[test]
fn a_coordinators_damaged_store_is_refused_preserved_and_works_again_once_restored() {
    let mut mesh = Mesh::start();
    mesh.node_mut("build").down();
    for n in 0..30 {
        let text = format!("message {n} {}", "x".repeat(2_000));
        mesh.node("laptop").json(&["send", "build", &text, "--wait", "accepted"]);
    }
    let coordinator: &mut Coordinator = &mut mesh.coordinator;
    coordinator.stop();
    let (data, database) = (coordinator.data().to_owned(), coordinator.database());
    let whole = fs::read(&database).expect("the store is there");

    for damage in Damage::ALL {
        damage.strike(&database);
        let before = contents(&data);
        let answer = peerloom_tests::run(coordinator.command(), b"");
        refused(damage, &answer, &database);
        // As the README has them.
        let code = match damage {
            Damage::Header | Damage::Middle | Damage::CutOff | Damage::Empty => 9,
            Damage::Newer => 10,
            Damage::Gone => 11,
        };
        assert_eq!(answer.code, code, "{damage:?}: {answer:?}");
        same(damage, &before, &data);
        fs::write(&database, &whole).expect("it can be restored");
    }

    coordinator.start();
    mesh.node_mut("build").up();
    peerloom_tests::wait::until("the queued mail to arrive", SOON, || {
        let count = mesh.node("build").texts().len();
        if count == 30 { Ok(()) } else { Err(count.to_string()) }
    });
}

#[test]
fn a_coordinator_whose_key_is_gone_or_torn_is_refused_and_makes_no_other() {
    let mut mesh = Mesh::start();
    mesh.coordinator.stop();
    let key = mesh.coordinator.data().join("coordinator.key");
    let whole = fs::read(&key).expect("the key is there");
    for torn in [Some(&whole[..10]), None] {
        match torn {
            Some(bytes) => fs::write(&key, bytes).expect("it can be written"),
            None => fs::remove_file(&key).expect("it can be removed"),
        }
        let answer = peerloom_tests::run(mesh.coordinator.command(), b"");
        assert_ne!(answer.code, 0, "{answer:?}");
        assert!(answer.stderr.contains("coordinator.key"), "{answer:?}");
        assert_eq!(fs::read(&key).ok().as_deref(), torn, "it was left as it is");
    }
    restore_secret(&key, &whole);
    mesh.coordinator.start();
    mesh.node("laptop").send("build", "all is well");
}
