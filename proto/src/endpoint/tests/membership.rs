//! Who belongs: revocation, admission, and heads that disagree.

use std::time::Duration;

use super::mesh::{key, new_member, owner};
use super::world::{ALICE, BOB, CAROL, Direct, World};
use crate::endpoint::{Event, LogChange, OutboxState, Refusal, Reply, Request};
use crate::id::InviteId;
use crate::invite::{InviteCap, InviteClaim, InviteCode, InviteMode, SignedCap, SignedClaim};
use crate::key::BoxSecretKey;
use crate::roster::{Role, WireEntry};
use crate::wire::ToNode;

fn rejected() -> OutboxState {
    OutboxState::Rejected("revoked".to_owned())
}

fn revoke(world: &mut World, by: usize, target: usize) -> Option<Reply> {
    let target = world.id(target);
    let token = world.ask(by, Request::Append(LogChange::Revoke { target, reason: 0 }));
    world.settle();
    world.answer(by, token)
}

#[test]
fn a_revoked_member_is_cut_off_both_ways_and_every_sender_is_told() {
    let mut world = World::new(3, Direct::Works);
    world.send(CAROL, BOB, "makes a link");
    world.settle();
    world.coordinator_down();
    world.settle();
    world.direct = Direct::Silent;
    let to_bob = world.send(CAROL, BOB, "too late");
    let from_bob = world.send(BOB, CAROL, "too late as well");
    world.coordinator_up = true;
    world.stop(BOB);
    world.pass(Duration::from_secs(60));
    assert!(matches!(revoke(&mut world, ALICE, BOB), Some(Reply::Appended(4))));
    world.start(BOB);
    world.pass(Duration::from_secs(60));

    assert_eq!(world.state(CAROL, to_bob, BOB), rejected());
    assert_eq!(world.inbox(CAROL), [""; 0]);
    assert!(!world.is_direct(CAROL, BOB));
    assert!(!world.coordinator.is_online(&world.id(BOB)));
    assert_eq!(world.state(BOB, from_bob, CAROL), OutboxState::Pending, "it cannot know: nobody spoke to it");
    let send = world.message(None, &[BOB], "hello?");
    let refused = world.request(CAROL, Request::Send(send));
    assert!(matches!(refused, Some(Reply::Refused(Refusal::Revoked(_)))), "{refused:?}");
    assert!(world.endpoint(CAROL).peer_views().iter().all(|view| view.peer != world.id(BOB)));
}

#[test]
fn what_waits_behind_a_gap_of_a_revoked_member_is_shown_for_the_gap_will_not_be_filled() {
    let mut world = World::new(3, Direct::Blocked);
    world.send(BOB, CAROL, "begins");
    world.settle();
    world.coordinator.full.insert(world.id(CAROL));
    world.send(BOB, CAROL, "never seen");
    let second = world.send(BOB, CAROL, "seen");
    world.settle();
    let envelope = world.carried(second)[0].clone();
    world.inject(CAROL, &ToNode::Deliver { claim: 1 << 40, queued: true, envelope });
    world.settle();
    assert_eq!(world.inbox(CAROL), ["begins"], "the one before it may still come");

    revoke(&mut world, ALICE, BOB);
    assert_eq!(world.inbox(CAROL), ["begins", "seen"]);
}

#[test]
fn links_to_a_revoked_member_close_at_once_and_it_no_longer_counts_as_online() {
    let mut world = World::new(3, Direct::Works);
    world.send(CAROL, BOB, "makes a link");
    world.settle();
    assert_eq!(world.endpoint(CAROL).peers_online(), 2);
    revoke(&mut world, ALICE, BOB);
    assert_eq!(world.links_open(), 0);
    assert_eq!(world.endpoint(CAROL).peers_online(), 1);
}

#[test]
fn a_member_that_learns_of_its_own_removal_ends_its_outbox_and_takes_no_more() {
    let mut world = World::new(3, Direct::Blocked);
    world.stop(CAROL);
    let waiting = world.send(BOB, CAROL, "waits at the coordinator");
    world.settle();
    revoke(&mut world, ALICE, BOB);

    assert_eq!(world.alarms(BOB), ["this node was removed from the mesh"]);
    assert_eq!(world.state(BOB, waiting, CAROL), rejected());
    let send = world.message(None, &[CAROL], "hello?");
    assert!(matches!(world.request(BOB, Request::Send(send)), Some(Reply::Refused(Refusal::NotAMember))));
    world.start(CAROL);
    world.settle();
    assert_eq!(world.inbox(CAROL), [""; 0], "what was not committed is refused, whenever it was sent");
}

