//! What is said about an imported file: by the request, and by the file's `__metadata__`.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::MAX_TOKENS;
use crate::{
    cache::{BosDecision, Provenance},
    dtype::Dtype,
    generation::TextCompletion,
    positions::Positions,
    problem::{Code, Problem},
};

/// Largest number of blocks of a model.
const MAX_LAYERS: usize = 10_000;
/// Largest width of a residual stream.
const MAX_WIDTH: usize = 1 << 24;
/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Largest size in bytes of the metadata that is not understood, which is kept in the index.
const MAX_REST_BYTES: usize = 64 << 10;

/// Facts that the request gives, by the names of its parameters. They override those of the file.
pub type Given = BTreeMap<&'static str, String>;

/// Everything that is said about a file: parsed and within bounds, but not checked against its tensors yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportSpec {
    /// Name of the model.
    pub model: String,
    /// The text.
    pub text: Option<String>,
    /// The text of each token.
    pub tokens: Option<Vec<String>>,
    /// Tokens of the input.
    pub n_tokens: Option<usize>,
    /// Positions of the rows.
    pub positions: Option<Positions>,
    /// Layers of a stacked tensor.
    pub layers: Option<Vec<usize>>,
    /// Number of blocks of the model; 0 if unknown.
    pub n_layers: Option<usize>,
    /// Width of the residual stream.
    pub d_model: Option<usize>,
    /// Type to store.
    pub dtype: Option<Dtype>,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDecision,
    /// Number of tokens that were truncated.
    pub n_truncated: u64,
    /// What was generated.
    pub completion: Option<TextCompletion>,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Label.
    pub label: Option<String>,
    /// The provenance, as far as it is given.
    pub provenance: Provenance,
    /// The rest of the file's metadata.
    pub rest: Map<String, Value>,
}

/// Where a fact was found, for error pointers.
enum Place {
    Query(&'static str),
    File(&'static str),
}

impl Place {
    fn wrong(&self, detail: impl Into<String>) -> Problem {
        match self {
            Self::Query(key) => Problem::at(Code::InvalidQuery, *key, detail),
            Self::File(key) => Problem::at(Code::InvalidValue, format!("/__metadata__/{key}"), detail),
        }
    }
}

/// The facts of request and file. Readers take them one by one.
struct Facts {
    given: Given,
    file: BTreeMap<String, String>,
    /// Facts of the file that the request overrides.
    beaten: Map<String, Value>,
}

impl Facts {
    fn take(&mut self, key: &'static str) -> Option<(String, Place)> {
        let in_file = self.file.remove(key);
        match (self.given.remove(key), in_file) {
            (Some(given), in_file) => {
                if let Some(other) = in_file.filter(|other| *other != given) {
                    self.beaten.insert(key.to_owned(), other.into());
                }
                Some((given, Place::Query(key)))
            }
            (None, in_file) => in_file.map(|value| (value, Place::File(key))),
        }
    }

    fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some((text, place)) = self.take(key) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| place.wrong(format!("{key} is {expected}")))
    }

    fn count(&mut self, key: &'static str, min: usize, max: usize) -> Result<Option<usize>, Problem> {
        let expected = format!("a whole number from {min} to {max}");
        self.parsed(key, &expected, |text| text.parse().ok().filter(|n| (min..=max).contains(n)))
    }

    fn json<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Result<Option<T>, Problem> {
        self.parsed(key, expected, |text| serde_json::from_str(text).ok())
    }

    fn name(&mut self, key: &'static str) -> Result<Option<String>, Problem> {
        let expected = format!("1 to {MAX_NAME_CHARS} characters, none of them a control character");
        let fits = |text: &str| {
            let n = text.chars().count();
            (1..=MAX_NAME_CHARS).contains(&n) && !text.chars().any(char::is_control)
        };
        self.parsed(key, &expected, |text| fits(text).then(|| text.to_owned()))
    }
}

