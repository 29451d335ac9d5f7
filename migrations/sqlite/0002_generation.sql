-- Inputs that are continued before they are captured.

ALTER TABLE runs ADD COLUMN generates INTEGER NOT NULL DEFAULT 0 CHECK (generates IN (0, 1));

-- What was generated: where it begins among the tokens, its text, why it ended, how tokens were chosen.
ALTER TABLE caches ADD COLUMN completion TEXT CHECK (json_valid(completion));
