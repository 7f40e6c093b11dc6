//! A store in a directory of its own, and rows to put into it.

use std::path::PathBuf;

use bytes::Bytes;
use peerloom_proto::endpoint::{InboxRow, OutboxRow, OutboxState, PathKind, Write};
use peerloom_proto::{
    BoxSecretKey, EnvHash, Fingerprint, Generation, Kid, Message, MessageId, PeerId, Priority, UnixMs,
};

use crate::store::{Loaded, Reader, Store, StoreError, Writer};

pub(super) struct Fixture {
    pub(super) path: PathBuf,
    pub(super) reader: Reader,
    writer: Option<Writer>,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// A new store whose log has two entries.
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let entries = [Bytes::from_static(b"genesis"), Bytes::from_static(b"me")];
        Store::create(&path, &entries, &BoxSecretKey::from_bytes([3; 32])).await.unwrap();
        let (writer, reader, loaded) = Store::open(&path).await.unwrap();
        assert_eq!(loaded.entries, entries);
        assert_eq!((loaded.next_outbox_row, loaded.next_inbox_row, loaded.next_position), (1, 1, 1));
        Self { path, reader, writer: Some(writer), dir }
    }

    pub(super) fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    pub(super) async fn try_commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.writer().commit(writes, &[], UnixMs(1)).await
    }

    pub(super) async fn commit(&mut self, writes: &[Write]) {
        self.try_commit(writes).await.unwrap();
    }

    pub(super) async fn close(&mut self) {
        self.reader.close().await;
        self.writer.take().unwrap().close().await.unwrap();
    }

    pub(super) async fn reopen(&mut self) -> Loaded {
        self.close().await;
        let (writer, reader, loaded) = Store::open(&self.path).await.unwrap();
        (self.writer, self.reader) = (Some(writer), reader);
        loaded
    }

    /// What a process finds that starts after this one died at this instant: the files as they are.
    pub(super) async fn crashed_copy(&self) -> Loaded {
        let copy = self.dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in ["node.db", "node.db-wal"] {
            std::fs::copy(self.dir.path().join(name), copy.join(name)).unwrap();
        }
        Store::open(&copy.join("node.db")).await.unwrap().2
    }
}

pub(super) fn peer(n: u64) -> PeerId {
    PeerId(wide(n))
}

pub(super) fn generation() -> Generation {
    Generation([0xfe; 8])
}

pub(super) fn outbox_row(row: u64, to: u64) -> OutboxRow {
    OutboxRow {
        row,
        id: MessageId(narrow(row)),
        to: peer(to),
        fp: Fingerprint(wide(row)),
        generation: generation(),
        seq: row,
        message: message(row),
        priority: Priority::Now,
        ts: UnixMs(1_000 + row),
        exp: UnixMs(9_000 + row),
        wire: vec![u8::try_from(row % 256).unwrap(); 200].into(),
        env_hash: EnvHash(wide(row + 1_000)),
        kid: Kid(narrow(row)),
        seals: 1,
        state: OutboxState::Pending,
        path: None,
    }
}

pub(super) fn inbox_row(row: u64, from: u64) -> InboxRow {
    InboxRow {
        row,
        position: Some(row),
        from: peer(from),
        id: MessageId(narrow(row)),
        fp: Fingerprint(wide(row)),
        env_hash: EnvHash(wide(row + 1_000)),
        generation: generation(),
        seq: row,
        message: message(row),
        priority: Priority::Next,
        sent_at: UnixMs(1_000 + row),
        exp: UnixMs(9_000 + row),
        received_at: UnixMs(2_000 + row),
        path: PathKind::Relay,
    }
}

pub(super) fn state(row: u64, state: OutboxState) -> Write {
    Write::OutboxState { row, state, path: Some(PathKind::Queue), at: UnixMs(3_000) }
}

fn message(n: u64) -> Message {
    Message {
        content_type: "text/plain".to_owned(),
        content: format!("message {n}").into(),
        reply_to: n.is_multiple_of(2).then(|| MessageId(narrow(n + 1))),
    }
}

fn wide(n: u64) -> [u8; 32] {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// For n = 1 this is sixteen ones, which reads well in a failure.
fn narrow(n: u64) -> [u8; 16] {
    if n == 1 {
        return [1; 16];
    }
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    bytes
}
