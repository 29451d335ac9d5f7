//! Reuse: finding stored activations that answer an input, so that nothing is computed twice.

use std::sync::Arc;

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    blobs::{LocalBlobs, epoch::Session},
    error::StoreError,
    index::{
        SqliteIndex,
        intern::{self, Layout, Origin},
        rows::{Fields, hex, hex_list, to_json},
    },
    packs::location::{ExtentId, Location},
};
use residuum_domain::{Capture, Dtype, Hook, Provenance, Rows, TenantId, capture::Answer};

/// The newest extent of a capture in one of the tables of forward keys.
macro_rules! newest {
    ($keys:literal) => {
        concat!(
            "(SELECT x.id FROM ",
            $keys,
            " k CROSS JOIN extents x ON x.id = k.extent_id CROSS JOIN packs p ON p.id = x.pack_id \
             WHERE k.prefix = substr(unhex(j.value ->> 0), 1, 6) AND x.forward_key = unhex(j.value ->> 0) \
                 AND x.tenant_id = ?2 AND x.positions = j.value ->> 2 AND x.n_tokens = j.value ->> 4 \
                 AND p.dtype = j.value ->> 3 \
                 AND EXISTS (SELECT 1 FROM layouts l WHERE l.id = p.layout_id AND l.hook_set_id = h.id) \
                 AND EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = x.id AND (c.ends_at IS NULL OR c.ends_at > ?3)) \
             ORDER BY k.extent_id DESC LIMIT 1)"
        )
    };
}

/// The newest extents of captures that are bound as a list of [forward key, digest of hooks, positions, dtype, tokens].
pub(crate) const EQUAL: &str = concat!(
    "SELECT j.key AS wanted, e.id FROM json_each(?1) j CROSS JOIN hook_sets h ON h.digest = unhex(j.value ->> 1) \
     CROSS JOIN extents e ON e.id = coalesce(",
    newest!("forward_keys_new"),
    ", ",
    newest!("forward_keys"),
    ")"
);

/// What an input needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Identifies the forward pass.
    pub forward_key: [u8; 32],
    /// What the input captures.
    pub capture: Capture,
    /// Tokens of the input.
    pub n_tokens: usize,
}

/// What answers an input.
#[derive(Debug, Clone)]
pub enum Reusable {
    /// An extent with its rows.
    Extent(ExtentId),
    /// Rows that hold its own.
    Rows(StoredRows),
}

/// Stored rows that others can be made of.
#[derive(Debug, Clone)]
pub struct StoredRows {
    location: Arc<Location>,
    dtype: Dtype,
    origin: Arc<Origin>,
    /// One for each hook wanted.
    hooks: Arc<[Hook]>,
    row_shapes: Vec<Vec<usize>>,
    /// The rows there are.
    rows: Rows,
    n_tokens: usize,
    /// Keeps the file while rows move.
    _session: Arc<Session>,
}

impl StoredRows {
    /// What computed them.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.origin.provenance
    }

    /// Makes `wanted`, which [`Capture::answer`] said these rows hold, of the hook at `hook` among those wanted: its values
    /// as the forward pass would have handed them out. For threads that may block.
    pub(crate) fn read(&self, blobs: &LocalBlobs, hook: usize, wanted: &Rows) -> Result<Vec<f32>, StoreError> {
        let lacking = || StoreError::Misuse("rows are copied that are not stored".to_owned());
        let places = self.rows.places(wanted).ok_or_else(lacking)?;
        let (site, shape) = match (self.hooks.get(hook), self.row_shapes.get(hook)) {
            (Some(hook), Some(shape)) => (hook.site(), shape),
            _ => return Err(lacking()),
        };
        let width: usize = shape.iter().product();
        // An attention map is [head, row, key], anything else [row, ...].
        let (outer, inner) = if site.is_attention_map() { (width, self.n_tokens) } else { (1, width) };
        let row = |o: usize, place: usize| (o * self.rows.len() + place) * inner;
        let runs = (0..outer).flat_map(|o| runs(&places).map(move |(first, n)| (row(o, first), n * inner)));
        let parts: Vec<_> = runs.map(|(start, len)| (hook, start..start + len)).collect();
        let bytes = blobs.read(self.location.pack(), &self.location.bytes(&parts)?)?;
        let values = self.dtype.decode(&bytes.concat());
        match (&self.rows, wanted) {
            (Rows::List(_), Rows::Mean(_)) => Ok(means(&values, outer, inner)),
            _ => Ok(values),
        }
    }
}

