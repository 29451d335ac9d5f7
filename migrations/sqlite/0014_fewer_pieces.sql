-- Every commit leaves its words in a piece of their own, and a query looks into all of them. Upkeep merges pieces of one size where
-- there are two of them (4 without this).
INSERT INTO cache_terms (cache_terms, rank) VALUES ('usermerge', 2);
