//! Two daemons on one machine, connected directly, both with fsynced stores: from the API's accept
//! to the sender's `stored` event.
//!
//! 1. [`Pair::connect`]  a coordinator, two nodes, a direct path between them
//! 2. [`steady`]         an open loop at a fixed rate: calls are made when they are due, whatever
//!    became of those before
//! 3. [`pipelined`]      batches, several outstanding, until the last message is stored

mod board;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use board::Board;

use super::Stage;
use super::http::{Http, head};
use super::process::{Coordinator, Node, wait_for};
use super::report::Figure;
use super::stats::{Samples, micros_each, millis, rate};

/// Calls that may be under way at the steady rate, each on a connection of its own.
const CALLERS: usize = 32;

/// Connections that send batches.
const BATCHERS: usize = 4;

/// Arguments of `bench direct`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DirectArgs {
    /// Messages a second at the steady rate.
    #[arg(long, default_value_t = 1_000)]
    rate: usize,
    /// Seconds at the steady rate.
    #[arg(long, default_value_t = 20)]
    seconds: usize,
    /// Messages sent in batches.
    #[arg(long, default_value_t = 60_000)]
    messages: usize,
    /// Messages in a batch.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Bytes of text in a message.
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
}

impl DirectArgs {
    pub(crate) fn share(share: usize) -> Self {
        let seconds = (20 / share).max(1);
        Self { rate: 1_000, seconds, messages: 60_000 / share, batch: 512, bytes: 1_024 }
    }
}

pub(crate) fn run(stage: &Stage, args: &DirectArgs) -> anyhow::Result<Vec<Figure>> {
    let mut pair = Pair::connect(stage)?;
    let steadily = steady(&mut pair, stage, args)?;
    let cpu = |pair: &Pair| anyhow::Ok((pair.sender.cpu()?, pair.recipient.cpu()?));
    let before = cpu(&pair)?;
    let batched = pipelined(&mut pair, stage, args)?;
    let after = cpu(&pair)?;
    let sender_used = after.0.saturating_sub(before.0);
    let recipient_used = after.1.saturating_sub(before.1);
    let (latency, whole, accepts) =
        (&steadily.accept_to_stored, &steadily.due_to_stored, &steadily.due_to_accept);
    let at = format!("at {} msg/s of {} B", args.rate, args.bytes);
    Ok(vec![
        Figure::at_most(format!("accept to stored {at}, p50"), millis(latency.median()), "ms", 2.5),
        Figure::at_most(format!("accept to stored {at}, p99"), millis(latency.percentile(99)), "ms", 15.0),
        Figure::plain(format!("accept to stored {at}, max"), millis(latency.max()), "ms"),
        Figure::plain("  the call before that, p50", millis(accepts.median()), "ms"),
        Figure::plain("  the call before that, p99", millis(accepts.percentile(99)), "ms"),
        Figure::plain("  both, p50", millis(whole.median()), "ms"),
        Figure::plain("  both, p99", millis(whole.percentile(99)), "ms"),
        Figure::plain(
            "  stored over the direct link",
            100.0 * steadily.direct as f64 / latency.count() as f64,
            "%",
        ),
        Figure::at_least(
            format!("pipelined in batches of {}, until stored", args.batch),
            rate(args.messages, batched.took),
            "msg/s",
            8_000.0,
        ),
        Figure::plain("  until accepted by the API", rate(args.messages, batched.accepted), "msg/s"),
        Figure::plain("  messages", args.messages as f64, ""),
        Figure::plain("  events the reader was too slow for", batched.missed as f64, ""),
        Figure::plain("  sender's processor time a message", micros_each(args.messages, sender_used), "µs"),
        Figure::plain(
            "  recipient's processor time a message",
            micros_each(args.messages, recipient_used),
            "µs",
        ),
        Figure::plain("sender's memory afterwards", pair.sender.resident_mib()?, "MiB"),
        Figure::plain("recipient's memory afterwards", pair.recipient.resident_mib()?, "MiB"),
    ])
}

/// Two nodes with a direct path between them.
struct Pair {
    sender: Node,
    recipient: Node,
    /// Messages in the recipient's inbox.
    arrived: u64,
    _coordinator: Coordinator,
}

impl Pair {
    fn connect(stage: &Stage) -> anyhow::Result<Self> {
        stage.progress.say("two nodes");
        let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("c"))?;
        let mut sender = Node::at(&stage.binaries, stage.dir.join("a"))?;
        sender.init(&coordinator.origin, "alice")?;
        sender.up()?;
        let invite = sender.verb(&["invite"], None)?;
        let part =
            |name: &str| invite[name].as_str().with_context(|| format!("the invite has no {name}: {invite}"));
        let mut recipient = Node::at(&stage.binaries, stage.dir.join("b"))?;
        recipient.verb(&["join", part("url")?, "--name", "bob"], Some(part("code")?))?;
        recipient.up()?;
        let mut arrived = 0;
        wait_for("a direct path", || {
            let sent = sender.verb(&["send", "bob", "are we direct?"], None)?;
            ensure!(sent["state"] == "stored" || sent["state"] == "accepted", "the first message: {sent}");
            arrived += 1;
            Ok(sent["path"] == "direct")
        })?;
        Ok(Self { sender, recipient, arrived, _coordinator: coordinator })
    }

    /// Everything that was sent is in the recipient's inbox.
    fn check(&mut self, more: usize) -> anyhow::Result<()> {
        self.arrived += more as u64;
        let newest = self.recipient.inbox_newest()?;
        ensure!(newest == self.arrived, "the inbox ends at position {newest}, not {}", self.arrived);
        Ok(())
    }
}

