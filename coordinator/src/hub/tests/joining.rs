//! Getting in, being seen, being replaced; invites.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{
    BoxSecretKey, Handle, IdentityKey, InviteCap, InviteClaim, InviteCode, InviteId, InviteLookup,
    InviteMode, Origin, PeerId, Role, Roster, RunId, SignedCap, SignedClaim, SignedPrekey, StoreMark, UnixMs,
    WireEntry, signed_by, verify_welcome,
};

use super::world::{Node, ORIGIN, World, coordinator_key, genesis_for, newcomer};
use crate::hub::{HttpReply, HttpRequest, Input, SocketId};

fn error_code(frames: &[ToNode]) -> Option<&str> {
    frames.iter().find_map(|frame| match frame {
        ToNode::Error { code, .. } => Some(code.as_str()),
        _ => None,
    })
}

fn presence(frames: Vec<ToNode>) -> Vec<(bool, Vec<(PeerId, bool)>)> {
    let told = frames.into_iter().filter_map(|frame| match frame {
        ToNode::Presence { complete, peers } => Some((complete, peers)),
        _ => None,
    });
    told.collect()
}

fn say_hello(world: &mut World, socket: SocketId, stmt: Bytes, sig: peerloom_proto::Signature) {
    let hello = SignedBytes { stmt, sig };
    world.frame(socket, ToCoordinator::Hello { hello, attestation: Bytes::new() });
}

#[test]
fn the_welcome_is_signed_over_the_hello() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    alice.counter = 1;
    let socket = world.open();
    let challenge = world.challenge(socket);
    let hello = world.hello_for(&alice, &challenge, ORIGIN);
    say_hello(&mut world, socket, hello.stmt().clone(), hello.sig());
    let frames = world.sent_to(socket);
    let ToNode::Welcome { welcome } = &frames[0] else { panic!("{frames:?}") };
    let verified = verify_welcome(&welcome.stmt, &welcome.sig, &hello, world.now.wall).unwrap();
    assert_eq!(verified.head, world.roster.head());
    assert_eq!(verified.lease, Duration::from_secs(90));
    assert!(matches!(&frames[1], ToNode::Presence { complete: true, peers } if peers.is_empty()));
}

#[test]
fn a_node_that_was_told_of_a_later_state_of_the_store_is_told_that_it_is_gone() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let kept = |world: &mut World, alice: &mut Node, mark| {
        alice.mark = mark;
        alice.counter += 1;
        let socket = world.open();
        let challenge = world.challenge(socket);
        let hello = world.hello_for(alice, &challenge, ORIGIN);
        say_hello(world, socket, hello.stmt().clone(), hello.sig());
        let frames = world.sent_to(socket);
        let ToNode::Welcome { welcome } = &frames[0] else { panic!("{frames:?}") };
        let welcome = verify_welcome(&welcome.stmt, &welcome.sig, &hello, world.now.wall).unwrap();
        let store = welcome.store.unwrap();
        assert_eq!(store.mark, world.store.runs.current);
        store.kept
    };
    let told = world.store.runs.current;
    assert!(kept(&mut world, &mut alice, None));
    assert!(kept(&mut world, &mut alice, Some(told)));
    assert!(!kept(&mut world, &mut alice, Some(StoreMark { commit: told.commit + 1, ..told })));
    world.restart();
    assert!(kept(&mut world, &mut alice, Some(told)));
    assert!(!kept(&mut world, &mut alice, Some(StoreMark { run: RunId([77; 16]), ..told })));
}

