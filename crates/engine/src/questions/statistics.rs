//! Statistics of stored vectors, hook by hook: lengths, means, variances, and outlier dimensions.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Questions, Selector, deleted_caches::again, row_reader::read_rows};
pub use residuum_analysis::summary::Spread;
use residuum_analysis::{
    Summary,
    summary::{largest, outliers},
};
use residuum_domain::{Code, Hook, Layers, Positions, Problem, Selection, Site, TenantId};
use residuum_store::{Store, StoredCache};

/// Most caches in one question.
const MAX_CACHES: usize = 10_000;
/// Most dimensions in each list.
const MAX_TOP: usize = 1000;
/// Most numbers read for one question; they take some ten seconds.
const MAX_READ: usize = 4_000_000_000;

/// What to describe.
#[derive(Debug, Clone)]
pub struct StatisticsQuestion {
    /// The caches.
    pub caches: Selector,
    /// Hook, short or full.
    pub hook: String,
    /// Layers, for short names.
    pub layers: Layers,
    /// Positions; all stored ones if left out. Each position is a separate vector.
    pub positions: Option<Positions>,
    /// Number of dimensions in each list.
    pub top_k: usize,
    /// How many standard deviations from the average make a dimension an outlier; more than 0.
    pub sigma: f64,
}

/// Statistics of stored activations, layer by layer.
#[derive(Debug, Clone)]
pub struct StatisticsAnswer {
    /// The site of all hooks.
    pub site: Site,
    /// How many caches were read.
    pub n_caches: usize,
    /// One entry for each hook, in order.
    pub layers: Vec<LayerStatistics>,
}

/// Statistics of the vectors of one hook. Variances and standard deviations divide by n. `None` or empty if no vector
/// is finite.
#[derive(Debug, Clone)]
pub struct LayerStatistics {
    /// The layer; `None` for a hook outside the blocks.
    pub layer: Option<usize>,
    /// Number of finite vectors: positions of caches.
    pub n: u64,
    /// Vectors left out because they hold NaN or infinity.
    pub n_non_finite: u64,
    /// Length of a vector: its number of values.
    pub d: usize,
    /// Norms of the vectors.
    pub norm: Option<Spread>,
    /// Norm of the mean vector.
    pub mean_norm: Option<f64>,
    /// Variances of the dimensions; their sum is `total_variance`.
    pub variance: Option<Spread>,
    /// Sum of the variances of all dimensions: the mean squared distance from the mean vector.
    pub total_variance: Option<f64>,
    /// Share of exact zeros among all values, in [0, 1].
    pub zeros: Option<f64>,
    /// Dimensions with the largest |mean|, the largest first.
    pub top_mean: Vec<Dimension>,
    /// Dimensions with the largest variance, the largest first.
    pub top_variance: Vec<Dimension>,
    /// Dimensions whose mean is more than `sigma` standard deviations from the average of the means of all dimensions, or
    /// whose standard deviation is that far from the average standard deviation; in ascending order, at most 1000.
    pub outliers: Vec<Outlier>,
}

/// A dimension of the vectors.
#[derive(Debug, Clone, Copy)]
pub struct Dimension {
    /// Its index.
    pub index: usize,
    /// Mean over the vectors.
    pub mean: f64,
    /// Standard deviation over the vectors.
    pub std: f64,
}

/// A dimension that differs from the others.
#[derive(Debug, Clone, Copy)]
pub struct Outlier {
    /// The dimension.
    pub dimension: Dimension,
    /// Whether its mean is an outlier.
    pub by_mean: bool,
    /// Whether its standard deviation is an outlier.
    pub by_std: bool,
}

impl Questions {
    /// Describes the selected vectors in one pass; sums are accumulated in float64.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for a `top_k` above 1000 or a `sigma` that is not above 0, [`Code::ResultTooLarge`] for
    /// too much to read; those of selecting caches, hooks and positions, and those of the store.
    pub async fn statistics(
        &self,
        tenant: TenantId,
        question: &StatisticsQuestion,
    ) -> Result<StatisticsAnswer, Problem> {
        if question.top_k > MAX_TOP {
            return Err(Problem::at(Code::InvalidValue, "/top_k", format!("top_k may be {MAX_TOP} at most")));
        }
        if !(question.sigma.is_finite() && question.sigma > 0.0) {
            let detail = "sigma must be above 0";
            return Err(Problem::at(Code::InvalidValue, "/sigma", detail));
        }
        again(Code::UnknownCache, || self.summarised(tenant, question)).await
    }

