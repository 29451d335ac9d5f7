//! Comparisons of one vector with one: pairs, each with each, layer with layer.

use std::{collections::HashMap, sync::Arc};

use super::{
    Context, Outcome,
    answer::{Grid, Subject},
    holds, layers_of, site,
};
use residuum_analysis::{MemoryRows, Prepared, RowSource, VectorMetric, pairwise::self_tables, rows::block_bytes};
use residuum_domain::{Code, Hook, Problem};
use residuum_engine::questions::{
    Chosen,
    row_reader::{RowReader, RowsOf},
};
use residuum_store::StoreError;

/// Each of `a` with its counterpart in `b`.
///
/// # Errors
/// Those of the route.
pub async fn pairs(context: &Context<'_>, metrics: &[VectorMetric]) -> Result<Outcome, Problem> {
    let a = context.choose(context.request.a.as_ref(), "/a").await?;
    let b = context.choose(context.request.b.as_ref(), "/b").await?;
    let (once, mut places) = each_once(&[&a, &b]);
    let (b, a) = (places.pop().unwrap_or_default(), places.pop().unwrap_or_default());
    let (a, b) = broadcast(a, b)?;
    let hooks = hooks_of(context, &once)?;
    context.fits(&[hooks.len(), a.len()])?;
    let mut grids = Grid::empty(metrics.len(), vec![hooks.len(), a.len()]);
    let RowsOf::Caches(position) = &context.asked.rows else { return Err(one_vector_a_cache()) };
    for hook in &hooks {
        let width = reader(context, &once, *hook)?.width();
        // the vectors as stored, together, and in float64
        holds(once.caches.len().saturating_mul(width).saturating_mul(16))?;
        let vectors = once.vectors(context.store(), *hook, position).await?;
        let (metrics, a, b, preparation) = (metrics.to_vec(), a.clone(), b.clone(), context.asked.preparation);
        let zip = move || {
            let Ok(rows) = Prepared::new(MemoryRows::new(&vectors), preparation);
            drop(vectors);
            let Ok(values) = rows.read(0..rows.n_rows());
            let views: Vec<&[f64]> = values.chunks_exact(rows.width().max(1)).collect();
            let side = |places: &[usize]| places.iter().map(|i| views[*i]).collect::<Vec<_>>();
            let (left, right) = (side(&a), side(&b));
            Ok(metrics.iter().map(|metric| metric.zip(&left, &right)).collect::<Vec<_>>())
        };
        Grid::append(&mut grids, context.compute(zip).await?);
    }
    let id = |i: &usize| once.caches[*i].cache.id.to_string();
    let pairs = a.iter().zip(&b).map(|(a, b)| (id(a), id(b))).collect();
    Ok(Outcome { subject: Subject::Pairs(pairs), hook: site(&hooks), layers: layers_of(&hooks), grids })
}

/// Each of `caches` with each.
///
/// # Errors
/// Those of the route.
pub async fn matrix(context: &Context<'_>, metrics: &[VectorMetric]) -> Result<Outcome, Problem> {
    let caches = context.choose(context.request.caches.as_ref(), "/caches").await?;
    let (once, mut places) = each_once(&[&caches]);
    let places = Arc::new(places.pop().unwrap_or_default());
    let hooks = hooks_of(context, &once)?;
    let n = places.len();
    context.fits(&[hooks.len(), n, n])?;
    let mut grids = Grid::empty(metrics.len(), vec![hooks.len(), n, n]);
    for hook in &hooks {
        let rows = reader(context, &once, *hook)?;
        holds(block_bytes(rows.width()).saturating_mul(2))?;
        let (metrics, places, preparation) = (metrics.to_vec(), Arc::clone(&places), context.asked.preparation);
        let every = move || {
            let rows = Prepared::new(rows, preparation)?;
            let tables = self_tables(&rows, &metrics)?;
            Ok(tables.into_iter().map(|table| spread(table, rows.n_rows(), &places)).collect::<Vec<_>>())
        };
        Grid::append(&mut grids, context.compute(every).await?);
    }
    let ids = caches.caches.iter().map(|c| c.cache.id.to_string()).collect();
    Ok(Outcome { subject: Subject::Caches(ids), hook: site(&hooks), layers: layers_of(&hooks), grids })
}