/// Runs of consecutive places, each as the first and their number.
fn runs(places: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    places.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run.len()))
}

/// The mean over the rows of `[outer, rows, inner]`, accumulated in float64 in their order, as a recorder takes it.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean is stored as float32")]
fn means(values: &[f32], outer: usize, inner: usize) -> Vec<f32> {
    let n_rows = values.len() / (outer * inner).max(1);
    let mean = |rows: &[f32]| {
        let mut sums = vec![0f64; inner];
        for row in rows.chunks_exact(inner) {
            sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        }
        sums.into_iter().map(|s| (s / n_rows as f64) as f32).collect::<Vec<f32>>()
    };
    values.chunks_exact((n_rows * inner).max(1)).flat_map(mean).collect()
}

impl SqliteIndex {
    /// For each of `wanted` what of the tenant's answers it, with the same forward key: the newest extent of an equal capture,
    /// else the newest with its rows, else the newest rows that hold its own.
    ///
    /// `session` was entered before the index is asked, so that the blobs that it names are kept.
    pub(crate) async fn find_reusable(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Reusable>>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: Vec<Option<Reusable>> = vec![None; wanted.len()];
        for (index, extent) in self.equal(tenant, wanted).await? {
            if let Some(found) = found.get_mut(index) {
                *found = Some(Reusable::Extent(extent));
            }
        }
        let (others, rest): (Vec<usize>, Vec<&Wanted>) =
            wanted.iter().enumerate().filter(|(index, _)| found[*index].is_none()).unzip();
        if !rest.is_empty() {
            // one snapshot, so that what rows refer to is there
            let mut reader = self.reader().await?;
            let mut snapshot = reader.snapshot().await?;
            let answers = self.covering(&mut snapshot, session, tenant, &rest).await?;
            drop(snapshot);
            reader.done();
            others.into_iter().zip(answers).for_each(|(index, answer)| found[index] = answer);
        }
        Ok(found)
    }

    /// The newest extents of captures equal to those wanted, each with the index of the one it answers. It takes as long
    /// for what was captured many times as for what was captured once.
    async fn equal(&self, tenant: TenantId, wanted: &[Wanted]) -> Result<Vec<(usize, ExtentId)>, StoreError> {
        let mut digests: Vec<(&Arc<[Hook]>, String)> = Vec::new();
        let mut kinds = Vec::with_capacity(wanted.len());
        for Wanted { forward_key, capture: Capture { hooks, positions, dtype }, n_tokens } in wanted {
            let at = match digests.iter().position(|(known, _)| *known == hooks) {
                Some(at) => at,
                None => {
                    digests.push((hooks, hex(intern::hook_set(hooks)?.1.as_bytes())));
                    digests.len() - 1
                }
            };
            kinds.push((hex(forward_key), digests[at].1.clone(), to_json(positions)?, dtype.name(), *n_tokens));
        }
        let query = sqlx::query(EQUAL).bind(to_json(&kinds)?).bind(tenant.0).bind(self.now());
        let rows = self.rows(query).await?;
        let fields = rows.iter().map(|row| Fields::of("extents", row));
        fields.map(|f| Ok((f.uint("wanted")?, ExtentId(f.get("id")?)))).collect()
    }

