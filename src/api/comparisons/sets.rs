//! Comparisons of sets of rows: groups of caches at each layer, or two groups layer by layer.

use super::{
    Context, Outcome,
    answer::{Grid, GroupDto, Subject},
    holds, layers_of, site,
};
use residuum_analysis::{Prepared, RowSource, SetMetric, sets::bytes, sets::tables};
use residuum_domain::{Code, Hook, Problem};
use residuum_engine::questions::{Chosen, row_reader::RowReader};
use residuum_store::StoreError;

/// Each group with each, at each layer.
///
/// # Errors
/// Those of the route.
pub async fn sets(context: &Context<'_>, metrics: &[SetMetric]) -> Result<Outcome, Problem> {
    let groups = context.request.groups.as_ref();
    let groups = groups.ok_or_else(|| {
        Problem::at(Code::InvalidBody, "/groups", "this mode needs groups: names with the caches of each")
    })?;
    let mut members = Vec::with_capacity(groups.len());
    for (name, selector) in groups {
        let pointer = format!("/groups/{}", name.replace('~', "~0").replace('/', "~1"));
        members.push(Group { chosen: context.choose(Some(selector), &pointer).await?, pointer, name: name.clone() });
    }
    let hooks = shared_hooks(context, members.iter().map(|g| &g.chosen))?;
    let n = members.len();
    context.fits(&[hooks.len(), n, n])?;
    let mut grids = Grid::empty(metrics.len(), vec![hooks.len(), n, n]);
    let mut n_rows = Vec::new();
    for hook in &hooks {
        let sides: Vec<RowReader> = members.iter().map(|g| g.rows(context, *hook)).collect::<Result<_, _>>()?;
        check(&members, &sides, metrics)?;
        n_rows = sides.iter().map(RowSource::n_rows).collect();
        let (metrics, preparation) = (metrics.to_vec(), context.asked.preparation);
        let work = move || {
            let ready: Vec<_> =
                sides.into_iter().map(|rows| Prepared::new(rows, preparation)).collect::<Result<_, _>>()?;
            tables(&ready, None, &metrics)
        };
        Grid::append(&mut grids, context.compute(work).await?);
    }
    let groups = members.iter().zip(n_rows).map(|(group, n_rows)| group.dto(n_rows)).collect();
    Ok(Outcome { subject: Subject::Groups(groups), hook: site(&hooks), layers: layers_of(&hooks), grids })
}

/// Each layer of one set of caches with each layer of another, or of itself.
///
/// # Errors
/// Those of the route.
pub async fn layers(context: &Context<'_>, metrics: &[SetMetric]) -> Result<Outcome, Problem> {
    let side = async |selector, pointer: &str| -> Result<Group, Problem> {
        let chosen = context.choose(selector, pointer).await?;
        Ok(Group { chosen, pointer: pointer.to_owned(), name: pointer.trim_start_matches('/').to_owned() })
    };
    let a = side(context.request.a.as_ref(), "/a").await?;
    let b = match &context.request.b {
        Some(b) => Some(side(Some(b), "/b").await?),
        None => None,
    };
    let hooks_a = shared_hooks(context, [&a.chosen])?;
    let hooks_b = b.as_ref().map_or_else(|| Ok(hooks_a.clone()), |b| shared_hooks(context, [&b.chosen]))?;
    context.fits(&[hooks_a.len(), hooks_b.len()])?;
    let rows = |group: &Group, hooks: &[Hook]| -> Result<Vec<RowReader>, Problem> {
        hooks.iter().map(|hook| group.rows(context, *hook)).collect()
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
    let (work_metrics, preparation) = (metrics.to_vec(), context.asked.preparation);
    let work = move || {
        let ready = |side: Vec<RowReader>| -> Result<Vec<Prepared<RowReader>>, StoreError> {
            side.into_iter().map(|rows| Prepared::new(rows, preparation)).collect()
        };
        let (left, right) = (ready(left)?, right.map(ready).transpose()?);
        tables(&left, right.as_deref(), &work_metrics)
    };
    let mut grids = Grid::empty(metrics.len(), vec![hooks_a.len(), hooks_b.len()]);
    Grid::append(&mut grids, context.compute(work).await?);
    let ids_b = b.as_ref().map_or_else(|| a.ids(), Group::ids);
    let subject = Subject::Layers { a: a.ids(), b: ids_b, layers_b: layers_of(&hooks_b) };
    Ok(Outcome { subject, hook: site(&hooks_a), layers: layers_of(&hooks_a), grids })
}

/// Caches whose rows make one set.
struct Group {
    name: String,
    pointer: String,
    chosen: Chosen,
}

impl Group {
    fn rows(&self, context: &Context<'_>, hook: Hook) -> Result<RowReader, Problem> {
        self.chosen.rows(context.store(), hook, &context.asked.rows)
    }

    fn ids(&self) -> Vec<String> {
        self.chosen.caches.iter().map(|c| c.cache.id.to_string()).collect()
    }

    fn dto(&self, n_rows: usize) -> GroupDto {
        GroupDto { name: self.name.clone(), n_rows, caches: self.ids() }
    }
}

fn shared_hooks<'a>(context: &Context<'_>, groups: impl IntoIterator<Item = &'a Chosen>) -> Result<Vec<Hook>, Problem> {
    let mut all = Chosen { caches: Vec::new(), pointers: Vec::new() };
    for chosen in groups {
        all.caches.extend(chosen.caches.iter().cloned());
        all.pointers.extend(chosen.pointers.iter().cloned());
    }
    let hooks = all.hooks(&context.request.hook, &context.request.layers)?;
    match hooks.iter().find(|h| h.site().is_index()) {
        Some(hook) => {
            Err(Problem::at(Code::InvalidValue, "/hook", format!("{hook} holds indices, which have no geometry")))
        }
        None => Ok(hooks),
    }
}

/// Whether the sets at one layer can be compared by these metrics, and in the memory there is.
fn check(groups: &[Group], sides: &[RowReader], metrics: &[SetMetric]) -> Result<(), Problem> {
    let (Some(first), Some(side)) = (groups.first(), sides.first()) else { return Ok(()) };
    for (group, rows) in groups.iter().zip(sides) {
        enough_rows(group, rows, metrics)?;
        if metrics.iter().any(|m| m.is_aligned()) {
            same_rows(first, side, group, rows)?;
        }
        if metrics.iter().any(|m| !m.is_aligned()) && rows.width() != side.width() {
            let detail = format!(
                "the rows of {} have {} values and those of {} {}: means of one width are compared",
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

fn enough_rows(group: &Group, rows: &RowReader, metrics: &[SetMetric]) -> Result<(), Problem> {
    // a single row has no spread, but the other group may have one: effect_size is then defined
    let needed = metrics.iter().filter(|m| m.is_aligned()).map(|m| m.min_rows()).max().unwrap_or(1);
    if rows.n_rows() >= needed {
        return Ok(());
    }
    let detail = format!("{} has {} rows; these metrics need at least {needed}", group.name, rows.n_rows());
    Err(Problem::at(Code::ShapeMismatch, &group.pointer, detail))
}

/// Row i of one set and row i of the other must be of the same thing; that much of it can be seen from here.
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
