//! Where the weights of an architecture are in a checkpoint, and how to load them from there. Families fill these descriptions in;
//! this module knows names and layouts of tensors, not what the model computes.

use super::{
    architecture::{Experts, NormKind},
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{
        Linear,
        norm::{LayerNorm, Norm, Rms},
    },
};

/// Which rows of a stored tensor make up a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// The rows from this one on, in order.
    From(usize),
    /// Query, key and value rows of each head are stored together, or those of the heads that share a key and a value: row r of
    /// block h is at `period · h + first + r`.
    PerHead {
        /// Rows of a block in the projection.
        d_head: usize,
        /// Rows of a block in the checkpoint.
        period: usize,
        /// The first row of a block that belongs to the projection.
        first: usize,
    },
    /// Each head's rows are stored in the order of interleaved rotary pairs (0, half, 1, half + 1, …), as GGUF files
    /// of Llama models do.
    Unpermuted {
        /// Rows of a head.
        d_head: usize,
    },
}

impl Default for RowOrder {
    fn default() -> Self {
        Self::From(0)
    }
}

impl RowOrder {
    /// The stored row that is row `i` of the projection.
    fn stored(self, i: usize) -> usize {
        match self {
            Self::From(first) => first + i,
            Self::PerHead { d_head, period, first } => i / d_head * period + first + i % d_head,
            Self::Unpermuted { d_head } => {
                let (head, r) = (i / d_head, i % d_head);
                let half = d_head / 2;
                head * d_head + if r < half { 2 * r } else { 2 * (r - half) + 1 }
            }
        }
    }
}

/// How a projection's weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// `[stored_rows, in]`.
    #[default]
    Rows,
    /// `[in, stored_rows]` (GPT-2).
    Transposed,
    /// As one of several in a tensor `[count, stored_rows, in]`.
    Stacked {
        /// Index of this one.
        index: usize,
        /// Number of them.
        count: usize,
    },
}

/// Where a projection's weight and bias are. The default, without a name, stands for a projection that the model does not have.
#[derive(Debug, Clone, Default)]
pub struct LinearSource {
    /// Name of the weight.
    pub weight: String,
    /// Name of the bias `[stored_rows]`.
    pub bias: Option<String>,
    /// Number of rows of the stored tensor, if it has more than the projection.
    pub stored_rows: Option<usize>,
    /// Which of them belong to the projection.
    pub order: RowOrder,
    /// How the weight is stored.
    pub storage: Storage,
}

impl LinearSource {
    /// The whole of `{name}.weight` and, with `bias`, `{name}.bias`.
    pub fn new(name: impl AsRef<str>, bias: bool) -> Self {
        let name = name.as_ref();
        Self { weight: format!("{name}.weight"), bias: bias.then(|| format!("{name}.bias")), ..Self::default() }
    }

    /// Queries, keys and values stored as one projection `[n_kv_heads · (group + 2) · d_head, in]`: for each key/value
    /// head the queries of its group of `n_heads / n_kv_heads`, the key, the value.
    pub fn fused(name: &str, bias: bool, n_heads: usize, n_kv_heads: usize, d_head: usize) -> [Self; 3] {
        let group = n_heads / n_kv_heads;
        let period = (group + 2) * d_head;
        let part = |rows: usize, first: usize| {
            Self::new(name, bias).part(n_kv_heads * period, RowOrder::PerHead { d_head: rows, period, first })
        };
        [part(group * d_head, 0), part(d_head, group * d_head), part(d_head, (group + 1) * d_head)]
    }

    /// The `index`th of `count` projections without bias that share the tensor `name`.
    pub fn stacked(name: String, index: usize, count: usize) -> Self {
        let storage = Storage::Stacked { index, count };
        Self { weight: name, bias: None, stored_rows: None, order: RowOrder::From(0), storage }
    }

    /// The same tensor, with its rows in another order.
    pub fn order(mut self, order: RowOrder) -> Self {
        self.order = order;
        self
    }

    /// Some rows of a tensor that has `stored_rows`.
    pub fn part(mut self, stored_rows: usize, order: RowOrder) -> Self {
        self.stored_rows = Some(stored_rows);
        self.order = order;
        self
    }

    /// The same, stored as `[in, out]`.
    pub fn transposed(mut self) -> Self {
        self.storage = Storage::Transposed;
        self
    }

