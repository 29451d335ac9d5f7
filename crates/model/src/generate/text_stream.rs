//! The text of a continuation, token by token: decodes only the newest tokens, holds back what is not certain yet, and finds the
//! texts that stop it.

use crate::tokenizer::TextTokenizer;

/// Tokens that are decoded again with each new one, so that the decoder knows what precedes it.
const CONTEXT_TOKENS: usize = 6;
/// Largest number of tokens that are decoded at once. Bytes that are still no character after so many tokens never become one.
const WINDOW_TOKENS: usize = 48;

/// The text written so far.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    /// First token of the window that is decoded; `None` before the first token.
    window: Option<usize>,
    /// The part of the window's text that is certain.
    decoded: String,
    /// Certain text that may be the beginning of a stop text.
    held: String,
    /// What has been released.
    text: String,
    /// Number of code points that are certain.
    n_decoded: usize,
    stopped: bool,
}

impl TextStream {
    /// Number of code points of the text before the next token, including those that are held back.
    pub fn n_decoded(&self) -> usize {
        self.n_decoded
    }

    /// Whether a stop text appeared.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The text that was released, without any stop text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes in the last of `ids`, of which the first `n_prompt` are the prompt. Returns the text that is certain now.
    pub fn push(&mut self, tokenizer: &TextTokenizer, ids: &[u32], n_prompt: usize, stops: &[String]) -> String {
        if self.window.is_none() {
            self.open(tokenizer, ids, n_prompt);
        }
        let window = self.window.unwrap_or(n_prompt);
        let (text, n_certain) = tokenizer.decode_certain(&ids[window..]);
        let is_full = ids.len() - window > WINDOW_TOKENS;
        let certain = if is_full { text.as_str() } else { &text[..n_certain] };
        // While the bytes of a character are incomplete, some decoders also show the characters before it as U+FFFD.
        let new = certain.strip_prefix(self.decoded.as_str()).unwrap_or_default().to_owned();
        self.decoded.push_str(&new);
        if certain.len() == text.len() && !is_full && ids.len() - window > 2 * CONTEXT_TOKENS {
            self.slide_to(tokenizer, ids);
        } else if is_full {
            (self.window, self.decoded) = (Some(ids.len()), String::new());
        }
        self.n_decoded += new.chars().count();
        self.release(&new, stops)
    }

    /// Ends the text. Returns what was held back; incomplete bytes become U+FFFD.
    pub fn end(&mut self, tokenizer: &TextTokenizer, ids: &[u32]) -> String {
        let mut rest = std::mem::take(&mut self.held);
        if let Some(window) = self.window.filter(|_| !self.stopped) {
            let text = tokenizer.decode(&ids[window..]);
            match text.strip_prefix(self.decoded.as_str()) {
                Some(incomplete) => rest.push_str(incomplete),
                None => rest.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.text.push_str(&rest);
        rest
    }

    /// Opens the window before the first new token.
    fn open(&mut self, tokenizer: &TextTokenizer, ids: &[u32], n_prompt: usize) {
        self.slide_to(tokenizer, &ids[..n_prompt]);
        // An incomplete character at the end of the prompt is not part of the continuation.
        if self.decoded.ends_with(char::REPLACEMENT_CHARACTER) {
            self.window = Some(n_prompt);
            self.decoded.clear();
        }
    }

    /// Lets the window begin a few tokens before the end of `ids`, or earlier if those have no text: a decoder may treat the
    /// beginning of a text differently.
    fn slide_to(&mut self, tokenizer: &TextTokenizer, ids: &[u32]) {
        let mut start = ids.len().saturating_sub(CONTEXT_TOKENS);
        self.decoded = tokenizer.decode(&ids[start..]);
        while self.decoded.is_empty() && start > 0 {
            start = start.saturating_sub(CONTEXT_TOKENS);
            self.decoded = tokenizer.decode(&ids[start..]);
        }
        self.window = Some(start);
    }

    /// Releases text up to a stop text, or up to what may be the beginning of one.
    fn release(&mut self, new: &str, stops: &[String]) -> String {
        self.held.push_str(new);
        let stop = stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let released = if let Some(at) = stop {
            self.stopped = true;
            let mut all = std::mem::take(&mut self.held);
            all.truncate(at);
            all
        } else {
            let kept = stops.iter().map(|stop| beginning_at_end(&self.held, stop)).max().unwrap_or(0);
            let rest = self.held.split_off(self.held.len() - kept);
            std::mem::replace(&mut self.held, rest)
        };
        self.text.push_str(&released);
        released
    }
}

/// Number of bytes at the end of `text` that are the beginning of `stop`, but not all of it.
fn beginning_at_end(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).skip(1);
    ends.filter(|n| text.ends_with(&stop[..*n])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(texts: &[&str], stops: &[&str]) -> (Vec<String>, bool, String) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut stream = TextStream::default();
        let released = texts.iter().map(|text| stream.release(text, &stops)).collect();
        (released, stream.stopped, stream.held)
    }

    #[test]
    fn what_may_become_a_stop_text_is_held_back() {
        let (released, stopped, held) = stream(&["a", "b", "cab"], &["abc", "bd"]);
        assert_eq!(released, ["", "", ""]);
        assert!(stopped, "`abc` began with the first text");
        assert_eq!(held, "");
        let (released, stopped, held) = stream(&["a", "b", "d", "!"], &["abc", "bdé"]);
        assert_eq!(
            (released, stopped, held.as_str()),
            (vec!["".into(), "".into(), "a".into(), "bd!".into()], false, "")
        );
        let (released, stopped, held) = stream(&["one\n", "\ntwo"], &["\n\n"]);
        assert_eq!((released, stopped, held.as_str()), (vec!["one".into(), String::new()], true, ""));
        let (released, _, held) = stream(&["täglich", " ä"], &["äb"]);
        assert_eq!((released.concat(), held.as_str()), ("täglich ".to_owned(), "ä"));
    }

    #[test]
    fn the_first_of_several_stop_texts_counts() {
        let (released, stopped, _) = stream(&["and so on"], &["so", "nd"]);
        assert_eq!((released, stopped), (vec!["a".to_owned()], true));
    }
}
