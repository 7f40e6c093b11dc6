//! `send --batch`: JSON lines from standard input, many to a commit, answers in the same order.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, IsTerminal};
use std::time::Duration;

use peerloom_proto::limits::OUTBOX_MESSAGES_MAX;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{Caller, DONE, Ended};
use crate::api::client::Client;
use crate::api::shapes::{BatchAnswer, EventShape, OutboxPage, PeerListShape, Wait};
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
        Wait::Stored | Wait::Accepted => Some(watch(&client).await?),
    };
    let bar = Progress::count(caller.out, "messages recorded");
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, stdin);
    let mut tally = Tally { waits: events.is_some(), ..Tally::default() };
    while let Some(chunk) = read_chunk(&mut reader)? {
        let answers = client.post_lines("/v1/messages/batch", chunk).await?;
        for line in answers.lines() {
            let answer: BatchAnswer = serde_json::from_str(line).map_err(|error| {
                Failure::new(Kind::Failed, "api", format!("the daemon's answer is not understood: {error}"))
            })?;
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
                    self.open.extend(
                        sent.recipients.into_iter().map(|recipient| (sent.id.clone(), recipient.handle)),
                    );
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
        if lines == CHUNK_LINES_MAX
            || chunk.len() >= CHUNK_BYTES
            || (lines > 0 && !reader.buffer().contains(&b'\n'))
        {
            break;
        }
    }
    Ok((lines > 0).then_some(chunk))
}

/// Watches until everything is where it was waited for, or time is up.
async fn follow(
    caller: &Caller,
    client: &Client,
    mut events: Watcher,
    tally: &mut Tally,
    wait: Wait,
    timeout: Duration,
) -> Result<(), Failure> {
    let bar = Progress::of(caller.out, u64::try_from(tally.open.len()).unwrap_or(u64::MAX), "delivered");
    let deadline = Instant::now() + timeout;
    let mut away = read_away(client).await?;
    let mut look = Instant::now() + LOOK_AGAIN;
    while !tally.open.is_empty() && Instant::now() < deadline {
        let Ok(event) = timeout_at(deadline.min(look), events.recv()).await else {
            away = read_away(client).await?;
            read_again(client, tally, wait, &away).await?;
            look = Instant::now() + LOOK_AGAIN;
            continue;
        };
        match event {
            Some(Ok(EventShape::Outbox { id, recipient })) => {
                if reached(&recipient.state, wait, away.contains(&recipient.handle))
                    && tally.open.remove(&(id, recipient.handle))
                {
                    bar.advance(1);
                }
            }
            // What was missed is found at the next look; nothing else was asked for.
            Some(Ok(_)) => {}
            Some(Err(failure)) => return Err(failure),
            None => break,
        }
    }
    Ok(())
}

/// Strikes what is where it should be off the list: whatever the outbox no longer has open.
async fn read_again(
    client: &Client,
    tally: &mut Tally,
    wait: Wait,
    away: &BTreeSet<String>,
) -> Result<(), Failure> {
    let query = [("state", Some("open".to_owned())), ("limit", Some(OUTBOX_MESSAGES_MAX.to_string()))];
    let page: OutboxPage = client.get("/v1/outbox", &query).await?;
    let waiting =
        page.rows.into_iter().filter(|row| !reached(&row.state, wait, away.contains(&row.to.handle)));
    let waiting: BTreeSet<(String, String)> = waiting.map(|row| (row.id, row.to.handle)).collect();
    tally.open.retain(|sent| waiting.contains(sent));
    Ok(())
}

async fn read_away(client: &Client) -> Result<BTreeSet<String>, Failure> {
    let list: PeerListShape = client.get("/v1/peers", &[]).await?;
    Ok(list.peers.into_iter().filter(|peer| !peer.online).map(|peer| peer.handle).collect())
}

/// Events as they came while messages were still being handed over.
type Watcher = mpsc::UnboundedReceiver<Result<EventShape, Failure>>;

/// Reads the stream from its beginning on: a reader that came only afterwards would have made it lag.
async fn watch(client: &Client) -> Result<Watcher, Failure> {
    let mut events = client.events(&[("types", Some("outbox".to_owned()))]).await?;
    let (seen, watcher) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => serde_json::from_str(&event.data).map_err(|error| {
                    Failure::new(Kind::Failed, "api", format!("an event is not understood: {error}"))
                }),
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            if seen.send(event).is_err() {
                return;
            }
        }
    });
    Ok(watcher)
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
