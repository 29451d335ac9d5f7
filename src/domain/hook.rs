//! Hook points: the named places of a forward pass, spelled as TransformerLens spells them.
//!
//! A [`Site`] is a kind of place (`attn.hook_q`), a [`Hook`] is a site in one layer (`blocks.5.attn.hook_q`) or
//! one outside the blocks (`logits`). Hooks order as the forward pass reaches them, which is also the order of the
//! tensors in a blob. Post-norm blocks run `ln1` and `ln2` behind the sublayers; the order is the same for them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What one axis of a captured tensor runs over.
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

/// Where in the model a site lies, in the order the forward pass gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
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

            /// The full name; for a site inside the blocks, the part behind `blocks.{l}.`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The axes of one input's tensor when all positions are kept.
            #[must_use]
            pub const fn axes(self) -> &'static [Axis] {
                match self { $(Self::$variant => &[$(Axis::$axis),*],)* }
            }

            const fn stage(self) -> Stage {
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
    /// After the norm that follows the embedding, where there is one.
    EmbedLnOut = Embedding, "embed_ln.hook_out", [Pos, DModel];
    /// Input of the block.
    ResidPre = Block, "hook_resid_pre", [Pos, DModel];
    /// Denominator of the norm before attention (post-norm: of `hook_resid_mid`).
    Ln1Scale = Block, "ln1.hook_scale", [Pos, One];
    /// Normalised before attention (post-norm: `hook_resid_mid`), without gain and bias.
    Ln1Normalized = Block, "ln1.hook_normalized", [Pos, DModel];
    /// What attention receives.
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
    /// What the MLP receives.
    MlpIn = Block, "mlp.hook_in", [Pos, DModel];
    /// Gate (or only) pre-activation.
    MlpPre = Block, "mlp.hook_pre", [Pos, DMlp];
    /// Up projection of a gated MLP.
    MlpPreLinear = Block, "mlp.hook_pre_linear", [Pos, DMlp];
    /// Neurons: after the activation, gate × up.
    MlpPost = Block, "mlp.hook_post", [Pos, DMlp];
    /// Router logits of a mixture of experts, one for each routed expert.
    RouterLogits = Block, "mlp.hook_router_logits", [Pos, Expert];
    /// What the outputs of the chosen experts are multiplied with, best first: their probabilities, divided by their sum
    /// where the model does that.
    ExpertWeights = Block, "mlp.hook_expert_weights", [Pos, TopK];
    /// Indices of the chosen experts, best first, as numbers; of equal ones the lower index. Exact in float16 up to 2048
    /// and in bfloat16 up to 256: a model with more experts wants float32.
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
    /// What the unembedding receives.
    FinalNorm = Head, "final_norm", [Pos, DModel];
    /// Logits, after softcap or scale.
    Logits = Head, "logits", [Pos, DVocab];
}

impl Site {
    /// Whether each block has one.
    #[must_use]
    pub fn in_block(self) -> bool {
        self.stage() == Stage::Block
    }

    /// Whether this is an attention map `[head, q, k]`, whose rows are queries and differ in length between inputs.
    #[must_use]
    pub fn is_attention_map(self) -> bool {
        matches!(self, Self::AttnScores | Self::Pattern)
    }

    /// Whether the numbers are indices, of which a mean says nothing.
    #[must_use]
    pub fn is_index(self) -> bool {
        self == Self::ExpertIndices
    }

    /// The full name without `hook_`: what a short name may leave out. Outside the blocks it is an alias too.
    fn without_hook(self) -> String {
        self.name().replacen("hook_", "", 1)
    }

    /// What TransformerLens calls the same place beside its canonical name (`hook_aliases` of its TransformerBridge's
    /// blocks, and the outputs of its norm and position embedding). Near names are none: its `unembed.hook_out`
    /// precedes a softcap, its `embed.hook_out` an embedding scale, its `ln2.hook_in` is no `hook_resid_mid` on every family.
    const SYNONYMS: &'static [(&'static str, Self)] = &[
        ("hook_in", Self::ResidPre),
        ("hook_out", Self::ResidPost),
        ("pos_embed.hook_out", Self::PosEmbed),
        ("ln_final.hook_out", Self::FinalNorm),
        ("ln_final.out", Self::FinalNorm),
    ];

    /// Reads a site by its name without a layer, with or without `hook_`, or by a synonym.
    #[must_use]
    pub fn by_short_name(name: &str) -> Option<Self> {
        let synonym = || Self::SYNONYMS.iter().find(|(synonym, _)| *synonym == name).map(|(_, site)| *site);
        Self::ALL.iter().copied().find(|s| s.name() == name || s.without_hook() == name).or_else(synonym)
    }
}

/// One hook point of a model: a site, and the layer for those inside the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hook {
    site: Site,
    layer: Option<u32>,
}

impl Hook {
    /// A hook inside block `layer`.
    ///
    /// # Panics
    /// When the site is not one inside the blocks: that is a mistake in the calling code.
    #[must_use]
    pub fn block(site: Site, layer: usize) -> Self {
        assert!(site.in_block(), "{} lies outside the blocks", site.name());
        Self { site, layer: Some(u32::try_from(layer).expect("a model has fewer than 2^32 layers")) }
    }

    /// A hook outside the blocks.
    ///
    /// # Panics
    /// When the site is one inside the blocks: that is a mistake in the calling code.
    #[must_use]
    pub fn global(site: Site) -> Self {
        assert!(!site.in_block(), "{} needs a layer", site.name());
        Self { site, layer: None }
    }

    /// The kind of place.
    #[must_use]
    pub fn site(&self) -> Site {
        self.site
    }

