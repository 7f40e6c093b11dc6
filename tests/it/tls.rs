//! A coordinator that speaks TLS itself, by certificate files.

use std::fs;
use std::process::Command;

use peerloom_tests::wait::{SOON, until};
use peerloom_tests::{CoordinatorPlan, Mesh, Process, ports, program};

#[test]
fn nodes_reach_a_coordinator_over_tls_and_refuse_one_that_nobody_vouches_for() {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (mesh.dir().join("certificate.pem"), mesh.dir().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = ports::free();
    let origin = format!("https://localhost:{port}");
    let mut command = Command::new(program("peerloom-coordinator"));
    command.args(["serve", &format!("--listen=127.0.0.1:{port}"), &format!("--origin={origin}")]);
    command.arg("--data").arg(mesh.dir().join("tls"));
    command.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
    let mut coordinator = Process::start("the coordinator", command, &mesh.dir().join("tls.out"));
    until("the coordinator to be ready", SOON, || {
        assert!(coordinator.ended().is_none(), "{}", coordinator.tail());
        if coordinator.printed().contains("ready: ") { Ok(()) } else { Err(coordinator.tail()) }
    });

    let distrustful = mesh.stranger("distrustful");
    let refused =
        distrustful.run(&["init", "acme", "--coordinator", &origin, "--name", "distrustful", "--json"]);
    assert_eq!(refused.refused(6), "coordinator-unreachable");

    let mut laptop = mesh.stranger("laptop");
    let mut build = mesh.stranger("build");
    for node in [&mut laptop, &mut build] {
        node.set("PEERLOOM_CA_FILE", &certificate.display().to_string());
    }
    laptop.init("acme", &origin);
    laptop.up();
    build.join(&laptop.invite(&[])).ok();
    mesh.admit_joined(build);
    laptop.send("build", "over TLS");
    mesh.node("build").await_texts(&["over TLS"]);
}
