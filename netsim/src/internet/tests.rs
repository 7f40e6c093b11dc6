//! Ways of datagrams through several networks.

use super::*;
use crate::nat::Preset;

const SECOND: Duration = Duration::from_secs(1);

fn internet(presets: &[Preset], shared: &[Option<usize>]) -> Internet {
    let chains: Vec<Vec<Behaviour>> = presets.iter().map(|preset| preset.chain()).collect();
    Internet::new(&chains, shared, 7)
}

/// Sends from a node's first socket and gives who gets it, there and from where.
fn sent(internet: &mut Internet, node: usize, to: SocketAddr) -> Option<(Place, SocketAddr, SocketAddr)> {
    let source = internet.local(node, 0);
    let travelling = internet.send(SECOND, Place::Node(node), source, to, None)?;
    let (place, at) = internet.arrive(SECOND, &travelling)?;
    assert_eq!(internet.towards(&travelling), Some(place));
    Some((place, at, travelling.from))
}

/// How the coordinator sees a node.
fn seen(internet: &mut Internet, node: usize) -> SocketAddr {
    let [stun, _] = Internet::stun_servers();
    let (place, at, from) = sent(internet, node, stun).expect("it answers everybody");
    assert_eq!((place, at), (Place::Coordinator, stun));
    from
}

#[test]
fn two_open_hosts_see_each_other_as_they_are() {
    let mut internet = internet(&[Preset::None; 2], &[None; 2]);
    let [a, b] = [0, 1].map(|node| internet.local(node, 0));
    assert_eq!(sent(&mut internet, 0, b), Some((Place::Node(1), b, a)));
    assert_eq!(seen(&mut internet, 0), a);
    assert_eq!(internet.owed(0, 1), Owed::Direct);
}

#[test]
fn a_private_address_leads_nowhere_from_outside_and_to_a_neighbour_from_inside() {
    let shared = [Some(0), Some(0), None];
    let mut internet = internet(&[Preset::Symmetric, Preset::Symmetric, Preset::None], &shared);
    let [a, b] = [0, 1].map(|node| internet.local(node, 0));
    assert_eq!(sent(&mut internet, 2, b), None);
    assert_eq!(sent(&mut internet, 0, b), Some((Place::Node(1), b, a)), "no NAT between them");
    assert_eq!(internet.owed(0, 1), Owed::Direct);
    assert_eq!(internet.owed(0, 2), Owed::Direct, "an open host takes whoever comes");
}

#[test]
fn an_answer_comes_in_through_both_nats_of_a_chain() {
    let mut internet = internet(&[Preset::Cgnat, Preset::None], &[None; 2]);
    let (inside, open) = (internet.local(0, 0), internet.local(1, 0));
    let (_, _, outside) = sent(&mut internet, 0, open).expect("it gets out");
    assert_ne!(outside.ip(), inside.ip());
    assert_eq!(sent(&mut internet, 1, outside), Some((Place::Node(0), inside, open)));
    let stranger = SocketAddr::new(outside.ip(), outside.port() ^ 1);
    assert_eq!(sent(&mut internet, 1, stranger), None);
}

#[test]
fn neighbours_behind_a_carrier_meet_only_where_it_serves_hairpins() {
    let mut chains = vec![Preset::Cgnat.chain(), Preset::Cgnat.chain()];
    let meets = |chains: &[Vec<Behaviour>]| {
        let mut internet = Internet::new(chains, &[Some(0), Some(0)], 7);
        let targets = [seen(&mut internet, 0), seen(&mut internet, 1)];
        assert_eq!(targets[0].ip(), targets[1].ip(), "one carrier");
        sent(&mut internet, 0, targets[1]);
        let met = sent(&mut internet, 1, targets[0]).is_some();
        (met, internet.owed(0, 1))
    };
    assert_eq!(meets(&chains), (true, Owed::Direct));
    for chain in &mut chains {
        chain[1].hairpins = false;
    }
    assert_eq!(meets(&chains), (false, Owed::Relay));
}

#[test]
fn a_datagram_with_few_hops_opens_the_nat_and_dies_outside() {
    let mut internet = internet(&[Preset::PortRestricted, Preset::PortRestricted], &[None; 2]);
    let [here, there] = [seen(&mut internet, 0), seen(&mut internet, 1)];
    let source = internet.local(0, 0);
    assert_eq!(internet.send(SECOND, Place::Node(0), source, there, Some(3)), None);
    assert!(sent(&mut internet, 1, here).is_some(), "its sender's NAT lets the other in");
}

#[test]
fn what_forgot_moved_or_was_rebound_is_found_at_its_latest_address_only() {
    let mut internet = internet(&[Preset::FullCone, Preset::None], &[None; 2]);
    let before = seen(&mut internet, 0);
    assert!(sent(&mut internet, 1, before).is_some());
    internet.reboot(0);
    assert_eq!(sent(&mut internet, 1, before), None, "it forgot");
    assert_eq!(internet.renumber(0), None, "the node sees nothing of it");
    let after = seen(&mut internet, 0);
    assert_ne!(after.ip(), before.ip());
    assert!(sent(&mut internet, 1, after).is_some());
    assert_eq!(sent(&mut internet, 1, before), None);
    internet.rebind(SECOND, 0);
    assert_eq!(sent(&mut internet, 1, after), None);
    let open = internet.local(1, 0);
    assert!(sent(&mut internet, 0, open).is_some());
    let moved = internet.renumber(1).expect("its own address");
    assert_eq!(internet.local(1, 0).ip(), moved);
    assert_eq!(sent(&mut internet, 0, open), None);
    assert!(sent(&mut internet, 0, SocketAddr::new(moved, open.port())).is_some());
    assert_eq!((internet.household(0), internet.household(1)), (vec![0], vec![1]));
}
