//! Hub, store, threads and sockets together: everything but the network.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the frames it is about")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peerloom_proto::wire::{SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{EnvHash, Origin, UnixMs};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::hub::tests::world::{Node, ORIGIN, World, coordinator_key};
use crate::session;
use crate::store::Identity;

async fn begin(dir: &std::path::Path, identity: Identity) -> (Engine, EngineThreads) {
    let store = Store::open(dir, identity).await.unwrap();
    let config = HubConfig::new(coordinator_key(), Origin::parse(ORIGIN).unwrap());
    start(config, store, Metrics::default()).await.unwrap()
}

fn world() -> World {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    World::at(UnixMs::default().plus(wall), |_| {})
}

struct Client(WebSocketStream<DuplexStream>);

impl Client {
    /// A member's connection that takes mail.
    async fn join(engine: &Engine, world: &World, node: &mut Node) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let engine = engine.clone();
        tokio::spawn(async move { session::run(theirs, "127.0.0.1".parse().unwrap(), &engine).await });
        let mut client = Self(WebSocketStream::from_raw_socket(ours, Role::Client, None).await);
        let ToNode::Challenge { challenge } = client.next().await else { panic!("a challenge comes first") };
        node.counter += 1;
        let hello = world.hello_for(node, &challenge, ORIGIN);
        let hello = SignedBytes { stmt: hello.stmt().clone(), sig: hello.sig() };
        client.send(&ToCoordinator::Hello { hello, attestation: Bytes::new() }).await;
        assert!(matches!(client.next().await, ToNode::Welcome { .. }));
        client.send(&ToCoordinator::Claim { messages: 256, bytes: 1 << 20 }).await;
        client
    }

    async fn send(&mut self, frame: &ToCoordinator) {
        self.0.send(Message::Binary(frame.encode())).await.unwrap();
    }

    async fn next(&mut self) -> ToNode {
        let message =
            tokio::time::timeout(Duration::from_secs(20), self.0.next()).await.expect("a frame in time");
        ToNode::decode(&message.unwrap().unwrap().into_data()).unwrap()
    }

    async fn accepted(&mut self, mut count: usize) -> Vec<EnvHash> {
        let mut hashes = Vec::new();
        while count > 0 {
            match self.next().await {
                ToNode::Accepted { env_hashes, .. } => {
                    count -= env_hashes.len();
                    hashes.extend(env_hashes);
                }
                ToNode::Presence { .. } | ToNode::Receipt { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        hashes
    }

    async fn delivered(&mut self) -> (u64, bool, Bytes) {
        loop {
            match self.next().await {
                ToNode::Deliver { claim, queued, envelope } => return (claim, queued, envelope),
                ToNode::Presence { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_mail_outlives_the_process_and_is_delivered_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let envelopes: Vec<_> = (0..300).map(|_| world.envelope(&alice, &bob)).collect();
    {
        let (engine, threads) = begin(dir.path(), Identity::None).await;
        let request = HttpRequest::MeshCreate { entries: world.beginning.clone() };
        let reply = engine.http("127.0.0.1".parse().unwrap(), request).await;
        assert!(matches!(reply, Some(HttpReply::MeshCreated { .. })), "{reply:?}");
        let mut client = Client::join(&engine, &world, &mut alice).await;
        for envelope in &envelopes {
            client.send(&ToCoordinator::Put { envelope: envelope.wire().clone() }).await;
        }
        let accepted = client.accepted(envelopes.len()).await;
        assert_eq!(accepted, envelopes.iter().map(|envelope| envelope.env_hash()).collect::<Vec<_>>());
        engine.drain().await.unwrap();
        threads.ended().await.unwrap();
        assert!(!engine.is_alive());
    }
    let (engine, threads) = begin(dir.path(), Identity::Exists).await;
    let mut client = Client::join(&engine, &world, &mut bob).await;
    for group in envelopes.chunks(100) {
        let mut claims = Vec::new();
        for envelope in group {
            let (claim, queued, bytes) = client.delivered().await;
            assert!(queued);
            assert_eq!(bytes, envelope.wire());
            claims.push(claim);
        }
        let receipt = world.receipt(&bob, &alice, &group.iter().collect::<Vec<_>>());
        let receipt = SignedBytes { stmt: receipt.stmt().clone(), sig: receipt.sig() };
        client.send(&ToCoordinator::Receipt { receipt, claims }).await;
    }
    // The answer to a ping comes after everything before it was taken.
    client.send(&ToCoordinator::Ping { nonce: 1 }).await;
    assert_eq!(client.next().await, ToNode::Pong { nonce: 1 });
    engine.drain().await.unwrap();
    assert!(matches!(client.next().await, ToNode::GoingAway { .. }));
    threads.ended().await.unwrap();

    let store = Store::open(dir.path(), Identity::Exists).await.unwrap();
    let left = store.reader().mail(world.mesh(), bob.id(), None, 10, 1 << 20).await.unwrap();
    assert!(left.is_empty(), "what was receipted is gone");
    let receipts = store.reader().mail(world.mesh(), alice.id(), None, 10, 1 << 20).await.unwrap();
    assert_eq!(receipts.len(), 3, "and its sender will learn of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_between_two_who_are_online_passes_through_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (engine, threads) = begin(dir.path(), Identity::None).await;
    let request = HttpRequest::MeshCreate { entries: world.beginning.clone() };
    engine.http("127.0.0.1".parse().unwrap(), request).await.unwrap();
    let mut of_bob = Client::join(&engine, &world, &mut bob).await;
    let mut of_alice = Client::join(&engine, &world, &mut alice).await;
    let envelope = world.envelope(&alice, &bob);
    of_alice.send(&ToCoordinator::Put { envelope: envelope.wire().clone() }).await;
    let (claim, queued, bytes) = of_bob.delivered().await;
    assert_eq!((queued, &bytes), (false, envelope.wire()));
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    let signed = SignedBytes { stmt: receipt.stmt().clone(), sig: receipt.sig() };
    of_bob.send(&ToCoordinator::Receipt { receipt: signed.clone(), claims: vec![claim] }).await;
    let (mut accepted, mut settled) = (false, None);
    while !accepted || settled.is_none() {
        match of_alice.next().await {
            ToNode::Accepted { env_hashes, .. } => accepted = env_hashes == [envelope.env_hash()],
            ToNode::Receipt { claim, receipt } => {
                assert_eq!(receipt, signed);
                settled = Some(claim);
            }
            ToNode::Presence { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    of_alice.send(&ToCoordinator::Settle { claims: settled.into_iter().collect() }).await;
    engine.drain().await.unwrap();
    threads.ended().await.unwrap();
    let mut store = Store::open(dir.path(), Identity::Exists).await.unwrap();
    assert!(store.load().await.unwrap().queues.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_a_socket_ends_that_socket_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, threads) = begin(dir.path(), Identity::None).await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let serving = {
        let engine = engine.clone();
        tokio::spawn(async move { session::run(theirs, "127.0.0.1".parse().unwrap(), &engine).await })
    };
    let mut client = Client(WebSocketStream::from_raw_socket(ours, Role::Client, None).await);
    assert!(matches!(client.next().await, ToNode::Challenge { .. }));
    client.0.send(Message::Binary(Bytes::from_static(&[0xff; 64]))).await.unwrap();
    assert!(matches!(client.next().await, ToNode::Error { code, .. } if code == "malformed"));
    assert!(matches!(client.0.next().await, Some(Ok(Message::Close(_)))));
    drop(client);
    serving.await.unwrap();
    engine.drain().await.unwrap();
    threads.ended().await.unwrap();
}
