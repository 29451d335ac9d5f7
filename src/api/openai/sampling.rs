//! What chats and completions have in common: how tokens are chosen, and how they are answered.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::dto::generate::{GenerateDto, Stop};
use residuum_domain::{Code, Generation, Problem, generation::REST_OF_CONTEXT};

/// Most tokens listed beside each token.
const MAX_TOP: usize = 20;

/// How tokens are chosen, as requested.
pub struct Sampling {
    /// The name of the field with the maximum number of tokens.
    pub limit_field: &'static str,
    /// Maximum number of tokens; `None`: what is left of the context.
    pub max_tokens: Option<usize>,
    /// Samples of each prompt.
    pub n: Option<u32>,
    /// 1 if left out.
    pub temperature: Option<f64>,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub seed: Option<u64>,
    pub stop: Stop,
}

impl Sampling {
    /// How to generate.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] with a pointer to the field.
    pub fn generation(self) -> Result<Generation, Problem> {
        let Self { limit_field, max_tokens, n, temperature, top_k, top_p, seed, stop } = self;
        let dto = GenerateDto {
            max_new_tokens: 1,
            temperature: temperature.unwrap_or(1.0),
            top_k,
            // 1 leaves out nothing
            top_p: top_p.filter(|p| *p != 1.0),
            seed,
            stop,
            n: n.unwrap_or(1),
        };
        let generation = dto.into_generation().map_err(|problem| relocated(problem, limit_field))?;
        Ok(Generation { max_new_tokens: max_tokens.unwrap_or(REST_OF_CONTEXT), ..generation })
    }
}

/// The number of most probable tokens to list beside each token.
///
/// # Errors
/// [`Code::InvalidValue`] above 20.
pub fn top_of(field: &str, top: usize) -> Result<usize, Problem> {
    if top <= MAX_TOP {
        return Ok(top);
    }
    Err(Problem::at(Code::InvalidValue, format!("/{field}"), format!("{field} lies between 0 and {MAX_TOP}")))
}

/// A problem of the engine or of a run's fields, with the pointers of OpenAI's fields.
pub fn relocated(mut problem: Problem, limit_field: &str) -> Problem {
    for error in &mut problem.errors {
        let pointer = std::mem::take(&mut error.pointer);
        error.pointer = match pointer.strip_prefix("/generate") {
            Some("/max_new_tokens") => format!("/{limit_field}"),
            None if ["/capture", "/interventions"].iter().any(|own| is_under(&pointer, own)) => {
                format!("/residuum{pointer}")
            }
            Some(field) => field.to_owned(),
            None => match pointer.strip_prefix("/template_kwargs") {
                Some(rest) => format!("/chat_template_kwargs{rest}"),
                None => pointer,
            },
        };
    }
    problem
}

fn is_under(pointer: &str, field: &str) -> bool {
    pointer.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Options of an answer in parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAiStreamOptions, example = json!({"include_usage": true}))]
pub struct StreamOptions {
    /// Whether the last chunk has the counts of tokens.
    #[serde(default)]
    #[schema(default = false)]
    pub include_usage: bool,
    /// Only false: nothing is added to hide the lengths of chunks.
    #[serde(default)]
    #[schema(default = false)]
    pub include_obfuscation: bool,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// When all of it is there.
    Whole,
    /// In parts.
    Stream { include_usage: bool },
}

impl Delivery {
    /// From the two fields that decide it.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for options without a stream, and for those that nothing acts on.
    pub fn of(stream: bool, options: Option<&StreamOptions>) -> Result<Self, Problem> {
        match (stream, options) {
            (false, None) => Ok(Self::Whole),
            (false, Some(_)) => {
                let detail = "stream_options are for answers with `stream`: set it to true";
                Err(Problem::at(Code::InvalidValue, "/stream_options", detail))
            }
            (true, Some(options)) if options.include_obfuscation => {
                let detail = "this server adds nothing to hide the lengths of chunks; leave include_obfuscation out";
                Err(Problem::at(Code::InvalidValue, "/stream_options/include_obfuscation", detail))
            }
            (true, options) => Ok(Self::Stream { include_usage: options.is_some_and(|o| o.include_usage) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_those_of_the_body() {
        for (engine, body) in [
            ("/generate/max_new_tokens", "/max_tokens"),
            ("/generate/stop/2", "/stop/2"),
            ("/capture/hooks/0", "/residuum/capture/hooks/0"),
            ("/interventions/1", "/residuum/interventions/1"),
            ("/template_kwargs/tools", "/chat_template_kwargs/tools"),
            ("/prompt/3", "/prompt/3"),
            ("/captured", "/captured"),
        ] {
            let problem = relocated(Problem::at(Code::InvalidValue, engine, "x"), "max_tokens");
            assert_eq!(problem.errors[0].pointer, body);
        }
    }
}
