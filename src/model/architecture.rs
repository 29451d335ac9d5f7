//! What a transformer computes, as data: one description covers every family, and one forward pass executes it.

use super::{alibi::Alibi, ops::activation::Activation, rope::Rope};

/// A decoder or encoder, completely described.
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
    /// Neurons of a dense MLP, or of one expert.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub d_vocab: usize,
    /// Longest input.
    pub n_ctx: usize,
    /// What stands before the first block.
    pub embedding: Embedding,
    /// Kind of every norm.
    pub norm: NormKind,
    /// How sublayers join the residual stream.
    pub residual: Residual,
    /// The blocks in order.
    pub layers: Vec<Layer>,
    /// Rotary tables the layers refer to.
    pub ropes: Vec<Rope>,
    /// Rotary pairs are (2i, 2i+1) instead of (i, i + half).
    pub rope_interleaved: bool,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Factor of the scores, usually `1/√d_head`.
    pub attention_scale: f32,
    /// Scores become `cap · tanh(score / cap)`.
    pub score_softcap: Option<f32>,
    /// Linear position biases of the scores.
    pub alibi: Option<Alibi>,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Whether the MLP multiplies the activation with a second projection.
    pub gated: bool,
    /// Factor of each sublayer's output before it joins the residual stream.
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
    /// The plainest decoder of this size: sequential blocks with layer norms before both sublayers, scores times
    /// `1/√d_head`, an MLP of two projections with GELU between them, a final norm. It has no positions and no
    /// unembedding. A family says what it has besides or does otherwise.
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
            attention_scale: head_scale(size.d_head),
            score_softcap: None,
            alibi: None,
            causal: true,
            activation: Activation::Gelu,
            gated: false,
            residual_multiplier: None,
            final_norm: true,
            unembedding: None,
        }
    }

    /// The same with rotary positions: every layer uses the first table.
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

/// What stands before the first block.
#[derive(Debug, Clone, Default)]
pub struct Embedding {
    /// Width of the token embedding where it is not that of the residual stream (OPT-350m): tokens are projected into
    /// the stream, and what the unembedding receives is projected back.
    pub projected: Option<usize>,
    /// Factor of the token embedding.
    pub scale: Option<f32>,
    /// Learned positions: position p reads row `p + offset`.
    pub positions: Option<LearnedPositions>,
    /// Whether a norm follows.
    pub norm: bool,
}

/// A table of learned position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedPositions {
    /// Row of position 0.
    pub offset: usize,
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

/// How the sublayers of a block join the residual stream.
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
    /// Index of its rotary table; `None` for a layer without rotary positions.
    pub rope: Option<usize>,
    /// Sliding window: a query sees keys with `key > query - window`.
    pub window: Option<usize>,
    /// Norm before attention; after its sum with the residual stream in post-norm blocks, which have it always.
    pub ln1: bool,
    /// Norm of the output of attention.
    pub ln1_post: bool,
    /// Norm before the MLP; after its sum with the residual stream in post-norm blocks, which have it always.
    pub ln2: bool,
    /// Norm of the output of the MLP.
    pub ln2_post: bool,
}

impl Layer {
    /// Norms before (or in post-norm blocks after) both sublayers, full attention, the first rotary table.
    pub const PRE_NORM: Self =
        Self { rope: Some(0), window: None, ln1: true, ln1_post: false, ln2: true, ln2_post: false };
}

/// Norms of queries and keys, before RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head is normalised on its own, with one gain `[d_head]` for all heads.
    PerHead,
    /// All heads of a token are normalised together, gain `[heads · d_head]`.
    AllHeads,
}

/// From the residual stream to logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Unembedding {
    /// Whether it is the token embedding.
    pub tied: bool,
    /// Factor of the logits.
    pub scale: Option<f32>,
    /// Logits become `cap · tanh(logit / cap)`.
    pub softcap: Option<f32>,
}
