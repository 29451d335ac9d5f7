//! Searches stored activations for the rows nearest to one or several vectors, by scoring every row.

mod ranking;
mod search_source;

pub use residuum_analysis::scan::Nearness;
pub use search_source::SearchSource;

use super::{
    Questions,
    hits::{Hit, HitLimits},
};
use ranking::Ranked;
use residuum_domain::{CacheFilter, Code, Hook, HookName, Positions, Problem, TenantId, hook::UnknownHook};
use residuum_store::{ScanPlan, Take};

/// Most queries of one request.
const MAX_QUERIES: usize = 64;

/// What to search for and where.
#[derive(Debug, Clone)]
pub struct SearchQuestion {
    /// What to search for.
    pub source: SearchSource,
    /// Hook, short or full.
    pub hook: String,
    /// Layer, for short names. Negatives count from the last layer of the source's model, or of the model in the
    /// filter.
    pub layer: Option<i64>,
    /// How nearness is measured.
    pub metric: Nearness,
    /// Hits for each query.
    pub k: usize,
    /// The caches to search.
    pub filter: CacheFilter,
    /// Whether caches or positions are ranked.
    pub over: Over,
    /// Tokens of context on either side of a hit.
    pub context: usize,
}

/// Whether caches or positions are ranked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// Caches, each represented by one row: the row at this position; without a position, the only stored row if there
    /// is just one, else the row of the last token. Caches that did not store the row are skipped and counted.
    Caches(Option<Positions>),
    /// Positions: every stored row of every cache, except means.
    Positions,
}

/// The result of a search.
#[derive(Debug, Clone)]
pub struct SearchAnswer {
    /// The hook whose rows were scored.
    pub hook: Hook,
    /// The hits of each query, in the order of the queries, best first. Ties are ordered by the cache's id, then by
    /// position. Hits whose caches were deleted meanwhile are left out.
    pub results: Vec<Vec<Hit>>,
    /// What was scanned.
    pub scanned: Scanned,
}

/// What was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Caches that the filter found and whose rows were included.
    pub caches: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Bytes of these rows.
    pub bytes: u64,
    /// Caches that captured the hook, but not at the requested position.
    pub skipped: u64,
    /// Caches whose rows could not all be read, because their blob is missing or short. The rows that could be read are
    /// included.
    pub damaged: u64,
    /// Caches that were deleted before all of their rows were read.
    pub deleted: u64,
}

impl Questions {
    /// Scores every stored row that the question includes, in float32, and describes the best. If the source is a text,
    /// it is captured first, by a run that waits in the queue and is deleted after its vector has been read.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] and [`Code::ResultTooLarge`] for numbers out of their bounds, several positions where one
    /// is needed, a hook whose rows are not vectors of one width, and vectors that are not finite, or zero with cosine;
    /// [`Code::InvalidBody`] for a layer that is missing or not needed; [`Code::UnknownHook`],
    /// [`Code::LayerOutOfRange`]; [`Code::ShapeMismatch`] for a vector that does not have the width of the rows; for
    /// the source: [`Code::UnknownCache`], [`Code::UnknownModel`], [`Code::UnknownDirection`], [`Code::UnknownSae`],
    /// [`Code::HookNotStored`], [`Code::PositionOutOfRange`], and those of submitting a run; [`Code::Unavailable`] if a
    /// text was not captured in time; those of the store.
    pub async fn search(&self, tenant: TenantId, question: &SearchQuestion) -> Result<SearchAnswer, Problem> {
        let source = &question.source;
        question.check()?;
        let take = question.over.take()?;
        let hook = question.hook(self, tenant).await?;
        let vectors = source.vectors(self, tenant, hook).await?;
        source.check_vectors(&vectors, question.metric)?;
        let plan = self.store().scan_plan(tenant, &question.filter, hook, &take).await?;
        check_widths(&plan, vectors[0].len(), hook, source.pointer())?;
        let ranked = Ranked::of(self, plan, vectors, question).await?;
        ranked.answer(self, tenant, hook, question.context).await
    }
}

/// Checks that the rows have the width of the queries.
fn check_widths(plan: &ScanPlan, width: usize, hook: Hook, pointer: &str) -> Result<(), Problem> {
    let Some(other) = plan.widths().into_iter().find(|w| *w != width) else { return Ok(()) };
    let detail = format!(
        "the query has {width} values and {hook} has {other} in some of the caches; filter by model to search rows of one width"
    );
    Err(Problem::at(Code::ShapeMismatch, pointer, detail))
}

impl SearchQuestion {
    fn check(&self) -> Result<(), Problem> {
        self.source.check_position()?;
        let n = self.source.n_queries();
        if n > MAX_QUERIES {
            let detail = format!("there are {n} vectors; at most {MAX_QUERIES} are allowed");
            return Err(Problem::at(Code::InvalidValue, "/query/vectors", detail));
        }
        HitLimits { k: self.k, context: self.context }.check(n, "queries")
    }

    /// The hook whose rows are searched.
    async fn hook(&self, questions: &Questions, tenant: TenantId) -> Result<Hook, Problem> {
        let name: HookName =
            self.hook.parse().map_err(|e: UnknownHook| Problem::at(Code::UnknownHook, "/hook", e.to_string()))?;
        let hook = match (name, self.layer) {
            (HookName::Full(hook), None) => hook,
            (HookName::Full(hook), Some(_)) => {
                let detail = format!("{hook} is a full name, which includes the layer; leave out layer");
                return Err(Problem::at(Code::InvalidBody, "/layer", detail));
            }
            (HookName::Short(_), None) => {
                let detail = format!("name the layer of {}, or give the hook's full name", self.hook);
                return Err(Problem::at(Code::InvalidBody, "/layer", detail));
            }
            (HookName::Short(site), Some(layer)) => {
                let n_layers = self.source.n_layers(questions, tenant, self.filter.model.as_deref()).await?;
                Hook::block(site, resolve_layer(layer, n_layers)?)
            }
        };
        if hook.site().is_attention_map() || hook.site().is_index() {
            let detail = format!("{hook} cannot be searched: it does not have a vector of one width for each position");
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        Ok(hook)
    }
}

impl Over {
    /// The rows to score.
    fn take(&self) -> Result<Take, Problem> {
        match self {
            Self::Caches(Some(position)) if position.keeps_axis() => Err(Problem::at(
                Code::InvalidValue,
                "/position",
                "a cache is represented by one position: an integer, \"last\" or \"mean\"",
            )),
            Self::Caches(position) => Ok(Take::One(position.clone())),
            Self::Positions => Ok(Take::Positions),
        }
    }
}

fn resolve_layer(layer: i64, n_layers: Option<usize>) -> Result<usize, Problem> {
    let found = match (usize::try_from(layer), n_layers) {
        // without a model, any layer that some model could have is valid
        (Ok(layer), None) => u32::try_from(layer).is_ok().then_some(layer),
        (Err(_), None) => {
            let detail = "a negative layer counts from the last layer of a model: name the model in filter.model";
            return Err(Problem::at(Code::InvalidValue, "/layer", detail));
        }
        (Ok(layer), Some(n)) => (layer < n).then_some(layer),
        (Err(_), Some(n)) => usize::try_from(layer.unsigned_abs()).ok().and_then(|back| n.checked_sub(back)),
    };
    found.ok_or_else(|| {
        let of_model =
            n_layers.map_or_else(|| "no model has so many layers".to_owned(), |n| format!("the model has {n} layers"));
        let detail = format!("layer {layer} does not exist: {of_model}");
        Problem::at(Code::LayerOutOfRange, "/layer", detail)
    })
}
