-- How urgent a run is; what was queued before there were priorities is as urgent as anything.
ALTER TABLE runs ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('interactive', 'normal', 'bulk'));
