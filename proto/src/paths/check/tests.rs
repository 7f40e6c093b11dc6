//! Two ends of one attempt, and whoever stands between.

use super::*;

const LAN: &str = "192.168.1.2:7";
const WAN: &str = "203.0.113.2:7";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_millis(ms))
}

fn host(text: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, addr: addr(text) }
}

fn check(dialler: bool, candidates: &[&str]) -> Check {
    let candidates: Vec<Candidate> = candidates.iter().map(|text| host(text)).collect();
    Check::new(at(0), ConnId([1; 16]), (&[2; 16], &[3; 16]), dialler, false, &candidates)
}

fn polled(check: &mut Check, now: Monotonic, entropy: &mut Entropy) -> Vec<Datagram> {
    let mut out = Vec::new();
    check.poll(now, entropy, &mut out);
    out
}

/// The other end's answer to a request that it sees come from `from`.
fn answered(other: &mut Check, now: Monotonic, from: &str, request: &Datagram) -> Datagram {
    let mut out = Vec::new();
    assert!(other.request(now, 0, addr(from), &StunMessage::parse(&request.bytes).unwrap(), &mut out));
    out.remove(0)
}

#[test]
fn an_address_is_asked_nine_times_up_the_ladder_and_then_given_up() {
    let (mut check, mut entropy) = (check(true, &[WAN]), Entropy::from_seed([1; 32]));
    let mut times = Vec::new();
    loop {
        let due = check.deadline().unwrap();
        if check.choice(due) == Choice::GiveUp {
            assert_eq!(due, at(4_000));
            break;
        }
        times.extend(polled(&mut check, due, &mut entropy).iter().map(|_| due));
    }
    assert_eq!(times, [0, 50, 100, 150, 250, 450, 850, 1_650, 3_250].map(at));
}

#[test]
fn only_the_other_ends_key_and_direction_prove_anything() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN]), check(false, &[]));
    let request = polled(&mut dialler, at(0), &mut entropy).remove(0);
    let mut out = Vec::new();
    let parsed = StunMessage::parse(&request.bytes).unwrap();
    assert!(!dialler.request(at(1), 0, addr(WAN), &parsed, &mut out), "its own request, thrown back");
    let mut stranger = Check::new(at(0), ConnId([1; 16]), (&[2; 16], &[9; 16]), false, false, &[]);
    assert!(!stranger.request(at(1), 0, addr(WAN), &parsed, &mut out), "another attempt");
    assert_eq!(out, []);

    let answer = answered(&mut acceptor, at(1), "198.51.100.9:4", &request);
    let parsed = StunMessage::parse(&answer.bytes).unwrap();
    assert!(!dialler.answer(at(2), 0, addr(LAN), &parsed), "from another address");
    assert!(!dialler.answer(at(2), 3, addr(WAN), &parsed), "on another socket");
    assert!(dialler.answer(at(2), 0, addr(WAN), &parsed));
    assert!(!dialler.answer(at(3), 0, addr(WAN), &parsed), "twice");
    assert_eq!(dialler.choice(at(2)), Choice::Dial(0, vec![addr(WAN)]));
}

#[test]
fn a_request_from_an_unknown_address_is_asked_back_at_once_and_a_burst_of_them_once() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN]), check(false, &[]));
    let request = polled(&mut dialler, at(0), &mut entropy).remove(0);
    for ms in 1..5 {
        answered(&mut acceptor, at(ms), "198.51.100.9:4", &request);
        let back = polled(&mut acceptor, at(ms), &mut entropy);
        assert_eq!(back.len(), usize::from(ms == 1));
    }
    assert_eq!(acceptor.pairs()[0].kind, CandidateKind::PeerReflexive);
}

#[test]
fn a_flood_of_addresses_is_answered_and_not_remembered() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN]), check(false, &[LAN]));
    let request = polled(&mut dialler, at(0), &mut entropy).remove(0);
    for port in 1..1_000 {
        answered(&mut acceptor, at(1), &format!("198.51.100.9:{port}"), &request);
    }
    assert_eq!(acceptor.pairs().len(), CANDIDATES_MAX + LEARNED_MAX);
}