    /// For each of `wanted`, what answers it among captures of any kind.
    async fn covering(
        &self,
        snapshot: &mut SqliteConnection,
        session: &Arc<Session>,
        tenant: TenantId,
        wanted: &[&Wanted],
    ) -> Result<Vec<Option<Reusable>>, StoreError> {
        let mut found: Vec<Option<(i64, Reusable)>> = vec![None; wanted.len()];
        let rows = sqlx::query(
            "SELECT j.key AS wanted, max(e.id) AS id, p.layout_id, p.dtype, e.positions, e.n_tokens, e.n_rows, e.row_start, \
                 e.map_start, e.pack_id, e.provenance_id, p.data_start, p.n_rows AS pack_rows, p.n_map AS pack_map \
             FROM json_each(?) j \
             CROSS JOIN extents e ON e.id IN ( \
                     SELECT extent_id FROM forward_keys WHERE prefix = substr(unhex(j.value), 1, 6) \
                     UNION ALL SELECT extent_id FROM forward_keys_new WHERE prefix = substr(unhex(j.value), 1, 6)) \
                 AND e.forward_key = unhex(j.value) AND e.tenant_id = ? \
             CROSS JOIN packs p ON p.id = e.pack_id \
             WHERE EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = e.id AND (c.ends_at IS NULL OR c.ends_at > ?)) \
             GROUP BY j.key, p.layout_id, p.dtype, e.positions, e.n_tokens",
        )
        .bind(hex_list(wanted.iter().map(|w| w.forward_key.as_slice())))
        .bind(tenant.0)
        .bind(self.now())
        .fetch_all(&mut *snapshot)
        .await?;
        for row in &rows {
            let f = Fields::of("extents", row);
            let index: usize = f.uint("wanted")?;
            let Some(want) = wanted.get(index) else { continue };
            let layout = self.memo().layout(snapshot, f.get("layout_id")?).await?;
            let dtype: Dtype = f.read("dtype", |d: &str| d.parse().ok())?;
            let have = Capture { hooks: Arc::clone(&layout.hooks), positions: f.json("positions")?, dtype };
            if f.uint::<usize>("n_tokens")? != want.n_tokens {
                continue;
            }
            let Some(answer) = have.answer(&want.capture, want.n_tokens) else { continue };
            let id: i64 = f.get("id")?;
            // The query gives the newest of each kind; among kinds, one that needs no copy wins.
            let better = match (&found[index], answer) {
                (None, _) | (Some((_, Reusable::Rows(_))), Answer::AsStored) => true,
                (Some((_, Reusable::Extent(_))), Answer::Copied) => false,
                (Some((known, _)), _) => *known < id,
            };
            if better {
                let reusable = match answer {
                    Answer::AsStored => Reusable::Extent(ExtentId(id)),
                    Answer::Copied => {
                        let origin = self.memo().origin(snapshot, f.get("provenance_id")?).await?;
                        Reusable::Rows(rows_of(row, &layout, &have, want, (origin, Arc::clone(session)))?)
                    }
                };
                found[index] = Some((id, reusable));
            }
        }
        Ok(found.into_iter().map(|f| f.map(|(_, reusable)| reusable)).collect())
    }
}

/// The rows of the extent in `row`, of the hooks wanted.
fn rows_of(
    row: &SqliteRow,
    layout: &Layout,
    have: &Capture,
    want: &Wanted,
    (origin, session): (Arc<Origin>, Arc<Session>),
) -> Result<StoredRows, StoreError> {
    let (extent, pack) = (Fields::of("extents", row), Fields::of("packs", row));
    let (location, indices) = Location::new(&extent, &pack, layout, have.dtype, &want.capture.hooks)?;
    let rows = have.positions.resolve(want.n_tokens);
    Ok(StoredRows {
        location: Arc::new(location),
        dtype: have.dtype,
        origin,
        hooks: Arc::clone(&want.capture.hooks),
        row_shapes: indices.iter().map(|i| layout.row_shapes[*i].clone()).collect(),
        rows: rows.map_err(|p| StoreError::damaged(format!("table extents, column positions: {}", p.detail)))?,
        n_tokens: want.n_tokens,
        _session: session,
    })
}
