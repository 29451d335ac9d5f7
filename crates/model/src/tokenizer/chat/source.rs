//! Rewrites the source of a template before minijinja compiles it.
//!
//! minijinja's operators cannot be overridden, so those that differ from Python's are found in its syntax tree and rewritten to
//! calls of functions: `a % b` to `__percent(a, b)`, `a ~ b` to `__concat(a, b)`, a method that is not called (`x.items`) to
//! `__method(x, 'items')`, operators whose results can be large (`+` and `*`) to `__bounded(…)`, and comparisons and keys to the
//! functions of [`compare`](super::compare).

use minijinja::{
    Error,
    machinery::{Token, parse, tokenize},
    syntax::SyntaxConfig,
};

use super::{
    python::error,
    walk::{Edit, Part, Walk},
};

/// The rewritten source.
///
/// # Errors
/// When it is not a valid template.
pub fn prepare(source: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = with_edits(&source, token_edits(&source, syntax)?);
    let tree = parse(&source, "chat", syntax.clone())?;
    let tokens = tokenize(&source, false, syntax.clone()).map_while(Result::ok);
    let tokens = tokens.map(|(token, span)| Part::of(&token, span)).collect();
    let mut walk = Walk { source: &source, tokens, edits: Vec::new(), read: Vec::new(), failed: None };
    walk.statement(&tree);
    match walk.failed {
        Some(failed) => Err(failed),
        None => Ok(with_edits(&source, walk.edits)),
    }
}

fn with_edits(source: &str, mut edits: Vec<Edit>) -> String {
    // the sort is stable: of edits at the same position, the first one found comes first
    edits.sort_by_key(|edit| (edit.at, edit.taken));
    let mut out = String::with_capacity(source.len() + edits.len() * 16);
    let mut done = 0;
    for edit in edits {
        out.push_str(&source[done..edit.at]);
        out.push_str(&edit.put);
        done = edit.at + edit.taken;
    }
    out + &source[done..]
}

/// Edits that need only tokens: `{% generation %}`, which marks the assistant's text and does not affect the output, becomes
/// `{% with %}`; `+n` becomes `n`; `\U0001F600` in a string becomes the character.
fn token_edits(source: &str, syntax: &SyntaxConfig) -> Result<Vec<Edit>, Error> {
    let mut edits = Vec::new();
    let (mut starts, mut ends_operand) = (false, false);
    // The parser reports what cannot be tokenised.
    for (token, span) in tokenize(source, false, syntax.clone()).map_while(Result::ok) {
        let (at, end) = (span.start_offset as usize, span.end_offset as usize);
        let mut replace = |put: &str| edits.push(Edit { at, taken: end - at, put: put.to_owned() });
        match token {
            Token::Ident("generation") if starts => replace("with"),
            Token::Ident("endgeneration") if starts => replace("endwith"),
            Token::Plus if !ends_operand => replace(" "),
            Token::Str(_) | Token::String(_) => long_escapes(&source[at..end], at, &mut edits)?,
            _ => {}
        }
        starts = matches!(token, Token::BlockStart);
        ends_operand = match token {
            Token::Ident(word) => !["and", "else", "elif", "if", "in", "is", "not", "or"].contains(&word),
            Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => true,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => true,
            _ => false,
        };
    }
    Ok(edits)
}

fn long_escapes(literal: &str, offset: usize, edits: &mut Vec<Edit>) -> Result<(), Error> {
    let mut at = 0;
    while let Some(found) = literal[at..].find('\\') {
        at += found;
        if literal[at..].starts_with("\\N{") {
            return Err(error("characters by their names (`\\N{…}`) are not supported in strings"));
        }
        let code = literal[at..].strip_prefix("\\U").and_then(|rest| rest.get(..8));
        match code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).filter(|c| *c > 0xffff).and_then(char::from_u32) {
            Some(c) => {
                edits.push(Edit { at: offset + at, taken: 10, put: c.to_string() });
                at += 10;
            }
            None => at += 1 + literal[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    Ok(())
}
