use std::fs;
use std::os::unix::fs::MetadataExt;

use peerloom_proto::StoreMark;

use super::*;

const MESH: MeshId = MeshId([1; 32]);
const BOB: PeerId = PeerId([2; 32]);
const CAROL: PeerId = PeerId([3; 32]);

fn mail(seq: u64, to: PeerId) -> MailRow {
    let mut env_hash = [0; 32];
    env_hash[..8].copy_from_slice(&seq.to_be_bytes());
    MailRow {
        seq,
        mesh: MESH,
        to,
        from: PeerId([9; 32]),
        kind: MailKind::Envelope,
        env_hash: EnvHash(env_hash),
        priority: 1,
        exp: UnixMs(1_000),
        bytes: Bytes::from(vec![0xab; 300]),
    }
}

fn put(row: &MailRow) -> Write {
    Write::PutMail(row.clone())
}

fn delete(row: &MailRow) -> Write {
    Write::DeleteMail { seq: row.seq, mesh: row.mesh, to: row.to, env_hash: Some(row.env_hash) }
}

fn log(index: u64) -> Write {
    Write::LogAppend { mesh: MESH, index, entry: Bytes::from(format!("entry {index}")) }
}

async fn fresh(dir: &Path) -> Store {
    Store::open(dir, Identity::None).await.unwrap()
}

async fn again(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, Identity::Exists).await
}

async fn seqs(store: &Store, to: PeerId) -> Vec<u64> {
    let rows = store.reader().mail(MESH, to, None, 10_000, u64::MAX).await.unwrap();
    rows.iter().map(|row| row.seq).collect()
}

/// Ends without [`Store::close`], as a kill does: the connections vanish.
async fn kill(store: Store) {
    store.reader.close().await;
    drop(store);
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let first = store.load().await.unwrap().next_seq;
    let rows: Vec<MailRow> = (0..300).map(|n| mail(first + n, BOB)).collect();
    let mut batch: Vec<Write> = rows.iter().map(put).collect();
    batch.extend([Write::MeshCreate { mesh: MESH }, log(0), log(1)]);
    store.commit(&batch).await.unwrap();
    kill(store).await;

    let mut store = again(dir.path()).await.unwrap();
    assert_eq!(store.reader().mail(MESH, BOB, None, 1_000, u64::MAX).await.unwrap(), rows);
    assert_eq!(store.reader().log(MESH, 1, 10).await.unwrap(), [Bytes::from("entry 1")]);
    let snapshot = store.load().await.unwrap();
    assert_eq!(snapshot.meshes, [MESH]);
    assert_eq!(snapshot.queues, [QueueDepth { mesh: MESH, to: BOB, messages: 300, bytes: 300 * 300 }]);
}

#[tokio::test]
async fn a_run_never_allocates_a_claim_of_an_earlier_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let first = store.load().await.unwrap().next_seq;
    let last = mail(first + 5, BOB);
    store.commit(&[put(&last)]).await.unwrap();
    store.commit(&[delete(&last)]).await.unwrap();
    store.close().await.unwrap();
    let mut store = again(dir.path()).await.unwrap();
    let second = store.load().await.unwrap().next_seq;
    assert!(second > last.seq, "{second} after {}", last.seq);
    kill(store).await;
    let mut store = again(dir.path()).await.unwrap();
    assert!(store.load().await.unwrap().next_seq > second);
}

#[tokio::test]
async fn of_two_processes_with_one_database_the_older_writes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut older = fresh(dir.path()).await;
    older.commit(&[put(&mail(1, BOB))]).await.unwrap();
    let mut newer = again(dir.path()).await.unwrap();

    let refused = older.commit(&[put(&mail(2, BOB)), delete(&mail(1, BOB))]).await.unwrap_err();

    assert!(matches!(refused, StoreError::Fenced { ours: 1, theirs: 2, .. }), "{refused:?}");
    assert!(matches!(older.show_life().await, Err(StoreError::Fenced { .. })));
    assert_eq!(refused.exit_code(), (12, "fenced"));
    assert_eq!(seqs(&newer, BOB).await, [1]);
    newer.commit(&[put(&mail(3, BOB))]).await.unwrap();
    newer.show_life().await.unwrap();
    // Nor does it say that the other's run ended well.
    older.close().await.unwrap();
    assert_eq!(meta(&mut newer.writer, "clean").await.unwrap(), 0);
}

