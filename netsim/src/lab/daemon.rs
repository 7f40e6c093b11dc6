//! The real programs, started inside the lab's namespaces the way an operator would: the coordinator
//! speaks TLS under a name, with a private authority that the nodes are told of, and creating the
//! mesh needs the token it made.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::namespace::Namespace;
use super::site::{COORDINATOR_V4, COORDINATOR_V6, Site};
use super::timeline::{Follower, Timeline};
use crate::bench::http::Http;
use crate::bench::process::{Binaries, Node, Process, clean, tail};

/// The name in the origin; `/etc/hosts` has it.
const NAME: &str = "coordinator.lab";

/// The usual port of the program, for TCP and STUN.
const PORT: u16 = 7_700;

/// Where the name is looked up.
pub(super) fn hosts_file() -> String {
    format!("127.0.0.1 localhost\n{COORDINATOR_V4} {NAME}\n{COORDINATOR_V6} {NAME}\n")
}

/// The coordinator: its files, and its process while it runs.
pub(crate) struct Coordinator {
    dir: PathBuf,
    program: PathBuf,
    namespace: Namespace,
    process: Option<Process>,
}

impl Coordinator {
    /// Prepares one in that namespace; its files stand below `dir`.
    pub(super) fn new(binaries: &Binaries, dir: &Path, namespace: Namespace) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])
            .context("failed to make a certificate")?;
        std::fs::create_dir_all(dir)?;
        let coordinator =
            Self { dir: dir.to_owned(), program: binaries.coordinator.clone(), namespace, process: None };
        std::fs::write(coordinator.certificate(), made.cert.pem())?;
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem())?;
        Ok(coordinator)
    }

    /// What nodes must trust.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.join("certificate.pem")
    }

    /// Where nodes find it.
    pub(super) fn origin(&self) -> String {
        format!("https://{NAME}:{PORT}")
    }

    /// What creating a mesh needs.
    pub(super) fn token_file(&self) -> PathBuf {
        self.dir.join("data/mesh-token")
    }

    /// Starts it, also again, and returns once it says that it is ready.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let mut command = clean(&self.program);
        command.args(["serve", "--json", "--log=info", &format!("--listen=[::]:{PORT}")]);
        command.arg(format!("--origin={}", self.origin()));
        command.arg("--data").arg(self.dir.join("data"));
        command.arg("--tls-cert").arg(self.certificate()).arg("--tls-key").arg(self.dir.join("key.pem"));
        let log = self.log();
        let errors = File::options().create(true).append(true).open(&log)?;
        command.stdout(Stdio::piped()).stderr(errors);
        let mut process =
            self.namespace.within(move || Process::spawn(&mut command, "peerloom-coordinator"))?;
        let stdout = process.take_stdout().context("the coordinator's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.contains("\"origin\"") {
            bail!("the coordinator did not get ready: {line}{}", tail(&log));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Ends it and removes everything it kept, its key too.
    pub(super) fn forget(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(self.dir.join("data")).context("failed to remove the coordinator's data")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the coordinator is not up")?.kill()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("coordinator.log")
    }
}

/// A host with a node on it.
pub(crate) struct Host {
    pub(crate) site: Site,
    pub(crate) handle: String,
    pub(crate) node: Node,
    timeline: Arc<Timeline>,
    follower: Option<Follower>,
}

impl Host {
    /// A node that trusts the coordinator, in no mesh yet.
    pub(super) fn new(
        binaries: &Binaries,
        dir: &Path,
        site: Site,
        coordinator: &Coordinator,
        timeline: Arc<Timeline>,
    ) -> anyhow::Result<Self> {
        let handle = site.host.name().to_owned();
        let mut node = Node::at(binaries, dir.join(&handle))?;
        node.set("PEERLOOM_CA_FILE", &coordinator.certificate().display().to_string());
        Ok(Self { site, handle, node, timeline, follower: None })
    }

