//! Random weather: whatever happens in between, what was acknowledged is shown exactly once and in
//! order, and its sender comes to know.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{Crash, Direct, World};
use crate::endpoint::{OutboxState, Request, Send};
use crate::id::MessageId;

#[derive(Clone, Debug)]
enum Step {
    Send {
        from: usize,
        to: usize,
    },
    /// A message that may expire on the way.
    SendShort {
        from: usize,
        to: usize,
    },
    AbortLast,
    LoseKeys(usize),
    Full(usize),
    NobodyFull,
    Read(usize),
    CutDirect,
    CutUplink(usize),
    Restart(usize),
    Crash(usize, Crash),
    Stop(usize),
    Start(usize),
    CoordinatorDown,
    CoordinatorUp,
    Direct(Direct),
    Pass(u64),
}

const NODES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        8 => (node(), 1..NODES).prop_map(|(from, by)| Step::Send { from, to: (from + by) % NODES }),
        2 => (node(), 1..NODES).prop_map(|(from, by)| Step::SendShort { from, to: (from + by) % NODES }),
        1 => Just(Step::AbortLast),
        1 => node().prop_map(Step::LoseKeys),
        1 => node().prop_map(Step::Full),
        1 => Just(Step::NobodyFull),
        1 => node().prop_map(Step::Read),
        2 => Just(Step::CutDirect),
        2 => node().prop_map(Step::CutUplink),
        1 => node().prop_map(Step::Restart),
        2 => (node(), prop_oneof![Just(Crash::BeforeCommit), Just(Crash::AfterCommit)])
            .prop_map(|(node, crash)| Step::Crash(node, crash)),
        1 => node().prop_map(Step::Stop),
        2 => node().prop_map(Step::Start),
        1 => Just(Step::CoordinatorDown),
        2 => Just(Step::CoordinatorUp),
        2 => prop_oneof![Just(Direct::Works), Just(Direct::Silent), Just(Direct::Blocked)].prop_map(Step::Direct),
        6 => prop_oneof![0..30_u64, 30..3_000_u64, Just(40_000_u64)].prop_map(Step::Pass),
    ]
}

/// A message that was acknowledged, and whether it was promised to arrive.
struct Sent {
    from: usize,
    to: usize,
    id: MessageId,
    text: String,
    promised: bool,
}

fn run(steps: &[Step]) {
    let mut world = World::new(3, Direct::Works);
    let mut sent = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        take(&mut world, &mut sent, number, step);
    }
    world.coordinator_up = true;
    world.coordinator.full.clear();
    world.direct = Direct::Works;
    world.cut_direct();
    for node in 0..NODES {
        if !world.nodes[node].running {
            world.start(node);
        }
    }
    world.pass(Duration::from_secs(120));
    check(&world, &sent);
}

fn take(world: &mut World, sent: &mut Vec<Sent>, number: usize, step: &Step) {
    match step {
        Step::Send { from, to } if world.nodes[*from].running => {
            let (from, to, text) = (*from, *to, format!("{from}>{to} {number}"));
            let id = world.send(from, to, &text);
            sent.push(Sent { from, to, id, text, promised: true });
        }
        Step::SendShort { from, to } if world.nodes[*from].running => {
            let (from, to, text) = (*from, *to, format!("{from}>{to} {number}"));
            let id = world.fresh_message_id();
            let send = Send { life: Duration::from_secs(2), ..world.message(Some(id), &[to], &text) };
            // A crash here is one that its program does not survive: nothing was acknowledged.
            if world.request(from, Request::Send(send)).is_some() {
                sent.push(Sent { from, to, id, text, promised: false });
            }
        }
        Step::AbortLast => {
            if let Some(last) = sent.last_mut().filter(|last| world.nodes[last.from].running) {
                world.request(last.from, Request::Abort(last.id));
                last.promised =
                    last.promised && world.state(last.from, last.id, last.to) != OutboxState::Aborted;
            }
        }
        Step::LoseKeys(node) if world.nodes[*node].running => {
            world.stop(*node);
            world.nodes[*node].disk.forget_weekly_prekeys();
            world.start(*node);
        }
        Step::Full(node) => drop(world.coordinator.full.insert(world.id(*node))),
        Step::NobodyFull => world.coordinator.full.clear(),
        Step::Read(node) if world.nodes[*node].running => world.read_all(*node),
        Step::Restart(node) if world.nodes[*node].running => world.restart(*node),
        Step::Crash(node, crash) => {
            let next = world.nodes[*node].batches;
            world.nodes[*node].crash_at = Some((next, *crash));
        }
        Step::Stop(node) if world.nodes[*node].running => world.stop(*node),
        Step::Start(node) if !world.nodes[*node].running => world.start(*node),
        Step::Send { .. } | Step::SendShort { .. } | Step::LoseKeys(_) | Step::Read(_) => {}
        Step::Restart(_) | Step::Stop(_) | Step::Start(_) => {}
        Step::CutDirect => world.cut_direct(),
        Step::CutUplink(node) => world.cut_uplink(*node),
        Step::CoordinatorDown => world.coordinator_down(),
        Step::CoordinatorUp => world.coordinator_up = true,
        Step::Direct(direct) => world.direct = *direct,
        Step::Pass(ms) => world.pass(Duration::from_millis(*ms)),
    }
}

