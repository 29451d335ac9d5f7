//! Rebuilds a tokenizer as transformers' class does: many classes replace the model, normaliser, pre-tokeniser, decoder and template
//! of `tokenizer.json` by their own. Special tokens are added afterwards, see `added`.

use std::path::Path;

use tokenizers::{
    Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    decoders::wordpiece::WordPiece as WordPieceDecoder,
    models::{bpe::BPE, unigram::Unigram, wordpiece::WordPiece},
    normalizers::{NFC, Precompiled, Replace, bert::BertNormalizer, utils::Sequence as Normalizers},
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
};

use super::{
    class::Class,
    patterns::{QWEN2, QWEN35},
    sentencepiece::{SPACE, decoder},
    sentencepiece_model::{SentencePieceModel, UNIGRAM},
    side_files::{Declared, SideFiles},
    vocabulary::{Vocabulary, bpe_of_pieces},
};
use crate::error::LoadError;

/// The inputs of rebuilding.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The side files.
    pub files: &'a SideFiles,
    /// The tokens they declare.
    pub declared: &'a Declared,
    /// The file of the vocabulary.
    pub path: &'a Path,
}

impl Given<'_> {
    fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        Ok(self.files.flag(key)?.unwrap_or(default))
    }

    fn failed(&self, e: impl std::fmt::Display) -> LoadError {
        LoadError::file(self.path, e)
    }

    /// The text of the token with this role.
    pub fn role(&self, role: &str) -> Option<String> {
        self.declared.roles.iter().find(|(r, _)| r == role).map(|(_, mention)| mention.content().to_owned())
    }

    fn bpe(&self, vocabulary: &Vocabulary, pieces: bool, unknown: Option<String>) -> Result<Tokenizer, LoadError> {
        let (vocab, merges) = vocabulary.bpe(self.path)?;
        let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(pieces).byte_fallback(pieces);
        if let Some(unknown) = unknown {
            bpe = bpe.unk_token(unknown);
        }
        let bpe = bpe.build().map_err(|e| self.failed(format!("the merges do not fit the vocabulary: {e}")))?;
        Ok(Tokenizer::new(bpe))
    }
}

/// Builds the tokenizer as the class does.
///
/// # Errors
/// When the vocabulary is not of the kind that the class needs, or an option has a wrong type.
pub fn build(class: Class, given: Given<'_>, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let failed = |e: tokenizers::Error| given.failed(e);
    let tokenizer = match class {
        Class::Backend => return of_sentencepiece(given, vocabulary),
        Class::Llama | Class::CodeLlama => llama(class, given, vocabulary)?,
        Class::Gemma => {
            let mut made = given.bpe(vocabulary, true, given.role("unk_token"))?;
            let cut = Split::new(SplitPattern::String(" ".into()), SplitDelimiterBehavior::MergedWithPrevious, false);
            made.with_normalizer(Some(Replace::new(" ", SPACE).map_err(failed)?)).map_err(failed)?;
            made.with_pre_tokenizer(Some(cut.map_err(failed)?));
            made.with_decoder(Some(decoder(true, false).map_err(failed)?));
            made
        }
        Class::Bert => bert(given, vocabulary)?,
        Class::Gpt2 | Class::CodeGen | Class::Roberta | Class::GptNeoX | Class::Qwen2 | Class::Qwen35 => {
            byte_level(class, given, vocabulary)?
        }
    };
    Ok(tokenizer)
}

fn llama(class: Class, given: Given<'_>, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let failed = |e: tokenizers::Error| given.failed(e);
    let prefix = given.flag("add_prefix_space", true)?;
    // An explicit null counts as true, an absent key as false.
    let legacy_null = given.files.option("legacy").is_some_and(serde_json::Value::is_null);
    let legacy = !legacy_null && given.flag("legacy", false)?;
    let scheme = match (prefix, legacy && class == Class::Llama) {
        (false, _) => PrependScheme::Never,
        (true, true) => PrependScheme::Always,
        (true, false) => PrependScheme::First,
    };
    let unknown = if class == Class::CodeLlama { given.role("unk_token") } else { None };
    let mut made = given.bpe(vocabulary, true, unknown)?;
    made.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
    made.with_decoder(Some(decoder(true, prefix || class == Class::CodeLlama).map_err(failed)?));
    Ok(made)
}