#[test]
fn a_member_can_leave_and_only_those_above_can_remove_another() {
    let mut world = World::new(3, Direct::Blocked);
    let denied = revoke(&mut world, BOB, CAROL);
    assert!(matches!(denied, Some(Reply::Refused(Refusal::Denied { .. }))), "{denied:?}");
    let left = revoke(&mut world, BOB, BOB);
    assert!(matches!(left, Some(Reply::Appended(_))), "{left:?}");
    assert!(world.endpoint(CAROL).is_revoked(&world.id(BOB)));
}

#[test]
fn two_appends_at_once_both_find_their_place() {
    let mut world = World::new(4, Direct::Blocked);
    let revoke = |world: &mut World, by: usize, target: usize| {
        let target = world.id(target);
        world.ask(by, Request::Append(LogChange::Revoke { target, reason: 0 }))
    };
    let by_alice = revoke(&mut world, ALICE, BOB);
    let by_carol = revoke(&mut world, CAROL, CAROL);
    let again = revoke(&mut world, ALICE, 3);
    world.settle();
    let mut places = Vec::new();
    for (node, token) in [(ALICE, by_alice), (CAROL, by_carol), (ALICE, again)] {
        match world.answer(node, token) {
            Some(Reply::Appended(index)) => places.push(index),
            other => panic!("{other:?}"),
        }
    }
    places.sort_unstable();
    assert_eq!(places, [5, 6, 7]);
}

#[test]
fn who_is_there_before_its_admission_is_known_here_is_there_once_it_is() {
    let mut world = World::new(2, Direct::Blocked);
    let (here, gone) = (key(3).id(), key(4).id());
    let presence = |complete, peers| ToNode::Presence { complete, peers };
    world.inject(ALICE, &presence(true, vec![(world.id(BOB), true), (here, true), (gone, true)]));
    world.inject(ALICE, &presence(false, vec![(gone, false)]));
    world.settle();
    for place in [3, 4] {
        let (roster, now) = (&world.coordinator.roster, world.now(BOB).wall);
        let entry = roster.member_add(&key(0), new_member(place, Role::Member), now);
        world.sequence(entry);
        world.settle();
    }
    let views = world.endpoint(ALICE).peer_views();
    let online = |peer| views.iter().find(|view| view.peer == peer).map(|view| view.online);
    assert_eq!((online(here), online(gone)), (Some(true), Some(false)));
    let told = world.nodes[ALICE].events.iter();
    let told: Vec<_> =
        told.filter(|event| matches!(event, Event::Presence { peer, .. } if *peer == here)).collect();
    assert_eq!(told.len(), 1);
}

#[test]
fn a_member_admitted_while_a_node_was_away_is_known_to_it_before_its_mail() {
    let mut world = World::asleep(4, Direct::Blocked);
    for node in [ALICE, BOB, CAROL] {
        world.start(node);
    }
    world.settle();
    world.stop(BOB);
    let entry =
        world.coordinator.roster.member_add(&key(0), new_member(4, Role::Member), world.now(ALICE).wall);
    world.sequence(entry);
    world.settle();
    world.start(BOB);
    world.settle();
    assert_eq!(world.endpoint(BOB).roster().size(), 6);
    assert!(world.endpoint(BOB).roster().member(&key(4).id()).is_some());
    assert_eq!(world.nodes[BOB].disk.entries.len(), 6);
    world.restart(BOB);
    world.settle();
    assert_eq!(world.endpoint(BOB).roster().size(), 6);
}

