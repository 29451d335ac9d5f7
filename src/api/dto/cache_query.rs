//! Query parameters that select caches: conditions, order, page and members.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{cache_members::CacheMembers, selector::FilterDto};
use residuum_domain::{CacheFilter, Code, Order, Problem};
use residuum_store::PageRequest;

/// Default number of caches on a page.
const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of caches on a page.
const MAX_LIMIT: u32 = 1000;

/// Declares the query parameters of a route that selects caches: the conditions, which are the same everywhere, and its
/// own.
macro_rules! selecting_caches {
    ($(#[$about:meta])* $name:ident { $($(#[$own:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub struct $name {
            /// Name of the model.
            pub model: Option<String>,
            /// Made by this run.
            pub run: Option<String>,
            /// Has this tag; may be repeated: has all of them.
            #[serde(default)]
            pub tag: Vec<String>,
            /// Has this label.
            pub label: Option<String>,
            /// Stored at or after this time (RFC 3339).
            pub created_from: Option<String>,
            /// Stored before this time (RFC 3339).
            pub created_to: Option<String>,
            /// The text, or what was generated after it, contains all of these words and `"quoted phrases"`. Only whole
            /// words match; case and accents are ignored.
            pub text: Option<String>,
            /// true: is pinned; false: is not.
            pub pinned: Option<bool>,
            /// Expires at or after this time (RFC 3339).
            pub expires_from: Option<String>,
            /// Expires before this time (RFC 3339).
            pub expires_to: Option<String>,
            $($(#[$own])* pub $field: $type,)*
        }

        impl $name {
            /// Converts the conditions, and those on hooks and `metadata`, to a filter of the store.
            ///
            /// # Errors
            /// [`Code::InvalidQuery`] naming the parameter.
            pub fn conditions(
                &self,
                hooks: &[String],
                metadata: serde_json::Map<String, serde_json::Value>,
            ) -> Result<residuum_domain::CacheFilter, residuum_domain::Problem> {
                let conditions = $crate::api::dto::selector::FilterDto {
                    model: self.model.clone(),
                    run: self.run.clone(),
                    tags: self.tag.clone(),
                    label: self.label.clone(),
                    hooks: hooks.to_vec(),
                    created_from: self.created_from.clone(),
                    created_to: self.created_to.clone(),
                    text: self.text.clone(),
                    metadata,
                    pinned: self.pinned,
                    expires_from: self.expires_from.clone(),
                    expires_to: self.expires_to.clone(),
                };
                $crate::api::dto::cache_query::read(&conditions)
            }
        }
    };
}
pub(in crate::api) use selecting_caches;

/// Converts conditions to a filter. Problems name the query parameter, which is singular.
pub fn read(conditions: &FilterDto) -> Result<CacheFilter, Problem> {
    conditions.read(|field, detail| {
        let name = if field.starts_with("hooks") { "hook" } else { field };
        Problem::at(Code::InvalidQuery, name, detail)
    })
}

selecting_caches! {
    /// Conditions on caches, of which a cache must meet all, and a page of those that do.
    CachesQuery {
        /// Captured this hook (full name); may be repeated: captured all of them.
        #[serde(default)]
        hook: Vec<String>,
        /// Members of each cache in the answer, separated by commas; the others are left out, and not read. All of them
        /// by default.
        #[param(example = "id,label,tags")]
        fields: Option<String>,
        /// `desc`: newest first, which is the default; `asc`: oldest first. A cursor keeps its order.
        #[param(inline)]
        order: Option<OrderParam>,
        /// true: count the caches, for `total` in the response.
        count: Option<bool>,
        /// Items on a page, 1 to 1,000.
        #[param(minimum = 1, maximum = 1000, default = 50)]
        limit: Option<u32>,
        /// `next_cursor` of the previous page.
        cursor: Option<String>,
    }
}

selecting_caches! {
    /// Conditions on the caches to delete, at least one. A cache is deleted if it meets all of them.
    DeleteCachesQuery {
        /// Captured this hook (full name); may be repeated: captured all of them.
        #[serde(default)]
        hook: Vec<String>,
    }
}

/// In which order caches come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = Order)]
#[serde(rename_all = "lowercase")]
pub enum OrderParam {
    /// The oldest first.
    Asc,
    /// The newest first.
    Desc,
}

impl From<OrderParam> for Order {
    fn from(order: OrderParam) -> Self {
        match order {
            OrderParam::Asc => Self::Ascending,
            OrderParam::Desc => Self::Descending,
        }
    }
}

impl CachesQuery {
    /// The page that is asked for, and the members of its items; `None`: all members.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] for a wrong `limit` or member, [`Code::InvalidCursor`].
    pub fn page(&self) -> Result<(PageRequest, Option<CacheMembers>), Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let detail = format!("limit is {limit}; it must lie between 1 and {MAX_LIMIT}");
            return Err(Problem::at(Code::InvalidQuery, "limit", detail));
        }
        let members = self.fields.as_deref().map(CacheMembers::parse).transpose()?;
        let is_brief = members.as_ref().is_some_and(CacheMembers::are_brief);
        let (order, after) = place(self.order.map(Order::from), self.cursor.as_deref())?;
        Ok((PageRequest { order, after, limit, is_brief }, members))
    }

    /// Converts the conditions to a filter of the store.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn filter(&self, metadata: Map<String, Value>) -> Result<CacheFilter, Problem> {
        self.conditions(&self.hook, metadata)
    }
}

