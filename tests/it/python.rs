//! PROTOCOL.md is enough to write a client from: tests/python holds one, and it talks to the real
//! programs; over direct links too, by stacks that are not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peerloom_tests::{program, skip};

#[test]
fn a_python_client_written_from_protocol_md_joins_and_exchanges_sealed_mail() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let python = environment(&scripts.join("requirements.txt")).unwrap_or_else(|why| panic!("{why}"));
    holds(&python, &scripts.join("test_interop.py"));
}

#[test]
fn aiortc_makes_data_channels_with_a_node_and_aioquic_gets_in_under_its_own_certificate_only() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    match environment(&scripts.join("requirements-direct.txt")) {
        Ok(python) => holds(&python, &scripts.join("test_direct.py")),
        Err(why) if is_offline(&why) => skip(&format!("no package index to have aiortc from: {why}")),
        Err(why) => panic!("{why}"),
    }
}

/// Runs a script against the real programs, to its end.
#[track_caller]
fn holds(python: &Path, script: &Path) {
    let mut interop = Command::new(python);
    interop.arg("-B").arg(script);
    interop.arg("--coordinator").arg(program("peerloom-coordinator"));
    interop.arg("--peerloom").arg(program("peerloom"));
    let facts = succeeds(interop).unwrap_or_else(|why| panic!("{why}"));
    assert!(facts.ends_with("all of it holds\n"), "the script did not come to its end:\n{facts}");
}

/// What pip says where no index can be reached.
fn is_offline(why: &str) -> bool {
    ["NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError"]
        .iter()
        .any(|error| why.contains(error))
}

/// The interpreter of a virtual environment with `requirements` installed. It stays below the target
/// directory, one for each content of the file. Else why there is none.
fn environment(requirements: &Path) -> Result<PathBuf, String> {
    let wanted = fs::read(requirements).expect("requirements.txt can be read");
    let name = hex::encode(&peerloom_proto::sha256(&wanted)[..8]);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let (interpreter, installed) = (dir.join("bin/python"), dir.join("installed"));
    if installed.is_file() {
        return Ok(interpreter);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&dir);
    succeeds(make)?;
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    install.arg(requirements);
    succeeds(install)?;
    fs::write(&installed, b"").expect("the environment is ours");
    Ok(interpreter)
}

/// Runs a command to its end; gives what it printed, or when it cannot be started or fails all it said:
/// without python3, its venv module or a package index there is no such test, and that must be seen.
fn succeeds(mut command: Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("failed to start {command:?}: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() {
        Ok(out.into_owned())
    } else {
        Err(format!("{command:?}: {}\n{out}\n{err}", done.status))
    }
}
