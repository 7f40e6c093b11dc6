//! A real node: a home of its own, the `peerloom` program on it, and its daemon when it is up.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::disk::SmallDisk;
use crate::http::{self, Response};
use crate::process::last_lines;
use crate::wait::{self, SOON};
use crate::{Answer, Process, program, run};

/// What lets somebody in: both lines.
#[derive(Clone, Debug)]
pub struct Invite {
    /// The address.
    pub url: String,
    /// The code.
    pub code: String,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    handle: String,
    home: PathBuf,
    log: PathBuf,
    settings: Vec<(String, String)>,
    enter: Vec<String>,
    seen_from: Option<PathBuf>,
    process: Option<Process>,
    detached: Option<Detached>,
}

/// A daemon that is nobody's child, ended with this value all the same.
#[derive(Debug)]
struct Detached(u32);

impl Drop for Detached {
    fn drop(&mut self) {
        let ours = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        if String::from_utf8_lossy(&ours).contains("peerloom") {
            let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).expect("a daemon names its own pid");
            // It may have ended since we looked.
            kill_process(pid, Signal::KILL).unwrap_or(());
        }
    }
}

impl Node {
    /// A node that keeps everything below `dir`, in no mesh yet.
    pub fn new(dir: &Path, handle: &str) -> Self {
        let (home, log) = (dir.join(handle), dir.join(format!("{handle}.out")));
        Self {
            handle: handle.to_owned(),
            home,
            log,
            settings: Vec::new(),
            enter: Vec::new(),
            seen_from: None,
            process: None,
            detached: None,
        }
    }