impl DeleteCachesQuery {
    /// Converts the conditions to a filter of the store.
    ///
    /// # Errors
    /// [`Code::FilterMissing`] if there is none, [`Code::InvalidQuery`] naming the parameter.
    pub fn filter(&self, metadata: Map<String, Value>) -> Result<CacheFilter, Problem> {
        let filter = self.conditions(&self.hook, metadata)?;
        if filter.is_empty() {
            let detail = "name the caches to delete by at least one condition, such as tag=demo; for all of them, give \
                created_to with a time in the future";
            return Err(Problem::new(Code::FilterMissing, detail));
        }
        Ok(filter)
    }
}

/// Letters with which cursors begin, by the order of their listing.
const CURSORS: [(&str, Order); 2] = [("c_", Order::Descending), ("a_", Order::Ascending)];

/// The cursor of the page behind this time.
pub fn cursor_behind(order: Order, time: jiff::Timestamp) -> String {
    let letter = CURSORS.iter().find(|(_, of)| *of == order).map_or("", |(letter, _)| letter);
    format!("{letter}{time}")
}

/// The order of a listing, and behind which time its page begins.
fn place(order: Option<Order>, cursor: Option<&str>) -> Result<(Order, Option<jiff::Timestamp>), Problem> {
    let Some(cursor) = cursor else { return Ok((order.unwrap_or(Order::Descending), None)) };
    let wrong = |detail: String| Problem::at(Code::InvalidCursor, "cursor", detail);
    let read = |(letter, of): &(&str, Order)| Some((*of, cursor.strip_prefix(letter)?.parse().ok()?));
    let Some((own, time)) = CURSORS.iter().find_map(read) else {
        return Err(wrong("use the next_cursor of the previous page, unchanged".to_owned()));
    };
    if order.is_some_and(|order| order != own) {
        let detail = format!("this cursor continues a listing with order={0}; leave order out or give {0}", own.name());
        return Err(wrong(detail));
    }
    Ok((own, Some(time)))
}

/// How many caches were deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"deleted": 120, "kept_pinned": 2}))]
pub struct DeletedCachesDto {
    /// Number of caches that were deleted.
    pub deleted: u64,
    /// Number of caches that meet the conditions and were kept because they are pinned; `pinned=true` deletes them.
    pub kept_pinned: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_keep_time_and_order() {
        let time: jiff::Timestamp = "2026-11-23T12:00:00.000001Z".parse().unwrap();
        for order in Order::ALL {
            let cursor = cursor_behind(order, time);
            assert_eq!(place(None, Some(&cursor)).unwrap(), (order, Some(time)));
            assert_eq!(place(Some(order), Some(&cursor)).unwrap(), (order, Some(time)));
            let other = Order::ALL.into_iter().find(|other| *other != order);
            assert_eq!(place(other, Some(&cursor)).unwrap_err().code, Code::InvalidCursor);
        }
        assert_eq!(place(None, None).unwrap(), (Order::Descending, None));
        assert_eq!(place(Some(Order::Ascending), None).unwrap(), (Order::Ascending, None));
        for wrong in ["", "c_", "a_1", "b_2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"] {
            assert_eq!(place(None, Some(wrong)).unwrap_err().code, Code::InvalidCursor, "{wrong}");
        }
    }
}