    /// Loads the projection from `d_in` to `d_out` numbers.
    pub fn load(&self, checkpoint: &Checkpoint, d_out: usize, d_in: usize) -> Result<Linear, LoadError> {
        let stored_rows = self.stored_rows.unwrap_or(d_out);
        let linear = match self.storage {
            Storage::Rows => self.pack_rows(checkpoint, &[stored_rows, d_in], 0, d_out)?,
            Storage::Stacked { index, count } => {
                self.pack_rows(checkpoint, &[count, stored_rows, d_in], index * stored_rows, d_out)?
            }
            Storage::Transposed => {
                let weight = checkpoint.whole(&self.weight, &[d_in, stored_rows])?;
                Linear::pack(d_out, d_in, |i, row| {
                    let column = self.order.stored(i);
                    row.iter_mut().zip(weight[column..].iter().step_by(stored_rows)).for_each(|(r, w)| *r = *w);
                })
            }
        };
        let Some(name) = &self.bias else { return Ok(linear) };
        let stored = checkpoint.whole(name, &[stored_rows])?;
        let bias = (0..d_out).map(|i| stored[self.order.stored(i)]).collect();
        Ok(linear.with_bias(Some(bias)))
    }

    /// Loads a projection from rows of a tensor of this shape; its rows are counted from row `first`.
    fn pack_rows(
        &self,
        checkpoint: &Checkpoint,
        shape: &[usize],
        first: usize,
        d_out: usize,
    ) -> Result<Linear, LoadError> {
        let mut reader = checkpoint.rows(&self.weight, shape)?;
        let mut failure = None;
        let linear = Linear::pack(d_out, shape[shape.len() - 1], |i, row| {
            if failure.is_none() {
                failure = reader.row(first + self.order.stored(i), row).err();
            }
        });
        failure.map_or(Ok(linear), Err)
    }
}

/// Loads the norm `{name}.weight` / `{name}.bias` over `d` numbers. Old BERT checkpoints call them gamma and beta.
pub fn load_norm(checkpoint: &Checkpoint, kind: NormKind, name: &str, d: usize) -> Result<Norm, LoadError> {
    let read = |part: &str, old: &str| {
        let [part, old] = [part, old].map(|part| format!("{name}.{part}"));
        checkpoint.whole(if checkpoint.has(&old) { &old } else { &part }, &[d])
    };
    Ok(match kind {
        NormKind::Rms { eps, gain_offset } => {
            let mut gain = read("weight", "gamma")?;
            gain.iter_mut().for_each(|g| *g += gain_offset);
            Norm::Rms(Rms { gain, eps })
        }
        NormKind::Layer { eps, gain, bias } => Norm::Layer(LayerNorm {
            gain: if gain { Some(read("weight", "gamma")?) } else { None },
            bias: if bias { Some(read("bias", "beta")?) } else { None },
            eps,
        }),
    })
}

/// Where the weights of a model are: those outside the blocks, and a function for those of a block.
pub struct Sources {
    /// Token embedding `[d_vocab, d_model]`, or of the width that is projected.
    pub embed: String,
    /// Projection from a token embedding of another width into the residual stream.
    pub project_in: LinearSource,
    /// Projection back, before the unembedding.
    pub project_out: LinearSource,
    /// Learned positions `[n_ctx + offset, d_model]`.
    pub positions: Option<String>,
    /// Token types `[token_types, d_model]`.
    pub token_types: Option<String>,
    /// Norm after the embedding; names of norms are without `.weight`.
    pub embed_norm: Option<String>,
    /// Norm after the last block.
    pub final_norm: String,
    /// The layer before the unembedding of a masked language model.
    pub transform: Option<TransformSources>,
    /// The unembedding; if it is tied, only its bias is looked up.
    pub unembed: LinearSource,
    /// Where the weights of block l are.
    pub layer: Box<dyn Fn(usize) -> LayerSources>,
}

/// Where the layer before the unembedding of a masked language model is.
#[derive(Debug, Clone)]
pub struct TransformSources {
    /// The projection `[d_model, d_model]`.
    pub dense: LinearSource,
    /// The norm, without `.weight`.
    pub norm: String,
}

impl Sources {
    /// A model with a token embedding, blocks, a final norm, and an unembedding called `lm_head`, and nothing else outside the
    /// blocks.
    pub fn new(embed: String, final_norm: String, layer: impl Fn(usize) -> LayerSources + 'static) -> Self {
        Self {
            embed,
            project_in: LinearSource::default(),
            project_out: LinearSource::default(),
            positions: None,
            token_types: None,
            embed_norm: None,
            final_norm,
            transform: None,
            unembed: LinearSource::new("lm_head", false),
            layer: Box::new(layer),
        }
    }
}