#[test]
fn a_lan_that_may_still_answer_is_waited_for_a_moment_and_no_longer() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN, LAN]), check(false, &[]));
    let requests = polled(&mut dialler, at(0), &mut entropy);
    let by_wan = answered(&mut acceptor, at(5), WAN, &requests[0]);
    assert!(dialler.answer(at(10), 0, addr(WAN), &StunMessage::parse(&by_wan.bytes).unwrap()));
    assert_eq!(dialler.choice(at(10)), Choice::Wait);
    assert_eq!(dialler.deadline(), Some(at(25)));
    assert_eq!(dialler.choice(at(25)), Choice::Dial(0, vec![addr(WAN)]));
    let by_lan = answered(&mut acceptor, at(5), LAN, &requests[1]);
    assert!(dialler.answer(at(20), 0, addr(LAN), &StunMessage::parse(&by_lan.bytes).unwrap()));
    assert_eq!(dialler.choice(at(20)), Choice::Dial(0, vec![addr(LAN), addr(WAN)]));
}

#[test]
fn who_is_asked_from_an_address_that_was_named_dials_it_and_asks_first_where_it_was_not() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let mut acceptor = check(false, &[WAN]);
    let request = polled(&mut acceptor, at(0), &mut entropy).remove(0);
    for (named, dials) in [(&[WAN][..], true), (&[], false)] {
        let mut dialler = check(true, named);
        answered(&mut dialler, at(5), WAN, &request);
        assert_eq!(dialler.choice(at(5)) == Choice::Dial(0, vec![addr(WAN)]), dials);
        let back = polled(&mut dialler, at(5), &mut entropy).remove(0);
        let answer = answered(&mut acceptor, at(10), LAN, &back);
        assert!(dialler.answer(at(15), 0, addr(WAN), &StunMessage::parse(&answer.bytes).unwrap()));
        assert_eq!(dialler.choice(at(15)), Choice::Dial(0, vec![addr(WAN)]));
    }
}

#[test]
fn who_dials_asks_no_more_but_still_answers() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN, LAN]), check(false, &[WAN]));
    polled(&mut dialler, at(0), &mut entropy);
    dialler.hush();
    assert_eq!(dialler.deadline(), None);
    let request = polled(&mut acceptor, at(0), &mut entropy).remove(0);
    answered(&mut dialler, at(1), WAN, &request);
    assert_eq!(polled(&mut dialler, at(60), &mut entropy), []);
}

#[test]
fn another_network_begins_the_ladder_anew_and_trusts_no_old_proof() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let (mut dialler, mut acceptor) = (check(true, &[WAN, LAN]), check(false, &[]));
    let requests = polled(&mut dialler, at(0), &mut entropy);
    let answer = answered(&mut acceptor, at(5), WAN, &requests[0]);
    assert!(dialler.answer(at(10), 0, addr(WAN), &StunMessage::parse(&answer.bytes).unwrap()));
    dialler.again(at(12));
    assert_eq!(dialler.choice(at(40)), Choice::Wait);
    assert_eq!(polled(&mut dialler, at(12), &mut entropy).len(), 2);
}

#[test]
fn beside_a_living_link_only_a_better_path_is_dialled() {
    let rank = |ms| Rank { tier: Tier::V4, rtt: Duration::from_millis(ms) };
    for (known, dials) in [(rank(12), false), (rank(40), true)] {
        let mut entropy = Entropy::from_seed([1; 32]);
        let (mut dialler, mut acceptor) = (check(true, &[WAN]), check(false, &[]));
        dialler.to_beat = Some(known);
        let request = polled(&mut dialler, at(0), &mut entropy).remove(0);
        let answer = answered(&mut acceptor, at(5), WAN, &request);
        assert!(dialler.answer(at(10), 0, addr(WAN), &StunMessage::parse(&answer.bytes).unwrap()));
        assert_eq!(matches!(dialler.choice(at(10)), Choice::Dial(..)), dials);
        assert_eq!(dialler.choice(at(5_000)) == Choice::GiveUp, !dials);
    }
}

#[test]
fn where_a_path_is_worth_waiting_for_an_address_is_asked_every_second_after_the_ladder() {
    let mut entropy = Entropy::from_seed([1; 32]);
    let mut check = Check::new(at(0), ConnId([1; 16]), (&[2; 16], &[3; 16]), true, true, &[host(WAN)]);
    let mut times = Vec::new();
    while times.len() < 12 {
        let due = check.deadline().unwrap();
        assert_eq!(check.choice(due), Choice::Wait);
        times.extend(polled(&mut check, due, &mut entropy).iter().map(|_| due));
    }
    assert_eq!(times[8..], [3_250, 4_250, 5_250, 6_250].map(at));
}