    /// The statistics of the caches as they are now.
    async fn summarised(&self, tenant: TenantId, question: &StatisticsQuestion) -> Result<StatisticsAnswer, Problem> {
        let store = self.store().clone();
        let chosen = question.caches.choose(&store, tenant, "/caches", MAX_CACHES).await?;
        let hooks = chosen.hooks(&question.hook, &question.layers)?;
        let rows = |hook: &Hook| chosen.selections(*hook, question.positions.as_ref());
        let selected: Vec<(Vec<Selection>, usize)> = hooks.iter().map(rows).collect::<Result<_, _>>()?;
        let n_read = selected.iter().flat_map(|(s, _)| s).map(Selection::n_read).fold(0, usize::saturating_add);
        if n_read > MAX_READ {
            let detail =
                format!("{n_read} numbers would be read; {MAX_READ} are allowed. Choose fewer caches or layers");
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let job = Job { store, caches: chosen.caches, hooks, selected, top_k: question.top_k, sigma: question.sigma };
        self.analyse(move || job.run()).await
    }
}

/// A checked question with everything needed to answer it.
struct Job {
    store: Store,
    caches: Vec<Arc<StoredCache>>,
    hooks: Vec<Hook>,
    /// For each hook, the rows of each cache and their width.
    selected: Vec<(Vec<Selection>, usize)>,
    top_k: usize,
    sigma: f64,
}

impl Job {
    fn run(self) -> Result<StatisticsAnswer, Problem> {
        let layers = self.hooks.par_iter().zip(&self.selected);
        let layers = layers.map(|(hook, (selections, width))| {
            let mut summary = Summary::new(*width);
            for (cache, selection) in self.caches.iter().zip(selections) {
                summary.add(&read_rows(&self.store, cache, selection)?);
            }
            Ok(self.describe(*hook, &summary))
        });
        Ok(StatisticsAnswer {
            site: self.hooks[0].site(),
            n_caches: self.caches.len(),
            layers: layers.collect::<Result<_, Problem>>()?,
        })
    }

    fn describe(&self, hook: Hook, summary: &Summary) -> LayerStatistics {
        let (mean, variance) = (summary.mean(), summary.variance());
        let std: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
        let size: Vec<f64> = mean.iter().map(|m| m.abs()).collect();
        let any = summary.n() > 0;
        let dimension = |index: usize| Dimension { index, mean: mean[index], std: std[index] };
        let named = |indices: Vec<usize>| {
            if any { indices.into_iter().map(dimension).collect() } else { Vec::new() }
        };
        let (by_mean, by_std) = (outliers(mean, self.sigma), outliers(&std, self.sigma));
        let outlier = |i: usize| {
            let (by_mean, by_std) = (by_mean.binary_search(&i).is_ok(), by_std.binary_search(&i).is_ok());
            (by_mean || by_std).then(|| Outlier { dimension: dimension(i), by_mean, by_std })
        };
        LayerStatistics {
            layer: hook.layer(),
            n: summary.n(),
            n_non_finite: summary.n_non_finite(),
            d: mean.len(),
            norm: any.then(|| summary.norm()),
            mean_norm: any.then(|| mean.iter().map(|m| m * m).sum::<f64>().sqrt()),
            variance: any.then(|| Spread::of(variance.iter().copied())),
            total_variance: any.then(|| variance.iter().sum()),
            zeros: any.then(|| summary.zeros()),
            top_mean: named(largest(&size, self.top_k)),
            top_variance: named(largest(&variance, self.top_k)),
            outliers: (0..mean.len()).filter_map(outlier).take(MAX_TOP).collect(),
        }
    }
}
