//! The uplink: coordinators that go, come back, lie about who they are, or live in another time.

use std::time::Duration;

use super::A_WHILE;
use super::mesh::{key, new_member};
use super::world::{ALICE, BOB, CAROL, Direct, World};
use crate::endpoint::{OutboxState, Refusal, Reply, Request, UplinkStatus};
use crate::hello::{StoreMark, StoreView};
use crate::id::{InviteLookup, RunId};
use crate::roster::Role;
use crate::time::UnixMs;
use crate::wire::ToNode;

fn offline_because(world: &World, node: usize) -> String {
    let status = world.endpoint(node).uplink_status();
    let UplinkStatus::Offline(why) = status else { panic!("{status:?}") };
    why.clone()
}

#[test]
fn what_was_sent_while_the_coordinator_was_away_goes_when_it_is_back() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();
    let id = world.send(ALICE, BOB, "patience");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Pending);
    assert_eq!(offline_because(&world, ALICE), "connection lost");
    let tries = world.nodes[ALICE].batches;
    world.pass(Duration::from_secs(600));
    assert!(world.nodes[ALICE].batches - tries <= 160, "at most one attempt in fifteen seconds");

    world.coordinator_up = true;
    world.pass(Duration::from_secs(31));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.inbox(BOB), ["patience"]);
}

#[test]
fn a_lost_uplink_repeats_what_was_in_flight_and_nothing_is_shown_twice() {
    let mut world = World::new(2, Direct::Blocked);
    let id = world.send(ALICE, BOB, "hi");
    world.pass(Duration::from_millis(15));
    world.cut_uplink(ALICE);
    world.cut_uplink(BOB);
    world.pass(A_WHILE);
    assert_eq!(world.inbox(BOB), ["hi"]);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_coordinator_under_another_key_gets_nothing() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.coordinator.key = key(150);
    world.coordinator_up = true;
    let id = world.send(ALICE, BOB, "hi");
    world.pass(A_WHILE);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Pending);
    assert_eq!(world.carried(id).len(), 0);
    assert!(offline_because(&world, ALICE).contains("is not the coordinator's key here"));
}

#[test]
fn a_coordinator_at_another_origin_gets_nothing() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.coordinator.origin = "https://elsewhere.example".parse().unwrap();
    world.coordinator_up = true;
    let id = world.send(ALICE, BOB, "hi");
    world.pass(A_WHILE);
    assert_eq!(world.carried(id).len(), 0);
    assert!(offline_because(&world, ALICE).contains("elsewhere.example"));
}

#[test]
fn a_welcome_signed_by_someone_else_is_refused() {
    let mut world = World::asleep(2, Direct::Blocked);
    world.start(ALICE);
    world.pass(Duration::from_millis(25));
    // The challenge was the real coordinator's; whoever sits between signs the welcome.
    world.coordinator.key = key(150);
    let welcome = crate::hello::SignedWelcome::sign(
        &key(150),
        crate::hello::Welcome {
            hello: [0; 32],
            ts: world.now(ALICE).wall,
            head: world.coordinator.roster.head(),
            lease: Duration::from_secs(90),
            frame_bytes_max: 1 << 20,
            store: None,
        },
    );
    let signed = crate::wire::SignedBytes { stmt: welcome.stmt().clone(), sig: welcome.sig() };
    world.inject(ALICE, &ToNode::Welcome { welcome: signed });
    world.pass(Duration::from_millis(1));
    assert_eq!(offline_because(&world, ALICE), "the welcome answers another hello");
}

#[test]
fn a_clock_that_is_an_hour_off_stops_sending_keeps_the_outbox_and_says_so() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(ALICE);
    world.nodes[ALICE].ahead = Duration::from_secs(3_600);
    world.start(ALICE);
    let id = world.send(ALICE, BOB, "hi");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Pending);
    assert!(offline_because(&world, ALICE).contains("clock is 60 minutes ahead of the coordinator's"));
    assert_eq!(world.endpoint(ALICE).clock_skew_ms().map(|skew| skew / 60_000), Some(60));

    world.nodes[ALICE].ahead = Duration::ZERO;
    world.pass(A_WHILE);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.endpoint(ALICE).clock_skew_ms().map(|skew| skew / 1_000), Some(0));
}

#[test]
fn a_clock_that_jumps_on_a_busy_uplink_is_noticed_with_the_next_frame() {
    let mut world = World::new(2, Direct::Blocked);
    world.nodes[ALICE].ahead = Duration::from_secs(3_600);
    let id = world.send(BOB, ALICE, "hi");
    world.pass(Duration::from_secs(5));
    assert!(offline_because(&world, ALICE).contains("clock is 60 minutes ahead"));
    assert!(world.inbox(ALICE).is_empty(), "nothing is judged by a clock that nobody vouches for");
    world.nodes[ALICE].ahead = Duration::ZERO;
    world.pass(A_WHILE);
    assert_eq!(world.inbox(ALICE), ["hi"]);
    assert_eq!(world.state(BOB, id, ALICE), OutboxState::Stored);
}

#[test]
fn a_small_difference_of_clocks_is_known_and_harmless() {
    let mut world = World::asleep(2, Direct::Works);
    world.nodes[ALICE].ahead = Duration::from_secs(240);
    world.start(ALICE);
    world.start(BOB);
    world.settle();
    let id = world.send(ALICE, BOB, "from the future");
    let back = world.send(BOB, ALICE, "from the past");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.state(BOB, back, ALICE), OutboxState::Stored);
    assert_eq!(world.endpoint(ALICE).clock_skew_ms().map(|skew| skew / 1_000), Some(240));
}

