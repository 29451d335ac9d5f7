//! A checkpoint's `config.json`, read so that no key in it is overlooked. This module knows keys and their types, not what they mean.
//!
//! Every key that a family reads is noted. An absent key has the default of the reference's configuration class. [`Config::finish`]
//! then checks the keys that nothing has read: one that the reference reads is refused by name, so that an unknown option cannot
//! lead to silently wrong tensors; one that the reference does not read is accepted with a warning.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::{
    error::LoadError,
    families::reference::{self, FamilyReference},
    python_json,
};
use residuum_domain::{WarningCode, Warnings};

/// Largest number of blocks of a model.
const MAX_LAYERS: usize = 10_000;

/// The keys of one JSON object, and which of them have been read.
#[derive(Debug)]
pub struct Config {
    /// The file, for messages.
    place: String,
    /// Path of this object inside the file (`rope_scaling.`), empty at the top.
    prefix: String,
    map: Map<String, Value>,
    seen: RefCell<BTreeSet<String>>,
    /// Keys that the reference does not read in this family, though it reads them in others.
    unread: RefCell<BTreeSet<String>>,
    kind: Kind,
    warnings: Warnings,
}

/// What an object describes. It decides what happens to its unread keys.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Anything else: every unread key is refused.
    Other,
    /// A model of a family: an unread key is refused if the reference reads it.
    Family(&'static FamilyReference),
    /// Rope parameters: the reference reads no others than we do.
    Rope {
        /// Whether they belong to one kind of layers.
        of_some_layers: bool,
    },
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a JSON object.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        Ok(Self::new(path.display().to_string(), python_json::read_object(path)?))
    }

    /// A configuration that was built from another source; `place` is what messages call it.
    pub fn new(place: impl Into<String>, map: Map<String, Value>) -> Self {
        Self {
            place: place.into(),
            prefix: String::new(),
            map,
            seen: RefCell::default(),
            unread: RefCell::default(),
            kind: Kind::Other,
            warnings: Warnings::default(),
        }
    }

    /// Marks it as the configuration of a family: absent keys get the defaults of the reference's class, and other spellings of a key
    /// are replaced by the one that the family reads.
    ///
    /// # Errors
    /// When two spellings of a key disagree.
    pub fn of_family(mut self, reference: &'static FamilyReference) -> Result<Self, LoadError> {
        for (alias, key) in reference.aliases() {
            let Some(value) = self.map.shift_remove(alias) else { continue };
            match self.map.get(key) {
                Some(other) if *other != value && !value.is_null() && !other.is_null() => {
                    return Err(self.refuse(alias, format!("is {value}, but `{key}` is {other}")));
                }
                Some(other) if !other.is_null() => {}
                _ => drop(self.map.insert(key.to_owned(), value)),
            }
        }
        self.kind = Kind::Family(reference);
        Ok(self)
    }

    /// The reference's class, if this is the configuration of a family.
    pub fn reference(&self) -> Option<&'static FamilyReference> {
        match self.kind {
            Kind::Family(reference) => Some(reference),
            Kind::Other | Kind::Rope { .. } => None,
        }
    }

    /// Warnings about the configuration; readers add to them.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// An error about `key`.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.place.clone(), format!("`{}{key}` {reason}", self.prefix))
    }

    /// An error about the file as a whole.
    pub fn error(&self, reason: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.place.clone(), reason)
    }

    /// The value of `key`, or the reference's default where it is absent. `None` for null.
    pub fn value(&self, key: &str) -> Option<&Value> {
        match self.given(key) {
            Some(value) => Some(value).filter(|v| !v.is_null()),
            None => self.reference()?.default_of(key),
        }
    }

    /// The value that the file has for `key`, including null.
    fn given(&self, key: &str) -> Option<&Value> {
        self.seen.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        get: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| self.refuse(key, format!("is {}, not {expected}", shown(value))))
    }

    /// A count, if the key is present. Counts are positive, and small enough that products of a few of them do not overflow.
    pub fn count_opt(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let get = |v: &Value| v.as_u64().filter(|n| (1..1 << 31).contains(n)).and_then(|n| usize::try_from(n).ok());
        self.typed(key, "a positive integer", get)
    }

    /// A required count.
    pub fn count(&self, key: &str) -> Result<usize, LoadError> {
        self.count_opt(key)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// An index into the vocabulary, or `default` where the key is absent.
    pub fn index_or(&self, key: &str, default: u32) -> Result<u32, LoadError> {
        let get = |v: &Value| v.as_u64().filter(|n| *n < 1 << 31).and_then(|n| u32::try_from(n).ok());
        Ok(self.typed(key, "an index", get)?.unwrap_or(default))
    }

    /// A count whose key has several spellings, if one is present. If several are present, they must agree; if none is, a spelling may
    /// have a default.
    pub fn count_opt_of(&self, keys: &[&str]) -> Result<Option<usize>, LoadError> {
        let mut found: Option<(&str, usize)> = None;
        let given: Vec<&str> =
            keys.iter().copied().filter(|key| self.given(key).is_some_and(|v| !v.is_null())).collect();
        for key in if given.is_empty() { keys } else { &given } {
            match (self.count_opt(key)?, found) {
                (Some(n), None) => found = Some((key, n)),
                (Some(n), Some((first, m))) if n != m => {
                    return Err(self.refuse(key, format!("is {n}, but `{first}` is {m}")));
                }
                _ => {}
            }
        }
        Ok(found.map(|(_, n)| n))
    }

    /// A required count whose key has several spellings; messages use the first.
    pub fn count_of(&self, keys: &[&str]) -> Result<usize, LoadError> {
        self.count_opt_of(keys)?.ok_or_else(|| self.refuse(keys[0], "is missing"))
    }

    /// The required number of blocks, whose key has several spellings. It is bounded, because every block is described before the
    /// first weight is looked up.
    pub fn layers_of(&self, keys: &[&str]) -> Result<usize, LoadError> {
        let n = self.count_of(keys)?;
        if n > MAX_LAYERS {
            return Err(self.refuse(keys[0], format!("is {n}; at most {MAX_LAYERS} layers are understood")));
        }
        Ok(n)
    }

    /// A finite number, if the key is present.
    pub fn number_opt(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", |v| v.as_f64().filter(|n| n.is_finite()))
    }

    /// A number, or `default` where the key is absent.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        Ok(self.number_opt(key)?.unwrap_or(default))
    }

    /// A required number.
    pub fn number(&self, key: &str) -> Result<f64, LoadError> {
        self.number_opt(key)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A required list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Vec<f64>, LoadError> {
        let get = |v: &Value| v.as_array()?.iter().map(Value::as_f64).collect();
        self.typed(key, "a list of numbers", get)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A boolean. If the key is absent, it is the default of the reference's class, and false if that has none. Null is false, as in
    /// Python.
    pub fn flag(&self, key: &str) -> Result<bool, LoadError> {
        self.flag_or(key, false)
    }

    /// A boolean, or `default` if the key is absent and the reference's class has no default. Null is false, as in Python.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        if self.given(key).is_some_and(Value::is_null) {
            return Ok(false);
        }
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A string, if the key is present.
    pub fn text_opt(&self, key: &str) -> Result<Option<String>, LoadError> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// A string, or `default` where the key is absent.
    pub fn text_or(&self, key: &str, default: &str) -> Result<String, LoadError> {
        Ok(self.text_opt(key)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A list of strings, if the key is present.
    pub fn texts_opt(&self, key: &str) -> Result<Option<Vec<String>>, LoadError> {
        let get = |v: &Value| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect();
        self.typed(key, "a list of strings", get)
    }

    /// An object inside this one, if the key is present. [`Config::finish`] must be called on it too.
    pub fn object_opt(&self, key: &str) -> Result<Option<Self>, LoadError> {
        let map = self.typed(key, "an object", |v| v.as_object().cloned())?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(map.map(|map| Self { prefix, warnings: self.warnings.clone(), ..Self::new(self.place.clone(), map) }))
    }

    /// As [`Self::object_opt`], for rope parameters. An empty object counts as absent.
    pub fn rope_opt(&self, key: &str) -> Result<Option<Self>, LoadError> {
        let object = self.object_opt(key)?.filter(|rope| !rope.map.is_empty());
        let of_some_layers = self.prefix.ends_with("rope_parameters.");
        Ok(object.map(|rope| Self { kind: Kind::Rope { of_some_layers }, ..rope }))
    }

    /// These rope parameters, overridden by those of `over`.
    pub fn overlaid(mut self, over: &Self) -> Self {
        self.map.extend(over.map.clone());
        self
    }

    /// Empty rope parameters of some layers, for a file that has none under `key`.
    pub fn default_rope(&self, key: &str) -> Self {
        let prefix = format!("{}{key}.", self.prefix);
        let map = Map::from_iter([("rope_type".to_owned(), "default".into())]);
        let kind = Kind::Rope { of_some_layers: true };
        Self { prefix, kind, warnings: self.warnings.clone(), ..Self::new(self.place.clone(), map) }
    }

    /// Whether these rope parameters belong to one kind of layers.
    pub fn is_of_some_layers(&self) -> bool {
        matches!(self.kind, Kind::Rope { of_some_layers: true })
    }

    /// Notes keys that are known not to affect what this family computes.
    pub fn ignore(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Notes keys that the reference does not read in this family, so that they are accepted with a warning.
    pub fn unread(&self, keys: &[&str]) {
        self.unread.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Accepts `key` only if it is absent or equals `value`: other settings of this option are not implemented. A key that the
    /// reference does not read is accepted with a warning, whatever its value.
    pub fn only(&self, key: &str, value: impl Into<Value>) -> Result<(), LoadError> {
        let value = value.into();
        match self.value(key) {
            Some(v) if *v != value && self.reference().is_some_and(|f| !f.declares(key) && !f.reads_by_name(key)) => {
                self.warn_unread(WarningCode::UnknownConfigKey, key, v);
                Ok(())
            }
            Some(v) if *v != value => Err(self.refuse(key, format!("is {}; only {value} is understood", shown(v)))),
            _ => Ok(()),
        }
    }

    /// Checks the keys that nothing has read: one that the reference reads is refused, the others are accepted with a warning.
    ///
    /// # Errors
    /// Naming the first key that is refused.
    pub fn finish(&self) -> Result<(), LoadError> {
        let seen = self.seen.borrow();
        let unseen = self.map.iter().filter(|(key, value)| !seen.contains(key.as_str()) && !value.is_null());
        for (key, value) in unseen {
            let unread = self.unread.borrow().contains(key);
            match self.kind {
                _ if unread => self.warn_unread(WarningCode::UnknownConfigKey, key, value),
                Kind::Rope { .. } => self.warn_unread(WarningCode::UnknownRopeKey, key, value),
                _ if reference::is_without_effect(key) => {}
                Kind::Family(family) if family.declares(key) || family.reads_by_name(key) => {
                    if family.default_of(key) != Some(value) {
                        let reader =
                            if family.declares(key) { family.class.as_str() } else { "code around the configuration" };
                        let reason = format!("is not understood, and transformers' {reader} reads it");
                        return Err(self.refuse(key, reason));
                    }
                }
                Kind::Family(_) => self.warn_unread(WarningCode::UnknownConfigKey, key, value),
                Kind::Other => {
                    return Err(self.refuse(key, "is not understood and might change what the model computes"));
                }
            }
        }
        Ok(())
    }

    fn warn_unread(&self, code: WarningCode, key: &str, value: &Value) {
        let version = reference::version();
        let detail = format!(
            "`{}{key}` is {}; transformers {version} does not read it here, and it is ignored",
            self.prefix,
            shown(value)
        );
        self.warnings.add(code, detail);
    }
}

/// A value as messages show it, a long one cut short.
fn shown(value: &Value) -> String {
    python_json::special_float(value).map_or_else(|| value.to_string().chars().take(60).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: Value) -> Config {
        Config::new("config.json", json.as_object().unwrap().clone())
    }

    #[test]
    fn keys_nobody_read_are_refused_by_name() {
        let c = config(serde_json::json!({"hidden_size": 4, "use_cache": true, "new_trick": 1, "off": null}));
        assert_eq!(c.count("hidden_size"), Ok(4));
        let error = c.finish().unwrap_err().to_string();
        assert!(error.starts_with("config.json: `new_trick` is not understood"), "{error}");
        assert!(c.value("new_trick").is_some());
        assert_eq!(c.finish(), Ok(()));
    }

    #[test]
    fn nested_keys_are_named_with_their_path() {
        let c = config(serde_json::json!({"rope": {"factor": "x"}}));
        let rope = c.object_opt("rope").unwrap().unwrap();
        assert_eq!(rope.number("factor").unwrap_err().to_string(), "config.json: `rope.factor` is \"x\", not a number");
        assert_eq!(rope.number("base").unwrap_err().to_string(), "config.json: `rope.base` is missing");
    }

    #[test]
    fn spellings_of_a_count_must_agree() {
        let c = config(serde_json::json!({"n_head": 4, "num_heads": 4, "heads": 8, "none": null}));
        assert_eq!(c.count_of(&["none", "num_heads", "n_head"]), Ok(4));
        assert_eq!(c.count_opt_of(&["none", "nowhere"]), Ok(None));
        let error = c.count_of(&["n_head", "heads"]).unwrap_err().to_string();
        assert_eq!(error, "config.json: `heads` is 8, but `n_head` is 4");
        assert_eq!(c.count_of(&["none"]).unwrap_err().to_string(), "config.json: `none` is missing");
    }

    #[test]
    fn impossible_counts_are_refused() {
        for v in [serde_json::json!(0), serde_json::json!(-1), serde_json::json!(1u64 << 40), serde_json::json!(1.5)] {
            assert!(config(serde_json::json!({ "n": v })).count("n").is_err());
        }
    }
}
