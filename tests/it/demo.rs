//! What a newcomer runs first.

use std::process::Command;
use std::time::{Duration, Instant};

use peerloom_tests::wait::SOON;
use peerloom_tests::{CoordinatorPlan, Mesh, program, run};

#[test]
fn the_demo_shows_every_path_in_under_half_a_minute() {
    let started = Instant::now();
    let mut command = Command::new(program("peerloom"));
    command.arg("demo");
    let answer = run(command, b"").ok();
    let took = started.elapsed();

    let told = answer.stdout.clone() + &answer.stderr;
    for word in ["relay", "direct", "queue"] {
        assert!(told.contains(word), "the demo tells of {word}: {told}");
    }
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn one_command_makes_a_mesh_with_its_coordinator_and_one_ends_it() {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let mut laptop = mesh.stranger("laptop");
    let made = laptop.up_detached(&["--new", "acme", "--name", "laptop"]);
    assert!(!made.stdout.is_empty(), "{made:?}");
    laptop.await_connected();
    let status = laptop.json(&["status"]);
    assert_eq!(status["mesh"]["name"], "acme");
    let origin = status["coordinator"]["origin"].as_str().expect("an origin").to_owned();
    assert_ne!(origin, mesh.coordinator.origin(), "it started its own");

    let build = mesh.stranger("build");
    build.join(&laptop.invite(&[])).ok();
    mesh.admit_joined(build);
    laptop.await_online("build", true);
    laptop.send("build", "from one command");
    mesh.node("build").await_texts(&["from one command"]);

    laptop.json(&["down", "--all"]);
    let port: u16 =
        origin.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an origin with a port");
    peerloom_tests::wait::until(
        "the coordinator to be down too",
        SOON,
        || match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Err(_) => Ok(()),
            Ok(_) => Err("it still listens".to_owned()),
        },
    );
}
