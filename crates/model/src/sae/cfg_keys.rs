//! The keys of `cfg.json`. A reader takes each key it understands; keys that are left over are refused or warned about.

use std::fmt;

use serde_json::{Map, Value};

use super::training_keys::TRAINING;
use residuum_domain::{Warning, WarningCode};

/// Number of characters of a value that a message shows.
const SHOWN: usize = 100;

/// Why a setting is refused.
pub(super) struct Refused(String);

impl Refused {
    pub(super) fn new(key: &str, why: impl fmt::Display) -> Self {
        Self(format!("`{key}` {why}"))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) type Read<T> = Result<T, Refused>;

/// The keys of `cfg.json` and of its `metadata` that have not been taken yet. Null counts as absent.
pub(super) struct Keys(Map<String, Value>);

impl Keys {
    pub(super) fn new(mut config: Map<String, Value>) -> Read<Self> {
        match config.remove("metadata") {
            None | Some(Value::Null) => {}
            Some(Value::Object(metadata)) => {
                for (key, value) in metadata {
                    match config.get(&key) {
                        Some(other) if !other.is_null() && !value.is_null() && *other != value => {
                            return Err(Refused::new(&key, format!("is {other}, and {value} in `metadata`")));
                        }
                        Some(other) if !other.is_null() => {}
                        _ => {
                            config.insert(key, value);
                        }
                    }
                }
            }
            Some(other) => return Err(Refused::new("metadata", format!("is {other}; expected an object"))),
        }
        Ok(Self(config))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Takes the value of a setting that has several names, with the name it was found under.
    pub(super) fn take_of(&mut self, names: &[&str]) -> Read<Option<(String, Value)>> {
        let mut found: Option<(String, Value)> = None;
        for name in names {
            match (self.take(name), &found) {
                (Some(value), Some((other, before))) if value != *before => {
                    return Err(Refused::new(name, format!("is {value}, and `{other}` is {before}")));
                }
                (Some(value), None) => found = Some(((*name).to_owned(), value)),
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn flag(&mut self, key: &str) -> Read<Option<bool>> {
        let wrong = |value: Value| Refused::new(key, format!("is {value}; expected true or false"));
        self.take(key).map(|value| value.as_bool().ok_or_else(|| wrong(value))).transpose()
    }

    pub(super) fn string(&mut self, key: &str) -> Read<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refused::new(key, format!("is {other}; expected a string"))),
        }
    }

    pub(super) fn size_of(&mut self, names: &[&str]) -> Read<Option<usize>> {
        let Some((name, value)) = self.take_of(names)? else { return Ok(None) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| Refused::new(&name, format!("is {value}; expected a whole number")))
    }

    pub(super) fn size(&mut self, key: &str) -> Read<usize> {
        match self.size_of(&[key])? {
            Some(0) => Err(Refused::new(key, "is 0")),
            Some(n) => Ok(n),
            None => Err(Refused::new(key, "is missing")),
        }
    }

    /// Warns about keys that nothing has taken, except those about training. SAELens ignores keys that it does not read, so they
    /// change nothing. But if its version is not `known` here, it may read them, and they are refused.
    pub(super) fn finish(self, known: bool) -> Read<Vec<Warning>> {
        let tells_of_training = |key: &str| TRAINING.binary_search(&key).is_ok();
        let left = self.0.into_iter().filter(|(key, value)| !value.is_null() && !tells_of_training(key));
        let warning = |(key, value): (String, Value)| {
            let shown: String = value.to_string().chars().take(SHOWN).collect();
            if !known {
                let detail =
                    format!("is {shown}, and the file is from a SAELens newer than 6.54: what it means is not known");
                return Err(Refused::new(&key, detail));
            }
            let detail =
                format!("`{key}` (here {shown}) in cfg.json is a key that SAELens does not read; it was ignored");
            Ok(Warning { code: WarningCode::UnknownSaeKey, detail })
        };
        left.map(warning).collect()
    }
}
