//! Selection of caches in request bodies: by ids, or by conditions.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::read_time;
use crate::api::json;
use residuum_domain::{CacheFilter, Code, Problem, TextQuery, hook::UnknownHook};
use residuum_engine::questions::{Selector, read_id};

/// Which caches a request is about.
#[derive(Debug, Clone)]
pub enum CacheSelector {
    /// Caches with these ids, in this order.
    Ids(Vec<String>),
    /// Caches that match the filter: by run, the oldest first, and within a run in the order of its inputs.
    Filter(Box<FilterDto>),
}

/// Conditions on caches. A cache must meet all of them.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CacheConditions, example = json!({"model": "smollm2-135m", "tags": ["demo"], "metadata": {"split": "train"}}))]
pub struct FilterDto {
    /// Name of the model.
    pub model: Option<String>,
    /// Made by this run.
    pub run: Option<String>,
    /// Has all of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Captured all of these hooks (full names).
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Stored at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Stored before this time (RFC 3339).
    pub created_to: Option<String>,
    /// The text, or what was generated after it, contains all of these words and `"quoted phrases"`.
    pub text: Option<String>,
    /// Has these keys with these values in its metadata; a dot in a key leads to a field of an object.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// true: is pinned; false: is not.
    pub pinned: Option<bool>,
    /// Expires at or after this time (RFC 3339).
    pub expires_from: Option<String>,
    /// Expires before this time (RFC 3339).
    pub expires_to: Option<String>,
}

/// Caches by their ids or by conditions.
#[derive(Serialize, ToSchema)]
#[schema(as = CacheSelector)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes CacheSelector for the specification")]
pub enum CacheSelectorSchema {
    /// Ids.
    Ids(Vec<String>),
    /// Conditions.
    Conditions(Box<FilterDto>),
}

impl<'de> Deserialize<'de> for CacheSelector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = CacheSelector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of ids of caches, or an object of conditions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<CacheSelector, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(ids)).map(CacheSelector::Ids)
            }

            fn visit_map<A: MapAccess<'de>>(self, conditions: A) -> Result<CacheSelector, A::Error> {
                let filter = FilterDto::deserialize(MapAccessDeserializer::new(conditions))?;
                Ok(CacheSelector::Filter(Box::new(filter)))
            }
        }

        json::one_of::<FilterDto, _, _>(d, Read)
    }
}

impl CacheSelector {
    /// Converts it to a selector that the engine resolves. Problems point at `pointer`, the place of the selector in
    /// the body.
    ///
    /// # Errors
    /// [`Code::UnknownCache`] for a malformed id, [`Code::InvalidValue`] for a condition that no cache can meet.
    pub fn selector(&self, pointer: &str) -> Result<Selector, Problem> {
        Ok(match self {
            Self::Ids(ids) => {
                let read = |(i, text): (usize, &String)| read_id(text, &format!("{pointer}/{i}"));
                Selector::Ids(ids.iter().enumerate().map(read).collect::<Result<_, _>>()?)
            }
            Self::Filter(filter) => Selector::Filter(Box::new(filter.filter(pointer)?)),
        })
    }
}

impl FilterDto {
    /// Converts the conditions to a filter of the domain. Problems point into `pointer`, their place in the body.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for a malformed id of a run, time or text, and for an unknown hook.
    pub fn filter(&self, pointer: &str) -> Result<CacheFilter, Problem> {
        self.read(|field, detail| Problem::at(Code::InvalidValue, format!("{pointer}/{field}"), detail))
    }

    /// Converts the conditions to a filter of the domain; `wrong` makes the problem of a field.
    ///
    /// # Errors
    /// The problem of the first malformed field.
    pub fn read(&self, wrong: impl Fn(&str, String) -> Problem) -> Result<CacheFilter, Problem> {
        let time = |field: &str, value: &Option<String>| {
            read_time(value.as_deref()).map_err(|detail| wrong(field, detail.to_owned()))
        };
        let run = self.run.as_deref().map(str::parse).transpose();
        let hooks = self.hooks.iter().enumerate().map(|(i, hook)| {
            hook.parse().map_err(|e: UnknownHook| {
                wrong(&format!("hooks/{i}"), format!("{e}; give a full name such as blocks.5.hook_resid_post"))
            })
        });
        let text = self.text.as_deref().map(TextQuery::parse).transpose();
        Ok(CacheFilter {
            model: self.model.clone(),
            run: run.map_err(|_| wrong("run", "this is not the id of a run".to_owned()))?,
            tags: self.tags.clone(),
            label: self.label.clone(),
            hooks: hooks.collect::<Result<_, _>>()?,
            created_from: time("created_from", &self.created_from)?,
            created_to: time("created_to", &self.created_to)?,
            text: text.map_err(|e| wrong("text", e.to_string()))?,
            metadata: self.metadata.clone(),
            pinned: self.pinned,
            expires_from: time("expires_from", &self.expires_from)?,
            expires_to: time("expires_to", &self.expires_to)?,
            fingerprint: None,
            bos: None,
        })
    }
}
