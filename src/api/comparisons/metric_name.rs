//! Metrics as a request names them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use residuum_engine::questions::comparisons::ComparisonMetric;

/// A metric. Those of two vectors: cosine to jaccard, for the modes pairs, matrix and layers. Those of two sets of rows: cka to
/// procrustes, for the modes sets and layers; mean_difference to effect_size, for the mode sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Metric)]
pub enum MetricName {
    /// Cosine of the angle; null with a zero vector.
    Cosine,
    /// Inner product.
    Dot,
    /// Length of the difference.
    Euclidean,
    /// Mean absolute difference over the dimensions.
    Mae,
    /// Pearson correlation over the dimensions; null with a constant vector.
    Pearson,
    /// Jaccard index of the places of the `k` largest magnitudes; of equal magnitudes the earlier place is taken.
    Jaccard,
    /// Linear CKA (Kornblith et al. 2019), in [0, 1].
    Cka,
    /// Linear CKA with the unbiased HSIC estimator (Song et al. 2012, Nguyen et al. 2020), about 0 for independent sets.
    CkaDebiased,
    /// Spearman correlation of the representational dissimilarities, 1 − the Pearson correlation of each two rows.
    Rsa,
    /// Orthogonal Procrustes distance of the centred sets, each scaled to Frobenius norm 1 (Ding et al. 2021), in [0, 2].
    Procrustes,
    /// Distance of the means.
    MeanDifference,
    /// Cosine of the means.
    MeanCosine,
    /// Cohen's d of the rows projected onto the difference of the means, with the pooled standard deviation.
    EffectSize,
}

impl From<MetricName> for ComparisonMetric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::Cosine => Self::Cosine,
            MetricName::Dot => Self::Dot,
            MetricName::Euclidean => Self::Euclidean,
            MetricName::Mae => Self::Mae,
            MetricName::Pearson => Self::Pearson,
            MetricName::Jaccard => Self::Jaccard,
            MetricName::Cka => Self::Cka,
            MetricName::CkaDebiased => Self::CkaDebiased,
            MetricName::Rsa => Self::Rsa,
            MetricName::Procrustes => Self::Procrustes,
            MetricName::MeanDifference => Self::MeanDifference,
            MetricName::MeanCosine => Self::MeanCosine,
            MetricName::EffectSize => Self::EffectSize,
        }
    }
}
