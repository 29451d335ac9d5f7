//! The description of a model: its sizes and its hook points. It has no weights.

use serde::{Deserialize, Serialize};

use super::hook::{Axis, Hook, Site};

/// A hook point of a model, with the shape one input's tensor has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookInfo {
    /// The hook.
    pub hook: Hook,
    /// Sizes of the axes; `None` if a size depends on the input (positions).
    pub shape: Vec<Option<usize>>,
    /// The axes.
    pub axes: &'static [Axis],
}

/// A served model: its sizes and its hook points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name clients use.
    pub id: String,
    /// `model_type` of the checkpoint: `llama`, `gpt2`, …
    pub architecture: String,
    /// blake3 of weights, config and tokenizer, in hex.
    pub fingerprint: String,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Neurons of a dense MLP, or of one expert if no block has a dense MLP.
    pub d_mlp: usize,
    /// Size of the vocabulary (rows of the embedding).
    pub d_vocab: usize,
    /// Longest input.
    pub n_ctx: usize,
    /// Routed experts, 0 when the MLPs are dense.
    pub n_experts: usize,
    /// Experts per token, 0 when the MLPs are dense.
    pub top_k: usize,
    /// Type of the weights in the checkpoint (`Q4_1`, `bfloat16`, …); several types are joined by `+`.
    pub weights_dtype: String,
    /// Type in which the forward pass computes.
    pub compute_dtype: String,
    /// Devices it runs on: `cpu`, `cuda:0`, or several, `cuda:0,cuda:1`.
    pub device: String,
    /// Number of parameters.
    pub n_params: u64,
    /// Whether each token also sees later tokens (encoders); then the default position is the mean.
    pub bidirectional: bool,
    /// Sites in execution order, each with the layers that have it (`None` outside the blocks).
    pub sites: Vec<SiteLayers>,
}

/// A site of a model, and the blocks that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteLayers {
    /// Name of the site.
    #[serde(with = "site_name")]
    pub site: Site,
    /// Blocks that have it, ascending; empty for a site outside the blocks.
    pub layers: Vec<u32>,
}

mod site_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Site;

    pub fn serialize<S: Serializer>(site: &Site, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(site.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Site, D::Error> {
        let name = String::deserialize(d)?;
        Site::by_short_name(&name).ok_or_else(|| D::Error::custom(format!("unknown site {name}")))
    }
}

impl ModelInfo {
    /// Layers that have `site`; `None` when the model has it nowhere.
    #[must_use]
    pub fn layers_with(&self, site: Site) -> Option<&[u32]> {
        self.sites.iter().find(|s| s.site == site).map(|s| s.layers.as_slice())
    }

    /// Whether the model has this hook.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.layers_with(hook.site()).is_some_and(|layers| match hook.layer() {
            Some(l) => layers.iter().any(|x| *x as usize == l),
            None => true,
        })
    }

    /// Size of one axis; `None` for the axes that run over the input's positions.
    #[must_use]
    pub fn axis_size(&self, axis: Axis) -> Option<usize> {
        match axis {
            Axis::DModel => Some(self.d_model),
            Axis::Head => Some(self.n_heads),
            Axis::KvHead => Some(self.n_kv_heads),
            Axis::DHead => Some(self.d_head),
            Axis::DMlp => Some(self.d_mlp),
            Axis::DVocab => Some(self.d_vocab),
            Axis::Expert => Some(self.n_experts),
            Axis::TopK => Some(self.top_k),
            Axis::One => Some(1),
            Axis::Pos | Axis::QPos | Axis::KPos | Axis::Layer | Axis::Item | Axis::Row | Axis::Feature => None,
        }
    }

    /// Shape of one position's row of `site`: the axes after the position. Attention maps have no position axis.
    #[must_use]
    pub fn row_shape(&self, site: Site) -> Vec<usize> {
        site.axes().iter().filter_map(|a| self.axis_size(*a)).collect()
    }

    /// Every hook point, in execution order within a site's layers.
    #[must_use]
    pub fn catalogue(&self) -> Vec<HookInfo> {
        let mut hooks: Vec<HookInfo> = self
            .sites
            .iter()
            .flat_map(|s| {
                let shape: Vec<_> = s.site.axes().iter().map(|a| self.axis_size(*a)).collect();
                let hooks: Vec<Hook> = if s.site.in_block() {
                    s.layers.iter().map(|l| Hook::block(s.site, *l as usize)).collect()
                } else {
                    vec![Hook::global(s.site)]
                };
                hooks.into_iter().map(move |hook| HookInfo { hook, shape: shape.clone(), axes: s.site.axes() })
            })
            .collect();
        hooks.sort_by_key(|h| h.hook);
        hooks
    }

    /// Names of the sites for error messages: the full name if a site has one hook, else with `{l}`.
    #[must_use]
    pub fn site_names(&self) -> String {
        let names: Vec<String> =
            self.sites
                .iter()
                .map(|s| {
                    if s.site.in_block() { format!("blocks.{{l}}.{}", s.site.name()) } else { s.site.name().to_owned() }
                })
                .collect();
        names.join(", ")
    }
}
