-- `alive`: Unix ms of the last sign of life of any run.
INSERT INTO meta (name, value) VALUES ('alive', 0);
