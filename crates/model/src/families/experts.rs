//! What the families with mixtures of experts share: their keys and weight names.

use crate::{
    architecture::{Architecture, Experts},
    config::Config,
    error::LoadError,
    sources::{ExpertSources, LinearSource},
};

/// Names of the projections of a routed or shared expert, except in Mixtral.
pub const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Reads the sizes of a mixture; `d_expert` is the key of an expert's width.
pub fn sizes(config: &Config, d_expert: &str) -> Result<Experts, LoadError> {
    let n_experts = config.count_opt_of(&["num_experts", "num_local_experts"])?;
    let n_experts =
        n_experts.ok_or_else(|| config.refuse("num_experts", "is missing, and so is `num_local_experts`"))?;
    let top_k = config.count("num_experts_per_tok")?;
    if top_k > n_experts {
        return Err(config.refuse("num_experts_per_tok", format!("is {top_k}; there are {n_experts} experts")));
    }
    Ok(Experts { n_experts, top_k, d_expert: config.count(d_expert)?, renormalise: false, d_shared: None })
}

/// Gives the layers for which `is_sparse` is true a mixture in place of their dense MLP.
pub fn install(a: &mut Architecture, experts: Experts, is_sparse: impl Fn(usize) -> bool) {
    a.experts = Some(experts);
    for (l, layer) in a.layers.iter_mut().enumerate() {
        layer.sparse = is_sparse(l);
    }
    if a.layers.iter().all(|layer| layer.sparse) {
        a.d_mlp = experts.d_expert;
    }
}

/// Weight names of a mixture without a shared expert; `mlp` is its prefix, with a dot.
pub fn sources(mlp: &str, projections: [&'static str; 3]) -> ExpertSources {
    ExpertSources {
        router: LinearSource::new(format!("{mlp}gate"), false),
        experts: format!("{mlp}experts"),
        projections,
        shared: None,
    }
}
