//! Warnings: anything unusual about a model, an autoencoder or a cache that is not an error.
//!
//! [`WarningCode`] is the only place that defines the spelling and meaning of a warning. Warnings of a model or an autoencoder are
//! found while it loads, logged once, counted in metrics and shown with its description.

use std::{cell::RefCell, fmt, rc::Rc};

use serde::{Deserialize, Serialize};

macro_rules! warning_codes {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal;)*) => {
        /// What is unusual, for programs. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum WarningCode { $($(#[$doc])+ #[serde(rename = $name)] $variant,)* }

        impl WarningCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable spelling.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

warning_codes! {
    /// A key of the configuration that the reference does not read for this family; it was ignored.
    UnknownConfigKey = "unknown_config_key";
    /// A key of the rope parameters that the reference does not read for this kind of rope; it was ignored.
    UnknownRopeKey = "unknown_rope_key";
    /// The configuration ties the unembedding to the embedding, but the checkpoint holds another one, which is used.
    UntiedHead = "untied_head";
    /// Tensors of the checkpoint that are not part of the model; they were not read.
    UnusedTensors = "unused_tensors";
    /// A bias in a GGUF file that its architecture usually lacks and no key announces; it is added.
    UnannouncedBias = "unannounced_bias";
    /// Tokens of an input were cut to fit the model's context.
    InputTruncated = "input_truncated";
    /// Captured numbers are NaN or infinite as stored.
    NotFinite = "not_finite";
    /// An imported cache whose file does not name the weights that made it.
    WeightsUnknown = "weights_unknown";
    /// A key of an autoencoder's `cfg.json` that SAELens does not read; it was ignored.
    UnknownSaeKey = "unknown_sae_key";
    /// The autoencoder's `cfg.json` does not say whether texts began with a BOS token in training, so a cache is
    /// not checked for it.
    SaeBosNotSaid = "sae_bos_not_said";
    /// The autoencoder was trained on texts with a BOS token in front, and the model has none.
    SaeNoBos = "sae_no_bos";
    /// The autoencoder's `cfg.json` does not say how the model's weights were processed; they are taken as they
    /// are, as SAELens does.
    SaeProcessingNotSaid = "sae_processing_not_said";
    /// The SAELens that trained the autoencoder processed the model's weights unless told otherwise, and `cfg.json`
    /// does not say; they are taken as they are.
    SaeTrainedProcessed = "sae_trained_processed";
    /// The autoencoder asks for centred writing weights, which change nothing in a model of RMS norms.
    SaeCentringWithoutEffect = "sae_centring_without_effect";
    /// Of an answer: the cache begins with a BOS token and the autoencoder was trained without one, or the other
    /// way round.
    SaeBosMismatch = "sae_bos_mismatch";
    /// Of an answer: positions beyond the longest text that the autoencoder was trained on were encoded.
    SaeBeyondContext = "sae_beyond_context";
    /// Of an answer: positions of tokens that the autoencoder was not trained on were encoded.
    SaeExcludedTokens = "sae_excluded_tokens";
    /// Of an answer: the autoencoder was trained on some positions of a text alone.
    SaePositionsSlice = "sae_positions_slice";
    /// Of an answer: the token ids of the cache are not known, so special tokens could not be told from others.
    SaeTokensNotKnown = "sae_tokens_not_known";
    /// transformers' class of the tokenizer puts rules of its own in the place of those in `tokenizer.json` or `tokenizer.model`. The tokens follow transformers and can differ from what the file alone gives.
    TokenizerRebuilt = "tokenizer_rebuilt";
    /// The tokenizer's class has rules of its own in transformers that are not known here. `tokenizer.json` was taken as it is.
    TokenizerClassUnknown = "tokenizer_class_unknown";
    /// transformers cannot open the folder's tokenizer, or nothing says which class it is of. A class was taken by the files.
    TokenizerClassAssumed = "tokenizer_class_assumed";
    /// A side file declares a token with another id than the one it has.
    AddedTokenMoved = "added_token_moved";
    /// A side file declares a token whose id is beyond the model's vocabulary. A text with it is refused.
    TokenBeyondVocabulary = "token_beyond_vocabulary";
    /// The pattern of the tokenizer may be the one that was published by mistake with models of Mistral AI. It was taken as it is.
    MistralRegex = "mistral_regex";
}

impl fmt::Display for WarningCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something unusual that is not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What is unusual, for programs.
    pub code: WarningCode,
    /// What is unusual, for people: names the key, tensor or file, and says how it was handled.
    pub detail: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// Collects warnings while something is loaded on one thread. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Rc<RefCell<Vec<Warning>>>);

impl Warnings {
    /// Adds a warning, unless the list has the same one already.
    pub fn add(&self, code: WarningCode, detail: impl Into<String>) {
        let warning = Warning { code, detail: detail.into() };
        let mut list = self.0.borrow_mut();
        if !list.contains(&warning) {
            list.push(warning);
        }
    }

    /// The warnings so far, in the order they were added.
    #[must_use]
    pub fn list(&self) -> Vec<Warning> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_list_without_repetitions() {
        let warnings = Warnings::default();
        let other = warnings.clone();
        warnings.add(WarningCode::UnknownConfigKey, "`a`");
        other.add(WarningCode::UnknownConfigKey, "`a`");
        other.add(WarningCode::UnknownRopeKey, "`b`");
        let said: Vec<String> = warnings.list().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["unknown_config_key: `a`", "unknown_rope_key: `b`"]);
    }

    #[test]
    fn codes_are_unique() {
        let mut names: Vec<&str> = WarningCode::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WarningCode::ALL.len());
    }
}
