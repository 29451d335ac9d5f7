-- What a run changes while its inputs go through the model: the changes, and the numbers they take. Written with the run, so
-- that it can be carried out after a restart, whatever became of the directions and caches that the numbers were taken from.
CREATE TABLE run_interventions (
    run_id      BLOB NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    edits       TEXT NOT NULL CHECK (json_valid(edits)),
    numbers     BLOB NOT NULL CHECK (length(numbers) % 4 = 0)       -- float32, little-endian
) STRICT;

-- What was changed, for people: a list of objects, names resolved, positions settled. NULL: nothing.
ALTER TABLE caches ADD COLUMN interventions TEXT CHECK (json_valid(interventions));
