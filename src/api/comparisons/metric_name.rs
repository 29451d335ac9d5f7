//! Names of the metrics of comparisons.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use residuum_engine::questions::comparisons::ComparisonMetric;

/// A metric. From cosine to jaccard: metrics of two vectors, for the modes pairs, matrix and layers. From cka to
/// procrustes: metrics of two sets of rows, for the modes sets and layers. From mean_difference to effect_size: metrics
/// of two sets of rows, for the mode sets.
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
    /// Jaccard index of the sets of the `k` dimensions with the largest magnitudes; of equal magnitudes the earlier
    /// dimension is taken.
    Jaccard,
    /// Linear CKA (Kornblith et al. 2019), in [0, 1].
    Cka,
    /// Linear CKA with the unbiased HSIC estimator (Song et al. 2012, Nguyen et al. 2020), about 0 for independent sets.
    CkaDebiased,
    /// Spearman correlation of the representational dissimilarities, which are 1 − the Pearson correlation of two rows.
    Rsa,
    /// Orthogonal Procrustes distance of the centred sets, each scaled to Frobenius norm 1 (Ding et al. 2021), in [0, 2].
    Procrustes,
    /// Euclidean distance between the means.
    MeanDifference,
    /// Cosine of the angle between the means.
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
