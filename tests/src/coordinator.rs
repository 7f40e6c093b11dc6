//! A real coordinator with a data directory of its own, on a loopback port it keeps over restarts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::disk::SmallDisk;
use crate::http::{self, Response};
use crate::proxy::Proxy;
use crate::wait::{self, SOON};
use crate::{Process, ports, program};

/// How a coordinator is to be.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorPlan {
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// Whether nodes reach it through a recording [`Proxy`].
    pub behind_proxy: bool,
}

impl CoordinatorPlan {
    /// With nobody between it and the nodes.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Behind a proxy that records and can be cut.
    pub fn recorded() -> Self {
        Self { behind_proxy: true, ..Self::default() }
    }

    /// With another argument of `serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Members may send as fast as they can.
    #[must_use]
    pub fn unlimited(self) -> Self {
        self.argument("--member-messages-per-second=0").argument("--member-bytes-per-second=0")
    }
}

/// A coordinator, running or not.
#[derive(Debug)]
pub struct Coordinator {
    data: PathBuf,
    log: PathBuf,
    port: u16,
    plan: CoordinatorPlan,
    proxy: Option<Proxy>,
    enter: Vec<String>,
    process: Option<Process>,
}

impl Coordinator {
    /// A coordinator that keeps everything below `dir`; not started yet.
    pub fn new(dir: &Path, plan: CoordinatorPlan) -> Self {
        let port = ports::free();
        let proxy = plan.behind_proxy.then(|| Proxy::start(port));
        let (data, log) = (dir.join("coordinator"), dir.join("coordinator.out"));
        Self { data, log, port, plan, proxy, enter: Vec::new(), process: None }
    }

    /// Its data directory stands on this disk from the next start on.
    pub fn move_onto(&mut self, disk: &SmallDisk) {
        self.data = disk.path().join("coordinator");
        self.enter = disk.enter();
    }

    /// Where nodes find it.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.as_ref().map_or(self.port, Proxy::port))
    }

    /// Its own port, behind the proxy if there is one. UDP of the same number answers STUN.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The proxy in front of it.
    ///
    /// # Panics
    /// When the plan did not ask for one.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the plan said CoordinatorPlan::recorded()")
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.data.join("state.db")
    }

    /// The command that serves, for a test that runs it to its end.
    pub fn command(&self) -> Command {
        let program = program("peerloom-coordinator").into_os_string();
        let mut words = self.enter.iter().map(Into::into).chain([program]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).arg("serve");
        command.arg("--data").arg(&self.data).arg(format!("--listen=127.0.0.1:{}", self.port));
        if self.proxy.is_some() {
            command.arg(format!("--origin={}", self.origin()));
        }
        command.args(&self.plan.arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PEERLOOM") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts it on its data, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or does not become ready.
    #[track_caller]
    pub fn start(&mut self) {
        let command = self.command();
        let process = self.process.insert(Process::start("the coordinator", command, &self.log));
        let port = self.port;
        wait::until("the coordinator to be ready", SOON, || {
            assert!(process.ended().is_none(), "the coordinator ended\n{}", process.tail());
            match http::on_port(port, "GET", "/ready", &[], None) {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(format!("{} {}\n{}", response.status, response.text(), process.tail())),
                Err(error) => Err(format!("{error}\n{}", process.tail())),
            }
        });
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.running().kill9();
        self.process = None;
    }

    /// SIGTERM; it must end by itself within ten seconds, with exit code 0.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn stop(&mut self) {
        let process = self.running();
        let status = process.terminate(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "the coordinator's end on SIGTERM: {status}\n{}", process.tail());
        self.process = None;
    }

    /// The running process.
    ///
    /// # Panics
    /// When it is not running.
    pub fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the coordinator was started")
    }

    /// Everything it ever printed.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks it over HTTP, past the proxy.
    ///
    /// # Panics
    /// When no answer comes.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        http::on_port(self.port, method, path, &[], body)
            .unwrap_or_else(|error| panic!("{method} {path} at the coordinator: {error}\n{}", self.tail()))
    }

    /// A metric's value, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.ask("GET", "/metrics", None).text();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Its last words, for a failure's message.
    pub fn tail(&self) -> String {
        self.process.as_ref().map_or_else(|| "the coordinator is down".to_owned(), Process::tail)
    }
}
