//! Warnings as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Warning;

/// Something unusual that did not stop what was asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Warning, example = json!({
    "code": "sae_bos_not_said", "detail": "cfg.json has no `prepend_bos`: whether texts should begin with a BOS token is not checked"
}))]
pub struct WarningDto {
    /// What is unusual, for programs; the names do not change.
    code: &'static str,
    /// What is unusual, for people: names the key, tensor or file, and says what was done.
    detail: String,
}

impl From<&Warning> for WarningDto {
    fn from(warning: &Warning) -> Self {
        Self { code: warning.code.name(), detail: warning.detail.clone() }
    }
}
