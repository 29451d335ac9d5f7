//! The JSON files next to the vocabulary: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, and what
//! `config.json` says about the tokenizer. They are merged into one description, as AutoTokenizer merges them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::{error::LoadError, python_json};

/// Roles of special tokens that every class has, in transformers' order.
const ROLES: &[&str] = &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The contents of the files.
#[derive(Debug)]
pub struct SideFiles {
    /// The folder.
    pub folder: PathBuf,
    /// `config.json`.
    pub model: Map<String, Value>,
    /// `tokenizer_config.json`.
    pub options: Map<String, Value>,
    special_map: Map<String, Value>,
    added: Map<String, Value>,
}

/// How a file names a token: by its text, or with flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mention {
    /// The text alone.
    Name(String),
    /// With flags.
    Token(AddedToken),
}

impl Mention {
    /// The text.
    pub fn content(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Token(token) => &token.content,
        }
    }
}

/// The tokens that the side files declare.
#[derive(Debug, Default)]
pub struct Declared {
    /// Special tokens by role: the seven usual roles, then those of this model.
    pub roles: Vec<(String, Mention)>,
    /// Special tokens without a role.
    pub extra: Vec<Mention>,
    /// Added tokens by the id that the file gives them.
    pub added: BTreeMap<u32, AddedToken>,
}

impl SideFiles {
    /// Reads the files of a folder. Missing files count as empty.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let read = |name: &str| object(&folder.join(name));
        Ok(Self {
            folder: folder.to_owned(),
            model: read("config.json")?,
            options: read("tokenizer_config.json")?,
            special_map: read("special_tokens_map.json")?,
            added: read("added_tokens.json")?,
        })
    }

    /// A string of `tokenizer_config.json`; null counts as absent.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.options.get(key)?.as_str()
    }

    /// Whether `tokenizer_config.json` lists the added tokens; then the older files are not read.
    pub fn lists_added_tokens(&self) -> bool {
        self.options.get("added_tokens_decoder").is_some_and(Value::is_object)
    }

    /// An option; where `special_tokens_map.json` is read, it takes precedence.
    pub fn option(&self, key: &str) -> Option<&Value> {
        let older = if self.lists_added_tokens() { None } else { self.special_map.get(key) };
        older.or_else(|| self.options.get(key))
    }

    /// A boolean option; null counts as absent.
    ///
    /// # Errors
    /// When it is not a boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.option(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.refuse(key, format!("is {other}, not true or false"))),
        }
    }

    /// An error about a key of `tokenizer_config.json`.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> LoadError {
        LoadError::file(&self.folder.join("tokenizer_config.json"), format!("`{key}` {reason}"))
    }

    /// The declared tokens. `defaults` are the roles of the class, `serialized` the added tokens of `tokenizer.json`, `pieces`
    /// the control and user-defined pieces of a SentencePiece model.
    ///
    /// # Errors
    /// When a token is neither a string nor an object with its `content`.
    pub fn declared(
        &self,
        defaults: &[(String, String)],
        serialized: &BTreeMap<u32, AddedToken>,
        pieces: Option<Vec<Mention>>,
    ) -> Result<Declared, LoadError> {
        let extra = self.extra(pieces)?;
        let mut named = self.named()?;
        let mut added = BTreeMap::new();
        // A token remains known by its text if a later one takes its id.
        let mut by_content: HashMap<String, AddedToken> = HashMap::new();
        if self.lists_added_tokens() {
            for (id, value) in self.options["added_tokens_decoder"].as_object().into_iter().flatten() {
                let bad = || {
                    self.refuse(
                        "added_tokens_decoder",
                        format!("has the entry {id:?}, which is not an id with a token"),
                    )
                };
                let token = token(value, None).ok_or_else(bad)?;
                added.insert(id.parse().map_err(|_| bad())?, token);
            }
        } else {
            let special = self.special_texts(&named, &extra);
            for (content, id) in &self.added {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                    LoadError::file(&self.folder.join("added_tokens.json"), format!("{content:?} has no id"))
                })?;
                added.insert(id, AddedToken::from(content.as_str(), special.contains(&content.as_str())));
            }
            by_content.extend(added.values().map(|token| (token.content.clone(), token.clone())));
            added.extend(serialized.iter().map(|(id, token)| (*id, token.clone())));
        }
        by_content.extend(added.values().map(|token| (token.content.clone(), token.clone())));
        for (role, mention) in &mut named {
            let known = mention.as_ref().and_then(|m| by_content.get(m.content()));
            if let Some(known) = known.filter(|_| ROLES.contains(&role.as_str())) {
                *mention = Some(Mention::Token(known.clone()));
            }
        }
        let roles = in_order(named, defaults);
        Ok(Declared { roles, extra, added })
    }

    /// Tokens with a role, as the files name them; `None` for a role that is null.
    fn named(&self) -> Result<Vec<(String, Option<Mention>)>, LoadError> {
        let mut keys: Vec<&String> = self.options.keys().collect();
        if !self.lists_added_tokens() {
            keys.extend(self.special_map.keys().filter(|k| !self.options.contains_key(*k)));
        }
        let mut named = Vec::new();
        for key in keys {
            let usual = ROLES.contains(&key.as_str());
            let Some(value) = self.option(key).filter(|v| usual || v.is_string() || v.is_object()) else { continue };
            if !usual && !key.ends_with("_token") {
                continue;
            }
            let mention = if value.is_null() { None } else { Some(self.mention(key, value)?) };
            named.push((key.clone(), mention));
        }
        if let Some(Value::Object(own)) = self.option("extra_special_tokens") {
            for (name, value) in own {
                named.push((name.clone(), Some(self.mention("extra_special_tokens", value)?)));
            }
        }
        Ok(named)
    }

    fn mention(&self, key: &str, value: &Value) -> Result<Mention, LoadError> {
        let of_map = !self.lists_added_tokens() && self.special_map.get(key) == Some(value);
        let mention = value.as_str().map(|s| Mention::Name(s.to_owned()));
        let token = || token(value, of_map.then_some(true)).map(Mention::Token);
        mention.or_else(token).ok_or_else(|| self.refuse(key, format!("is {value}, which is not a token")))
    }

    /// Special tokens without a role. `additional_special_tokens` is the older name of `extra_special_tokens`.
    fn extra(&self, pieces: Option<Vec<Mention>>) -> Result<Vec<Mention>, LoadError> {
        let list = |map: &Map<String, Value>, key: &str| -> Result<Option<Vec<Mention>>, LoadError> {
            let Some(Value::Array(list)) = map.get(key) else { return Ok(None) };
            list.iter().map(|value| self.mention(key, value)).collect::<Result<Vec<_>, _>>().map(Some)
        };
        let (newer, older) = ("extra_special_tokens", "additional_special_tokens");
        let mut extra = list(&self.options, newer)?;
        let mut additional = list(&self.options, older)?;
        if extra.as_ref().is_none_or(Vec::is_empty) && self.options.get(newer).and_then(Value::as_object).is_none() {
            extra = additional.take().or(extra);
        }
        if !self.lists_added_tokens() {
            if let Some(more) = list(&self.special_map, newer)? {
                extra.get_or_insert_default().extend(more);
            }
            additional = list(&self.special_map, older)?.or(additional);
        }
        Ok(extra.or(pieces).or(additional).unwrap_or_default())
    }

    /// Texts of the tokens of `added_tokens.json` that are special. In `tokenizer_config.json` only plain names count;
    /// `additional_special_tokens` of `special_tokens_map.json` does not count.
    fn special_texts<'m>(&self, named: &'m [(String, Option<Mention>)], extra: &'m [Mention]) -> Vec<&'m str> {
        let of_map = |key: &str| self.special_map.contains_key(key);
        let counts = |mention: &Mention, key: &str| matches!(mention, Mention::Name(_)) || of_map(key);
        let usual = named.iter().filter(|(role, _)| ROLES.contains(&role.as_str()));
        let usual = usual.filter_map(|(role, m)| m.as_ref().filter(|m| counts(m, role)));
        let (newer, older) = ("extra_special_tokens", "additional_special_tokens");
        let in_options = [newer, older].iter().any(|key| self.options.get(*key).is_some_and(Value::is_array));
        let listed = if in_options || of_map(newer) { extra } else { &[] };
        usual.chain(listed.iter().filter(|m| counts(m, newer))).map(Mention::content).collect()
    }
}

