//! Warnings in responses.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_domain::Warning;

/// Something unusual that did not stop the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Warning, example = json!({
    "code": "unknown_config_key",
    "detail": "`use_mrope` is false; transformers 5.23.0 does not read it here, and it is ignored"
}))]
pub struct WarningDto {
    /// What is unusual, for programs; codes never change.
    pub code: &'static str,
    /// What is unusual, for people.
    pub detail: String,
}

impl From<&Warning> for WarningDto {
    fn from(warning: &Warning) -> Self {
        Self { code: warning.code.name(), detail: warning.detail.clone() }
    }
}

impl WarningDto {
    /// Converts a list of warnings.
    pub fn list(warnings: &[Warning]) -> Vec<Self> {
        warnings.iter().map(Self::from).collect()
    }
}