#[test]
fn strangers_other_origins_and_recorded_hellos_stay_outside() {
    let mut world = World::new();
    let (mut alice, mallory) = (Node::named("alice"), Node::named("mallory"));
    let recorded = {
        let socket = world.open();
        let challenge = world.challenge(socket);
        world.hello_for(&alice, &challenge, ORIGIN)
    };
    for want in ["not-a-member", "challenge"] {
        let socket = world.open();
        let challenge = world.challenge(socket);
        let fresh = world.hello_for(&mallory, &challenge, ORIGIN);
        let hello = if want == "challenge" { &recorded } else { &fresh };
        say_hello(&mut world, socket, hello.stmt().clone(), hello.sig());
        assert_eq!(error_code(&world.sent_to(socket)), Some(want));
        assert!(world.closed.contains(&socket));
    }
    // A hello whose signature is another's.
    let socket = world.open();
    let challenge = world.challenge(socket);
    let hello = world.hello_for(&alice, &challenge, ORIGIN);
    say_hello(
        &mut world,
        socket,
        hello.stmt().clone(),
        Node::named("bob").key.sign("hello", &[hello.stmt()]),
    );
    assert_eq!(error_code(&world.sent_to(socket)), Some("signature"));
    // And the member itself gets in.
    let socket = world.greet(&mut alice);
    assert!(matches!(world.sent_to(socket)[0], ToNode::Welcome { .. }));
}

#[test]
fn a_hello_may_not_take_longer_than_ten_seconds() {
    let mut world = World::new();
    let socket = world.open();
    world.pass(Duration::from_secs(9));
    assert!(!world.closed.contains(&socket));
    world.pass(Duration::from_secs(2));
    assert_eq!(error_code(&world.sent_to(socket)), Some("hello-timeout"));
    assert!(world.closed.contains(&socket));
}

#[test]
fn one_address_cannot_open_connections_without_end() {
    let mut world = World::new();
    let sockets: Vec<_> = (0..31).map(|_| world.open()).collect();
    assert!(!world.closed.contains(&sockets[29]));
    assert_eq!(error_code(&world.sent_to(sockets[30])), Some("throttled"));
}

#[test]
fn garbage_closes_its_own_connection_and_no_other() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let stranger = world.open();
    for (socket, bytes) in [(stranger, &[0xff; 40][..]), (of_bob, &[0x82, 0x02, 0x41, 0x00][..])] {
        world.bytes(socket, Bytes::from_static(b"").into_iter().chain(bytes.iter().copied()).collect());
        assert!(world.closed.contains(&socket));
        assert_eq!(error_code(&world.sent_to(socket)), Some("malformed"));
    }
    assert!(!world.closed.contains(&of_alice));
    world.frame(of_alice, ToCoordinator::Ping { nonce: 5 });
    assert!(world.sent_to(of_alice).contains(&ToNode::Pong { nonce: 5 }));
}

#[test]
fn nothing_but_a_hello_is_taken_from_a_stranger() {
    let mut world = World::new();
    let socket = world.open();
    world.frame(socket, ToCoordinator::LogGet { from: 0 });
    assert_eq!(error_code(&world.sent_to(socket)), Some("hello"));
    assert!(world.closed.contains(&socket));
}

#[test]
fn the_newest_connection_of_a_member_wins_and_an_older_one_of_its_instance_does_not() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let first = world.join(&mut alice);
    let second = world.join(&mut alice);
    assert_eq!(error_code(&world.sent_to(first)), Some("replaced"));
    assert!(world.closed.contains(&first));

    // A connection that was opened before the second one and says hello after it.
    alice.counter = 0;
    let late = world.greet(&mut alice);
    assert_eq!(error_code(&world.sent_to(late)), Some("replaced"));
    assert!(!world.closed.contains(&second));
    world.frame(second, ToCoordinator::Ping { nonce: 1 });
    assert!(world.sent_to(second).contains(&ToNode::Pong { nonce: 1 }));
}

