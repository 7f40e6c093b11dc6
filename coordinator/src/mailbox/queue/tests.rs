use super::*;
use peerloom_proto::{MeshId, UnixMs};
use std::time::Duration;

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_secs(seconds))
}

fn row(seq: u64, priority: u8, bytes: usize) -> MailRow {
    MailRow {
        seq,
        mesh: MeshId([1; 32]),
        to: PeerId([2; 32]),
        from: PeerId([3; 32]),
        kind: if priority == NOTICE_PRIORITY { MailKind::Receipt } else { MailKind::Envelope },
        env_hash: EnvHash([seq.to_be_bytes()[7]; 32]),
        priority,
        exp: UnixMs(9),
        bytes: vec![0; bytes].into(),
    }
}

fn add(queue: &mut Queue, seq: u64, priority: u8) -> Handover {
    queue.add(seq, Item::of(&row(seq, priority, 10)), at(30))
}

/// A queue of rows 1 to `rows`, durable, none of them handed out.
fn stored(rows: u64) -> Queue {
    Queue::stored(rows, rows * 10)
}

fn read(queue: &mut Queue, id: u64, rows: Vec<MailRow>) -> Vec<u64> {
    assert!(queue.wanted().is_some(), "a read is wanted");
    queue.reading(ReadId(id));
    queue.read(ReadId(id), rows, at(30)).into_iter().map(|row| row.seq).collect()
}

#[test]
fn what_passes_through_does_not_overtake_what_waits_unless_it_is_urgent() {
    let mut queue = stored(1);
    queue.claim(8, 1 << 20);
    assert_eq!(add(&mut queue, 2, 1), Handover::Later);
    assert_eq!(add(&mut queue, 3, 2), Handover::Now);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 10)]), [1]);
    queue.written(2);
    queue.written(3);
    assert_eq!(queue.wanted().map(|wanted| wanted.after), Some(Some((1, 1))));
    assert_eq!(read(&mut queue, 2, vec![row(2, 1, 10)]), [2]);
    assert_eq!(read(&mut queue, 3, vec![]), [0_u64; 0]);
    assert_eq!(queue.wanted(), None);
    assert_eq!(add(&mut queue, 4, 1), Handover::Now);
}

#[test]
fn a_read_does_not_carry_the_cursor_past_what_became_durable_meanwhile() {
    let mut queue = stored(1);
    queue.claim(8, 1 << 20);
    queue.reading(ReadId(1));
    assert_eq!(add(&mut queue, 2, 1), Handover::Later);
    queue.written(2);
    let found = queue.read(ReadId(1), vec![row(1, 0, 10)], at(30));
    assert_eq!(found.iter().map(|row| row.seq).collect::<Vec<_>>(), [1]);
    assert_eq!(queue.wanted().map(|wanted| wanted.after), Some(None));
    assert_eq!(read(&mut queue, 2, vec![row(2, 1, 10), row(1, 0, 10)]), [2]);
}

#[test]
fn reading_stops_at_the_window_and_goes_on_when_a_quarter_is_free() {
    let mut queue = stored(6);
    queue.claim(4, 1 << 20);
    let rows = (1..=6).map(|seq| row(seq, 1, 10)).collect();
    assert_eq!(read(&mut queue, 1, rows), [1, 2, 3, 4]);
    assert_eq!(queue.wanted(), None);
    assert!(queue.end(2).is_some());
    assert_eq!(queue.wanted().map(|wanted| wanted.after), Some(Some((1, 4))));
    assert_eq!(read(&mut queue, 2, vec![row(5, 1, 10), row(6, 1, 10)]), [5]);
}

#[test]
fn one_envelope_larger_than_the_window_passes_alone() {
    let mut queue = stored(2);
    queue.claim(8, 100);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 500), row(2, 1, 10)]), [1]);
    assert!(queue.end(1).is_some());
    assert_eq!(read(&mut queue, 2, vec![row(2, 1, 10)]), [2]);
}

#[test]
fn an_ended_row_is_skipped_until_it_is_off_the_disk() {
    let mut queue = stored(2);
    queue.claim(8, 1 << 20);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 10), row(2, 1, 10)]), [1, 2]);
    assert!(queue.end(1).is_some());
    assert_eq!(queue.lapse(at(30)), 1);
    assert_eq!(read(&mut queue, 2, vec![row(1, 1, 10), row(2, 1, 10)]), [2]);
    assert_eq!((queue.items(), queue.bytes()), (1, 10));
    // A read that began before the deletion may still bring the row.
    assert_eq!(queue.lapse(at(30)), 1);
    queue.reading(ReadId(3));
    queue.deleted(1);
    assert_eq!(queue.read(ReadId(3), vec![row(1, 1, 10)], at(60)).len(), 0);
    assert!(!queue.has_ended(1));
}

#[test]
fn a_more_urgent_row_that_is_written_later_is_read_next() {
    let mut queue = stored(3);
    queue.claim(2, 1 << 20);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 10), row(2, 1, 10), row(3, 1, 10)]), [1, 2]);
    assert_eq!(add(&mut queue, 9, 2), Handover::Later);
    queue.written(9);
    assert!(queue.end(1).is_some());
    assert_eq!(queue.wanted().map(|wanted| wanted.after), Some(Some((2, 8))));
    assert_eq!(read(&mut queue, 2, vec![row(9, 2, 10), row(2, 1, 10), row(3, 1, 10)]), [9]);
}

#[test]
fn receipts_flow_although_no_mail_is_taken() {
    let mut queue = stored(2);
    queue.claim(0, 0);
    assert_eq!(read(&mut queue, 1, vec![row(1, NOTICE_PRIORITY, 10), row(2, 1, 10)]), [1]);
    assert_eq!(queue.wanted(), None);
    assert_eq!(add(&mut queue, 3, NOTICE_PRIORITY), Handover::Now);
    assert_eq!(add(&mut queue, 4, 1), Handover::Later);
}

#[test]
fn a_lost_socket_leaves_everything_waiting_and_its_reads_without_effect() {
    let mut queue = stored(2);
    queue.claim(8, 1 << 20);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 10)]), [1]);
    queue.reading(ReadId(2));
    queue.detach();
    assert!(queue.read(ReadId(2), vec![row(2, 1, 10)], at(30)).is_empty());
    assert_eq!(queue.wanted(), None, "nobody takes mail");
    assert!(queue.handed_out(1).is_some(), "a late receipt counts");
    queue.claim(8, 1 << 20);
    assert_eq!(read(&mut queue, 3, vec![row(1, 1, 10), row(2, 1, 10)]), [1, 2]);
    assert_eq!((queue.items(), queue.bytes()), (2, 20));
}

#[test]
fn what_could_not_be_written_was_never_there() {
    let mut queue = Queue::default();
    queue.claim(8, 1 << 20);
    assert_eq!(add(&mut queue, 1, 1), Handover::Now);
    assert!(queue.unwritten(1).is_some());
    assert_eq!((queue.items(), queue.bytes()), (0, 0));
    assert!(queue.unwritten(1).is_none());
}

#[test]
fn a_queue_with_nothing_in_it_and_nobody_at_it_can_be_forgotten() {
    let mut queue = Queue::default();
    assert_eq!(add(&mut queue, 1, 1), Handover::Later);
    queue.written(1);
    assert!(!queue.is_idle());
    queue.claim(1, 1);
    assert_eq!(read(&mut queue, 1, vec![row(1, 1, 10)]), [1]);
    assert!(queue.end(1).is_some());
    queue.deleted(1);
    assert!(!queue.is_idle(), "a node waits at it");
    queue.detach();
    assert!(queue.is_idle());
}
