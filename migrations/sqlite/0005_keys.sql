-- Who may ask: tenants, and the API keys that speak for them.

CREATE TABLE tenants (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,      -- the tenant_id of every other table
    name        TEXT NOT NULL UNIQUE CHECK (length(name) > 0),
    created_at  INTEGER NOT NULL
) STRICT;
-- Whose everything is while there is no key.
INSERT INTO tenants (id, name, created_at) VALUES (1, 'default', unixepoch() * 1000000);

-- A key that was revoked keeps its row: a store that ever had one asks for one.
CREATE TABLE api_keys (
    id              TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 12),          -- part of the key: finds the row
    tenant_id       INTEGER NOT NULL REFERENCES tenants (id),
    name            TEXT NOT NULL CHECK (length(name) > 0),                     -- for people
    secret_hash     BLOB NOT NULL CHECK (length(secret_hash) = 32),             -- blake3 of the secret's 32 random bytes
    scopes          TEXT NOT NULL CHECK (json_valid(scopes)),                   -- ["read", "metrics"]
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER,                                                    -- to the minute
    expires_at      INTEGER,
    revoked_at      INTEGER
) STRICT;
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);
