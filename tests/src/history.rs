//! The history of real daemons in the shape of `netsim/src/history.rs`, and the checker that judges both.
//!
//! What programs do (hand over, be answered, read) is noted when they did it. What the daemons say of
//! themselves (received, delivered) is noted at the instant they give: all run on one machine and one
//! clock. Instants are whole milliseconds, since the daemons' are; of one millisecond what was received
//! stands first and what was said of a delivery last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerloom_proto::limits::OUTBOX_MESSAGES_MAX;
use serde_json::{Value, json};

use crate::wait::pause;
use crate::{Mesh, Node, http, run};

/// Notes what happens. Clones note in the same history.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Noted>>);

#[derive(Debug)]
struct Noted {
    begun_ms: u64,
    /// Key and API socket of each node; nodes are numbered by this order.
    nodes: Vec<(String, PathBuf)>,
    messages: Vec<Planned>,
    numbers: BTreeMap<String, usize>,
    facts: Vec<(u64, Rank, Value)>,
    told: BTreeSet<(usize, String)>,
    /// Each node's reader: the last position it passed.
    cursors: Vec<u64>,
}

#[derive(Debug)]
struct Planned {
    id: String,
    from: usize,
    to: usize,
    text: String,
}

/// What stands first in one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Received,
    Done,
    Said,
}

/// The reader's name at the daemons.
const CURSOR: &str = "history";

/// Between two looks at every node.
const LOOK_EVERY: Duration = Duration::from_millis(30);

impl Recorder {
    /// Of these nodes, which are up.
    #[track_caller]
    pub fn of(mesh: &Mesh, handles: &[&str]) -> Self {
        let nodes: Vec<_> = handles.iter().map(|handle| mesh.node(handle)).map(key_and_socket).collect();
        Self(Arc::new(Mutex::new(Noted {
            begun_ms: now_ms(),
            cursors: vec![0; nodes.len()],
            nodes,
            messages: Vec::new(),
            numbers: BTreeMap::new(),
            facts: Vec::new(),
            told: BTreeSet::new(),
        })))
    }

    /// A program is about to hand a message over, nodes by number.
    pub fn hands_over(&self, id: &str, from: usize, to: usize, text: &str) {
        let mut noted = self.noted();
        let number = noted.messages.len();
        noted.numbers.insert(id.to_owned(), number);
        noted.messages.push(Planned { id: id.to_owned(), from, to, text: text.to_owned() });
        noted.note(now_ms(), Rank::Done, json!({"kind": "submitted", "message": number}));
    }

    /// The program was told that it is in the outbox.
    pub fn acknowledged(&self, id: &str) {
        let mut noted = self.noted();
        let number = noted.numbers[id];
        noted.note(now_ms(), Rank::Done, json!({"kind": "acknowledged", "message": number}));
    }

    /// Reads and asks at every node, again and again, until [`Watch::end`].
    pub fn watch(&self) -> Watch {
        let (recorder, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                recorder.look();
                pause(LOOK_EVERY);
            }
        });
        Watch { stop, thread }
    }

    /// Once at every node: takes what came, says that it was read, and asks what became of what was sent.
    /// A node that is down has nothing to say; its reader goes on later.
    pub fn look(&self) {
        let nodes = self.noted().nodes.clone();
        for (node, (_, socket)) in nodes.iter().enumerate() {
            let seen = self.read(node, socket).and_then(|()| self.ask(node, socket));
            // The daemon may be dead, or die while it answers.
            seen.unwrap_or(());
        }
    }

    fn read(&self, node: usize, socket: &Path) -> Result<(), String> {
        let after = self.noted().cursors[node];
        let page = get(socket, &format!("/v1/inbox?after={after}&limit=1000"))?;
        let Some(messages) = page["messages"].as_array().filter(|messages| !messages.is_empty()) else {
            return Ok(());
        };
        let last = {
            let mut noted = self.noted();
            messages.iter().for_each(|message| noted.came(node, message));
            noted.cursors[node] = page["next_after"].as_u64().ok_or("a page without its end")?;
            noted.cursors[node]
        };
        let passed = json!({"position": last});
        http::on_socket(socket, "PUT", &format!("/v1/cursors/{CURSOR}"), Some(&passed)).map(drop)
    }

    fn ask(&self, node: usize, socket: &Path) -> Result<(), String> {
        let status = get(socket, "/v1/status")?;
        let outbox = get(socket, "/v1/outbox?state=all&limit=1000")?;
        let mut noted = self.noted();
        let head = &status["mesh"]["head"];
        let head = json!({"kind": "head", "node": node, "size": head["size"], "hash": head["hash"]});
        noted.note(now_ms(), Rank::Done, head);
        let depth = json!({"kind": "depth", "what": "open outbox rows", "place": format!("node {node}"),
            "count": status["outbox"]["pending"], "limit": OUTBOX_MESSAGES_MAX});
        noted.note(now_ms(), Rank::Done, depth);
        for row in outbox["rows"].as_array().into_iter().flatten() {
            noted.said(row);
        }
        Ok(())
    }

    /// Writes it to a file, with what is still under way at the nodes.
    ///
    /// # Panics
    /// When a node is down, or the file cannot be written.
    #[track_caller]
    pub fn write(&self, to: &Path) {
        let mut left = Vec::new();
        for (node, (_, socket)) in self.noted().nodes.clone().iter().enumerate() {
            let open = get(socket, "/v1/outbox?state=open&limit=1000").expect("the node is up");
            for row in open["rows"].as_array().expect("rows are a list") {
                left.push(format!("node {node}'s row for {} is {}", row["id"], row["state"]));
            }
            let unread = get(socket, &format!("/v1/inbox?cursor={CURSOR}&limit=1")).expect("the node is up");
            if unread["messages"].as_array().is_none_or(|messages| !messages.is_empty()) {
                left.push(format!("node {node} has mail that nobody read"));
            }
        }
        let text: String = self.noted().lines(&left).iter().map(|line| format!("{line}\n")).collect();
        fs::write(to, text).expect("a temporary directory can be written");
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("no thread that notes has panicked")
    }
}

