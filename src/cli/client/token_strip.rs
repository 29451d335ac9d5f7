//! Tokens one after the other, with visible spaces and borders.

use super::{
    output::Output,
    visible::{columns, visible_token},
};

/// Which tokens stand out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks<'a> {
    /// Special tokens.
    pub(super) special: &'a [bool],
    /// The position of the first generated token.
    pub(super) generated_from: Option<usize>,
    /// Show the position of each token before it.
    pub(super) numbered: bool,
}

/// The tokens as lines that fit the terminal, each with a line break. On a terminal with colours, neighbours have
/// different backgrounds; elsewhere a bar stands between them.
pub(super) fn strip(tokens: &[String], marks: Marks, out: &Output) -> String {
    let width = out.width.unwrap_or(usize::MAX);
    let (mut lines, mut used) = (String::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        let mut text = visible_token(token);
        if text.is_empty() {
            text.push('␀');
        }
        if marks.numbered {
            text = format!("{i}:{text}");
        }
        let border = usize::from(!out.colour && used > 0);
        let wide = columns(&text);
        if used > 0 && used + border + wide > width {
            lines.push('\n');
            used = 0;
        }
        if used > 0 && border > 0 {
            lines.push('│');
            used += 1;
        }
        let special = marks.special.get(i).copied().unwrap_or(false);
        let generated = marks.generated_from.is_some_and(|from| i >= from);
        // backgrounds: grey in turns; blue for generated tokens; letters: yellow for special tokens
        let codes = match (special, generated, i % 2) {
            (true, ..) => "48;5;236;33",
            (_, true, 0) => "48;5;24;97",
            (_, true, _) => "48;5;25;97",
            (_, _, 0) => "48;5;236;97",
            (..) => "48;5;239;97",
        };
        lines += &out.with_codes(codes, &text);
        used += wide;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_separated_and_lines_fit() {
        let tokens: Vec<String> = ["The", " E", "iffel", "\n", ""].map(str::to_owned).to_vec();
        assert_eq!(strip(&tokens, Marks::default(), &Output::plain(None)), "The│·E│iffel│↵│␀\n");
        assert_eq!(strip(&tokens, Marks::default(), &Output::plain(Some(8))), "The│·E\niffel│↵\n␀\n");
        let numbered = Marks { numbered: true, ..Marks::default() };
        assert_eq!(strip(&tokens[..2], numbered, &Output::plain(None)), "0:The│1:·E\n");
        let colour = Output { colour: true, ..Output::plain(Some(80)) };
        assert!(!strip(&tokens, Marks::default(), &colour).contains('│'));
    }
}
