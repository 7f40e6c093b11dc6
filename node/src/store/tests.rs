//! The list a store must pass.

mod damage;
mod fixture;

use peerloom_proto::endpoint::{OutboxState, PathKind, SeenRow, SentRow, Write};
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{BoxSecretKey, MessageId, RunId, Signature, StoreMark, UnixMs};

use self::fixture::{Fixture, generation, inbox_row, outbox_row, peer, state};
use super::{LocalWrite, StoreError};
use crate::views::{InboxQuery, OutboxFilter, OutboxQuery, RequeueSelector};

#[tokio::test]
async fn what_was_committed_is_there_after_a_crash() {
    let mut fixture = Fixture::new().await;
    let (first, second) = (outbox_row(1, 1), outbox_row(2, 2));
    let mut held = inbox_row(1, 1);
    held.position = None;
    let prekey = BoxSecretKey::from_bytes([9; 32]);
    let signed = SignedBytes { stmt: vec![1, 2, 3].into(), sig: Signature([4; 64]) };
    fixture
        .commit(&[
            Write::Outbox(first.clone()),
            Write::Outbox(second),
            state(2, OutboxState::Accepted),
            Write::Inbox(held),
            Write::Inbox(inbox_row(2, 2)),
            Write::Conversation { from: peer(2), generation: generation(), next: 3 },
            Write::Entry { index: 2, entry: vec![7; 300].into() },
            Write::PeerPrekey { peer: peer(8), prekey: signed.clone() },
            Write::Revocation(signed.clone()),
            Write::Floor(UnixMs(77)),
            Write::CoordinatorMark(StoreMark { run: RunId([5; 16]), commit: 40 }),
            Write::CoordinatorMark(StoreMark { run: RunId([6; 16]), commit: 41 }),
        ])
        .await;

    let loaded = fixture.crashed_copy().await;

    assert_eq!(loaded.outbox.len(), 2);
    assert_eq!(format!("{:?}", loaded.outbox[0]), format!("{first:?}"));
    assert_eq!(loaded.outbox[1].state, OutboxState::Accepted);
    assert_eq!((loaded.held.len(), loaded.held[0].row, loaded.held[0].from), (1, 1, peer(1)));
    assert_eq!(loaded.conversations, [(peer(2), generation(), 3)]);
    assert_eq!(loaded.entries.len(), 3);
    assert_eq!(loaded.entries[2], vec![7; 300]);
    assert_eq!(loaded.prekeys.len(), 1);
    assert_ne!(loaded.prekeys[0].kid, prekey.public().kid());
    assert_eq!(loaded.peer_prekeys, [(peer(8), signed.clone())]);
    assert_eq!(loaded.revocations, [signed]);
    assert_eq!(loaded.next_seqs, [(peer(1), 2), (peer(2), 3)]);
    assert_eq!((loaded.next_outbox_row, loaded.next_inbox_row, loaded.next_position), (3, 3, 3));
    assert_eq!(loaded.floor, UnixMs(77));
    assert_eq!(loaded.coordinator_mark, Some(StoreMark { run: RunId([6; 16]), commit: 41 }));
}

#[tokio::test]
async fn a_settled_row_is_not_rebuilt_but_its_id_is_known_for_ever() {
    let mut fixture = Fixture::new().await;
    let row = outbox_row(1, 1);
    let known = SentRow { to: peer(1), fp: row.fp, state: OutboxState::Stored, retired: false };
    fixture.commit(&[Write::Outbox(row), state(1, OutboxState::Stored)]).await;

    let loaded = fixture.reopen().await;

    assert!(loaded.outbox.is_empty());
    let ids = [MessageId([0; 16]), MessageId([1; 16])];
    assert_eq!(fixture.writer().sent(&ids).await.unwrap(), [vec![], vec![known]]);
}

