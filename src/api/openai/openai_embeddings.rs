//! `POST /openai/v1/embeddings`: one vector for each input.

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{
    dto::{
        input::{Input, InputSchema},
        run_body::{TruncateSchema, inputs_of},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::OpenAiEmbeddingProblems,
    state::ApiState,
};
use residuum_domain::TenantId;
use residuum_engine::{
    Truncate,
    questions::embeddings::{EmbeddingAnswer, EmbeddingQuestion, Pooling},
};

/// Inputs to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAiEmbeddingRequest, example = json!({"model": "all-MiniLM-L6-v2", "input": ["The cat sat.", "A dog ran."]}))]
pub struct EmbeddingBody {
    /// Name of a served model.
    pub model: String,
    /// A string, strings, token ids, or arrays of token ids; at most 2048 inputs.
    #[schema(value_type = InputSchema)]
    pub input: Input,
    /// How the vectors are written; the official Python client asks for `base64`.
    #[serde(default)]
    #[schema(value_type = Option<EncodingFormat>)]
    pub encoding_format: EncodingFormat,
    /// Must be the length of the model's vectors if given: they are not cut.
    pub dimensions: Option<usize>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    pub user: Option<String>,
    /// How the tokens of an input become one vector; if left out, `mean` for encoders and `last` for decoders. An
    /// extension.
    pub pooling: Option<PoolingName>,
    /// Whether to scale the vectors to length one. An extension.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub normalize: bool,
    /// Beginning-of-sequence token, as in `POST /v1/runs`. An extension.
    pub prepend_bos: Option<bool>,
    /// What to do with inputs longer than the context. An extension.
    #[serde(default)]
    #[schema(value_type = Option<TruncateSchema>)]
    pub truncate: Truncate,
}

fn yes() -> bool {
    true
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Arrays of numbers.
    #[default]
    Float,
    /// Little-endian float32 in base64.
    Base64,
}

/// How the tokens of an input become one vector.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Pooling)]
pub enum PoolingName {
    /// The mean over all tokens.
    Mean,
    /// The last token.
    Last,
}

/// One vector for each input.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiEmbeddings, example = json!({
    "object": "list", "model": "all-MiniLM-L6-v2",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
    "usage": {"prompt_tokens": 6, "total_tokens": 6},
    "residuum": {"pooling": "mean", "hook": "blocks.5.hook_resid_post", "normalized": true}
}))]
pub struct Embeddings {
    /// Always `list`.
    object: &'static str,
    /// In the order of the inputs.
    data: Vec<EmbeddingDto>,
    /// Name of the model.
    model: String,
    /// Counts of tokens.
    usage: EmbeddingUsage,
    /// What the vectors are.
    residuum: EmbeddingOrigin,
}

/// The vector of one input.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiEmbedding)]
struct EmbeddingDto {
    /// Always `embedding`.
    object: &'static str,
    /// The input, from 0.
    index: usize,
    /// The numbers.
    embedding: Numbers,
}

/// The numbers of a vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = OpenAiEmbeddingNumbers)]
enum Numbers {
    /// As numbers.
    Array(Vec<f32>),
    /// As little-endian float32 in base64.
    Base64(String),
}

/// Counts of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiEmbeddingUsage)]
struct EmbeddingUsage {
    /// Tokens of all inputs.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

/// What vectors are made of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiEmbeddingOrigin)]
struct EmbeddingOrigin {
    /// How tokens became one vector.
    pooling: PoolingName,
    /// The hook whose activations they are.
    hook: String,
    /// Whether they are scaled to length one.
    normalized: bool,
}

/// Embed texts as OpenAI does
///
/// One vector for each input: the activations that leave the model (`final_norm`, or the last `hook_resid_post` where a
/// model has no norm at its end), as the mean over all tokens for encoders and at the last token for decoders, scaled to
/// length one. Nothing is stored.
#[utoipa::path(
    post, path = "/openai/v1/embeddings", operation_id = "openaiCreateEmbedding", tag = "openai",
    request_body = EmbeddingBody,
    responses((status = 200, description = "The vectors", body = Embeddings), OpenAiEmbeddingProblems)
)]
pub async fn create_embedding(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<EmbeddingBody>,
) -> ApiResult<Json<Embeddings>> {
    let JsonBody { value: body, memory, .. } = body;
    let (model, normalized, format) = (body.model.clone(), body.normalize, body.encoding_format);
    let answer = state.questions.embeddings(body.question(tenant)).await?;
    drop(memory);
    Ok(Json(Embeddings::of(answer, model, normalized, format)))
}

impl EmbeddingBody {
    fn question(self, tenant: TenantId) -> EmbeddingQuestion {
        let Self { model, input, dimensions, pooling, normalize, prepend_bos, truncate, .. } = self;
        let pooling = pooling.map(|name| match name {
            PoolingName::Mean => Pooling::Mean,
            PoolingName::Last => Pooling::Last,
        });
        let inputs = inputs_of(input, "/input");
        EmbeddingQuestion { tenant, model, inputs, pooling, normalize, dimensions, prepend_bos, truncate }
    }
}

impl Embeddings {
    fn of(answer: EmbeddingAnswer, model: String, normalized: bool, format: EncodingFormat) -> Self {
        let EmbeddingAnswer { vectors, n_tokens, hook, pooling } = answer;
        let written = |vector: Vec<f32>| match format {
            EncodingFormat::Float => Numbers::Array(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Numbers::Base64(STANDARD.encode(bytes))
            }
        };
        let embedding = |(index, vector)| EmbeddingDto { object: "embedding", index, embedding: written(vector) };
        let pooling = match pooling {
            Pooling::Mean => PoolingName::Mean,
            Pooling::Last => PoolingName::Last,
        };
        Self {
            object: "list",
            data: vectors.into_iter().enumerate().map(embedding).collect(),
            model,
            usage: EmbeddingUsage { prompt_tokens: n_tokens, total_tokens: n_tokens },
            residuum: EmbeddingOrigin { pooling, hook: hook.to_string(), normalized },
        }
    }
}
