//! Builds the tokenizer of a Hugging Face folder as AutoTokenizer does: from the vocabulary, the class, and the side files.
//! `docs/TOKENIZERS.md` describes the rules.

use std::{
    collections::BTreeMap,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::{
    Settings, TextTokenizer, added,
    chat::{self, Sources},
    class::{Choice, Class},
    differences, growth, mistral_regex,
    rebuild::{self, Given},
    sentencepiece_model::{CONTROL, SentencePieceModel, USER_DEFINED},
    side_files::{Declared, Mention, SideFiles},
    vocabulary::{Serialized, Source, Vocabulary},
};
use crate::error::LoadError;
use residuum_domain::{WarningCode, Warnings};

/// Files that are always part of the fingerprint, in the order in which they are hashed.
const FILES: &[&str] =
    &["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// Files that are part of it if there is no `tokenizer.json`.
const VOCABULARY_FILES: &[&str] = &["vocab.json", "merges.txt", "tokenizer.model"];

/// The files of `folder` that its tokenizer depends on, in the order in which they are hashed.
///
/// # Errors
/// When `tokenizer_config.json` is damaged.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut names = FILES.to_vec();
    if !folder.join("tokenizer.json").is_file() {
        names.extend(VOCABULARY_FILES);
    }
    if !SideFiles::read(folder)?.lists_added_tokens() {
        names.push("added_tokens.json");
    }
    let listed = names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_file());
    Ok(listed.chain(chat::other_files(folder)).collect())
}

impl TextTokenizer {
    /// Reads the tokenizer of a folder. `d_vocab` is the number of rows of the model's embedding.
    ///
    /// # Errors
    /// When there is no vocabulary, nothing says how to read it, or a file is malformed.
    pub fn from_folder(folder: &Path, d_vocab: usize) -> Result<Self, LoadError> {
        // the library panics on some files that contradict themselves; whatever it had begun is dropped
        catch_unwind(|| Self::read_folder(folder, d_vocab)).unwrap_or_else(|_| {
            let reason = "the tokenizers library cannot work with tokenizer.json or a file next to it";
            Err(LoadError::file(folder, reason))
        })
    }

    fn read_folder(folder: &Path, d_vocab: usize) -> Result<Self, LoadError> {
        let files = SideFiles::read(folder)?;
        let warnings = Warnings::default();
        let (mut tokenizer, declared, path) = assemble(&files, &warnings)?;
        added::warn(Given { files: &files, declared: &declared, path: &path }, &tokenizer, d_vocab, &warnings);
        mistral_regex::check(&files, &mut tokenizer, &warnings)?;
        // The server checks lengths: if the tokenizer truncated an input, it would silently be another one.
        tokenizer.with_truncation(None).map_err(|e| LoadError::file(&path, e))?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(files.flag("split_special_tokens")?.unwrap_or(false));
        let roles = declared.roles.iter().map(|(role, mention)| (role.clone(), mention.content().to_owned()));
        let templates = Sources::of_folder(folder, &files.options)?;
        let settings = Settings { roles: roles.collect(), templates, warnings: warnings.list() };
        Self::new(tokenizer, settings, d_vocab, &path)
    }
}

