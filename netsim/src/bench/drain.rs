//! A full mailbox is emptied: by a load recipient that signs batched receipts, and by a real node
//! that opens every message into its inbox.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Args;
use peerloom_proto::limits::RECEIPT_ROWS_MAX;
use peerloom_proto::wire::{Claim, SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{PeerId, Receipt, ReceiptRow, ReceiptStatus, SignedReceipt};

use super::Stage;
use super::link::{Link, write_frame};
use super::mail::{Mail, Plan, Tail, accept_some, put_all, seal_all, tail};
use super::mesh::LoadMesh;
use super::process::{Coordinator, Node};
use super::report::Figure;
use super::stats::{micros_each, rate};

/// Senders who filled the mailbox; receipts are batched by sender.
const SENDERS: usize = 4;

/// What the recipient claims; the coordinator bounds it further.
const CLAIM: ToCoordinator = ToCoordinator::Claim { messages: 8_192, bytes: 16 << 20 };

/// Longest a drain may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Arguments of `bench drain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DrainArgs {
    /// Messages in the mailbox; 100000 is as many as it holds.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Bytes of content in a message.
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
    /// Only one of the two.
    #[arg(long, value_enum)]
    only: Option<Recipient>,
}

/// Who empties the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Recipient {
    Load,
    Node,
}

impl DrainArgs {
    pub(crate) fn share(share: usize) -> Self {
        Self { messages: 100_000 / share, bytes: 1_024, only: None }
    }
}

pub(crate) fn run(stage: &Stage, args: &DrainArgs) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if args.only != Some(Recipient::Node) {
        figures.extend(to_load(stage, args)?);
    }
    if args.only != Some(Recipient::Load) {
        figures.extend(to_node(stage, args)?);
    }
    Ok(figures)
}

/// Members: 0 to 3 send, 4 receives, 5 gets a last message that shows what is durable.
fn to_load(stage: &Stage, args: &DrainArgs) -> anyhow::Result<Vec<Figure>> {
    let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("c"))?;
    let mesh = LoadMesh::create(&coordinator, SENDERS + 2, &stage.progress)?;
    let from: Vec<usize> = (0..SENDERS).collect();
    let plan = Plan { from: &from, to: &[SENDERS], each: args.messages / SENDERS, content_bytes: args.bytes };
    let mails = seal_all(&mesh, plan, &stage.progress)?;
    let last = Plan { from: &[SENDERS], to: &[SENDERS + 1], each: 1, content_bytes: args.bytes };
    let last = seal_all(&mesh, last, &stage.progress)?;
    put_all(&mesh, &mails, &stage.progress)?;
    let count: usize = mails.iter().map(Mail::len).sum();

    let mut drain = Drain::new(&mesh, &mails);
    let mut link = mesh.hello(SENDERS)?;
    // The coordinator first tells who is there; that is not mail.
    std::thread::sleep(Duration::from_millis(300));
    let before = coordinator.process.cpu()?;
    let began = Instant::now();
    link.send(&CLAIM)?;
    while drain.received < count {
        drain.some(&mut link)?;
        ensure!(began.elapsed() < DRAIN_TIMEOUT, "drained {} of {count} in time", drain.received);
        stage.progress.at("drained", drain.received, count);
    }
    let receipted = began.elapsed();
    // Batches become durable in order: once this message is, so are the deletions before it.
    link.write(last[0].frame(0))?;
    while accept_some(&mut link, |_| {})? == 0 {}
    let took = began.elapsed();
    let used = coordinator.process.cpu()?.saturating_sub(before);
    link.close();
    let ended = coordinator.settled_metric("receipted_total", count)?;
    ensure!(ended == count, "the coordinator counts {ended} of {count} as receipted");
    Ok(vec![
        Figure::at_least("drained to a load client, deleted durably", rate(count, took), "msg/s", 40_000.0),
        Figure::plain("drained to a load client, last receipt sent", rate(count, receipted), "msg/s"),
        Figure::plain("messages", count as f64, ""),
        Figure::plain("coordinator's processor time a message", micros_each(count, used), "µs"),
        Figure::plain("receipts", f64::from(drain.receipts), ""),
    ])
}

/// A recipient that stores nothing and says that it does.
struct Drain<'a> {
    mesh: &'a LoadMesh,
    mails: &'a [Mail],
    known: HashMap<Tail, (usize, usize)>,
    /// Rows and claims not yet receipted, one list a sender.
    owed: Vec<(Vec<ReceiptRow>, Vec<Claim>)>,
    received: usize,
    receipts: u32,
    out: Vec<u8>,
}

impl<'a> Drain<'a> {
    fn new(mesh: &'a LoadMesh, mails: &'a [Mail]) -> Self {
        let mut known = HashMap::new();
        for (sender, mail) in mails.iter().enumerate() {
            known.extend(mail.tails.iter().copied().zip((0..).map(|index| (sender, index))));
        }
        let owed = mails.iter().map(|_| (Vec::new(), Vec::new())).collect();
        Self { mesh, mails, known, owed, received: 0, receipts: 0, out: Vec::new() }
    }

