//! What is learned from STUN servers, when they are asked, and when not.

use super::*;
use crate::paths::Mapping;
use crate::stun::binding_success;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_millis(ms))
}

fn entropy() -> Entropy {
    Entropy::from_seed([1; 32])
}

fn servers() -> Vec<SocketAddr> {
    vec![addr("198.51.100.1:3478"), addr("198.51.100.1:3479")]
}

fn placed() -> Gathering {
    let mut gathering = Gathering::default();
    assert!(gathering.place(at(0), vec![addr("10.0.0.2:7")], &servers()));
    gathering
}

fn asked(gathering: &mut Gathering, now: Monotonic, entropy: &mut Entropy) -> Vec<Datagram> {
    let mut out = Vec::new();
    gathering.poll(now, entropy, &mut out);
    out
}

/// Every server answers what it was asked.
fn answer(gathering: &mut Gathering, now: Monotonic, asked: &[Datagram], mapped: &str) -> Vec<Option<bool>> {
    let answers = asked.iter().map(|datagram| {
        let id = StunMessage::parse(&datagram.bytes).unwrap().transaction;
        let bytes = binding_success(&id, addr(mapped));
        gathering.answered(now, datagram.to, &StunMessage::parse(&bytes).unwrap(), at(0))
    });
    answers.collect()
}

#[test]
fn every_server_is_asked_until_it_answers_and_then_no_more() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let first = asked(&mut gathering, at(0), &mut entropy);
    assert_eq!(first.iter().map(|datagram| datagram.to).collect::<Vec<_>>(), servers());
    answer(&mut gathering, at(20), &first[..1], "203.0.113.1:9");
    assert_eq!(gathering.deadline(), Some(at(100)));
    let second = asked(&mut gathering, at(100), &mut entropy);
    assert_eq!(second.iter().map(|datagram| datagram.to).collect::<Vec<_>>(), servers()[1..]);
    answer(&mut gathering, at(120), &second, "203.0.113.1:9");
    assert_eq!(gathering.deadline(), None);
    assert_eq!(gathering.nat().mapping, Mapping::EndpointIndependent);
}

#[test]
fn silence_of_all_servers_is_told_from_not_having_asked_yet() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let mut datagrams = 0;
    while let Some(due) = gathering.deadline() {
        assert_eq!(gathering.nat().mapping, Mapping::Unknown);
        datagrams += asked(&mut gathering, due, &mut entropy).len();
    }
    assert_eq!((datagrams, gathering.nat().mapping), (10, Mapping::Blocked));
}

#[test]
fn an_answer_counts_once_from_the_server_that_was_asked_and_with_its_transaction() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let asked = asked(&mut gathering, at(0), &mut entropy);
    let id = StunMessage::parse(&asked[0].bytes).unwrap().transaction;
    let bytes = binding_success(&id, addr("203.0.113.9:9"));
    let forged = StunMessage::parse(&bytes).unwrap();
    assert_eq!(gathering.answered(at(5), asked[1].to, &forged, at(0)), None, "from elsewhere");
    let guess = binding_success(&[9; 12], addr("203.0.113.9:9"));
    let guess = StunMessage::parse(&guess).unwrap();
    assert_eq!(gathering.answered(at(5), asked[0].to, &guess, at(0)), None, "of no transaction");
    assert_eq!(answer(&mut gathering, at(9), &asked[..1], "203.0.113.1:9"), [Some(true)]);
    assert_eq!(answer(&mut gathering, at(9), &asked[..1], "203.0.113.1:9"), [None], "twice");
}

#[test]
fn what_is_fresh_is_not_asked_again_and_what_may_have_lapsed_is() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let first = asked(&mut gathering, at(0), &mut entropy);
    answer(&mut gathering, at(10), &first, "203.0.113.1:9");
    gathering.refresh(at(24_000));
    assert_eq!(gathering.deadline(), None);
    gathering.refresh(at(26_000));
    let again = asked(&mut gathering, at(26_000), &mut entropy);
    assert_eq!(answer(&mut gathering, at(26_010), &again, "203.0.113.1:9"), [Some(false); 2]);
    assert_eq!(gathering.life().at_least, Some(Duration::from_millis(25_990)));
}

#[test]
fn a_mapping_that_was_another_after_ten_seconds_is_refreshed_after_eight() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let first = asked(&mut gathering, at(0), &mut entropy);
    answer(&mut gathering, at(0), &first, "203.0.113.1:9");
    gathering.begin(at(10_000));
    let again = asked(&mut gathering, at(10_000), &mut entropy);
    answer(&mut gathering, at(10_000), &again, "203.0.113.1:10");
    assert_eq!(gathering.life().under, Some(Duration::from_secs(10)));
    gathering.refresh(at(17_000));
    assert_eq!(gathering.deadline(), None);
    gathering.refresh(at(18_000));
    assert_eq!(gathering.deadline(), Some(at(18_000)));
}

#[test]
fn a_doubt_asks_once_even_while_a_server_that_never_answers_is_waited_for() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let first = asked(&mut gathering, at(0), &mut entropy);
    answer(&mut gathering, at(10), &first[..1], "203.0.113.1:9");
    let silent_since = at(50);
    gathering.doubt(at(200), silent_since);
    let again = asked(&mut gathering, at(200), &mut entropy);
    assert_eq!(again.len(), 2);
    assert!(!gathering.moved_since(silent_since));
    gathering.doubt(at(210), silent_since);
    assert_eq!(asked(&mut gathering, at(210), &mut entropy), []);
    answer(&mut gathering, at(220), &again[..1], "203.0.113.1:10");
    gathering.doubt(at(230), silent_since);
    assert_eq!(asked(&mut gathering, at(230), &mut entropy), []);
    assert!(gathering.moved_since(silent_since));
    assert_eq!(gathering.life().under, None, "no mapping lapses so soon");
}

#[test]
fn a_move_forgets_the_outside_address_and_the_same_word_again_changes_nothing() {
    let (mut gathering, mut entropy) = (placed(), entropy());
    let first = asked(&mut gathering, at(0), &mut entropy);
    answer(&mut gathering, at(10), &first, "203.0.113.1:9");
    assert!(!gathering.place(at(20), vec![addr("10.0.0.2:7")], &servers()));
    assert_eq!((gathering.deadline(), gathering.candidates().len()), (None, 2));
    assert!(gathering.place(at(30), vec![addr("10.0.7.2:7")], &servers()));
    let candidates = gathering.candidates();
    assert_eq!(candidates, [Candidate { kind: CandidateKind::Host, addr: addr("10.0.7.2:7") }]);
    assert_eq!(gathering.deadline(), Some(at(30)));
}

#[test]
fn outside_addresses_come_first_and_a_flood_of_bridges_buries_nothing() {
    let mut gathering = Gathering::default();
    let hosts = (0..100).map(|n| addr(&format!("172.17.0.{n}:7"))).collect();
    gathering.place(at(0), hosts, &servers());
    let first = asked(&mut gathering, at(0), &mut entropy());
    answer(&mut gathering, at(10), &first, "203.0.113.1:9");
    let candidates = gathering.candidates();
    assert_eq!(candidates.len(), CANDIDATES_MAX);
    assert_eq!(candidates[0].addr, addr("203.0.113.1:9"));
}
