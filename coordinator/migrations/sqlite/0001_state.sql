-- Facts about the database itself: `runs` (how often it was opened for writing) and `clean`
-- (whether the last run closed it).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The log of each mesh, whole wire entries. A mesh exists once its entry 0 does.
CREATE TABLE log (
    mesh  BLOB NOT NULL,
    idx   INTEGER NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (mesh, idx)
) WITHOUT ROWID;

CREATE TABLE mesh (
    mesh BLOB PRIMARY KEY
) WITHOUT ROWID;

-- One row a recipient, so that mail names it in one or two bytes.
CREATE TABLE queue (
    id        INTEGER PRIMARY KEY,
    mesh      BLOB NOT NULL,
    recipient BLOB NOT NULL,
    UNIQUE (mesh, recipient)
);

-- `seq` is the claim id and only grows, so inserts append. Small columns stand before `bytes`:
-- reading them never follows overflow pages.
CREATE TABLE mail (
    seq      INTEGER PRIMARY KEY,
    queue    INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    exp      INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    env_hash BLOB NOT NULL,
    sender   BLOB NOT NULL,
    bytes    BLOB NOT NULL
);

-- Claim order within a queue (rank = 255 - priority). `exp` and `size` ride along so that expiry
-- and the depths at start are answered from the index alone.
CREATE INDEX mail_by_queue ON mail (queue, rank, seq, exp, size);

CREATE TABLE prekey (
    mesh   BLOB NOT NULL,
    member BLOB NOT NULL,
    exp    INTEGER NOT NULL,
    stmt   BLOB NOT NULL,
    sig    BLOB NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

CREATE TABLE invite (
    lookup    BLOB PRIMARY KEY,
    mesh      BLOB NOT NULL,
    owner     BLOB NOT NULL,
    blob      BLOB NOT NULL,
    exp       INTEGER NOT NULL,
    uses_left INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('runs', 0), ('clean', 1);