/// Each layer of one cache with each layer of another, or of itself.
///
/// # Errors
/// Those of the route.
pub async fn layers(context: &Context<'_>, metrics: &[VectorMetric]) -> Result<Outcome, Problem> {
    let a = only(context.choose(context.request.a.as_ref(), "/a").await?, "/a")?;
    let b = match &context.request.b {
        Some(b) => only(context.choose(Some(b), "/b").await?, "/b")?,
        None => a.clone(),
    };
    let (hooks_a, hooks_b) = (hooks_of(context, &a)?, hooks_of(context, &b)?);
    context.fits(&[hooks_a.len(), hooks_b.len()])?;
    let side = |chosen: &Chosen, hooks: &[Hook]| -> Result<Vec<RowReader>, Problem> {
        hooks.iter().map(|hook| reader(context, chosen, *hook)).collect()
    };
    let (left, right) = (side(&a, &hooks_a)?, side(&b, &hooks_b)?);
    let width = left.first().map_or(0, RowSource::width);
    if let Some(other) = right.iter().chain(&left).find(|row| row.width() != width) {
        let detail = format!(
            "a has {width} values a layer and b {}: these metrics compare vectors of one width; between models of different widths ask for cka, rsa or procrustes over sets of caches",
            other.width()
        );
        return Err(Problem::at(Code::ShapeMismatch, "/b", detail));
    }
    holds((left.len() + right.len()).saturating_mul(width).saturating_mul(12))?;
    let (metrics, preparation) = (metrics.to_vec(), context.asked.preparation);
    let tables = move || {
        let read = |side: Vec<RowReader>| -> Result<Vec<Vec<f64>>, StoreError> {
            side.into_iter().map(|row| Prepared::new(row, preparation)?.read(0..1)).collect()
        };
        let (left, right) = (read(left)?, read(right)?);
        let left: Vec<&[f64]> = left.iter().map(Vec::as_slice).collect();
        let right: Vec<&[f64]> = right.iter().map(Vec::as_slice).collect();
        Ok(metrics.iter().map(|metric| metric.table(&left, &right)).collect::<Vec<_>>())
    };
    let mut grids = Grid::empty(context.asked.names.len(), vec![hooks_a.len(), hooks_b.len()]);
    Grid::append(&mut grids, context.compute(tables).await?);
    let subject = Subject::Layers { a: ids(&a), b: ids(&b), layers_b: layers_of(&hooks_b) };
    Ok(Outcome { subject, hook: site(&hooks_a), layers: layers_of(&hooks_a), grids })
}

fn ids(chosen: &Chosen) -> Vec<String> {
    chosen.caches.iter().map(|c| c.cache.id.to_string()).collect()
}

fn one_vector_a_cache() -> Problem {
    Problem::at(Code::InvalidValue, "/rows", "metrics of vectors compare one position; leave rows out")
}

fn hooks_of(context: &Context<'_>, chosen: &Chosen) -> Result<Vec<Hook>, Problem> {
    chosen.hooks(&context.request.hook, &context.request.layers)
}

/// One row a cache; refuses a `k` that the rows have not room for.
fn reader(context: &Context<'_>, chosen: &Chosen, hook: Hook) -> Result<RowReader, Problem> {
    let rows = chosen.rows(context.store(), hook, &context.asked.rows)?;
    match context.asked.k {
        Some(k) if k > rows.width() => {
            let detail = format!("k is {k}, and {hook} has {} values", rows.width());
            Err(Problem::at(Code::InvalidValue, "/k", detail))
        }
        _ => Ok(rows),
    }
}

fn only(chosen: Chosen, pointer: &str) -> Result<Chosen, Problem> {
    if chosen.caches.len() == 1 {
        return Ok(chosen);
    }
    let detail = format!(
        "these metrics compare the layers of one cache with those of one; {} are chosen. For sets of caches ask for cka, cka_debiased, rsa or procrustes",
        chosen.caches.len()
    );
    Err(Problem::at(Code::InvalidValue, pointer, detail))
}

/// The caches of all lists, each once, and the places of each list's caches among them.
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

/// A table `[n, n]` as one of the rows and columns at `places`.
fn spread(table: Vec<f64>, n: usize, places: &[usize]) -> Vec<f64> {
    if places.len() == n {
        return table;
    }
    places.iter().flat_map(|i| places.iter().map(|j| table[i * n + j]).collect::<Vec<_>>()).collect()
}

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
