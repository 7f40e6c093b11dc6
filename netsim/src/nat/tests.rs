//! Each behaviour by itself, and every pair of presets against what the lab measured.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn nat(preset: Preset) -> Nat {
    Nat::new(preset.chain()[0], "203.0.113.1".parse().unwrap(), 7, "test")
}

fn with(change: impl FnOnce(&mut Behaviour)) -> Nat {
    let mut behaviour = Preset::PortRestricted.chain()[0];
    change(&mut behaviour);
    Nat::new(behaviour, "203.0.113.1".parse().unwrap(), 7, "test")
}

/// Outside ports of one inside socket towards three ends: two ports of one address, and another address.
fn ports(nat: &mut Nat) -> [u16; 3] {
    ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"]
        .map(|to| nat.outbound(SECOND, at("10.0.0.2:5000"), at(to)).unwrap().port())
}

#[test]
fn mapping_depends_on_as_much_of_the_remote_end_as_it_says() {
    let of = |mapping| ports(&mut with(|behaviour| behaviour.mapping = mapping));
    let [a, b, c] = of(Scope::EndpointIndependent);
    assert_eq!((a, b), (b, c));
    let [a, b, c] = of(Scope::AddressDependent);
    assert!(a == b && b != c);
    let [a, b, c] = of(Scope::AddressAndPortDependent);
    assert!(a != b && b != c && a != c);
}

#[test]
fn filtering_lets_in_whom_it_says() {
    let from = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"].map(at);
    for (filtering, expected) in [
        (Scope::EndpointIndependent, [true, true, true]),
        (Scope::AddressDependent, [true, true, false]),
        (Scope::AddressAndPortDependent, [true, false, false]),
    ] {
        let mut nat = with(|behaviour| behaviour.filtering = filtering);
        let mapped = nat.outbound(SECOND, at("10.0.0.2:5000"), from[0]).unwrap();
        let let_in = from.map(|from| nat.inbound(SECOND, from, mapped) == Some(at("10.0.0.2:5000")));
        assert_eq!(let_in, expected, "{filtering:?}");
        assert_eq!(nat.inbound(SECOND, from[0], at("203.0.113.1:9")), None, "no mapping, no way in");
    }
}

#[test]
fn ports_are_chosen_as_it_says() {
    let ends = |nat: &mut Nat, sockets: std::ops::Range<u16>, address: &str| -> Vec<u16> {
        let inner = sockets.map(|port| SocketAddr::new(address.parse().unwrap(), port));
        inner.map(|inner| nat.outbound(SECOND, inner, at("192.0.2.1:1")).unwrap().port()).collect()
    };
    let mut preserving = with(|_| ());
    assert_eq!(ends(&mut preserving, 5000..5003, "10.0.0.2"), [5000, 5001, 5002]);
    let second = ends(&mut preserving, 5000..5003, "10.0.0.3");
    assert!(second.iter().all(|port| !(5000..5003).contains(port)), "taken: {second:?}");

    let mut sequential = with(|behaviour| behaviour.ports = Ports::Sequential);
    let given = ends(&mut sequential, 5000..5010, "10.0.0.2");
    assert!(given.windows(2).all(|pair| pair[1] == pair[0] + 1) && given[0] != 5000, "{given:?}");

    let mut random = with(|behaviour| behaviour.ports = Ports::Random);
    let mut given = ends(&mut random, 5000..5100, "10.0.0.2");
    assert!(!given.is_sorted());
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 100);
    assert!(given[99] - given[0] > 40_000, "over the whole range");

    let mut block = with(|behaviour| behaviour.ports = Ports::Block);
    let of = |given: &[u16]| {
        (given.iter().min().unwrap() / BLOCK_PORTS, given.iter().max().unwrap() / BLOCK_PORTS)
    };
    let [here, there] = ["10.0.0.2", "10.0.0.3"].map(|address| ends(&mut block, 5000..5900, address));
    assert!(of(&here).0 == of(&here).1 && of(&there).0 == of(&there).1 && of(&here) != of(&there));
    let more = (5900..6100).filter_map(|port| {
        block.outbound(SECOND, SocketAddr::new("10.0.0.2".parse().unwrap(), port), at("192.0.2.1:1"))
    });
    assert_eq!(more.count(), 124, "a block has 1024 ports");
}

