//! Projections of stored vectors onto directions.

use std::sync::Arc;

use rayon::prelude::*;

use super::{
    Questions, Selector,
    answer_limit::AnswerLimit,
    deleted_caches::again,
    direction::{Direction, NamedVectors},
    row_reader::read_rows,
};
pub use residuum_analysis::Projection;
use residuum_analysis::Projector;
use residuum_domain::{CacheId, Code, Hook, Layers, Positions, Problem, Selection, TenantId};
use residuum_store::{Store, StoredCache};

/// Most caches in one question.
const MAX_CACHES: usize = 10_000;
/// Most directions in one question.
const MAX_DIRECTIONS: usize = 1000;
/// Most numbers of all directions at all layers, which are held in memory.
const MAX_DIRECTION_NUMBERS: usize = 1 << 26;

/// What to project onto what.
#[derive(Debug, Clone)]
pub struct ProjectionQuestion {
    /// The caches.
    pub caches: Selector,
    /// Hook, short or full.
    pub hook: String,
    /// Layers, for short names.
    pub layers: Layers,
    /// Positions of each cache.
    pub positions: Positions,
    /// Directions, at most 1000.
    pub directions: Vec<Direction>,
    /// Measures, at least one, in the order of the answer's values.
    pub measures: Vec<Projection>,
    /// How many numbers the answer may hold.
    pub limit: AnswerLimit,
}

/// The projections of activations onto directions.
#[derive(Debug, Clone)]
pub struct ProjectionAnswer {
    /// The hooks, all of one site, in the order of the values.
    pub hooks: Vec<Hook>,
    /// The caches, in the order of the values.
    pub caches: Vec<CacheId>,
    /// The directions, in the order of the values.
    pub directions: Vec<ProjectedDirection>,
    /// For each cache and each requested measure the values `[row, hook, direction]`, NaN if undefined. A cache has a
    /// row for each of its positions, or one row if the positions have no axis.
    pub values: Vec<Vec<Vec<f64>>>,
}

/// A direction onto which vectors were projected.
#[derive(Debug, Clone)]
pub struct ProjectedDirection {
    /// Its name, or its index in the question.
    pub name: String,
    /// Its length at each hook.
    pub norms: Vec<f64>,
}

impl Questions {
    /// Projects the selected vectors onto directions; sums are accumulated in float64. If a hook has several axes after
    /// the position (heads), they count as one long vector.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for no measure, no direction or more than 1000 of them; [`Code::ResultTooLarge`] for an
    /// answer above the limit, or for directions that would take too much memory; those of selecting caches, hooks and
    /// positions, of [`Direction::resolve`], and those of the store.
    pub async fn projections(
        &self,
        tenant: TenantId,
        question: &ProjectionQuestion,
    ) -> Result<ProjectionAnswer, Problem> {
        if question.measures.is_empty() {
            let detail = "name at least one measure: dot, cosine or scalar";
            return Err(Problem::at(Code::InvalidValue, "/measures", detail));
        }
        let n_directions = question.directions.len();
        if n_directions == 0 || n_directions > MAX_DIRECTIONS {
            let detail = format!("give 1 to {MAX_DIRECTIONS} directions, not {n_directions}");
            return Err(Problem::at(Code::InvalidValue, "/directions", detail));
        }
        again(Code::UnknownCache, || self.projected(tenant, question)).await
    }

    /// The projections of the caches as they are now.
    async fn projected(&self, tenant: TenantId, question: &ProjectionQuestion) -> Result<ProjectionAnswer, Problem> {
        let store = self.store().clone();
        let chosen = question.caches.choose(&store, tenant, "/caches", MAX_CACHES).await?;
        let hooks = chosen.hooks(&question.hook, &question.layers)?;
        let mut selected = Vec::new();
        let (mut width, mut n_rows) = (0, 0usize);
        for hook in &hooks {
            let (selections, own) = chosen.selections(*hook, Some(&question.positions))?;
            (width, n_rows) = (own, n_rows + selections.iter().map(|s| s.n_served() / own.max(1)).sum::<usize>());
            selected.push(selections);
        }
        let n_directions = question.directions.len();
        question.limit.check(n_rows.saturating_mul(n_directions * question.measures.len()))?;
        if n_directions.saturating_mul(hooks.len()).saturating_mul(width) > MAX_DIRECTION_NUMBERS {
            let detail = format!(
                "{n_directions} directions of {width} numbers at {} layers are more than {MAX_DIRECTION_NUMBERS} numbers",
                hooks.len()
            );
            return Err(Problem::at(Code::ResultTooLarge, "/directions", detail));
        }
        let mut directions = Vec::new();
        for (i, direction) in question.directions.iter().enumerate() {
            let place = format!("/directions/{i}");
            directions.push(direction.resolve(self, tenant, &hooks, width, (i, &place)).await?);
        }
        let caches = chosen.caches.iter().map(|c| c.cache.id).collect();
        let measures = question.measures.clone();
        let job = Job { store, caches: chosen.caches, selected, directions, measures, width };
        let (directions, values) = self.analyse(move || job.run()).await?;
        Ok(ProjectionAnswer { hooks, caches, directions, values })
    }
}

/// A checked question with everything needed to answer it.
struct Job {
    store: Store,
    caches: Vec<Arc<StoredCache>>,
    /// For each hook, the rows of each cache.
    selected: Vec<Vec<Selection>>,
    directions: Vec<NamedVectors>,
    measures: Vec<Projection>,
    width: usize,
}

/// For each measure, the values `[row, hook, direction]` of one cache.
type CacheValues = Vec<Vec<f64>>;

impl Job {
    /// The directions, and for each cache and measure the values `[row, hook, direction]`, NaN if undefined.
    fn run(self) -> Result<(Vec<ProjectedDirection>, Vec<CacheValues>), Problem> {
        let onto: Vec<Vec<Projector<'_>>> = (0..self.selected.len())
            .map(|hook| self.directions.iter().map(|d| Projector::onto(&d.vectors[hook])).collect())
            .collect();
        let values = (0..self.caches.len()).into_par_iter().map(|cache| self.of_cache(cache, &onto));
        let values = values.collect::<Result<_, Problem>>()?;
        let describe = |(i, d): (usize, &NamedVectors)| {
            let norms = onto.iter().map(|layer| layer[i].norm()).collect();
            ProjectedDirection { name: d.name.clone(), norms }
        };
        let directions = self.directions.iter().enumerate().map(describe).collect();
        Ok((directions, values))
    }

    fn of_cache(&self, cache: usize, onto: &[Vec<Projector<'_>>]) -> Result<CacheValues, Problem> {
        let (n_layers, n_directions) = (onto.len(), self.directions.len());
        let mut values = vec![Vec::new(); self.measures.len()];
        for (layer, (selections, onto)) in self.selected.iter().zip(onto).enumerate() {
            let rows = read_rows(&self.store, &self.caches[cache], &selections[cache])?;
            for (measure, values) in self.measures.iter().zip(&mut values) {
                values.resize(rows.len() / self.width * n_layers * n_directions, f64::NAN);
                let places = values.chunks_exact_mut(n_directions).skip(layer).step_by(n_layers);
                for (row, place) in rows.chunks_exact(self.width).zip(places) {
                    place.iter_mut().zip(onto).for_each(|(v, d)| *v = d.of(*measure, row).unwrap_or(f64::NAN));
                }
            }
        }
        Ok(values)
    }
}
