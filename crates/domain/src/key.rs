//! API keys: their format, their scopes, and the tenants they belong to.
//!
//! A key is `rsd_<id>_<secret>`. The id (12 hexadecimal digits) identifies its record; the secret (64 digits) authenticates it. The
//! record has only a hash of the secret. The secret is 32 random bytes, so a fast hash is enough: it cannot be guessed.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::TenantId;

/// The prefix of every key, so that a leaked key can be recognised.
pub const KEY_PREFIX: &str = "rsd_";

/// Longest name of a key.
const MAX_NAME_CHARS: usize = 100;
/// Longest name of a tenant.
const MAX_TENANT_CHARS: usize = 64;

/// What a key may do. Each route requires one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read and analyse the tenant's data; store nothing.
    Read,
    /// `read`, and create, edit and delete the tenant's data.
    Write,
    /// Read the metrics, which cover all tenants.
    Metrics,
    /// Includes every other scope.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Metrics, Self::Admin];

    /// The stable spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    /// Whether this scope includes `other`.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Write => matches!(other, Self::Write | Self::Read),
            Self::Read => matches!(other, Self::Read),
            Self::Metrics => matches!(other, Self::Metrics),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|scope| scope.name() == s).ok_or_else(|| format!("a scope is one of {names}"))
    }
}

/// The part of a key that may be shown and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 6]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        unhex(s)
            .map(Self)
            .ok_or_else(|| "the id of a key is 12 hexadecimal digits; `residuum keys list` shows them".to_owned())
    }
}

/// A complete key. It exists only while it is created, and while a request with it is checked; `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    id: KeyId,
    secret: [u8; 32],
}

impl ApiKey {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// When the system's random generator fails.
    pub fn generate() -> std::io::Result<Self> {
        let (mut id, mut secret) = ([0; 6], [0; 32]);
        getrandom::fill(&mut id).map_err(std::io::Error::other)?;
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        Ok(Self { id: KeyId(id), secret })
    }

    /// Parses a key as [`Self::reveal`] writes it; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(KEY_PREFIX)?.split_once('_')?;
        Some(Self { id: KeyId(unhex(id)?), secret: unhex(secret)? })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The hash of the secret, which its record has. Two such hashes compare in constant time.
    #[must_use]
    pub fn secret_hash(&self) -> blake3::Hash {
        blake3::hash(&self.secret)
    }

    /// The complete key, with its secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret: String = self.secret.iter().map(|b| format!("{b:02x}")).collect();
        format!("{KEY_PREFIX}{}_{secret}", self.id)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Exactly `2 * N` lower-case hexadecimal digits, so that a key has one spelling.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A name of a key or a tenant that is not allowed, and why.
pub type NameError = String;

/// Checks the name of a key.
///
/// # Errors
/// Unless it has 1 to 100 characters, none of them a control character.
pub fn key_name(text: &str) -> Result<String, NameError> {
    let n = text.chars().count();
    if (1..=MAX_NAME_CHARS).contains(&n) && !text.chars().any(char::is_control) && !text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!("a key's name has 1 to {MAX_NAME_CHARS} characters, none of them a control character"))
}

/// Checks the name of a tenant.
///
/// # Errors
/// Unless it has 1 to 64 letters, digits, dots, dashes and underscores.
pub fn tenant_name(text: &str) -> Result<String, NameError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=MAX_TENANT_CHARS).contains(&text.len()) && text.chars().all(valid) {
        return Ok(text.to_owned());
    }
    Err(format!("a tenant's name has 1 to {MAX_TENANT_CHARS} letters, digits, dots, dashes and underscores"))
}

/// A new key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The key.
    pub key: ApiKey,
    /// Its name.
    pub name: String,
    /// The name of its tenant, which is created if it does not exist.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// The record of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: String,
    /// Hash of its secret.
    pub secret_hash: blake3::Hash,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Whether a key is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is valid.
    Active,
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
}

impl KeyRecord {
    /// The state at the time `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Whether it includes `scope`.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| own.includes(scope))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_reads_back_and_shows_its_secret_only_when_asked() {
        let key = ApiKey::generate().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), 4 + 12 + 1 + 64);
        assert_eq!(ApiKey::parse(&text), Some(key.clone()));
        assert!(!format!("{key:?}").contains(&text[17..]));
        assert_ne!(ApiKey::generate().unwrap(), key);
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    }

    #[test]
    fn a_key_has_one_spelling() {
        let text = ApiKey::generate().unwrap().reveal();
        let bad = [
            text.to_uppercase(),
            text.replace("rsd_", ""),
            format!("{text}0"),
            format!(" {text}"),
            text[..80].to_owned(),
            text.replacen('_', "-", 2),
            String::new(),
        ];
        for bad in bad {
            assert_eq!(ApiKey::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn scopes_form_this_order() {
        use Scope::{Admin, Metrics, Read, Write};
        let includes = |own: Scope| Scope::ALL.into_iter().filter(|s| own.includes(*s)).collect::<Vec<_>>();
        assert_eq!(includes(Read), [Read]);
        assert_eq!(includes(Write), [Read, Write]);
        assert_eq!(includes(Metrics), [Metrics]);
        assert_eq!(includes(Admin), Scope::ALL);
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
    }

    #[test]
    fn a_key_ends_on_the_dot() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let key = ApiKey::generate().unwrap();
        let mut record = KeyRecord {
            id: key.id(),
            name: "k".to_owned(),
            tenant: TenantId::DEFAULT,
            tenant_name: "default".to_owned(),
            secret_hash: key.secret_hash(),
            scopes: vec![Scope::Read],
            created_at: at(0),
            last_used_at: None,
            expires_at: Some(at(10)),
            revoked_at: None,
        };
        assert_eq!([9, 10, 11].map(|s| record.state(at(s))), [KeyState::Active, KeyState::Expired, KeyState::Expired]);
        record.revoked_at = Some(at(5));
        assert_eq!(record.state(at(9)), KeyState::Revoked);
        assert!(record.allows(Scope::Read) && !record.allows(Scope::Write));
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_a_key_is_written_the_same(text in "(rsd_)?[0-9a-fA-F_]{0,90}|\\PC{0,100}") {
            if let Some(key) = ApiKey::parse(&text) {
                prop_assert_eq!(key.reveal(), text);
            }
        }

        #[test]
        fn tenants_cannot_be_named_like_paths_or_markup(text in "\\PC{0,80}") {
            if let Ok(name) = tenant_name(&text) {
                prop_assert!(!name.contains(['/', '\\', '\'', '"', '<', ' ', '\0']) && name.len() <= MAX_TENANT_CHARS);
            }
        }
    }
}
