-- What was deleted and whose files may still be there; and checksums of rows that nothing else contradicts.

-- Packs whose files are to be removed, entered by the transaction that makes them superfluous; a row goes once its file has
-- gone. Runs that were deleted before all of their inputs had ended: a pack of theirs may be in work. And packs that are being
-- made of others, so that of what they hold and this index lacks it is known that it was deleted meanwhile. The rows of both go at
-- the next start.
CREATE TABLE tombstones (
    id      BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind    TEXT NOT NULL CHECK (kind IN ('pack', 'run', 'copy'))
) STRICT, WITHOUT ROWID;

-- The first 16 bytes of blake3 over the other columns (see src/store/checksum.rs). NULL: of an earlier version.
ALTER TABLE caches ADD COLUMN checksum BLOB CHECK (length(checksum) = 16);
-- The same over a direction's columns and its vectors.
ALTER TABLE directions ADD COLUMN checksum BLOB CHECK (length(checksum) = 16);
