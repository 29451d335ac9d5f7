//! Generation, in requests and responses.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use utoipa::ToSchema;

use residuum_domain::{Code, FinishReason, Generation, Problem, TextCompletion};

// Bounds on the texts that stop a continuation.
const MAX_STOPS: usize = 16;
const MAX_STOP_CHARS: usize = 256;
/// Most samples of one input.
const MAX_SAMPLES: u32 = 128;
/// Maximum seed: larger integers are not exact in JSON readers that use float64.
const MAX_SEED: u64 = (1 << 53) - 1;

/// How to continue an input. What is captured covers the whole text, with the numbers of one forward pass over it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Generate, example = json!({"max_new_tokens": 16, "temperature": 0.8, "top_p": 0.95, "seed": 7, "stop": ["\n"]}))]
pub struct GenerateDto {
    /// Maximum number of tokens to add.
    #[schema(minimum = 1)]
    pub max_new_tokens: usize,
    /// 0, the default, always takes the most probable token.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100, default = 0.0)]
    pub temperature: f64,
    /// Samples from this many of the most probable tokens.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// Samples from the smallest set of most probable tokens whose probabilities add up to at least this.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Seed of sampling, to repeat it. If left out, the server chooses one and reports it.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub seed: Option<u64>,
    /// One text or several; the continuation ends when one of them appears.
    #[serde(default)]
    #[schema(value_type = Option<StopSchema>)]
    pub stop: Stop,
    /// How often each input is continued, each time with other random numbers. Item `input × n + sample` of the run is
    /// sample `sample` of the input; both count from 0.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 128, default = 1)]
    pub n: u32,
}

const fn one() -> u32 {
    1
}

/// Texts that end a continuation: one, or several.
#[derive(Debug, Clone, Default)]
pub struct Stop(Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Stop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, texts: A) -> Result<Stop, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(texts)).map(Stop)
            }
        }

        d.deserialize_any(Read)
    }
}

/// Texts that end a continuation.
#[derive(Serialize, ToSchema)]
#[schema(as = Stop)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes stop for the specification")]
pub enum StopSchema {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl GenerateDto {
    /// Checks the fields and converts them to a request of the engine.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] with a pointer to the field.
    pub fn into_generation(self) -> Result<Generation, Problem> {
        let Self { max_new_tokens, temperature, top_k, top_p, seed, stop: Stop(stop), n } = self;
        let check = |right: bool, field: &str, detail: String| {
            if right { Ok(()) } else { Err(Problem::at(Code::InvalidValue, format!("/generate/{field}"), detail)) }
        };
        check((1..=MAX_SAMPLES).contains(&n), "n", format!("n lies between 1 and {MAX_SAMPLES}"))?;
        check(max_new_tokens > 0, "max_new_tokens", "max_new_tokens is at least 1".to_owned())?;
        check((0.0..=100.0).contains(&temperature), "temperature", "temperature lies between 0 and 100".to_owned())?;
        check(top_k != Some(0), "top_k", "top_k is at least 1".to_owned())?;
        let p_is_right = top_p.is_none_or(|p| p > 0.0 && p <= 1.0);
        check(p_is_right, "top_p", "top_p is above 0 and at most 1".to_owned())?;
        check(seed.is_none_or(|s| s <= MAX_SEED), "seed", format!("seed lies between 0 and {MAX_SEED}"))?;
        check(stop.len() <= MAX_STOPS, "stop", format!("{} stops are too many; {MAX_STOPS} are allowed", stop.len()))?;
        for (i, text) in stop.iter().enumerate() {
            let right = !text.is_empty() && text.chars().count() <= MAX_STOP_CHARS;
            check(right, &format!("stop/{i}"), format!("a stop has 1 to {MAX_STOP_CHARS} characters"))?;
        }
        // the lower half of a UUIDv7 is random
        let seed = seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 & MAX_SEED);
        Ok(Generation { max_new_tokens, temperature, top_k, top_p, seed, stop, sample: 0, n })
    }
}

/// What was generated after an input.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Completion, example = json!({
    "text": " Paris.", "token_ids": [7042, 30], "first_position": 9, "finish_reason": "length", "logprobs": [-0.52, -1.9],
    "sample": 0, "n": 1, "max_new_tokens": 2,
    "temperature": 0.0, "top_k": null, "top_p": null, "seed": 7, "stop": []
}))]
pub struct CompletionDto {
    /// The generated text, without special tokens and without the text that stopped it.
    pub text: String,
    /// Ids of the generated tokens.
    pub token_ids: Vec<u32>,
    /// Position of the first generated token.
    pub first_position: usize,
    /// Why generation ended: `length`, `end_of_sequence` (then the last token is that token), `stop` or `cancelled`.
    #[schema(value_type = FinishReasonSchema)]
    pub finish_reason: FinishReason,
    /// Log-probability of each generated token: the natural logarithm of its softmax, before temperature. Null in caches
    /// of older versions.
    pub logprobs: Option<Vec<f32>>,
    /// Which of the `n` samples of its input this is, from 0.
    pub sample: u32,
    /// As requested.
    pub n: u32,
    /// As requested.
    pub max_new_tokens: usize,
    /// As requested.
    pub temperature: f64,
    /// As requested.
    pub top_k: Option<usize>,
    /// As requested.
    pub top_p: Option<f64>,
    /// The seed that was used.
    pub seed: u64,
    /// As requested.
    pub stop: Vec<String>,
}

/// Why a continuation ended.
#[derive(Serialize, ToSchema)]
#[schema(as = FinishReason)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes FinishReason for the specification")]
pub enum FinishReasonSchema {
    /// `max_new_tokens` were added.
    Length,
    /// The model generated an end-of-sequence token.
    EndOfSequence,
    /// One of the `stop` texts appeared.
    Stop,
    /// The run was cancelled; this was written by then.
    Cancelled,
}

impl CompletionDto {
    /// `token_ids` are all tokens of the cache.
    pub fn new(completion: TextCompletion, token_ids: &[u32]) -> Self {
        let TextCompletion { first, text, finish_reason, generation, logprobs } = completion;
        let Generation { max_new_tokens, temperature, top_k, top_p, seed, stop, sample, n } = generation;
        Self {
            text,
            token_ids: token_ids.get(first..).unwrap_or_default().to_vec(),
            first_position: first,
            finish_reason,
            logprobs: (!logprobs.is_empty()).then_some(logprobs),
            sample,
            n,
            max_new_tokens,
            temperature,
            top_k,
            top_p,
            seed,
            stop,
        }
    }
}
