//! An input as it is stored: in the queue while it waits, and in the header of the blob that holds its activations.
//!
//! Both leave out the list of hooks, which many items share and which can be longer than the rest.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use residuum_domain::{
    Applied, BosDecision, Capture, Dtype, Generation, Hook, ImportOrigin, NewItem, Positions, TextCompletion,
    positions::Unsettled,
};

/// A [`NewItem`] without its hooks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ItemRecord<'a> {
    pub(crate) token_ids: Cow<'a, [u32]>,
    tokens: Cow<'a, [String]>,
    text: Option<Cow<'a, str>>,
    pub(crate) positions: Cow<'a, Positions>,
    dtype: Dtype,
    bos: Cow<'a, BosDecision>,
    n_truncated: u64,
    tags: Cow<'a, [String]>,
    metadata: Cow<'a, Map<String, Value>>,
    label: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Cow<'a, Generation>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsettled: Option<Cow<'a, Unsettled>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completion: Option<Cow<'a, TextCompletion>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, ImportOrigin>>,
    #[serde(default, skip_serializing_if = "none")]
    interventions: Cow<'a, [Applied]>,
}

#[expect(clippy::ptr_arg, reason = "serde calls it with the field")]
fn none(interventions: &Cow<'_, [Applied]>) -> bool {
    interventions.is_empty()
}

impl<'a> From<&'a NewItem> for ItemRecord<'a> {
    fn from(item: &'a NewItem) -> Self {
        Self {
            token_ids: Cow::Borrowed(&item.token_ids),
            tokens: Cow::Borrowed(&item.tokens),
            text: item.text.as_deref().map(Cow::Borrowed),
            positions: Cow::Borrowed(&item.capture.positions),
            dtype: item.capture.dtype,
            bos: Cow::Borrowed(&item.bos),
            n_truncated: item.n_truncated,
            tags: Cow::Borrowed(&item.tags),
            metadata: Cow::Borrowed(&item.metadata),
            label: item.label.as_deref().map(Cow::Borrowed),
            generation: item.generation.as_ref().map(Cow::Borrowed),
            unsettled: item.unsettled.as_ref().map(Cow::Borrowed),
            completion: item.completion.as_ref().map(Cow::Borrowed),
            origin: item.origin.as_ref().map(Cow::Borrowed),
            interventions: Cow::Borrowed(&item.interventions),
        }
    }
}

impl ItemRecord<'_> {
    /// Whether the input has this text and these tokens, as JSON.
    pub(crate) fn reads(&self, text: Option<&str>, tokens: &str) -> bool {
        let same = serde_json::from_str::<Vec<String>>(tokens).is_ok_and(|tokens| *tokens == *self.tokens);
        same && self.text.as_deref() == text
    }

    /// The item, with its hooks again.
    pub(crate) fn into_item(self, hooks: Arc<[Hook]>) -> NewItem {
        NewItem {
            token_ids: self.token_ids.into_owned(),
            tokens: self.tokens.into_owned(),
            text: self.text.map(Cow::into_owned),
            capture: Capture { hooks, positions: self.positions.into_owned(), dtype: self.dtype },
            bos: self.bos.into_owned(),
            n_truncated: self.n_truncated,
            tags: self.tags.into_owned(),
            metadata: self.metadata.into_owned(),
            label: self.label.map(Cow::into_owned),
            generation: self.generation.map(Cow::into_owned),
            unsettled: self.unsettled.map(Cow::into_owned),
            completion: self.completion.map(Cow::into_owned),
            origin: self.origin.map(Cow::into_owned),
            interventions: self.interventions.into_owned(),
        }
    }
}