#[test]
fn a_reconnect_within_the_lease_is_noticed_by_nobody() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let of_alice = world.join(&mut alice);
    let of_bob = world.join(&mut bob);
    world.pass(Duration::from_secs(1));
    assert_eq!(presence(world.sent_to(of_alice)), [(true, vec![]), (false, vec![(bob.id(), true)])][1..]);

    world.input(Input::Closed { socket: of_bob });
    world.pass(Duration::from_secs(60));
    world.frame(of_alice, ToCoordinator::Pong { nonce: 0 });
    let of_bob = world.join(&mut bob);
    world.pass(Duration::from_secs(20));
    assert!(presence(world.sent_to(of_alice)).is_empty(), "no flapping");

    world.input(Input::Closed { socket: of_bob });
    world.pass(Duration::from_secs(40));
    world.frame(of_alice, ToCoordinator::Pong { nonce: 0 });
    world.pass(Duration::from_secs(52));
    assert_eq!(presence(world.sent_to(of_alice)), [(false, vec![(bob.id(), false)])]);
}

#[test]
fn who_says_goodbye_is_offline_at_once_and_its_mail_waits() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.pass(Duration::from_secs(1));
    world.sent_to(of_alice);
    let sent = world.envelope(&alice, &bob);
    world.put(of_alice, &sent);
    world.frame(of_bob, ToCoordinator::Goodbye);
    world.pass(Duration::from_secs(1));
    assert_eq!(presence(world.sent_to(of_alice)), [(false, vec![(bob.id(), false)])]);

    let late = world.envelope(&bob, &alice);
    world.put(of_bob, &late);
    let frames = world.sent_to(of_bob);
    assert!(
        matches!(frames.last(), Some(ToNode::Refused { code, retry_ms: 1.., .. }) if code == "closing"),
        "not lost, but for the next connection: {frames:?}"
    );
    world.input(Input::Closed { socket: of_bob });
    let of_bob = world.join(&mut bob);
    assert_eq!(world.delivered(of_bob).len(), 1);
}

#[test]
fn a_quiet_link_is_pinged_and_a_silent_one_dropped() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let socket = world.join(&mut alice);
    world.pass(Duration::from_secs(31));
    assert!(world.sent_to(socket).iter().any(|frame| matches!(frame, ToNode::Ping { .. })));
    world.frame(socket, ToCoordinator::Pong { nonce: 0 });
    world.pass(Duration::from_secs(74));
    assert!(!world.closed.contains(&socket));
    world.pass(Duration::from_secs(3));
    assert_eq!(error_code(&world.sent_to(socket)), Some("silent"));
    assert!(world.closed.contains(&socket));
}

#[test]
fn a_drain_tells_everybody_when_to_come_back_and_not_all_at_once() {
    let mut world = World::new();
    let sockets: Vec<_> = ["alice", "bob", "carol"].map(|name| world.join(&mut Node::named(name))).into();
    sockets.iter().for_each(|socket| drop(world.sent_to(*socket)));
    world.input(Input::Drain);
    let after: Vec<u64> = sockets
        .iter()
        .flat_map(|socket| world.sent_to(*socket))
        .filter_map(|frame| match frame {
            ToNode::GoingAway { reconnect_after_ms } => Some(reconnect_after_ms),
            _ => None,
        })
        .collect();
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|ms| *ms < 5_000));
    assert!(after.windows(2).any(|pair| pair[0] != pair[1]), "{after:?}");
}

#[test]
fn a_prekey_is_kept_for_its_own_member_only() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let key = BoxSecretKey::from_bytes([5; 32]).public();
    let prekey = SignedPrekey::sign(&alice.key, world.mesh(), key, world.now.wall);
    let prekey = SignedBytes { stmt: prekey.stmt().clone(), sig: prekey.sig() };
    world.frame(of_alice, ToCoordinator::PrekeyPut { prekey: prekey.clone() });
    world.sent_to(of_bob);
    world.frame(of_bob, ToCoordinator::PrekeyGet { members: vec![bob.id(), alice.id()] });
    assert_eq!(world.sent_to(of_bob), [ToNode::Prekeys { prekeys: vec![prekey.clone()] }]);
    world.frame(of_bob, ToCoordinator::PrekeyPut { prekey });
    assert!(world.closed.contains(&of_bob));
}

