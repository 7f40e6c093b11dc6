//! Rows a second through the store, every commit synced to the disk.
//!
//! `cargo bench -p peerloom-node --bench store`. The disk's own rate of small synced writes stands
//! in the first lines: no commit is faster than that.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a bench measures time and prints it")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot write has nothing to measure")]

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerloom_node::store::{Store, Writer};
use peerloom_proto::endpoint::{InboxRow, OutboxRow, OutboxState, PathKind, Write};
use peerloom_proto::{
    BoxSecretKey, EnvHash, Fingerprint, Generation, Kid, Message, MessageId, PeerId, Priority, UnixMs, hash,
    hash16,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

struct Bench {
    runtime: Runtime,
    writer: Writer,
    next: u64,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        // Beside the build, because /tmp may be memory.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("node.db");
        let writer = runtime.block_on(async {
            Store::create(&path, &[], &BoxSecretKey::from_bytes([3; 32])).await.unwrap();
            Store::open(&path).await.unwrap().0
        });
        Self { runtime, writer, next: 1, _dir: dir }
    }

    fn commit(&mut self, writes: &[Write]) -> Duration {
        let started = Instant::now();
        self.runtime.block_on(self.writer.commit(writes, &[], UnixMs(1))).unwrap();
        started.elapsed()
    }

    fn rows(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += count;
        first..self.next
    }
}

/// The sender's side: a commit for the rows, a commit when they are stored at the recipient.
fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox: insert, then stored");
    for batch in [1, 64, 256] {
        let mut bench = Bench::new();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    let rows = bench.rows(batch);
                    let inserts: Vec<_> = rows.clone().map(|n| Write::Outbox(outbox_row(n))).collect();
                    spent += bench.commit(&inserts);
                    let states: Vec<_> = rows.map(stored).collect();
                    spent += bench.commit(&states);
                }
                spent
            });
        });
    }
    group.finish();
}

/// The recipient's side: what is known of the batch, then a commit for it.
fn inbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox: look up, insert");
    for batch in [1, 64, 256] {
        let mut bench = Bench::new();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    let rows: Vec<_> = bench.rows(batch).map(inbox_row).collect();
                    let keys: Vec<_> = rows.iter().map(|row| (row.from, row.id)).collect();
                    let inserts: Vec<_> = rows.into_iter().map(Write::Inbox).collect();
                    let started = Instant::now();
                    let seen = bench.runtime.block_on(bench.writer.seen(&keys)).unwrap();
                    spent += started.elapsed();
                    assert!(seen.iter().all(Option::is_none));
                    spent += bench.commit(&inserts);
                }
                spent
            });
        });
    }
    group.finish();
}

fn disk(_: &mut Criterion) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = File::create(dir.path().join("synced")).unwrap();
    let started = Instant::now();
    let mut writes = 0_u32;
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&[1; 4_096]).unwrap();
        file.sync_data().unwrap();
        writes += 1;
    }
    println!(
        "disk: {:.0} synced writes of 4 KiB a second",
        f64::from(writes) / started.elapsed().as_secs_f64()
    );
}

fn stored(row: u64) -> Write {
    Write::OutboxState { row, state: OutboxState::Stored, path: Some(PathKind::Direct), at: UnixMs(2) }
}

fn outbox_row(n: u64) -> OutboxRow {
    OutboxRow {
        row: n,
        id: id(n),
        to: PeerId([7; 32]),
        fp: Fingerprint(wide("fp", n)),
        generation: Generation([1; 8]),
        seq: n,
        message: message(),
        priority: Priority::Next,
        ts: UnixMs(n),
        exp: UnixMs(n + 1_000_000),
        wire: Bytes::from(vec![3; 1_024 + 560]),
        env_hash: EnvHash(wide("env", n)),
        kid: Kid([2; 16]),
        seals: 1,
        state: OutboxState::Pending,
        path: None,
    }
}

fn inbox_row(n: u64) -> InboxRow {
    InboxRow {
        row: n,
        position: Some(n),
        from: PeerId([7; 32]),
        id: id(n),
        fp: Fingerprint(wide("fp", n)),
        env_hash: EnvHash(wide("env", n)),
        generation: Generation([1; 8]),
        seq: n,
        message: message(),
        priority: Priority::Next,
        sent_at: UnixMs(n),
        exp: UnixMs(n + 1_000_000),
        received_at: UnixMs(n),
        path: PathKind::Direct,
    }
}

fn message() -> Message {
    Message { content_type: "text/plain".to_owned(), content: Bytes::from(vec![9; 1_024]), reply_to: None }
}

/// Ids are random in life, and an index feels that.
fn id(n: u64) -> MessageId {
    MessageId(hash16("bench", &[&n.to_be_bytes()]))
}

fn wide(label: &str, n: u64) -> [u8; 32] {
    hash(label, &[&n.to_be_bytes()])
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(4));
    targets = disk, outbox, inbox
}
criterion_main!(benches);
