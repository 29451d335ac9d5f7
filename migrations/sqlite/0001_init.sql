-- Residuum's index. Blobs hold the numbers; these tables say whose they are, what made them and where they lie.
--
-- Conventions: ids are the 16 bytes of a UUIDv7; times are microseconds since 1970 (UTC); JSON is text; every table that
-- belongs to somebody carries tenant_id. AUTOINCREMENT marks tables whose rows are remembered outside a transaction:
-- their ids are never given out twice.

-- Sets of hook points, in execution order. A million caches share few.
CREATE TABLE hook_sets (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    digest  BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),   -- blake3 of hooks
    hooks   TEXT NOT NULL CHECK (json_valid(hooks))             -- ["blocks.0.hook_resid_post", ...]
) STRICT;

-- The same sets, one row a hook, to filter by.
CREATE TABLE hook_set_hooks (
    hook_set_id INTEGER NOT NULL REFERENCES hook_sets (id) ON DELETE CASCADE,
    hook        TEXT NOT NULL,
    PRIMARY KEY (hook_set_id, hook)
) STRICT, WITHOUT ROWID;

-- What the tensors of a pack look like, their lengths aside.
CREATE TABLE layouts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),       -- blake3 of hooks and row_shapes
    hook_set_id INTEGER NOT NULL REFERENCES hook_sets (id),
    row_shapes  TEXT NOT NULL CHECK (json_valid(row_shapes))            -- [[576], [9, 64], ...], one a hook
) STRICT;
CREATE INDEX layouts_by_hook_set ON layouts (hook_set_id);

-- What produced numbers: model, device, versions.
CREATE TABLE provenances (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),       -- blake3 of the other columns
    provenance  TEXT NOT NULL CHECK (json_valid(provenance)),
    n_layers    INTEGER NOT NULL CHECK (n_layers >= 0),
    d_model     INTEGER NOT NULL CHECK (d_model >= 0)
) STRICT;

