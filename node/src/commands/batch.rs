//! `send --batch`: JSON lines from standard input, many to a commit, answers in the same order.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, IsTerminal};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Caller, DONE, Ended};
use crate::api::client::{Client, Events};
use crate::api::shapes::{BatchAnswer, EventShape, MessageShape, PeerListShape, Wait};
use crate::cli::SendArgs;
use crate::failure::{Failure, Kind};
use crate::render::progress::Progress;

pub(super) async fn batch(caller: &Caller, args: &SendArgs) -> Ended {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("--batch reads JSON lines from standard input, which is a terminal")
            .next("peerloom send --batch < messages.jsonl"));
    }
    let client = caller.client()?;
    let wait = args.wait.unwrap_or(Wait::None);
    // Before the first message: an event between the two must not be missed.
    let events = match wait {
        Wait::None => None,
        Wait::Stored | Wait::Accepted => Some(client.events(&[("types", Some("outbox".to_owned()))]).await?),
    };
    let bar = Progress::count(caller.out, "messages recorded");
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, stdin);
    let mut tally = Tally { waits: events.is_some(), ..Tally::default() };
    while let Some(chunk) = read_chunk(&mut reader)? {
        let answers = client.post_lines("/v1/messages/batch", chunk).await?;
        for line in answers.lines() {
            let answer: BatchAnswer = serde_json::from_str(line)
                .map_err(|error| Failure::new(Kind::Failed, "api", format!("the daemon's answer is not understood: {error}")))?;
            bar.advance(1);
            caller.out.json(&answer)?;
            tally.take(answer);
        }
    }
    drop(bar);
    if let Some(events) = events {
        follow(caller, &client, events, &mut tally, wait, args.timeout).await?;
    }
    finish(caller, &tally)
}

/// What came of a batch so far.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    failures: Vec<Failure>,
    /// Whether deliveries are waited for.
    waits: bool,
    /// Message and recipient still waited for.
    open: BTreeSet<(String, String)>,
}

impl Tally {
    fn take(&mut self, answer: BatchAnswer) {
        match answer {
            BatchAnswer::Sent(sent) => {
                self.sent += 1;
                if self.waits {
                    self.open.extend(sent.recipients.into_iter().map(|recipient| (sent.id.clone(), recipient.handle)));
                }
            }
            BatchAnswer::Failed(document) => {
                // The class is in the exit code; the status inside a batch is the batch's own.
                self.failures.push(Failure::from_json(0, document));
            }
        }
    }
}

/// Lines up to a commit's worth; fewer when no more are there yet, so that a slow writer's messages
/// do not wait for each other. None at the end.
fn read_chunk(reader: &mut BufReader<std::io::Stdin>) -> Result<Option<String>, Failure> {
    let mut chunk = String::new();
    let mut lines = 0;
    loop {
        let before = chunk.len();
        let read = reader.read_line(&mut chunk).map_err(|error| Failure::failed("stdin", &error))?;
        if read == 0 {
            break;
        }
        if chunk[before..].trim().is_empty() {
            chunk.truncate(before);
        } else {
            lines += 1;
        }
        if lines == CHUNK_LINES_MAX || chunk.len() >= CHUNK_BYTES || (lines > 0 && !reader.buffer().contains(&b'\n')) {
            break;
        }
    }
    Ok((lines > 0).then_some(chunk))
}

/// Watches until everything is where it was waited for, or time is up.
async fn follow(
    caller: &Caller,
    client: &Client,
    mut events: Events,
    tally: &mut Tally,
    wait: Wait,
    timeout: Duration,
) -> Result<(), Failure> {
    let total = u64::try_from(tally.open.len()).unwrap_or(u64::MAX);
    let bar = Progress::of(caller.out, total, "delivered");
    let deadline = Instant::now() + timeout;
    // What happened before the stream was read from may have been too much for it.
    let mut away = read_again(client, tally, wait).await?;
    let mut looked = Instant::now();
    while !tally.open.is_empty() && Instant::now() < deadline {
        let Ok(event) = timeout_at(deadline.min(looked + LOOK_AGAIN), events.next()).await else {
            away = read_away(client).await?;
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                away = read_again(client, tally, wait).await?;
            }
            continue;
        };
        let Some(event) = event? else { break };
        match serde_json::from_str(&event.data) {
            Ok(EventShape::Outbox { id, recipient }) => {
                if reached(&recipient.state, wait, away.contains(&recipient.handle))
                    && tally.open.remove(&(id, recipient.handle))
                {
                    bar.advance(1);
                }
            }
            Ok(EventShape::Lagged { .. }) => away = read_again(client, tally, wait).await?,
            // Others were not asked for, and newer daemons may know more of them.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Strikes what is where it should be off the list; gives who is away.
async fn read_again(client: &Client, tally: &mut Tally, wait: Wait) -> Result<BTreeSet<String>, Failure> {
    let away = read_away(client).await?;
    let ids: BTreeSet<String> = tally.open.iter().map(|(id, _)| id.clone()).collect();
    for id in ids {
        let message: MessageShape = client.get(&format!("/v1/messages/{id}"), &[]).await?;
        for recipient in message.recipients {
            if reached(&recipient.state, wait, away.contains(&recipient.handle)) {
                tally.open.remove(&(id.clone(), recipient.handle));
            }
        }
    }
    Ok(away)
}

async fn read_away(client: &Client) -> Result<BTreeSet<String>, Failure> {
    let list: PeerListShape = client.get("/v1/peers", &[]).await?;
    Ok(list.peers.into_iter().filter(|peer| !peer.online).map(|peer| peer.handle).collect())
}

fn reached(state: &str, wait: Wait, is_away: bool) -> bool {
    match state {
        "queued" | "in-flight" => false,
        "accepted" => wait == Wait::Accepted || is_away,
        _ => true,
    }
}

fn finish(caller: &Caller, tally: &Tally) -> Ended {
    let Tally { sent, failures, open, .. } = tally;
    caller.out.line(format!("{sent} recorded, {} refused, {} still open", failures.len(), open.len()))?;
    for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
        caller.out.note(format!("error: {}", failure.text));
    }
    if let Some(failure) = failures.first() {
        if !failure.next.is_empty() {
            caller.out.next(&failure.next);
        }
        return Ok(failure.kind.exit_code());
    }
    caller.out.next("peerloom outbox list");
    Ok(if open.is_empty() { DONE } else { Kind::TimedOut.exit_code() })
}

/// A commit's worth of messages.
const CHUNK_LINES_MAX: usize = 512;
/// Beyond this a chunk is sent whatever its lines.
const CHUNK_BYTES: usize = 4 << 20;
/// Between two looks at who is away and what was missed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The rest is in the JSON answers.
const FAILURES_SHOWN_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_is_enough_for_someone_away_and_for_who_asked_for_no_more() {
        assert!(reached("accepted", Wait::Stored, true));
        assert!(!reached("accepted", Wait::Stored, false));
        assert!(reached("accepted", Wait::Accepted, false));
        assert!(reached("stored", Wait::Stored, false));
        assert!(!reached("in-flight", Wait::Accepted, true));
    }
}
