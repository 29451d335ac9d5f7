//! Converts the body of a patching sweep to a question of the engine.

use super::patching_body::{
    ExperimentInput, MetricName, PatchDirection, PatchingRequest, SweepOpName, SweepRequest, Swept,
};
use residuum_domain::{Code, Problem};
use residuum_engine::questions::patching::{
    self, PatchingInput, PatchingMetric, PatchingQuestion, SweepOp, SweptHook, SweptOver,
};

impl PatchingRequest {
    /// Converts the body.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] for `caches` without a mean or a mean without `caches`, and errors of selectors.
    pub fn question(self) -> Result<PatchingQuestion, Problem> {
        Ok(PatchingQuestion {
            model: self.model,
            clean: self.clean.into(),
            corrupt: self.corrupt.map(Into::into),
            answer: self.answer.into(),
            against: self.against.map(Into::into),
            metric: self.metric.map(Into::into),
            sweep: self.sweep.question().map_err(|p| p.under("/sweep"))?,
            direction: self.direction.map(Into::into),
            position: self.position,
            prepend_bos: self.prepend_bos,
        })
    }
}

impl SweepRequest {
    fn question(self) -> Result<SweptHook, Problem> {
        let Self { op, hook, layers, positions, to, from, heads, caches } = self;
        let op = match (op, caches) {
            (SweepOpName::MeanAblate, Some(caches)) => SweepOp::MeanAblate(caches.selector("/caches")?),
            (SweepOpName::MeanAblate, None) => {
                let detail = "mean_ablate needs `caches`, whose mean it takes";
                return Err(Problem::at(Code::InvalidBody, "/caches", detail));
            }
            (_, Some(_)) => {
                return Err(Problem::at(Code::InvalidBody, "/caches", "`caches` can only be used with `mean_ablate`"));
            }
            (SweepOpName::Patch, None) => SweepOp::Patch,
            (SweepOpName::Zero, None) => SweepOp::Zero,
            (SweepOpName::Knockout, None) => SweepOp::Knockout,
        };
        let [positions, to, from] = [positions, to, from].map(|swept| swept.map(Into::into));
        Ok(SweptHook { op, hook, layers, positions, to, from, heads: heads.map(Into::into) })
    }
}

impl From<ExperimentInput> for PatchingInput {
    fn from(input: ExperimentInput) -> Self {
        match input {
            ExperimentInput::Text(text) => Self::Text(text),
            ExperimentInput::TokenIds(ids) => Self::TokenIds(ids),
        }
    }
}

impl<T> From<Swept<T>> for SweptOver<T> {
    fn from(swept: Swept<T>) -> Self {
        match swept {
            Swept::Each => Self::Each,
            Swept::Together(these) => Self::Together(these),
        }
    }
}

impl From<MetricName> for PatchingMetric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::LogitDiff => Self::LogitDiff,
            MetricName::Logit => Self::Logit,
            MetricName::Probability => Self::Probability,
            MetricName::LogProbability => Self::LogProbability,
        }
    }
}

impl From<PatchingMetric> for MetricName {
    fn from(metric: PatchingMetric) -> Self {
        match metric {
            PatchingMetric::LogitDiff => Self::LogitDiff,
            PatchingMetric::Logit => Self::Logit,
            PatchingMetric::Probability => Self::Probability,
            PatchingMetric::LogProbability => Self::LogProbability,
        }
    }
}

impl From<PatchDirection> for patching::PatchDirection {
    fn from(direction: PatchDirection) -> Self {
        match direction {
            PatchDirection::Denoise => Self::Denoise,
            PatchDirection::Noise => Self::Noise,
        }
    }
}

impl From<patching::PatchDirection> for PatchDirection {
    fn from(direction: patching::PatchDirection) -> Self {
        match direction {
            patching::PatchDirection::Denoise => Self::Denoise,
            patching::PatchDirection::Noise => Self::Noise,
        }
    }
}