#[test]
fn an_invite_is_deposited_by_an_admin_found_by_its_lookup_and_withdrawn() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let (lookup, blob) = (InviteLookup([3; 16]), Bytes::from_static(b"nonce and box"));
    let exp = world.now.wall.plus(Duration::from_secs(600));
    let put = |request| ToCoordinator::InvitePut { request, lookup, blob: blob.clone(), exp, uses: 1 };

    world.frame(of_bob, put(1));
    let frames = world.sent_to(of_bob);
    assert!(
        matches!(frames.last(), Some(ToNode::Failed { request: 1, code, .. }) if code == "log-authority")
    );
    assert_eq!(world.http(HttpRequest::InviteLookup { lookup }), Some(HttpReply::NoInvite));

    world.frame(of_alice, put(2));
    assert!(world.sent_to(of_alice).iter().any(|frame| matches!(frame, ToNode::Done { request: 2, .. })));
    assert_eq!(world.http(HttpRequest::InviteLookup { lookup }), Some(HttpReply::Blob(blob)));
    let read = world.http(HttpRequest::LogRead { bearer: lookup, from: 1 });
    assert!(
        matches!(read, Some(HttpReply::Log { from: 1, ref entries, size: 4 }) if entries.len() == 3),
        "{read:?}"
    );

    world.frame(of_alice, ToCoordinator::InviteDelete { request: 3, lookup });
    assert!(world.sent_to(of_alice).iter().any(|frame| matches!(frame, ToNode::Done { request: 3, .. })));
    assert_eq!(world.http(HttpRequest::InviteLookup { lookup }), Some(HttpReply::NoInvite));
    assert_eq!(world.http(HttpRequest::LogRead { bearer: lookup, from: 0 }), Some(HttpReply::NoInvite));
}

#[test]
fn a_joiner_reads_the_log_and_appends_its_own_admission_which_uses_the_invite_up() {
    let mut world = World::new();
    let (mut alice, mut dora) = (Node::named("alice"), Node::named("dora"));
    let of_alice = world.join(&mut alice);
    let code = InviteCode::from_bytes([7; 10]);
    let (bearer, exp) = (code.lookup(), world.now.wall.plus(Duration::from_secs(600)));
    let cap = InviteCap {
        mesh: world.mesh(),
        id: InviteId([1; 16]),
        inviter: alice.id(),
        role: Role::Member,
        max_uses: 1,
        nbf: world.now.wall,
        exp,
        mode: InviteMode::Auto,
        head: world.roster.head(),
        origin: Origin::parse(ORIGIN).unwrap(),
        key: code.signing_key().id(),
        handle: None,
    };
    let cap = SignedCap::sign(&alice.key, cap);
    let blob = Bytes::from(code.seal_blob(&cap, [4; 24]));
    world.frame(
        of_alice,
        ToCoordinator::InvitePut { request: 1, lookup: bearer, blob: blob.clone(), exp, uses: 1 },
    );
    assert_eq!(world.http(HttpRequest::InviteLookup { lookup: bearer }), Some(HttpReply::Blob(blob)));
    let key = BoxSecretKey::from_bytes([5; 32]).public();
    let claim = InviteClaim {
        mesh: world.mesh(),
        invite: InviteId([1; 16]),
        joiner: dora.id(),
        prekey: key,
        sealing: key,
        nonce: [6; 32],
        ts: world.now.wall,
        handle: Handle::parse("dora").unwrap(),
    };
    let claim = SignedClaim::sign(&dora.key, &code, claim);
    let foreign = world.roster.member_add(&alice.key, newcomer("emil", Role::Member), world.now.wall);
    let reply = world.http(HttpRequest::LogAppend { bearer, entry: foreign.encode().into() });
    assert!(
        matches!(reply, Some(HttpReply::Refused { ref code, .. }) if code == "log-authority"),
        "{reply:?}"
    );

    // Somebody else is faster: the first attempt is a lost race, the second stands on the new head.
    let late = Bytes::from(world.roster.self_admission(&dora.key, &cap, &claim, world.now.wall).encode());
    world.frame(of_alice, ToCoordinator::LogAppend { request: 2, entry: foreign.encode().into() });
    assert_eq!(
        world.http(HttpRequest::LogAppend { bearer, entry: late }),
        Some(HttpReply::Conflict { size: 5 })
    );
    let sequenced = world.store.log[&world.mesh()][4].clone();
    world.learn(&sequenced);
    let entry = Bytes::from(world.roster.self_admission(&dora.key, &cap, &claim, world.now.wall).encode());
    let reply = world.http(HttpRequest::LogAppend { bearer, entry: entry.clone() });
    assert!(matches!(reply, Some(HttpReply::Appended { .. })), "{reply:?}");

    assert_eq!(world.http(HttpRequest::InviteLookup { lookup: bearer }), Some(HttpReply::NoInvite));
    let again = world.http(HttpRequest::LogAppend { bearer, entry });
    assert!(matches!(again, Some(HttpReply::Refused { ref code, .. }) if code == "invite-used"), "{again:?}");
    let read = world.http(HttpRequest::LogRead { bearer, from: 5 });
    assert!(
        matches!(read, Some(HttpReply::Log { size: 6, .. })),
        "it finds itself if the answer was lost: {read:?}"
    );
    let socket = world.greet(&mut dora);
    assert!(matches!(world.sent_to(socket)[0], ToNode::Welcome { .. }));
}

