//! The architecture of a model as data: what a forward pass computes, whatever the family. It knows no weights and no files.

pub mod alibi;
mod description;
pub mod rope;

use crate::ops::activation::Activation;
use alibi::Alibi;
use rope::Rope;

/// The complete description of a decoder or encoder.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// `model_type` of the checkpoint.
    pub model_type: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; query head h reads key/value head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Neurons of a dense MLP, or of one routed expert if no layer has a dense MLP.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub d_vocab: usize,
    /// Longest input.
    pub n_ctx: usize,
    /// The embedding.
    pub embedding: Embedding,
    /// Kind of every norm.
    pub norm: NormKind,
    /// How the outputs of sublayers are added to the residual stream.
    pub residual: Residual,
    /// The blocks in order.
    pub layers: Vec<Layer>,
    /// Rotary embeddings, which layers refer to by index.
    pub ropes: Vec<Rope>,
    /// Whether rotary pairs are (2i, 2i+1) instead of (i, i + half).
    pub rope_interleaved: bool,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Queries and keys (after their norms) and values are clamped to ± this positive number.
    pub qkv_clip: Option<f32>,
    /// Factor of the scores, usually `1/√d_head`.
    pub attention_scale: f32,
    /// Scores become `cap · tanh(score / cap)`.
    pub score_softcap: Option<f32>,
    /// Linear position biases of the scores.
    pub alibi: Option<Alibi>,
    /// Whether a token sees only itself and earlier tokens.
    pub causal: bool,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Whether the MLP multiplies the activation with a second projection.
    pub gated: bool,
    /// The mixture of experts that sparse layers have in place of a dense MLP.
    pub experts: Option<Experts>,
    /// Factor of each sublayer's output before it is added to the residual stream.
    pub residual_multiplier: Option<f32>,
    /// Whether a norm follows the last block.
    pub final_norm: bool,
    /// The unembedding; absent in checkpoints without an LM head.
    pub unembedding: Option<Unembedding>,
}

/// The sizes that every model has.
#[derive(Debug, Clone)]
pub struct Size {
    /// `model_type` of the checkpoint.
    pub model_type: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Neurons of the MLP.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub d_vocab: usize,
    /// Longest input.
    pub n_ctx: usize,
    /// Blocks.
    pub n_layers: usize,
}

impl Architecture {
    /// A plain decoder of this size: sequential blocks with layer norms before both sublayers, scores scaled by `1/√d_head`, an
    /// MLP of two projections with GELU between them, a final norm, no positions and no unembedding. A family overrides what
    /// differs.
    pub fn plain(size: Size) -> Self {
        Self {
            model_type: size.model_type,
            d_model: size.d_model,
            n_heads: size.n_heads,
            n_kv_heads: size.n_kv_heads,
            d_head: size.d_head,
            d_mlp: size.d_mlp,
            d_vocab: size.d_vocab,
            n_ctx: size.n_ctx,
            embedding: Embedding::default(),
            norm: NormKind::Layer { eps: 1e-5, gain: true, bias: true },
            residual: Residual::Sequential,
            layers: vec![Layer { rope: None, ..Layer::PRE_NORM }; size.n_layers],
            ropes: Vec::new(),
            rope_interleaved: false,
            qk_norm: None,
            qkv_clip: None,
            attention_scale: head_scale(size.d_head),
            score_softcap: None,
            alibi: None,
            causal: true,
            activation: Activation::Gelu,
            gated: false,
            experts: None,
            residual_multiplier: None,
            final_norm: true,
            unembedding: None,
        }
    }

    /// The mixture of experts of a layer; `None` where its MLP is dense.
    pub fn experts_of(&self, layer: Layer) -> Option<Experts> {
        self.experts.filter(|_| layer.sparse)
    }

    /// The same with rotary positions; every layer uses the first of `ropes`.
    pub fn with_ropes(mut self, ropes: Vec<Rope>) -> Self {
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(0));
        self.ropes = ropes;
        self
    }
}

/// `1/√d_head`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a head is small")]
pub fn head_scale(d_head: usize) -> f32 {
    (d_head as f64).powf(-0.5) as f32
}

