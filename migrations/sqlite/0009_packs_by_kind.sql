-- Finding small packs of a kind, which are merged, whatever the number of all.
CREATE INDEX packs_by_kind ON packs (tenant_id, layout_id, dtype, n_bytes);
