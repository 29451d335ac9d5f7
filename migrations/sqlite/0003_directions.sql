-- Directions: named vectors, one or more a layer, with what made them. They are numbers of their own: deleting the caches they
-- were fitted to leaves them alone.
CREATE TABLE directions (
    id              BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id       INTEGER NOT NULL,
    name            TEXT NOT NULL CHECK (length(name) > 0),
    method          TEXT NOT NULL CHECK (method IN ('upload', 'difference_of_means', 'pca', 'probe')),
    model           TEXT,                                               -- whose activations; NULL: unknown
    hook            TEXT NOT NULL,                                      -- the site, without its layer
    layers          TEXT NOT NULL CHECK (json_valid(layers)),           -- [0, 1, ...]; [] for a hook outside the blocks
    n_components    INTEGER NOT NULL CHECK (n_components > 0),
    d               INTEGER NOT NULL CHECK (d > 0),                     -- values of each vector
    metadata        TEXT NOT NULL CHECK (json_valid(metadata)),
    provenance      TEXT NOT NULL CHECK (json_valid(provenance)),       -- method, parameters, caches
    created_at      INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;
CREATE INDEX directions_by_tenant ON directions (tenant_id, id);

CREATE TABLE direction_vectors (
    direction_id    BLOB NOT NULL REFERENCES directions (id) ON DELETE CASCADE,
    layer           INTEGER NOT NULL CHECK (layer >= -1),               -- -1 for a hook outside the blocks
    component       INTEGER NOT NULL CHECK (component >= 0),            -- 0 unless there are several
    vector          BLOB NOT NULL CHECK (length(vector) > 0 AND length(vector) % 4 = 0),   -- float32, little-endian
    metrics         TEXT NOT NULL CHECK (json_valid(metrics)),          -- of this vector, by name
    PRIMARY KEY (direction_id, layer, component)
) STRICT;
