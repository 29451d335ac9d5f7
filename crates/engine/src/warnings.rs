//! Logs and counts the warnings of loaded models and autoencoders, once each.

use residuum_domain::Warning;

/// Logs and counts the warnings of a model or an autoencoder that has been loaded. `kind` is `model` or `sae`.
pub fn report(kind: &'static str, id: &str, warnings: &[Warning]) {
    for Warning { code, detail } in warnings {
        let code = code.name();
        match kind {
            "sae" => tracing::warn!(sae = id, code, detail, "unusual"),
            _ => tracing::warn!(model = id, code, detail, "unusual"),
        }
        metrics::counter!("residuum_warnings_total", "kind" => kind, "code" => code).increment(1);
    }
}
