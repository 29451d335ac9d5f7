//! Embeddings: one vector for each input, from a forward pass of which nothing is stored.
//!
//! The vector is made of the activations that leave the model: `final_norm`, or the last `hook_resid_post` where a
//! model has no norm at its end. They are the bits that a run with the same tokens would capture.

use std::{ops::Range, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::Questions;
use crate::{InputSpec, Prepared, RunRequest, Truncate, scheduler};
use residuum_domain::{
    CaptureRequest, Code, Dtype, Hook, Layers, NewItem, PackLayout, Positions, PositionsRequest, Problem, Rows, Site,
    TenantId,
};
use residuum_model::{Batch, CaptureSink, ForwardError, Input, Model, Refusal};

/// Most inputs of a request.
const MAX_INPUTS: usize = 2048;
/// Requests that may be answered or wait at once.
pub(super) const MAX_REQUESTS: usize = 64;

/// Inputs to embed.
#[derive(Debug, Clone)]
pub struct EmbeddingQuestion {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// Name of a served model.
    pub model: String,
    /// Texts or token ids, with where they stand in the request.
    pub inputs: Vec<InputSpec>,
    /// How the tokens of an input become one vector; `None`: the mean for encoders, the last token for decoders.
    pub pooling: Option<Pooling>,
    /// Whether to scale each vector to length one.
    pub normalize: bool,
    /// The length of the vectors that the client expects.
    pub dimensions: Option<usize>,
    /// Whether to add a beginning-of-sequence token. If left out, the tokenizer's own rule for text, and none for ids.
    pub prepend_bos: Option<bool>,
    /// What to do with inputs longer than the context.
    pub truncate: Truncate,
}

/// How the tokens of an input become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens, accumulated in float64.
    Mean,
    /// The last token.
    Last,
}

/// One vector for each input.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingAnswer {
    /// The vectors, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub n_tokens: usize,
    /// The hook whose activations they are.
    pub hook: Hook,
    /// How tokens became one vector.
    pub pooling: Pooling,
}

impl Questions {
    /// Embeds inputs in batches between those of runs. Dropping the future stops it.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::Unavailable`], [`Code::InvalidValue`] for too many inputs or another length of the
    /// vectors, [`Code::QueueFull`] while too many requests wait, [`Code::WorkerFailed`], and those of preparing a run.
    pub async fn embeddings(&self, question: EmbeddingQuestion) -> Result<EmbeddingAnswer, Problem> {
        let Ok(_place) = self.embedding_places.try_acquire() else {
            let detail = format!("{MAX_REQUESTS} requests for embeddings are being answered; try again");
            return Err(Problem::new(Code::QueueFull, detail).retry_after(2));
        };
        let model = self.models().get(&question.model)?;
        let hook = output_of(&model);
        let pooling = question.pooling.unwrap_or(match model.info().bidirectional {
            true => Pooling::Mean,
            false => Pooling::Last,
        });
        let normalize = question.normalize;
        let request = question.into_request(&model, hook, pooling)?;
        let Prepared { run, .. } = self.engine().prepare(request).await?;
        let n_tokens = run.items.iter().map(|item| item.token_ids.len()).sum();
        let mut vectors = self.forward(&model, hook, &Arc::new(run.items)).await?;
        if normalize {
            vectors.iter_mut().for_each(|vector| scale_to_one(vector));
        }
        Ok(EmbeddingAnswer { vectors, n_tokens, hook, pooling })
    }

    /// The rows at `hook` of all items.
    async fn forward(
        &self,
        model: &Arc<Model>,
        hook: Hook,
        items: &Arc<Vec<NewItem>>,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let stopped = CancellationToken::new();
        let _stop = stopped.clone().drop_guard();
        let lengths: Vec<usize> = items.iter().map(|item| item.token_ids.len()).collect();
        let mut vectors = Vec::with_capacity(items.len());
        for batch in batches(&lengths, scheduler::batch_tokens(&self.engine().inner, model)) {
            let (model, items, stopped) = (Arc::clone(model), Arc::clone(items), stopped.clone());
            let work = move || rows_of(&model, hook, &items[batch], &stopped);
            vectors.extend(self.engine().on_worker(work).await??);
        }
        Ok(vectors)
    }
}

