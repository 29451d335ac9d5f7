//! Comparisons of sets of rows: groups of caches at each layer, or two groups layer by layer.

use std::collections::BTreeMap;

use super::{
    ComparedCaches, ComparedGroup, ComparisonAnswer,
    comparing::{Comparing, append, holds, ids},
    group_pointer,
};
use crate::questions::{Chosen, Selector, row_reader::RowReader};
use residuum_analysis::{Prepared, RowSource, SetMetric, sets::bytes, sets::tables};
use residuum_domain::{Code, Hook, Problem};
use residuum_store::StoreError;

/// Each group with each, at each layer.
///
/// # Errors
/// Those of [`Questions::comparison`](crate::questions::Questions::comparison).
pub async fn sets(
    comparing: &Comparing<'_>,
    metrics: &[SetMetric],
    groups: &BTreeMap<String, Selector>,
) -> Result<ComparisonAnswer, Problem> {
    let mut members = Vec::with_capacity(groups.len());
    for (name, selector) in groups {
        members.push(Group::choose(comparing, selector, name.clone(), group_pointer(name)).await?);
    }
    let hooks = shared_hooks(comparing, members.iter().map(|g| &g.chosen))?;
    let shape = vec![hooks.len(), members.len(), members.len()];
    comparing.fits(&shape)?;
    let mut values = vec![Vec::new(); metrics.len()];
    let mut n_rows = Vec::new();
    for hook in &hooks {
        let sides: Vec<RowReader> = members.iter().map(|g| g.rows(comparing, *hook)).collect::<Result<_, _>>()?;
        check(&members, &sides, metrics)?;
        n_rows = sides.iter().map(RowSource::n_rows).collect();
        let (metrics, preparation) = (metrics.to_vec(), comparing.checked.preparation);
        let work = move || {
            let ready: Vec<_> =
                sides.into_iter().map(|rows| Prepared::new(rows, preparation)).collect::<Result<_, _>>()?;
            tables(&ready, None, &metrics)
        };
        append(&mut values, comparing.compute(work).await?);
    }
    let groups = members.into_iter().zip(n_rows).map(|(group, n_rows)| group.compared(n_rows)).collect();
    Ok(comparing.answer(ComparedCaches::Sets(groups), hooks, shape, values))
}

/// Each layer of one set of caches with each layer of another, or of itself.
///
/// # Errors
/// Those of [`Questions::comparison`](crate::questions::Questions::comparison).
pub async fn layers(
    comparing: &Comparing<'_>,
    metrics: &[SetMetric],
    a: &Selector,
    b: Option<&Selector>,
) -> Result<ComparisonAnswer, Problem> {
    let a = Group::choose(comparing, a, "a".to_owned(), "/a".to_owned()).await?;
    let b = match b {
        Some(b) => Some(Group::choose(comparing, b, "b".to_owned(), "/b".to_owned()).await?),
        None => None,
    };
    let hooks_a = shared_hooks(comparing, [&a.chosen])?;
    let hooks_b = b.as_ref().map_or_else(|| Ok(hooks_a.clone()), |b| shared_hooks(comparing, [&b.chosen]))?;
    let shape = vec![hooks_a.len(), hooks_b.len()];
    comparing.fits(&shape)?;
    let rows = |group: &Group, hooks: &[Hook]| -> Result<Vec<RowReader>, Problem> {
        hooks.iter().map(|hook| group.rows(comparing, *hook)).collect()
    };
    let left = rows(&a, &hooks_a)?;
    let right = b.as_ref().map(|b| rows(b, &hooks_b)).transpose()?;
    match (&b, &right) {
        (Some(b), Some(right)) => {
            enough_rows(&a, &left[0], metrics)?;
            enough_rows(b, &right[0], metrics)?;
            same_rows(&a, &left[0], b, &right[0])?;
        }
        _ => enough_rows(&a, &left[0], metrics)?,
    }
    let shapes: Vec<_> = left.iter().chain(right.iter().flatten()).map(|r| (r.n_rows(), r.width())).collect();
    holds(bytes(&shapes, metrics))?;
    let (work_metrics, preparation) = (metrics.to_vec(), comparing.checked.preparation);
    let work = move || {
        let ready = |side: Vec<RowReader>| -> Result<Vec<Prepared<RowReader>>, StoreError> {
            side.into_iter().map(|rows| Prepared::new(rows, preparation)).collect()
        };
        let (left, right) = (ready(left)?, right.map(ready).transpose()?);
        tables(&left, right.as_deref(), &work_metrics)
    };
    let values = comparing.compute(work).await?;
    let ids_a = ids(&a.chosen);
    let ids_b = b.map_or_else(|| ids_a.clone(), |b| ids(&b.chosen));
    let sides = ComparedCaches::Layers { a: ids_a, b: ids_b, hooks_b };
    Ok(comparing.answer(sides, hooks_a, shape, values))
}

