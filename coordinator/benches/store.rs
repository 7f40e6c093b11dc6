//! The store alone: durable rows a second by batch size, and deletes a second of a drain. One
//! fsync a batch; compare with the disk's own rate, which the first benchmark prints.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerloom_coordinator::store::{Identity, MailKind, MailRow, Store, Write};
use peerloom_proto::{EnvHash, MeshId, PeerId, UnixMs};
use tokio::runtime::Runtime;

/// A short message sealed: header, 1 KiB of ciphertext, signature.
const ENVELOPE_BYTES: usize = 1_500;

/// Recipients the rows are spread over.
const QUEUES: u64 = 16;

fn put(seq: u64) -> Write {
    let mut env_hash = [0; 32];
    env_hash[..8].copy_from_slice(&seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Write::PutMail(MailRow {
        seq,
        mesh: MeshId([1; 32]),
        to: queue(seq),
        from: PeerId([9; 32]),
        kind: MailKind::Envelope,
        env_hash: EnvHash(env_hash),
        priority: 1,
        exp: UnixMs(1_800_000_000_000 + seq),
        bytes: Bytes::from(vec![0xab; ENVELOPE_BYTES]),
    })
}

fn delete(seq: u64) -> Write {
    Write::DeleteMail { seq, mesh: MeshId([1; 32]), to: queue(seq), env_hash: None }
}

fn queue(seq: u64) -> PeerId {
    let mut id = [2; 32];
    id[0] = u8::try_from(seq % QUEUES).expect("a small remainder");
    PeerId(id)
}

struct Bench {
    runtime: Runtime,
    store: Store,
    next: u64,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let store = runtime.block_on(Store::open(dir.path(), Identity::None)).expect("a store");
        Self { runtime, store, next: 1 << 40, dir }
    }

    fn take(&mut self, rows: u64, write: fn(u64) -> Write) -> Vec<Write> {
        let first = self.next;
        self.next += rows;
        (first..self.next).map(write).collect()
    }

    fn commit(&mut self, batch: &[Write]) -> Duration {
        let started = Instant::now();
        self.runtime.block_on(self.store.commit(batch)).expect("a commit");
        started.elapsed()
    }
}

fn fsync(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = File::create(dir.path().join("file")).expect("a file");
    criterion.bench_function("fsync of an appended 4 KiB", |bencher| {
        bencher.iter(|| {
            file.write_all(&[7; 4096]).expect("a write");
            file.sync_data().expect("a sync");
        });
    });
}

fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put");
    group.measurement_time(Duration::from_secs(6));
    for rows in [1, 64, 256, 1024] {
        let mut bench = Bench::new();
        let mut slowest = Duration::ZERO;
        group.throughput(Throughput::Elements(rows));
        group.bench_function(BenchmarkId::new("rows a commit", rows), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let batch = bench.take(rows, put);
                        let took = bench.commit(black_box(&batch));
                        slowest = slowest.max(took);
                        took
                    })
                    .sum()
            });
        });
        let wal = std::fs::metadata(bench.dir.path().join("state.db-wal")).map_or(0, |found| found.len());
        eprintln!("{rows} rows a commit: slowest commit {slowest:?}, write-ahead log {} KiB", wal >> 10);
    }
    group.finish();
}

fn deletes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delete");
    group.measurement_time(Duration::from_secs(6));
    for rows in [256_u64, 1024] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(BenchmarkId::new("rows a commit", rows), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut bench = Bench::new();
                let first = bench.next;
                for _ in 0..iterations {
                    let batch = bench.take(rows, put);
                    bench.commit(&batch);
                }
                bench.next = first;
                (0..iterations)
                    .map(|_| {
                        let batch = bench.take(rows, delete);
                        bench.commit(black_box(&batch))
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let mut bench = Bench::new();
    for _ in 0..100 {
        let batch = bench.take(1_000, put);
        bench.commit(&batch);
    }
    let reader = bench.store.reader();
    group.throughput(Throughput::Elements(1_024));
    group.bench_function("1024 rows of a queue", |bencher| {
        bencher.iter(|| {
            let rows = bench.runtime.block_on(reader.mail(MeshId([1; 32]), queue(3), None, 1_024, u64::MAX));
            assert_eq!(rows.expect("a read").len(), 1_024);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1));
    targets = fsync, puts, deletes, reads
}
criterion_main!(benches);
