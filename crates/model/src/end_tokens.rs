//! The tokens that end a text, read from the files of a checkpoint.

use std::path::Path;

use serde_json::Value;

use super::{checkpoint::GgufFile, config::Config, error::LoadError};

/// `eos_token_id` of `generation_config.json`, else of `config.json`: one id or several.
///
/// # Errors
/// When the file is not JSON, or an id is not a token id.
pub fn of_folder(folder: &Path, config: &Config) -> Result<Vec<u32>, LoadError> {
    const KEY: &str = "eos_token_id";
    let path = folder.join("generation_config.json");
    if path.is_file() {
        let generation = Config::read(&path)?;
        if let Some(value) = generation.value(KEY) {
            return ids(value).ok_or_else(|| generation.refuse(KEY, "is neither a token id nor a list of them"));
        }
    }
    let Some(value) = config.value(KEY) else { return Ok(Vec::new()) };
    ids(value).ok_or_else(|| config.refuse(KEY, "is neither a token id nor a list of them"))
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    let id = |v: &Value| {
        // Some configurations write -1 for "no such token".
        v.as_i64().map(|id| u32::try_from(id).ok())
    };
    let ids: Option<Vec<Option<u32>>> = match value {
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.map(|ids| ids.into_iter().flatten().collect())
}

/// The end-of-text and end-of-turn tokens that a GGUF file names.
pub fn of_gguf(file: &GgufFile) -> Vec<u32> {
    let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
    keys.iter().filter_map(|key| u32::try_from(file.integer(key)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_several_or_none() {
        assert_eq!(ids(&Value::from(2)), Some(vec![2]));
        assert_eq!(ids(&Value::from(vec![2, 5])), Some(vec![2, 5]));
        assert_eq!(ids(&Value::from(-1)), Some(vec![]));
        assert_eq!(ids(&Value::from("2")), None);
    }
}
