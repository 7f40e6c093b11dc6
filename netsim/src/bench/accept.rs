//! How fast the coordinator makes mail durable, and how long one message waits for its `accepted`.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use peerloom_proto::EnvHash;

use super::Stage;
use super::mail::{Mail, Plan, accept_some, put_all, seal_all};
use super::mesh::LoadMesh;
use super::process::Coordinator;
use super::report::Figure;
use super::stats::{Samples, micros_each, millis, rate};

/// Recipients who are away. Their queues hold 100,000 messages each.
const RECIPIENTS: usize = 7;

/// Arguments of `bench accept`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AcceptArgs {
    /// Messages put as fast as they are taken.
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Sender identities, each with a connection of its own; at most 8.
    #[arg(long, default_value_t = 4)]
    senders: usize,
    /// Bytes of content in a message.
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
    /// Messages a second at the steady rate.
    #[arg(long, default_value_t = 1_000)]
    rate: usize,
    /// Seconds at the steady rate.
    #[arg(long, default_value_t = 10)]
    seconds: usize,
}

impl AcceptArgs {
    pub(crate) fn share(share: usize) -> Self {
        Self {
            messages: 200_000 / share,
            senders: 4,
            bytes: 1_024,
            rate: 1_000,
            seconds: (10 / share).max(1),
        }
    }
}

pub(crate) fn run(stage: &Stage, args: &AcceptArgs) -> anyhow::Result<Vec<Figure>> {
    ensure!((1..=8).contains(&args.senders), "1 to 8 senders, not {}", args.senders);
    let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("c"))?;
    let mesh = LoadMesh::create(&coordinator, args.senders + RECIPIENTS, &stage.progress)?;
    let (from, to): (Vec<usize>, Vec<usize>) =
        (0..args.senders + RECIPIENTS).partition(|m| *m < args.senders);
    let plan = |from, each| Plan { from, to: &to, each, content_bytes: args.bytes };

    let steady = seal_all(&mesh, plan(&from[..1], args.rate * args.seconds), &stage.progress)?;
    let latency = at_rate(&mesh, &steady[0], args.rate, stage)?;
    let mails = seal_all(&mesh, plan(&from, args.messages / args.senders), &stage.progress)?;
    let before = coordinator.process.cpu()?;
    let took = put_all(&mesh, &mails, &stage.progress)?;
    let used = coordinator.process.cpu()?.saturating_sub(before);
    let count = mails.iter().map(Mail::len).sum();

    let name =
        format!("durable mail accepted, {} B content, {} B frames", args.bytes, mails[0].frame_bytes());
    let at = format!("at {} msg/s", args.rate);
    Ok(vec![
        Figure::at_least(name, rate(count, took), "msg/s", 28_000.0),
        Figure::plain("messages", count as f64, ""),
        Figure::plain(format!("put to accepted {at}, p50"), millis(latency.median()), "ms"),
        Figure::at_most(format!("put to accepted {at}, p99"), millis(latency.percentile(99)), "ms", 5.0),
        Figure::plain(format!("put to accepted {at}, max"), millis(latency.max()), "ms"),
        Figure::plain("coordinator's processor time a message", micros_each(count, used), "µs"),
        Figure::plain("coordinator's memory afterwards", coordinator.process.resident_mib()?, "MiB"),
    ])
}

/// Puts at a steady rate whatever comes back; each message's time counts from when it was due.
fn at_rate(mesh: &LoadMesh, mail: &Mail, per_second: usize, stage: &Stage) -> anyhow::Result<Samples> {
    let mut link = mesh.hello(mail.from)?;
    let mut writer = link.writer()?;
    let numbers: HashMap<EnvHash, usize> = mail.names.iter().map(|(hash, _)| *hash).zip(0..).collect();
    // The coordinator first tells who is there; that should not meet the first message.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    let due = |index: usize| {
        began
            + Duration::from_secs(1) * u32::try_from(index).expect("few")
                / u32::try_from(per_second).expect("few")
    };
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            (0..mail.len()).try_for_each(|index| {
                std::thread::sleep(due(index).saturating_duration_since(Instant::now()));
                writer.write_all(mail.frame(index))
            })
        });
        let mut samples = Vec::with_capacity(mail.len());
        while samples.len() < mail.len() {
            let mut unknown = false;
            accept_some(&mut link, |hash| match numbers.get(hash) {
                Some(index) => samples.push(due(*index).elapsed()),
                None => unknown = true,
            })?;
            ensure!(!unknown, "the coordinator accepted what was not sent");
            stage.progress.at("steady", samples.len(), mail.len());
        }
        writing.join().expect("a writer does not panic").context("failed to write to the coordinator")?;
        link.close();
        Ok(Samples::new(samples))
    })
}
