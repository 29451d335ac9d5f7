//! Checks that stored activations are of the kind that an autoencoder was trained on.

use residuum_domain::{Cache, Code, Problem, Warning, WarningCode};
use residuum_model::sae::Sae;

/// Refuses a cache that another model made, or that does not have the rows that the autoencoder encodes. Returns
/// warnings for mismatches that are allowed.
///
/// # Errors
/// [`Code::Conflict`] for other weights, [`Code::HookNotStored`], [`Code::BosMismatch`] unless a mismatch is allowed.
pub(super) fn check(sae: &Sae, cache: &Cache, allow_bos_mismatch: bool) -> Result<Vec<Warning>, Problem> {
    let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
    let made_by = &cache.provenance.model_fingerprint;
    if made_by != sae.model_fingerprint() {
        let detail = format!(
            "`{}` belongs to the model with the fingerprint {}…, and the cache was made by {}…",
            sae.id(),
            short(sae.model_fingerprint()),
            short(made_by)
        );
        return Err(Problem::new(Code::Conflict, detail));
    }
    if cache.hook_index(sae.hook()).is_err() {
        let detail = format!("`{}` encodes {}, which the cache did not capture", sae.id(), sae.hook());
        return Err(Problem::at(Code::HookNotStored, "/sae", detail));
    }
    let mut warnings = Vec::new();
    if let Some(mismatch) = bos_mismatch(sae, cache) {
        if !allow_bos_mismatch {
            let detail = format!("{mismatch}; capture it with prepend_bos, or set allow_bos_mismatch");
            return Err(Problem::at(Code::BosMismatch, "/allow_bos_mismatch", detail));
        }
        warnings.push(Warning { code: WarningCode::SaeBosMismatch, detail: mismatch });
    }
    if sae.settings().prepend_bos.is_none() {
        let detail = "the autoencoder does not say whether its texts began with a BOS token".to_owned();
        warnings.push(Warning { code: WarningCode::SaeBosNotSaid, detail });
    }
    Ok(warnings)
}

fn bos_mismatch(sae: &Sae, cache: &Cache) -> Option<String> {
    let trained = sae.settings().prepend_bos.filter(|trained| *trained != cache.bos.present)?;
    let with = |with: bool| if with { "with" } else { "without" };
    Some(format!(
        "the autoencoder was trained on texts {} a BOS token, and the cache begins {} one",
        with(trained),
        with(cache.bos.present)
    ))
}
