//! The form of an intervention in a body.

use std::{fmt, marker::PhantomData};

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

/// One change to a forward pass. The interventions of a run are applied in order, then those of the input. If a hook is
/// captured, the values after all changes at it are stored. Each `op` takes these fields:
///
/// | `op` | effect | fields |
/// |---|---|---|
/// | `add` | adds the vector × `strength` | `direction` or `vector`, `strength` |
/// | `project_out` | removes the projection onto the direction, scaled to length one | `direction` or `vector` |
/// | `set` | replaces the values | `value`, `direction` or `vector` |
/// | `scale` | multiplies the values | `factor` |
/// | `zero` | replaces the values by 0 | |
/// | `mean_ablate` | replaces the values by the mean of all rows that the caches stored at the hook | `caches` |
/// | `patch` | replaces the values by those of a stored cache | `source` |
/// | `knockout` | masks attention edges before the softmax | `heads`, `from`, `to` |
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Intervention, example = json!({"op": "add", "hook": "resid_post", "layers": 12, "direction": {"direction": "sentiment"}, "strength": 4.0}))]
pub struct InterventionDto {
    /// The operation.
    pub op: OpName,
    /// A full or short hook name; `resid_post` if left out. A knockout is always at `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers, if the hook is a short name; all if left out.
    #[schema(value_type = Option<LayersSchema>)]
    pub layers: Option<Layers>,
    /// Which tokens to change; all if left out, including generated ones.
    #[schema(value_type = Option<TokensSchema>)]
    pub positions: Option<TokensRequest>,
    /// Change only these heads, if the hook has a head axis; negative numbers count from the last. Attention maps have
    /// query heads.
    pub heads: Option<Vec<i64>>,
    /// Change only these neurons, if the hook is on the neurons of an MLP.
    pub neurons: Option<Vec<usize>>,
    /// A stored direction, a vector of a stored cache, a feature of an autoencoder, or numbers.
    #[schema(value_type = Option<DirectionRef>)]
    pub direction: Option<DirectionRef>,
    /// The values, the same at every layer: as many as a row of the hook has, or one head, or the chosen neurons.
    pub vector: Option<Vec<f32>>,
    /// Factor of the vector that is added; 1 if left out. A list makes one item of the run for each number, from every
    /// input. Lists of several interventions of one input must be equally long: the i-th item takes the i-th number of
    /// each.
    #[schema(value_type = Option<StrengthSchema>)]
    pub strength: Option<NumberOrList<f64>>,
    /// A number for all values, or a vector.
    #[schema(value_type = Option<SetValueSchema>)]
    pub value: Option<NumberOrList<f32>>,
    /// Factor by which the values are multiplied.
    pub factor: Option<f64>,
    /// Caches to average.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
    /// Source of the values of a patch.
    pub source: Option<PatchSource>,
    /// Change only these keys, if the hook is an attention map; all if left out.
    #[schema(value_type = Option<TokensSchema>)]
    pub from: Option<TokensRequest>,
    /// Change only these queries, if the hook is an attention map; all if left out.
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
    /// Its hook; the patched hook if left out.
    pub hook: Option<String>,
    /// The layer whose values to use at all layers; by default each layer uses its own.
    pub layer: Option<usize>,
    /// Positions whose values the patched tokens get, in the same order, or one position for all. If left out, the
    /// positions of the patched tokens.
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
    /// Removes the projection onto a direction.
    ProjectOut,
    /// Replaces the values by a number or a vector.
    Set,
    /// Multiplies the values.
    Scale,
    /// Replaces the values by 0.
    Zero,
    /// Replaces the values by the mean of stored activations.
    MeanAblate,
    /// Replaces the values by those of a stored cache.
    Patch,
    /// Masks attention edges.
    Knockout,
}

/// Tokens to change: all, those of the posted input, those that the run generates, or positions of the posted input
/// (`"last"` is its last token). Positions by text, message or kind work as in `capture.positions`. Positions within
/// generated text cannot be chosen, only all of it.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangedTokens, example = "last")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes TokensRequest for the specification")]
pub enum TokensSchema {
    /// `all`, `prompt` or `generated`.
    Named(NamedTokens),
    /// Positions of the posted input.
    #[schema(value_type = crate::api::dto::capture::PositionsRequestSchema)]
    At(serde_json::Value),
}

/// Tokens by origin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes TokensRequest for the specification")]
pub enum NamedTokens {
    /// Every token.
    All,
    /// Tokens of the posted input.
    Prompt,
    /// Tokens that the run generates.
    Generated,
}

/// A number or a list of numbers.
#[derive(Debug, Clone)]
pub enum NumberOrList<T> {
    /// One number.
    Number(f64),
    /// Numbers in order.
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NumberOrList<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = NumberOrList<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an array of numbers")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(NumberOrList::Number(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                f64::deserialize(number.into_deserializer()).map(NumberOrList::Number)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                f64::deserialize(number.into_deserializer()).map(NumberOrList::Number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, numbers: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(numbers)).map(NumberOrList::List)
            }
        }

        d.deserialize_any(Read(PhantomData))
    }
}

/// A number, or one number for each item that an input becomes.
#[derive(Serialize, ToSchema)]
#[schema(as = Strength)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes `strength` for the specification")]
pub enum StrengthSchema {
    /// For every item.
    Number(f64),
    /// Each for one item; at least one.
    List(Vec<f64>),
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
    /// The name in a body.
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

    /// The fields that this operation takes, besides those that select where it applies.
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
