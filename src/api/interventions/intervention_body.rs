//! Interventions as a body writes them.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use utoipa::ToSchema;

use crate::api::dto::{
    capture::{LayersSchema, PositionsSchema},
    direction_ref::DirectionRef,
    selector::{CacheSelector, CacheSelectorSchema},
};
use residuum_domain::{Layers, Positions, TokensRequest};

/// One change to a forward pass. Those of a run are carried out in order; a hook that is captured shows the values after all
/// changes at that hook. Which fields go with which `op`:
///
/// | `op` | does | takes |
/// |---|---|---|
/// | `add` | adds the vector × `strength` | `direction` or `vector`, `strength` |
/// | `project_out` | removes the part along the direction, which is scaled to length one | `direction` or `vector` |
/// | `set` | replaces the values | `value`, `direction` or `vector` |
/// | `scale` | multiplies the values | `factor` |
/// | `zero` | replaces the values by 0 | |
/// | `mean_ablate` | replaces the values by one mean over everything the caches stored at the hook | `caches` |
/// | `patch` | replaces the values by those of a stored cache | `source` |
/// | `knockout` | masks attention edges before the softmax | `heads`, `from`, `to` |
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Intervention, example = json!({"op": "add", "hook": "resid_post", "layers": 12, "direction": {"direction": "sentiment"}, "strength": 4.0}))]
pub struct InterventionDto {
    /// What is done.
    pub op: OpName,
    /// Where: a full or short hook name; `resid_post` if left out. A knockout is always at `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers that a short name stands for; all if left out.
    #[schema(value_type = Option<LayersSchema>)]
    pub layers: Option<Layers>,
    /// Which tokens; all if left out, those to come included.
    #[schema(value_type = Option<TokensSchema>)]
    pub positions: Option<TokensRequest>,
    /// Of a hook with a head axis, only these heads; negatives count from the last. Attention maps have query heads.
    pub heads: Option<Vec<i64>>,
    /// Of a hook on the neurons of an MLP, only these.
    pub neurons: Option<Vec<usize>>,
    /// A stored direction, a vector of a stored cache, or numbers.
    #[schema(value_type = Option<DirectionRef>)]
    pub direction: Option<DirectionRef>,
    /// The same numbers at every layer: as many as the hook has, or as one head or the chosen neurons have.
    pub vector: Option<Vec<f32>>,
    /// Factor of the vector that is added; 1 if left out.
    pub strength: Option<f64>,
    /// A number for all values, or a vector.
    #[schema(value_type = Option<SetValueSchema>)]
    pub value: Option<SetValue>,
    /// What the values are multiplied with.
    pub factor: Option<f64>,
    /// Caches whose mean is taken.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
    /// Where the values that are patched in come from.
    pub source: Option<PatchSource>,
    /// Of an attention map: the keys; all if left out.
    #[schema(value_type = Option<TokensSchema>)]
    pub from: Option<TokensRequest>,
    /// Of an attention map: the queries; all if left out.
    #[schema(value_type = Option<TokensSchema>)]
    pub to: Option<TokensRequest>,
}

/// Values of a stored cache.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "positions": "last"}))]
pub struct PatchSource {
    /// The cache.
    pub cache: String,
    /// The hook there; the one that is patched if left out.
    pub hook: Option<String>,
    /// One layer for all; each layer its own if left out.
    pub layer: Option<usize>,
    /// The position whose values each patched token gets, in the same order, or one for all. If left out, the same positions
    /// as those that are patched.
    #[schema(value_type = Option<PositionsSchema>)]
    pub positions: Option<Positions>,
}

/// What an intervention does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = InterventionOp)]
pub enum OpName {
    /// Adds a vector.
    Add,
    /// Removes what lies along a direction.
    ProjectOut,
    /// Replaces the values by a number or a vector.
    Set,
    /// Multiplies the values.
    Scale,
    /// Replaces the values by 0.
    Zero,
    /// Replaces the values by a mean over stored activations.
    MeanAblate,
    /// Replaces the values by those of a stored cache.
    Patch,
    /// Masks attention edges.
    Knockout,
}

/// Tokens that are changed: all, those of the input as posted, those that the run generates, or positions of the input as
/// posted (`"last"` is its last token). Positions by text, message or kind are taken as in `capture.positions`; of a reply that is
/// still to come only all tokens can be named.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangedTokens, example = "last")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes TokensRequest for the specification")]
pub enum TokensSchema {
    /// `all`, `prompt` or `generated`.
    Named(NamedTokens),
    /// Positions of the input as posted.
    #[schema(value_type = crate::api::dto::capture::PositionsRequestSchema)]
    At(serde_json::Value),
}

/// Tokens by how they came.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes TokensRequest for the specification")]
pub enum NamedTokens {
    /// Every token.
    All,
    /// Those of the input as posted.
    Prompt,
    /// Those that the run generates.
    Generated,
}

/// A number for all values, or a vector.
#[derive(Debug, Clone)]
pub enum SetValue {
    /// Every value.
    Number(f64),
    /// Values in order.
    Vector(Vec<f32>),
}

impl<'de> Deserialize<'de> for SetValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = SetValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an array of numbers")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<SetValue, E> {
                Ok(SetValue::Number(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<SetValue, E> {
                f64::deserialize(number.into_deserializer()).map(SetValue::Number)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<SetValue, E> {
                f64::deserialize(number.into_deserializer()).map(SetValue::Number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, numbers: A) -> Result<SetValue, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(numbers)).map(SetValue::Vector)
            }
        }

        d.deserialize_any(Read)
    }
}

/// A number for all values, or a vector.
#[derive(Serialize, ToSchema)]
#[schema(as = SetValue)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes `value` for the specification")]
pub enum SetValueSchema {
    /// Every value.
    Number(f64),
    /// Values in order.
    Vector(Vec<f32>),
}

impl OpName {
    /// The spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::ProjectOut => "project_out",
            Self::Set => "set",
            Self::Scale => "scale",
            Self::Zero => "zero",
            Self::MeanAblate => "mean_ablate",
            Self::Patch => "patch",
            Self::Knockout => "knockout",
        }
    }

    /// Its own fields, beside where it is done.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Add => &["direction", "vector", "strength"],
            Self::ProjectOut => &["direction", "vector"],
            Self::Set => &["direction", "vector", "value"],
            Self::Scale => &["factor"],
            Self::Zero => &[],
            Self::MeanAblate => &["caches"],
            Self::Patch => &["source"],
            Self::Knockout => &["from", "to"],
        }
    }
}