#[test]
fn a_mapping_dies_of_silence_and_of_age() {
    let (inner, remote) = (at("10.0.0.2:5000"), at("192.0.2.1:1"));
    let mut idle = with(|behaviour| (behaviour.idle, behaviour.ports) = (30 * SECOND, Ports::Random));
    let first = idle.outbound(Duration::ZERO, inner, remote).unwrap();
    assert_eq!(idle.outbound(29 * SECOND, inner, remote), Some(first), "use keeps it");
    assert!(idle.inbound(58 * SECOND, remote, first).is_some());
    assert_eq!(idle.inbound(59 * SECOND, remote, first), None);
    assert_ne!(idle.outbound(59 * SECOND, inner, remote), Some(first), "it comes back as another");

    let mut aged = with(|behaviour| (behaviour.life, behaviour.ports) = (Some(60 * SECOND), Ports::Random));
    let first = aged.outbound(Duration::ZERO, inner, remote).unwrap();
    for second in 1..60 {
        assert_eq!(aged.outbound(second * SECOND, inner, remote), Some(first));
    }
    assert_eq!(aged.inbound(60 * SECOND, remote, first), None, "used or not");
    assert_ne!(aged.outbound(60 * SECOND, inner, remote), Some(first));
}

#[test]
fn what_comes_in_keeps_nothing_alive() {
    let (inner, remote) = (at("10.0.0.2:5000"), at("192.0.2.1:1"));
    let mut nat = with(|behaviour| behaviour.idle = 30 * SECOND);
    let mapped = nat.outbound(Duration::ZERO, inner, remote).unwrap();
    assert!((1..30).all(|second| nat.inbound(second * SECOND, remote, mapped).is_some()));
    assert_eq!(nat.inbound(30 * SECOND, remote, mapped), None);
}

#[test]
fn a_full_table_forwards_nothing_further_until_something_dies() {
    let mut nat = with(|behaviour| (behaviour.sessions_max, behaviour.idle) = (3, 30 * SECOND));
    let inner = at("10.0.0.2:5000");
    let remotes: Vec<SocketAddr> =
        (1..=4).map(|port| SocketAddr::new("192.0.2.1".parse().unwrap(), port)).collect();
    assert!(remotes[..3].iter().all(|remote| nat.outbound(Duration::ZERO, inner, *remote).is_some()));
    assert_eq!(nat.outbound(SECOND, inner, remotes[3]), None);
    assert!(nat.outbound(20 * SECOND, inner, remotes[0]).is_some(), "what it knows goes on");
    assert!(nat.outbound(31 * SECOND, inner, remotes[3]).is_some());
}

#[test]
fn a_reboot_forgets() {
    let mut nat = nat(Preset::FullCone);
    let (inner, remote) = (at("10.0.0.2:5000"), at("192.0.2.1:1"));
    let mapped = nat.outbound(SECOND, inner, remote).unwrap();
    nat.reboot();
    assert_eq!(nat.inbound(SECOND, remote, mapped), None);
    assert_eq!(nat.outbound(SECOND, inner, remote), Some(mapped), "it preserves ports");
}

#[test]
fn a_rebinding_moves_the_mapping_and_keeps_nobody_permitted() {
    let mut nat = nat(Preset::PortRestricted);
    let (inner, remote) = (at("10.0.0.2:5000"), at("192.0.2.1:1"));
    let mapped = nat.outbound(SECOND, inner, remote).unwrap();
    nat.rebind(SECOND);
    assert_eq!(nat.inbound(SECOND, remote, mapped), None);
    let moved = nat.outbound(SECOND, inner, remote).unwrap();
    assert_ne!(moved, mapped);
    assert_eq!(nat.inbound(SECOND, remote, moved), Some(inner));
}

/// A host behind a chain of NATs, and the address a STUN server sees it from.
struct Host {
    chain: Vec<Nat>,
    address: SocketAddr,
    seen: Option<SocketAddr>,
}

impl Host {
    fn new(preset: Preset, number: u8) -> Self {
        let external = |depth: usize| IpAddr::from([203, 0, 113 + u8::try_from(depth).unwrap(), number]);
        let chain = preset.chain().into_iter().enumerate();
        let chain: Vec<Nat> = chain
            .map(|(depth, behaviour)| Nat::new(behaviour, external(depth), 7, &format!("{number} {depth}")))
            .collect();
        let inner = if chain.is_empty() { [198, 51, 100, number] } else { [10, 0, 0, number] };
        let mut host = Self { chain, address: SocketAddr::from((inner, 5000)), seen: None };
        host.seen = host.out(host.address, at("192.0.2.1:3478"));
        host
    }

    fn out(&mut self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.chain.iter_mut().try_fold(from, |from, nat| nat.outbound(SECOND, from, to))
    }