    /// Sets an environment variable of everything this node runs from here on.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.settings.retain(|(name, _)| name != variable);
        self.settings.push((variable.to_owned(), value.to_owned()));
    }

    /// Its home stands on this disk from here on.
    pub fn move_onto(&mut self, disk: &SmallDisk) {
        self.home = disk.path().join(&self.handle);
        self.enter = disk.enter();
        self.seen_from = disk.seen_from_outside();
    }

    /// Its name in the mesh.
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// Its `PEERLOOM_HOME`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The local API's socket.
    pub fn socket(&self) -> PathBuf {
        self.reached("api.sock")
    }

    /// A file of its home, reached by this process, which may not see the node's disk.
    fn reached(&self, file: &str) -> PathBuf {
        let path = self.home.join(file);
        match &self.seen_from {
            Some(root) => root.join(path.strip_prefix("/").expect("homes are absolute")),
            None => path,
        }
    }

    /// The directory of its only mesh.
    ///
    /// # Panics
    /// When it is in none, or in several.
    #[track_caller]
    pub fn mesh_dir(&self) -> PathBuf {
        let found: Vec<PathBuf> = fs::read_dir(self.home.join("meshes"))
            .expect("a home has meshes")
            .map(|entry| entry.expect("an own directory can be read").path())
            .collect();
        let [dir] = &found[..] else { panic!("{} is in {} meshes: {found:?}", self.handle, found.len()) };
        dir.clone()
    }

    /// The database of its only mesh.
    pub fn database(&self) -> PathBuf {
        self.mesh_dir().join("node.db")
    }

    /// `peerloom` with these arguments, on this home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = program("peerloom").into_os_string();
        let mut words = self.enter.iter().map(Into::into).chain([program]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PEERLOOM") {
                command.env_remove(name);
            }
        }
        command.env("PEERLOOM_HOME", &self.home).envs(self.settings.iter().cloned());
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        run(self.command(arguments), b"")
    }

    /// Runs a verb to its end with this on its standard input.
    pub fn run_with(&self, arguments: &[&str], stdin: &str) -> Answer {
        run(self.command(arguments), stdin.as_bytes())
    }

    /// Runs a verb that must succeed, and gives its one JSON document.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).ok().json()
    }

    /// Runs a verb that must fail with this exit code and a JSON error; gives the error's code word.
    #[track_caller]
    pub fn refused(&self, code: i32, arguments: &[&str]) -> String {
        self.run(&[arguments, &["--json"]].concat()).refused(code)
    }

    /// Makes a mesh.
    #[track_caller]
    pub fn init(&self, mesh: &str, origin: &str) -> Value {
        self.json(&["init", mesh, "--coordinator", origin, "--name", &self.handle])
    }

    /// Makes an invite, with further arguments.
    #[track_caller]
    pub fn invite(&self, arguments: &[&str]) -> Invite {
        let made = self.json(&[&["invite"], arguments].concat());
        Invite { url: text(&made, "url"), code: text(&made, "code") }
    }

    /// Tries to join.
    pub fn join(&self, invite: &Invite) -> Answer {
        self.run_with(&["join", &invite.url, "--name", &self.handle, "--json"], &invite.code)
    }

    /// Starts the daemon and waits until its API answers.
    ///
    /// # Panics
    /// When it ends or does not answer.
    #[track_caller]
    pub fn start(&mut self) {
        let command = self.command(&["up"]);
        self.process = Some(Process::start(&self.handle, command, &self.log));
        wait::until("the daemon to answer", SOON, || {
            self.still_there();
            self.try_api("GET", "/v1/status", None).map_err(|error| format!("{error}\n{}", self.tail()))
        });
    }

    /// Starts the daemon and waits until it is connected to its coordinator.
    #[track_caller]
    pub fn up(&mut self) {
        self.start();
        self.await_connected();
    }

    /// `peerloom up --detach`, with further arguments; gives what it printed.
    #[track_caller]
    pub fn up_detached(&mut self, arguments: &[&str]) -> Answer {
        let answer = self.run(&[&["up", "--detach"], arguments].concat()).ok();
        let pid = self.api("GET", "/v1/status", None).json()["pid"].as_u64().expect("a daemon has a pid");
        self.detached = Some(Detached(u32::try_from(pid).expect("a pid fits")));
        answer
    }

    #[track_caller]
    fn still_there(&mut self) {
        let process = self.process.as_mut().expect("it was started");
        if let Some(status) = process.ended() {
            panic!("the daemon of {} ended: {status}\n{}", self.handle, self.tail());
        }
    }

    /// Waits until every mesh of this node is connected.
    #[track_caller]
    pub fn await_connected(&self) {
        wait::until(&format!("{} to be connected", self.handle), SOON, || {
            let status = self.api("GET", "/v1/status", None).json();
            let meshes = status["meshes"].as_array().cloned().unwrap_or_default();
            let connected = |mesh: &Value| mesh["coordinator"]["state"] == "connected";
            if !meshes.is_empty() && meshes.iter().all(connected) {
                return Ok(());
            }
            Err(format!("{status}\n{}", self.tail()))
        });
    }

    /// SIGKILL for the daemon.
    pub fn kill9(&mut self) {
        self.process.take().expect("the daemon was started").kill9();
    }

    /// `peerloom down`; the daemon must end by itself, with exit code 0.
    #[track_caller]
    pub fn down(&mut self) {
        self.json(&["down"]);
        let mut process = self.process.take().expect("the daemon was started");
        let status = process.exit_status(SOON);
        assert_eq!(status.code(), Some(0), "the daemon's end on `down`: {status}\n{}", process.tail());
    }

    /// Whether a daemon was started and not stopped since.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The running daemon.
    ///
    /// # Panics
    /// When it is not running.
    pub fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon was started")
    }

    /// Asks the local API; an error when the daemon could not be reached or hung up.
    pub fn try_api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response, String> {
        http::on_socket(&self.socket(), method, path, body)
    }

    /// Asks the local API.
    ///
    /// # Panics
    /// When no answer comes.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.try_api(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path} at {}: {error}\n{}", self.handle, self.tail()))
    }

    /// Sends a text, which must succeed; gives what `send --json` said.
    #[track_caller]
    pub fn send(&self, to: &str, what: &str) -> Value {
        self.json(&["send", to, what])
    }

    /// Hands a text to the daemon over the API without waiting for anything further; gives its id.
    #[track_caller]
    pub fn hand_over(&self, to: &str, what: &str) -> String {
        let response =
            self.api("POST", "/v1/messages", Some(&json!({"to": [to], "text": what, "wait": "none"})));
        assert_eq!(response.status, 200, "{}\n{}", response.text(), self.tail());
        text(&response.json(), "id")
    }

    /// The whole inbox, oldest first, as `inbox --json` prints it.
    #[track_caller]
    pub fn inbox(&self) -> Vec<Value> {
        self.run(&["inbox", "--json", "--limit", "1000000"]).ok().lines()
    }

    /// The texts of the inbox, oldest first.
    #[track_caller]
    pub fn texts(&self) -> Vec<String> {
        self.inbox().iter().map(|message| text(message, "text")).collect()
    }

    /// Waits until the inbox holds exactly these texts, in this order.
    #[track_caller]
    pub fn await_texts(&self, wanted: &[&str]) {
        wait::until(&format!("the inbox of {} to be {wanted:?}", self.handle), SOON, || {
            let found = self.texts();
            if found == wanted { Ok(()) } else { Err(format!("{found:?}\n{}", self.tail())) }
        });
    }

    /// The state of a message for its only recipient.
    #[track_caller]
    pub fn state(&self, id: &str) -> String {
        text(&self.json(&["message", id])["recipients"][0], "state")
    }

    /// Waits until a message to one recipient is in one of these states; gives the recipient's row.
    #[track_caller]
    pub fn await_state(&self, id: &str, states: &[&str]) -> Value {
        wait::until(&format!("message {id} to be {states:?}"), SOON, || {
            let response = self.api("GET", &format!("/v1/messages/{id}"), None);
            let row = response.json()["recipients"][0].clone();
            let state = row["state"].as_str().unwrap_or("unknown");
            if states.contains(&state) {
                Ok(row)
            } else {
                Err(format!("{}\n{}", response.text(), self.tail()))
            }
        })
    }

    /// What it knows of a peer, as `peers --json` has it; none when it knows nothing.
    #[track_caller]
    pub fn peer(&self, handle: &str) -> Option<Value> {
        let peers = self.json(&["peers"]);
        let rows = peers["peers"].as_array().expect("peers is a list");
        rows.iter().find(|row| row["handle"] == handle).cloned()
    }

    /// Waits until a peer is seen online, or seen away.
    #[track_caller]
    pub fn await_online(&self, handle: &str, online: bool) {
        wait::until(&format!("{} to see {handle} with online = {online}", self.handle), SOON, || {
            let row = self.peer(handle);
            let matches = row.as_ref().is_some_and(|row| row["online"] == online);
            if matches { Ok(()) } else { Err(format!("{row:?}\n{}", self.tail())) }
        });
    }

    /// Waits until messages to a peer go directly; gives the peer's row.
    #[track_caller]
    pub fn await_direct(&self, handle: &str) -> Value {
        wait::until(&format!("a direct path from {} to {handle}", self.handle), SOON, || {
            let row = self.peer(handle).unwrap_or(Value::Null);
            if row["path"] == "direct" { Ok(row) } else { Err(format!("{row}\n{}", self.tail())) }
        })
    }

    /// A hidden line of the home: the seed of the member's key.
    ///
    /// # Panics
    /// When the file is not 64 hexadecimal digits.
    #[track_caller]
    pub fn seed(&self, file: &str) -> Vec<u8> {
        let held = fs::read_to_string(self.mesh_dir().join(file)).expect("the key file can be read");
        hex::decode(held.trim()).expect("a key file is hexadecimal")
    }

    /// Makes the home by hand, for tests that begin with a broken one.
    pub fn make_home(&self) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.home)
            .expect("a temporary directory can be made");
    }

    /// The node's own log file.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.reached("log/peerloom.log")).unwrap_or_default()).into_owned()
    }

    /// The last words of the daemon and of its log, for a failure's message.
    pub fn tail(&self) -> String {
        let printed = fs::read(&self.log).unwrap_or_default();
        let printed = last_lines(&String::from_utf8_lossy(&printed));
        format!(
            "--- {} printed ---\n{printed}\n--- {} logged ---\n{}",
            self.handle,
            self.handle,
            last_lines(&self.logged())
        )
    }

    /// Runs until its own end a daemon that is expected not to come up.
    pub fn fails_to_start(&self, within: Duration) -> Answer {
        let mut process =
            Process::start(&self.handle, self.command(&["up", "--json"]), &self.home.with_extension("err"));
        let status = process.exit_status(within);
        let stdout = process.printed();
        Answer {
            command: "peerloom up --json".to_owned(),
            code: status.code().unwrap_or(-1),
            stdout,
            stderr: String::new(),
        }
    }
}

/// A text field.
#[track_caller]
fn text(value: &Value, field: &str) -> String {
    let found = value[field].as_str();
    found.unwrap_or_else(|| panic!("{field} is no text in {value}")).to_owned()
}
