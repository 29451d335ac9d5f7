-- How long caches are kept.

-- Caches of the run expire so long after they were stored.
ALTER TABLE runs ADD COLUMN ttl_seconds INTEGER CHECK (ttl_seconds > 0);

ALTER TABLE caches ADD COLUMN expires_at INTEGER;
-- Neither expired nor evicted.
ALTER TABLE caches ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1));
-- When it really goes; NULL: it stays.
ALTER TABLE caches ADD COLUMN ends_at INTEGER GENERATED ALWAYS AS (iif(pinned, NULL, expires_at)) VIRTUAL;

CREATE INDEX caches_by_end ON caches (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX caches_by_expiry ON caches (tenant_id, expires_at, created_at) WHERE expires_at IS NOT NULL;
CREATE INDEX caches_expiring ON caches (tenant_id, created_at) WHERE expires_at IS NOT NULL;
CREATE INDEX caches_pinned ON caches (tenant_id, created_at) WHERE pinned = 1;
-- Oldest first, for eviction; and times, as before.
DROP INDEX caches_by_time;
CREATE INDEX caches_by_time ON caches (created_at, pinned);
