//! Making a plan from the index: one row of SQL for each pack, however many caches it holds.

use std::{collections::HashSet, sync::Arc};

use sqlx::QueryBuilder;

use super::{PackRows, Piece, ScanPlan, Take, Window};
use crate::{
    blobs::epoch::Session,
    error::StoreError,
    find::{described::JOINED, search::Search},
    index::{
        SqliteIndex,
        intern::Layout,
        rows::{Fields, pack_id},
    },
    packs::location::PackDims,
};
use residuum_domain::{CacheFilter, CacheId, Dtype, Hook, ItemSpan, Positions, Rows, TenantId};

/// Bytes read at once: enough to hide the cost of a read, few enough for the L2 cache.
const WINDOW: usize = 256 << 10;
/// A gap of so many bytes between two pieces is read along, since that is cheaper than another read.
const GAP: u64 = 16 << 10;

/// Asks the index.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::Damaged`].
pub(super) async fn build(
    index: &SqliteIndex,
    session: Arc<Session>,
    tenant: TenantId,
    filter: &CacheFilter,
    hook: Hook,
    take: &Take,
) -> Result<ScanPlan, StoreError> {
    let mut query = QueryBuilder::new(
        "SELECT e.pack_id, p.layout_id, p.dtype, p.data_start, p.n_rows AS pack_rows, p.n_map AS pack_map, \
             group_concat(hex(c.id) || ' ' || e.row_start || ' ' || e.n_rows || ' ' || e.n_tokens || ' ' || c.positions, \
                 char(10)) AS lines",
    );
    let mut reader = index.reader().await?;
    let mut snapshot = reader.snapshot().await?;
    let now = index.now();
    let search = Search::new(&mut snapshot, tenant, filter, None, now).await?;
    search.push_found(&mut query, &format!(" CROSS JOIN caches c ON c.created_at = d.at{JOINED}"));
    query.push(" GROUP BY e.pack_id");
    let until: Option<i64> = sqlx::query_scalar("SELECT min(ends_at) FROM caches WHERE ends_at > ?")
        .bind(now)
        .fetch_one(&mut *snapshot)
        .await?;
    let rows = query.build().persistent(false).fetch_all(&mut *snapshot).await?;
    let mut plan = ScanPlan {
        packs: vec![],
        pieces: vec![],
        windows: vec![],
        n_caches: 0,
        n_skipped: 0,
        until,
        _session: session,
    };
    for row in &rows {
        let f = Fields::of("packs", row);
        let layout = index.memo().layout(&mut snapshot, f.get("layout_id")?).await?;
        add_pack(&mut plan, &f, &layout, hook, take)?;
    }
    Ok(plan)
}

fn add_pack(plan: &mut ScanPlan, f: &Fields<'_>, layout: &Layout, hook: Hook, take: &Take) -> Result<(), StoreError> {
    let id = pack_id(f, "pack_id")?;
    let damaged = |why: &str| StoreError::damaged(format!("an extent of pack {id} {why}"));
    let place = layout.hooks.binary_search(&hook).map_err(|_| damaged("lacks a hook of a cache"))?;
    let dtype: Dtype = f.read("dtype", |d: &str| d.parse().ok())?;
    let pack = PackRows { id, dtype, width: layout.row_shapes[place].iter().product() };
    let dims = PackDims { n_rows: f.uint("pack_rows")?, n_map: f.uint("pack_map")? };
    let front = ItemSpan { n_tokens: 0, n_rows: 0, row_start: 0, map_start: 0 };
    let begin = f.uint::<u64>("data_start")? + dims.tensors(layout, dtype, &front)[place].0;
    let first_piece = plan.pieces.len();
    for line in f.get::<&str>("lines")?.lines() {
        let line = Line::parse(line).ok_or_else(|| damaged("has a cache whose row cannot be read"))?;
        if line.row_start + line.n_rows as usize > dims.n_rows {
            return Err(damaged("leaves its pack"));
        }
        let rows = line.positions.resolve(line.n_tokens).map_err(|_| damaged("has other tokens than its cache"))?;
        if rows.len() != line.n_rows as usize {
            return Err(damaged("has other rows than its cache"));
        }
        let before = plan.pieces.len();
        for (row, n_rows, position) in runs(&rows, take, line.n_tokens) {
            let offset = begin + ((line.row_start + row) * pack.row_bytes()) as u64;
            let piece = Piece { cache: line.cache, position, offset, n_rows };
            push_split(&mut plan.pieces, piece, pack.row_bytes());
        }
        if plan.pieces.len() > before { plan.n_caches += 1 } else { plan.n_skipped += 1 }
    }
    plan.pieces[first_piece..].sort_unstable_by_key(|p| (p.offset, p.cache));
    add_windows(plan, first_piece, &pack);
    if plan.pieces.len() > first_piece {
        plan.packs.push(pack);
    }
    Ok(())
}

