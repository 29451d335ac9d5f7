//! All kinds of hook points, with their names and axes, in the order of execution.

use serde::{Deserialize, Serialize};

/// An axis of a captured tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Token position of the unpadded input.
    Pos,
    /// The residual stream.
    DModel,
    /// Attention (query) head.
    Head,
    /// Key/value head.
    KvHead,
    /// The dimension of one head.
    DHead,
    /// Query position.
    QPos,
    /// Key position.
    KPos,
    /// MLP neuron.
    DMlp,
    /// Vocabulary entry.
    DVocab,
    /// Expert of a mixture.
    Expert,
    /// The experts chosen for a token, best first.
    TopK,
    /// A norm's single denominator.
    One,
    /// Stacked layers.
    Layer,
    /// Stacked caches of a run.
    Item,
    /// Rows of several caches, one after the other.
    Row,
    /// The values of one position's row, its axes flattened; or the features of a sparse autoencoder.
    Feature,
}

impl Axis {
    /// The name the API gives this axis.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pos => "pos",
            Self::DModel => "d_model",
            Self::Head => "head",
            Self::KvHead => "kv_head",
            Self::DHead => "d_head",
            Self::QPos => "q_pos",
            Self::KPos => "k_pos",
            Self::DMlp => "d_mlp",
            Self::DVocab => "d_vocab",
            Self::Expert => "expert",
            Self::TopK => "top_k",
            Self::One => "one",
            Self::Layer => "layer",
            Self::Item => "item",
            Self::Row => "row",
            Self::Feature => "feature",
        }
    }
}

/// The part of the model that a site belongs to, in the order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Embedding,
    Block,
    Head,
}

macro_rules! sites {
    ($($(#[$doc:meta])* $variant:ident = $stage:ident, $name:literal, [$($axis:ident),*];)*) => {
        /// A kind of hook point. The order of the variants is the order of execution.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Site { $($(#[$doc])* $variant,)* }

        impl Site {
            /// Every site, in order of execution.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The full name; for a site inside the blocks, the part after `blocks.{l}.`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The axes of one input's tensor when all positions are kept.
            #[must_use]
            pub const fn axes(self) -> &'static [Axis] {
                match self { $(Self::$variant => &[$(Axis::$axis),*],)* }
            }

            pub(super) const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }
        }
    };
}

