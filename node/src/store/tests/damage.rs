//! Stores that must be refused and left alone, and the full disk.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::Path;

use peerloom_proto::endpoint::Write;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::fixture::{Fixture, inbox_row, outbox_row};
use crate::store::{Store, StoreError, options};

/// Opens, expects a refusal, and checks that no byte of the file changed.
async fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = Store::open(path).await.expect_err("the store is refused");
    assert_eq!(fs::read(path).unwrap(), before, "the file was changed");
    error
}

async fn filled() -> Fixture {
    let mut fixture = Fixture::new().await;
    let writes: Vec<Write> = (1..=200).map(|n| Write::Inbox(inbox_row(n, n))).collect();
    fixture.commit(&writes).await;
    fixture.close().await;
    fixture
}

#[tokio::test]
async fn a_missing_store_is_refused_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let error = Store::open(&path).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing), "{error:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_existing_store_is_never_made_over() {
    let fixture = filled().await;
    let key = peerloom_proto::BoxSecretKey::from_bytes([3; 32]);
    let error = Store::create(&fixture.path, &[], &key).await.unwrap_err();
    assert!(matches!(error, StoreError::Exists), "{error:?}");
}

#[tokio::test]
async fn damaged_pages_are_found_and_the_file_is_left_alone() {
    let fixture = filled().await;
    let mut file = fs::OpenOptions::new().write(true).open(&fixture.path).unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 4_096 * 4_096;
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[0xa5; 8_192]).unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cut_off_file_is_refused() {
    let fixture = filled().await;
    let file = fs::OpenOptions::new().write(true).open(&fixture.path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_file_and_somebody_elses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    fs::write(&path, b"").unwrap();
    assert!(matches!(refused(&path).await, StoreError::Corrupt { .. }));
    fs::write(&path, [b'x'; 5_000]).unwrap();
    assert!(matches!(refused(&path).await, StoreError::Corrupt { .. }));

    fs::remove_file(&path).unwrap();
    let mut conn = options(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    assert!(matches!(refused(&path).await, StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn a_newer_store_is_refused_with_both_versions_named() {
    let fixture = filled().await;
    let mut conn = options(&fixture.path).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe("PRAGMA user_version = 9")).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, StoreError::Newer { found: 9, known: 1 }), "{error:?}");
    assert!(error.to_string().contains("schema 9") && error.to_string().contains("up to 1"), "{error}");
}

#[tokio::test]
async fn a_full_disk_undoes_the_batch_and_the_store_goes_on_when_there_is_space() {
    let mut fixture = Fixture::new().await;
    fixture.commit(&[Write::Outbox(outbox_row(1, 1))]).await;
    let pages: i64 = {
        let reading = fixture.writer();
        reading.limit_pages(1).await.unwrap()
    };
    let many: Vec<Write> = (2..=2_000).map(|n| Write::Outbox(outbox_row(n, 1))).collect();

    let full = fixture.try_commit(&many).await;

    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    let loaded = fixture.reopen().await;
    assert_eq!(loaded.outbox.len(), 1, "nothing of the batch stayed");
    assert!(pages > 1);
    fixture.commit(&many).await;
    assert_eq!(fixture.reopen().await.outbox.len(), 2_000);
}
