//! Comparisons of two vectors: in pairs, each with each, layer with layer.

use std::{collections::HashMap, sync::Arc};

use super::{
    ComparedCaches, ComparisonAnswer,
    comparing::{Comparing, append, holds, ids},
};
use crate::questions::{
    Chosen, Selector,
    row_reader::{RowReader, RowsOf},
};
use residuum_analysis::{MemoryRows, Prepared, RowSource, VectorMetric, pairwise::self_tables, rows::block_bytes};
use residuum_domain::{Code, Hook, Problem};
use residuum_store::StoreError;

/// Each of `a` with its counterpart in `b`.
///
/// # Errors
/// Those of [`Questions::comparison`](crate::questions::Questions::comparison).
pub async fn pairs(
    comparing: &Comparing<'_>,
    metrics: &[VectorMetric],
    a: &Selector,
    b: &Selector,
) -> Result<ComparisonAnswer, Problem> {
    let a = comparing.choose(a, "/a").await?;
    let b = comparing.choose(b, "/b").await?;
    let (once, mut places) = each_once(&[&a, &b]);
    let (b, a) = (places.pop().unwrap_or_default(), places.pop().unwrap_or_default());
    let (a, b) = broadcast(a, b)?;
    let hooks = comparing.hooks(&once)?;
    let shape = vec![hooks.len(), a.len()];
    comparing.fits(&shape)?;
    let mut values = vec![Vec::new(); metrics.len()];
    let RowsOf::Caches(position) = &comparing.question.rows else { return Err(one_vector_a_cache()) };
    for hook in &hooks {
        let width = reader(comparing, &once, *hook)?.width();
        // the vectors are held twice: as stored, and in float64
        holds(once.caches.len().saturating_mul(width).saturating_mul(16))?;
        let vectors = once.vectors(comparing.store(), *hook, position).await?;
        let (metrics, a, b, preparation) = (metrics.to_vec(), a.clone(), b.clone(), comparing.checked.preparation);
        let zip = move || {
            let Ok(rows) = Prepared::new(MemoryRows::new(&vectors), preparation);
            drop(vectors);
            let Ok(numbers) = rows.read(0..rows.n_rows());
            let views: Vec<&[f64]> = numbers.chunks_exact(rows.width().max(1)).collect();
            let side = |places: &[usize]| places.iter().map(|i| views[*i]).collect::<Vec<_>>();
            let (left, right) = (side(&a), side(&b));
            Ok(metrics.iter().map(|metric| metric.zip(&left, &right)).collect::<Vec<_>>())
        };
        append(&mut values, comparing.compute(zip).await?);
    }
    let id = |i: &usize| once.caches[*i].cache.id;
    let pairs = a.iter().zip(&b).map(|(a, b)| (id(a), id(b))).collect();
    Ok(comparing.answer(ComparedCaches::Pairs(pairs), hooks, shape, values))
}

/// Each of `caches` with each.
///
/// # Errors
/// Those of [`Questions::comparison`](crate::questions::Questions::comparison).
pub async fn matrix(
    comparing: &Comparing<'_>,
    metrics: &[VectorMetric],
    caches: &Selector,
) -> Result<ComparisonAnswer, Problem> {
    let caches = comparing.choose(caches, "/caches").await?;
    let (once, mut places) = each_once(&[&caches]);
    let places = Arc::new(places.pop().unwrap_or_default());
    let hooks = comparing.hooks(&once)?;
    let shape = vec![hooks.len(), places.len(), places.len()];
    comparing.fits(&shape)?;
    let mut values = vec![Vec::new(); metrics.len()];
    for hook in &hooks {
        let rows = reader(comparing, &once, *hook)?;
        holds(block_bytes(rows.width()).saturating_mul(2))?;
        let (metrics, places, preparation) = (metrics.to_vec(), Arc::clone(&places), comparing.checked.preparation);
        let every = move || {
            let rows = Prepared::new(rows, preparation)?;
            let tables = self_tables(&rows, &metrics)?;
            Ok(tables.into_iter().map(|table| spread(table, rows.n_rows(), &places)).collect::<Vec<_>>())
        };
        append(&mut values, comparing.compute(every).await?);
    }
    Ok(comparing.answer(ComparedCaches::Matrix(ids(&caches)), hooks, shape, values))
}

