//! The wrong pre-tokeniser pattern that was published in `tokenizer.json` files of Mistral AI's models, and transformers' rule for
//! warning about it. The file alone does not show whether its pattern is the wrong one, so the rule looks at the model type and the
//! version that wrote the file.

use serde_json::Value;
use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{patterns::TEKKEN, side_files::SideFiles};
use crate::error::LoadError;
use residuum_domain::{WarningCode, Warnings};

/// Model types that are affected.
const KINDS: &[&str] = &["mistral", "mistral3", "voxtral", "ministral", "pixtral"];

/// Smaller vocabularies are not affected.
const MIN_TOKENS: usize = 100_000;

/// Warns, or replaces the pattern by the right one if `fix_mistral_regex` says so.
///
/// # Errors
/// When `fix_mistral_regex` is neither true nor false.
pub fn check(files: &SideFiles, tokenizer: &mut Tokenizer, warnings: &Warnings) -> Result<(), LoadError> {
    if !suspected(files, tokenizer) {
        return Ok(());
    }
    let failed = |e: tokenizers::Error| files.refuse("fix_mistral_regex", e);
    let Some(cut) = tokenizer.get_pre_tokenizer().cloned() else { return Ok(()) };
    let right = SplitPattern::Regex(TEKKEN.to_owned());
    let right = Split::new(right, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    let parts = match &cut {
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().to_vec(),
        other => vec![other.clone()],
    };
    let right = PreTokenizerWrapper::from(right);
    if parts.contains(&right) {
        return Ok(());
    }
    match files.flag("fix_mistral_regex")? {
        None => {
            let detail = "the tokenizer may cut text by the wrong pattern that was published with models of Mistral AI; it was taken as \
                          it is, as in transformers. \"fix_mistral_regex\": true in tokenizer_config.json puts the right one in its place, \
                          false keeps it without this warning";
            warnings.add(WarningCode::MistralRegex, detail);
        }
        Some(false) => {}
        Some(true) => {
            let rest: Vec<PreTokenizerWrapper> = match cut {
                PreTokenizerWrapper::Sequence(_) => parts.into_iter().skip(1).collect(),
                PreTokenizerWrapper::Metaspace(_) => vec![ByteLevel::new(false, true, false).into()],
                other => vec![other],
            };
            tokenizer.with_pre_tokenizer(Some(Sequence::new([vec![right], rest].concat())));
        }
    }
    Ok(())
}

fn suspected(files: &SideFiles, tokenizer: &Tokenizer) -> bool {
    let text = |key: &str| files.model.get(key).and_then(Value::as_str);
    !files.model.is_empty()
        && tokenizer.get_vocab_size(true) > MIN_TOKENS
        && text("transformers_version").is_none_or(before_5)
        && text("model_type").is_none_or(|kind| KINDS.contains(&kind))
}

/// Whether a version of transformers is older than 5.0.0.
fn before_5(version: &str) -> bool {
    let rest = version.trim_start_matches(|c: char| c.is_ascii_digit());
    let major = version[..version.len() - rest.len()].parse::<u32>();
    // 5.0.0rc1 and 5.0.0.dev0 come before 5.0.0.
    let early = rest.strip_prefix(".0.0").is_some_and(|end| end.contains(['a', 'b', 'd', 'r']));
    major.is_ok_and(|major| major < 5 || major == 5 && early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for old in ["4.57.1", "4.49.0.dev0", "5.0.0rc1", "5.0.0.dev0", "3"] {
            assert!(before_5(old), "{old}");
        }
        for new in ["5.0.0", "5.23.0", "5.1.0.dev0", "10.0", "main"] {
            assert!(!before_5(new), "{new}");
        }
    }
}
