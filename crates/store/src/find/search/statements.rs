//! The SQL of a search.

use sqlx::{QueryBuilder, Sqlite};

use super::{Rows, Search, TERM_COST, Walk, micros_up};
use crate::{find::described::JOINED, index::rows::push_limit};
use residuum_domain::Order;

impl Search<'_> {
    /// The statement that counts what is found up to `limit`.
    pub(super) fn up_to(&self, limit: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1");
        self.push_found(&mut query, "");
        push_limit(&mut query, limit);
        query.push(")");
        query
    }

    /// The statement that counts the caches of each of `walks` up to `level`.
    pub(super) fn sizes(&self, walks: &[Walk], level: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        for (i, walk) in walks.iter().enumerate() {
            query.push(if i == 0 { "" } else { ", " }).push("(SELECT count(*) FROM (");
            self.push_rows(&mut query, *walk, Rows::Range);
            push_limit(&mut query, level);
            query.push("))");
        }
        query
    }

    /// The statement for the heads of the posting lists: how many entries ahead each has, up to `level`, and the time of the
    /// first. After these rows, up to `partitions` time partitions, from that of the farthest of these times on; in
    /// ascending order one more, where they end.
    pub(super) fn heads(&self, level: i64, partitions: i64) -> QueryBuilder<Sqlite> {
        let (first, farthest) = match self.order {
            Order::Ascending => ("min(at)", "max(at)"),
            Order::Descending => ("max(at)", "min(at)"),
        };
        let mut query = QueryBuilder::new("WITH heads (n, at) AS MATERIALIZED (");
        for (i, probe) in self.probes.iter().enumerate() {
            query.push(if i == 0 { "" } else { " UNION ALL " }).push("SELECT count(*), ").push(first).push(" FROM (");
            self.push_word(&mut query, &probe.word, Rows::Ahead);
            query.push(" ORDER BY rowid").push(self.direction());
            push_limit(&mut query, level);
            query.push(")");
        }
        query.push(") SELECT n, at FROM heads UNION ALL SELECT * FROM (SELECT 0, first_at FROM cache_blocks");
        query.push(" WHERE first_at <= (SELECT ").push(farthest).push(" FROM heads) ORDER BY first_at DESC");
        push_limit(&mut query, if self.order == Order::Ascending { 1 } else { partitions });
        query.push(")");
        if self.order == Order::Ascending {
            query.push(" UNION ALL SELECT * FROM (SELECT 0, first_at FROM cache_blocks WHERE first_at > (SELECT ");
            query.push(farthest).push(" FROM heads) ORDER BY first_at");
            push_limit(&mut query, partitions);
            query.push(")");
        }
        query
    }

    /// What follows ORDER BY.
    fn direction(&self) -> &'static str {
        match self.order {
            Order::Ascending => "",
            Order::Descending => " DESC",
        }
    }

    /// The statement for the time of the last of the first `steps` caches of the walk; nothing where there are fewer.
    pub(super) fn end(&self, steps: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT (SELECT at FROM (");
        self.push_rows(&mut query, self.walk, Rows::Range);
        query.push(") ORDER BY at DESC LIMIT 1 OFFSET +").push_bind(steps - 1).push(")");
        query
    }

    /// How many caches of the walk are looked at, if `most` could be looked at along an index; `None`: all of them.
    pub(super) fn steps(&self, most: i64) -> Option<i64> {
        let looked_up = self.walk != Walk::Terms && !self.words.is_empty();
        let steps = if looked_up { most / TERM_COST } else { most };
        (self.looks() && self.walk != Walk::Expiry).then_some(steps)
    }

    /// Whether each cache that the walk meets has to be checked.
    fn looks(&self) -> bool {
        let f = self.filter;
        f.fingerprint.is_some()
            || f.bos.is_some()
            || self.expired.is_some()
            || !self.looked_at.is_empty()
            || (f.pinned.is_some() && self.walk != Walk::Pinned)
            || (self.has_expiry() && self.walk != Walk::Expiry)
            || (!self.words.is_empty() && self.walk != Walk::Terms)
    }

    /// The statement for the first caches that are found, among the first `steps` of the walk if given: then the next one comes
    /// last, which is `beyond` them.
    pub(super) fn in_order(&self, limit: i64, steps: Option<i64>) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(self.columns);
        let joined = format!(" CROSS JOIN caches c ON c.created_at = d.at{JOINED}");
        match steps {
            None => {
                query.push(", 0 AS beyond");
                self.push_found(&mut query, &joined);
                query.push(" ORDER BY d.at").push(self.direction());
            }
            // numbered in the order of the walk: sorting would look at all of them
            Some(steps) => {
                query.push(", d.n > ").push_bind(steps).push(" AS beyond");
                query.push(" FROM (SELECT at, row_number() OVER () AS n FROM (");
                self.push_rows(&mut query, self.walk, Rows::Range);
                query.push(" ORDER BY at").push(self.direction());
                push_limit(&mut query, steps + 1);
                query.push(")) d").push(joined);
                query.push(" WHERE (d.n > ").push_bind(steps).push(" OR (1");
                self.push_conditions(&mut query);
                query.push("))");
            }
        }
        push_limit(&mut query, limit);
        query
    }

    /// The statement for the ids of everything that is found, by run and then by input.
    pub(crate) fn ids(&self, order: Order) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT c.id");
        self.push_found(&mut query, " CROSS JOIN caches c ON c.created_at = d.at");
        query.push(match order {
            Order::Ascending => " ORDER BY c.run_id, c.item_index, c.id",
            Order::Descending => " ORDER BY c.run_id DESC, c.item_index DESC, c.id DESC",
        });
        query
    }

    /// Adds ` FROM … WHERE …` with what is found as `d.at`; `joined` comes behind the FROM.
    pub(crate) fn push_found(&self, query: &mut QueryBuilder<Sqlite>, joined: &str) {
        query.push(" FROM (");
        self.push_rows(query, self.walk, Rows::Range);
        query.push(") d").push(joined).push(" WHERE 1");
        self.push_conditions(query);
    }

    /// Adds what has to be true of `d.at` besides being met by the walk, each behind an AND.
    fn push_conditions(&self, query: &mut QueryBuilder<Sqlite>) {
        if self.walk != Walk::Terms {
            // one by one: their intersection would continue after the cache
            for word in &self.words {
                query.push(" AND EXISTS (");
                self.push_word(query, word, Rows::This);
                query.push(")");
            }
        }
        if self.has_expiry() && self.walk != Walk::Expiry {
            self.push_condition(query, " AND EXISTS (", Walk::Expiry);
        }
        match self.filter.pinned {
            Some(true) if self.walk != Walk::Pinned => self.push_condition(query, " AND EXISTS (", Walk::Pinned),
            Some(false) => self.push_condition(query, " AND NOT EXISTS (", Walk::Pinned),
            _ => {}
        }
        self.push_looks(query);
        if let Some(now) = self.expired {
            query.push(" AND NOT EXISTS (SELECT 1 FROM caches INDEXED BY caches_by_time WHERE created_at = d.at");
            query.push(" AND ends_at <= ").push_bind(now).push(")");
        }
    }

    fn push_condition(&self, query: &mut QueryBuilder<Sqlite>, opening: &str, condition: Walk) {
        query.push(opening);
        self.push_rows(query, condition, Rows::This);
        query.push(")");
    }

    /// Adds the conditions that have no index: each cache is looked at.
    fn push_looks(&self, query: &mut QueryBuilder<Sqlite>) {
        const LOOK: &str = " AND EXISTS (SELECT 1 FROM caches o INDEXED BY caches_by_time";
        for hook in &self.looked_at {
            query.push(LOOK).push(" CROSS JOIN hook_set_hooks h ON h.hook_set_id = o.hook_set_id");
            query.push(" WHERE o.created_at = d.at AND h.hook = ").push_bind(hook.to_string()).push(")");
        }
        if let Some(fingerprint) = &self.filter.fingerprint {
            query.push(LOOK).push(" CROSS JOIN extents x ON x.id = o.extent_id");
            query.push(" CROSS JOIN provenances v ON v.id = x.provenance_id WHERE o.created_at = d.at");
            query.push(" AND v.provenance ->> '$.model_fingerprint' = ").push_bind(fingerprint.as_str()).push(")");
        }
        if let Some(present) = self.filter.bos {
            query
                .push(LOOK)
                .push(" WHERE o.created_at = d.at AND o.bos ->> '$.present' = ")
                .push_bind(present)
                .push(")");
        }
    }

    /// Adds a SELECT of the times of the caches that meet one condition.
    fn push_rows(&self, query: &mut QueryBuilder<Sqlite>, condition: Walk, rows: Rows) {
        const SELECT: &str = "SELECT created_at AS at FROM caches INDEXED BY ";
        let f = self.filter;
        match condition {
            Walk::Terms => {
                query.push("SELECT rowid AS at FROM cache_terms WHERE cache_terms MATCH ");
                let within =
                    (!self.partitions.is_empty()).then(|| format!(" AND terms : ({})", self.partitions.join(" OR ")));
                query.push_bind(self.words.join(" AND ") + within.as_deref().unwrap_or_default());
                return self.push_bounds(query, "rowid", rows);
            }
            Walk::Expiring => {
                query.push(SELECT).push("caches_expiring WHERE expires_at IS NOT NULL AND tenant_id = ");
                query.push_bind(self.tenant.0);
            }
            Walk::Any => {
                query.push(SELECT).push("caches_by_tenant WHERE tenant_id = ").push_bind(self.tenant.0);
            }
            Walk::Pinned => {
                query.push(SELECT).push("caches_pinned WHERE pinned = 1 AND tenant_id = ").push_bind(self.tenant.0);
            }
            Walk::Expiry => {
                let index = match rows {
                    Rows::Range | Rows::Ahead => "caches_by_expiry",
                    Rows::This => "caches_by_time",
                };
                query.push(SELECT).push(index).push(" WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND expires_at >= ").push_bind(f.expires_from.map_or(0, micros_up));
                query.push(" AND expires_at < ").push_bind(f.expires_to.map_or(i64::MAX, micros_up));
            }
        }
        self.push_bounds(query, "created_at", rows);
    }

    /// Adds a SELECT of the times in one posting list.
    fn push_word(&self, query: &mut QueryBuilder<Sqlite>, word: &str, rows: Rows) {
        query.push("SELECT rowid AS at FROM cache_terms WHERE cache_terms MATCH ").push_bind(word.to_owned());
        self.push_bounds(query, "rowid", rows);
    }

    fn push_bounds(&self, query: &mut QueryBuilder<Sqlite>, column: &str, rows: Rows) {
        query.push(" AND ").push(column);
        match rows {
            Rows::Range => {
                query.push(" >= ").push_bind(self.from).push(" AND ").push(column).push(" < ").push_bind(self.to);
            }
            Rows::This => {
                query.push(" = d.at");
            }
            Rows::Ahead if self.order == Order::Ascending => {
                query.push(" >= ").push_bind(self.from);
            }
            Rows::Ahead => {
                query.push(" < ").push_bind(self.to);
            }
        }
    }

    /// Whether what is walked has to be sorted.
    #[cfg(test)]
    pub(crate) fn sorts(&self) -> bool {
        self.walk == Walk::Expiry
    }

    /// Every statement a listing runs, for a test that looks at their plans.
    #[cfg(test)]
    pub(crate) fn statements(&self) -> Vec<QueryBuilder<Sqlite>> {
        let mut all = vec![self.in_order(10, None), self.sizes(&self.walkable(), 10), self.end(10), self.up_to(10)];
        all.extend((!self.sorts()).then(|| self.in_order(10, Some(10))));
        all.extend((!self.probes.is_empty()).then(|| self.heads(10, 2)));
        all
    }
}
