//! The text of a prompt that an answer begins with, and where in it each token begins.

use residuum_engine::PromptTokens;

/// A prompt as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PromptText {
    /// The text as posted if its tokens spell it, else what the tokens spell.
    pub text: String,
    /// Where each token begins, in code points. A token that begins within a character begins where that does; one that
    /// the server put before the text begins at 0.
    pub offsets: Vec<usize>,
    /// Length of the text in code points.
    pub n_chars: usize,
}

impl PromptText {
    /// `bytes` are those of each token.
    pub fn of(prompt: &PromptTokens, bytes: &[Vec<u8>]) -> Self {
        let spelled: Vec<u8> = bytes.concat();
        let posted = prompt.text.as_ref().filter(|text| spelled.ends_with(text.as_bytes()));
        let text = posted.cloned().unwrap_or_else(|| String::from_utf8_lossy(&spelled).into_owned());
        // bytes before the posted text: a BOS token, or the space that some tokenizers put before a text
        let before = if posted.is_some() { spelled.len() - text.len() } else { 0 };
        let mut start = 0;
        let offsets = bytes
            .iter()
            .map(|token| {
                let within = spelled.get(before..start).unwrap_or_default();
                start += token.len();
                n_begun(within)
            })
            .collect();
        let n_chars = text.chars().count();
        Self { text, offsets, n_chars }
    }
}

/// Number of whole characters in the beginning of a text; wrong bytes count as the characters that replace them.
fn n_begun(bytes: &[u8]) -> usize {
    let mut n = 0;
    for chunk in bytes.utf8_chunks() {
        n += chunk.valid().chars().count();
        let is_cut = std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
        n += usize::from(!chunk.invalid().is_empty() && !is_cut);
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(posted: Option<&str>, tokens: &[&[u8]]) -> PromptText {
        let prompt = PromptTokens {
            token_ids: vec![0; tokens.len()],
            tokens: vec![String::new(); tokens.len()],
            text: posted.map(str::to_owned),
        };
        PromptText::of(&prompt, &tokens.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn tokens_before_the_text_begin_with_it() {
        let text = text_of(Some("ab c"), &[b"<s>", b"ab", b" c"]);
        assert_eq!((text.text.as_str(), text.offsets, text.n_chars), ("ab c", vec![0, 0, 2], 4));
        let spaced = text_of(Some("ab"), &[b" a", b"b"]);
        assert_eq!((spaced.text.as_str(), spaced.offsets), ("ab", vec![0, 1]));
    }

    #[test]
    fn offsets_are_code_points() {
        // a clef of four bytes in two tokens, then a letter
        let text = text_of(Some("é𝄞x"), &["é".as_bytes(), &[0xf0, 0x9d], &[0x84, 0x9e], b"x"]);
        assert_eq!((text.offsets, text.n_chars), (vec![0, 1, 1, 2], 3));
    }

    #[test]
    fn ids_and_other_spellings_are_what_the_tokens_spell() {
        let ids = text_of(None, &[b"<s>", b"ab"]);
        assert_eq!((ids.text.as_str(), ids.offsets), ("<s>ab", vec![0, 3]));
        let lower = text_of(Some("AB"), &[b"ab"]);
        assert_eq!((lower.text.as_str(), lower.offsets), ("ab", vec![0]));
        let cut = text_of(None, &[&[0xf0, 0x9d]]);
        assert_eq!((cut.text.as_str(), cut.n_chars), ("\u{fffd}", 1));
    }
}
