//! Chosen members of caches in a listing.

use serde_json::{Map, Value};

use super::cache::CacheDto;
use residuum_domain::{Cache, Code, Problem};

/// The members of a cache in answers, in their order there.
const MEMBERS: [&str; 28] = [
    "id",
    "run",
    "item_index",
    "model",
    "label",
    "tags",
    "metadata",
    "text",
    "token_ids",
    "tokens",
    "n_tokens",
    "bos",
    "n_truncated",
    "completion",
    "imported",
    "n_layers",
    "d_model",
    "positions",
    "hooks",
    "provenance",
    "reused",
    "n_nan",
    "n_inf",
    "content_hash",
    "n_bytes",
    "created_at",
    "expires_at",
    "pinned",
];

/// Members that need texts or tokens: shapes depend on the number of tokens.
const LARGE: [&str; 6] = ["text", "token_ids", "tokens", "n_tokens", "completion", "hooks"];

/// Some members of caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMembers(Vec<&'static str>);

impl CacheMembers {
    /// Reads a list with commas.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] for an unknown member.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let one = |name: &str| {
            MEMBERS.into_iter().find(|member| *member == name.trim()).ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                let detail = format!("a cache has no member `{name}`; it has {}", MEMBERS.join(", "));
                Problem::at(Code::InvalidQuery, "fields", detail)
            })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether they can be told without texts and tokens.
    pub fn are_brief(&self) -> bool {
        !self.0.iter().any(|member| LARGE.contains(member))
    }

    /// These members of a cache. It may lack texts and tokens if [`Self::are_brief`].
    ///
    /// # Errors
    /// Never for a cache that this server made.
    pub fn of(&self, cache: Cache) -> Result<Map<String, Value>, Problem> {
        let cache = if self.are_brief() { CacheDto::with_hooks(cache, Vec::new()) } else { CacheDto::new(cache)? };
        let Ok(Value::Object(mut all)) = serde_json::to_value(cache) else {
            return Err(Problem::new(Code::Internal, "the description of a cache could not be written"));
        };
        all.retain(|name, _| self.0.contains(&name.as_str()));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use utoipa::{
        PartialSchema,
        openapi::{RefOr, Schema},
    };

    use super::*;

    #[test]
    fn the_members_are_those_of_the_schema() {
        let RefOr::T(Schema::Object(schema)) = CacheDto::schema() else { panic!("a cache is an object") };
        let (mut known, mut members): (Vec<&str>, Vec<&str>) =
            (schema.properties.keys().map(String::as_str).collect(), MEMBERS.to_vec());
        // it is no member of a listing
        known.retain(|name| *name != "top_tokens");
        known.sort_unstable();
        members.sort_unstable();
        assert_eq!(known, members);
    }

    #[test]
    fn lists_are_read_and_unknown_members_refused() {
        assert_eq!(CacheMembers::parse("id, tags").unwrap(), CacheMembers(vec!["id", "tags"]));
        assert!(CacheMembers::parse("id,tags").unwrap().are_brief());
        assert!(!CacheMembers::parse("id,hooks").unwrap().are_brief());
        for wrong in ["", "id,", "ID", "id;tags", "nothing"] {
            assert_eq!(CacheMembers::parse(wrong).unwrap_err().code, Code::InvalidQuery, "{wrong}");
        }
    }
}
