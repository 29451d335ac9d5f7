//! `residuum models`: lists the models of a running server, with their states and warnings.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::Value;

/// Exit code if the server answered with a problem.
const REFUSED: u8 = 4;
/// Exit code if the server could not be reached.
const UNREACHABLE: u8 = 5;

/// Maximum bytes of a response.
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Models {
    /// Address of the server.
    #[arg(long, env = "RESIDUUM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// API key, if the server requires one.
    #[arg(long, env = "RESIDUUM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(super) fn run(self) -> ExitCode {
        match self.ask() {
            Ok(models) => {
                models
                    .iter()
                    .for_each(|model| print!("{}", if self.json { format!("{model}\n") } else { formatted(model) }));
                ExitCode::SUCCESS
            }
            Err((code, message)) => {
                eprintln!("residuum: {message}");
                ExitCode::from(code)
            }
        }
    }

    /// Fetches the models, as the server describes them; an error comes with its exit code.
    fn ask(&self) -> Result<Vec<Value>, (u8, String)> {
        let url = format!("{}/v1/models", self.url.trim_end_matches('/'));
        let unreachable = |e: &dyn std::fmt::Display| (UNREACHABLE, format!("{url} does not answer: {e}"));
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30)));
        let mut request = ureq::Agent::new_with_config(config.build()).get(&url);
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut answer = request.call().map_err(|e| unreachable(&e))?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(|e| unreachable(&e))?;
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        match (answer.status().is_success(), body.get("items").and_then(Value::as_array)) {
            (true, Some(models)) => Ok(models.clone()),
            _ => {
                let detail = body.get("detail").and_then(Value::as_str).unwrap_or("it is not a Residuum server");
                Err((REFUSED, format!("{url} answered {}: {detail}", answer.status().as_u16())))
            }
        }
    }
}

/// Formats a model for people: one line, then one for each warning, or for the reason why it could not be loaded.
fn formatted(model: &Value) -> String {
    let text = |key: &str| model.get(key).and_then(Value::as_str).unwrap_or_default();
    let count = |key: &str| model.get(key).and_then(Value::as_u64);
    let mut out = format!("{}  {}", text("id"), text("status"));
    if let Some(progress) = model.get("progress").filter(|progress| !progress.is_null()) {
        out += &formatted_progress(progress);
    }
    if let Some(source) = model.get("source").and_then(Value::as_str) {
        out += &format!("  from {source}");
    }
    if let (Some(parameters), Some(layers)) = (count("n_params"), count("n_layers")) {
        let size = if parameters < 1_000_000 {
            format!("{parameters} parameters")
        } else if parameters < 1_000_000_000 {
            format!("{} M parameters", parameters.div_ceil(1_000_000))
        } else {
            #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
            let billions = parameters as f64 / 1e9;
            format!("{billions:.1} B parameters")
        };
        let [architecture, weights, device] = ["architecture", "weights_dtype", "device"].map(text);
        out += &format!("  {architecture}  {size}  {layers} layers  {weights}  on {device}");
    }
    out.push('\n');
    if let Some(detail) = model.pointer("/error/detail").and_then(Value::as_str) {
        out += &format!("  error {detail}\n");
    }
    for warning in model.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        let part = |key: &str| warning.get(key).and_then(Value::as_str).unwrap_or_default();
        out += &format!("  warning {}: {}\n", part("code"), part("detail"));
    }
    out
}

/// The stage of a load, and how much of it is done.
fn formatted_progress(progress: &Value) -> String {
    let number = |key: &str| progress.get(key).and_then(Value::as_u64).unwrap_or(0);
    let stage = progress.get("stage").and_then(Value::as_str).unwrap_or_default();
    match (number("bytes_done"), number("bytes_total")) {
        (_, 0) => format!("  {stage}"),
        (done, total) => format!("  {stage} {} %", u128::from(done.min(total)) * 100 / u128::from(total)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_a_line_and_so_is_each_warning() {
        assert_eq!(formatted(&json!({"id": "m", "status": "loading"})), "m  loading\n");
        let progress = json!({"stage": "weights", "bytes_done": 5, "bytes_total": 20});
        let loading = json!({"id": "m", "status": "loading", "source": "a/b", "progress": progress, "error": null});
        assert_eq!(formatted(&loading), "m  loading  weights 25 %  from a/b\n");
        let failed = json!({"id": "m", "status": "failed", "progress": null, "error": {"detail": "no weights"}});
        assert_eq!(formatted(&failed), "m  failed\n  error no weights\n");
        let model = json!({
            "id": "m", "status": "ready", "architecture": "llama", "n_params": 134_515_008, "n_layers": 30,
            "weights_dtype": "Q4_1", "device": "cpu", "warnings": [{"code": "unused_tensors", "detail": "2 tensors"}]
        });
        let lines = "m  ready  llama  135 M parameters  30 layers  Q4_1  on cpu\n  warning unused_tensors: 2 tensors\n";
        assert_eq!(formatted(&model), lines);
    }
}
