-- Indexes that a page of a listing or a commit reads less of.

-- Forward keys are hashes, so every new one lands on another leaf: of short prefixes there are a third as many leaves to read,
-- change and log. Eight bytes tell keys apart; whoever finds one compares all of it.
DROP INDEX extents_by_forward_key;
CREATE INDEX extents_by_forward_key ON extents (substr(forward_key, 1, 8)) WHERE forward_key IS NOT NULL;

-- What a run names of its caches, without their rows: those of its first items.
CREATE INDEX caches_named_by_run ON caches (run_id, item_index, expires_at, pinned, id) WHERE item_index < 128;

-- A large commit enters its caches in pieces of thousands, not one for every megabyte, which would have to be merged.
INSERT INTO cache_terms (cache_terms, rank) VALUES ('hashsize', 16777216);

-- Whoever asks whether the index can be written to writes here.
INSERT INTO counts (what, n) VALUES ('probes', 0);
