//! How a vocabulary spells bytes and spaces, and the text of a single token.

use tokenizers::Tokenizer;

/// The spelling of a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Byte-level: each byte is one printable character (GPT-2), `Ġthe`.
    ByteLevel,
    /// SentencePiece: `▁the`, and single bytes as `<0x0A>`.
    Metaspace,
    /// Plain text (WordPiece: `##ing`).
    Plain,
}

impl Spelling {
    /// Finds the spelling from the tokenizer's decoder.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let decoder = tokenizer.get_decoder().and_then(|d| serde_json::to_string(d).ok()).unwrap_or_default();
        if decoder.contains("ByteLevel") {
            Self::ByteLevel
        } else if decoder.contains('▁') || decoder.contains("ByteFallback") {
            Self::Metaspace
        } else {
            Self::Plain
        }
    }

    /// The text of token `id`; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(self, tokenizer: &Tokenizer, id: u32) -> String {
        String::from_utf8_lossy(&self.bytes(tokenizer, id)).into_owned()
    }

    /// Whether the concatenated tokens of a text are the text.
    pub fn joins(self) -> bool {
        self != Self::Plain
    }

    /// The bytes of token `id`.
    pub fn bytes(self, tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
        // Use the declared text: the library returns the normalised spelling of an added token (`▁<pad>`).
        if let Some(added) = tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
            return added.content.clone().into();
        }
        let Some(token) = tokenizer.id_to_token(id) else { return char::REPLACEMENT_CHARACTER.to_string().into() };
        match self {
            Self::Plain => token.into(),
            Self::ByteLevel => token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.into()),
            Self::Metaspace => lone_byte(&token).map_or_else(|| token.replace('▁', " ").into(), |byte| vec![byte]),
        }
    }
}

/// The text of concatenated `pieces`, and the characters `[start, end)` of each piece. A character whose bytes are in several
/// pieces belongs to each of them; bytes that are not UTF-8 become U+FFFD.
pub fn join(pieces: &[Vec<u8>]) -> (String, Vec<Option<(usize, usize)>>) {
    let bytes = pieces.concat();
    let mut text = String::with_capacity(bytes.len());
    // The character that each byte belongs to.
    let mut characters = Vec::with_capacity(bytes.len());
    let mut n = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for c in chunk.valid().chars() {
            characters.extend(std::iter::repeat_n(n, c.len_utf8()));
            n += 1;
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            characters.extend(std::iter::repeat_n(n, chunk.invalid().len()));
            n += 1;
        }
    }
    let mut at = 0;
    let offsets = pieces.iter().map(|piece| {
        let bytes = at..at + piece.len();
        at = bytes.end;
        let last = characters[bytes.clone()].last()?;
        Some((characters[bytes.start], last + 1))
    });
    let offsets = offsets.collect();
    (text, offsets)
}

/// The byte of a character of GPT-2's alphabet: printable Latin-1 bytes are themselves, and the others follow in order from
/// U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(code) {
        return u8::try_from(code).ok();
    }
    let nth = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0u8..=255).filter(|b| !printable(u32::from(*b))).nth(nth)
}

/// The byte of a token such as `<0x0A>`.
fn lone_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_complete_and_one_to_one() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.iter().map(|c| byte_of(*c).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('▁'), None);
    }

    #[test]
    fn word_pieces_do_not_join() {
        let tokenizer = Tokenizer::new(tokenizers::models::wordpiece::WordPiece::default());
        assert!(!Spelling::of(&tokenizer).joins());
    }

    #[test]
    fn pieces_of_a_character_each_cover_it() {
        let pieces: Vec<Vec<u8>> = [&b"a\xc3"[..], b"\xa9 ", b"", b"\xff", b"b"].iter().map(|p| p.to_vec()).collect();
        let (text, offsets) = join(&pieces);
        assert_eq!(text, "aé \u{fffd}b");
        assert_eq!(offsets, [Some((0, 2)), Some((1, 3)), None, Some((3, 4)), Some((4, 5))]);
    }

    #[test]
    fn lone_bytes_are_recognised() {
        assert_eq!(lone_byte("<0x0A>"), Some(10));
        assert_eq!(lone_byte("<0x0>"), None);
        assert_eq!(lone_byte("<s>"), None);
    }
}