fn check(world: &World, sent: &[Sent]) {
    for message in sent {
        let state = world.state(message.from, message.id, message.to);
        let shown = world.inbox(message.to).iter().filter(|text| **text == message.text).count();
        match &state {
            OutboxState::Stored | OutboxState::Surfaced => assert_eq!(shown, 1, "{}", message.text),
            OutboxState::Aborted => assert_eq!(shown, 0, "{}", message.text),
            OutboxState::Expired(_) => assert!(shown <= 1 && !message.promised, "{}", message.text),
            OutboxState::Pending
            | OutboxState::InFlight
            | OutboxState::Accepted
            | OutboxState::Rejected(_)
            | OutboxState::Dead(_) => panic!("{}: {state:?}", message.text),
        }
    }
    // What its sender gave up may still have been on its way, and then surfaces late.
    let arrived = |message: &&Sent| {
        matches!(
            world.state(message.from, message.id, message.to),
            OutboxState::Stored | OutboxState::Surfaced
        )
    };
    for (to, from) in (0..NODES).flat_map(|to| (0..NODES).map(move |from| (to, from))) {
        let between = sent.iter().filter(|message| (message.from, message.to) == (from, to));
        let expected: Vec<&String> = between.filter(arrived).map(|message| &message.text).collect();
        let inbox = world.inbox(to);
        let shown: Vec<&String> = inbox.iter().filter(|text| expected.contains(text)).collect();
        assert_eq!(shown, expected, "{from} to {to}");
    }
}

/// As many as `PROPTEST_CASES` says; by itself a third of what the library would do, which is enough
/// to meet each pair of faults.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if config.cases == 256 { 80 } else { config.cases };
    ProptestConfig { cases, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_the_weather_everything_acknowledged_is_shown_once_and_in_order(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(&steps);
    }
}

/// What chance found once, kept in the words it was found in.
#[test]
fn weather_that_lost_or_held_something_before_does_so_no_more() {
    let found: &[&[Step]] = &[
        &[Step::SendShort { from: 0, to: 1 }, Step::CoordinatorDown, Step::Pass(1230)],
        &[
            Step::Stop(0),
            Step::Send { from: 2, to: 1 },
            Step::Stop(1),
            Step::CoordinatorUp,
            Step::SendShort { from: 2, to: 1 },
            Step::Pass(2010),
            Step::Send { from: 2, to: 1 },
        ],
        &[
            Step::SendShort { from: 1, to: 2 },
            Step::CoordinatorDown,
            Step::Pass(1950),
            Step::Send { from: 1, to: 2 },
            Step::LoseKeys(2),
            Step::Send { from: 0, to: 1 },
            Step::Stop(1),
        ],
        &[
            Step::Full(0),
            Step::Send { from: 1, to: 0 },
            Step::Pass(10),
            Step::Send { from: 1, to: 0 },
            Step::Stop(0),
            Step::NobodyFull,
            Step::Start(0),
            Step::LoseKeys(0),
            Step::Pass(80),
            Step::Restart(1),
        ],
        &[
            Step::CoordinatorDown,
            Step::SendShort { from: 0, to: 2 },
            Step::Pass(1228),
            Step::Restart(0),
            Step::Send { from: 0, to: 2 },
            Step::CoordinatorUp,
            Step::Pass(50),
            Step::Full(2),
            Step::Pass(40000),
        ],
        &[
            Step::CoordinatorDown,
            Step::Pass(0),
            Step::SendShort { from: 2, to: 1 },
            Step::Send { from: 2, to: 1 },
            Step::Pass(40000),
            Step::SendShort { from: 2, to: 1 },
        ],
        &[
            Step::LoseKeys(0),
            Step::CoordinatorDown,
            Step::Pass(0),
            Step::Send { from: 2, to: 0 },
            Step::Send { from: 2, to: 0 },
            Step::Send { from: 2, to: 0 },
            Step::AbortLast,
            Step::Send { from: 2, to: 0 },
            Step::Restart(2),
        ],
        &[
            Step::Start(0),
            Step::Send { from: 2, to: 0 },
            Step::Send { from: 2, to: 0 },
            Step::Full(0),
            Step::SendShort { from: 2, to: 0 },
            Step::CoordinatorUp,
            Step::Send { from: 2, to: 0 },
            Step::Pass(40000),
            Step::LoseKeys(2),
            Step::Pass(50),
        ],
    ];
    found.iter().for_each(|steps| run(steps));
}
