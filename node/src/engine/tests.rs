//! The engine over a real store, with a coordinator that never answers.

use std::path::Path;

use peerloom_proto::endpoint::{OutboxState, Refusal, Reply, Request, Send};
use peerloom_proto::{
    BoxSecretKey, GenesisParams, Handle, IdentityKey, Message, MessageId, NewMember, Origin, Policy,
    Priority, Role, Roster, UnixMs,
};
use zeroize::Zeroizing;

use super::start::assemble;
use super::*;
use crate::config::{Config, Env, RawConfig};
use crate::home::{Home, NewMesh};
use crate::mesh::Mesh;
use crate::views::{OutboxCounts, OutboxQuery, RequeueSelector};

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

/// A mesh of two members, this node and bob, whose coordinator's port is closed.
async fn home(dir: &Path) -> (Home, MeshInfo) {
    let origin = Origin::parse("http://127.0.0.1:9").unwrap();
    let (owner, coordinator) = (key(1), key(2));
    let params = GenesisParams {
        coordinators: vec![(coordinator.id(), origin.clone())],
        policy: Policy::default(),
        nonce: [0; 16],
        recovery: None,
        name: Some("acme".to_owned()),
        ts: UnixMs(1_000),
    };
    let genesis = peerloom_proto::WireEntry::genesis(&owner, params);
    let mut roster = Roster::begin(&genesis).unwrap();
    let mut entries = vec![genesis.encode().into()];
    let prekey = BoxSecretKey::from_bytes([5; 32]);
    for (member, handle, role) in [(key(3), "laptop", Role::Admin), (key(4), "bob", Role::Member)] {
        let handle = Handle::parse(handle).unwrap();
        let new = NewMember { id: member.id(), role, handle, prekey: Some(prekey.public()) };
        let entry = roster.member_add(&owner, new, UnixMs(2_000));
        let entry = entry.sequence(&coordinator, &roster.mesh_id()).unwrap();
        roster.append(&entry).unwrap();
        entries.push(entry.encode().into());
    }
    let home = Home::at(dir);
    let mesh = NewMesh {
        id: roster.mesh_id(),
        name: "acme".to_owned(),
        handle: Handle::parse("laptop").unwrap(),
        origin,
        member_seed: Zeroizing::new([3; 32]),
        owner_seed: None,
        entries,
        prekey,
    };
    let info = home.create_mesh(mesh).await.unwrap();
    (home, info)
}

fn config(home: &Home) -> Config {
    Config::resolve(RawConfig::default(), &Env::default(), home).unwrap()
}

async fn started(home: &Home, info: &MeshInfo) -> Mesh {
    start(info.clone(), &config(home), Clock::start(), 0).await.unwrap()
}

fn send(id: u8, text: &str) -> Request {
    Request::Send(Send {
        id: Some(MessageId([id; 16])),
        to: vec![key(4).id()],
        message: Message {
            content_type: "text/plain".to_owned(),
            content: text.to_owned().into(),
            reply_to: None,
        },
        priority: Priority::Next,
        life: Duration::from_secs(3_600),
    })
}

fn repeated(reply: Result<Reply, EngineError>) -> bool {
    let Reply::Sent { repeated, .. } = reply.unwrap() else { panic!("not sent") };
    repeated
}

#[tokio::test]
async fn a_send_without_a_coordinator_is_recorded_once_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let mesh = started(&home, &info).await;
    assert!(!repeated(mesh.request(send(1, "hello")).await));
    assert!(repeated(mesh.request(send(1, "hello")).await));
    mesh.stop().await;
    assert!(matches!(mesh.request(send(2, "late")).await, Err(EngineError::Stopped)));

    let mesh = started(&home, &info).await;
    assert!(repeated(mesh.request(send(1, "hello")).await));
    let refused = mesh.request(send(1, "something else")).await.unwrap();
    assert!(
        matches!(refused, Reply::Refused(Refusal::Conflict(id)) if id == MessageId([1; 16])),
        "{refused:?}"
    );
    let outbox = mesh.outbox(OutboxQuery::default()).await.unwrap();
    assert_eq!(outbox.len(), 1);
    assert_eq!((outbox[0].to, &outbox[0].state), (key(4).id(), &OutboxState::Pending));
    assert_eq!(mesh.view().outbox, OutboxCounts { pending: 1, dead: 0 });
    mesh.stop().await;
}

