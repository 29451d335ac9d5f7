//! The mixtures of experts of Qwen 1.5 and 2 (with a shared expert) and Qwen 3. Some layers may have a dense MLP.

use super::{Family, experts, layer_windows, llama, qwen, switched_window};
use crate::{
    architecture::{Architecture, Experts, QkNorm},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{ExpertSource, ExpertSources, LayerSources, LinearSource},
};

/// Qwen 1.5 and 2 with experts.
pub fn qwen2(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("qkv_bias")?;
    let mut a = llama::architecture(config, checkpoint, &llama::Defaults::LLAMA)?;
    let (window, below) = (switched_window(config)?, qwen::max_window_layers(config));
    // Unlike in the dense Qwen 2, the window is not on the layers from `max_window_layers` on, but on every other layer below.
    let windows = layer_windows(config, a.layers.len(), window, |l| l % 2 == 0 && l < below)?;
    a.layers.iter_mut().zip(windows).for_each(|(layer, window)| layer.window = window);
    install(config, &mut a, Some(config.count("shared_expert_intermediate_size")?))?;
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        experts: Some(with_shared(block)),
        ..llama::layer_sources(block, [bias, bias, bias, false], false)
    }))
}

/// Qwen 3 with experts.
pub fn qwen3(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    let mut a = llama::architecture(config, checkpoint, &llama::Defaults::LLAMA)?;
    a.qk_norm = Some(QkNorm::PerHead);
    // Every layer has the window, whatever this key says.
    config.value("max_window_layers");
    let window = switched_window(config)?;
    a.layers.iter_mut().for_each(|layer| layer.window = window);
    install(config, &mut a, None)?;
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        experts: Some(experts::sources(&format!("{block}mlp."), experts::PROJECTIONS)),
        ..llama::layer_sources(block, [bias; 4], false)
    }))
}

/// Makes every `decoder_sparse_step`th layer a mixture, except those that `mlp_only_layers` lists.
fn install(config: &Config, a: &mut Architecture, d_shared: Option<usize>) -> Result<(), LoadError> {
    let renormalise = config.flag("norm_topk_prob")?;
    let sizes = Experts { renormalise, d_shared, ..experts::sizes(config, "moe_intermediate_size")? };
    let step = config.count_opt("decoder_sparse_step")?.unwrap_or(1);
    let dense = match config.value("mlp_only_layers") {
        Some(_) => config.numbers("mlp_only_layers")?,
        None => Vec::new(),
    };
    #[expect(clippy::cast_precision_loss, reason = "a model has few layers")]
    experts::install(a, sizes, |l| (l + 1).is_multiple_of(step) && !dense.contains(&(l as f64)));
    Ok(())
}

/// Weight names of the mixture of a block, with the shared expert.
fn with_shared(block: &str) -> ExpertSources {
    let shared = ExpertSource::separate(&format!("{block}mlp.shared_expert"), experts::PROJECTIONS);
    let gate = LinearSource::new(format!("{block}mlp.shared_expert_gate"), false);
    ExpertSources { shared: Some((shared, gate)), ..experts::sources(&format!("{block}mlp."), experts::PROJECTIONS) }
}
