//! Identifiers. Ids are UUIDv7: unguessable enough to share, and sorting by id sorts by creation time.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the id of a model or autoencoder may be, for errors.
pub const ID_RULE: &str =
    "an id has 1 to 100 letters, digits, dots, dashes and underscores, and does not begin with a dot";

/// Whether a text can be the id of a model or autoencoder. Such ids appear in URLs, and name folders.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=100).contains(&text.len()) && !text.starts_with('.') && text.chars().all(valid)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, which sorts after every id that this process has created before.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// A lower bound: it sorts before, or equal to, every id that is created at this time or later.
            #[must_use]
            pub fn earliest(time: jiff::Timestamp) -> Self {
                let millis = u64::try_from(time.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff;
                Self(Uuid::from_u128(u128::from(millis) << 80))
            }

            /// When it was created, to the millisecond.
            #[must_use]
            pub fn made_at(&self) -> SystemTime {
                let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |t| t.to_unix());
                SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
            }

            /// The sixteen bytes that the index stores.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the bytes of [`Self::as_bytes`]; `None` unless there are sixteen.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Accepts only the hyphenated form, so that an id has a single spelling.
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let id = Uuid::try_parse(s)?;
                if s.len() == 36 { Ok(Self(id)) } else { Uuid::try_parse("").map(Self) }
            }
        }
    };
}

id!(
    /// One queued request.
    RunId
);
id!(
    /// The activation cache of one input of a run.
    CacheId
);
id!(
    /// A named vector, or one for each layer.
    DirectionId
);
id!(
    /// One blob: a safetensors file holding the tensors of one or more caches.
    PackId
);

/// The owner of a run, a cache or a direction: the tenant of the API key that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub i64);

impl TenantId {
    /// The tenant of every request if the store has no API keys.
    pub const DEFAULT: Self = Self(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_sort_by_creation() {
        let ids: Vec<RunId> = (0..100).map(|_| RunId::generate()).collect();
        assert!(ids.is_sorted());
        let text = ids[0].to_string();
        assert_eq!(text.parse::<RunId>().unwrap(), ids[0]);
        assert_eq!(RunId::from_slice(ids[0].as_bytes()), Some(ids[0]));
        assert_eq!(RunId::from_slice(&[1, 2]), None);
        let age = ids[0].made_at().elapsed().unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn only_the_hyphenated_spelling_is_an_id() {
        let text = RunId::generate().to_string();
        assert!(text.replace('-', "").parse::<RunId>().is_err());
        assert!(format!("{{{text}}}").parse::<RunId>().is_err());
        assert!("../../etc/passwd".parse::<RunId>().is_err());
    }
}
