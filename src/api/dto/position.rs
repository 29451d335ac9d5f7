//! How a body says which vector of a cache is compared.

use serde::Serialize;
use utoipa::ToSchema;

use super::capture::PositionsSchema;

/// One position: an integer, "last", "mean" or the mean over positions; or "stored", the one row that each cache holds
/// (of a capture at a word, say), whichever it is.
#[derive(Serialize, ToSchema)]
#[schema(as = ComparedPosition, example = "last")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes ComparedPosition for the specification")]
pub enum ComparedPositionSchema {
    /// The same of every cache.
    At(PositionsSchema),
    /// `"stored"`.
    Stored(StoredLiteral),
}

/// The word `stored`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes ComparedPosition for the specification")]
pub enum StoredLiteral {
    /// The one row that each cache holds.
    Stored,
}
