//! The keys under which configurations have the sizes of a model.

use crate::{architecture::Size, config::Config, error::LoadError};

/// The keys of the sizes, each with its spellings, for a family with `d_head = d_model / n_heads` and a key/value head for each
/// query head. A family with fewer key/value heads changes `n_kv_heads` in the result.
pub struct SizeKeys {
    /// Width of the residual stream.
    pub width: &'static [&'static str],
    /// Query heads.
    pub heads: &'static [&'static str],
    /// Blocks.
    pub layers: &'static [&'static str],
    /// Neurons of the MLP; by default four times the width.
    pub neurons: &'static [&'static str],
    /// Longest input.
    pub context: &'static [&'static str],
    /// Default for the longest input; `None` if the key is required.
    pub default_context: Option<usize>,
}

impl SizeKeys {
    /// GPT-2's own names and the ones transformers gives them.
    pub const GPT2: Self = Self {
        width: &["n_embd", "hidden_size"],
        heads: &["n_head", "num_attention_heads"],
        layers: &["n_layer", "num_hidden_layers"],
        neurons: &["n_inner"],
        context: &["n_positions", "max_position_embeddings"],
        default_context: None,
    };

    /// The names most families use.
    pub const USUAL: Self = Self {
        width: &["hidden_size"],
        heads: &["num_attention_heads"],
        layers: &["num_hidden_layers"],
        neurons: &["intermediate_size"],
        context: &["max_position_embeddings"],
        default_context: None,
    };

    /// Reads the sizes.
    pub fn read(&self, config: &Config) -> Result<Size, LoadError> {
        let (d_model, n_heads) = (config.count_of(self.width)?, config.count_of(self.heads)?);
        if !d_model.is_multiple_of(n_heads) {
            return Err(config.refuse(self.heads[0], format!("is {n_heads}, which does not divide {d_model}")));
        }
        let n_ctx = match (config.count_opt_of(self.context)?, self.default_context) {
            (Some(n), _) | (None, Some(n)) => n,
            (None, None) => return Err(config.refuse(self.context[0], "is missing")),
        };
        Ok(Size {
            model_type: config.text_or("model_type", "")?,
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head: d_model / n_heads,
            d_mlp: config.count_opt_of(self.neurons)?.unwrap_or(4 * d_model),
            d_vocab: config.count("vocab_size")?,
            n_ctx,
            n_layers: config.layers_of(self.layers)?,
        })
    }
}