#[tokio::test]
async fn one_id_towards_one_recipient_is_recorded_once_and_a_second_undoes_its_batch() {
    let mut fixture = Fixture::new().await;
    fixture.commit(&[Write::Outbox(outbox_row(1, 1))]).await;
    let mut again = outbox_row(2, 1);
    again.id = outbox_row(1, 1).id;

    let refused = fixture.try_commit(&[Write::Outbox(outbox_row(3, 3)), Write::Outbox(again)]).await;

    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    let rows: Vec<u64> = fixture.reopen().await.outbox.iter().map(|row| row.row).collect();
    assert_eq!(rows, [1]);
}

#[tokio::test]
async fn one_message_of_one_sender_is_recorded_once() {
    let mut fixture = Fixture::new().await;
    fixture.commit(&[Write::Inbox(inbox_row(1, 1))]).await;
    let mut again = inbox_row(2, 2);
    (again.from, again.id) = (peer(1), inbox_row(1, 1).id);

    let refused = fixture.try_commit(&[Write::Inbox(again)]).await;

    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
}

#[tokio::test]
async fn lookups_of_any_number_are_answered_in_the_order_asked() {
    let mut fixture = Fixture::new().await;
    let writes: Vec<Write> = (1..=700).map(|n| Write::Inbox(inbox_row(n, n))).collect();
    fixture.commit(&writes).await;
    fixture.commit(&[Write::Surfaced { row: 3, at: UnixMs(5) }]).await;
    for count in [1, 3, 255, 256, 257, 700] {
        let asked: Vec<_> = (1..=count)
            .rev()
            .map(|n| {
                let row = inbox_row(n, n);
                // Every fourth message comes from somebody else: the same id, and yet unknown.
                (if n % 4 == 0 { peer(99) } else { row.from }, row.id)
            })
            .collect();
        let expected: Vec<_> = (1..=count)
            .rev()
            .map(|n| (n % 4 != 0).then(|| SeenRow { fp: inbox_row(n, n).fp, surfaced: n == 3 }))
            .collect();
        assert_eq!(fixture.writer().seen(&asked).await.unwrap(), expected, "{count}");
    }
}

#[tokio::test]
async fn the_last_state_of_a_batch_holds_and_the_path_is_kept() {
    let mut fixture = Fixture::new().await;
    fixture
        .commit(&[
            Write::Outbox(outbox_row(1, 1)),
            Write::OutboxState {
                row: 1,
                state: OutboxState::Accepted,
                path: Some(PathKind::Queue),
                at: UnixMs(10),
            },
            Write::OutboxState { row: 1, state: OutboxState::Stored, path: None, at: UnixMs(11) },
        ])
        .await;
    fixture.commit(&[state(1, OutboxState::Surfaced)]).await;

    let found = fixture.reader.message(outbox_row(1, 1).id).await.unwrap();

    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].state, found[0].path), (&OutboxState::Surfaced, Some(PathKind::Queue)));
}

