//! The metrics of comparisons.

use residuum_analysis::{Metric, SetMetric, VectorMetric};

/// A metric. `Cosine` to `Jaccard` compare two vectors. `Cka` to `Procrustes` compare two sets of rows, in the modes
/// sets and layers; `MeanDifference` to `EffectSize` also do, but only in mode sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonMetric {
    /// Cosine of the angle, in [-1, 1]; undefined with a zero vector.
    Cosine,
    /// Inner product.
    Dot,
    /// Length of the difference.
    Euclidean,
    /// Mean absolute difference over the dimensions.
    Mae,
    /// Pearson correlation over the dimensions, in [-1, 1]; undefined with a constant vector.
    Pearson,
    /// Jaccard index of the indices of the `k` largest magnitudes, in [0, 1]; of equal magnitudes the lower index is
    /// taken.
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

/// A metric, by what it compares.
pub(super) enum Kind {
    /// Of two vectors.
    Vector(VectorMetric),
    /// Of two sets of rows.
    Set(SetMetric),
}

impl ComparisonMetric {
    /// What it compares. `k` is used by `jaccard`.
    pub(super) const fn kind(self, k: usize) -> Kind {
        match self {
            Self::Cosine => Kind::Vector(VectorMetric::Plain(Metric::Cosine)),
            Self::Dot => Kind::Vector(VectorMetric::Plain(Metric::Dot)),
            Self::Euclidean => Kind::Vector(VectorMetric::Plain(Metric::Euclidean)),
            Self::Mae => Kind::Vector(VectorMetric::Plain(Metric::Mae)),
            Self::Pearson => Kind::Vector(VectorMetric::Plain(Metric::Pearson)),
            Self::Jaccard => Kind::Vector(VectorMetric::Jaccard { k }),
            Self::Cka => Kind::Set(SetMetric::Cka),
            Self::CkaDebiased => Kind::Set(SetMetric::CkaDebiased),
            Self::Rsa => Kind::Set(SetMetric::Rsa),
            Self::Procrustes => Kind::Set(SetMetric::Procrustes),
            Self::MeanDifference => Kind::Set(SetMetric::MeanDifference),
            Self::MeanCosine => Kind::Set(SetMetric::MeanCosine),
            Self::EffectSize => Kind::Set(SetMetric::EffectSize),
        }
    }

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Mae => "mae",
            Self::Pearson => "pearson",
            Self::Jaccard => "jaccard",
            Self::Cka => "cka",
            Self::CkaDebiased => "cka_debiased",
            Self::Rsa => "rsa",
            Self::Procrustes => "procrustes",
            Self::MeanDifference => "mean_difference",
            Self::MeanCosine => "mean_cosine",
            Self::EffectSize => "effect_size",
        }
    }
}
