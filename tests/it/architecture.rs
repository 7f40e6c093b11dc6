//! Who may depend on whom (design/layout.md), each rule with its reason.

use std::collections::BTreeSet;
use std::process::Command;

use peerloom_tests::source::{SourceFile, root, rust_files};
use serde_json::Value;

/// Dependencies of a crate of ours, those of its tests left out, by name.
fn dependencies(of: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(root());
    let answer = peerloom_tests::run(command, b"").ok();
    let metadata: Value = serde_json::from_str(&answer.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let package = packages.iter().find(|package| package["name"] == of).expect("a crate of the workspace");
    let listed = package["dependencies"].as_array().expect("a list").iter();
    let real = listed.filter(|dependency| dependency["kind"] != "dev");
    real.map(|dependency| dependency["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn crates_depend_on_each_other_as_the_layout_says() {
    let rules: [(&str, &[&str], &str); 4] = [
        ("peerloom-proto", &[], "the protocol must be usable where nothing else of ours is"),
        (
            "peerloom-transports",
            &["peerloom-proto"],
            "a transport moves sealed bytes and knows no store and no policy",
        ),
        ("peerloom-coordinator", &["peerloom-proto"], "the coordinator opens no direct link and is no node"),
        (
            "peerloom-node",
            &["peerloom-proto", "peerloom-transports"],
            "a node talks to a coordinator over the wire only",
        ),
    ];
    for (name, allowed, reason) in rules {
        let ours: Vec<String> =
            dependencies(name).into_iter().filter(|name| name.starts_with("peerloom-")).collect();
        let surplus: Vec<&String> = ours.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(surplus.is_empty(), "{name} depends on {surplus:?}: {reason}");
    }
}

#[test]
fn proto_depends_on_nothing_that_has_a_clock_a_socket_a_thread_or_entropy() {
    let impure = [
        "tokio",
        "getrandom",
        "rand",
        "mio",
        "socket2",
        "async-std",
        "futures",
        "tracing",
        "log",
        "sqlx",
        "rustix",
        "libc",
    ];
    for name in dependencies("peerloom-proto") {
        assert!(
            !impure.contains(&name.as_str()),
            "proto depends on {name}: it could then do more than compute"
        );
    }
}

/// Lines of code in these files that hold one of the words, as `path:line: text`.
fn lines_with(files: &[SourceFile], words: &[&str]) -> Vec<String> {
    let of = |file: &SourceFile| {
        let found =
            file.code_lines().into_iter().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())).collect::<Vec<_>>()
    };
    files.iter().filter(|file| !file.is_test()).flat_map(of).collect()
}

#[track_caller]
fn never(files: &[SourceFile], words: &[&str], reason: &str) {
    let found = lines_with(files, words);
    assert!(found.is_empty(), "{reason}\n{}", found.join("\n"));
}

fn below(files: &[SourceFile], starts: &[&str]) -> Vec<SourceFile> {
    let chosen: Vec<SourceFile> = files
        .iter()
        .filter(|file| starts.iter().any(|start| file.path.starts_with(start)))
        .cloned()
        .collect();
    assert!(!chosen.is_empty(), "no file begins with {starts:?}");
    chosen
}

/// What these files name from `peerloom_proto`, tests left out, as `path: name`.
fn names_from_proto(files: &[SourceFile]) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        for part in file.without_tests().split("peerloom_proto::").skip(1) {
            let part = match part.strip_prefix('{') {
                Some(list) => list.split("};").next().unwrap_or_default(),
                None => part
                    .split(|c: char| c != ':' && c != '_' && !c.is_alphanumeric())
                    .next()
                    .unwrap_or_default(),
            };
            let words =
                part.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|word| !word.is_empty());
            names.extend(words.map(|word| (file.path.clone(), word.to_owned())));
        }
    }
    assert!(!names.is_empty(), "nothing is named from proto: the search is broken");
    names
}

#[track_caller]
fn never_from_proto(files: &[SourceFile], forbidden: &[&str], reason: &str) {
    let found: Vec<_> =
        names_from_proto(files).into_iter().filter(|(_, name)| forbidden.contains(&name.as_str())).collect();
    assert!(found.is_empty(), "{reason}: {found:?}");
}

#[test]
fn the_coordinator_can_open_nothing() {
    let openers = [
        "BoxSecretKey",
        "SenderBox",
        "receiver_box",
        "Receiver",
        "VerifiedEnvelope",
        "Opened",
        "Body",
        "Message",
        "seal",
        "open",
        "SealedEnvelope",
        "InviteCode",
        "endpoint",
        "Endpoint",
    ];
    let files = rust_files("coordinator");
    never_from_proto(
        &files,
        &openers,
        "the coordinator is blind: it names nothing that seals or opens a box",
    );
    for name in dependencies("peerloom-coordinator") {
        let boxes = ["crypto_box", "crypto_secretbox", "x25519-dalek"];
        assert!(
            !boxes.contains(&name.as_str()),
            "the coordinator depends on {name}: it holds no key that opens a box"
        );
    }
    never(
        &files,
        &["crypto_box", "crypto_secretbox", "x25519"],
        "the coordinator holds no key that opens a box",
    );
}