#[test]
fn an_expired_invite_is_as_unknown_as_any_and_guessing_is_throttled() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let of_alice = world.join(&mut alice);
    let lookup = InviteLookup([3; 16]);
    let exp = world.now.wall.plus(Duration::from_secs(60));
    let blob = Bytes::from_static(b"nonce and box");
    world.frame(of_alice, ToCoordinator::InvitePut { request: 1, lookup, blob, exp, uses: 1 });
    world.pass(Duration::from_secs(60));
    for _ in 0..5 {
        assert_eq!(world.http(HttpRequest::InviteLookup { lookup }), Some(HttpReply::NoInvite));
    }
    let reply = world.http(HttpRequest::InviteLookup { lookup });
    assert!(matches!(reply, Some(HttpReply::Throttled { retry_after_s: 12 | 13 })), "{reply:?}");
}

#[test]
fn a_mesh_is_created_once_and_only_for_this_coordinator() {
    let mut world = World::new();
    let owner = Node::named("another owner").key;
    let now = world.now.wall;
    let begin = |key: &IdentityKey, origin: &str| {
        let genesis = WireEntry::genesis(&owner, genesis_for(key, origin, now));
        let roster = Roster::begin(&genesis).unwrap();
        let first = roster.member_add(&owner, newcomer("dora", Role::Admin), now);
        vec![Bytes::from(genesis.encode()), Bytes::from(first.encode())]
    };
    for (key, origin) in [(coordinator_key(), "https://elsewhere.example"), (Node::named("evil").key, ORIGIN)]
    {
        let reply = world.http(HttpRequest::MeshCreate { entries: begin(&key, origin) });
        assert!(
            matches!(reply, Some(HttpReply::Refused { ref code, .. }) if code == "log-authority"),
            "{reply:?}"
        );
    }
    let entries = begin(&coordinator_key(), ORIGIN);
    let reply = world.http(HttpRequest::MeshCreate { entries: entries.clone() });
    let Some(HttpReply::MeshCreated { entries: sequenced }) = reply else { panic!("{reply:?}") };
    let first = WireEntry::parse(&sequenced[1]).unwrap();
    let mesh = WireEntry::parse(&sequenced[0]).unwrap().mesh_hash();
    let place = [&mesh.0[..], &1_u64.to_be_bytes(), &first.entry_hash().0];
    assert!(signed_by(&coordinator_key().id(), &first.seq.unwrap(), "sequenced", &place));
    assert_eq!(world.http(HttpRequest::MeshCreate { entries }), Some(HttpReply::Exists));
    assert_eq!(world.now.wall, UnixMs(now.0));
}
