//! A world of its own: this program again, in fresh network, mount and process namespaces.
//!
//! Nothing of the machine's own network is touched, and everything the lab made disappears with the
//! last process in it. An ordinary user gets a user namespace as well, and is root in there only.
//!
//! `unshare(2)` is unsafe for a process that has threads, so `unshare(1)` of util-linux calls it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};

/// The flag of the program inside. Nobody types it.
pub(super) const FLAG: &str = "inside-own-namespaces";

/// Flags of `unshare` for root, and for everybody else.
const UNSHARE: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const UNSHARE_AS_USER: [&str; 2] = ["--user", "--map-root-user"];

/// Whether this machine lets us make namespaces, and which flags it takes.
pub(super) fn flags() -> anyhow::Result<Vec<&'static str>> {
    let as_user: Vec<&str> = UNSHARE_AS_USER.into_iter().chain(UNSHARE).collect();
    let mut refusal = String::new();
    for flags in [UNSHARE.to_vec(), as_user] {
        let tried = tool("unshare").args(&flags).arg("true").stdin(Stdio::null()).output();
        let tried = tried.context("`unshare` cannot be run; it is part of util-linux")?;
        if tried.status.success() {
            return Ok(flags);
        }
        String::from_utf8_lossy(&tried.stderr).trim().clone_into(&mut refusal);
    }
    bail!(
        "this machine refuses network namespaces: {refusal}; as root, or with \
         kernel.unprivileged_userns_clone=1 and user.max_user_namespaces above 0, it works"
    )
}

/// Runs this program again with the same arguments, inside.
pub(super) fn again() -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe().context("failed to find this executable")?;
    let mut child = tool("unshare")
        .args(flags()?)
        .arg("--")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .arg(format!("--{FLAG}"))
        // Never written to: the child ends when the pipe does, however this process ends.
        .stdin(Stdio::piped())
        .spawn()
        .context("failed to start `unshare`")?;
    let lifeline = child.stdin.take();
    let status = child.wait().context("the lab is not waited for")?;
    drop(lifeline);
    match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
        (Some(code), _) => Ok(ExitCode::from(code)),
        (None, signal) => bail!("the lab was ended by signal {signal:?}"),
    }
}

/// Called first inside. Ends this process when whoever started it is gone, and makes room for
/// namespaces and files that nobody outside sees.
pub(super) fn settle_in() -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let mut nothing = std::io::sink();
        // Returns at the end of the pipe; an error means that there is no pipe any more.
        if std::io::copy(&mut std::io::stdin(), &mut nothing).is_ok() {
            std::process::abort();
        }
    });
    run("mount", &["-t", "tmpfs", "-o", "mode=755", "lab", "/run"])?;
    std::fs::create_dir("/run/netns").context("failed to make /run/netns")?;
    std::fs::create_dir(HOME).with_context(|| format!("failed to make {HOME}"))
}

/// Where the lab's processes keep their files: in memory, so that no disk is measured, and short,
/// because a node's socket path must fit 100 bytes.
pub(super) const HOME: &str = "/run/lab";

/// Shows `file` to every process of the lab in the place of `at`.
pub(super) fn cover(at: &str, file: &Path) -> anyhow::Result<()> {
    run("mount", &["--bind", &file.display().to_string(), at])
}

/// A program of the system, looked for also where an ordinary user's path does not lead.
pub(super) fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Whether a program is there: it can say its version.
pub(super) fn has(program: &str, version: &str) -> bool {
    let tried = tool(program).arg(version).stdin(Stdio::null()).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Runs a program to its end; what it complained about is the error.
pub(super) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    fed(program, arguments, "").map(drop)
}

/// The same with text on its standard input; gives what it printed.
pub(super) fn fed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = tool(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("failed to start `{program}`"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that gave up early has closed its input: what it says tells more.
        std::io::Write::write_all(&mut pipe, input.as_bytes()).unwrap_or_default();
    }
    let output = child.wait_with_output().with_context(|| format!("`{program}` is not waited for"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