impl ImportSpec {
    /// Reads the facts of the request, and those of the file that the request does not give.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] and [`Code::InvalidValue`] for a fact that is malformed or out of bounds.
    pub fn read(given: Given, file: BTreeMap<String, String>) -> Result<Self, Problem> {
        let mut facts = Facts { given, file, beaten: Map::new() };
        let model = facts.name("model")?.ok_or_else(|| {
            Problem::at(
                Code::InvalidQuery,
                "model",
                "name the model that made the activations; it need not be served here",
            )
        })?;
        let bos = facts.json("bos", "an object with present, added, token_id and requested")?;
        let unknown = BosDecision { requested: None, present: false, added: false, token_id: None };
        let spec = Self {
            model,
            text: facts.take("text").map(|(text, _)| text),
            tokens: facts.json("tokens", "a JSON array of strings")?,
            n_tokens: facts.count("n_tokens", 1, MAX_TOKENS)?,
            positions: facts.parsed(
                "positions",
                "all, last, mean, an integer, integers with commas between them, start:end, or a JSON form of these",
                read_positions,
            )?,
            layers: facts.parsed("layers", "layers from 0 on with commas between them, each once", read_layers)?,
            n_layers: facts.count("n_layers", 0, MAX_LAYERS)?,
            d_model: facts.count("d_model", 1, MAX_WIDTH)?,
            dtype: facts
                .given
                .remove("dtype")
                .map(|name| {
                    name.parse().map_err(|()| Place::Query("dtype").wrong("dtype is float32, float16 or bfloat16"))
                })
                .transpose()?,
            bos: bos.unwrap_or(unknown),
            n_truncated: facts.parsed("n_truncated", "a whole number", |text| text.parse().ok())?.unwrap_or(0),
            completion: facts.json("completion", "what a cache's own file has there")?,
            tags: facts.json("tags", "a JSON array of strings")?.unwrap_or_default(),
            metadata: facts.json("metadata", "a JSON object")?.unwrap_or_default(),
            label: facts.take("label").map(|(label, _)| label),
            provenance: provenance(&mut facts)?,
            rest: Map::new(),
        };
        let Facts { file, mut beaten, .. } = facts;
        beaten.extend(file.into_iter().map(|(key, value)| (key, value.into())));
        let n_bytes = serde_json::to_vec(&beaten).map_or(usize::MAX, |json| json.len());
        if n_bytes > MAX_REST_BYTES {
            let detail =
                format!("what it says beyond the documented keys takes {n_bytes} bytes; {MAX_REST_BYTES} are kept");
            return Err(Problem::at(Code::InvalidValue, "/__metadata__", detail));
        }
        Ok(Self { rest: beaten, ..spec })
    }
}

fn provenance(facts: &mut Facts) -> Result<Provenance, Problem> {
    let mut name = |key| Ok::<_, Problem>(facts.name(key)?.unwrap_or_default());
    Ok(Provenance {
        model_fingerprint: name("model_fingerprint")?,
        architecture: name("architecture")?,
        weights_dtype: name("weights_dtype")?,
        compute_dtype: name("compute_dtype")?,
        device: name("device")?,
        residuum_version: name("residuum_version")?,
        numerics_version: facts.parsed("numerics_version", "a whole number", |t| t.parse().ok())?.unwrap_or(0),
    })
}

/// Reads positions in the spelling of queries, or as JSON.
fn read_positions(text: &str) -> Option<Positions> {
    text.parse().ok().or_else(|| serde_json::from_str(text).ok())
}

/// `0,5,11` or `[0, 5, 11]`.
fn read_layers(text: &str) -> Option<Vec<usize>> {
    let inner = text.trim().strip_prefix('[').map_or(Some(text), |rest| rest.strip_suffix(']'))?;
    let layers: Vec<usize> = inner.split(',').map(|l| l.trim().parse().ok()).collect::<Option<_>>()?;
    let mut sorted = layers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == layers.len() && sorted.iter().all(|l| *l < MAX_LAYERS)).then_some(layers)
}
