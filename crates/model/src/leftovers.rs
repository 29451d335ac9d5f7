//! Tensors of a checkpoint that the architecture does not read: an unembedding that is stored though it is tied, and unused tensors.

use std::collections::HashMap;

use super::{checkpoint::Checkpoint, error::LoadError, families::Family};
use residuum_domain::{WarningCode, Warnings};

/// Ends of the names of buffers that old versions of transformers stored with the weights; today it computes them.
const BUFFERS: &[&str] = &[
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    "rotary_emb.inv_freq",
    "position_ids",
];

/// Prefixes that names of the base model may have, in any combination.
const PREFIXES: &[&str] =
    &["model", "language_model", "transformer", "gpt_neox", "bert", "roberta", "distilbert", "decoder"];

/// Number of names that a warning lists.
const SHOWN: usize = 12;

/// Resolves a tied unembedding as `tie_weights` of transformers' `modeling_utils.py` does: a stored unembedding that differs from
/// the embedding is used, and if only the unembedding is stored, it is the embedding as well.
///
/// # Errors
/// When a tensor cannot be read.
pub fn resolve_tied(family: &mut Family, checkpoint: &Checkpoint, warnings: &Warnings) -> Result<(), LoadError> {
    let Family { architecture, sources, .. } = family;
    let Some(unembedding) = architecture.unembedding.as_mut().filter(|u| u.tied) else { return Ok(()) };
    let (head, embed) = (&sources.unembed.weight, &sources.embed);
    if !checkpoint.has(head) {
        return Ok(());
    }
    if !checkpoint.has(embed) {
        sources.embed.clone_from(head);
    } else if checkpoint.equal(head, embed)? {
        checkpoint.mark_used(head);
    } else {
        unembedding.tied = false;
        let detail = format!(
            "`tie_word_embeddings` is true, but `{head}` is stored and differs from `{embed}`; the stored one gives the logits, as in transformers"
        );
        warnings.add(WarningCode::UntiedHead, detail);
    }
    Ok(())
}

/// Warns about tensors that nothing has read, as transformers does.
///
/// # Errors
/// When one of them is a second copy of a tensor that was read under another name: transformers might take either.
pub fn report_unused(checkpoint: &Checkpoint, warnings: &Warnings) -> Result<(), LoadError> {
    let unused = checkpoint.unused();
    let unused: Vec<&str> = unused.into_iter().filter(|name| !BUFFERS.iter().any(|end| name.ends_with(end))).collect();
    if unused.is_empty() {
        return Ok(());
    }
    let read = checkpoint.used();
    let read: HashMap<String, &String> = read.iter().map(|name| (plain_name(name), name)).collect();
    for name in &unused {
        if let Some(twin) = read.get(&plain_name(name)) {
            let reason = format!("tensor `{name}` is there as `{twin}` too, and it is not clear which of them counts");
            return Err(LoadError::new(checkpoint.place(), reason));
        }
    }
    let (n, shown) =
        (unused.len(), unused.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    let rest = if n > SHOWN { format!(" and {} more", n - SHOWN) } else { String::new() };
    let detail =
        format!("the checkpoint has tensors that are not part of the model and were not read ({n}): {shown}{rest}");
    warnings.add(WarningCode::UnusedTensors, detail);
    Ok(())
}

/// A name without its prefixes, in today's spelling, and with the index of an expert left out.
fn plain_name(name: &str) -> String {
    let mut rest = name;
    while let Some((_, behind)) = rest.split_once('.').filter(|(first, _)| PREFIXES.contains(first)) {
        rest = behind;
    }
    if let Some((mixture, _)) = rest.split_once(".experts.") {
        return format!("{mixture}.experts");
    }
    let respelled = rest.strip_suffix(".gamma").map(|n| format!("{n}.weight"));
    let respelled = respelled.or_else(|| rest.strip_suffix(".beta").map(|n| format!("{n}.bias")));
    respelled.unwrap_or_else(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_tensor_have_one_plain_name() {
        let same = [
            ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
            ("model.language_model.norm.weight", "language_model.model.norm.weight"),
            ("bert.encoder.layer.0.output.LayerNorm.gamma", "encoder.layer.0.output.LayerNorm.weight"),
            ("model.layers.1.mlp.experts.3.up_proj.weight", "layers.1.mlp.experts.gate_up_proj"),
        ];
        for (one, other) in same {
            assert_eq!(plain_name(one), plain_name(other));
        }
        assert_ne!(plain_name("model.layers.0.mlp.up_proj.weight"), plain_name("model.layers.1.mlp.up_proj.weight"));
        assert_ne!(plain_name("embed_tokens.weight"), plain_name("lm_head.weight"));
    }
}
