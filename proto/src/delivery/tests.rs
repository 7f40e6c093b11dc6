use super::*;
use crate::body::Message;
use crate::id::{Fingerprint, Generation};

const BOB: PeerId = PeerId([1; 32]);
const LINK: Via = Via::Link(7);

fn row(number: Row, bytes: usize) -> OutboxRow {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    OutboxRow {
        row: number,
        id: MessageId([2; 16]),
        to: BOB,
        fp: Fingerprint([3; 32]),
        generation: Generation([4; 8]),
        seq: number,
        message: Message { content_type: "text/plain".to_owned(), content: Bytes::new(), reply_to: None },
        priority: Priority::Next,
        ts: UnixMs(0),
        exp: UnixMs(1_000_000),
        wire: vec![0; bytes].into(),
        env_hash: EnvHash(hash),
        kid: Kid([5; 16]),
        seals: 1,
        state: OutboxState::Pending,
        path: None,
    }
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_millis(ms))
}

/// Hands over what may be handed over; gives the rows.
fn transmit(delivery: &mut Delivery, via: Via, now: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Next::Transmit(row, _) = delivery.next(&BOB, via) {
        delivery.transmitted(row, via, PathKind::Relay, at(now));
        rows.push(row);
    }
    rows
}

#[test]
fn a_path_that_closes_gives_back_what_was_in_flight_on_it_in_order() {
    let mut delivery = Delivery::default();
    (1..=4).for_each(|number| delivery.add(&row(number, 10)));
    assert_eq!(transmit(&mut delivery, LINK, 0), [1, 2, 3, 4]);
    delivery.settle(2);
    delivery.path_closed(Via::Uplink);
    assert_eq!(transmit(&mut delivery, Via::Uplink, 0), [0; 0]);
    delivery.path_closed(LINK);
    assert_eq!(transmit(&mut delivery, Via::Uplink, 0), [1, 3, 4]);
}

#[test]
fn a_full_window_makes_rows_wait_and_an_answer_makes_room() {
    let mut delivery = Delivery::default();
    (1..=10).for_each(|number| delivery.add(&row(number, 1 << 20)));
    let sent = transmit(&mut delivery, LINK, 0);
    assert_eq!(sent.len(), WINDOW_BYTES_MAX >> 20);
    delivery.accepted(1, PathKind::Relay);
    delivery.settle(2);
    assert_eq!(transmit(&mut delivery, LINK, 0), [9, 10]);
}

#[test]
fn bytes_are_counted_as_held_and_as_unaccepted_until_they_are_neither() {
    let mut delivery = Delivery { held_bytes_max: 25, unaccepted_bytes_max: 40, ..Delivery::default() };
    (1..=3).for_each(|number| delivery.add(&row(number, 10)));
    assert_eq!(delivery.held_bytes(), 20);
    assert!(!delivery.is_full(10));
    assert!(delivery.is_full(11));
    assert_eq!(transmit(&mut delivery, LINK, 0), [1, 2]);
    assert!(matches!(delivery.next(&BOB, LINK), Next::Load));
    assert_eq!(delivery.cold(&BOB), [3]);
    delivery.warm(3, vec![0; 10].into());
    delivery.accepted(1, PathKind::Relay);
    assert_eq!(delivery.held_bytes(), 20);
    assert!(!delivery.is_full(20));
    delivery.resealed(1, vec![0; 15].into(), EnvHash([9; 32]), Kid([9; 16]), UnixMs(5));
    assert!(!delivery.is_full(5));
    assert!(delivery.is_full(6));
    [1, 2, 3].into_iter().for_each(|row| drop(delivery.settle(row)));
    assert_eq!((delivery.held_bytes(), delivery.unaccepted_bytes), (0, 0));
    let window = delivery.windows[&LINK];
    assert_eq!((window.messages, window.bytes), (0, 0));
}

#[test]
fn a_row_sealed_again_in_flight_leaves_its_window_as_it_entered() {
    let mut delivery = Delivery::default();
    delivery.add(&row(1, 10));
    transmit(&mut delivery, LINK, 0);
    delivery.resealed(1, vec![0; 64].into(), EnvHash([9; 32]), Kid([9; 16]), UnixMs(5));
    assert_eq!(delivery.windows[&LINK].bytes, 0);
    assert!(delivery.find(&EnvHash([9; 32])).is_some());
    assert_eq!(transmit(&mut delivery, LINK, 0), [1]);
}

#[test]
fn a_row_that_a_link_does_not_answer_is_copied_once_and_one_on_the_uplink_never() {
    let mut delivery = Delivery::default();
    delivery.add(&row(1, 10));
    transmit(&mut delivery, LINK, 100);
    delivery.add(&row(2, 10));
    transmit(&mut delivery, Via::Uplink, 100);
    assert_eq!(delivery.oldest_on(LINK), Some(at(100)));
    assert_eq!(delivery.late_at(), Some(at(100) + LATE));
    assert_eq!(delivery.late(at(99) + LATE).len(), 0);
    assert_eq!(delivery.late(at(100) + LATE).len(), 1);
    assert_eq!(delivery.late(at(101) + LATE).len(), 0);
    assert_eq!(delivery.late_at(), None);
}

#[test]
fn what_a_silent_link_holds_is_copied_at_once_and_not_again_when_it_is_late() {
    let mut delivery = Delivery::default();
    for number in 1..4 {
        delivery.add(&row(number, 10));
        transmit(&mut delivery, LINK, 100);
    }
    assert_eq!(delivery.copies_of(LINK).len(), 3);
    assert_eq!(delivery.copies_of(LINK).len(), 0);
    assert_eq!(delivery.late(at(100) + LATE).len(), 0);
    assert_eq!(delivery.oldest_on(LINK), Some(at(100)), "they are still owed an answer");
}

#[test]
fn rows_that_never_left_end_at_their_time_and_others_when_no_recipient_would_take_them() {
    let mut delivery = Delivery::default();
    delivery.add(&row(1, 10));
    delivery.restore(&row(2, 10));
    assert_eq!(delivery.expired(UnixMs(999_999)), [0; 0]);
    assert_eq!(delivery.expired(UnixMs(1_000_000)), [1]);
    assert_eq!(delivery.expired(UnixMs(1_000_000).plus(CLOCK_SKEW_MAX)), [1, 2]);
}

#[test]
fn rows_of_unknown_size_are_read_back_a_few_at_a_time() {
    let mut delivery = Delivery::default();
    (1..=100).for_each(|number| delivery.restore(&row(number, 0)));
    assert_eq!(delivery.cold(&BOB).len(), WINDOW_BYTES_MAX / UNKNOWN_BYTES);
}

#[test]
fn an_empty_answer_of_the_store_is_not_asked_for_again_at_once() {
    let mut delivery = Delivery::default();
    delivery.restore(&row(1, 0));
    assert!(matches!(delivery.next(&BOB, LINK), Next::Load));
    delivery.loaded(false);
    assert!(matches!(delivery.next(&BOB, LINK), Next::Nothing));
    assert!(delivery.waits_for_store());
    delivery.loaded(true);
    assert!(matches!(delivery.next(&BOB, LINK), Next::Load));
}