#[test]
fn an_entry_that_the_coordinator_had_no_right_to_sequence_raises_an_alarm_and_changes_nothing() {
    let mut world = World::new(2, Direct::Blocked);
    let roster = world.coordinator.roster.clone();
    let forged = roster.role_change(&key(1), key(1).id(), Role::Admin, world.now(BOB).wall);
    let forged = forged.sequence(&world.coordinator.key, &roster.mesh_id()).unwrap();
    let entries = vec![bytes::Bytes::from(forged.encode())];
    world.inject(ALICE, &ToNode::Entries { from: 3, entries, size: 4 });
    world.settle();
    assert_eq!(world.endpoint(ALICE).roster().size(), 3);
    assert_eq!(world.alarms(ALICE).len(), 1);
    let id = world.send(ALICE, BOB, "still speaking");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_coordinator_that_invents_entries_of_many_authors_cannot_use_up_the_alarm_of_a_fork() {
    let mut world = World::new(2, Direct::Blocked);
    let roster = world.coordinator.roster.clone();
    let now = world.now(BOB).wall;
    let invented = (10..40).map(|author| roster.role_change(&key(author), key(1).id(), Role::Admin, now));
    let invented: Vec<WireEntry> = invented.collect();
    let histories = [3, 4].map(|new| roster.member_add(&key(0), new_member(new, Role::Member), now));
    let shown = invented.into_iter().map(|entry| (ALICE, entry));
    for (node, entry) in shown.chain([ALICE, BOB].into_iter().zip(histories)) {
        let entry = entry.sequence(&world.coordinator.key, &roster.mesh_id()).unwrap();
        let entries = vec![bytes::Bytes::from(entry.encode())];
        world.inject(node, &ToNode::Entries { from: 3, entries, size: 4 });
        world.settle();
    }
    assert_eq!(world.alarms(ALICE).len(), 1, "thirty inventions are one cause");

    world.send(BOB, ALICE, "signed under another log");
    world.settle();
    let alarms = world.alarms(ALICE);
    assert!(alarms[1].contains("different histories"), "{alarms:?}");
}

#[test]
fn an_owner_key_on_the_node_removes_even_an_admin() {
    let mut world = World::new(2, Direct::Blocked);
    world.nodes[BOB].endpoint.me.owner = Some(owner());
    let done = revoke(&mut world, BOB, ALICE);
    assert!(matches!(done, Some(Reply::Appended(3))), "{done:?}");
    assert!(world.endpoint(BOB).is_revoked(&world.id(ALICE)));
}

/// Erin's own entry, by an invite of Alice's that is good for an hour from now.
fn self_admission(world: &World) -> WireEntry {
    let (roster, now) = (&world.coordinator.roster, world.now(ALICE).wall);
    let code = InviteCode::from_bytes([42; 10]);
    let cap = InviteCap {
        mesh: roster.mesh_id(),
        id: InviteId([8; 16]),
        inviter: world.id(ALICE),
        role: Role::Member,
        max_uses: 1,
        nbf: now,
        exp: now.plus(Duration::from_secs(3_600)),
        mode: InviteMode::Auto,
        head: roster.head(),
        origin: world.coordinator.origin.clone(),
        key: code.signing_key().id(),
        handle: None,
    };
    let erin = new_member(4, Role::Member);
    let claim = InviteClaim {
        mesh: cap.mesh,
        invite: cap.id,
        joiner: erin.id,
        prekey: erin.prekey.unwrap(),
        sealing: BoxSecretKey::from_bytes([7; 32]).public(),
        nonce: [3; 32],
        ts: now,
        handle: erin.handle,
    };
    let (cap, claim) = (SignedCap::sign(&key(0), cap), SignedClaim::sign(&key(4), &code, claim));
    roster.self_admission(&key(4), &cap, &claim, now)
}

fn send_to_erin(world: &mut World) -> Option<Reply> {
    let mut send = world.message(None, &[], "welcome");
    send.to = vec![key(4).id()];
    world.request(BOB, Request::Send(send))
}

#[test]
fn a_member_admitted_in_time_is_written_to_at_once_and_its_inviter_is_told() {
    let mut world = World::new(2, Direct::Blocked);
    let entry = self_admission(&world);
    world.sequence(entry);
    world.settle();
    assert!(matches!(send_to_erin(&mut world), Some(Reply::Sent { .. })));
    let told = |event: &Event| matches!(event, Event::Admitted { handle, .. } if handle == "erin");
    assert!(world.nodes[ALICE].events.iter().any(told));
    assert!(!world.nodes[BOB].events.iter().any(told));
}

#[test]
fn a_member_admitted_by_an_invite_that_had_ended_is_held_until_an_admin_vouches() {
    let mut world = World::new(3, Direct::Blocked);
    let entry = self_admission(&world);
    world.pass(Duration::from_secs(2 * 3_600));
    world.sequence(entry);
    world.settle();
    for _ in 0..2 {
        let held = send_to_erin(&mut world);
        assert!(
            matches!(&held, Some(Reply::Refused(Refusal::Denied { code, .. })) if code == "held"),
            "{held:?}"
        );
        world.restart(BOB);
        world.settle();
    }
    revoke(&mut world, ALICE, CAROL);
    assert!(matches!(send_to_erin(&mut world), Some(Reply::Sent { .. })));
    world.restart(BOB);
    world.settle();
    assert!(matches!(send_to_erin(&mut world), Some(Reply::Sent { .. })));
}

#[test]
fn a_coordinator_that_lost_the_end_of_its_log_gets_it_back_and_someone_hears_of_it() {
    let mut world = World::new(3, Direct::Blocked);
    let before = world.coordinator.roster.head();
    assert!(matches!(revoke(&mut world, ALICE, CAROL), Some(Reply::Appended(4))));
    let whole = world.coordinator.roster.head();
    world.coordinator_down();
    world.coordinator.forgets_log(4);
    assert_eq!(world.coordinator.roster.head(), before);
    world.coordinator_up = true;
    world.pass(Duration::from_secs(60));

    assert_eq!(world.coordinator.roster.head(), whole);
    let gave = |node: usize| world.alarms(node).iter().any(|text| text.contains("ended before entry 4"));
    assert!(gave(ALICE) || gave(BOB));
    assert!(!world.coordinator.is_online(&world.id(CAROL)), "she is still removed");
}
