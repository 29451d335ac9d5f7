//! Values of options: layers, positions, tokens, metadata and times, as requests write them.

use serde_json::{Map, Value, json};

use residuum_domain::Positions;

/// Reads `all`, `12`, `0,6,-1` or `10:20` (without the end).
///
/// # Errors
/// What would be right.
pub(super) fn layers(text: &str) -> Result<Value, String> {
    const EXPECTED: &str = "expected all, a layer, layers with commas between them, or start:end";
    let int = |part: &str| part.trim().parse::<i64>().map_err(|_| EXPECTED.to_owned());
    if text == "all" {
        return Ok(json!("all"));
    }
    if let Some((start, end)) = text.split_once(':') {
        let (start, end) = (if start.is_empty() { 0 } else { int(start)? }, int(end)?);
        if start < 0 || end <= start || end - start > 10_000 {
            return Err("a range of layers is start:end, 0 ≤ start < end, and leaves out the end".to_owned());
        }
        return Ok((start..end).collect());
    }
    match text.split(',').map(int).collect::<Result<Vec<i64>, _>>()?[..] {
        [one] => Ok(json!(one)),
        ref several => Ok(json!(several)),
    }
}

/// Reads positions: `last`, `mean`, `all`, `prompt`, `generated`, `3`, `0,2,-1`, `2:5`, `text:WORD`, or JSON.
///
/// # Errors
/// What would be right.
pub(super) fn positions(text: &str) -> Result<Value, String> {
    const EXPECTED: &str = "expected last, mean, all, prompt, generated, a position, positions with commas between them, \
                            start:end, text:WORD, or JSON such as {\"special\": false}";
    if let Some(word) = text.strip_prefix("text:") {
        return if word.is_empty() { Err("a text follows text:".to_owned()) } else { Ok(json!({ "text": word })) };
    }
    if text.starts_with(['{', '[']) {
        return serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"));
    }
    if matches!(text, "prompt" | "generated") {
        return Ok(json!(text));
    }
    let read: Positions = text.parse().map_err(|_| EXPECTED.to_owned())?;
    serde_json::to_value(read).map_err(|e| e.to_string())
}

/// Positions of an answer, without quotes around a word.
pub(super) fn positions_text(positions: &Value) -> String {
    positions.as_str().map_or_else(|| positions.to_string(), str::to_owned)
}

/// Positions of an experiment, or `each`.
///
/// # Errors
/// As [`positions`].
pub(super) fn swept(text: &str) -> Result<Value, String> {
    if text == "each" { Ok(json!("each")) } else { positions(text) }
}

/// Reads a token: its text, or `id:7042`.
///
/// # Errors
/// What would be right.
pub(super) fn token(text: &str) -> Result<Value, String> {
    match text.strip_prefix("id:") {
        Some(id) => id.parse::<u32>().map(Value::from).map_err(|_| "a number follows id:".to_owned()),
        None if text.is_empty() => Err("a token is not empty".to_owned()),
        None => Ok(json!(text)),
    }
}

/// Reads `KEY=VALUE`. The value is JSON, or else a string.
///
/// # Errors
/// What would be right.
pub(super) fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
}

/// Pairs as an object. A later pair replaces an earlier one of the same key.
pub(super) fn object(pairs: &[(String, Value)]) -> Map<String, Value> {
    pairs.iter().cloned().collect()
}

/// Reads JSON.
///
/// # Errors
/// Why it is none.
pub(super) fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))
}

/// Reads a time span as seconds: `90`, `90s`, `15min`, `12h` or `7d`.
///
/// # Errors
/// What would be right.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a time such as 90s, 15min, 12h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_one_several_or_a_range() {
        assert_eq!((layers("all").unwrap(), layers("-1").unwrap()), (json!("all"), json!(-1)));
        assert_eq!((layers("0, 6,-1").unwrap(), layers("2:5").unwrap()), (json!([0, 6, -1]), json!([2, 3, 4])));
        assert_eq!(layers(":2").unwrap(), json!([0, 1]));
        for bad in ["", "x", "1,", "5:2", "-3:2", "0:99999999", "1.5"] {
            assert!(layers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_have_the_forms_of_requests() {
        for (text, value) in [
            ("last", json!("last")),
            ("generated", json!("generated")),
            ("-1", json!(-1)),
            ("0,2", json!([0, 2])),
            ("text:the Tower", json!({"text": "the Tower"})),
            ("{\"special\": false}", json!({"special": false})),
        ] {
            assert_eq!(positions(text).unwrap(), value, "{text}");
        }
        assert_eq!(positions("1:").unwrap()["start"], 1);
        for bad in ["", "first", "text:", "{", "1;2"] {
            assert!(positions(bad).is_err(), "{bad}");
        }
        assert_eq!(swept("each").unwrap(), json!("each"));
    }

    #[test]
    fn metadata_is_json_or_a_string() {
        assert_eq!(pair("split=train").unwrap(), ("split".to_owned(), json!("train")));
        assert_eq!(pair("n=3").unwrap().1, json!(3));
        assert_eq!(pair("a==").unwrap().1, json!("="));
        assert!(pair("=x").is_err() && pair("x").is_err());
        assert_eq!(token("id:7").unwrap(), json!(7));
        assert_eq!(token(" Paris").unwrap(), json!(" Paris"));
        assert!(token("id:x").is_err() && token("").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(["90", "90s", "15min", "2h", "7d"].map(|t| seconds(t).unwrap()), [90, 90, 900, 7200, 604_800]);
        for bad in ["", "0", "h", "-1s", "1w", "99999999999999999999d", "999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
