//! What a link costs over what carries it: a round trip, frames of 1 KiB, bulk, and bulk that is sealed;
//! QUIC beside bare quinn, WebRTC beside bare webrtc, on loopback, in one run.
//!
//! `cargo bench -p peerloom-transports` · the ratios stand in target/criterion/report

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "transports/ends.rs"]
mod ends;
#[path = "transports/sealing.rs"]
mod sealing;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

use self::ends::Pair;
use self::sealing::Sealing;

const FRAME_BYTES: usize = 1 << 10;
const FRAMES: usize = 4096;
const BATCH: usize = 64;

const BULK_PIECE_BYTES: usize = 64 << 10;
const BULK_PIECES: usize = 256;

fn pairs(runtime: &Runtime) -> [(&'static str, Pair); 4] {
    runtime.block_on(async {
        let (webrtc, took) = ends::webrtc_link().await;
        eprintln!("a WebRTC link opened in {took:?}");
        [
            ("quic_link", ends::quic_link().await),
            ("bare_quinn", ends::bare_quinn().await),
            ("webrtc_link", webrtc),
            ("bare_webrtc", ends::bare_webrtc().await),
        ]
    })
}

fn round_trip(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("round_trip_of_1_kib");
    let frame = Bytes::from(vec![7; FRAME_BYTES]);
    for (name, pair) in pairs(&runtime) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    pair.near.say(vec![frame.clone()]).await;
                    pair.far.take(FRAME_BYTES).await;
                    pair.far.say(vec![frame.clone()]).await;
                    pair.near.take(FRAME_BYTES).await;
                });
            });
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("frames_of_1_kib");
    group.throughput(Throughput::Elements(FRAMES as u64)).sample_size(20);
    let batch = vec![Bytes::from(vec![7; FRAME_BYTES]); BATCH];
    for (name, pair) in pairs(&runtime) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let saying = async {
                        for _ in 0..FRAMES / BATCH {
                            pair.near.say(batch.clone()).await;
                        }
                    };
                    tokio::join!(saying, pair.far.take(FRAMES * FRAME_BYTES));
                });
            });
        });
    }
    group.finish();
}

fn bulk(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes((BULK_PIECES * BULK_PIECE_BYTES) as u64)).sample_size(20);
    let piece = Bytes::from(vec![7; BULK_PIECE_BYTES]);
    let sealing = Sealing::new();
    for (name, pair) in pairs(&runtime) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let saying = async {
                        for _ in 0..BULK_PIECES {
                            pair.near.say(vec![piece.clone()]).await;
                        }
                    };
                    tokio::join!(saying, pair.far.take(BULK_PIECES * BULK_PIECE_BYTES));
                });
            });
        });
        if name.ends_with("_link") {
            let sealed_bytes = sealing.seal(&piece).len();
            group.bench_function(format!("{name}_sealed"), |bencher| {
                bencher.iter(|| {
                    runtime.block_on(async {
                        let saying = async {
                            for _ in 0..BULK_PIECES {
                                pair.near.say(vec![sealing.seal(&piece)]).await;
                            }
                        };
                        tokio::join!(saying, pair.far.take(BULK_PIECES * sealed_bytes));
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, round_trip, frames, bulk);
criterion_main!(benches);