fn byte_level(class: Class, given: Given<'_>, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let failed = |e: tokenizers::Error| given.failed(e);
    let prefix = given.flag("add_prefix_space", false)?;
    let mut made = given.bpe(vocabulary, false, None)?;
    if matches!(class, Class::GptNeoX | Class::Qwen2 | Class::Qwen35) {
        made.with_normalizer(Some(NFC)).map_err(failed)?;
    }
    let pattern = match class {
        Class::Qwen2 => Some(QWEN2),
        Class::Qwen35 => Some(QWEN35),
        _ => None,
    };
    let cut: PreTokenizerWrapper = match pattern {
        None => ByteLevel::new(prefix, true, true).into(),
        Some(pattern) => {
            let words = SplitPattern::Regex(pattern.to_owned());
            let words = Split::new(words, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
            Sequence::new(vec![words.into(), ByteLevel::new(prefix, true, false).into()]).into()
        }
    };
    made.with_pre_tokenizer(Some(cut));
    made.with_decoder(Some(ByteLevel::default()));
    if class == Class::CodeGen {
        made.with_post_processor(Some(ByteLevel::new(true, false, true)));
    }
    Ok(made)
}

fn bert(given: Given<'_>, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let failed = |e: tokenizers::Error| given.failed(e);
    let unknown = given.role("unk_token").ok_or_else(|| given.files.refuse("unk_token", "is null"))?;
    let lowercase = given.flag("do_lower_case", true)?;
    let chinese = given.flag("tokenize_chinese_chars", true)?;
    let strip_accents = given.files.flag("strip_accents")?;
    let vocab = vocabulary.words(given.path)?;
    if !vocab.contains_key(&unknown) {
        return Err(given.failed(format!("lacks the unk_token {unknown:?}")));
    }
    let words = WordPiece::builder().vocab(vocab).unk_token(unknown).build();
    let mut made = Tokenizer::new(words.map_err(failed)?);
    let normalizer = BertNormalizer::new(true, chinese, strip_accents, lowercase);
    made.with_normalizer(Some(normalizer)).map_err(failed)?;
    made.with_pre_tokenizer(Some(BertPreTokenizer));
    made.with_decoder(Some(WordPieceDecoder::new("##".into(), true)));
    Ok(made)
}

/// The tokenizer of a `tokenizer.model` without a class: pieces spell spaces, and no space is prepended.
fn of_sentencepiece(given: Given<'_>, vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let Vocabulary::Pieces(model) = vocabulary else {
        return Err(given.failed("nothing says which class of tokenizers the file is for"));
    };
    let failed = |e: tokenizers::Error| given.failed(e);
    let trainer = model.trainer();
    let mut made = if trainer.model_type() == UNIGRAM {
        let pieces = model.pieces.iter().map(|p| (p.piece().to_owned(), f64::from(p.score()))).collect();
        let unknown = usize::try_from(trainer.unk_id()).ok();
        Tokenizer::new(Unigram::from(pieces, unknown, trainer.byte_fallback()).map_err(failed)?)
    } else {
        let (vocab, merges) = bpe_of_pieces(&with_names(model, given.declared));
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true);
        let bpe = bpe.byte_fallback(trainer.byte_fallback()).unk_token(trainer.unk_piece().to_owned());
        Tokenizer::new(bpe.build().map_err(failed)?)
    };
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let replacements = model.normalizer();
    if !replacements.precompiled_charsmap().is_empty() {
        let map = Precompiled::from(replacements.precompiled_charsmap());
        normalizers.push(map.map_err(|e| given.failed(format!("has a damaged precompiled_charsmap: {e}")))?.into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(failed)?.into());
    made.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
    made.with_decoder(Some(decoder(trainer.byte_fallback(), false).map_err(failed)?));
    Ok(made)
}

/// The pieces, renamed as `added_tokens_decoder` says: placeholders that were given a meaning later.
fn with_names(model: &SentencePieceModel, declared: &Declared) -> Vec<String> {
    let mut pieces = model.texts();
    for (id, token) in &declared.added {
        let known = pieces.contains(&token.content);
        if let Some(piece) = usize::try_from(*id).ok().and_then(|id| pieces.get_mut(id)).filter(|_| !known) {
            piece.clone_from(&token.content);
        }
    }
    pieces
}

/// The tokens that a class adds around every text, whatever `tokenizer.json` says.
///
/// # Errors
/// When the tokens it needs are missing.
pub fn own_ends(
    class: Class,
    given: Given<'_>,
    tokenizer: &Tokenizer,
) -> Result<Option<PostProcessorWrapper>, LoadError> {
    let token = |role: &str| -> Result<(String, u32), LoadError> {
        let content = given.role(role).ok_or_else(|| given.files.refuse(role, "is null; the class needs it"))?;
        // transformers gives a missing one a new id, for which the model has no embedding.
        let known = tokenizer.get_model().token_to_id(&content);
        let declared = || given.declared.added.values().any(|token| token.content == content);
        let id = known.or_else(|| tokenizer.token_to_id(&content).filter(|_| declared()));
        id.map(|id| (content.clone(), id)).ok_or_else(|| given.failed(format!("lacks the {role} {content:?}")))
    };
    Ok(match class {
        Class::Bert => {
            let (cls, sep) = (token("cls_token")?, token("sep_token")?);
            Some(template(&given, Some(cls), Some(sep))?.into())
        }
        Class::Roberta => {
            let ends =
                tokenizers::processors::roberta::RobertaProcessing::new(token("sep_token")?, token("cls_token")?);
            let (trim, prefix) = (given.flag("trim_offsets", true)?, given.flag("add_prefix_space", false)?);
            Some(ends.trim_offsets(trim).add_prefix_space(prefix).into())
        }
        _ => None,
    })
}

/// A template with an optional token before the text and one after it.
///
/// # Errors
/// When a token's text cannot be used in a template.
pub fn template(
    given: &Given<'_>,
    before: Option<(String, u32)>,
    after: Option<(String, u32)>,
) -> Result<TemplateProcessing, LoadError> {
    let text = |token: &Option<(String, u32)>| token.as_ref().map(|(content, _)| content.clone());
    let pieces: Vec<String> = [text(&before), Some("$A".to_owned()), text(&after)].into_iter().flatten().collect();
    let mut tokens: Vec<(String, u32)> = before.into_iter().chain(after).collect();
    tokens.dedup();
    let failed = |e: String| LoadError::file(given.path, format!("the special tokens make no template: {e}"));
    let built = TemplateProcessing::builder().try_single(pieces).map_err(failed)?.special_tokens(tokens).build();
    built.map_err(|e| failed(e.to_string()))
}