    /// The 0-based block index, for hooks inside the blocks.
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        self.layer.map(|l| l as usize)
    }

    /// Sort key: execution order.
    fn order(&self) -> (Stage, u32, Site) {
        (self.site.stage(), self.layer.unwrap_or(0), self.site)
    }
}

impl Ord for Hook {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Hook {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(l) => write!(f, "blocks.{l}.{}", self.site.name()),
            None => f.write_str(self.site.name()),
        }
    }
}

/// A hook name as a client writes it: a full name, or a site whose layers are named elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookName {
    /// One hook: `blocks.5.hook_resid_post`, `resid_post.5`, `logits`.
    Full(Hook),
    /// A site of several layers: `resid_post`, `attn.pattern`.
    Short(Site),
}

impl FromStr for HookName {
    type Err = UnknownHook;

    fn from_str(name: &str) -> Result<Self, UnknownHook> {
        let unknown = || UnknownHook(name.chars().take(100).collect());
        if let Some(rest) = name.strip_prefix("blocks.") {
            let (layer, rest) = rest.split_once('.').ok_or_else(unknown)?;
            let site = Site::by_short_name(rest).filter(|s| s.in_block()).ok_or_else(unknown)?;
            return Ok(Self::Full(Hook { site, layer: Some(parse_layer(layer).ok_or_else(unknown)?) }));
        }
        if let Some(site) = Site::by_short_name(name) {
            return Ok(if site.in_block() { Self::Short(site) } else { Self::Full(Hook::global(site)) });
        }
        // `resid_post.10`
        let (short, layer) = name.rsplit_once('.').ok_or_else(unknown)?;
        let site = Site::by_short_name(short).filter(|s| s.in_block()).ok_or_else(unknown)?;
        Ok(Self::Full(Hook { site, layer: Some(parse_layer(layer).ok_or_else(unknown)?) }))
    }
}

/// Digits only: `+5`, `05` and `-1` are not layers of a hook's name.
fn parse_layer(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

impl FromStr for Hook {
    type Err = UnknownHook;

    /// Reads the name of one hook; a short name that leaves the layer open is not one.
    fn from_str(name: &str) -> Result<Self, UnknownHook> {
        match name.parse()? {
            HookName::Full(hook) => Ok(hook),
            HookName::Short(_) => Err(UnknownHook(name.chars().take(100).collect())),
        }
    }
}

impl Serialize for Hook {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name that is no hook point of any model (its first hundred characters).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hook point named `{0}`")]
pub struct UnknownHook(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_in_each_spelling() {
        for site in Site::ALL.iter().copied() {
            let hook = if site.in_block() { Hook::block(site, 7) } else { Hook::global(site) };
            assert_eq!(hook.to_string().parse(), Ok(hook));
            assert_eq!(Site::by_short_name(&site.without_hook()), Some(site), "{}", site.name());
            if site.in_block() {
                assert_eq!(format!("{}.7", site.without_hook()).parse(), Ok(hook));
                assert_eq!(site.name().parse(), Ok(HookName::Short(site)));
            }
        }
    }

    #[test]
    fn no_name_means_two_places() {
        let names = |s: &Site| {
            if s.name() == s.without_hook() {
                vec![s.name().to_owned()]
            } else {
                vec![s.name().to_owned(), s.without_hook()]
            }
        };
        let synonyms = Site::SYNONYMS.iter().map(|(name, _)| (*name).to_owned());
        let mut all: Vec<String> = Site::ALL.iter().flat_map(names).chain(synonyms).collect();
        // A short name ends in no number: `resid_post.10` is layer 10.
        assert!(all.iter().all(|name| name.rsplit('.').next().and_then(parse_layer).is_none()));
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    #[test]
    fn transformer_lens_synonyms_have_the_canonical_name() {
        for (synonym, name) in [
            ("blocks.5.hook_in", "blocks.5.hook_resid_pre"),
            ("blocks.5.hook_out", "blocks.5.hook_resid_post"),
            ("hook_out.5", "blocks.5.hook_resid_post"),
            ("pos_embed.hook_out", "hook_pos_embed"),
            ("ln_final.hook_out", "final_norm"),
        ] {
            assert_eq!(synonym.parse::<Hook>().map(|h| h.to_string()), Ok(name.to_owned()));
        }
        assert_eq!("hook_out".parse(), Ok(HookName::Short(Site::ResidPost)));
    }

    #[test]
    fn near_names_are_different_hooks_or_none() {
        assert_eq!("attn_out".parse(), Ok(HookName::Short(Site::AttnOut)));
        assert_eq!("attn.out".parse(), Ok(HookName::Short(Site::AttnRawOut)));
        assert_eq!("ln_final.hook_out".parse(), Ok(Hook::global(Site::FinalNorm)));
        for name in [
            "resid",
            "blocks.x.hook_resid_post",
            "blocks.-1.hook_resid_post",
            "blocks.05.hook_resid_post",
            "blocks.3.logits",
            "blocks.3",
            "resid_post.+1",
            "",
            "hook_hook_embed",
            "out",
            "blocks.3.in",
            "unembed.hook_out",
            "embed.hook_out",
            "blocks.3.ln2.hook_in",
        ] {
            assert!(name.parse::<HookName>().is_err(), "{name}");
        }
    }

    #[test]
    fn hooks_sort_as_the_forward_pass_reaches_them() {
        let mut names: Vec<Hook> = [
            "logits",
            "blocks.1.hook_resid_pre",
            "blocks.0.hook_resid_post",
            "hook_embed",
            "blocks.0.attn.hook_z",
            "final_norm",
        ]
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
        names.sort();
        let sorted: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            sorted,
            [
                "hook_embed",
                "blocks.0.attn.hook_z",
                "blocks.0.hook_resid_post",
                "blocks.1.hook_resid_pre",
                "final_norm",
                "logits"
            ]
        );
    }
}