#[tokio::test]
async fn a_late_receipt_counts_only_for_the_bytes_it_names() {
    let mut fixture = Fixture::new().await;
    let row = outbox_row(1, 1);
    let late =
        |env_hash, state| Write::LateReceipt { id: row.id, to: row.to, env_hash, state, at: UnixMs(9) };
    fixture.commit(&[Write::Outbox(row.clone()), state(1, OutboxState::Dead("attempts".to_owned()))]).await;
    let others = inbox_row(5, 5).env_hash;

    fixture.commit(&[late(others, OutboxState::Stored)]).await;
    let state_of = async |fixture: &Fixture| fixture.reader.message(row.id).await.unwrap()[0].state.clone();
    assert_eq!(state_of(&fixture).await, OutboxState::Dead("attempts".to_owned()));
    assert_eq!(fixture.writer().failed().await.unwrap(), 1);

    fixture
        .commit(&[late(row.env_hash, OutboxState::Surfaced), late(row.env_hash, OutboxState::Stored)])
        .await;
    fixture.commit(&[late(row.env_hash, OutboxState::Stored)]).await;
    assert_eq!(state_of(&fixture).await, OutboxState::Surfaced);
    assert_eq!(fixture.writer().failed().await.unwrap(), 0);
    assert!(fixture.reader.failed(&RequeueSelector::All).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_row_keeps_its_content_until_it_is_retired() {
    let mut fixture = Fixture::new().await;
    let expired = OutboxState::Expired("expiry".to_owned());
    fixture.commit(&[Write::Outbox(outbox_row(1, 1)), state(1, expired.clone())]).await;

    let failed = fixture.reader.failed(&RequeueSelector::Ids(vec![outbox_row(1, 1).id])).await.unwrap();
    assert_eq!((failed.len(), &failed[0].message), (1, &outbox_row(1, 1).message));

    fixture.commit(&[Write::Retire { row: 1, replaced_by: MessageId([5; 16]) }]).await;
    assert!(fixture.reader.failed(&RequeueSelector::All).await.unwrap().is_empty());
    let known = fixture.writer().sent(&[outbox_row(1, 1).id]).await.unwrap();
    assert_eq!((known[0][0].retired, &known[0][0].state), (true, &expired));
}

#[tokio::test]
async fn the_floor_drops_delivered_rows_below_it_and_nothing_else() {
    let mut fixture = Fixture::new().await;
    let mut writes: Vec<Write> = (1..=4)
        .map(|n| {
            let mut row = outbox_row(n, n);
            row.exp = UnixMs(if n == 4 { 500 } else { 100 });
            Write::Outbox(row)
        })
        .collect();
    writes.extend([
        state(1, OutboxState::Stored),
        state(2, OutboxState::Dead("attempts".to_owned())),
        state(4, OutboxState::Stored),
        Write::Inbox(inbox_row(1, 1)),
    ]);
    fixture.commit(&writes).await;

    fixture.commit(&[Write::Floor(UnixMs(200))]).await;
    fixture.commit(&[Write::Floor(UnixMs(150))]).await;

    let query = OutboxQuery { filter: OutboxFilter::All, limit: 0 };
    let left: Vec<_> = fixture.reader.outbox(&query).await.unwrap().iter().map(|item| item.id).collect();
    assert_eq!(left, [outbox_row(4, 4).id, outbox_row(3, 3).id, outbox_row(2, 2).id]);
    assert_eq!(fixture.reader.inbox(&InboxQuery::default()).await.unwrap().len(), 1);
    let loaded = fixture.reopen().await;
    assert_eq!(loaded.floor, UnixMs(200));
    assert_eq!(loaded.next_seqs[0], (peer(1), 2), "a counter outlives its rows");
}

#[tokio::test]
async fn a_held_row_is_read_once_it_has_its_place() {
    let mut fixture = Fixture::new().await;
    let (mut early, late) = (inbox_row(1, 1), inbox_row(2, 2));
    early.position = None;
    let mut late_first = late;
    late_first.position = Some(1);
    fixture.commit(&[Write::Inbox(early), Write::Inbox(late_first)]).await;
    let read = async |fixture: &Fixture| {
        let all = fixture.reader.inbox(&InboxQuery::default()).await.unwrap();
        all.iter().map(|message| message.id).collect::<Vec<_>>()
    };
    assert_eq!(read(&fixture).await, [inbox_row(2, 2).id]);

    fixture.commit(&[Write::Release { row: 1, position: 2 }]).await;
    assert_eq!(read(&fixture).await, [inbox_row(2, 2).id, inbox_row(1, 1).id]);
    assert!(fixture.reopen().await.held.is_empty());
}

#[tokio::test]
async fn a_page_of_the_inbox_is_bounded_by_position_sender_and_limit() {
    let mut fixture = Fixture::new().await;
    let writes: Vec<Write> = (1..=9).map(|n| Write::Inbox(inbox_row(n, n))).collect();
    fixture.commit(&writes).await;
    let positions = async |fixture: &Fixture, query: InboxQuery| {
        let page = fixture.reader.inbox(&query).await.unwrap();
        page.iter().map(|message| message.position).collect::<Vec<_>>()
    };
    let newest = InboxQuery { limit: 3, ..InboxQuery::default() };
    assert_eq!(positions(&fixture, newest).await, [7, 8, 9]);
    let after = InboxQuery { after_position: Some(2), limit: 3, ..InboxQuery::default() };
    assert_eq!(positions(&fixture, after).await, [3, 4, 5]);
    let of = InboxQuery { from: Some(inbox_row(4, 4).from), ..InboxQuery::default() };
    assert_eq!(positions(&fixture, of).await, [4]);
}

#[tokio::test]
async fn a_cursor_only_moves_forward_and_passes_each_message_once() {
    let mut fixture = Fixture::new().await;
    let writes: Vec<Write> = (1..=5).map(|n| Write::Inbox(inbox_row(n, n))).collect();
    fixture.commit(&writes).await;
    let rows = fixture.reader.unsurfaced(3).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [1, 2, 3]);
    let surfaced: Vec<Write> =
        rows.iter().map(|row| Write::Surfaced { row: row.row, at: UnixMs(50) }).collect();
    let cursor = |position| LocalWrite::Cursor { name: "hook".to_owned(), position };

    fixture.writer().commit(&surfaced, &[cursor(3)], UnixMs(1)).await.unwrap();
    fixture.writer().commit(&[], &[cursor(2)], UnixMs(1)).await.unwrap();

    assert_eq!(fixture.reader.cursor("hook").await.unwrap(), 3);
    assert_eq!(fixture.reader.cursor("other").await.unwrap(), 0);
    let rows = fixture.reader.unsurfaced(5).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [4, 5]);
    let unread = InboxQuery { unread_for_cursor: Some("hook".to_owned()), ..InboxQuery::default() };
    let unread = fixture.reader.inbox(&unread).await.unwrap();
    assert_eq!(unread.iter().map(|message| message.position).collect::<Vec<_>>(), [4, 5]);
    let all = fixture.reader.inbox(&InboxQuery::default()).await.unwrap();
    assert_eq!((all[2].surfaced_at, all[3].surfaced_at), (Some(UnixMs(50)), None));
}