/// Where the weights of one block are. Norms are named without `.weight`. Names of norms that the architecture does not have may be
/// empty; they are not looked up.
#[derive(Debug, Clone, Default)]
pub struct LayerSources {
    /// Norm before attention.
    pub ln1: String,
    /// Query projection.
    pub q: LinearSource,
    /// Key projection.
    pub k: LinearSource,
    /// Value projection.
    pub v: LinearSource,
    /// Output projection.
    pub o: LinearSource,
    /// Norm of the queries.
    pub q_norm: String,
    /// Norm of the keys.
    pub k_norm: String,
    /// Norm after attention.
    pub ln1_post: String,
    /// Norm before the MLP.
    pub ln2: String,
    /// First, or gate, projection of the MLP.
    pub gate: LinearSource,
    /// Second projection of a gated MLP.
    pub up: Option<LinearSource>,
    /// Projection back.
    pub down: LinearSource,
    /// The mixture of experts that a sparse block has instead of these three.
    pub experts: Option<ExpertSources>,
    /// Norm after the MLP.
    pub ln2_post: String,
}

/// Where the projections of one expert are.
#[derive(Debug, Clone)]
pub struct ExpertSource {
    /// Gate projection.
    pub gate: LinearSource,
    /// Up projection.
    pub up: LinearSource,
    /// Projection back.
    pub down: LinearSource,
}

impl ExpertSource {
    /// Three tensors, `{name}.{gate}`, `{name}.{up}` and `{name}.{down}`.
    pub fn separate(name: &str, [gate, up, down]: [&str; 3]) -> Self {
        let linear = |part: &str| LinearSource::new(format!("{name}.{part}"), false);
        Self { gate: linear(gate), up: linear(up), down: linear(down) }
    }

    /// Entry `index` of the tensors `{name}.gate_up_proj` `[count, 2 · d_expert, in]`, with the rows of the gate before those of the
    /// up projection, and `{name}.down_proj` `[count, in, d_expert]`.
    fn stacked(name: &str, index: usize, count: usize, d_expert: usize) -> Self {
        let gate_up = |first| {
            let stack = LinearSource::stacked(format!("{name}.gate_up_proj"), index, count);
            stack.part(2 * d_expert, RowOrder::From(first))
        };
        let down = LinearSource::stacked(format!("{name}.down_proj"), index, count);
        Self { gate: gate_up(0), up: gate_up(d_expert), down }
    }
}

/// Where the weights of a mixture of experts are.
#[derive(Debug, Clone)]
pub struct ExpertSources {
    /// The router, from the residual stream to a logit for each expert.
    pub router: LinearSource,
    /// The prefix of the routed experts' names, without a dot.
    pub experts: String,
    /// Names of the gate, up and down projection, where each expert has its own tensors.
    pub projections: [&'static str; 3],
    /// The shared expert, and its gate.
    pub shared: Option<(ExpertSource, LinearSource)>,
}

impl ExpertSources {
    /// Expert `e`. Published checkpoints have tensors for each expert; transformers 5 can also write all experts as one tensor.
    pub fn expert(&self, e: usize, of: Experts, checkpoint: &Checkpoint) -> ExpertSource {
        let Self { experts, projections, .. } = self;
        if checkpoint.has(&format!("{experts}.gate_up_proj")) {
            ExpertSource::stacked(experts, e, of.n_experts, of.d_expert)
        } else {
            ExpertSource::separate(&format!("{experts}.{e}"), *projections)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_orders_invert_how_checkpoints_store_heads() {
        // One head of 6 rows, stored 0 3 1 4 2 5: row 0 stays first, row 1 is found third.
        let unpermuted: Vec<usize> = (0..6).map(|i| RowOrder::Unpermuted { d_head: 6 }.stored(i)).collect();
        assert_eq!(unpermuted, [0, 2, 4, 1, 3, 5]);
        // Two heads of 2 rows, stored q0 k0 v0 q1 k1 v1: the keys.
        let keys: Vec<usize> = (0..4).map(|i| RowOrder::PerHead { d_head: 2, period: 6, first: 2 }.stored(i)).collect();
        assert_eq!(keys, [2, 3, 8, 9]);
    }

    #[test]
    fn fused_projections_store_each_group_of_heads_together() {
        let rows = |n: usize, source: &LinearSource| (0..n).map(|i| source.order.stored(i)).collect::<Vec<_>>();
        // Four query heads of one row, two of keys and values: q0 q1 k0 v0 q2 q3 k1 v1.
        let [q, k, v] = LinearSource::fused("qkv", false, 4, 2, 1);
        assert_eq!((rows(4, &q), rows(2, &k), rows(2, &v)), (vec![0, 1, 4, 5], vec![2, 6], vec![3, 7]));
        assert_eq!(q.stored_rows, Some(8));
        // One key and value for all: q0 q1 q2 k v.
        let [q, k, v] = LinearSource::fused("qkv", false, 3, 1, 1);
        assert_eq!((rows(3, &q), rows(1, &k), rows(1, &v)), (vec![0, 1, 2], vec![3], vec![4]));
    }
}