-- Requests, accepted and durable.
CREATE TABLE runs (
    id              BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id       INTEGER NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    model           TEXT NOT NULL,
    reuse           INTEGER NOT NULL CHECK (reuse IN (0, 1)),
    n_items         INTEGER NOT NULL CHECK (n_items > 0),
    n_done          INTEGER NOT NULL DEFAULT 0 CHECK (n_done >= 0),         -- reused ones among them
    n_reused        INTEGER NOT NULL DEFAULT 0 CHECK (n_reused BETWEEN 0 AND n_done),
    n_failed        INTEGER NOT NULL DEFAULT 0 CHECK (n_failed >= 0),
    metadata        TEXT NOT NULL CHECK (json_valid(metadata)),
    idempotency_key TEXT,
    request_hash    BLOB CHECK (length(request_hash) = 32),
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    CHECK (n_done + n_failed <= n_items),
    CHECK ((idempotency_key IS NULL) = (request_hash IS NULL)),
    CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled')))
) STRICT;
CREATE UNIQUE INDEX runs_by_idempotency_key ON runs (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_by_tenant ON runs (tenant_id, id);
CREATE INDEX runs_by_status ON runs (tenant_id, status, id);
CREATE INDEX runs_by_model ON runs (tenant_id, model, id);
CREATE INDEX runs_unfinished ON runs (id) WHERE finished_at IS NULL;

CREATE TABLE run_tags (
    tenant_id   INTEGER NOT NULL,
    tag         TEXT NOT NULL,
    run_id      BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,                                       -- order as posted
    PRIMARY KEY (tenant_id, tag, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_tags_by_run ON run_tags (run_id, position);

-- The queue: one row an input. An item that became a cache is found there, by (run_id, item_index).
CREATE TABLE run_items (
    run_id      BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    item_index  INTEGER NOT NULL CHECK (item_index >= 0),
    status      TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done', 'failed', 'cancelled')),
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),       -- how often a worker took it up
    hook_set_id INTEGER REFERENCES hook_sets (id),                      -- with payload: the input and what to capture,
    payload     TEXT,                                                   -- kept while the item is pending
    problem     TEXT CHECK (json_valid(problem)),
    PRIMARY KEY (run_id, item_index),
    CHECK ((status = 'pending') = (payload IS NOT NULL)),
    CHECK ((payload IS NULL) = (hook_set_id IS NULL)),
    CHECK ((status = 'failed') = (problem IS NOT NULL))
) STRICT;
CREATE INDEX run_items_pending ON run_items (run_id, item_index) WHERE status = 'pending';
CREATE INDEX run_items_failed ON run_items (run_id, item_index) WHERE status = 'failed';
CREATE INDEX run_items_by_hook_set ON run_items (hook_set_id) WHERE hook_set_id IS NOT NULL;

-- Blob files.
CREATE TABLE packs (
    id          BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id   INTEGER NOT NULL,
    layout_id   INTEGER NOT NULL REFERENCES layouts (id),
    dtype       TEXT NOT NULL CHECK (dtype IN ('float32', 'float16', 'bfloat16')),
    data_start  INTEGER NOT NULL CHECK (data_start > 8),    -- byte of the file where the first tensor begins
    n_rows      INTEGER NOT NULL CHECK (n_rows > 0),        -- rows of every tensor [n_rows, ...]
    n_map       INTEGER NOT NULL CHECK (n_map > 0),         -- cells of one head of every flat attention map
    n_bytes     INTEGER NOT NULL CHECK (n_bytes >= data_start),  -- length of the file
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX packs_by_layout ON packs (layout_id);

-- Immutable rows of a pack: the activations of one input. Moving them to another pack changes pack_id, row_start and
-- map_start, and nothing else anywhere.
CREATE TABLE extents (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id       INTEGER NOT NULL,
    pack_id         BLOB NOT NULL REFERENCES packs (id),
    provenance_id   INTEGER NOT NULL REFERENCES provenances (id),
    positions       TEXT NOT NULL CHECK (json_valid(positions)),
    n_tokens        INTEGER NOT NULL CHECK (n_tokens > 0),
    n_rows          INTEGER NOT NULL CHECK (n_rows > 0),
    row_start       INTEGER NOT NULL CHECK (row_start >= 0),
    map_start       INTEGER NOT NULL CHECK (map_start >= 0),
    forward_key     BLOB CHECK (length(forward_key) = 32),          -- NULL: made elsewhere, never reused
    content_hash    BLOB NOT NULL CHECK (length(content_hash) = 32), -- blake3 of its bytes, hook after hook
    stats           TEXT CHECK (json_valid(stats))                  -- per hook {n_nan, n_inf}; NULL: all finite
) STRICT;
CREATE INDEX extents_by_forward_key ON extents (tenant_id, forward_key) WHERE forward_key IS NOT NULL;
CREATE INDEX extents_by_pack ON extents (pack_id);
CREATE INDEX extents_by_provenance ON extents (provenance_id);

-- The activations of one input of a run, as clients see them.
CREATE TABLE caches (
    id          BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id   INTEGER NOT NULL,
    run_id      BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    item_index  INTEGER NOT NULL CHECK (item_index >= 0),
    extent_id   INTEGER NOT NULL REFERENCES extents (id),
    hook_set_id INTEGER NOT NULL REFERENCES hook_sets (id),     -- what was asked for: a subset of the extent's
    positions   TEXT NOT NULL CHECK (json_valid(positions)),    -- as it was asked; resolves to the extent's rows
    model       TEXT NOT NULL,
    text        TEXT,
    token_ids   BLOB NOT NULL CHECK (length(token_ids) > 0 AND length(token_ids) % 4 = 0),  -- u32, little-endian
    tokens      TEXT NOT NULL CHECK (json_valid(tokens)),
    bos         TEXT NOT NULL CHECK (json_valid(bos)),
    n_truncated INTEGER NOT NULL CHECK (n_truncated >= 0),
    reused      INTEGER NOT NULL CHECK (reused IN (0, 1)),
    metadata    TEXT NOT NULL CHECK (json_valid(metadata)),
    label       TEXT,
    created_at  INTEGER NOT NULL,
    UNIQUE (run_id, item_index)
) STRICT;
CREATE INDEX caches_by_tenant ON caches (tenant_id, id);
CREATE INDEX caches_by_model ON caches (tenant_id, model, id);
CREATE INDEX caches_by_label ON caches (tenant_id, label, id) WHERE label IS NOT NULL;
CREATE INDEX caches_by_extent ON caches (extent_id);
CREATE INDEX caches_by_hook_set ON caches (hook_set_id);

CREATE TABLE cache_tags (
    tenant_id   INTEGER NOT NULL,
    tag         TEXT NOT NULL,
    cache_id    BLOB NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,                               -- order as posted
    PRIMARY KEY (tenant_id, tag, cache_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_tags_by_cache ON cache_tags (cache_id, position);