#[tokio::test]
async fn many_requests_are_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let mesh = started(&home, &info).await;
    let texts = (1..=40).map(|n| send(n, "hello"));
    let wrong = Request::Abort(MessageId([99; 16]));
    let replies = mesh.request_many(texts.chain([wrong]).collect()).await;
    assert_eq!(replies.len(), 41);
    for (reply, n) in replies.iter().zip(1_u8..=40) {
        let Ok(Reply::Sent { id, .. }) = reply else { panic!("{reply:?}") };
        assert_eq!(*id, MessageId([n; 16]));
    }
    assert!(matches!(replies[40], Ok(Reply::Refused(_))), "{:?}", replies[40]);
    mesh.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_stays_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let (mut engine, mesh) = assemble(info, &config(&home), Clock::start(), 0).await.unwrap();
    engine.writer.as_mut().unwrap().limit_pages(1).await.unwrap();
    engine.spawn(mesh.info()).unwrap();
    let large = "x".repeat(300_000);

    let refused = mesh.request(send(1, &large)).await;

    assert!(matches!(refused, Err(EngineError::DiskFull)), "{refused:?}");
    // The limit is a property of the connection; the engine opens another, which finds space.
    while let Err(error) = mesh.request(send(2, &large)).await {
        assert!(matches!(error, EngineError::DiskFull), "{error:?}");
    }
    let outbox = mesh.outbox(OutboxQuery::default()).await.unwrap();
    assert_eq!(outbox.iter().map(|item| item.id).collect::<Vec<_>>(), [MessageId([2; 16])]);
    mesh.stop().await;
}

#[tokio::test]
async fn an_aborted_message_is_not_counted_and_not_requeued() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let mesh = started(&home, &info).await;
    mesh.request(send(1, "hello")).await.unwrap();
    mesh.abort(MessageId([1; 16])).await.unwrap();
    assert_eq!(mesh.message(MessageId([1; 16])).await.unwrap()[0].state, OutboxState::Aborted);
    assert!(mesh.requeue(RequeueSelector::All).await.unwrap().is_empty());
    assert_eq!(mesh.view().outbox, OutboxCounts { pending: 0, dead: 0 });
    mesh.stop().await;
}

#[tokio::test]
async fn names_resolve_by_handle_and_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let mesh = started(&home, &info).await;
    let bob = key(4).id();
    assert_eq!(mesh.resolve("bob").unwrap(), bob);
    assert_eq!(mesh.resolve(&bob.to_string()[..12]).unwrap(), bob);
    let unknown = mesh.resolve("boc").unwrap_err();
    let expected =
        crate::mesh::ResolveError::NotFound { name: "boc".to_owned(), similar: vec!["bob".to_owned()] };
    assert_eq!(unknown, expected);
    let handles: Vec<_> = mesh.view().members.iter().map(|member| member.handle.to_string()).collect();
    assert_eq!(handles, ["laptop", "bob"]);
    mesh.stop().await;
}

#[tokio::test]
async fn a_store_whose_log_is_another_meshs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (home, info) = home(dir.path()).await;
    let mut other = info.clone();
    other.id = peerloom_proto::MeshId([9; 32]);
    let refused = start(other, &config(&home), Clock::start(), 0).await.unwrap_err();
    assert!(matches!(refused, StartError::Store { source: StoreError::Corrupt { .. }, .. }), "{refused}");
}
