//! The terms whose sum is a logit, and the stored hooks they are read from.

use crate::questions::{readout_rows::select, row_reader::read_rows};
use residuum_domain::{Cache, Code, Hook, ModelInfo, Problem, Site};
use residuum_model::LinearReading;
use residuum_store::{Store, StoredCache};

/// How finely a logit is divided into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Components {
    /// Every attention and every MLP; needs `attn_out` and `mlp_out`.
    Sublayers,
    /// Every head, the bias of attention, and every MLP; needs `attn.z` (or `attn.result`) and `mlp_out`.
    Heads,
}

/// The kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// Token, position or type embedding, or the residual stream before the first block.
    Embedding,
    /// The whole output of attention.
    Attention,
    /// One head.
    Head,
    /// What attention adds independently of its heads: the bias of its output projection and of the norm after it.
    AttentionBias,
    /// The output of an MLP.
    Mlp,
    /// A bias at the end of the model.
    Bias,
}

/// One term of a logit.
#[derive(Debug, Clone)]
pub struct LogitPart {
    /// The hook that holds the value; for a bias, TransformerLens's name of the weight.
    pub name: String,
    /// Its kind.
    pub kind: PartKind,
    /// The layer, if it is inside the blocks.
    pub layer: Option<usize>,
    /// The head.
    pub head: Option<usize>,
    /// Its contribution to the logit.
    pub value: f64,
}

impl LogitPart {
    fn of(hook: Hook, kind: PartKind, value: f64) -> Self {
        Self { name: hook.to_string(), kind, layer: hook.layer(), head: None, value }
    }

    /// A bias at the end of the model.
    pub fn bias(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), kind: PartKind::Bias, layer: None, head: None, value }
    }
}

/// Reads rows of one cache at one position.
pub struct PositionReader<'a> {
    /// The store.
    pub store: &'a Store,
    /// The cache.
    pub cache: &'a StoredCache,
    /// The position.
    pub position: u32,
}

impl PositionReader<'_> {
    /// The row of a hook.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], and those of the store.
    pub fn row(&self, hook: Hook) -> Result<Vec<f32>, Problem> {
        let selection = select(&self.cache.cache, hook, &[self.position], "/position")?;
        Ok(read_rows(self.store, self.cache, &selection)?)
    }
}

/// The stored hooks whose sum is the residual stream before the final norm.
pub struct AttributionPlan {
    /// How finely the logit is divided.
    pub components: Components,
    /// The sum itself: the output of the last block.
    pub end: Hook,
    embeddings: Vec<Hook>,
    /// For each block, the hooks of attention (its output, its heads' results or their `z`) and of the MLP.
    blocks: Vec<[Hook; 2]>,
}

impl AttributionPlan {
    /// Finds the hooks in a cache of `model`.
    ///
    /// # Errors
    /// [`Code::HookNotStored`], listing what to capture.
    pub fn of(cache: &Cache, model: &ModelInfo, components: Option<Components>) -> Result<Self, Problem> {
        let stored = |hook: &Hook| cache.hook_index(*hook).is_ok();
        let attention = |l: usize, components: Components| match components {
            Components::Sublayers => Hook::block(Site::AttnOut, l),
            Components::Heads => {
                let result = Hook::block(Site::AttnResult, l);
                if stored(&result) { result } else { Hook::block(Site::Z, l) }
            }
        };
        let has_heads = (0..model.n_layers).all(|l| stored(&attention(l, Components::Heads)));
        let finest = if has_heads { Components::Heads } else { Components::Sublayers };
        let components = components.unwrap_or(finest);
        let blocks: Vec<[Hook; 2]> =
            (0..model.n_layers).map(|l| [attention(l, components), Hook::block(Site::MlpOut, l)]).collect();
        let end = Hook::block(Site::ResidPost, model.n_layers - 1);
        let mut embeddings = embeddings(model);
        let before = Hook::block(Site::ResidPre, 0);
        if !embeddings.iter().all(stored) && stored(&before) {
            embeddings = vec![before];
        }
        let needed: Vec<Hook> =
            embeddings.iter().copied().chain(blocks.iter().flatten().copied()).chain([end]).collect();
        let missing: Vec<&Hook> = needed.iter().filter(|h| !stored(h)).collect();
        if missing.is_empty() {
            return Ok(Self { components, end, embeddings, blocks });
        }
        let mut sites: Vec<Site> = needed.iter().map(Hook::site).collect();
        sites.sort();
        sites.dedup();
        let names: Vec<String> = sites.iter().map(|s| format!("{:?}", s.name().replacen("hook_", "", 1))).collect();
        let shown: Vec<String> = missing.iter().take(6).map(ToString::to_string).collect();
        let detail = format!(
            "the cache lacks {} of the {} hooks this needs ({}{}); capture {{\"hooks\": [{}], \"layers\": \"all\"}}",
            missing.len(),
            needed.len(),
            shown.join(", "),
            if missing.len() > shown.len() { ", …" } else { "" },
            names.join(", ")
        );
        Err(Problem::at(Code::HookNotStored, "/components", detail))
    }