/// The tokenizer, the declared tokens, and the file of the vocabulary.
fn assemble(files: &SideFiles, warnings: &Warnings) -> Result<(Tokenizer, Declared, PathBuf), LoadError> {
    let json = files.folder.join("tokenizer.json");
    let bytes = if json.is_file() { std::fs::read(&json).map_err(|e| LoadError::file(&json, e))? } else { Vec::new() };
    growth::check_file(&bytes, &json)?;
    let choice = Choice::auto(files, contains(&bytes, br#""ByteLevel""#));
    let Some(source) = Source::find(&files.folder, choice.class) else {
        let others = match choice.class {
            Class::Bert => "vocab.txt",
            Class::Llama | Class::CodeLlama | Class::Gemma | Class::Qwen35 => "tokenizer.model",
            _ => "tokenizer.model, vocab.json with merges.txt, or vocab.txt",
        };
        let reason = format!("is missing, and so are its alternatives: {others}");
        return Err(LoadError::file(&json, reason));
    };
    let class = class_of(files, choice, &source, warnings)?;
    let path = source.path().to_owned();
    let as_it_is = class == Class::Backend && matches!(source, Source::Serialized(_));
    if !as_it_is {
        let vocabulary = Vocabulary::read(&source, &bytes)?;
        if !unusable(class, files, &vocabulary)? {
            drop(bytes);
            let (tokenizer, declared) = rebuilt(class, files, &vocabulary, &path, warnings)?;
            return Ok((tokenizer, declared, path));
        }
        let detail =
            format!("{} cannot read tokenizer.json, which holds no word pieces; it was taken as it is", class.name());
        warnings.add(WarningCode::TokenizerClassAssumed, detail);
    }
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| LoadError::file(&path, e))?;
    let listed = tokenizer.get_added_tokens_decoder().into_iter().collect();
    let declared = files.declared(&[], &listed, None)?;
    added::add(Class::Backend, Given { files, declared: &declared, path: &path }, &mut tokenizer)?;
    Ok((tokenizer, declared, path))
}

/// Whether the class needs word pieces, but `tokenizer.json` is of another kind and has no unknown token: then transformers fails
/// on most texts.
fn unusable(class: Class, files: &SideFiles, vocabulary: &Vocabulary) -> Result<bool, LoadError> {
    let Vocabulary::Serialized(json) = vocabulary else { return Ok(false) };
    let kind = json.model.get("type").and_then(Value::as_str).unwrap_or("WordPiece");
    if !class.word_pieces() || kind == "WordPiece" {
        return Ok(false);
    }
    let declared = files.declared(&class.roles(), &BTreeMap::new(), None)?;
    let unknown = declared.roles.iter().find(|(role, _)| role == "unk_token");
    Ok(unknown.is_none_or(|(_, mention)| json.model.get("vocab").and_then(|v| v.get(mention.content())).is_none()))
}

/// The class to use, with a warning if transformers would use another one or nothing names it.
fn class_of(files: &SideFiles, choice: Choice, source: &Source, warnings: &Warnings) -> Result<Class, LoadError> {
    let serialized = matches!(source, Source::Serialized(_));
    if let Some(name) = choice.foreign {
        if !serialized {
            return Err(files
                .refuse("tokenizer_class", format!("is {name:?}, which is not known here without a tokenizer.json")));
        }
        let detail = format!("{name} is not known here; tokenizer.json was taken as it is, transformers rebuilds it");
        warnings.add(WarningCode::TokenizerClassUnknown, detail);
    }
    if choice.class != Class::Backend || !matches!(source, Source::Merges(_) | Source::Words(_)) {
        return Ok(choice.class);
    }
    let name = source.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let in_config = files.text("tokenizer_class").or_else(|| files.model.get("tokenizer_class")?.as_str());
    let named = in_config.and_then(|name| Class::named(name.strip_suffix("Fast").unwrap_or(name)));
    let words = matches!(source, Source::Words(_));
    let class = match named {
        Some(class) if class.word_pieces() == words => class,
        None if words && in_config.is_none() => Class::Bert,
        _ => {
            let reason = format!("must name the class of {name}: nothing else says how to read it");
            return Err(files.refuse("tokenizer_class", reason));
        }
    };
    let detail = format!("{name} was read as {} would; transformers does not open it with this model", class.name());
    warnings.add(WarningCode::TokenizerClassAssumed, detail);
    Ok(class)
}

/// Builds the tokenizer by the rules of its class.
fn rebuilt(
    class: Class,
    files: &SideFiles,
    vocabulary: &Vocabulary,
    path: &Path,
    warnings: &Warnings,
) -> Result<(Tokenizer, Declared), LoadError> {
    let (mut defaults, mut serialized, mut pieces) = (class.roles(), BTreeMap::new(), None);
    match vocabulary {
        Vocabulary::Serialized(json) => serialized = json.added_tokens(),
        Vocabulary::Pieces(model) => {
            if class == Class::Backend {
                defaults = model_roles(model);
            }
            pieces = Some(marked(model));
        }
        Vocabulary::Merges(..) | Vocabulary::Words(_) => {}
    }
    let declared = files.declared(&defaults, &serialized, pieces)?;
    let given = Given { files, declared: &declared, path };
    let mut tokenizer = rebuild::build(class, given, vocabulary)?;
    let json: Option<&Serialized> = if let Vocabulary::Serialized(json) = vocabulary { Some(json) } else { None };
    if let Some(processor) = json.and_then(|json| json.post_processor.clone()) {
        tokenizer.with_post_processor(Some(processor));
    }
    added::add(class, given, &mut tokenizer)?;
    let asked = json.is_none() && ["add_bos_token", "add_eos_token"].iter().any(|key| files.option(key).is_some());
    let always = matches!(class, Class::CodeLlama | Class::GptNeoX);
    if asked || always || tokenizer.get_post_processor().is_none() {
        let ends = added::bos_and_eos(class, given, json.is_none(), &tokenizer)?;
        tokenizer.with_post_processor(Some(ends));
    }
    if let Some(ends) = rebuild::own_ends(class, given, &tokenizer)? {
        tokenizer.with_post_processor(Some(ends));
    }
    say_rebuilt(class, given, vocabulary, &tokenizer, warnings);
    Ok((tokenizer, declared))
}

/// Warns where the class differs from the vocabulary's file and the options.
fn say_rebuilt(class: Class, given: Given<'_>, vocabulary: &Vocabulary, tokenizer: &Tokenizer, warnings: &Warnings) {
    let of_file = match vocabulary {
        Vocabulary::Serialized(json) => differences::from_serialized(class, given, json, tokenizer),
        Vocabulary::Pieces(model) => differences::from_sentencepiece(class, model, tokenizer),
        Vocabulary::Merges(..) | Vocabulary::Words(_) => Vec::new(),
    };
    let file = given.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let options = differences::unread_options(class, given.files);
    for (file, unread) in [(file.as_str(), of_file), ("tokenizer_config.json", options)] {
        if !unread.is_empty() {
            let detail = format!(
                "{} of transformers has rules of its own: of {file} these do not count: {}. Tokens follow transformers",
                class.name(),
                unread.join(", ")
            );
            warnings.add(WarningCode::TokenizerRebuilt, detail);
        }
    }
}

/// The control and user-defined pieces, which are matched as a whole.
fn marked(model: &SentencePieceModel) -> Vec<Mention> {
    let marked = model.pieces.iter().filter(|p| matches!(p.kind(), CONTROL | USER_DEFINED));
    let token =
        |p: &super::sentencepiece_model::Piece| AddedToken::from(p.piece(), p.kind() == CONTROL).normalized(false);
    marked.map(|p| Mention::Token(token(p))).collect()
}

/// The roles of special tokens that a SentencePiece model names.
fn model_roles(model: &SentencePieceModel) -> Vec<(String, String)> {
    let trainer = model.trainer();
    let roles = [
        ("bos_token", trainer.bos_id(), trainer.bos_piece()),
        ("eos_token", trainer.eos_id(), trainer.eos_piece()),
        ("unk_token", trainer.unk_id(), trainer.unk_piece()),
    ];
    roles
        .iter()
        .filter(|(_, id, _)| *id >= 0)
        .map(|(role, _, piece)| ((*role).to_owned(), (*piece).to_owned()))
        .collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