/// The embedding.
#[derive(Debug, Clone, Default)]
pub struct Embedding {
    /// Width of the token embedding, if it differs from that of the residual stream (OPT-350m): embeddings are projected into
    /// the stream, and the input of the unembedding is projected back.
    pub projected: Option<usize>,
    /// Factor of the token embedding.
    pub scale: Option<f32>,
    /// Learned positions.
    pub positions: Option<LearnedPositions>,
    /// Number of token types; every token has type 0.
    pub token_types: Option<usize>,
    /// Whether a norm follows the embedding.
    pub norm: bool,
}

/// A table of learned position embeddings: position p reads row `p + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedPositions {
    /// Row of position 0.
    pub offset: usize,
    /// A padding token, which takes no position: it reads the row before that of position 0, and later tokens are counted
    /// without it (RoBERTa).
    pub padding: Option<u32>,
}

impl LearnedPositions {
    /// The row that each token of an input reads; `before` earlier tokens have taken a position.
    pub fn rows(self, token_ids: &[u32], before: usize) -> impl Iterator<Item = usize> {
        let mut next = self.offset + before;
        token_ids.iter().map(move |id| {
            if self.padding == Some(*id) {
                return self.offset - 1;
            }
            next += 1;
            next - 1
        })
    }
}

/// The kind of a model's norms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormKind {
    /// `x / √(mean(x²) + eps) · gain`; `gain_offset` is added to the stored gain (1 for Gemma).
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// Added to the stored gain.
        gain_offset: f32,
    },
    /// `(x - mean) / √(var + eps) · gain + bias`.
    Layer {
        /// Added to the variance.
        eps: f32,
        /// Whether there is a gain.
        gain: bool,
        /// Whether there is a bias.
        bias: bool,
    },
}

/// How the outputs of the sublayers of a block are added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x += attn(ln1(x)); x += mlp(ln2(x))`.
    Sequential,
    /// `x += attn(ln1(x)) + mlp(ln2(x))`, or `mlp(ln1(x))` where a layer has no second norm.
    Parallel,
    /// `x = ln1(x + attn(x)); x = ln2(x + mlp(x))`.
    PostNorm,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Index of its rotary embedding; `None` for a layer without rotary positions.
    pub rope: Option<usize>,
    /// Sliding window: a query sees keys with `key > query - window`; where attention is not causal, those within
    /// `window / 2` on both sides.
    pub window: Option<usize>,
    /// Norm before attention; in post-norm blocks, which always have it, after attention is added to the residual stream.
    pub ln1: bool,
    /// Norm of the output of attention.
    pub ln1_post: bool,
    /// Norm before the MLP; in post-norm blocks, which always have it, after the MLP is added to the residual stream.
    pub ln2: bool,
    /// Norm of the output of the MLP.
    pub ln2_post: bool,
    /// Whether the MLP is the architecture's mixture of experts.
    pub sparse: bool,
}

impl Layer {
    /// Norms before (in post-norm blocks after) both sublayers, full attention, the first rotary embedding, a dense MLP.
    pub const PRE_NORM: Self =
        Self { rope: Some(0), window: None, ln1: true, ln1_post: false, ln2: true, ln2_post: false, sparse: false };
}

/// Norms of queries and keys, before RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head is normalised on its own, with one gain `[d_head]` for all heads.
    PerHead,
    /// All heads of a token are normalised together, gain `[heads · d_head]`.
    AllHeads,
}

/// A mixture of experts: a router sends each token to a few experts (Shazeer et al., 2017).
///
/// The router's logits become probabilities by a softmax over all experts. The token goes to the `top_k` most probable experts,
/// and their outputs are added, weighted by these probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Number of routed experts.
    pub n_experts: usize,
    /// Number of experts that each token goes to, at most all.
    pub top_k: usize,
    /// Neurons of one routed expert.
    pub d_expert: usize,
    /// Whether the probabilities of the chosen experts are divided by their sum.
    pub renormalise: bool,
    /// Neurons of a shared expert, if any: every token goes to it, and its output is weighted by its own sigmoid gate.
    pub d_shared: Option<usize>,
}

/// The unembedding: from the residual stream to logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Unembedding {
    /// Whether its weight is the token embedding.
    pub tied: bool,
    /// In masked language models, a projection `[d_model, d_model]`, this activation and a norm come first.
    pub transform: Option<Activation>,
    /// Factor of the logits.
    pub scale: Option<f32>,
    /// Logits become `cap · tanh(logit / cap)`.
    pub softcap: Option<f32>,
}