#[tokio::test]
async fn a_store_put_back_to_a_copy_does_not_keep_what_came_after_it() {
    let (dir, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = fresh(dir.path()).await;
    store.commit(&[put(&mail(1, BOB))]).await.unwrap();
    assert_eq!(store.load().await.unwrap().silence, None, "nobody lived here before");
    let before = store.load().await.unwrap().runs.current;
    for (name, bytes) in bytes_of(dir.path()) {
        fs::write(copied.path().join(name), bytes).unwrap();
    }
    let commit = store.commit(&[put(&mail(2, BOB))]).await.unwrap();
    assert_eq!(commit, before.commit + 1);
    let after = StoreMark { commit, ..before };
    store.close().await.unwrap();
    let mut store = again(dir.path()).await.unwrap();
    let later = store.load().await.unwrap().runs;
    assert!(later.keep(&before) && later.keep(&after) && later.keep(&later.current));

    let hour = "UPDATE meta SET value = value - 3600000 WHERE name = 'alive'";
    alter(copied.path(), hour).await;
    let mut back = again(copied.path()).await.unwrap();
    let Snapshot { runs, silence, .. } = back.load().await.unwrap();

    assert!(silence.is_some_and(|silence| silence >= Duration::from_secs(3_600)), "{silence:?}");
    assert!(runs.keep(&before) && runs.keep(&runs.current));
    assert!(!runs.keep(&after), "it was told in the run the copy was made in, and after that");
    assert!(!runs.keep(&later.current), "that run has the number of this one, and another id");
}

#[tokio::test]
async fn mail_is_read_by_priority_and_then_in_order_across_pages() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let priorities = [1, 0, 2, 1, 255, 0, 2];
    let rows: Vec<MailRow> =
        (10..).zip(priorities).map(|(seq, priority)| MailRow { priority, ..mail(seq, BOB) }).collect();
    let batch: Vec<Write> = rows.iter().map(put).chain([put(&mail(99, CAROL))]).collect();
    store.commit(&batch).await.unwrap();

    assert_eq!(seqs(&store, BOB).await, [14, 12, 16, 10, 13, 11, 15]);
    let reader = store.reader();
    let mut read = Vec::new();
    let mut after = None;
    loop {
        let page = reader.mail(MESH, BOB, after, 2, u64::MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.priority, last.seq));
        read.extend(page.iter().map(|row| row.seq));
    }
    assert_eq!(read, [14, 12, 16, 10, 13, 11, 15]);
}

#[tokio::test]
async fn a_page_ends_before_its_bytes_run_out_but_holds_at_least_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let batch: Vec<Write> = (1..=5).map(|seq| put(&mail(seq, BOB))).collect();
    store.commit(&batch).await.unwrap();
    let lengths = async |bytes_max| store.reader().mail(MESH, BOB, None, 10, bytes_max).await.unwrap().len();
    assert_eq!([lengths(899).await, lengths(900).await, lengths(1).await], [2, 3, 1]);
}

#[tokio::test]
async fn a_delete_takes_only_what_matches_claim_queue_and_envelope() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let rows: Vec<MailRow> = (1..=4).map(|seq| mail(seq, BOB)).collect();
    let batch: Vec<Write> = rows.iter().map(put).chain([put(&mail(9, CAROL))]).collect();
    store.commit(&batch).await.unwrap();

    let of_another = Write::DeleteMail { seq: 1, mesh: MESH, to: CAROL, env_hash: None };
    let other_envelope = Write::DeleteMail { seq: 2, mesh: MESH, to: BOB, env_hash: Some(rows[0].env_hash) };
    let by_claim = Write::DeleteMail { seq: 3, mesh: MESH, to: BOB, env_hash: None };
    let unknown = Write::DeleteMail { seq: 77, mesh: MESH, to: BOB, env_hash: None };
    store.commit(&[of_another, other_envelope, by_claim, delete(&rows[3]), unknown]).await.unwrap();

    assert_eq!(seqs(&store, BOB).await, [1, 2]);
    assert_eq!(seqs(&store, CAROL).await, [9]);
}