    /// Takes what has arrived and receipts it: full receipts at once, the rest when nothing is left.
    fn some(&mut self, link: &mut Link) -> anyhow::Result<()> {
        let frames = link.arrived()?;
        while let Some(frame) = frames.next()? {
            let Some((claim, envelope)) = deliver(frame) else {
                skip(frame)?;
                continue;
            };
            let found = self.known.get(&tail(envelope));
            let (sender, index) = *found.context("the coordinator delivers what nobody sent")?;
            let (env_hash, id) = self.mails[sender].names[index];
            let (rows, claims) = &mut self.owed[sender];
            rows.push(ReceiptRow { env_hash, id, status: ReceiptStatus::Stored, code: None });
            claims.push(claim);
            self.received += 1;
            if rows.len() == RECEIPT_ROWS_MAX {
                self.receipt(sender);
            }
        }
        for sender in 0..self.owed.len() {
            self.receipt(sender);
        }
        link.write(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn receipt(&mut self, sender: usize) {
        let (rows, claims) = &mut self.owed[sender];
        if rows.is_empty() {
            return;
        }
        let me = &self.mesh.members[SENDERS].identity;
        let to: PeerId = self.mesh.members[self.mails[sender].from].identity.id();
        let receipt = SignedReceipt::sign(
            me,
            Receipt {
                mesh: self.mesh.roster.mesh_id(),
                by: me.id(),
                to,
                rows: std::mem::take(rows),
                ts: super::now(),
                head: self.mesh.roster.head(),
            },
        );
        let receipt = SignedBytes { stmt: receipt.stmt().clone(), sig: receipt.sig() };
        let frame = ToCoordinator::Receipt { receipt, claims: std::mem::take(claims) };
        write_frame(&mut self.out, &frame.encode());
        self.receipts += 1;
    }
}

/// A `deliver` frame's claim and envelope, without a general decoder: `[68, claim, queued, envelope]`.
fn deliver(frame: &[u8]) -> Option<(Claim, &[u8])> {
    let rest = frame.strip_prefix(&[0x84, 0x18, 68])?;
    let (claim, rest) = head_of(rest, 0)?;
    let rest = rest.strip_prefix(&[0xf5]).or_else(|| rest.strip_prefix(&[0xf4]))?;
    let (length, envelope) = head_of(rest, 2)?;
    (usize::try_from(length).ok()? == envelope.len()).then_some((claim, envelope))
}

/// The number in the head of a CBOR item of this major type.
fn head_of(bytes: &[u8], major: u8) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first >> 5 != major {
        return None;
    }
    let width = match first & 31 {
        small @ 0..24 => return Some((u64::from(small), rest)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        28..=u8::MAX => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    Some((number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// Anything but mail and presence ends a drain.
fn skip(frame: &[u8]) -> anyhow::Result<()> {
    let frame = ToNode::decode(&Bytes::copy_from_slice(frame))?;
    if !matches!(frame, ToNode::Presence { .. } | ToNode::Ping { .. }) {
        bail!("the coordinator says {frame:?} to a recipient");
    }
    Ok(())
}

fn to_node(stage: &Stage, args: &DrainArgs) -> anyhow::Result<Vec<Figure>> {
    let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("d"))?;
    let mut node = Node::at(&stage.binaries, stage.dir.join("n"))?;
    node.init(&coordinator.origin, "node")?;
    let mut mesh = LoadMesh::of_node(&coordinator, &node)?;
    mesh.grow(SENDERS, &stage.progress)?;
    let from: Vec<usize> = (1..=SENDERS).collect();
    let plan = Plan { from: &from, to: &[0], each: args.messages / SENDERS, content_bytes: args.bytes };
    let mails = seal_all(&mesh, plan, &stage.progress)?;
    put_all(&mesh, &mails, &stage.progress)?;
    let count: usize = mails.iter().map(Mail::len).sum();

    let before = coordinator.process.cpu()?;
    let began = Instant::now();
    node.spawn()?;
    let mut first = None;
    loop {
        let done = coordinator.metric("receipted_total")? as usize;
        if done > 0 && first.is_none() {
            first = Some((done, began.elapsed()));
        }
        stage.progress.at("into the inbox", done, count);
        if done >= count {
            break;
        }
        ensure!(began.elapsed() < DRAIN_TIMEOUT, "the node took {done} of {count} in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    let used = coordinator.process.cpu()?.saturating_sub(before);
    let (first_count, first_at) = first.context("the loop ends after the first receipt")?;
    let newest = node.inbox_newest()?;
    ensure!(newest as usize == count, "the inbox ends at position {newest}, not {count}");
    Ok(vec![
        Figure::at_least(
            "drained into a node's inbox, its start included",
            rate(count, took),
            "msg/s",
            8_000.0,
        ),
        Figure::plain(
            "drained into a node's inbox, from its first receipt on",
            rate(count - first_count, took.saturating_sub(first_at)),
            "msg/s",
        ),
        Figure::plain("messages", count as f64, ""),
        Figure::plain("node's processor time a message", micros_each(count, node.cpu()?), "µs"),
        Figure::plain("coordinator's processor time a message", micros_each(count, used), "µs"),
        Figure::plain("node's memory afterwards", node.resident_mib()?, "MiB"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_taken_apart_as_the_decoder_would() {
        for (claim, length) in [(0, 0), (23, 10), (24, 200), (70_000, 70_000), (5_000_000_000, 300)] {
            let envelope = Bytes::from(vec![9; length]);
            let frame =
                ToNode::Deliver { claim, queued: claim % 2 == 0, envelope: envelope.clone() }.encode();
            assert_eq!(deliver(&frame), Some((claim, &envelope[..])));
        }
    }

    #[test]
    fn other_frames_are_no_deliveries() {
        assert_eq!(deliver(&ToNode::Pong { nonce: 68 }.encode()), None);
        assert_eq!(deliver(&[]), None);
        assert_eq!(deliver(&[0x84, 0x18, 68, 0x1b, 0]), None);
    }
}