/// Caches whose rows form one set.
struct Group {
    name: String,
    pointer: String,
    chosen: Chosen,
}

impl Group {
    async fn choose(
        comparing: &Comparing<'_>,
        selector: &Selector,
        name: String,
        pointer: String,
    ) -> Result<Self, Problem> {
        Ok(Self { chosen: comparing.choose(selector, &pointer).await?, name, pointer })
    }

    fn rows(&self, comparing: &Comparing<'_>, hook: Hook) -> Result<RowReader, Problem> {
        self.chosen.rows(comparing.store(), hook, &comparing.question.rows)
    }

    fn compared(self, n_rows: usize) -> ComparedGroup {
        ComparedGroup { caches: ids(&self.chosen), name: self.name, n_rows }
    }
}

/// The hooks of the question, in the caches of all groups. Refuses hooks that hold indices.
fn shared_hooks<'a>(
    comparing: &Comparing<'_>,
    groups: impl IntoIterator<Item = &'a Chosen>,
) -> Result<Vec<Hook>, Problem> {
    let mut all = Chosen { caches: Vec::new(), pointers: Vec::new() };
    for chosen in groups {
        all.caches.extend(chosen.caches.iter().cloned());
        all.pointers.extend(chosen.pointers.iter().cloned());
    }
    let hooks = comparing.hooks(&all)?;
    match hooks.iter().find(|h| h.site().is_index()) {
        Some(hook) => {
            Err(Problem::at(Code::InvalidValue, "/hook", format!("{hook} holds indices, which cannot be compared")))
        }
        None => Ok(hooks),
    }
}

/// Refuses sets at one layer that these metrics cannot compare, or that would take more memory than a comparison may.
fn check(groups: &[Group], sides: &[RowReader], metrics: &[SetMetric]) -> Result<(), Problem> {
    let (Some(first), Some(side)) = (groups.first(), sides.first()) else { return Ok(()) };
    for (group, rows) in groups.iter().zip(sides) {
        enough_rows(group, rows, metrics)?;
        if metrics.iter().any(|m| m.is_aligned()) {
            same_rows(first, side, group, rows)?;
        }
        if metrics.iter().any(|m| !m.is_aligned()) && rows.width() != side.width() {
            let detail = format!(
                "the rows of {} have {} values and those of {} {}: means must have the same width",
                group.name,
                rows.width(),
                first.name,
                side.width()
            );
            return Err(Problem::at(Code::ShapeMismatch, &group.pointer, detail));
        }
    }
    let shapes: Vec<_> = sides.iter().map(|r| (r.n_rows(), r.width())).collect();
    holds(bytes(&shapes, metrics))
}

/// Refuses fewer rows than these metrics need.
fn enough_rows(group: &Group, rows: &RowReader, metrics: &[SetMetric]) -> Result<(), Problem> {
    // a single row has no spread, but the other group may have one; effect_size is then defined
    let needed = metrics.iter().filter(|m| m.is_aligned()).map(|m| m.min_rows()).max().unwrap_or(1);
    if rows.n_rows() >= needed {
        return Ok(());
    }
    let detail = format!("{} has {} rows; these metrics need at least {needed}", group.name, rows.n_rows());
    Err(Problem::at(Code::ShapeMismatch, &group.pointer, detail))
}

/// Row i of one set must correspond to row i of the other. Refuses sets if the numbers of rows show that they do not,
/// in total or cache by cache.
fn same_rows(a: &Group, left: &RowReader, b: &Group, right: &RowReader) -> Result<(), Problem> {
    let why = if left.n_rows() != right.n_rows() {
        format!("{} has {} rows and {} {}", a.name, left.n_rows(), b.name, right.n_rows())
    } else if left.counts().ne(right.counts()) && left.counts().count() == right.counts().count() {
        format!("the caches of {} and {} differ in their positions", a.name, b.name)
    } else {
        return Ok(());
    };
    let detail = format!(
        "{why}: row i of one set is compared with row i of the other, so they need the same rows in the same order"
    );
    Err(Problem::at(Code::ShapeMismatch, &b.pointer, detail))
}