#[tokio::test]
async fn every_batch_size_stores_and_deletes_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let mut seq = 1;
    for size in [1, 2, 3, 63, 64, 65, 255, 256, 257, 1_000] {
        let rows: Vec<MailRow> = (seq..seq + size).map(|seq| mail(seq, BOB)).collect();
        seq += size;
        store.commit(&rows.iter().map(put).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(seqs(&store, BOB).await.len() as u64, size);
        store.commit(&rows.iter().map(delete).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(seqs(&store, BOB).await, Vec::<u64>::new(), "after {size}");
    }
}

#[tokio::test]
async fn a_batch_with_one_impossible_write_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    store.commit(&[log(0)]).await.unwrap();

    let refused = store.commit(&[put(&mail(1, BOB)), log(1), log(0)]).await.unwrap_err();

    assert!(matches!(refused, StoreError::Sql { .. }), "{refused:?}");
    assert_eq!(seqs(&store, BOB).await, Vec::<u64>::new());
    assert_eq!(store.reader().log(MESH, 0, 10).await.unwrap().len(), 1);
    store.commit(&[put(&mail(1, BOB)), log(1)]).await.unwrap();
    assert_eq!(seqs(&store, BOB).await, [1]);
}

#[tokio::test]
async fn expired_mail_of_every_queue_is_found_and_fresh_mail_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let old = [MailRow { exp: UnixMs(500), ..mail(1, BOB) }, MailRow { exp: UnixMs(999), ..mail(2, CAROL) }];
    let fresh = mail(3, BOB);
    store.commit(&[put(&old[0]), put(&old[1]), put(&fresh)]).await.unwrap();
    let mut found = store.reader().expired(UnixMs(1_000), 10).await.unwrap();
    found.sort_by_key(|row| row.seq);
    assert_eq!(found, old);
    assert_eq!(store.reader().expired(UnixMs(1_000), 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_queue_is_empty_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    store.commit(&[put(&mail(1, BOB)), put(&mail(2, CAROL))]).await.unwrap();
    store.commit(&[put(&mail(3, BOB)), Write::DropQueue { mesh: MESH, to: BOB }]).await.unwrap();
    assert_eq!(seqs(&store, BOB).await, Vec::<u64>::new());
    assert_eq!(seqs(&store, CAROL).await, [2]);
}

#[tokio::test]
async fn an_invite_serves_its_uses_and_is_then_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let lookup = InviteLookup([5; 16]);
    let blob = Bytes::from_static(b"sealed");
    let invite =
        Write::PutInvite { mesh: MESH, lookup, owner: BOB, blob: blob.clone(), exp: UnixMs(7), uses_left: 2 };
    store.commit(&[invite]).await.unwrap();
    store.commit(&[Write::UseInvite { lookup }]).await.unwrap();
    let left = InviteRow { mesh: MESH, lookup, owner: BOB, exp: UnixMs(7), uses_left: 1 };
    assert_eq!(store.reader().invite(lookup).await.unwrap(), Some((left.clone(), blob)));
    assert_eq!(store.load().await.unwrap().invites, [left]);
    store.commit(&[Write::UseInvite { lookup }]).await.unwrap();
    assert_eq!(store.reader().invite(lookup).await.unwrap(), None);
}

#[tokio::test]
async fn the_latest_prekey_of_a_member_replaces_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let prekey = |text: &'static str| Write::PutPrekey {
        mesh: MESH,
        member: BOB,
        exp: UnixMs(1),
        stmt: Bytes::from_static(text.as_bytes()),
        sig: Signature([4; 64]),
    };
    store.commit(&[prekey("first"), prekey("second")]).await.unwrap();
    let found = store.reader().prekeys(MESH, &[CAROL, BOB]).await.unwrap();
    assert_eq!(found.iter().map(|prekey| &prekey.stmt[..]).collect::<Vec<_>>(), [b"second"]);
}

/// Every file of the database, byte for byte.
fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = ["state.db", "state.db-wal"];
    names.iter().filter_map(|name| Some(((*name).to_owned(), fs::read(dir.join(name)).ok()?))).collect()
}

