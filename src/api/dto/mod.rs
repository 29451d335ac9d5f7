//! JSON bodies of requests and responses, and their conversion to and from types of the domain, which know nothing of
//! HTTP.

pub mod annotations;
pub mod cache;
pub mod cache_members;
pub mod cache_query;
pub mod capture;
pub mod chat;
pub mod direction;
pub mod direction_ref;
pub mod generate;
pub mod import;
pub mod input;
pub mod model;
pub mod next_tokens;
pub mod position;
pub mod run;
pub mod run_body;
pub mod selector;
pub mod serving;
pub mod token;
pub mod warning;

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected, Visitor},
};
use utoipa::{IntoParams, ToSchema};

use residuum_domain::{Code, Count, Problem};

/// A page of a listing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    pub next_cursor: Option<String>,
    /// With `count`: the number of items on all pages, or a lower bound of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// With `count`: whether `total` is exact. Counting stops at 5,000, or earlier if it would take long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_is_exact: Option<bool>,
}

/// Query parameters of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items on a page, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

/// Default number of items on a page.
const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of items on a page.
const MAX_LIMIT: u32 = 200;

/// The page size that the client requests.
///
/// # Errors
/// [`Code::InvalidQuery`] outside 1 to 200.
pub fn page_limit(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        n @ 1..=MAX_LIMIT => Ok(n),
        n => Err(Problem::at(
            Code::InvalidQuery,
            "limit",
            format!("limit is {n}; it must lie between 1 and {MAX_LIMIT}"),
        )),
    }
}

/// Parses a time in a query parameter.
///
/// # Errors
/// [`Code::InvalidQuery`] naming the parameter.
pub fn query_time(name: &str, value: Option<&str>) -> Result<Option<jiff::Timestamp>, Problem> {
    read_time(value).map_err(|detail| Problem::at(Code::InvalidQuery, name, detail))
}

/// Parses a time, or says how it must be written.
pub fn read_time(value: Option<&str>) -> Result<Option<jiff::Timestamp>, &'static str> {
    const DETAIL: &str = "a time is written as RFC 3339, for example 2026-11-23T12:00:00Z";
    value.map(str::parse).transpose().map_err(|_| DETAIL)
}

/// A time in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub jiff::Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as RFC 3339 writes it, for example 2026-11-23T12:00:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        d.deserialize_str(Read)
    }
}

/// The cursor that encodes a place in a listing.
pub fn cursor_of(place: impl std::fmt::Display) -> String {
    format!("c_{place}")
}

/// Decodes a cursor.
///
/// # Errors
/// [`Code::InvalidCursor`] if it is malformed.
pub fn cursor<T: std::str::FromStr>(cursor: Option<&str>) -> Result<Option<T>, Problem> {
    cursor
        .map(|c| {
            c.strip_prefix("c_").and_then(|c| c.parse().ok()).ok_or_else(|| {
                Problem::at(Code::InvalidCursor, "cursor", "use the next_cursor of the previous page, unchanged")
            })
        })
        .transpose()
}

impl<T> Page<T> {
    /// A page without a count.
    pub fn new(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self { items, next_cursor, total: None, total_is_exact: None }
    }

    /// A page, with the number of items on all pages if they were counted.
    pub fn counted(items: Vec<T>, next_cursor: Option<String>, count: Option<Count>) -> Self {
        let (total, total_is_exact) = (count.map(|c| c.total), count.map(|c| c.is_exact));
        Self { items, next_cursor, total, total_is_exact }
    }

    /// A page of `limit` items from at most `limit + 1` that were read: if there is one more, there is a next page.
    pub fn cut<S, K: std::fmt::Display>(
        mut rows: Vec<S>,
        limit: u32,
        key: impl Fn(&S) -> K,
        dto: impl Fn(S) -> T,
    ) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| cursor_of(key(last)));
        Self::new(rows.into_iter().map(dto).collect(), next_cursor)
    }
}