/// Runs `work` while the sender's events are followed.
fn followed<T: Send>(
    pair: &Pair,
    stage: &Stage,
    board: &Board,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let following = scope.spawn(|| board.follow(&pair.sender, stage));
        let worked = work();
        board.all_sent.store(true, Ordering::Release);
        let followed = following.join().expect("following does not panic");
        let worked = worked?;
        followed?;
        Ok(worked)
    })
}

struct Steady {
    accept_to_stored: Samples,
    due_to_accept: Samples,
    due_to_stored: Samples,
    direct: usize,
}

/// Messages that a caller sent: number, when due, when accepted.
type Sent = Vec<(usize, Duration, Duration)>;

fn steady(pair: &mut Pair, stage: &Stage, args: &DirectArgs) -> anyhow::Result<Steady> {
    let messages = args.rate * args.seconds;
    let board = Board::new(1, messages);
    let text = "x".repeat(args.bytes);
    let apart = Duration::from_secs(1) / u32::try_from(args.rate)?;
    // All callers are connected, and the events followed, when the first message is due.
    let lead = Duration::from_millis(500);
    let call = |caller: usize| -> anyhow::Result<Sent> {
        let mut api = pair.sender.api()?;
        let mut sent = Vec::new();
        for number in (caller..messages).step_by(CALLERS) {
            let body = message(&board.id(number), &text, r#","wait":"none""#);
            let mut request = head("POST", "/v1/messages", "application/json", body.len()).into_bytes();
            request.extend_from_slice(body.as_bytes());
            let due = lead + apart * u32::try_from(number)?;
            std::thread::sleep(due.saturating_sub(board.began.elapsed()));
            api.send(&request)?;
            let answer = api.answer()?;
            sent.push((number, due, board.began.elapsed()));
            ensure!(answer.status == 200, "a message is refused: {}", answer.text()?);
        }
        Ok(sent)
    };
    let sent = followed(pair, stage, &board, || {
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || call(caller))).collect();
            let sent: Vec<_> = callers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            sent.into_iter().collect::<anyhow::Result<Vec<Sent>>>()
        })
    })?;
    let sent: Sent = sent.into_iter().flatten().collect();
    ensure!(board.is_full(), "events were missed at the steady rate: {:?}", board.missed);
    pair.check(messages)?;
    let samples =
        |of: &dyn Fn(&(usize, Duration, Duration)) -> Duration| Samples::new(sent.iter().map(of).collect());
    Ok(Steady {
        accept_to_stored: samples(&|(number, _, accepted)| {
            board.stored_at(*number).saturating_sub(*accepted)
        }),
        due_to_accept: samples(&|(_, due, accepted)| accepted.saturating_sub(*due)),
        due_to_stored: samples(&|(number, due, _)| board.stored_at(*number).saturating_sub(*due)),
        direct: board.direct.load(Ordering::Relaxed),
    })
}

struct Batched {
    /// From the first batch's accept until all is stored.
    took: Duration,
    /// From the first batch's sending until the last one's accept.
    accepted: Duration,
    missed: usize,
}

fn pipelined(pair: &mut Pair, stage: &Stage, args: &DirectArgs) -> anyhow::Result<Batched> {
    let text = "x".repeat(args.bytes);
    let mut board = Board::new(2, args.messages);
    let numbers: Vec<usize> = (0..args.messages).collect();
    let requests: Vec<Vec<u8>> = numbers
        .chunks(args.batch.max(1))
        .map(|batch| {
            let lines: Vec<String> =
                batch.iter().map(|number| message(&board.id(*number), &text, "")).collect();
            let body = lines.join("\n");
            let mut request =
                head("POST", "/v1/messages/batch", "application/x-ndjson", body.len()).into_bytes();
            request.extend_from_slice(body.as_bytes());
            request
        })
        .collect();
    board.began = Instant::now();
    let next = AtomicUsize::new(0);
    let first_accept = AtomicU64::new(u64::MAX);
    let call = |mut api: Http<std::os::unix::net::UnixStream>| -> anyhow::Result<()> {
        while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            api.send(request)?;
            let answer = api.answer()?;
            first_accept.fetch_min(board.now(), Ordering::Relaxed);
            ensure!(answer.status == 200, "a batch is refused: {}", answer.text()?);
            let text = answer.text()?;
            ensure!(
                !text.contains("\"error\""),
                "a message of a batch is refused: {}",
                text.get(..300).unwrap_or(&text)
            );
        }
        Ok(())
    };
    let accepted = followed(pair, stage, &board, || {
        std::thread::scope(|scope| {
            let mut callers = Vec::new();
            for _ in 0..BATCHERS {
                let api = pair.sender.api()?;
                let call = &call;
                callers.push(scope.spawn(move || call(api)));
            }
            let ended: Vec<_> = callers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            ended.into_iter().collect::<anyhow::Result<()>>()?;
            Ok(board.began.elapsed())
        })
    })?;
    let ended = board.began.elapsed();
    pair.check(args.messages)?;
    let first = Duration::from_micros(first_accept.into_inner());
    Ok(Batched { took: ended.saturating_sub(first), accepted, missed: board.missed.into_inner() })
}

/// A message of the API's, with more fields.
fn message(id: &str, text: &str, more: &str) -> String {
    format!(r#"{{"to":["bob"],"id":"{id}","text":"{text}"{more}}}"#)
}