sites! {
    /// Token embedding, after any embedding scale.
    Embed = Embedding, "hook_embed", [Pos, DModel];
    /// Learned position embedding.
    PosEmbed = Embedding, "hook_pos_embed", [Pos, DModel];
    /// Token type (segment) embedding.
    TypeEmbed = Embedding, "hook_type_embed", [Pos, DModel];
    /// Output of the norm after the embedding, if there is one.
    EmbedLnOut = Embedding, "embed_ln.hook_out", [Pos, DModel];
    /// Input of the block.
    ResidPre = Block, "hook_resid_pre", [Pos, DModel];
    /// Denominator of the norm before attention (post-norm: of `hook_resid_mid`).
    Ln1Scale = Block, "ln1.hook_scale", [Pos, One];
    /// Normalised before attention (post-norm: `hook_resid_mid`), without gain and bias.
    Ln1Normalized = Block, "ln1.hook_normalized", [Pos, DModel];
    /// Input of attention.
    AttnIn = Block, "attn.hook_in", [Pos, DModel];
    /// Query projection, before QK-norm and RoPE.
    Q = Block, "attn.hook_q", [Pos, Head, DHead];
    /// Key projection, before QK-norm and RoPE.
    K = Block, "attn.hook_k", [Pos, KvHead, DHead];
    /// Value projection, before any clipping.
    V = Block, "attn.hook_v", [Pos, KvHead, DHead];
    /// Query after QK-norm, any clipping, and RoPE.
    RotQ = Block, "attn.hook_rot_q", [Pos, Head, DHead];
    /// Key after QK-norm, any clipping, and RoPE.
    RotK = Block, "attn.hook_rot_k", [Pos, KvHead, DHead];
    /// Scaled, softcapped, masked with -inf.
    AttnScores = Block, "attn.hook_attn_scores", [Head, QPos, KPos];
    /// Softmax of the scores.
    Pattern = Block, "attn.hook_pattern", [Head, QPos, KPos];
    /// Per head, before the output projection.
    Z = Block, "attn.hook_z", [Pos, Head, DHead];
    /// Per head, after its slice of the output projection.
    AttnResult = Block, "attn.hook_result", [Pos, Head, DModel];
    /// Raw output of attention, before any post-norm or multiplier.
    AttnRawOut = Block, "attn.hook_out", [Pos, DModel];
    /// Denominator of the norm after attention.
    Ln1PostScale = Block, "ln1_post.hook_scale", [Pos, One];
    /// Normalised after attention, without gain and bias.
    Ln1PostNormalized = Block, "ln1_post.hook_normalized", [Pos, DModel];
    /// What attention adds to the residual stream.
    AttnOut = Block, "hook_attn_out", [Pos, DModel];
    /// Between attention and MLP (post-norm: the sum before the norm).
    ResidMid = Block, "hook_resid_mid", [Pos, DModel];
    /// Denominator of the norm before the MLP (post-norm: of `mlp.hook_in` + `hook_mlp_out`).
    Ln2Scale = Block, "ln2.hook_scale", [Pos, One];
    /// Normalised before the MLP (post-norm: `mlp.hook_in` + `hook_mlp_out`), without gain and bias.
    Ln2Normalized = Block, "ln2.hook_normalized", [Pos, DModel];
    /// Input of the MLP.
    MlpIn = Block, "mlp.hook_in", [Pos, DModel];
    /// Gate (or only) pre-activation.
    MlpPre = Block, "mlp.hook_pre", [Pos, DMlp];
    /// Up projection of a gated MLP.
    MlpPreLinear = Block, "mlp.hook_pre_linear", [Pos, DMlp];
    /// Neurons: after the activation, gate × up.
    MlpPost = Block, "mlp.hook_post", [Pos, DMlp];
    /// Router logits of a mixture of experts, one for each routed expert.
    RouterLogits = Block, "mlp.hook_router_logits", [Pos, Expert];
    /// Weights of the outputs of the chosen experts, best first: their probabilities, divided by their sum if the model does
    /// that.
    ExpertWeights = Block, "mlp.hook_expert_weights", [Pos, TopK];
    /// Indices of the chosen experts as numbers, best first; among equal ones, the lower index first. They are exact in float16
    /// up to 2048 and in bfloat16 up to 256: for more experts, use float32.
    ExpertIndices = Block, "mlp.hook_expert_indices", [Pos, TopK];
    /// Raw output of the MLP, before any post-norm or multiplier.
    MlpRawOut = Block, "mlp.hook_out", [Pos, DModel];
    /// Denominator of the norm after the MLP.
    Ln2PostScale = Block, "ln2_post.hook_scale", [Pos, One];
    /// Normalised after the MLP, without gain and bias.
    Ln2PostNormalized = Block, "ln2_post.hook_normalized", [Pos, DModel];
    /// What the MLP adds to the residual stream.
    MlpOut = Block, "hook_mlp_out", [Pos, DModel];
    /// Output of the block.
    ResidPost = Block, "hook_resid_post", [Pos, DModel];
    /// Denominator of the final norm.
    LnFinalScale = Head, "ln_final.hook_scale", [Pos, One];
    /// Final norm, without gain and bias.
    LnFinalNormalized = Head, "ln_final.hook_normalized", [Pos, DModel];
    /// Input of the unembedding.
    FinalNorm = Head, "final_norm", [Pos, DModel];
    /// Logits, after softcap or scale.
    Logits = Head, "logits", [Pos, DVocab];
}

impl Site {
    /// Whether it is inside the blocks.
    #[must_use]
    pub fn in_block(self) -> bool {
        self.stage() == Stage::Block
    }

    /// Whether this is an attention map `[head, q, k]`, whose rows are queries and differ in length between inputs.
    #[must_use]
    pub fn is_attention_map(self) -> bool {
        matches!(self, Self::AttnScores | Self::Pattern)
    }

    /// Whether the numbers are indices, whose mean has no meaning.
    #[must_use]
    pub fn is_index(self) -> bool {
        self == Self::ExpertIndices
    }

    /// The short name: the full name without `hook_`. Outside the blocks it is an alias.
    pub(super) fn without_hook(self) -> String {
        self.name().replacen("hook_", "", 1)
    }

    /// TransformerLens's other names for the same hook point (`hook_aliases` of the blocks of its TransformerBridge, and the outputs
    /// of its norm and position embedding). Similar names that are not the same hook point are left out: its `unembed.hook_out`
    /// is before a softcap, its `embed.hook_out` before an embedding scale, and its `ln2.hook_in` is not `hook_resid_mid` in all
    /// families.
    pub(super) const SYNONYMS: &'static [(&'static str, Self)] = &[
        ("hook_in", Self::ResidPre),
        ("hook_out", Self::ResidPost),
        ("pos_embed.hook_out", Self::PosEmbed),
        ("ln_final.hook_out", Self::FinalNorm),
        ("ln_final.out", Self::FinalNorm),
    ];

    /// Finds a site by its name without a layer, with or without `hook_`, or by another name.
    #[must_use]
    pub fn by_short_name(name: &str) -> Option<Self> {
        let synonym = || Self::SYNONYMS.iter().find(|(synonym, _)| *synonym == name).map(|(_, site)| *site);
        Self::ALL.iter().copied().find(|s| s.name() == name || s.without_hook() == name).or_else(synonym)
    }
}
