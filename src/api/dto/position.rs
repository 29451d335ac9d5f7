//! Schemas of the position whose vector represents a cache, as in comparisons.

use serde::Serialize;
use utoipa::ToSchema;

use super::capture::PositionsSchema;

/// One position: an integer, "last", "mean" or the mean over positions; or "stored", the only row of each cache, for
/// caches that were captured at one position, such as that of a word.
#[derive(Serialize, ToSchema)]
#[schema(as = ComparedPosition, example = "last")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes ComparedPosition for the specification")]
pub enum ComparedPositionSchema {
    /// The same position in every cache.
    At(PositionsSchema),
    /// `"stored"`.
    Stored(StoredLiteral),
}

/// The word `stored`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes ComparedPosition for the specification")]
pub enum StoredLiteral {
    /// The only row of each cache.
    Stored,
}
