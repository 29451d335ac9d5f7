-- Activations that were made elsewhere.

-- An import is a run with one input that ended when it was accepted: so it is listed, deleted and held to its idempotency key as any other.
ALTER TABLE runs ADD COLUMN imported INTEGER NOT NULL DEFAULT 0 CHECK (imported IN (0, 1));

-- The file it came from: hash, length, types, and what it says of itself beyond the other columns. NULL: computed here.
ALTER TABLE caches ADD COLUMN origin TEXT CHECK (json_valid(origin));