#[test]
fn transports_see_no_plaintext_and_take_no_decisions() {
    let ours = below(&rust_files("transports"), &["transports/src"]);
    let forbidden = [
        "Message",
        "Body",
        "Opened",
        "VerifiedEnvelope",
        "Roster",
        "Member",
        "seal",
        "open",
        "endpoint",
        "Endpoint",
        "BoxSecretKey",
        "IdentityKey",
        "SenderBox",
        "Receiver",
        "InviteCode",
        "OutboxState",
    ];
    never_from_proto(
        &ours,
        &forbidden,
        "transports move sealed bytes: ids, limits, envelopes and frames are all they name",
    );
    never(&ours, &["sqlx", "std::fs"], "transports keep no store");
}

#[test]
fn the_command_line_reaches_the_daemon_through_the_api_only() {
    let node = rust_files("node");
    let words = [
        "crate::engine",
        "crate::store",
        "crate::links",
        "crate::uplink",
        "crate::mesh::",
        "peerloom_transports",
        "sqlx",
    ];
    never(
        &below(&node, &["node/src/commands", "node/src/cli"]),
        &words,
        "verbs are thin clients of the API: what they can do, every program can do",
    );
    never(
        &below(&node, &["node/src/api"]),
        &["crate::store", "crate::engine", "crate::links", "crate::uplink", "peerloom_transports", "sqlx"],
        "the API asks the mesh: it names neither rows nor sockets",
    );
    never(
        &below(&node, &["node/src/store"]),
        &["peerloom_transports", "crate::links", "crate::uplink"],
        "a store keeps rows and knows no path",
    );
}

#[test]
fn only_the_engine_calls_both_the_endpoint_and_the_store() {
    let node = rust_files("node");
    let holds = |file: &SourceFile, word: &str| file.code_lines().iter().any(|(_, line)| line.contains(word));
    let both =
        node.iter().filter(|file| !file.is_test() && holds(file, "Endpoint::") && holds(file, "Writer"));
    let outside: Vec<&str> =
        both.map(|file| file.path.as_str()).filter(|path| !path.starts_with("node/src/engine")).collect();
    assert!(outside.is_empty(), "the order commit, then act holds because one place keeps it: {outside:?}");
}

#[test]
fn there_is_one_place_that_seals_and_one_that_opens() {
    let all: Vec<SourceFile> =
        ["proto", "transports", "coordinator", "node"].into_iter().flat_map(rust_files).collect();
    for (call, home) in [(".encrypt", "sealing"), (".decrypt", "opening")] {
        let found = lines_with(&all, &[&format!("{call}("), &format!("{call}_in_place")]);
        // An invite blob is a secretbox of its own; everything else is an envelope.
        let places: BTreeSet<&str> = found
            .iter()
            .filter_map(|line| line.split(':').next())
            .filter(|path| !path.contains("/invite"))
            .collect();
        assert!(
            places.len() <= 1,
            "{home} happens in one file, so that paths cannot differ in what they carry: {found:?}"
        );
        assert_eq!(places.len(), 1, "{home} happens somewhere: {found:?}");
    }
}

#[test]
fn proto_reads_no_clock_and_draws_no_entropy() {
    let words = [
        "Instant::now",
        "SystemTime",
        "std::thread",
        "std::env",
        "std::fs",
        "std::net::Udp",
        "std::net::Tcp",
        "async fn",
        "tokio",
        "getrandom",
        "OsRng",
        "println!",
        "eprintln!",
        "static mut",
        "OnceLock",
        "LazyLock",
        "HashMap",
        "HashSet",
        "tracing::",
    ];
    never(
        &below(&rust_files("proto"), &["proto/src"]),
        &words,
        "proto computes: time, entropy and bytes come in as arguments, so that a run can be replayed",
    );
}

#[test]
fn no_program_takes_a_signature_for_known() {
    let proto =
        lines_with(&below(&rust_files("proto"), &["proto/src/lib.rs", "proto/src/key.rs"]), &["mod memo"]);
    assert_eq!(proto.len(), 1, "the simulator's memo has a name: {proto:?}");
    for manifest in ["Cargo.toml", "coordinator/Cargo.toml", "node/Cargo.toml", "transports/Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(manifest)).expect("a manifest");
        assert!(!text.contains("memo\""), "{manifest}: only the simulator may leave out a verification");
    }
    let simulator = std::fs::read_to_string(root().join("netsim/Cargo.toml")).expect("a manifest");
    let default = simulator.lines().find(|line| line.starts_with("default")).expect("default features");
    assert!(!default.contains("memo"), "a build of the whole workspace would share it with the programs");
}
