//! PROTOCOL.md is enough to write a client from: tests/python holds one, and it talks to the real
//! programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peerloom_tests::program;

#[test]
fn a_python_client_written_from_protocol_md_joins_and_exchanges_sealed_mail() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let mut interop = Command::new(environment(&scripts.join("requirements.txt")));
    interop.arg("-B").arg(scripts.join("test_interop.py"));
    interop.arg("--coordinator").arg(program("peerloom-coordinator"));
    interop.arg("--peerloom").arg(program("peerloom"));
    let facts = succeeds(interop);
    assert!(facts.ends_with("all of it holds\n"), "the script did not come to its end:\n{facts}");
}

/// The interpreter of a virtual environment with `requirements` installed. It stays below the target
/// directory, one for each content of the file.
fn environment(requirements: &Path) -> PathBuf {
    let wanted = fs::read(requirements).expect("requirements.txt can be read");
    let name = hex::encode(&peerloom_proto::sha256(&wanted)[..8]);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let (interpreter, installed) = (dir.join("bin/python"), dir.join("installed"));
    if installed.is_file() {
        return interpreter;
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&dir);
    succeeds(make);
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    install.arg(requirements);
    succeeds(install);
    fs::write(&installed, b"").expect("the environment is ours");
    interpreter
}

/// Runs a command to its end; gives what it printed.
///
/// # Panics
/// When it cannot be started or fails, with all it said: without python3, its venv module or a package
/// index there is no such test, and that must be seen.
#[track_caller]
fn succeeds(mut command: Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}\n{err}", done.status);
    out.into_owned()
}