/// Each layer of one cache with each layer of another, or of itself.
///
/// # Errors
/// Those of [`Questions::comparison`](crate::questions::Questions::comparison).
pub async fn layers(
    comparing: &Comparing<'_>,
    metrics: &[VectorMetric],
    a: &Selector,
    b: Option<&Selector>,
) -> Result<ComparisonAnswer, Problem> {
    let a = only(comparing.choose(a, "/a").await?, "/a")?;
    let b = match b {
        Some(b) => only(comparing.choose(b, "/b").await?, "/b")?,
        None => a.clone(),
    };
    let (hooks_a, hooks_b) = (comparing.hooks(&a)?, comparing.hooks(&b)?);
    let shape = vec![hooks_a.len(), hooks_b.len()];
    comparing.fits(&shape)?;
    let side = |chosen: &Chosen, hooks: &[Hook]| -> Result<Vec<RowReader>, Problem> {
        hooks.iter().map(|hook| reader(comparing, chosen, *hook)).collect()
    };
    let (left, right) = (side(&a, &hooks_a)?, side(&b, &hooks_b)?);
    let width = left.first().map_or(0, RowSource::width);
    if let Some(other) = right.iter().chain(&left).find(|row| row.width() != width) {
        let detail = format!(
            "a has {width} values per layer and b has {}: these metrics compare vectors of one width; for models of different widths use cka, rsa or procrustes over sets of caches",
            other.width()
        );
        return Err(Problem::at(Code::ShapeMismatch, "/b", detail));
    }
    holds((left.len() + right.len()).saturating_mul(width).saturating_mul(12))?;
    let (metrics, preparation) = (metrics.to_vec(), comparing.checked.preparation);
    let tables = move || {
        let read = |side: Vec<RowReader>| -> Result<Vec<Vec<f64>>, StoreError> {
            side.into_iter().map(|row| Prepared::new(row, preparation)?.read(0..1)).collect()
        };
        let (left, right) = (read(left)?, read(right)?);
        let left: Vec<&[f64]> = left.iter().map(Vec::as_slice).collect();
        let right: Vec<&[f64]> = right.iter().map(Vec::as_slice).collect();
        Ok(metrics.iter().map(|metric| metric.table(&left, &right)).collect::<Vec<_>>())
    };
    let values = comparing.compute(tables).await?;
    let sides = ComparedCaches::Layers { a: ids(&a), b: ids(&b), hooks_b };
    Ok(comparing.answer(sides, hooks_a, shape, values))
}

fn one_vector_a_cache() -> Problem {
    Problem::at(Code::InvalidValue, "/rows", "metrics of vectors compare one position; leave rows out")
}

/// The rows `[caches, width]` at one hook; refuses a `k` above their width.
fn reader(comparing: &Comparing<'_>, chosen: &Chosen, hook: Hook) -> Result<RowReader, Problem> {
    let rows = chosen.rows(comparing.store(), hook, &comparing.question.rows)?;
    match comparing.checked.k {
        Some(k) if k > rows.width() => {
            let detail = format!("k is {k}, and {hook} has {} values", rows.width());
            Err(Problem::at(Code::InvalidValue, "/k", detail))
        }
        _ => Ok(rows),
    }
}

/// Refuses more than one cache.
fn only(chosen: Chosen, pointer: &str) -> Result<Chosen, Problem> {
    if chosen.caches.len() == 1 {
        return Ok(chosen);
    }
    let detail = format!(
        "these metrics compare the layers of one cache with those of one; {} are selected. For sets of caches use cka, cka_debiased, rsa or procrustes",
        chosen.caches.len()
    );
    Err(Problem::at(Code::InvalidValue, pointer, detail))
}

/// The caches of all lists without repeats, and for each list the indices of its caches among them.
fn each_once(lists: &[&Chosen]) -> (Chosen, Vec<Vec<usize>>) {
    let mut once = Chosen { caches: Vec::new(), pointers: Vec::new() };
    let mut known = HashMap::new();
    let mut place = |chosen: &Chosen, i: usize| {
        *known.entry(chosen.caches[i].cache.id).or_insert_with(|| {
            once.caches.push(Arc::clone(&chosen.caches[i]));
            once.pointers.push(chosen.pointers[i].clone());
            once.caches.len() - 1
        })
    };
    let places = lists.iter().map(|list| (0..list.caches.len()).map(|i| place(list, i)).collect()).collect();
    (once, places)
}

/// The rows and columns with the indices `places` of a table `[n, n]`: `[places, places]`, row-major.
fn spread(table: Vec<f64>, n: usize, places: &[usize]) -> Vec<f64> {
    if places.len() == n {
        return table;
    }
    places.iter().flat_map(|i| places.iter().map(|j| table[i * n + j]).collect::<Vec<_>>()).collect()
}

/// If one side has one cache, repeats it for each cache of the other side.
fn broadcast(mut a: Vec<usize>, mut b: Vec<usize>) -> Result<(Vec<usize>, Vec<usize>), Problem> {
    match (a.len(), b.len()) {
        (n, m) if n == m => {}
        (1, m) => a = vec![a[0]; m],
        (n, 1) => b = vec![b[0]; n],
        (n, m) => {
            let detail = format!("a has {n} caches and b {m}: give lists of one length, or one cache on one side");
            return Err(Problem::at(Code::InvalidValue, "/b", detail));
        }
    }
    Ok((a, b))
}
