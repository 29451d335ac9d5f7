-- Finding extents by what identifies their forward pass. Forward keys are hashes: in one large index every new one belongs to
-- another page, and a commit of thousands changes all of it. So new ones are entered in a small table, from which a stretch of
-- keys after the other is moved into the large one, page by page.

-- Short prefixes, of which a page holds many. They tell keys apart; whoever finds one compares all of it.
CREATE TABLE forward_keys (
    prefix      BLOB NOT NULL CHECK (length(prefix) = 6),       -- of extents.forward_key
    extent_id   INTEGER NOT NULL,
    PRIMARY KEY (prefix, extent_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE forward_keys_new (
    prefix      BLOB NOT NULL CHECK (length(prefix) = 6),
    extent_id   INTEGER NOT NULL,
    PRIMARY KEY (prefix, extent_id)
) STRICT, WITHOUT ROWID;

INSERT INTO forward_keys (prefix, extent_id)
SELECT substr(forward_key, 1, 6), id FROM extents WHERE forward_key IS NOT NULL ORDER BY 1, 2;
DROP INDEX extents_by_forward_key;

-- Whoever adds extents enters their keys.
CREATE TRIGGER extent_unkeyed AFTER DELETE ON extents WHEN OLD.forward_key IS NOT NULL BEGIN
    DELETE FROM forward_keys WHERE prefix = substr(OLD.forward_key, 1, 6) AND extent_id = OLD.id;
    DELETE FROM forward_keys_new WHERE prefix = substr(OLD.forward_key, 1, 6) AND extent_id = OLD.id;
END;
CREATE TRIGGER extent_rekeyed AFTER UPDATE OF forward_key ON extents BEGIN
    DELETE FROM forward_keys WHERE prefix = substr(OLD.forward_key, 1, 6) AND extent_id = OLD.id;
    DELETE FROM forward_keys_new WHERE prefix = substr(OLD.forward_key, 1, 6) AND extent_id = OLD.id;
    INSERT INTO forward_keys_new (prefix, extent_id)
    SELECT substr(NEW.forward_key, 1, 6), NEW.id WHERE NEW.forward_key IS NOT NULL;
END;
