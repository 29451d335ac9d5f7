-- Models and autoencoders that were loaded while the server ran, so that the next start loads them again.
CREATE TABLE served (
    -- the order in which they were loaded
    id      INTEGER NOT NULL PRIMARY KEY,
    kind    TEXT NOT NULL CHECK (kind IN ('model', 'sae')),
    name    TEXT NOT NULL,
    -- as the client gave it; NULL: uploaded, and in the data folder
    source  TEXT,
    -- of an autoencoder
    model   TEXT CHECK ((model IS NULL) = (kind = 'model')),
    UNIQUE (kind, name),
    CHECK (source IS NOT NULL OR kind = 'sae')
) STRICT;
