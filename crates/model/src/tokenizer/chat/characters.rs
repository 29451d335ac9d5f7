//! Upper and lower case, and categories of characters, as Python's `str` defines them.

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};

/// Python's `str.isprintable` of one character.
pub fn is_printable(c: char) -> bool {
    c == ' '
        || !matches!(
            c.general_category(),
            Category::Control
                | Category::Format
                | Category::Surrogate
                | Category::PrivateUse
                | Category::Unassigned
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::SpaceSeparator
        )
}

/// Python's `str.isspace` of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Titlecase of one character: digraphs have their own titlecase forms; of ligatures, only the first letter is upper case.
fn title_char(c: char, out: &mut String) {
    match c {
        'Ǆ'..='ǆ' => out.push('ǅ'),
        'Ǉ'..='ǉ' => out.push('ǈ'),
        'Ǌ'..='ǌ' => out.push('ǋ'),
        'Ǳ'..='ǳ' => out.push('ǲ'),
        c => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
    }
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || c.general_category() == Category::TitlecaseLetter
}

/// Changes the case of a text as the method `how` does.
pub fn cased(text: &str, how: &str) -> String {
    let mut out = String::with_capacity(text.len());
    match how {
        "lower" => return text.to_lowercase(),
        "upper" => return text.to_uppercase(),
        "casefold" => text.chars().for_each(|c| match c {
            'ß' | 'ẞ' => out.push_str("ss"),
            'ς' => out.push('σ'),
            // Ligatures fold to their letters, which is the lower case of their upper case.
            '\u{fb00}'..='\u{fb17}' | 'ŉ' | 'ǰ' | 'ΐ' | 'ΰ' | 'և' | 'ẖ'..='ẚ' => {
                c.to_uppercase().for_each(|u| out.extend(u.to_lowercase()));
            }
            c => out.extend(c.to_lowercase()),
        }),
        "capitalize" => {
            let mut chars = text.chars();
            chars.next().into_iter().for_each(|c| title_char(c, &mut out));
            out.push_str(&chars.as_str().to_lowercase());
        }
        "swapcase" => text.chars().for_each(|c| match c {
            c if c.is_uppercase() => out.extend(c.to_lowercase()),
            c if c.is_lowercase() => out.extend(c.to_uppercase()),
            c => out.push(c),
        }),
        _ => {
            let mut in_word = false;
            for c in text.chars() {
                if in_word {
                    out.extend(c.to_lowercase())
                } else {
                    title_char(c, &mut out)
                }
                in_word = is_cased(c);
            }
        }
    }
    out
}

/// The result of the method `what` (`isalpha`, …).
pub fn is(text: &str, what: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    match what {
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isalnum" => all(|c| is_alpha(c) || is_numeric(c)),
        "isalpha" => all(is_alpha),
        "isdecimal" => all(|c| c.general_category() == Category::DecimalNumber),
        "isdigit" => all(is_digit),
        "isnumeric" => all(is_numeric),
        "isspace" => all(is_space),
        "isidentifier" => {
            let mut chars = text.chars();
            let first =
                chars.next().is_some_and(|c| c == '_' || is_alpha(c) || c.general_category() == Category::LetterNumber);
            first && chars.all(continues_identifier)
        }
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(|c| is_cased(c) && !c.is_lowercase()),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(|c| is_cased(c) && !c.is_uppercase()),
        _ => is_title(text),
    }
}

fn is_alpha(c: char) -> bool {
    use Category::{LowercaseLetter, ModifierLetter, OtherLetter, TitlecaseLetter, UppercaseLetter};
    matches!(c.general_category(), UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter)
}

fn continues_identifier(c: char) -> bool {
    use Category::{ConnectorPunctuation, DecimalNumber, LetterNumber, NonspacingMark, SpacingMark};
    is_alpha(c)
        || matches!(
            c.general_category(),
            ConnectorPunctuation | DecimalNumber | LetterNumber | NonspacingMark | SpacingMark
        )
}

/// Decimal digits, superscripts, subscripts and circled digits.
fn is_digit(c: char) -> bool {
    c.general_category() == Category::DecimalNumber
        || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐' | '⓪' | '⓵'..='⓽' | '⓿' | '❶'..='❾' | '➀'..='➈' | '➊'..='➒')
}

/// Numbers of any kind, and the ideographs of numbers.
fn is_numeric(c: char) -> bool {
    use Category::{DecimalNumber, LetterNumber, OtherNumber};
    matches!(c.general_category(), DecimalNumber | LetterNumber | OtherNumber)
        || "〇一二三四五六七八九十百千万萬億兆零壱壹弐貳貮弍参參弎叁肆伍陆陸柒漆捌玖拾廾卅卌佰仟亿仨両亖".contains(c)
}

fn is_title(text: &str) -> bool {
    let (mut in_word, mut any) = (false, false);
    for c in text.chars() {
        let upper = c.is_uppercase() || c.general_category() == Category::TitlecaseLetter;
        if (upper && in_word) || (c.is_lowercase() && !in_word) {
            return false;
        }
        in_word = is_cased(c);
        any |= in_word;
    }
    any
}
