-- Every run under an id of its own and, once it is over, how many transactions there had been by then:
-- what a node was told later than that is not in this database.
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    id     BLOB NOT NULL,
    ended  INTEGER
);

-- Transactions over all runs.
INSERT INTO meta (name, value) VALUES ('commits', 0);
