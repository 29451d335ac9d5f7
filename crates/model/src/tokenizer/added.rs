//! Adds the tokens that side files declare, and the BOS and EOS tokens that options ask for.

use tokenizers::{AddedToken, Tokenizer, processors::template::TemplateProcessing};

use super::{
    class::Class,
    growth,
    rebuild::{Given, template},
    side_files::{Declared, Mention},
};
use crate::error::LoadError;
use residuum_domain::{WarningCode, Warnings};

/// Adds the declared tokens in transformers' order: those with ids, then those with roles, then the others. A token that exists
/// already gets the flags of the later declaration.
///
/// # Errors
/// When two added tokens become the same text after normalisation, or the normaliser expands them too much.
pub fn add(class: Class, given: Given<'_>, tokenizer: &mut Tokenizer) -> Result<(), LoadError> {
    let failed = |e: tokenizers::Error| given.files.refuse("added_tokens_decoder", e);
    let Declared { roles, extra, added } = given.declared;
    let with_role = |content: &str| roles.iter().any(|(_, m)| m.content() == content);
    let known: Vec<String> = tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
    let known = |content: &str| known.iter().any(|k| k == content) || added.values().any(|t| t.content == content);
    // A text may be mentioned several times with different flags. Identical mentions count once, at the first place.
    let mut mentions: Vec<&Mention> = Vec::new();
    for mention in roles.iter().map(|(_, mention)| mention).chain(extra).filter(|m| !known(m.content())) {
        if !mentions.contains(&mention) {
            mentions.push(mention);
        }
    }
    let mentioned = mentions.into_iter().map(|mention| match mention {
        Mention::Name(name) => AddedToken::from(name.as_str(), true),
        Mention::Token(token) => token.clone(),
    });
    let tokens = added.values().cloned().chain(mentioned);
    let tokens = tokens.map(|t| if with_role(&t.content) { t.special(true) } else { t });
    let tokens: Vec<AddedToken> = tokens.collect();
    growth::check_added(tokenizer, tokens.iter().map(|token| token.content.as_str()), given.path)?;
    tokenizer.add_tokens(tokens).map_err(failed)?;
    if class == Class::Qwen2 {
        let all = roles.iter().map(|(_, mention)| mention).chain(extra);
        let all: Vec<AddedToken> = all.map(|m| AddedToken::from(m.content(), true)).collect();
        tokenizer.add_tokens(all).map_err(failed)?;
    }
    Ok(())
}

/// Warns about declared tokens that have another id than declared, or are beyond the model's vocabulary.
pub fn warn(given: Given<'_>, tokenizer: &Tokenizer, d_vocab: usize, warnings: &Warnings) {
    let Declared { roles, extra, added } = given.declared;
    for (id, token) in added {
        if let Some(actual) = tokenizer.token_to_id(&token.content).filter(|actual| actual != id) {
            let detail =
                format!("{:?} is declared as token {id}; it is token {actual}, as in transformers", token.content);
            warnings.add(WarningCode::AddedTokenMoved, detail);
        }
    }
    let own = given.files;
    let said = |role: &str| own.option(role).is_some();
    let declared = roles.iter().filter(|(role, _)| said(role)).map(|(_, m)| m.content());
    let declared = declared.chain(extra.iter().map(Mention::content));
    for content in declared.chain(added.values().map(|t| t.content.as_str())) {
        if let Some(id) = tokenizer.token_to_id(content).filter(|id| *id as usize >= d_vocab) {
            let detail =
                format!("{content:?} is token {id}; the model has {d_vocab} embeddings, and a text with it is refused");
            warnings.add(WarningCode::TokenBeyondVocabulary, detail);
        }
    }
}

/// A template with BOS and EOS, as `add_bos_token` and `add_eos_token` say.
///
/// # Errors
/// When an option has a wrong type.
pub fn bos_and_eos(
    class: Class,
    given: Given<'_>,
    read_options: bool,
    tokenizer: &Tokenizer,
) -> Result<TemplateProcessing, LoadError> {
    let asked = |key: &str, default: bool| -> Result<bool, LoadError> {
        if read_options { Ok(given.files.flag(key)?.unwrap_or(default)) } else { Ok(default) }
    };
    let token = |role: &str| {
        let (_, mention) = given.declared.roles.iter().find(|(r, _)| r == role)?;
        Some((mention.content().to_owned(), tokenizer.token_to_id(mention.content())?))
    };
    let bos = if asked("add_bos_token", class == Class::CodeLlama)? { token("bos_token") } else { None };
    let eos = if asked("add_eos_token", false)? { token("eos_token") } else { None };
    template(&given, bos, eos)
}
