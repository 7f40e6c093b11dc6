-- One mesh's state on one node. Times are Unix milliseconds; a peer is named by its number in `peers`.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE peers (
    peer INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE
);

-- The mesh log, whole wire entries.
CREATE TABLE log (
    idx INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
);

-- One row a recipient of a send; stays as a tombstone after the message is settled.
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    recipient INTEGER NOT NULL,
    fp BLOB NOT NULL,
    generation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    exp INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    code TEXT,
    path INTEGER,
    state_at INTEGER NOT NULL,
    env_hash BLOB NOT NULL,
    kid BLOB NOT NULL,
    seals INTEGER NOT NULL,
    replaced_by BLOB
);
CREATE UNIQUE INDEX outbox_send ON outbox (id, recipient);

-- What is said and what is sent; gone once the recipient has it, so this is also the list of rows
-- that are unsettled or failed.
CREATE TABLE outbox_payload (
    row INTEGER PRIMARY KEY,
    content_type TEXT NOT NULL,
    content BLOB NOT NULL,
    reply_to BLOB,
    wire BLOB NOT NULL
);

-- The next place in the conversation with each recipient. Tombstones may be dropped, counters not.
CREATE TABLE sequences (
    recipient INTEGER PRIMARY KEY,
    next INTEGER NOT NULL
);

-- Messages received; a row is its own dedupe row.
CREATE TABLE inbox (
    row INTEGER PRIMARY KEY,
    position INTEGER,
    sender INTEGER NOT NULL,
    id BLOB NOT NULL,
    fp BLOB NOT NULL,
    env_hash BLOB NOT NULL,
    generation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    exp INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    path INTEGER NOT NULL,
    reply_to BLOB,
    content_type TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE UNIQUE INDEX inbox_message ON inbox (id, sender);
CREATE UNIQUE INDEX inbox_position ON inbox (position) WHERE position IS NOT NULL;
CREATE INDEX inbox_held ON inbox (row) WHERE position IS NULL;

-- Apart from the inbox, because marking a message must not rewrite its content.
CREATE TABLE surfaced (
    row INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
);

CREATE TABLE conversations (
    sender INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (sender, generation)
) WITHOUT ROWID;

CREATE TABLE prekeys (
    kid BLOB PRIMARY KEY,
    secret BLOB NOT NULL,
    stmt BLOB,
    sig BLOB,
    exp INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE peer_prekeys (
    peer INTEGER PRIMARY KEY,
    stmt BLOB NOT NULL,
    sig BLOB NOT NULL
);

CREATE TABLE revocations (
    stmt BLOB PRIMARY KEY,
    sig BLOB NOT NULL
) WITHOUT ROWID;

-- Members whose late admission nobody confirmed yet.
CREATE TABLE holds (
    peer INTEGER PRIMARY KEY
);

CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

-- Invites this node made. The code is not among them.
CREATE TABLE invites (
    id BLOB PRIMARY KEY,
    lookup BLOB NOT NULL,
    url TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    exp INTEGER NOT NULL,
    uses INTEGER NOT NULL
) WITHOUT ROWID;
