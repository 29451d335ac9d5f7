//! The vocabulary of Residuum: ids, hook points, capture specifications, runs, caches and errors.
//!
//! Everything here is plain data and pure functions, which all other crates use: once a request has been parsed, a [`Hook`] or a
//! [`RunId`] cannot be malformed. This crate must not know HTTP, SQL or tensors.

pub mod cache;
pub mod capture;
pub mod direction;
pub mod dtype;
pub mod forms;
pub mod generation;
pub mod hook;
pub mod ids;
pub mod import;
pub mod intervention;
pub mod key;
pub mod layout;
pub mod model;
pub mod order;
pub mod positions;
pub mod problem;
pub mod run;
pub mod selection;
pub mod tensor_file;
pub mod text;
pub mod warning;

pub use cache::{BosDecision, Cache, CacheFilter, CachePatch, Count, Provenance, TensorStats};
pub use capture::{Capture, CaptureRequest, Layers};
pub use direction::{Direction, DirectionInfo, DirectionMethod, DirectionVector};
pub use dtype::Dtype;
pub use generation::{FinishReason, Generation, Scoring, TextCompletion, TokenScore};
pub use hook::{Axis, Hook, HookName, Site};
pub use ids::{CacheId, DirectionId, PackId, RunId, TenantId};
pub use import::{ImportOrigin, ImportPlan, ImportSpec};
pub use intervention::{Applied, Edit, Edits, Op, Parts, Tokens, TokensRequest};
pub use key::{ApiKey, KeyId, KeyRecord, KeyState, NewKey, Scope};
pub use layout::{ItemSpan, PackLayout};
pub use model::{HookInfo, ModelInfo};
pub use order::{Order, RunOrder};
pub use positions::{ComparedPosition, Part, Positions, PositionsRequest, Rows, Which};
pub use problem::{Code, FieldError, Problem};
pub use run::{NewItem, NewRun, Priority, Run, RunStatus};
pub use selection::{Selection, StoredRows};
pub use text::{TextQuery, TextQueryError};
pub use warning::{Warning, WarningCode, Warnings};
