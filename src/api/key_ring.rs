//! The API keys of the store, cached for a short time, and the check that finds the tenant of a request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use residuum_domain::{ApiKey, Code, KeyId, KeyRecord, KeyState, Problem, Scope, TenantId, key::KEY_PREFIX};
use residuum_store::{Store, StoreError};

/// Minimum time between two updates of `last_used_at` of one key.
const TOUCH: Duration = Duration::from_secs(60);

/// The tenant and key of a request. If a route needs a scope, the extensions of its requests hold this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Tenant whose data the request may see.
    pub tenant: TenantId,
    /// The key of the request; `None` if the store requires none.
    pub key: Option<KeyId>,
}

/// A cache of the keys of the store.
pub struct KeyRing {
    store: Store,
    /// Maximum age of the cached keys.
    freshness: Duration,
    known: Mutex<Known>,
    /// Locked while the keys are read, so that concurrent requests read them once.
    reading: tokio::sync::Mutex<()>,
    touched: Mutex<HashMap<KeyId, Instant>>,
}

#[derive(Default)]
struct Known {
    keys: Arc<HashMap<KeyId, KeyRecord>>,
    read_at: Option<Instant>,
    /// Whether the store had keys at any time since the start; from then on requests need one.
    required: bool,
}

impl KeyRing {
    /// The keys of `store`. A new or revoked key takes effect within `freshness`.
    pub fn new(store: Store, freshness: Duration) -> Self {
        Self {
            store,
            freshness,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            touched: Mutex::default(),
        }
    }

    /// Whether requests need a key.
    ///
    /// # Errors
    /// An error of the store.
    pub async fn requires_keys(&self) -> Result<bool, StoreError> {
        Ok(self.known().await?.1)
    }

    /// The caller of a request, if its key has `scope`.
    ///
    /// # Errors
    /// [`Code::ApiKeyRequired`], [`Code::ApiKeyInvalid`], [`Code::ScopeMissing`], or an error of the store: if the keys
    /// cannot be read, every request is refused.
    pub async fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
        let (keys, required) = self.known().await?;
        let presented = presented_key(headers)?;
        if !required && presented.is_none() {
            return Ok(Caller { tenant: TenantId::DEFAULT, key: None });
        }
        let Some(presented) = presented else {
            let detail = "this server requires an API key: send `Authorization: Bearer rsd_…`; make a key with \
                `residuum keys create`";
            return Err(Problem::new(Code::ApiKeyRequired, detail));
        };
        let invalid = |detail: &str| Problem::new(Code::ApiKeyInvalid, detail);
        // blake3::Hash compares in constant time; the id in front of the secret may be known
        let record = keys.get(&presented.id()).filter(|record| record.secret_hash == presented.secret_hash());
        let record = record.ok_or_else(|| invalid("this server does not know the API key"))?;
        match record.state(Timestamp::now()) {
            KeyState::Active => {}
            KeyState::Revoked => return Err(invalid("the API key has been revoked")),
            KeyState::Expired => return Err(invalid("the API key has expired")),
        }
        if !record.allows(scope) {
            let own: Vec<&str> = record.scopes.iter().map(|s| s.name()).collect();
            let detail = format!("this needs the scope `{scope}`; the API key has {}", own.join(", "));
            return Err(Problem::new(Code::ScopeMissing, detail));
        }
        self.touch(record.id);
        Ok(Caller { tenant: record.tenant, key: Some(record.id) })
    }

    async fn known(&self) -> Result<(Arc<HashMap<KeyId, KeyRecord>>, bool), StoreError> {
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        // another request may have read them while this one waited
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        // taken before the query, so that the keys are at least as new as this time
        let read_at = Instant::now();
        let keys: HashMap<KeyId, KeyRecord> = self.store.keys().await?.into_iter().map(|key| (key.id, key)).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.required && !keys.is_empty() {
            tracing::info!("the store has API keys: requests need one from now on");
        }
        known.required |= !keys.is_empty();
        known.keys = Arc::new(keys);
        known.read_at = Some(read_at);
        Ok((Arc::clone(&known.keys), known.required))
    }

    fn fresh(&self) -> Option<(Arc<HashMap<KeyId, KeyRecord>>, bool)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.read_at.is_some_and(|at| at.elapsed() < self.freshness);
        fresh.then(|| (Arc::clone(&known.keys), known.required))
    }

    /// Stores that a key was used, at most once a minute; the request does not wait for it.
    fn touch(&self, id: KeyId) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if touched.get(&id).is_some_and(|at| now.duration_since(*at) < TOUCH) {
            return;
        }
        touched.insert(id, now);
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.touch_key(id, Timestamp::now()).await {
                tracing::warn!(key = %id, %error, "the last use of a key could not be stored");
            }
        });
    }
}

/// The key in the `Authorization` header. Other credentials are ignored: they may be for a proxy.
///
/// # Errors
/// [`Code::ApiKeyInvalid`] if there are several keys, or the key is malformed.
fn presented_key(headers: &HeaderMap) -> Result<Option<ApiKey>, Problem> {
    let invalid = |detail: &str| Problem::new(Code::ApiKeyInvalid, detail);
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(KEY_PREFIX)).then_some(token)
    });
    let Some(token) = bearers.next() else { return Ok(None) };
    if bearers.next().is_some() {
        return Err(invalid("the request has more than one API key"));
    }
    let key = ApiKey::parse(token);
    key.map(Some)
        .ok_or_else(|| invalid("the API key is malformed: send it exactly as `residuum keys create` printed it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_header() {
        let key = ApiKey::generate().unwrap();
        let headers = |values: &[String]| {
            let mut map = HeaderMap::new();
            values.iter().for_each(|v| {
                map.append(header::AUTHORIZATION, v.parse().unwrap());
            });
            map
        };
        let text = key.reveal();
        for good in [format!("Bearer {text}"), format!("bearer {text}"), format!("BEARER   {text} ")] {
            assert_eq!(presented_key(&headers(&[good])).unwrap(), Some(key.clone()));
        }
        let basic = "Basic dXNlcjpwYXNz".to_owned();
        assert_eq!(presented_key(&headers(&[])).unwrap(), None);
        let foreign = "Bearer eyJhbGciOi".to_owned();
        assert_eq!(presented_key(&headers(&[basic.clone(), text.clone(), foreign])).unwrap(), None);
        assert_eq!(presented_key(&headers(&[basic, format!("Bearer {text}")])).unwrap(), Some(key));
        for bad in [vec![format!("Bearer {text}"); 2], vec![format!("Bearer {}", &text[..80])]] {
            assert_eq!(presented_key(&headers(&bad)).unwrap_err().code, Code::ApiKeyInvalid, "{bad:?}");
        }
    }
}