/// A cache as the query writes it.
struct Line {
    cache: CacheId,
    row_start: usize,
    n_rows: u32,
    n_tokens: usize,
    positions: Positions,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let id = u128::from_str_radix(words.next()?, 16).ok()?;
        Some(Self {
            cache: CacheId::from_slice(&id.to_be_bytes())?,
            row_start: words.next()?.parse().ok()?,
            n_rows: words.next()?.parse().ok()?,
            n_tokens: words.next()?.parse().ok()?,
            positions: serde_json::from_str(words.next()?).ok()?,
        })
    }
}

/// The rows that are taken, as runs of consecutive positions: first row, rows, first position. A position that was
/// captured twice is taken once.
fn runs(rows: &Rows, take: &Take, n_tokens: usize) -> Vec<(usize, u32, Option<u32>)> {
    match (rows, take) {
        (Rows::Mean(_), Take::One(None)) => vec![(0, 1, None)],
        (Rows::Mean(_), Take::One(Some(wanted))) if wanted.resolve(n_tokens).as_ref() == Ok(rows) => vec![(0, 1, None)],
        (Rows::Mean(_), Take::One(_) | Take::Positions) => vec![],
        (Rows::List(list), Take::Positions) => runs_of(list),
        (Rows::List(list), Take::One(wanted)) => {
            let position = match wanted {
                None if list.len() == 1 => list.first().copied(),
                None => one_position(&Positions::Last, n_tokens),
                Some(position) => one_position(position, n_tokens),
            };
            let row = position.and_then(|p| list.iter().position(|have| *have == p));
            row.map(|row| (row, 1, position)).into_iter().collect()
        }
    }
}

/// The one position that is meant, if the input has it.
fn one_position(positions: &Positions, n_tokens: usize) -> Option<u32> {
    match positions.resolve(n_tokens) {
        Ok(Rows::List(list)) if list.len() == 1 => list.first().copied(),
        _ => None,
    }
}

fn runs_of(list: &[u32]) -> Vec<(usize, u32, Option<u32>)> {
    let mut runs: Vec<(usize, u32, Option<u32>)> = Vec::new();
    // most captures are of one row or of all in order, which repeat nothing
    let mut seen = (!list.is_sorted_by(|a, b| a < b)).then(HashSet::new);
    for (row, position) in list.iter().enumerate() {
        if seen.as_mut().is_some_and(|seen| !seen.insert(*position)) {
            continue;
        }
        match runs.last_mut() {
            Some((first, n, Some(begin))) if *first + *n as usize == row && *begin + *n == *position => *n += 1,
            _ => runs.push((row, 1, Some(*position))),
        }
    }
    runs
}

/// Adds a piece in parts that fit a window.
fn push_split(pieces: &mut Vec<Piece>, piece: Piece, row_bytes: usize) {
    let most = u32::try_from(WINDOW / row_bytes.max(1)).unwrap_or(u32::MAX).max(1);
    let mut done = 0;
    while done < piece.n_rows {
        let n_rows = most.min(piece.n_rows - done);
        let offset = piece.offset + u64::from(done) * row_bytes as u64;
        pieces.push(Piece { position: piece.position.map(|p| p + done), offset, n_rows, ..piece });
        done += n_rows;
    }
}

/// Groups the pieces from `first` on, which are those of `pack`.
fn add_windows(plan: &mut ScanPlan, first: usize, pack: &PackRows) {
    let mut open: Option<Window> = None;
    for (i, piece) in plan.pieces.iter().enumerate().skip(first) {
        let end = piece.offset + u64::from(piece.n_rows) * pack.row_bytes() as u64;
        if let Some(window) = &mut open {
            let reach = window.start + window.len as u64;
            let len = end.max(reach) - window.start;
            if piece.offset <= reach + GAP && len <= WINDOW as u64 {
                // at most WINDOW
                window.len = len as usize;
                window.pieces.end = i + 1;
                continue;
            }
        }
        let len = piece.n_rows as usize * pack.row_bytes();
        let next = Window { pack: plan.packs.len(), start: piece.offset, len, pieces: i..i + 1 };
        plan.windows.extend(open.replace(next));
    }
    plan.windows.extend(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_runs_of_positions() {
        assert_eq!(runs_of(&[0, 1, 2]), [(0, 3, Some(0))]);
        assert_eq!(runs_of(&[4, 0, 1, 4, 2]), [(0, 1, Some(4)), (1, 2, Some(0)), (4, 1, Some(2))]);
        let list = Rows::List(vec![2, 3]);
        let one = |p| runs(&list, &Take::One(p), 4);
        assert_eq!(one(None), [(1, 1, Some(3))]);
        assert_eq!(one(Some(Positions::One(-2))), [(0, 1, Some(2))]);
        assert_eq!(one(Some(Positions::One(0))), []);
        assert_eq!(one(Some(Positions::One(9))), []);
        assert_eq!(one(Some(Positions::Mean)), []);
        assert_eq!(runs(&Rows::Mean(vec![0, 1, 2, 3]), &Take::One(None), 4), [(0, 1, None)]);
        assert_eq!(runs(&Rows::Mean(vec![0, 1, 2, 3]), &Take::Positions, 4), []);
        assert_eq!(runs(&Rows::List(vec![1]), &Take::One(None), 4), [(0, 1, Some(1))]);
    }
}