impl EmbeddingQuestion {
    /// The run that would capture what the vectors are made of.
    fn into_request(self, model: &Model, hook: Hook, pooling: Pooling) -> Result<RunRequest, Problem> {
        let Self { tenant, model: name, inputs, dimensions, prepend_bos, truncate, .. } = self;
        let (n, d_model) = (inputs.len(), model.info().d_model);
        if !(1..=MAX_INPUTS).contains(&n) {
            let detail = format!("there are {n} inputs; a request has 1 to {MAX_INPUTS}");
            return Err(Problem::at(Code::InvalidValue, "/input", detail));
        }
        if let Some(dimensions) = dimensions.filter(|d| *d != d_model) {
            let detail = format!("the vectors of this model have {d_model} numbers and cannot be cut to {dimensions}");
            return Err(Problem::at(Code::InvalidValue, "/dimensions", detail));
        }
        let positions = match pooling {
            Pooling::Mean => Positions::Mean,
            Pooling::Last => Positions::Last,
        };
        let capture = CaptureRequest {
            hooks: vec![hook.to_string()],
            layers: Layers::All,
            positions: Some(PositionsRequest::Known(positions)),
            dtype: Dtype::Float32,
        };
        Ok(RunRequest { capture, prepend_bos, truncate, ..RunRequest::new(tenant, &name, inputs) })
    }
}

/// The hook of what leaves the model.
fn output_of(model: &Model) -> Hook {
    let info = model.info();
    match Hook::global(Site::FinalNorm) {
        last if info.has(last) => last,
        _ => Hook::block(Site::ResidPost, info.n_layers - 1),
    }
}

/// Divides inputs of these lengths into batches of at most `most` tokens. A longer input is a batch of its own.
fn batches(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (i, n) in lengths.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if tokens + n <= most => batch.end = i + 1,
            _ => {
                batches.push(i..i + 1);
                tokens = 0;
            }
        }
        tokens += n;
    }
    batches
}

/// The row at `hook` of each item, from one forward pass.
fn rows_of(
    model: &Model,
    hook: Hook,
    items: &[NewItem],
    stopped: &CancellationToken,
) -> Result<Vec<Vec<f32>>, Problem> {
    let rows: Vec<Rows> =
        items.iter().map(|item| item.capture.positions.resolve(item.token_ids.len())).collect::<Result<_, _>>()?;
    let input = |(item, rows)| {
        let NewItem { token_ids, .. }: &NewItem = item;
        Input { token_ids, rows, edits: None }
    };
    let inputs: Vec<Input<'_>> = items.iter().zip(&rows).map(input).collect();
    let spans: Vec<(usize, &Rows)> = inputs.iter().map(|input| (input.token_ids.len(), input.rows)).collect();
    let layout = PackLayout::new([hook].into(), vec![model.info().row_shape(hook.site())], Dtype::Float32, &spans);
    let mut collected = Collected::default();
    let outcome =
        model.forward(&Batch { inputs: &inputs, layout: &layout }, &mut collected, &|| stopped.is_cancelled());
    match outcome {
        Ok(()) => Ok(collected.values().chunks_exact(model.info().d_model).map(<[f32]>::to_vec).collect()),
        Err(ForwardError::Cancelled) => Err(Problem::new(Code::Unavailable, "the request was given up")),
        Err(error) => {
            tracing::error!(%error, "a forward pass for embeddings failed");
            Err(Problem::new(Code::WorkerFailed, "the forward pass failed"))
        }
    }
}

/// The values of the one hook, of each sub-batch in the order of its items.
#[derive(Default)]
struct Collected(Vec<SubBatch>);

#[derive(Default)]
struct SubBatch(Vec<f32>);

impl Collected {
    fn values(self) -> Vec<f32> {
        self.0.into_iter().flat_map(|SubBatch(values)| values).collect()
    }
}

impl CaptureSink for Collected {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        if self.0.is_empty() {
            self.0.push(SubBatch::default());
        }
        (&mut self.0[0]).write(hook, items, values)
    }

    fn split(&mut self, sub_batches: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        self.0.resize_with(sub_batches.len(), SubBatch::default);
        Some(self.0.iter_mut().map(|part| Box::new(part) as Box<dyn CaptureSink + '_>).collect())
    }
}

impl CaptureSink for &mut SubBatch {
    fn write(&mut self, _: usize, _: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0.append(values);
        Ok(())
    }
}

/// Divides a vector by its length, computed in float64; a vector of zeros stays as it is.
#[expect(clippy::cast_possible_truncation, reason = "the numbers are float32")]
fn scale_to_one(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_input_once_and_few_tokens() {
        assert_eq!(batches(&[3, 4, 9, 1, 1], 8), [0..2, 2..3, 3..5]);
        assert_eq!(batches(&[100], 8), std::iter::once(0..1).collect::<Vec<_>>());
        assert_eq!(batches(&[8, 8], 16), std::iter::once(0..2).collect::<Vec<_>>());
        assert!(batches(&[], 8).is_empty());
    }

    #[test]
    fn vectors_are_scaled_to_length_one() {
        let mut vector = [3.0, 4.0];
        scale_to_one(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zeros = [0.0, 0.0];
        scale_to_one(&mut zeros);
        assert_eq!(zeros, [0.0, 0.0]);
    }
}
