//! The token cache: tokens of recently tokenised texts. Clients often post a text again, mostly to reuse its stored
//! activations; it is then not tokenised again.

use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;

use residuum_domain::{Problem, TenantId};
use residuum_model::{Encoded, Model};

/// Most bytes of tokens that are kept.
const MAX_BYTES: usize = 16 << 20;

/// Approximate bytes of a token: its id, its text in a separate allocation, its offsets.
const TOKEN_BYTES: usize = 96;

/// How a text is tokenised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenising {
    /// As in [`residuum_model::TextTokenizer::encode`].
    pub prepend_bos: Option<bool>,
    /// Whether the text is a rendered chat.
    pub chat: bool,
}

/// Tokens by text and tenant; the least recently used are dropped first. Each tenant only meets its own entries, so
/// response times do not tell what another tenant posted.
pub struct TokenCache {
    kept: Mutex<Kept>,
}

struct Kept {
    texts: LruCache<[u8; 32], Arc<Encoded>>,
    n_bytes: usize,
    max_bytes: usize,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::holding(MAX_BYTES)
    }
}

impl TokenCache {
    fn holding(max_bytes: usize) -> Self {
        Self { kept: Mutex::new(Kept { texts: LruCache::new_unbounded(), n_bytes: 0, max_bytes }) }
    }

    /// The tokens of a text, from the cache or from the model's tokenizer.
    ///
    /// # Errors
    /// Those of the tokenizer; errors are not kept.
    pub fn encode(&self, tenant: TenantId, model: &Model, text: &str, how: Tokenising) -> Result<Encoded, Problem> {
        let key = key(tenant, &model.info().fingerprint, text, how);
        let known = self.with(|kept| kept.texts.get(&key).map(Arc::clone));
        if let Some(encoded) = known {
            return Ok(Encoded::clone(&encoded));
        }
        let tokenizer = model.tokenizer();
        let encoded = match how.chat {
            false => tokenizer.encode(text, how.prepend_bos)?,
            true => tokenizer.encode_chat(text, how.prepend_bos)?,
        };
        let entry = Arc::new(encoded.clone());
        self.with(|kept| kept.keep(key, entry));
        Ok(encoded)
    }

    /// Whether the tokens of a text are in the cache.
    pub fn knows(&self, tenant: TenantId, model: &Model, text: &str, how: Tokenising) -> bool {
        let key = key(tenant, &model.info().fingerprint, text, how);
        self.with(|kept| kept.texts.contains_key(&key))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    /// Keeps the tokens of a text, unless they would displace most of the others.
    fn keep(&mut self, key: [u8; 32], encoded: Arc<Encoded>) {
        let size = n_bytes(&encoded);
        if size > self.max_bytes / 8 {
            return;
        }
        self.n_bytes += size;
        if let Some(before) = self.texts.insert(key, encoded) {
            self.n_bytes -= n_bytes(&before);
        }
        while self.n_bytes > self.max_bytes {
            let Some((_, oldest)) = self.texts.remove_lru() else { break };
            self.n_bytes -= n_bytes(&oldest);
        }
    }
}

fn n_bytes(encoded: &Encoded) -> usize {
    size_of::<Encoded>() + encoded.ids.len() * TOKEN_BYTES
}

fn key(tenant: TenantId, fingerprint: &str, text: &str, how: Tokenising) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tenant.0.to_le_bytes());
    hasher.update(&[how.prepend_bos.map_or(2, u8::from), u8::from(how.chat)]);
    hasher.update(&(fingerprint.len() as u64).to_le_bytes());
    hasher.update(fingerprint.as_bytes());
    hasher.update(text.as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use residuum_domain::BosDecision;

    const PLAIN: Tokenising = Tokenising { prepend_bos: None, chat: false };

    fn encoded(n_tokens: usize) -> Arc<Encoded> {
        Arc::new(Encoded {
            ids: vec![1; n_tokens],
            tokens: vec!["a".to_owned(); n_tokens],
            special: vec![false; n_tokens],
            offsets: None,
            bos: BosDecision { requested: None, present: false, added: false, token_id: None },
            n_suffix: 0,
            cut: 0..0,
        })
    }

    #[test]
    fn everything_that_changes_the_tokens_or_the_tenant_changes_the_key() {
        let one = key(TenantId(1), "m", "text", PLAIN);
        assert_eq!(key(TenantId(1), "m", "text", PLAIN), one);
        for other in [
            key(TenantId(2), "m", "text", PLAIN),
            key(TenantId(1), "n", "text", PLAIN),
            key(TenantId(1), "mt", "ext", PLAIN),
            key(TenantId(1), "m", "text ", PLAIN),
            key(TenantId(1), "m", "text", Tokenising { chat: true, ..PLAIN }),
            key(TenantId(1), "m", "text", Tokenising { prepend_bos: Some(true), ..PLAIN }),
            key(TenantId(1), "m", "text", Tokenising { prepend_bos: Some(false), ..PLAIN }),
        ] {
            assert_ne!(other, one);
        }
    }

    #[test]
    fn the_least_recently_used_are_dropped_and_the_bytes_stay_bounded() {
        let size = n_bytes(&encoded(10));
        let texts = TokenCache::holding(10 * size);
        for i in 0..10u8 {
            texts.with(|kept| kept.keep([i; 32], encoded(10)));
        }
        assert!(texts.with(|kept| kept.texts.get(&[0; 32]).is_some()), "and now the last to go");
        texts.with(|kept| {
            kept.keep([10; 32], encoded(10));
            kept.keep([10; 32], encoded(10));
            kept.keep([11; 32], encoded(1000));
        });
        texts.with(|kept| {
            assert_eq!((kept.texts.len(), kept.n_bytes), (10, 10 * size));
            assert!(kept.texts.contains_key(&[0; 32]) && !kept.texts.contains_key(&[1; 32]));
            assert!(!kept.texts.contains_key(&[11; 32]), "larger than its share");
        });
    }
}