    /// Makes the mesh.
    pub(super) fn init(&self, coordinator: &Coordinator) -> anyhow::Result<()> {
        let (origin, token) = (coordinator.origin(), coordinator.token_file().display().to_string());
        let words = ["init", "lab", "--coordinator", &origin, "--name", &self.handle, "--token-file", &token];
        self.verb(&words, None).map(drop)
    }

    /// Joins it.
    pub(super) fn join(&self, invite: &Value) -> anyhow::Result<()> {
        let part = |name: &str| invite[name].as_str().with_context(|| format!("no {name} in {invite}"));
        self.verb(&["join", part("url")?, "--name", &self.handle], Some(part("code")?)).map(drop)
    }

    /// Starts the daemon and returns once it is connected.
    pub(crate) fn up(&mut self) -> anyhow::Result<()> {
        let Self { site, node, .. } = self;
        site.host.within(|| node.up())?;
        self.follower = Some(Follower::of(&self.node, &self.handle, self.timeline.clone())?);
        Ok(())
    }

    /// Ends it.
    pub(crate) fn down(&mut self) {
        self.node.down();
        self.follower = None;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.node.signal(Signal::KILL)?;
        self.down();
        Ok(())
    }

    /// Ends it and removes its home.
    pub(super) fn forget(&mut self) -> anyhow::Result<()> {
        self.down();
        let home = &self.node.home;
        std::fs::remove_dir_all(home).with_context(|| format!("failed to remove {}", home.display()))?;
        std::fs::create_dir(home).with_context(|| format!("failed to make {}", home.display()))
    }

    /// A connection to its API that messages are handed over on.
    pub(crate) fn mouth(&self) -> anyhow::Result<Mouth> {
        Ok(Mouth { api: self.node.api()?, handle: self.handle.clone() })
    }

    /// What it knows of a peer.
    pub(crate) fn peer(&self, handle: &str) -> anyhow::Result<Value> {
        let listed: Value = serde_json::from_str(&self.node.api()?.get("/v1/peers")?.text()?)?;
        let rows = listed["peers"].as_array().context("peers is a list")?;
        let row = rows.iter().find(|row| row["handle"] == handle).cloned();
        row.with_context(|| format!("{} knows no {handle}", self.handle))
    }

    /// The texts that came from a peer, in the readers' order.
    pub(crate) fn texts_from(&self, handle: &str) -> anyhow::Result<Vec<String>> {
        let messages = self.inbox(&format!("from={handle}&"))?;
        Ok(messages.iter().filter_map(|message| message["text"].as_str().map(str::to_owned)).collect())
    }

    /// Its inbox in the readers' order, as far as `filter` selects it: pairs of the query, each with `&`.
    pub(super) fn inbox(&self, filter: &str) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let (mut api, mut after) = (self.node.api()?, 0);
        loop {
            let path = format!("/v1/inbox?{filter}limit=1000&after={after}");
            let mut page: Value = serde_json::from_str(&api.get(&path)?.text()?)?;
            let messages = page["messages"].as_array_mut().context("messages is a list")?;
            let is_empty = messages.is_empty();
            found.append(messages);
            match page["next_after"].as_u64().filter(|next| *next > after && !is_empty) {
                Some(next) => after = next,
                None => return Ok(found),
            }
        }
    }

    /// Runs a verb from this host.
    pub(crate) fn verb(&self, words: &[&str], stdin: Option<&str>) -> anyhow::Result<Value> {
        self.site.host.within(|| self.node.verb(words, stdin))
    }
}

/// Where a program talks to its node.
pub(crate) struct Mouth {
    api: Http<UnixStream>,
    handle: String,
}

impl Mouth {
    /// Hands a text over without waiting for anything; the id is the caller's.
    pub(crate) fn say(&mut self, to: &str, id: &str, text: &str) -> anyhow::Result<()> {
        let body = json!({"to": [to], "id": id, "text": text, "wait": "none"}).to_string();
        let answer = self.api.post("/v1/messages", "application/json", body.as_bytes())?;
        let status = answer.status;
        ensure!(status == 200, "{} takes no message for {to}: {status} {}", self.handle, answer.text()?);
        Ok(())
    }
}
