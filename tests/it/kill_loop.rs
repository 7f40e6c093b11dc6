//! The sender, the coordinator and the recipient die at random instants under traffic. Whatever was
//! acknowledged is in the inbox in the end, once and in order. What the daemons said meanwhile is judged
//! by the checker that judges the simulator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use peerloom_tests::history::{Recorder, judge};
use peerloom_tests::wait::{pause, until};
use peerloom_tests::{Chance, CoordinatorPlan, Mesh, Plan, http};
use serde_json::{Value, json};

const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Hands message after message to the sender's daemon, each under its own id, and repeats one until
/// it is acknowledged: what every careful program does.
struct Traffic {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<usize>,
}

impl Traffic {
    fn start(socket: PathBuf, recorder: Recorder) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut next = 0;
            while !stopped.load(Ordering::SeqCst) {
                // Now one at a time, now a batch in one commit.
                let count = if next % 7 == 3 { 20 } else { 1 };
                hand_over(&socket, &recorder, next, count);
                next += count;
                counted.store(next, Ordering::SeqCst);
            }
            next
        });
        Self { acknowledged, stop, thread }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the traffic ends well")
    }
}

fn hand_over(socket: &Path, recorder: &Recorder, first: usize, count: usize) {
    let send = |n: usize| json!({"to": ["build"], "text": text(n), "id": id(n), "wait": "none"});
    (first..first + count).for_each(|n| recorder.hands_over(&id(n), LAPTOP, BUILD, &text(n)));
    let batch = Value::Array((first..first + count).map(send).collect());
    until("the sender to take a message", SETTLED_WITHIN, || {
        let answer = if count == 1 {
            http::on_socket(socket, "POST", "/v1/messages", Some(&batch[0]))?
        } else {
            http::on_socket(socket, "POST", "/v1/messages/batch", Some(&batch))?
        };
        let taken =
            answer.text().matches("\"id\":").count() >= count && !answer.text().contains("\"error\":");
        if answer.status == 200 && taken {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.text()))
        }
    });
    (first..first + count).for_each(|n| recorder.acknowledged(&id(n)));
}

/// The nodes as the history numbers them.
const HANDLES: [&str; 2] = ["laptop", "build"];
const LAPTOP: usize = 0;
const BUILD: usize = 1;

fn id(n: usize) -> String {
    format!("{n:032x}")
}

fn text(n: usize) -> String {
    format!("message {n}")
}

/// Kills one of the three; waits a moment; brings it back.
fn kill_one(mesh: &mut Mesh, chance: &mut Chance) -> &'static str {
    let down_for = Duration::from_millis(chance.below(120));
    match chance.below(3) {
        0 => {
            mesh.node_mut("laptop").kill9();
            pause(down_for);
            mesh.node_mut("laptop").start();
            "sender"
        }
        1 => {
            mesh.coordinator.kill9();
            pause(down_for);
            mesh.coordinator.start();
            "coordinator"
        }
        _ => {
            mesh.node_mut("build").kill9();
            pause(down_for);
            mesh.node_mut("build").start();
            "recipient"
        }
    }
}

#[test]
fn sixty_kills_under_traffic_lose_nothing_double_nothing_and_keep_the_order() {
    kill_under_traffic(60, Plan::of(&HANDLES));
}

#[test]
fn forty_kills_lose_nothing_when_all_mail_goes_through_the_coordinator() {
    kill_under_traffic(40, Plan::of(&HANDLES).relay_only("build"));
}

fn kill_under_traffic(kills: i32, plan: Plan) {
    let mut chance = Chance::new();
    let mut mesh = plan.coordinator(CoordinatorPlan::plain().unlimited()).start();
    let recorder = Recorder::of(&mesh, &HANDLES);
    let traffic = Traffic::start(mesh.node("laptop").socket(), recorder.clone());
    let watch = recorder.watch();
    until("traffic to flow", SETTLED_WITHIN, || {
        if traffic.acknowledged() > 20 { Ok(()) } else { Err(String::new()) }
    });

    let mut killed = std::collections::BTreeMap::new();
    for _ in 0..kills {
        pause(Duration::from_millis(20 + chance.below(250)));
        *killed.entry(kill_one(&mut mesh, &mut chance)).or_insert(0) += 1;
    }
    let acknowledged = traffic.end();

    eprintln!("{acknowledged} messages acknowledged, killed {killed:?}");
    assert_eq!(killed.values().sum::<i32>(), kills);
    let wanted: Vec<String> = (0..acknowledged).map(text).collect();
    until("every acknowledged message to be in the inbox", SETTLED_WITHIN, || {
        let found = mesh.node("build").texts();
        if found.len() >= wanted.len() {
            return Ok(());
        }
        let status = mesh.node("laptop").json(&["status"]);
        Err(format!(
            "{} of {}; {status}\n{}\n{}",
            found.len(),
            wanted.len(),
            mesh.node("laptop").tail(),
            mesh.node("build").tail()
        ))
    });
    let found = mesh.node("build").texts();
    if let Some(at) = (0..found.len().max(wanted.len())).find(|&n| found.get(n) != wanted.get(n)) {
        let near = &found[at.saturating_sub(3)..(at + 4).min(found.len())];
        panic!("message {at} of {} is not in its place: {near:?}", wanted.len());
    }
    until("the sender to know it", SETTLED_WITHIN, || {
        let status = mesh.node("laptop").json(&["status"]);
        let rows = mesh.node("laptop").api("GET", "/v1/outbox?state=open", None).json();
        let open = rows["rows"].as_array().map_or(0, Vec::len);
        if open == 0 {
            Ok(())
        } else {
            Err(format!("{open} rows open; {status}\n{}", mesh.node("laptop").tail()))
        }
    });
    watch.end();
    recorder.look();
    let history = mesh.dir().join("history.jsonl");
    recorder.write(&history);
    let (code, said) = judge(&history);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["figures"]["shown"], acknowledged, "{said}");
    eprintln!("judged {}", said["figures"]);
}
