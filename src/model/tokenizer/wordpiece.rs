//! BERT's tokenizer from a bare list of its pieces, `vocab.txt`: how checkpoints came before `tokenizer.json`.

use std::{collections::BTreeMap, path::Path};

use tokenizers::{
    AddedToken, Tokenizer,
    models::{bpe::Vocab, wordpiece::WordPiece},
    normalizers::bert::BertNormalizer,
    pre_tokenizers::bert::BertPreTokenizer,
    processors::bert::BertProcessing,
};

use crate::model::{config::Config, error::LoadError};

/// The classes (`tokenizer_class`) whose `vocab.txt` is such a list.
const CLASSES: &[&str] = &["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast"];

/// The special tokens where the configuration does not name them.
const SPECIAL: &[(&str, &str)] = &[
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// Builds the tokenizer of the list at `path`; `config` is `tokenizer_config.json`. Special tokens that `roles` lacks
/// are added to it.
///
/// # Errors
/// When the configuration asks for something else than BERT's tokenizer, or a special token is not in the list.
pub fn from_vocab(path: &Path, config: &Config, roles: &mut BTreeMap<String, String>) -> Result<Tokenizer, LoadError> {
    let class = config.text_or("tokenizer_class", CLASSES[0])?;
    if !CLASSES.contains(&class.as_str()) {
        let reason = format!("is {class:?}, and only BERT's tokenizer is built without a tokenizer.json");
        return Err(config.refuse("tokenizer_class", reason));
    }
    config.only("do_basic_tokenize", true)?;
    config.only("never_split", serde_json::Value::Null)?;
    let lowercase = config.flag_or("do_lower_case", true)?;
    let strip_accents = config.value("strip_accents").map(|_| config.flag_or("strip_accents", false)).transpose()?;
    let chinese = config.flag_or("tokenize_chinese_chars", true)?;

    let text = std::fs::read_to_string(path).map_err(|e| LoadError::file(path, e))?;
    let vocab: Vocab = text.lines().map(str::to_owned).zip(0u32..).collect();
    let mut special = BTreeMap::new();
    for (role, usual) in SPECIAL {
        let token = roles.entry((*role).to_owned()).or_insert_with(|| (*usual).to_owned()).clone();
        let id = vocab.get(&token).copied();
        let id = id.ok_or_else(|| LoadError::file(path, format!("lacks the {role} {token:?}")))?;
        special.insert(*role, (token, id));
    }
    let unk = special["unk_token"].0.clone();
    let failed = |e: tokenizers::Error| LoadError::file(path, e);
    let mut tokenizer = Tokenizer::new(WordPiece::builder().vocab(vocab).unk_token(unk).build().map_err(failed)?);
    let normalizer = BertNormalizer::new(true, chinese, strip_accents, lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let ends = BertProcessing::new(special["sep_token"].clone(), special["cls_token"].clone());
    tokenizer.with_post_processor(Some(ends));
    let marked = special.values().map(|(token, _)| AddedToken::from(token.as_str(), true).normalized(false));
    tokenizer.add_special_tokens(marked.collect::<Vec<_>>()).map_err(failed)?;
    Ok(tokenizer)
}
