//! What happens, step by step, and what must be true after each.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Narrator;
use super::cast::{Node, Paths, Stage};
use crate::api::shapes::{
    InboxShape, InitShape, InviteShape, JoinShape, MessageShape, PeerListShape, PeerShape, PingShape,
    SendShape,
};
use crate::failure::{Failure, Kind};

/// The whole story.
pub(super) async fn tell(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failure> {
    gather(stage, narrator).await?;
    speak(stage, narrator).await?;
    relay_only(stage, narrator).await?;
    away(stage, narrator).await
}

/// A coordinator, a mesh, an invite, a second member.
async fn gather(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failure> {
    narrator.begin("coordinator");
    let pid = stage.start_coordinator().await?;
    narrator.done(None, &format!("runs at {} (process {pid}), blind to all content", stage.origin))?;

    narrator.begin("init");
    let arguments = ["init", "demo", "--coordinator", &stage.origin, "--name", stage.laptop.name];
    let made: InitShape = stage.laptop.run(&arguments).await?;
    stage.laptop.switch_on(Paths::All).await?;
    narrator.done(None, &format!("laptop made the mesh demo ({}) and is up", &made.mesh.id[..8]))?;

    narrator.begin("invite");
    let invite: InviteShape = retry_while_connecting(&stage.laptop, &["invite"]).await?;
    narrator
        .done(None, &format!("laptop invites: {}, and a code that the coordinator never sees", invite.url))?;

    narrator.begin("join");
    let arguments = ["join", &invite.url, "--name", stage.build.name];
    let joined: JoinShape = stage.build.run_with(&arguments, &invite.code).await?;
    stage.build.switch_on(Paths::All).await?;
    wait_online(&stage.laptop, stage.build.name).await?;
    wait_online(&stage.build, stage.laptop.name).await?;
    narrator.done(None, &format!("build joined as {} with the code; both are online", joined.me.handle))
}

/// The first message goes over the relay at once; the direct path follows.
async fn speak(stage: &Stage, narrator: &mut Narrator) -> Result<(), Failure> {
    narrator.begin("first");
    let sent = say(&stage.laptop, &stage.build, "hello from laptop").await?;
    let path = path_of(&sent);
    narrator.done(
        Some(path),
        &format!("first message stored at build in {} ms, waiting for nothing", sent.elapsed_ms),
    )?;

    narrator.begin("direct");
    let pong: PingShape = stage.laptop.run(&["ping", stage.build.name, "--timeout", "10s"]).await?;
    if !pong.direct {
        let why = pong.why_not_direct.unwrap_or_else(|| "no reason given".to_owned());
        return Err(Failure::new(Kind::Failed, "not-direct", format!("no direct path: {why}")));
    }
    wait_path(&stage.laptop, stage.build.name, "direct").await?;
    wait_path(&stage.build, stage.laptop.name, "direct").await?;
    let remote = pong.remote.unwrap_or_default();
    narrator.done(Some("direct"), &format!("a direct path is up: {}", rtts(&pong.samples, &remote)))?;

    narrator.begin("direct-there");
    let sent = say_over(&stage.laptop, &stage.build, "directly to build", "direct").await?;
    narrator.done(Some("direct"), &format!("laptop to build, stored in {} ms", sent.elapsed_ms))?;
    narrator.begin("direct-back");
    let sent = say_over(&stage.build, &stage.laptop, "directly to laptop", "direct").await?;
    narrator.done(Some("direct"), &format!("build to laptop, stored in {} ms", sent.elapsed_ms))
}

/// Without direct links the same messages go through the coordinator.
async fn relay_only(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failure> {
    narrator.begin("no-direct");
    stage.build.switch_off().await?;
    stage.build.switch_on(Paths::RelayOnly).await?;
    wait_online(&stage.build, stage.laptop.name).await?;
    wait_path(&stage.laptop, stage.build.name, "relay").await?;
    wait_path(&stage.build, stage.laptop.name, "relay").await?;
    narrator.done(None, "build is back, as if no direct path could be had")?;

    narrator.begin("relay-there");
    let sent = say_over(&stage.laptop, &stage.build, "relayed to build", "relay").await?;
    narrator.done(Some("relay"), &format!("laptop to build, stored in {} ms", sent.elapsed_ms))?;
    narrator.begin("relay-back");
    let sent = say_over(&stage.build, &stage.laptop, "relayed to laptop", "relay").await?;
    narrator.done(Some("relay"), &format!("build to laptop, stored in {} ms", sent.elapsed_ms))
}

/// Mail for a node that is off waits at the coordinator.
async fn away(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failure> {
    narrator.begin("off");
    stage.build.switch_off().await?;
    narrator.done(None, "build is switched off")?;

    narrator.begin("queued");
    let text = "read this when you are back";
    let arguments = ["send", stage.build.name, text, "--wait", "accepted"];
    let sent: SendShape = stage.laptop.run(&arguments).await?;
    if sent.state != "accepted" {
        return Err(unexpected("the state", &sent.state, "accepted"));
    }
    narrator.done(
        Some("queue"),
        &format!("the coordinator has the sealed message on disk after {} ms", sent.elapsed_ms),
    )?;

    narrator.begin("on");
    stage.build.switch_on(Paths::All).await?;
    let message = wait_read(&stage.build, &sent.id).await?;
    if message.text.as_deref() != Some(text) {
        return Err(unexpected("the text", message.text.as_deref().unwrap_or_default(), text));
    }
    wait_stored(&stage.laptop, &sent.id).await?;
    narrator.done(Some(&message.path), "build is back and has it; laptop knows that it is stored")
}

/// Sends, waits until it is stored, and reads it at the other end.
async fn say(from: &Node, to: &Node, text: &str) -> Result<SendShape, Failure> {
    let sent: SendShape = from.run(&["send", to.name, text]).await?;
    if sent.state != "stored" && sent.state != "surfaced" {
        return Err(unexpected("the state", &sent.state, "stored"));
    }
    let message = wait_read(to, &sent.id).await?;
    if message.text.as_deref() != Some(text) || message.from.handle != from.name {
        return Err(unexpected("the message", message.text.as_deref().unwrap_or_default(), text));
    }
    Ok(sent)
}

async fn say_over(from: &Node, to: &Node, text: &str, path: &str) -> Result<SendShape, Failure> {
    let sent = say(from, to, text).await?;
    if path_of(&sent) == path { Ok(sent) } else { Err(unexpected("the path", path_of(&sent), path)) }
}

fn path_of(sent: &SendShape) -> &str {
    sent.path.as_deref().unwrap_or("none")
}

/// Waits until a message stands in the inbox.
async fn wait_read(node: &Node, id: &str) -> Result<InboxShape, Failure> {
    let deadline = Instant::now() + WAIT;
    loop {
        let messages: Vec<InboxShape> = node.run_lines(&["inbox"]).await?;
        let mut found: Vec<InboxShape> = messages.into_iter().filter(|message| message.id == id).collect();
        match (found.pop(), found.pop()) {
            (Some(message), None) => return Ok(message),
            (_, Some(_)) => return Err(unexpected("the number of copies", "2", "1")),
            (None, None) if Instant::now() >= deadline => {
                return Err(late(&format!("message {id} in the inbox of {}", node.name)));
            }
            (None, None) => sleep(LOOK_AGAIN).await,
        }
    }
}

async fn wait_stored(node: &Node, id: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + WAIT;
    loop {
        let message: MessageShape = node.run(&["message", id]).await?;
        if message
            .recipients
            .iter()
            .all(|recipient| matches!(recipient.state.as_str(), "stored" | "surfaced"))
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late(&format!("the receipt for {id} at {}", node.name)));
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn wait_online(node: &Node, peer: &str) -> Result<(), Failure> {
    wait_peer(node, peer, "online", |found| found.online).await
}

async fn wait_path(node: &Node, peer: &str, path: &str) -> Result<(), Failure> {
    wait_peer(node, peer, path, |found| found.path == path).await
}

async fn wait_peer(
    node: &Node,
    peer: &str,
    what: &str,
    wanted: impl Fn(&PeerShape) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + WAIT;
    loop {
        let list: PeerListShape = node.run(&["peers"]).await?;
        if list.peers.iter().any(|found| found.handle == peer && wanted(found)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late(&format!("{peer} ({what}) at {}", node.name)));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// A node that has just started may not have reached its coordinator yet.
async fn retry_while_connecting<T: serde::de::DeserializeOwned>(
    node: &Node,
    arguments: &[&str],
) -> Result<T, Failure> {
    let deadline = Instant::now() + WAIT;
    loop {
        match node.run(arguments).await {
            Err(failure) if failure.code == "coordinator-away" && Instant::now() < deadline => {
                sleep(LOOK_AGAIN).await
            }
            other => return other,
        }
    }
}

fn rtts(samples: &[crate::api::shapes::SampleShape], remote: &str) -> String {
    let best = |path: &str| {
        let taken = samples.iter().filter(|sample| sample.path == path).filter_map(|sample| sample.rtt_ms);
        taken.min_by(f64::total_cmp)
    };
    let shown = |rtt: Option<f64>| rtt.map_or_else(|| "?".to_owned(), crate::render::time::round_trip);
    format!("relay {}, direct {} to {remote}", shown(best("relay")), shown(best("direct")))
}

fn unexpected(what: &str, found: &str, expected: &str) -> Failure {
    Failure::new(Kind::Failed, "demo", format!("{what} is {found:?}, expected {expected:?}"))
}

fn late(what: &str) -> Failure {
    Failure::new(Kind::TimedOut, "demo", format!("{what} did not come within {} s", WAIT.as_secs()))
}

/// Longest wait for one thing.
const WAIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
