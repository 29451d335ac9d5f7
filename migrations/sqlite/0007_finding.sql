-- Finding caches. Every condition of a listing has an index that gives its caches in the order of the listing, which is the
-- time they were stored: a walk along one index, and a look into the others for each step, answer any combination.

-- The time of a cache is its place in that order, so no two caches have the same: those of one commit are a microsecond
-- apart. It names the cache in the tables below.
UPDATE caches SET created_at = ordered.at
FROM (
    SELECT id, n + max(created_at - n) OVER (ORDER BY n) AS at
    FROM (SELECT id, created_at, row_number() OVER (ORDER BY created_at, id) AS n FROM caches)
) AS ordered
WHERE ordered.id = caches.id AND ordered.at <> caches.created_at;

DROP INDEX caches_by_tenant;
DROP INDEX caches_by_model;
DROP INDEX caches_by_label;
DROP INDEX caches_by_hook_set;
CREATE INDEX caches_by_time ON caches (created_at);
CREATE INDEX caches_by_tenant ON caches (tenant_id, created_at);
CREATE INDEX caches_by_model ON caches (tenant_id, model, created_at);
CREATE INDEX caches_by_run ON caches (run_id, tenant_id, created_at);
CREATE INDEX caches_by_label ON caches (tenant_id, label, created_at) WHERE label IS NOT NULL;
CREATE INDEX caches_by_hook_set ON caches (hook_set_id, tenant_id, created_at);
CREATE INDEX hook_sets_by_hook ON hook_set_hooks (hook, hook_set_id);

ALTER TABLE cache_tags RENAME TO old_cache_tags;
DROP INDEX cache_tags_by_cache;
CREATE TABLE cache_tags (
    tenant_id   INTEGER NOT NULL,
    tag         TEXT NOT NULL,
    created_at  INTEGER NOT NULL,                               -- that of the cache
    cache_id    BLOB NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,                               -- order as posted
    PRIMARY KEY (tenant_id, tag, created_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_tags_by_cache ON cache_tags (cache_id, position);
INSERT INTO cache_tags (tenant_id, tag, created_at, cache_id, position)
SELECT t.tenant_id, t.tag, c.created_at, t.cache_id, t.position FROM old_cache_tags t JOIN caches c ON c.id = t.cache_id;
DROP TABLE old_cache_tags;

-- What the metadata of caches says: a row for every key of every object in it.
CREATE TABLE cache_metadata (
    created_at  INTEGER NOT NULL,                               -- that of the cache
    key         TEXT NOT NULL,                                  -- keys from the outermost on, with dots between
    value       TEXT NOT NULL,                                  -- its kind and its one spelling; long ones by their hash
    tenant_id   INTEGER NOT NULL,
    PRIMARY KEY (created_at, key, value)                        -- two keys can read alike: {"a.b": 1, "a": {"b": 2}}
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_metadata_by_value ON cache_metadata (tenant_id, key, value, created_at);

-- Caches of an older index, whose metadata the next start enters above.
CREATE TABLE cache_metadata_missing (created_at INTEGER PRIMARY KEY) STRICT;
INSERT INTO cache_metadata_missing (created_at) SELECT created_at FROM caches WHERE metadata <> '{}';

-- Words of texts and of what was generated. A row is a cache, by its time; the tenant is a word of its own.
CREATE VIRTUAL TABLE cache_texts USING fts5 (
    tenant, text, completion, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO cache_texts (rowid, tenant, text, completion)
SELECT created_at, 't' || tenant_id, text, completion ->> '$.text' FROM caches
WHERE text IS NOT NULL OR completion IS NOT NULL ORDER BY created_at;

-- How many rows there are: SQLite would have to go through them.
CREATE TABLE counts (
    what    TEXT NOT NULL PRIMARY KEY,
    n       INTEGER NOT NULL CHECK (n >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO counts (what, n)
SELECT 'runs', count(*) FROM runs UNION ALL SELECT 'caches', count(*) FROM caches
UNION ALL SELECT 'extents', count(*) FROM extents UNION ALL SELECT 'packs', count(*) FROM packs
UNION ALL SELECT 'blob_bytes', coalesce(sum(n_bytes), 0) FROM packs;
CREATE TRIGGER run_added AFTER INSERT ON runs BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'runs';
END;
CREATE TRIGGER run_removed AFTER DELETE ON runs BEGIN
    UPDATE counts SET n = n - 1 WHERE what = 'runs';
END;
CREATE TRIGGER extent_added AFTER INSERT ON extents BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'extents';
END;
CREATE TRIGGER extent_removed AFTER DELETE ON extents BEGIN
    UPDATE counts SET n = n - 1 WHERE what = 'extents';
END;
CREATE TRIGGER pack_added AFTER INSERT ON packs BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'packs';
    UPDATE counts SET n = n + NEW.n_bytes WHERE what = 'blob_bytes';
END;
CREATE TRIGGER pack_changed AFTER UPDATE OF n_bytes ON packs BEGIN
    UPDATE counts SET n = n + NEW.n_bytes - OLD.n_bytes WHERE what = 'blob_bytes';
END;
CREATE TRIGGER pack_removed AFTER DELETE ON packs BEGIN
    UPDATE counts SET n = n - 1 WHERE what = 'packs';
    UPDATE counts SET n = n - OLD.n_bytes WHERE what = 'blob_bytes';
END;

-- Whoever adds or removes a cache keeps the texts in step, and the times apart. The second trigger is for a time that is
-- taken; the first is spared its UPDATE, which would open every index for every row.
CREATE TRIGGER cache_added AFTER INSERT ON caches
WHEN NOT EXISTS (SELECT 1 FROM caches other WHERE other.created_at = NEW.created_at AND other.id <> NEW.id)
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'caches';
    INSERT INTO cache_texts (rowid, tenant, text, completion)
    SELECT NEW.created_at, 't' || NEW.tenant_id, NEW.text, NEW.completion ->> '$.text'
    WHERE NEW.text IS NOT NULL OR NEW.completion IS NOT NULL;
END;
CREATE TRIGGER cache_added_at_a_time_that_is_taken AFTER INSERT ON caches
WHEN EXISTS (SELECT 1 FROM caches other WHERE other.created_at = NEW.created_at AND other.id <> NEW.id)
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'caches';
    UPDATE caches SET created_at = (SELECT max(created_at) + 1 FROM caches) WHERE id = NEW.id;
    INSERT INTO cache_texts (rowid, tenant, text, completion)
    SELECT created_at, 't' || tenant_id, text, completion ->> '$.text' FROM caches
    WHERE id = NEW.id AND (text IS NOT NULL OR completion IS NOT NULL);
END;
CREATE TRIGGER cache_removed AFTER DELETE ON caches BEGIN
    UPDATE counts SET n = n - 1 WHERE what = 'caches';
    DELETE FROM cache_texts WHERE rowid = OLD.created_at;
    DELETE FROM cache_metadata WHERE created_at = OLD.created_at;
END;
