-- Finding caches by one index of terms. What a filter can ask for (tenant, run, model, set of hooks, label, each tag, each entry
-- of the metadata) is one word, made of a hash; beside them are the words of the texts. Sorted lists of such words are read,
-- cut to a time and intersected faster than trees of rows, and adding to them does not touch a page for every entry.

DROP TRIGGER cache_added;
DROP TRIGGER cache_added_at_a_time_that_is_taken;
DROP TRIGGER cache_removed;
DROP TRIGGER extent_added;

-- As posted: ["a", "b"].
ALTER TABLE caches ADD COLUMN tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags));
UPDATE caches SET tags = (
    SELECT json_group_array(tag) FROM (SELECT tag FROM cache_tags WHERE cache_id = caches.id ORDER BY position)
) WHERE EXISTS (SELECT 1 FROM cache_tags WHERE cache_id = caches.id);
DROP TABLE cache_tags;
DROP TABLE cache_metadata;
DROP TABLE cache_metadata_missing;
DROP TABLE cache_texts;
DROP INDEX caches_by_model;
DROP INDEX caches_by_label;
DROP INDEX caches_by_run;

-- A row is a cache, by its time. Every cache has one. Whoever adds caches enters them here, and in counts.
CREATE VIRTUAL TABLE cache_terms USING fts5 (
    terms, text, completion, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
-- Caches of one stretch of time have a word in common, with which an intersection ends where the stretch does. A stretch begins at its
-- first_at and ends where the next begins, which is after everything that was there when it was begun.
CREATE TABLE cache_blocks (
    first_at    INTEGER PRIMARY KEY,
    last_at     INTEGER NOT NULL,                               -- of its caches
    n           INTEGER NOT NULL                                -- caches that were entered
) STRICT;
INSERT INTO cache_blocks (first_at, last_at, n) VALUES (0, 0, 0);
-- Caches that the next start enters above.
CREATE TABLE cache_terms_missing (created_at INTEGER PRIMARY KEY) STRICT;
INSERT INTO cache_terms_missing (created_at) SELECT created_at FROM caches;

CREATE TRIGGER cache_removed AFTER DELETE ON caches BEGIN
    UPDATE counts SET n = n - 1 WHERE what = 'caches';
    DELETE FROM cache_terms WHERE rowid = OLD.created_at;
END;