/// A thread that looks.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Stops looking.
    pub fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch ends well");
    }
}

impl Noted {
    fn note(&mut self, at_ms: u64, rank: Rank, fact: Value) {
        self.facts.push((at_ms.saturating_sub(self.begun_ms), rank, fact));
    }

    /// A reader sees a message.
    fn came(&mut self, node: usize, message: &Value) {
        let id = message["id"].as_str().unwrap_or_default();
        let sent = self.numbers.get(id).copied().filter(|number| {
            let planned = &self.messages[*number];
            message["text"] == planned.text && message["from"]["key"] == self.nodes[planned.from].0
        });
        let Some(number) = sent else {
            let what = format!("{id}, which nobody sent so");
            let strange = json!({"kind": "strange", "node": node, "what": what});
            return self.note(now_ms(), Rank::Done, strange);
        };
        let kept = json!({"kind": "kept", "node": node, "message": number, "path": message["path"]});
        self.note(message["received_at_ms"].as_u64().unwrap_or_default(), Rank::Received, kept);
        self.note(now_ms(), Rank::Done, json!({"kind": "shown", "node": node, "message": number}));
    }

    /// The sender's daemon says where a message is.
    fn said(&mut self, row: &Value) {
        let (id, state) = (row["id"].as_str(), row["state"].as_str().unwrap_or_default());
        let Some(number) = id.and_then(|id| self.numbers.get(id).copied()) else { return };
        if self.told.insert((number, state.to_owned())) {
            let told = json!({"kind": "told", "message": number, "state": state, "code": row["code"]});
            self.note(row["at_ms"].as_u64().unwrap_or_default(), Rank::Said, told);
        }
    }

    fn lines(&self, left: &[String]) -> Vec<Value> {
        let members: Vec<&String> = self.nodes.iter().map(|(key, _)| key).collect();
        let mut lines = vec![json!({"kind": "header", "schema_version": 1, "source": "daemons",
            "scenario": std::thread::current().name(), "seed": null, "members": members})];
        lines.extend(self.messages.iter().enumerate().map(|(number, planned)| {
            json!({"kind": "message", "message": number, "id": planned.id, "from": planned.from, "to": planned.to})
        }));
        let mut facts: Vec<_> = self.facts.iter().collect();
        // Stable: what one observer did stays in the order it did it.
        facts.sort_by_key(|(at, rank, _)| (*at, *rank));
        for (at, _, fact) in &facts {
            let mut fact = fact.clone();
            fact["at_us"] = json!(at * 1_000);
            lines.push(fact);
        }
        let end = facts.last().map_or(0, |(at, ..)| at * 1_000);
        lines.push(json!({"kind": "end", "at_us": end, "revoked": [], "left": left}));
        lines
    }
}

/// What `tests/history/check.py` says of a history: its exit code, and its JSON or what it complained of.
///
/// # Panics
/// When python3 cannot be started: without it there is no such judgement, and that must be seen.
#[track_caller]
pub fn judge(history: &Path) -> (i32, Value) {
    let mut command = Command::new("python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("history/check.py");
    command.arg("-B").arg(script).arg("--json").arg(history);
    let answer = run(command, b"");
    let said = serde_json::from_str(&answer.stdout).unwrap_or(Value::String(answer.stderr));
    (answer.code, said)
}

fn key_and_socket(node: &Node) -> (String, PathBuf) {
    let status = node.api("GET", "/v1/status", None).json();
    let key = status["me"]["member"].as_str().expect("a node in a mesh has a key");
    (key.to_owned(), node.socket())
}

fn get(socket: &Path, path: &str) -> Result<Value, String> {
    let answer = http::on_socket(socket, "GET", path, None)?;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit 64 bits")
}