#[test]
fn a_silent_coordinator_is_left_and_tried_again() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_up = false;
    world.pass(Duration::from_secs(76));
    let status = world.endpoint(ALICE).uplink_status().clone();
    assert!(matches!(status, UplinkStatus::Offline(_)), "{status:?}");
    world.coordinator_up = true;
    let id = world.send(ALICE, BOB, "hi");
    world.pass(A_WHILE);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_quiet_uplink_is_kept_by_pings() {
    let mut world = World::new(2, Direct::Blocked);
    world.pass(Duration::from_secs(3_600));
    assert_eq!(*world.endpoint(ALICE).uplink_status(), UplinkStatus::Connected);
    let changes = world.nodes[ALICE].events.iter().filter(|e| matches!(e, crate::endpoint::Event::Uplink(_)));
    assert_eq!(changes.count(), 1);
}

#[test]
fn a_put_that_is_not_answered_is_put_again_on_another_socket() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator.idle = true;
    let id = world.send(ALICE, BOB, "hi");
    world.pass(Duration::from_secs(25));
    assert_eq!(*world.endpoint(ALICE).uplink_status(), UplinkStatus::Connected);
    world.coordinator.idle = false;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.inbox(BOB), ["hi"]);
}

#[test]
fn a_log_that_is_asked_for_and_does_not_come_holds_mail_up_for_half_a_minute() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(ALICE);
    let (roster, now) = (&world.coordinator.roster, world.now(BOB).wall);
    let entry = roster.member_add(&key(0), new_member(4, Role::Member), now);
    world.sequence(entry);
    world.settle();

    world.coordinator.idle = true;
    world.start(ALICE);
    world.pass(Duration::from_secs(25));
    world.coordinator.idle = false;
    let id = world.send(ALICE, BOB, "hi");
    world.pass(Duration::from_secs(10));
    assert!(world.endpoint(ALICE).roster().member(&key(4).id()).is_some());
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn garbage_from_the_coordinator_ends_the_session_and_nothing_else() {
    let mut world = World::new(2, Direct::Blocked);
    world.inject(ALICE, &ToNode::Challenge { challenge: bytes::Bytes::from_static(b"again") });
    world.pass(Duration::from_millis(1));
    assert_eq!(offline_because(&world, ALICE), "the coordinator greeted twice");
    let id = world.send(ALICE, BOB, "hi");
    world.pass(A_WHILE);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_coordinator_that_says_when_to_come_back_is_believed() {
    let mut world = World::new(2, Direct::Blocked);
    world.inject(ALICE, &ToNode::GoingAway { reconnect_after_ms: 20_000 });
    world.pass(Duration::from_millis(1));
    world.cut_uplink(ALICE);
    world.pass(Duration::from_secs(19));
    assert!(!world.coordinator.is_online(&world.id(ALICE)));
    world.pass(Duration::from_secs(2));
    assert!(world.coordinator.is_online(&world.id(ALICE)));
}

#[test]
fn invites_need_a_coordinator_and_are_answered_when_it_has_them() {
    let mut world = World::new(1, Direct::Blocked);
    let put = || Request::PutInvite {
        lookup: InviteLookup([1; 16]),
        blob: bytes::Bytes::from_static(b"sealed"),
        exp: UnixMs(1),
        uses: 1,
    };
    let token = world.ask(ALICE, put());
    world.settle();
    assert!(matches!(world.answer(ALICE, token), Some(Reply::Done)));

    let under_way = world.ask(ALICE, put());
    world.pass(Duration::from_millis(1));
    world.coordinator_down();
    world.settle();
    assert!(matches!(world.answer(ALICE, under_way), Some(Reply::Refused(Refusal::CoordinatorAway))));
    assert!(matches!(world.request(ALICE, put()), Some(Reply::Refused(Refusal::CoordinatorAway))));
}

const MARK: StoreMark = StoreMark { run: RunId([1; 16]), commit: 7 };

#[test]
fn what_a_coordinator_lost_by_going_back_is_offered_again_and_shown_once() {
    let mut world = World::asleep(3, Direct::Blocked);
    world.coordinator.store = Some(StoreView { mark: MARK, kept: true });
    [ALICE, BOB, CAROL].into_iter().for_each(|node| world.start(node));
    world.settle();
    world.stop(BOB);
    let [lost, kept] = ["lost", "kept"].map(|text| world.send(ALICE, BOB, text));
    let arrived = world.send(ALICE, CAROL, "arrived");
    world.pass(A_WHILE);
    assert_eq!(world.state(ALICE, lost, BOB), OutboxState::Accepted);
    assert_eq!(world.nodes[ALICE].disk.coordinator_mark, Some(MARK));

    world.coordinator_down();
    world.coordinator.goes_back();
    world.coordinator_up = true;
    world.pass(A_WHILE);

    assert_eq!(world.alarms(ALICE).len(), 1);
    assert!(world.alarms(ALICE)[0].contains("the 2 messages it had accepted are sent again"));
    assert_eq!(world.carried(arrived).len(), 1, "what its recipient has is not the coordinator's to lose");
    world.start(BOB);
    world.pass(A_WHILE);
    assert_eq!(world.inbox(BOB), ["lost", "kept"]);
    assert_eq!(world.state(ALICE, kept, BOB), OutboxState::Stored);
    assert_eq!(world.nodes[ALICE].disk.coordinator_mark, world.coordinator.store.map(|store| store.mark));
}