    /// The contribution of each hook to the linear function `weights` of the residual stream.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], and those of the store.
    pub fn parts(
        &self,
        reader: &PositionReader<'_>,
        linear: LinearReading<'_>,
        weights: &[f64],
    ) -> Result<Vec<LogitPart>, Problem> {
        let mut parts = Vec::new();
        let whole = |hook, kind| Ok::<_, Problem>(LogitPart::of(hook, kind, dot(weights, &reader.row(hook)?)));
        for hook in &self.embeddings {
            parts.push(whole(*hook, PartKind::Embedding)?);
        }
        for [attention, mlp] in &self.blocks {
            match attention.site() {
                Site::AttnOut => parts.push(whole(*attention, PartKind::Attention)?),
                _ => parts.extend(heads(*attention, reader, linear, weights)?),
            }
            parts.push(whole(*mlp, PartKind::Mlp)?);
        }
        Ok(parts)
    }
}

/// The hooks whose sum enters the first block. A norm after the embedding is not linear, so its output is the only
/// part.
fn embeddings(model: &ModelInfo) -> Vec<Hook> {
    let sites: &[Site] = match model.layers_with(Site::EmbedLnOut) {
        Some(_) => &[Site::EmbedLnOut],
        None => &[Site::Embed, Site::PosEmbed, Site::TypeEmbed],
    };
    sites.iter().filter(|s| model.layers_with(**s).is_some()).map(|s| Hook::global(*s)).collect()
}

/// The contributions of the heads of one attention, and what it adds independently of them.
fn heads(
    stored: Hook,
    reader: &PositionReader<'_>,
    linear: LinearReading<'_>,
    weights: &[f64],
) -> Result<Vec<LogitPart>, Problem> {
    let layer = stored.layer().unwrap_or_default();
    let row = reader.row(stored)?;
    let results = if stored.site() == Site::Z { linear.head_results(layer, &row) } else { row };
    let bias = linear.attention_bias(layer);
    let mut output: Vec<f64> =
        bias.map_or_else(|| vec![0.0; weights.len()], |b| b.iter().map(|x| f64::from(*x)).collect());
    for result in results.chunks_exact(weights.len()) {
        output.iter_mut().zip(result).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let behind = linear.after_attention(layer, &output);
    let (weights, mut constant) = behind.pull_back(weights);
    let hook = Hook::block(Site::AttnResult, layer);
    let head = |(h, result): (usize, &[f32])| LogitPart {
        head: Some(h),
        ..LogitPart::of(hook, PartKind::Head, dot(&weights, result))
    };
    let mut parts: Vec<LogitPart> = results.chunks_exact(weights.len()).enumerate().map(head).collect();
    if bias.is_some() || behind.has_bias() {
        constant += bias.map_or(0.0, |b| dot(&weights, b));
        let name = format!("blocks.{layer}.attn.b_O");
        parts.push(LogitPart { name, kind: PartKind::AttentionBias, layer: Some(layer), head: None, value: constant });
    }
    Ok(parts)
}

/// `Σ weights · x`.
fn dot(weights: &[f64], x: &[f32]) -> f64 {
    weights.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()
}