/// Orders the roles, the seven usual ones first. A role that no file mentions has the class's default.
fn in_order(named: Vec<(String, Option<Mention>)>, defaults: &[(String, String)]) -> Vec<(String, Mention)> {
    let mentioned = |role: &str| named.iter().find(|(r, _)| r == role);
    let default = |role: &str| defaults.iter().find(|(r, _)| r == role).map(|(_, d)| Mention::Name(d.clone()));
    let usual = ROLES.iter().filter_map(|role| {
        let mention = mentioned(role).map_or_else(|| default(role), |(_, m)| m.clone());
        Some(((*role).to_owned(), mention?))
    });
    let own_default = defaults.iter().filter(|(role, _)| !ROLES.contains(&role.as_str()) && mentioned(role).is_none());
    let own_default = own_default.map(|(role, d)| (role.clone(), Mention::Name(d.clone())));
    let own = named.iter().filter(|(role, _)| !ROLES.contains(&role.as_str()));
    let own = own.filter_map(|(role, m)| Some((role.clone(), m.clone()?)));
    usual.chain(own_default).chain(own).collect()
}

/// A token with its flags. `special` overrides what the object says.
fn token(value: &Value, special: Option<bool>) -> Option<AddedToken> {
    let content = value.get("content")?.as_str()?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = special.or_else(|| flag("special")).unwrap_or(false);
    let token = AddedToken::from(content, special);
    let normalized = flag("normalized").unwrap_or(token.normalized);
    let on = |key: &str| flag(key).unwrap_or(false);
    Some(token.normalized(normalized).single_word(on("single_word")).lstrip(on("lstrip")).rstrip(on("rstrip")))
}

/// A JSON object, empty when the file does not exist.
pub fn object(path: &Path) -> Result<Map<String, Value>, LoadError> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    python_json::read_object(path)
}
