//! The terms of a cache: whatever a filter can ask for, each as one token of an FTS5 table without content, the full-
//! text index.
//!
//! A term is a hash of what it says and of its tenant, so a term finds caches of its tenant only. Metadata has a term
//! for every key of every object, and equal values have one spelling.

mod entered;
mod merge;
mod partitions;
mod spelling;

pub(crate) use entered::{Described, insert, replace};
#[cfg(test)]
pub(crate) use merge::MergeTerms;
pub(crate) use partitions::{PARTITION_CACHES, Partitions};
use residuum_domain::{RunId, TenantId};
pub(crate) use spelling::{Entry, entries, entry};

/// Letters of a term, five bits each: two that mean different things are never the same.
const LETTERS: usize = 20;

/// What a filter can ask a cache for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Term<'a> {
    /// Belongs to the tenant.
    Any,
    /// Was stored in the time partition that begins then.
    Partition(i64),
    Run(RunId),
    Model(&'a str),
    HookSet(i64),
    Label(&'a str),
    Tag(&'a str),
    /// A key and its value, spelled by [`entry`].
    Metadata(&'a str, &'a str),
}

impl Term<'_> {
    /// The term as a token that no tokeniser divides.
    pub(crate) fn word(self, tenant: TenantId) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tenant.0.to_le_bytes());
        match self {
            Self::Any => hasher.update(b"any"),
            Self::Partition(first_at) => hasher.update(b"block ").update(&first_at.to_le_bytes()),
            Self::Run(run) => hasher.update(b"run ").update(run.as_bytes()),
            Self::Model(model) => hasher.update(b"model ").update(model.as_bytes()),
            Self::HookSet(set) => hasher.update(b"hooks ").update(&set.to_le_bytes()),
            Self::Label(label) => hasher.update(b"label ").update(label.as_bytes()),
            Self::Tag(tag) => hasher.update(b"tag ").update(tag.as_bytes()),
            Self::Metadata(key, value) => {
                let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
                hasher
                    .update(b"metadata ")
                    .update(&length.to_le_bytes())
                    .update(key.as_bytes())
                    .update(value.as_bytes())
            }
        };
        let hash = hasher.finalize();
        hash.as_bytes()[..LETTERS]
            .iter()
            .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_mean_something_else_are_another_word() {
        let terms = [
            Term::Any,
            Term::Partition(1),
            Term::Model("a"),
            Term::Label("a"),
            Term::Tag("a"),
            Term::Tag("b"),
            Term::Tag(""),
            Term::HookSet(1),
            Term::Metadata("a", "b"),
            Term::Metadata("ab", ""),
            Term::Metadata("", "ab"),
        ];
        let words: std::collections::HashSet<String> =
            [TenantId(1), TenantId(2)].iter().flat_map(|t| terms.map(|term| term.word(*t))).collect();
        assert_eq!(words.len(), 2 * terms.len());
        assert!(words.iter().all(|w| w.len() == LETTERS && w.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
