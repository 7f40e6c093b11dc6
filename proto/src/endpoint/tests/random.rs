//! Random weather: whatever happens in between, what was acknowledged is shown exactly once and in
//! order, and its sender comes to know.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{Crash, Direct, World};
use crate::endpoint::OutboxState;

#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, to: usize },
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

fn run(steps: &[Step]) {
    let mut world = World::new(3, Direct::Works);
    let mut sent = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Send { from, to } if world.nodes[*from].running => {
                let text = format!("{from}>{to} {number}");
                let id = world.send(*from, *to, &text);
                sent.push((*from, *to, id, text));
            }
            Step::Read(node) if world.nodes[*node].running => world.read_all(*node),
            Step::Restart(node) if world.nodes[*node].running => world.restart(*node),
            Step::Crash(node, crash) => {
                let next = world.nodes[*node].batches;
                world.nodes[*node].crash_at = Some((next, *crash));
            }
            Step::Stop(node) if world.nodes[*node].running => world.stop(*node),
            Step::Start(node) if !world.nodes[*node].running => world.start(*node),
            Step::Send { .. } | Step::Read(_) | Step::Restart(_) | Step::Stop(_) | Step::Start(_) => {}
            Step::CutDirect => world.cut_direct(),
            Step::CutUplink(node) => world.cut_uplink(*node),
            Step::CoordinatorDown => world.coordinator_down(),
            Step::CoordinatorUp => world.coordinator_up = true,
            Step::Direct(direct) => world.direct = *direct,
            Step::Pass(ms) => world.pass(Duration::from_millis(*ms)),
        }
    }
    world.coordinator_up = true;
    world.direct = Direct::Works;
    world.cut_direct();
    for node in 0..NODES {
        if !world.nodes[node].running {
            world.start(node);
        }
    }
    world.pass(Duration::from_secs(120));
    for to in 0..NODES {
        for from in 0..NODES {
            let expected: Vec<&String> =
                sent.iter().filter(|(f, t, ..)| (*f, *t) == (from, to)).map(|(.., text)| text).collect();
            let prefix = format!("{from}>");
            let shown = world.inbox(to);
            let shown: Vec<&String> = shown.iter().filter(|text| text.starts_with(&prefix)).collect();
            assert_eq!(shown, expected, "{from} to {to}");
        }
    }
    for (from, to, id, text) in &sent {
        let state = world.state(*from, *id, *to);
        assert!(matches!(state, OutboxState::Stored | OutboxState::Surfaced), "{text}: {state:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_weather_everything_acknowledged_is_shown_once_and_in_order(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(&steps);
    }
}