#[tokio::test]
async fn rows_are_loaded_whole_and_those_that_are_not_there_are_left_out() {
    let mut fixture = Fixture::new().await;
    fixture.commit(&[Write::Outbox(outbox_row(1, 1)), Write::Outbox(outbox_row(2, 2))]).await;
    let found = fixture.writer().load(&[2, 3]).await.unwrap();
    let found: Vec<_> = found.iter().map(|row| (row.row, row.wire.clone())).collect();
    assert_eq!(found, [(2, outbox_row(2, 2).wire)]);
}

#[tokio::test]
async fn a_forgotten_prekey_is_overwritten_in_the_file() {
    let mut fixture = Fixture::new().await;
    let secret = BoxSecretKey::from_bytes(*b"0123456789abcdefFEDCBA9876543210");
    let kid = secret.public().kid();
    let held =
        peerloom_proto::endpoint::HeldPrekey { kid, secret: secret.clone(), signed: None, exp: UnixMs(5) };
    fixture.commit(&[Write::Prekey(held)]).await;
    fixture.commit(&[Write::PrekeyGone(kid)]).await;
    fixture.close().await;
    let bytes = std::fs::read(&fixture.path).unwrap();
    assert!(!bytes.windows(32).any(|window| window == secret.expose()));
}

#[tokio::test]
async fn an_update_of_many_rows_looks_each_up_by_its_key() {
    let mut fixture = Fixture::new().await;
    for plan in fixture.writer().plans().await {
        let scans: Vec<_> = plan.iter().filter(|step| step.starts_with("SCAN")).collect();
        assert!(
            scans.iter().all(|step| ["moved", "released", "CONSTANT", "VALUES CLAUSE"]
                .iter()
                .any(|ok| step.contains(ok))),
            "{plan:#?}",
        );
    }
}
