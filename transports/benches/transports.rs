//! What the link costs over bare quinn: frames of 1 KiB per second, and a round trip, on loopback.
//!
//! `cargo bench -p peerloom-transports`

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peerloom_proto::ConnId;
use peerloom_transports::{CandidateScope, PeerAddr, PeerLink, PeerTransport, QuicTransport, provider};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const FRAME_BYTES: usize = 1 << 10;
const FRAMES: u64 = 4096;
const BATCH: usize = 64;

struct Linked {
    near: Box<dyn PeerLink>,
    far: Box<dyn PeerLink>,
    // Links live as long as their transports.
    _transports: (QuicTransport, QuicTransport),
}

async fn linked() -> Linked {
    let transport = || QuicTransport::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let (dialler, acceptor) = (transport(), transport());
    let deadline = Instant::now() + Duration::from_secs(10);
    let scope = CandidateScope::WithLoopback;
    let conn = ConnId([1; 16]);
    acceptor.expect(conn, dialler.local_cert(), deadline).unwrap();
    let peer = PeerAddr::new(conn, acceptor.local_cert(), &acceptor.candidates(scope), scope);
    let near = dialler.dial(&peer, deadline).await.unwrap();
    let far = acceptor.accept().await.unwrap();
    Linked { near, far, _transports: (dialler, acceptor) }
}

struct Bare {
    send: SendStream,
    recv: RecvStream,
    far_send: SendStream,
    far_recv: RecvStream,
    _alive: (Endpoint, Endpoint, Connection, Connection),
}

async fn bare() -> Bare {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let der = made.cert.der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    let any = "127.0.0.1:0".parse().unwrap();
    let far_end = Endpoint::server(server, any).unwrap();
    let near_end = Endpoint::client(any).unwrap();
    let connecting = near_end.connect_with(client, far_end.local_addr().unwrap(), "localhost").unwrap();
    let (near, far) = tokio::join!(connecting, async { far_end.accept().await.unwrap().await });
    let (near, far) = (near.unwrap(), far.unwrap());
    let (mut send, recv) = near.open_bi().await.unwrap();
    send.write_all(b"!").await.unwrap();
    let (far_send, mut far_recv) = far.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    Bare { send, recv, far_send, far_recv, _alive: (near_end, far_end, near, far) }
}

fn frames(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("frames_of_1_kib");
    group.throughput(Throughput::Elements(FRAMES)).sample_size(20);
    let batch = vec![Bytes::from(vec![7; FRAME_BYTES]); BATCH];

    let link = runtime.block_on(linked());
    group.bench_function("link", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let sending = async {
                    for _ in 0..FRAMES / BATCH as u64 {
                        link.near.send_many(batch.clone()).await.unwrap();
                    }
                };
                let receiving = async {
                    let mut received = 0;
                    while received < FRAMES {
                        received += link.far.recv_many(256, 1 << 20).await.unwrap().len() as u64;
                    }
                };
                tokio::join!(sending, receiving);
            });
        });
    });

    let mut streams = runtime.block_on(bare());
    let chunk = vec![7; FRAME_BYTES * BATCH];
    group.bench_function("bare_quinn", |bencher| {
        bencher.iter(|| {
            let Bare { send, far_recv, .. } = &mut streams;
            runtime.block_on(async {
                let sending = async {
                    for _ in 0..FRAMES / BATCH as u64 {
                        send.write_all(&chunk).await.unwrap();
                    }
                };
                let receiving = async {
                    let mut buffer = vec![0; 64 << 10];
                    let mut missing = FRAME_BYTES * usize::try_from(FRAMES).unwrap();
                    while missing > 0 {
                        missing -= AsyncReadExt::read(far_recv, &mut buffer).await.unwrap();
                    }
                };
                tokio::join!(sending, receiving);
            });
        });
    });
    group.finish();
}

fn round_trip(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("round_trip_of_1_kib");
    let frame = Bytes::from(vec![7; FRAME_BYTES]);

    let link = runtime.block_on(linked());
    group.bench_function("link", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                link.near.send(frame.clone()).await.unwrap();
                let echo = link.far.recv().await.unwrap();
                link.far.send(echo).await.unwrap();
                link.near.recv().await.unwrap()
            })
        });
    });

    let mut streams = runtime.block_on(bare());
    group.bench_function("bare_quinn", |bencher| {
        bencher.iter(|| {
            let Bare { send, recv, far_send, far_recv, .. } = &mut streams;
            runtime.block_on(async {
                let mut buffer = [0; FRAME_BYTES];
                AsyncWriteExt::write_all(send, &frame).await.unwrap();
                AsyncReadExt::read_exact(far_recv, &mut buffer).await.unwrap();
                AsyncWriteExt::write_all(far_send, &buffer).await.unwrap();
                AsyncReadExt::read_exact(recv, &mut buffer).await.unwrap();
            });
        });
    });
    group.finish();
}

criterion_group!(benches, frames, round_trip);
criterion_main!(benches);