    /// The inside port a datagram comes in at.
    fn comes_in(&self, from: SocketAddr, to: SocketAddr) -> Option<u16> {
        let inside = self.chain.iter().rev().try_fold(to, |to, nat| nat.inbound(SECOND, from, to))?;
        (inside.ip() == self.address.ip()).then_some(inside.port())
    }
}

/// Whether two hosts reach each other when both send to where the other was seen, a few times, and then
/// to where the other's datagrams came from.
fn punches(hosts: &mut [Host; 2]) -> bool {
    let mut targets = [hosts[1].seen, hosts[0].seen];
    let mut heard = [false; 2];
    for _ in 0..4 {
        for here in 0..2 {
            let Some(target) = targets[here] else { continue };
            let from = hosts[here].address;
            let Some(seen) = hosts[here].out(from, target) else { continue };
            if hosts[1 - here].comes_in(seen, target) == Some(5000) {
                heard[1 - here] = true;
                targets[1 - here] = Some(seen);
            }
        }
    }
    heard == [true, true]
}

/// Whether the birthday gets through: the hard side opens 256 ports towards the easy side, which then
/// tries 3,000 ports of the hard side's address.
fn birthday(hosts: &mut [Host; 2], easy: usize) -> bool {
    let (Some(target), Some(hard_seen)) = (hosts[easy].seen, hosts[1 - easy].seen) else { return false };
    for socket in 0..256 {
        let from = SocketAddr::new(hosts[1 - easy].address.ip(), 20_000 + socket);
        if hosts[1 - easy].out(from, target).is_none() {
            return false;
        }
    }
    let mut chance = Chance::new(7, "birthday", "probes");
    let from = hosts[easy].address;
    (0..3_000).any(|_| {
        let port = PORT_MIN + u16::try_from(chance.below(usize::from(u16::MAX - PORT_MIN))).unwrap();
        let guess = SocketAddr::new(hard_seen.ip(), port);
        let Some(seen) = hosts[easy].out(from, guess) else { return false };
        hosts[1 - easy].comes_in(seen, guess).is_some_and(|port| port >= 20_000)
    })
}

#[test]
fn every_pair_of_presets_connects_exactly_as_the_lab_and_the_oracle_say() {
    use Preset::{AddressRestricted, Cgnat, FullCone, None as Open, PortRestricted, Symmetric, UdpBlocked};
    // What quinn and webrtc did behind real NATs: direct for every pair of cones and for the first two
    // with a symmetric one. The carrier's NAT is a port-restricted cone.
    let known = |pair: [Preset; 2]| match pair {
        [UdpBlocked, _] | [_, UdpBlocked] | [Symmetric, Symmetric] => Owed::Relay,
        [Symmetric, PortRestricted | Cgnat] | [PortRestricted | Cgnat, Symmetric] => Owed::DirectByBirthday,
        [
            Open | FullCone | AddressRestricted | PortRestricted | Cgnat | Symmetric,
            Open | FullCone | AddressRestricted | PortRestricted | Cgnat | Symmetric,
        ] => Owed::Direct,
    };
    for here in Preset::ALL {
        for there in Preset::ALL {
            let pair = [here, there];
            let owed = direct_path_possible(&here.chain(), &there.chain());
            assert_eq!(owed, known(pair), "the oracle on {pair:?}");
            let hosts = || [Host::new(here, 1), Host::new(there, 2)];
            assert_eq!(punches(&mut hosts()), owed == Owed::Direct, "a punch through {pair:?}");
            let by_birthday = birthday(&mut hosts(), 0) || birthday(&mut hosts(), 1);
            if owed == Owed::DirectByBirthday {
                assert!(by_birthday, "256 ports and 3,000 probes through {pair:?}");
            }
        }
    }
}

#[test]
fn a_symmetric_pair_does_not_meet_by_birthday() {
    for easy in 0..2 {
        let mut hosts = [Host::new(Preset::Symmetric, 1), Host::new(Preset::Symmetric, 2)];
        assert!(!birthday(&mut hosts, easy));
    }
}

#[test]
fn a_chain_is_as_strict_as_its_strictest_nat() {
    let chain = |outer: Preset| [Preset::FullCone.chain(), outer.chain()].concat();
    let open = Preset::None.chain();
    assert_eq!(direct_path_possible(&chain(Preset::Symmetric), &open), Owed::Direct);
    let double = chain(Preset::PortRestricted);
    assert_eq!(direct_path_possible(&double, &chain(Preset::Symmetric)), Owed::DirectByBirthday);
    assert_eq!(direct_path_possible(&double, &chain(Preset::UdpBlocked)), Owed::Relay);
}