async fn refused_untouched(dir: &Path) -> StoreError {
    let before = bytes_of(dir);
    let refused = again(dir).await.unwrap_err();
    let after = bytes_of(dir);
    assert!(before == after, "the database changed while it was refused with: {refused}");
    refused
}

async fn with_mail(dir: &Path) {
    let mut store = fresh(dir).await;
    let rows: Vec<Write> = (1..=500).map(|seq| put(&mail(seq, BOB))).collect();
    store.commit(&rows).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_stays_byte_for_byte() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("header", |bytes| bytes[..16].fill(0)),
        ("page", |bytes| bytes[4096 * 20..4096 * 24].fill(0xa5)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        with_mail(dir.path()).await;
        let path = dir.path().join("state.db");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let refused = refused_untouched(dir.path()).await;
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_database_damaged_beside_an_unfolded_log_is_refused_and_stays_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    store.commit(&[put(&mail(1, BOB))]).await.unwrap();
    let copied = tempfile::tempdir().unwrap();
    for (name, mut bytes) in bytes_of(dir.path()) {
        if name == "state.db" {
            bytes[..16].fill(0);
        }
        fs::write(copied.path().join(name), bytes).unwrap();
    }
    assert!(matches!(refused_untouched(copied.path()).await, StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn a_missing_database_is_not_recreated_beside_an_existing_key() {
    let dir = tempfile::tempdir().unwrap();
    let refused = refused_untouched(dir.path()).await;
    assert!(matches!(refused, StoreError::Missing { .. }), "{refused:?}");
    assert!(!dir.path().join("state.db").exists());
}

async fn alter(dir: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("state.db"));
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions_and_stays_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    with_mail(dir.path()).await;
    alter(dir.path(), "PRAGMA user_version = 99").await;
    let refused = refused_untouched(dir.path()).await;
    assert!(matches!(refused, StoreError::Newer { found: 99, known: 3, .. }), "{refused:?}");
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    alter_new(dir.path(), "CREATE TABLE theirs (x); PRAGMA user_version = 1").await;
    assert!(matches!(refused_untouched(dir.path()).await, StoreError::Corrupt { .. }));
}

async fn alter_new(dir: &Path, sql: &'static str) {
    fs::write(dir.join("state.db"), "").unwrap();
    alter(dir, sql).await;
}

#[tokio::test]
async fn a_first_start_cut_short_is_a_first_start_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.db"), "").unwrap();
    let mut store = fresh(dir.path()).await;
    store.commit(&[put(&mail(1, BOB))]).await.unwrap();
    assert_eq!(seqs(&store, BOB).await, [1]);
}

#[tokio::test]
async fn a_full_disk_refuses_mail_keeps_receipts_and_recovers_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    let kept: Vec<MailRow> = (1..=100).map(|seq| mail(seq, BOB)).collect();
    store.commit(&kept.iter().map(put).collect::<Vec<_>>()).await.unwrap();
    // The page budget stands in for the disk: SQLite fails with SQLITE_FULL either way.
    sqlx::query("PRAGMA max_page_count = 1").execute(&mut store.writer).await.unwrap();
    assert!(dir.path().join("state.reserve").exists());

    let more: Vec<MailRow> = (101..=200).map(|seq| mail(seq, BOB)).collect();
    let batch: Vec<Write> = more.iter().map(put).chain(kept[..40].iter().map(delete)).collect();
    let refused = store.commit(&batch).await.unwrap_err();

    assert!(matches!(refused, StoreError::Full { settled: true, .. }), "{refused:?}");
    assert_eq!(seqs(&store, BOB).await, (41..=100).collect::<Vec<_>>());
    assert!(!dir.path().join("state.reserve").exists(), "the reserve was not released");
    assert_eq!(store.health().writable(), Writable::No);

    sqlx::query("PRAGMA max_page_count = 100000").execute(&mut store.writer).await.unwrap();
    store.commit(&more.iter().map(put).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(seqs(&store, BOB).await, (41..=200).collect::<Vec<_>>());
    assert_eq!(store.health().writable(), Writable::Yes);
}

#[tokio::test]
async fn nobody_else_may_read_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path()).await;
    store.commit(&[put(&mail(1, BOB))]).await.unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}
