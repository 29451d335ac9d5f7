//! Checks an autoencoder's settings against the model: on activations other than those it was trained on, its features would be
//! silently wrong.

use std::ops::Range;

use super::Settings;
use crate::{
    Model,
    architecture::{NormKind, Residual},
};
use residuum_domain::{Site, Warning, WarningCode, Warnings};

/// How rows of the hook become the input of the autoencoder.
pub(super) struct Fitted {
    /// Width of a row.
    pub width: usize,
    /// The columns that are encoded.
    pub columns: Range<usize>,
    /// Whether the mean of a row is subtracted first.
    pub centre: bool,
    /// Warnings: what `cfg.json` does not say, or says without effect.
    pub warnings: Vec<Warning>,
}

/// Checks the settings against the model.
///
/// # Errors
/// The setting that does not match this model, and why.
pub(super) fn fit(settings: &Settings, model: &Model) -> Result<Fitted, String> {
    let (info, hook) = (model.info(), settings.hook);
    if !info.has(hook) {
        return Err(format!("`hook_name` is \"{hook}\", which the model `{}` does not have", info.id));
    }
    let site = hook.site();
    if site.is_attention_map() || site.is_index() {
        return Err(format!("`hook_name` is \"{hook}\", whose rows are no vectors of one width"));
    }
    let shape = info.row_shape(site);
    let width: usize = shape.iter().product();
    let columns = columns(settings, &shape)?;
    if columns.len() != settings.d_in {
        let found = columns.len();
        return Err(format!("`d_in` is {}, and {hook} of the model `{}` has {found} numbers", settings.d_in, info.id));
    }
    check_folding(settings, site)?;
    let warnings = Warnings::default();
    let centre = centre(settings, model, site, &warnings)?;
    warn_of_processing(settings, model, site, &warnings);
    if settings.prepend_bos.is_none() {
        let detail = "cfg.json has no `prepend_bos`: whether texts should begin with a BOS token is not checked";
        warnings.add(WarningCode::SaeBosNotSaid, detail);
    }
    if settings.prepend_bos == Some(true) && model.tokenizer().bos_token().is_none() {
        warnings.add(WarningCode::SaeNoBos, "`prepend_bos` is true, and the model has no BOS token");
    }
    Ok(Fitted { width, columns, centre, warnings: warnings.list() })
}

/// Warns if the autoencoder was probably trained on processed weights, but `cfg.json` does not say so.
fn warn_of_processing(settings: &Settings, model: &Model, site: Site, warnings: &Warnings) {
    const KEY: &str = "model_from_pretrained_kwargs";
    let centring = matches!(model.transformer.architecture().norm, NormKind::Layer { .. }) && is_stream(site);
    let said = settings.processing.unwrap_or_default().center_writing_weights.is_some();
    if settings.trained_processed && centring && !said {
        let version = settings.sae_lens_training_version.as_ref().or(settings.sae_lens_version.as_ref());
        let detail = format!(
            "SAELens {} took activations of weights that TransformerLens had centred, unless told otherwise, and cfg.json does not say; \
             they are taken as they are, as SAELens 6 does. If it was trained on centred ones, write \
             \"{KEY}\": {{\"center_writing_weights\": true}}",
            version.map_or("before 3.19.2", String::as_str)
        );
        warnings.add(WarningCode::SaeTrainedProcessed, detail);
    } else if settings.processing.is_none() {
        let detail =
            format!("cfg.json has no `{KEY}`: the model's weights are used without processing, as SAELens does");
        warnings.add(WarningCode::SaeProcessingNotSaid, detail);
    }
}

/// The columns of a row that are encoded.
fn columns(settings: &Settings, shape: &[usize]) -> Result<Range<usize>, String> {
    match (settings.head, shape) {
        (None, _) => Ok(0..shape.iter().product()),
        (Some(head), [n_heads, d_head]) if head < *n_heads => Ok(head * d_head..(head + 1) * d_head),
        (Some(head), [n_heads, _]) => {
            Err(format!("`hook_head_index` is {head}, and {} has {n_heads} heads", settings.hook))
        }
        (Some(head), _) => Err(format!("`hook_head_index` is {head}, and {} has no heads", settings.hook)),
    }
}

/// Refuses folded weights that change the values at the hook.
fn check_folding(settings: &Settings, site: Site) -> Result<(), String> {
    let said = settings.processing.unwrap_or_default();
    let normalised = matches!(
        site,
        Site::Ln1Normalized
            | Site::Ln2Normalized
            | Site::Ln1PostNormalized
            | Site::Ln2PostNormalized
            | Site::LnFinalNormalized
    );
    let hook = settings.hook;
    let key = "model_from_pretrained_kwargs";
    if normalised && said.fold_ln != Some(true) {
        return Err(format!(
            "`{key}.fold_ln` is not true: without it TransformerLens's {hook} comes after the norm's gain, and this server's before it"
        ));
    }
    let values = matches!(site, Site::V | Site::Z | Site::AttnResult);
    if values && said.fold_value_biases == Some(true) {
        return Err(format!("`{key}.fold_value_biases` is true, which takes the values' biases out of {hook}"));
    }
    if site == Site::Logits && said.center_unembed == Some(true) {
        return Err(format!("`{key}.center_unembed` is true, which takes their mean out of the logits"));
    }
    Ok(())
}

/// Whether rows are centred. With centred writing weights, everything that is written to the residual stream has mean zero.
/// TransformerLens centres weights only in models with layer norms.
fn centre(settings: &Settings, model: &Model, site: Site, warnings: &Warnings) -> Result<bool, String> {
    if settings.processing.unwrap_or_default().center_writing_weights != Some(true) {
        return Ok(false);
    }
    let key = "`model_from_pretrained_kwargs.center_writing_weights`";
    let architecture = model.transformer.architecture();
    match architecture.norm {
        NormKind::Rms { .. } => {
            let detail = format!("{key} is true, which TransformerLens ignores in a model with RMS norms");
            warnings.add(WarningCode::SaeCentringWithoutEffect, detail);
            Ok(false)
        }
        NormKind::Layer { .. } if matches!(site, Site::AttnResult | Site::TypeEmbed | Site::EmbedLnOut) => {
            Err(format!("{key} is true, which is not supported at {}", settings.hook))
        }
        NormKind::Layer { .. } if !is_stream(site) => Ok(false),
        NormKind::Layer { .. } if architecture.residual == Residual::PostNorm || architecture.embedding.norm => {
            Err(format!("{key} is true, and the model normalises the residual stream itself"))
        }
        NormKind::Layer { .. } => Ok(true),
    }
}

/// Whether the rows are of the residual stream, or are written to it.
fn is_stream(site: Site) -> bool {
    matches!(
        site,
        Site::Embed
            | Site::PosEmbed
            | Site::ResidPre
            | Site::ResidMid
            | Site::ResidPost
            | Site::AttnOut
            | Site::MlpOut
            | Site::AttnRawOut
            | Site::MlpRawOut
    )
}
