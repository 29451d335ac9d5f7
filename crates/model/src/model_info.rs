//! The description of a loaded model that the API shows: its sizes, and which hook points exist in which layers.

use super::architecture::{Architecture, Residual};
use residuum_domain::{ModelInfo, Site, model::SiteLayers};

/// Describes a model. `census` is the number of parameters and the types they are stored in.
pub fn model_info(id: &str, fingerprint: String, a: &Architecture, census: (u64, String)) -> ModelInfo {
    let experts = a.layers.iter().find_map(|layer| a.experts_of(*layer));
    ModelInfo {
        id: id.to_owned(),
        architecture: a.model_type.clone(),
        fingerprint,
        n_layers: a.layers.len(),
        d_model: a.d_model,
        n_heads: a.n_heads,
        n_kv_heads: a.n_kv_heads,
        d_head: a.d_head,
        d_mlp: a.d_mlp,
        d_vocab: a.d_vocab,
        n_ctx: a.n_ctx,
        n_experts: experts.map_or(0, |e| e.n_experts),
        top_k: experts.map_or(0, |e| e.top_k),
        weights_dtype: census.1,
        compute_dtype: "float32".to_owned(),
        device: "cpu".to_owned(),
        n_params: census.0,
        bidirectional: !a.causal,
        sites: sites(a),
    }
}

fn sites(a: &Architecture) -> Vec<SiteLayers> {
    let mut sites = Vec::new();
    for site in Site::ALL.iter().copied() {
        if site.in_block() {
            let has = |l: &usize| in_layer(a, *l, site);
            #[expect(clippy::cast_possible_truncation, reason = "a model has fewer than 2^32 layers")]
            let layers: Vec<u32> = (0..a.layers.len()).filter(has).map(|l| l as u32).collect();
            if !layers.is_empty() {
                sites.push(SiteLayers { site, layers });
            }
        } else if outside(a, site) {
            sites.push(SiteLayers { site, layers: Vec::new() });
        }
    }
    sites
}

fn outside(a: &Architecture, site: Site) -> bool {
    match site {
        Site::PosEmbed => a.embedding.positions.is_some(),
        Site::TypeEmbed => a.embedding.token_types.is_some(),
        Site::EmbedLnOut => a.embedding.norm,
        Site::LnFinalScale | Site::LnFinalNormalized | Site::FinalNorm => a.final_norm,
        Site::Logits => a.unembedding.is_some(),
        _ => true,
    }
}

fn in_layer(a: &Architecture, l: usize, site: Site) -> bool {
    let layer = a.layers[l];
    let sparse = a.experts_of(layer).is_some();
    match site {
        Site::Ln1Scale | Site::Ln1Normalized => layer.ln1,
        Site::Ln1PostScale | Site::Ln1PostNormalized => layer.ln1_post,
        Site::Ln2Scale | Site::Ln2Normalized => layer.ln2,
        Site::Ln2PostScale | Site::Ln2PostNormalized => layer.ln2_post,
        Site::ResidMid => a.residual != Residual::Parallel,
        Site::MlpPre | Site::MlpPost => !sparse,
        Site::MlpPreLinear => !sparse && a.gated,
        Site::RouterLogits | Site::ExpertWeights | Site::ExpertIndices => sparse,
        _ => true,
    }
}
