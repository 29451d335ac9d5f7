"""Models of the API's bodies and answers. Generated from `openapi.yaml` by `scripts/make_models.py`: do not edit.

Fields that a newer server adds are kept as extra attributes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel


class ActiveFeature(BaseModel):
    """
    A feature that is active.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    feature: int
    """
    The feature.
    """
    activation: float
    """
    Its activation.
    """


class AttributionPart(BaseModel):
    """
    A part of a logit.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    The hook whose value it is; for a bias, TransformerLens's name of the weight.
    """
    kind: Literal["embedding", "attention", "head", "attention_bias", "mlp", "bias"]
    """
    Kind of the part.
    """
    layer: int | None = None
    """
    The layer, if it is inside the blocks.
    """
    head: int | None = None
    """
    The head.
    """
    value: float | None = None
    """
    Its contribution to the logit; null if that is not finite.
    """


class Bos(BaseModel):
    """
    Whether there is a beginning-of-sequence token, and why.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    requested: bool | None = None
    """
    `prepend_bos` of the request; null leaves the decision to the tokenizer.
    """
    present: bool
    """
    Whether the tokens begin with the BOS token.
    """
    added: bool
    """
    Whether it was added to the posted input.
    """
    token_id: int | None = None
    """
    The tokenizer's BOS token, if it has one.
    """


class BosDefault(BaseModel):
    """
    The tokenizer's rule for the beginning of a text.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    adds_bos: bool
    """
    Whether text gets a BOS token when `prepend_bos` is null.
    """
    token_id: int | None = None
    """
    The token's id.
    """
    token: str | None = None
    """
    The token.
    """
    transformer_lens_adds_bos: bool | None = None
    """
    Whether TransformerLens adds BOS by default, if that differs: it prepends BOS to every text of a model that has
    one.
    """


class CacheConditions(BaseModel):
    """
    Conditions on caches. A cache must meet all of them.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str | None = None
    """
    Name of the model.
    """
    run: str | None = None
    """
    Made by this run.
    """
    tags: list[str] | None = None
    """
    Has all of these tags.
    """
    label: str | None = None
    """
    Has this label.
    """
    hooks: list[str] | None = None
    """
    Captured all of these hooks (full names).
    """
    created_from: str | None = None
    """
    Stored at or after this time (RFC 3339).
    """
    created_to: str | None = None
    """
    Stored before this time (RFC 3339).
    """
    text: str | None = None
    """
    The text, or what was generated after it, contains all of these words and `"quoted phrases"`.
    """
    metadata: dict[str, Any] | None = None
    """
    Has these keys with these values in its metadata; a dot in a key leads to a field of an object.
    """
    pinned: bool | None = None
    """
    true: is pinned; false: is not.
    """
    expires_from: str | None = None
    """
    Expires at or after this time (RFC 3339).
    """
    expires_to: str | None = None
    """
    Expires before this time (RFC 3339).
    """


class CachePatch(BaseModel):
    """
    Changes to a cache. Fields that are left out are not changed.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    tags: list[str] | None = None
    """
    Replaces all tags.
    """
    metadata: dict[str, Any] | None = None
    """
    Merged into the metadata; null removes a key.
    """
    label: str | None = None
    """
    Replaces the label; null removes it.
    """
    expires_at: AwareDatetime | None = None
    """
    Replaces the time at which it expires, which must be in the future; null: never.
    """
    pinned: bool | None = None
    """
    true protects it from expiry and eviction.
    """


class ComparisonGroup(BaseModel):
    """
    A group of caches.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    Name of the group.
    """
    n_rows: int
    """
    Number of its rows.
    """
    caches: list[str]
    """
    Its caches, in the order of their rows.
    """


class DeletedCachesDto(BaseModel):
    """
    How many caches were deleted.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    deleted: int
    """
    Number of caches that were deleted.
    """
    kept_pinned: int
    """
    Number of caches that meet the conditions and were kept because they are pinned; `pinned=true` deletes them.
    """


class DimensionStatistics(BaseModel):
    """
    A dimension of the vectors.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    dimension: int
    """
    Its index.
    """
    mean: float
    """
    Mean over the vectors.
    """
    std: float
    """
    Standard deviation over the vectors.
    """


class DirectionPatch(BaseModel):
    """
    Changes to a direction. Its vectors, name and provenance cannot be changed.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    metadata: dict[str, Any]
    """
    Merged into the metadata; null removes a key.
    """


class DirectionTarget(BaseModel):
    """
    Which caches are positive: exactly one of `metadata`, `tag` and `label`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    metadata: str | None = None
    """
    A top-level key that the metadata of every cache must have. A cache is positive if its value is true or, with
    `value`, if it is equal to that.
    """
    value: Any | None = None
    """
    The value that makes a cache positive; without it the key must be true or false.
    """
    tag: str | None = None
    """
    Caches with this tag are positive.
    """
    label: str | None = None
    """
    Caches with this label are positive.
    """


class DirectionVector(BaseModel):
    """
    One vector of a direction.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    layer: int | None = None
    """
    Layer; null for a hook outside the blocks.
    """
    component: int
    """
    Which of the layer's vectors.
    """
    metrics: dict[str, Any]
    """
    Numbers that describe the vector, null if undefined. All methods: `norm`. `difference_of_means`: `norm_positive`
    and `norm_negative` of the means; `cohens_d`, `auroc`, `positive_mean` and `negative_mean` of the projections of
    the caches it was made from. `pca`: `explained_variance`, `explained_variance_ratio`, `mean` of the projections.
    `probe`: `intercept`; held-out `accuracy`, `accuracy_std`, `auroc`, `auroc_std` over the folds, with
    `fold_accuracy` and `fold_auroc`; the baselines `shuffled_accuracy` and `shuffled_auroc`; `train_accuracy` and
    `train_auroc` on all caches; `n_steps` of the solver.
    """
    values: list[float] | None = None
    """
    The values, with `include=vectors`.
    """


class DryRunHook(BaseModel):
    """
    Shape of a hook of a dry run.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    Full name.
    """
    shape: list[int]
    """
    Shape.
    """


class FeatureSummary(BaseModel):
    """
    Summary of the reconstruction over positions. Values are null if undefined.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    n: int
    """
    Number of positions.
    """
    n_undefined: int
    """
    Number of positions left out because their values are undefined.
    """
    n_active: float | None = None
    """
    Mean number of active features (L0).
    """
    norm: float | None = None
    """
    Mean length of the vectors to reconstruct.
    """
    mse: float | None = None
    """
    Mean squared error, over positions and dimensions.
    """
    fvu: float | None = None
    """
    Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖² with the mean x̄ of these positions.
    """
    explained_variance: float | None = None
    """
    One minus `fvu`.
    """
    cosine: float | None = None
    """
    Mean cosine.
    """


class FeatureTokensRequest(BaseModel):
    """
    Which features, and which positions to search.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    features: list[int]
    """
    The features, 1 to 64.
    """
    k: int | None = None
    """
    Number of positions for each feature. Default: `10`.
    """
    filter: CacheConditions | None = None
    """
    Search only caches that meet these conditions; if left out, all that the autoencoder can encode.
    """
    context: int | None = None
    """
    Number of tokens of context before and after a hit. Default: `5`.
    """
    skip_first: int | None = None
    """
    Number of positions to leave out at the beginning of each input: BOS and attention sinks are there, and their
    activations are often the largest of all. Default: `0`.
    """
    special: bool | None = None
    """
    Whether to include special tokens; false leaves them out at every position. By default the autoencoder's
    `exclude_special_tokens` decides: if it is true, special tokens are left out; if it is a list, these ids; else
    none. `left_out` in the response says what was left out.
    """
    allow_bos_mismatch: bool | None = None
    """
    true: include caches that begin with a BOS token if the autoencoder was trained without one, or vice versa. By
    default they are left out and counted. Default: `false`.
    """


class FeatureTokensScanned(BaseModel):
    """
    What was scanned.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    caches: int
    """
    Number of caches whose rows were encoded.
    """
    rows: int
    """
    Number of rows that were encoded.
    """
    undefined: int
    """
    Number of rows without features, because they are not finite, or zero and would be divided by their norm.
    """
    bytes: int
    """
    Number of bytes that were read.
    """
    damaged: int
    """
    Number of caches with rows that could not be read, because their blob is missing or too short.
    """
    deleted: int
    """
    Number of caches that were deleted before all of their rows were read.
    """
    without_positions: int
    """
    Number of caches that stored only a mean over positions.
    """
    without_token_ids: int
    """
    Number of caches that were imported without token ids, so that none of their tokens could be left out. 0 if no
    tokens are to be left out.
    """
    bos_mismatch: int
    """
    Number of caches that begin with a BOS token although the autoencoder was trained without one, or vice versa.
    They are left out unless `allow_bos_mismatch` is true.
    """
    other_weights: int
    """
    Number of caches left out because they were made by a model with other weights.
    """


class FieldError(BaseModel):
    """
    One field at fault.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    pointer: str
    """
    JSON pointer into the body, or the name of a query parameter.
    """
    detail: str
    """
    What is wrong with it.
    """


class FollowedToken(BaseModel):
    """
    One of the tokens to follow.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: int
    """
    Its id.
    """
    rank: int
    """
    How many tokens are more probable.
    """
    probability: float
    """
    Its probability.
    """
    log_probability: float
    """
    Its log-probability, in nats.
    """
    logit: float
    """
    Its logit, scaled and capped as the model's own.
    """


class Format(RootModel[Literal["json", "npy", "safetensors", "raw"]]):
    root: Literal["json", "npy", "safetensors", "raw"]
    """
    How a tensor is written.
    """


class Health(BaseModel):
    """
    The server is alive.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    status: str
    """
    `ok`.
    """
    version: str
    """
    Version of the server.
    """


class HitContext(BaseModel):
    """
    A token with those before and after it.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    start: int
    """
    Position of the first of `tokens`.
    """
    tokens: list[str]
    """
    The tokens.
    """
    hit: int
    """
    Index of the hit in `tokens`.
    """


class HookPoint(BaseModel):
    """
    A hook point of a model.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    Full name.
    """
    layer: int | None = None
    """
    The block; null for a hook outside the blocks.
    """
    shape: list[int | None]
    """
    Shape of the tensor of one input at all positions; null for an axis whose length depends on the input.
    """
    axes: list[str]
    """
    Names of the axes.
    """


class ImportOrigin(BaseModel):
    """
    Where an imported cache came from.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    file_hash: str
    """
    blake3 of the file.
    """
    file_bytes: int
    """
    Bytes of the file.
    """
    file_dtypes: list[str]
    """
    Types of its activations, as named in safetensors, each once. Types other than the cache's were converted.
    """
    metadata: dict[str, Any]
    """
    Entries of its `__metadata__` that have no field in the cache. For files of this server: ids of cache and run,
    and the time when the cache was made.
    """


class Include(RootModel[Literal["values", "top_tokens"]]):
    root: Literal["values", "top_tokens"]
    """
    What a response includes besides the run.
    """


class IncludeTopTokens(RootModel[Literal["top_tokens"]]):
    root: Literal["top_tokens"]
    """
    What the description of a run's caches includes.
    """


class IncludeVectors(RootModel[Literal["vectors"]]):
    root: Literal["vectors"]
    """
    What a response includes besides the description of a direction.
    """


class LensValues(RootModel[Literal["log_probs", "logits"]]):
    root: Literal["log_probs", "logits"]
    """
    Values of a binary response.
    """


class LoadModel(BaseModel):
    """
    A model to load.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests: 1 to 100 letters, digits, dots, dashes and underscores, the first not a dot.
    """
    source: str
    """
    The path of a Hugging Face folder or a `.gguf` file in the folder `--models-dir`; or a hub name, `org/name`, if
    the server was started with `--allow-hub`.
    """
    force: bool | None = None
    """
    Load it even if there does not seem to be enough memory. Default: `false`.
    """


class LoadSae(BaseModel):
    """
    An autoencoder to load.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests, as that of a model.
    """
    model: str
    """
    The model that it belongs to, which must be loaded.
    """
    source: str
    """
    The path of a folder with `cfg.json` and `sae_weights.safetensors` in the folder `--models-dir`.
    """
    force: bool | None = None
    """
    Load it even if there does not seem to be enough memory. Default: `false`.
    """


class Message(BaseModel):
    """
    A message of a chat; the model's template may know further fields.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    role: str
    """
    `system`, `user`, `assistant`, …
    """
    content: str
    """
    The text.
    """


class MessageSpan(BaseModel):
    """
    The tokens of a message's content, without white space at its ends and without what the template puts around it.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    role: str | None = None
    """
    `system`, `user`, `assistant`, …
    """
    start: int | None = None
    """
    Position of the first token; null if the rendered chat does not contain the message unchanged.
    """
    end: int | None = None
    """
    Position after the last token.
    """


class NextToken(BaseModel):
    """
    One of the most probable next tokens.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: int
    """
    Its id.
    """
    token: str
    """
    Its text; empty if the model that made the cache is no longer served.
    """
    probability: float
    """
    Its probability: the softmax over the whole vocabulary, computed in float64.
    """
    logit: float
    """
    Its logit, as captured.
    """


class OpenAiAnswerMessage(BaseModel):
    """
    The message of an answer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    role: str
    """
    Always `assistant`.
    """
    content: str
    """
    The text.
    """
    refusal: str | None = None
    """
    Always null.
    """


class OpenAiContentPart(BaseModel):
    """
    A part of a text.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    type: str
    """
    Always `text`.
    """
    text: str
    """
    The text.
    """


class OpenAiDelta(BaseModel):
    """
    What to append to a message.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    role: str | None = None
    """
    `assistant`, in the first chunk of an answer.
    """
    content: str | None = None
    """
    New text.
    """


class OpenAiEmbeddingUsage(BaseModel):
    """
    Counts of tokens.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    prompt_tokens: int
    """
    Tokens of all inputs.
    """
    total_tokens: int
    """
    The same.
    """


class OpenAiErrorBody(BaseModel):
    """
    What was wrong.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    message: str
    """
    What was wrong and what would be right.
    """
    type: str
    """
    `invalid_request_error`, `authentication_error`, `permission_error`, `not_found_error`, `rate_limit_error` or
    `server_error`.
    """
    param: str | None = None
    """
    The field at fault, such as `messages[0].content`.
    """
    code: str
    """
    Stable code for programs.
    """


class OpenAiModel(BaseModel):
    """
    A served model.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests.
    """
    object: str
    """
    Always `model`.
    """
    created: int
    """
    When this server started, in seconds since 1970.
    """
    owned_by: str
    """
    Always `residuum`.
    """


class OpenAiModels(BaseModel):
    """
    The served models.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    object: str
    """
    Always `list`.
    """
    data: list[OpenAiModel]
    """
    The models, by name.
    """


class OpenAiStreamOptions(BaseModel):
    """
    Options of an answer in parts.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    include_usage: bool | None = None
    """
    Whether the last chunk has the counts of tokens. Default: `false`.
    """
    include_obfuscation: bool | None = None
    """
    Only false: nothing is added to hide the lengths of chunks. Default: `false`.
    """


class OpenAiTextLogprobs(BaseModel):
    """
    The tokens of a continuation, with those of the prompt if `echo` is set, and of the end of the text or a stop text if
    there was one.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    tokens: list[str]
    """
    The tokens; `bytes:\\xNN…` if the bytes of one are no whole characters.
    """
    token_logprobs: list[float | None]
    """
    Their log-probabilities, before temperature; null for the first token of a prompt.
    """
    top_logprobs: list[dict[str, float]]
    """
    For each token the most probable ones in its place, and itself; null for the first token of a prompt.
    """
    text_offset: list[int]
    """
    Where each token begins in the text, in code points.
    """


class OpenAiTopToken(BaseModel):
    """
    A token in the place of another.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    token: str
    """
    Its text.
    """
    logprob: float
    """
    Its log-probability.
    """
    bytes: list[int]
    """
    Its bytes.
    """


class OpenAiUsage(BaseModel):
    """
    Counts of tokens.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    prompt_tokens: int
    """
    Tokens of all prompts; each prompt counts once, however many samples it has.
    """
    completion_tokens: int
    """
    Generated tokens of all choices, with those that ended a text.
    """
    total_tokens: int
    """
    The sum of both.
    """


class OutlierDimension(BaseModel):
    """
    A dimension that is an outlier.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    dimension: int
    """
    Its index.
    """
    mean: float
    """
    Mean over the vectors.
    """
    std: float
    """
    Standard deviation over the vectors.
    """
    by_mean: bool
    """
    Whether it is an outlier by its mean.
    """
    by_std: bool
    """
    Whether it is an outlier by its standard deviation.
    """


class Pair(BaseModel):
    """
    One pair.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    a: str
    """
    Left.
    """
    b: str
    """
    Right.
    """
    values: dict[str, list[float | None]]
    """
    For each metric one value per layer; null if undefined (a zero vector, NaN).
    """


class PatchingProgress(BaseModel):
    """
    Progress of a sweep.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    queue_position: int | None = None
    """
    While the sweep waits for its turn, the number of experiments whose turn comes before; null once it runs.
    """
    done: int
    """
    Number of cells that are done.
    """
    total: int
    """
    Number of all cells.
    """


class PositionFeatures(BaseModel):
    """
    The features of one position. Values are null if undefined: the stored row is not finite, or it is zero and would be
    divided by its norm.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    position: int
    """
    The position.
    """
    token: str
    """
    The token at that position.
    """
    special: bool | None = None
    """
    Whether it is a special token, such as BOS; null if the cache has no token ids.
    """
    n_active: int | None = None
    """
    Number of active features (L0).
    """
    top: list[ActiveFeature]
    """
    The most active features, the most active first; among equals the lower feature first.
    """
    chosen: list[float | None]
    """
    Activations of the chosen features.
    """
    norm: float | None = None
    """
    Length of the vector to reconstruct, before any normalisation.
    """
    norm_out: float | None = None
    """
    Length of the reconstruction.
    """
    mse: float | None = None
    """
    Squared error, averaged over the dimensions.
    """
    relative_error: float | None = None
    """
    ‖x − x̂‖² / ‖x‖².
    """
    cosine: float | None = None
    """
    Cosine between the vector and its reconstruction.
    """


class PositionRange(BaseModel):
    """
    A range of positions.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    start: int | None = None
    """
    First position; 0 if left out.
    """
    end: int | None = None
    """
    Position after the last; the length if left out.
    """


class PositionsByKind(BaseModel):
    """
    All special tokens, including BOS, or all other tokens; keeps the position axis.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    special: bool
    """
    true: the special tokens; false: the others.
    """


class Problem(BaseModel):
    """
    An RFC 9457 problem object.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    type: str
    """
    URN of the kind of problem; ends in the code.
    """
    title: str
    """
    Short title, the same for every occurrence.
    """
    status: int
    """
    The HTTP status.
    """
    detail: str
    """
    What was wrong here and what would be right.
    """
    code: Literal[
        "invalid_json",
        "invalid_field",
        "invalid_body",
        "invalid_safetensors",
        "invalid_query",
        "filter_missing",
        "invalid_header",
        "invalid_cursor",
        "api_key_required",
        "api_key_invalid",
        "scope_missing",
        "loading_off",
        "origin_not_allowed",
        "route_not_found",
        "run_not_found",
        "cache_not_found",
        "direction_not_found",
        "sae_not_found",
        "vector_not_in_direction",
        "model_not_found",
        "layer_not_in_cache",
        "hook_not_in_cache",
        "method_not_allowed",
        "not_acceptable",
        "request_timeout",
        "conflict",
        "precondition_failed",
        "body_too_large",
        "too_many_items",
        "too_many_run_tokens",
        "result_too_large",
        "unsupported_media_type",
        "range_not_satisfiable",
        "host_not_allowed",
        "unknown_model",
        "unknown_source",
        "load_failed",
        "unknown_cache",
        "unknown_direction",
        "unknown_sae",
        "bos_mismatch",
        "hook_not_stored",
        "unknown_hook",
        "layer_out_of_range",
        "position_out_of_range",
        "text_not_found",
        "empty_input",
        "token_out_of_vocabulary",
        "too_many_tokens",
        "no_bos_token",
        "no_chat_template",
        "chat_template_failed",
        "cannot_generate",
        "not_readable",
        "invalid_value",
        "idempotency_key_reused",
        "shape_mismatch",
        "client_queue_full",
        "queue_full",
        "headers_too_large",
        "internal_error",
        "blob_damaged",
        "worker_failed",
        "unavailable",
        "not_enough_memory",
        "server_busy",
        "timed_out",
        "store_full",
    ]
    """
    Stable code for programs.
    """
    errors: list[FieldError] | None = None
    """
    The fields at fault, if any.
    """


class ProjectionDirection(BaseModel):
    """
    A direction of the request.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    Its name, or its index in the request.
    """
    norms: list[float]
    """
    Its length at each layer.
    """


class Ready(BaseModel):
    """
    The server accepts and computes runs.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    status: str
    """
    `ok`.
    """
    version: str
    """
    Version of the server.
    """
    n_unknown_blobs: int
    """
    Number of blobs that are not in the index of the store. They are kept in the folder `unknown`.
    """
    notes: list[str]
    """
    What the operator should look at, although the server works.
    """


class SaeDirection(BaseModel):
    """
    A feature of a sparse autoencoder, the same vector at every layer, in the space of the autoencoder's hook. If the
    autoencoder encodes one head, the vector is zero outside that head.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str | None = None
    """
    Its name in the response; by default autoencoder and feature.
    """
    sae: str
    """
    Id of the autoencoder.
    """
    feature: int
    """
    Index of the feature.
    """
    side: Literal["decoder", "encoder"] | None = None
    """
    Which of its vectors.
    """


class SaeSettings(BaseModel):
    """
    Settings with their names and values in `cfg.json`; null if it does not have them.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    k: int | None = None
    """
    For `topk`: maximum number of active features.
    """
    rescale_acts_by_decoder_norm: bool | None = None
    """
    For `topk`: whether activations are multiplied by the lengths of the decoder rows.
    """
    hook_head_index: int | None = None
    """
    The head it was trained on; null for all heads concatenated, or a hook without heads.
    """
    normalize_activations: str
    """
    Normalisation of a row before encoding, undone in the reconstruction.
    """
    scaling_factor: float | None = None
    """
    The factor of `expected_average_only_in`, if it is not folded into the weights.
    """
    apply_b_dec_to_input: bool
    """
    Whether the decoder's bias is subtracted from the input.
    """
    finetuning_scaling_factor: bool
    """
    Whether each activation has its own factor in the decoder.
    """
    prepend_bos: bool | None = None
    """
    Whether texts began with a BOS token in training.
    """
    fold_ln: bool | None = None
    """
    Whether the parameters of norms were folded into the weights after them.
    """
    center_writing_weights: bool | None = None
    """
    Whether weights that write to the residual stream were centred, so that what they write has mean zero.
    """
    fold_value_biases: bool | None = None
    """
    Whether the biases of values were folded into the output bias of attention.
    """
    model_name: str | None = None
    """
    The model it was trained on.
    """
    context_size: int | None = None
    """
    Number of tokens of a text in training.
    """
    seqpos_slice: list[int] | None = None
    """
    Positions of a text used in training, as start, stop and step of a Python slice; null for all.
    """
    exclude_special_tokens: bool | list[int] | None = None
    """
    Tokens it was not trained on: true for special tokens, or a list of ids; null if it was trained on all. By
    default requests leave these tokens out.
    """
    dtype: str | None = None
    """
    Type of its weights in training; the server computes in float32.
    """
    sae_lens_version: str | None = None
    """
    Version of SAELens that wrote the file; before version 6 only some files have it.
    """
    sae_lens_training_version: str | None = None
    """
    Version of SAELens that trained it.
    """


class Scanned(BaseModel):
    """
    What was scanned.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    caches: int
    """
    Number of caches that matched the filter and whose rows were compared.
    """
    rows: int
    """
    Number of rows that were read.
    """
    bytes: int
    """
    Bytes of these rows.
    """
    skipped: int
    """
    Number of caches that captured the hook, but not at the position to compare.
    """
    damaged: int
    """
    Number of caches with rows that could not be read, because their blob is missing or too short. Their other rows
    were compared.
    """
    deleted: int
    """
    Number of caches that were deleted before all of their rows were read.
    """


class SearchHit(BaseModel):
    """
    A cache or a position that was found.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    run: str
    """
    The run that made it.
    """
    model: str
    """
    Its model.
    """
    score: float
    """
    The metric's value, in float32.
    """
    position: int | None = None
    """
    Position of the row in the input; null for a mean.
    """
    token: str | None = None
    """
    The token at that position.
    """
    special: bool | None = None
    """
    Whether it is a special token, such as BOS. Null for a mean, if its id is not known, or if the server does not
    have the model that made the cache.
    """
    context: HitContext | None = None
    """
    The token with its context.
    """
    label: str | None = None
    """
    Label of the cache.
    """
    tags: list[str]
    """
    Tags of the cache.
    """
    metadata: dict[str, Any]
    """
    Metadata of the cache.
    """


class SearchResult(BaseModel):
    """
    The result of one query.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hits: list[SearchHit]
    """
    Best first.
    """


class ServerIndex(BaseModel):
    """
    What this server is, and where to go on.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    Always `residuum`.
    """
    version: str
    """
    Version of the server.
    """
    ui: str | None = None
    """
    Path of the dashboard; left out if the server was built without it.
    """
    docs: str
    """
    Path of the reference page.
    """
    openapi: str
    """
    Path of the specification.
    """
    models: str
    """
    Path of the list of models.
    """
    health: str
    """
    Path that answers while the process is alive.
    """
    readiness: str
    """
    Path that answers 200 once the server is ready.
    """


class SpreadOfNumbers(BaseModel):
    """
    Mean, standard deviation and extremes.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    mean: float
    """
    Mean.
    """
    std: float
    """
    Standard deviation.
    """
    min: float
    """
    Smallest.
    """
    max: float
    """
    Largest.
    """


class StoredDirection(BaseModel):
    """
    A stored direction: at each layer the vector of that layer, or at all layers the vector of one.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str | None = None
    """
    Its name in the response; by default its stored name.
    """
    direction: str
    """
    Its id or name.
    """
    layer: int | None = None
    """
    The layer whose vector to use at all layers; by default each layer uses its own.
    """
    component: int | None = None
    """
    Which component, if the direction has several; the first if left out.
    """


class TokenEvent(BaseModel):
    """
    A generated token: the data of an event named `token`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    item: int
    """
    The item of the run: `index × n + sample`.
    """
    index: int
    """
    The input, counted from 0. Where a list of strengths makes several of an input, each of these counts.
    """
    sample: int
    """
    Which of the input's `n` samples, counted from 0.
    """
    position: int
    """
    Position of the token in the text.
    """
    token_id: int
    """
    The token.
    """
    token: str
    """
    Its text by itself; bytes that are not UTF-8 are U+FFFD.
    """
    text: str
    """
    Text that is certain now: empty while a character is incomplete or a stop text may have begun. The texts of all
    events of an item are the text of its completion.
    """
    logprob: float | None = None
    """
    The natural logarithm of the token's probability, before temperature; null if it is not a number.
    """


class TokenWithId(BaseModel):
    """
    A token of the vocabulary.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: int
    """
    Its id.
    """
    token: str
    """
    Its text.
    """


class Tokenization(BaseModel):
    """
    Tokens as a run of the same input would have them.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    The model.
    """
    token_ids: list[int]
    """
    Token ids.
    """
    tokens: list[str]
    """
    The text of each token.
    """
    special: list[bool]
    """
    Which tokens are special.
    """
    offsets: list[list[int] | None] | None = None
    """
    Range of characters (Unicode scalar values) of the text or rendered chat that each token covers, `[start, end)`.
    If several tokens share a character, each of them covers all of it; whether a token includes the space before
    its word depends on the tokenizer. Null for a token that was added, such as BOS; null for posted ids.
    """
    n_tokens: int
    """
    Number of tokens.
    """
    bos: Bos
    """
    Whether there is a beginning-of-sequence token, and why.
    """
    rendered: str | None = None
    """
    The chat as the template rendered it.
    """
    messages: list[MessageSpan] | None = None
    """
    The tokens of each message of the chat; null for other inputs.
    """


class Tokenize(BaseModel):
    """
    Something to tokenise: exactly one of `input`, `text`, `token_ids` and `messages`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    input: str | list[str] | list[int] | list[list[int]] | None = None
    """
    A string, strings, token ids, or arrays of token ids, as a run takes them. For an array of strings, or of arrays,
    the answer has `items`.
    """
    text: str | None = None
    """
    Text.
    """
    token_ids: list[int] | None = None
    """
    Token ids, to see their tokens.
    """
    messages: list[Message] | None = None
    """
    A chat.
    """
    add_generation_prompt: bool | None = None
    """
    Whether to add the tokens that start the assistant's turn; by default true unless the last message is the
    assistant's.
    """
    continue_final_message: bool | None = None
    """
    Whether to leave the last message open, so that the model continues it: what the template puts after it is left
    out. Default: `false`.
    """
    template_kwargs: dict[str, Any] | None = None
    """
    Further variables for the chat template.
    """
    chat_template: str | None = None
    """
    A chat template to use instead of the model's own, as Jinja source. If the model has several templates: also the
    name of one of them; by default `tool_use` if `template_kwargs` has `tools`.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token (`[CLS]` for BERT): null leaves the decision to the tokenizer, true makes sure the
    input begins with one, false leaves out all special tokens that the tokenizer would add to text.
    """


class TokensOfInputs(BaseModel):
    """
    The tokens of several inputs.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    The model.
    """
    items: list[Tokenization]
    """
    The tokens of each input, in order: what the request would answer for this input alone.
    """


class TopToken(BaseModel):
    """
    One of the most probable tokens.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: int
    """
    Its id.
    """
    token: str
    """
    Its text.
    """
    probability: float
    """
    Its probability.
    """
    logit: float
    """
    Its logit, scaled and capped as the model's own.
    """


class UploadSae(BaseModel):
    """
    An autoencoder to upload and load.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests, as that of a model.
    """
    model: str
    """
    The model that it belongs to, which must be loaded.
    """
    cfg: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/json"})]
    """
    `cfg.json`.
    """
    weights: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/octet-stream"})]
    """
    `sae_weights.safetensors`. It is streamed to the data folder, and may have as many bytes as an import.
    """
    force: bool | None = None
    """
    Load it even if there does not seem to be enough memory. Default: `false`.
    """


class UploadedVector(BaseModel):
    """
    One posted vector.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    layer: int | None = None
    """
    Its layer, if the hook is a short name inside the blocks.
    """
    component: int | None = None
    """
    Index among the vectors of the layer, from 0. Default: `0`.
    """
    values: list[float]
    """
    Finite values, of a row of the hook with its axes flattened.
    """


class VectorDirection(BaseModel):
    """
    The same vector at every layer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str | None = None
    """
    Its name in the response.
    """
    vector: list[float]
    """
    The values.
    """


class Warning(BaseModel):
    """
    Something unusual that did not stop the request.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    code: str
    """
    What is unusual, for programs; codes never change.
    """
    detail: str
    """
    What is unusual, for people.
    """


class Attribution(BaseModel):
    """
    A logit as the sum of contributions to the residual stream.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    model: str
    """
    Name of its model on this server.
    """
    position: int
    """
    The position.
    """
    token: TokenWithId
    """
    The token.
    """
    against: TokenWithId | None = None
    """
    The token whose logit is subtracted.
    """
    components: Literal["sublayers", "heads"]
    """
    Which parts are distinguished.
    """
    scale: float | None = None
    """
    The denominator of the final norm at this position, treated as a constant; 1 if the model has no final norm.
    """
    parts: list[AttributionPart]
    """
    The contribution of each part to the logit, in the order of the forward pass.
    """
    sum: float | None = None
    """
    The sum of the parts.
    """
    logit: float | None = None
    """
    The logit that the model's head computes from the stored output of the last block: after the model's scale of
    logits, before any softcap. With `against` the difference of two logits.
    """
    error: float | None = None
    """
    `sum − logit`: the error from rounding of the stored activations. If interventions changed the residual stream
    itself, their contribution is included, since it belongs to no part.
    """
    softcap: float | None = None
    """
    The softcap of the model's logits. It is not linear, so it cannot be a part.
    """
    logit_after_softcap: float | None = None
    """
    The logit (or the difference of two) after the softcap, if the model has one.
    """


class CacheHook(BaseModel):
    """
    One captured hook of a cache.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    Full name.
    """
    shape: list[int]
    """
    Shape of its tensor.
    """
    axes: list[str]
    """
    Names of the axes.
    """
    dtype: Literal["float32", "float16", "bfloat16"]
    """
    Stored type.
    """
    hf_hidden_states_index: int | None = None
    """
    For `hook_resid_post`: the index in transformers' `hidden_states` that equals it. Null for the last block: in
    models with a final norm, the last entry of `hidden_states` is computed after that norm.
    """


class Completion(BaseModel):
    """
    What was generated after an input.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    text: str
    """
    The generated text, without special tokens and without the text that stopped it.
    """
    token_ids: list[int]
    """
    Ids of the generated tokens.
    """
    first_position: int
    """
    Position of the first generated token.
    """
    finish_reason: Literal["length", "end_of_sequence", "stop", "cancelled"]
    """
    Why generation ended: `length`, `end_of_sequence` (then the last token is that token), `stop` or `cancelled`.
    """
    logprobs: list[float] | None = None
    """
    Log-probability of each generated token: the natural logarithm of its softmax, before temperature. Null in caches
    of older versions.
    """
    sample: int
    """
    Which of the `n` samples of its input this is, from 0.
    """
    n: int
    """
    As requested.
    """
    max_new_tokens: int
    """
    As requested.
    """
    temperature: float
    """
    As requested.
    """
    top_k: int | None = None
    """
    As requested.
    """
    top_p: float | None = None
    """
    As requested.
    """
    seed: int
    """
    The seed that was used.
    """
    stop: list[str]
    """
    As requested.
    """


class CompletionEvent(BaseModel):
    """
    The end of one continuation: the data of an event named `completion`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    item: int
    """
    The item of the run: `index × n + sample`.
    """
    index: int
    """
    The input, counted from 0. Where a list of strengths makes several of an input, each of these counts.
    """
    sample: int
    """
    Which of the input's `n` samples, counted from 0.
    """
    finish_reason: Literal["length", "end_of_sequence", "stop", "cancelled"] | None = None
    """
    Why it ended; null if it failed.
    """
    text: str
    """
    Text that was held back until now; empty unless the run was cancelled.
    """
    error: Problem | None = None
    """
    Why it failed.
    """


class Direction(BaseModel):
    """
    A direction: one vector in the space of a hook, or one for each layer and component.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    Id.
    """
    name: str
    """
    Name, unique.
    """
    method: Literal["upload", "difference_of_means", "pca", "probe"]
    """
    `upload`, `difference_of_means`, `pca` or `probe`.
    """
    model: str | None = None
    """
    The model to whose activations it belongs; null if an upload does not name one.
    """
    hook: str
    """
    The hook, without its layer.
    """
    layers: list[int]
    """
    Layers for which it has vectors, ascending; empty for a hook outside the blocks.
    """
    n_components: int
    """
    Number of vectors for each layer.
    """
    width: int
    """
    Dimensions of each vector: a row of the hook, flattened.
    """
    metadata: dict[str, Any]
    """
    Metadata.
    """
    provenance: dict[str, Any]
    """
    How it was made: version of the server, fingerprint of the model, position, parameters, how the caches were
    selected, their number, and the blake3 of their ids (16 bytes each, in order).
    """
    created_at: AwareDatetime
    """
    When it was made.
    """
    vectors: list[DirectionVector] | None = None
    """
    Its vectors by layer and component; left out in listings.
    """


class DirectionUpload(BaseModel):
    """
    Posted values.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata.
    """
    model: str | None = None
    """
    The model to whose activations it belongs. This is not checked.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    vectors: list[UploadedVector]
    """
    Its vectors, all of one width; every layer must have the same components.
    """
    method: Literal["upload"]
    """
    How the direction is made; decides the form of the body.
    """


class FeatureOfTokens(BaseModel):
    """
    One feature.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    feature: int
    """
    The feature.
    """
    n_active: int
    """
    Number of positions at which it is active.
    """
    density: float | None = None
    """
    Fraction of all scanned positions at which it is active; null if none were scanned.
    """
    mean: float | None = None
    """
    Mean activation over the positions at which it is active; null if there are none.
    """
    hits: list[SearchHit]
    """
    The positions at which it is most active, the most active first; `score` is the activation. Only positions at
    which it is active.
    """


class FeatureSummaries(BaseModel):
    """
    Summaries of the reconstruction over positions.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    all: FeatureSummary
    """
    All positions.
    """
    ordinary: FeatureSummary
    """
    Positions whose token is not special.
    """


class Generate(BaseModel):
    """
    How to continue an input. What is captured covers the whole text, with the numbers of one forward pass over it.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    max_new_tokens: int
    """
    Maximum number of tokens to add.
    """
    temperature: float | None = None
    """
    0, the default, always takes the most probable token. Default: `0.0`.
    """
    top_k: int | None = None
    """
    Samples from this many of the most probable tokens.
    """
    top_p: Annotated[float | None, Field(gt=0.0)] = None
    """
    Samples from the smallest set of most probable tokens whose probabilities add up to at least this.
    """
    seed: int | None = None
    """
    Seed of sampling, to repeat it. If left out, the server chooses one and reports it.
    """
    stop: str | list[str] | None = None
    """
    One text or several; the continuation ends when one of them appears.
    """
    n: int | None = None
    """
    How often each input is continued, each time with other random numbers. Item `input × n + sample` of the run is
    sample `sample` of the input; both count from 0. Default: `1`.
    """


class LayerStatistics(BaseModel):
    """
    Statistics of the vectors of one hook. Variances and standard deviations divide by n. Null if there is no finite
    vector.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    layer: int | None = None
    """
    The layer; null for a hook outside the blocks.
    """
    n: int
    """
    Number of vectors: positions of caches.
    """
    n_non_finite: int
    """
    Number of vectors left out because they contain NaN or infinity.
    """
    width: int
    """
    Dimensions of a vector.
    """
    norm: SpreadOfNumbers | None = None
    """
    Lengths (L2 norms) of the vectors.
    """
    mean_norm: float | None = None
    """
    Length of the mean vector.
    """
    variance: SpreadOfNumbers | None = None
    """
    Variances of the dimensions; their sum is `total_variance`.
    """
    total_variance: float | None = None
    """
    Sum of the variances of all dimensions: the mean squared distance from the mean vector.
    """
    zeros: float | None = None
    """
    Fraction of values that are exactly 0.
    """
    top_mean: list[DimensionStatistics]
    """
    Dimensions with the largest |mean|, the largest first.
    """
    top_variance: list[DimensionStatistics]
    """
    Dimensions with the largest variance, the largest first.
    """
    outliers: list[OutlierDimension]
    """
    Dimensions whose mean is more than `sigma` standard deviations from the average of the means of all dimensions, or whose
    standard deviation is that far from the average standard deviation; in ascending order, at most 1000.
    """


class LeftOut(BaseModel):
    """
    Positions left out because of their tokens.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    tokens: Literal["none", "special", "listed"]
    """
    `none`; `special`: tokens that the model's tokenizer marks as special; `listed`: the ids in the autoencoder's
    `exclude_special_tokens`.
    """
    n_ids: int | None = None
    """
    For `listed`: number of ids.
    """
    said_by: Literal["request", "autoencoder", "default"]
    """
    What decided this.
    """
    rows: int
    """
    Number of stored positions left out because of this.
    """


class LensDistribution(BaseModel):
    """
    One distribution over the next token. Null and empty if a logit is not finite.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    entropy: float | None = None
    """
    Entropy, in nats.
    """
    kl: float | None = None
    """
    KL divergence of the model's final distribution from this one, `KL(final ‖ this)`, in nats.
    """
    top: list[TopToken]
    """
    The most probable tokens, the most probable first; among equals the lower id first.
    """
    tokens: list[FollowedToken]
    """
    The tokens to follow.
    """


class LoadProgress(BaseModel):
    """
    How far a load has come.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    stage: Literal["queued", "downloading", "reading", "weights", "placing", "ready"]
    """
    `queued` (another load runs), `downloading`, `reading` (files are hashed), `weights`, `placing` (on devices) or
    `ready`.
    """
    bytes_done: int
    """
    Bytes of this stage that are done.
    """
    bytes_total: int
    """
    Bytes of this stage; 0 if they are not known.
    """


class ModelDetails(BaseModel):
    """
    Properties of a loaded model.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    architecture: str
    """
    `model_type` of the checkpoint.
    """
    fingerprint: str
    """
    blake3 of weights, config and tokenizer.
    """
    n_layers: int
    """
    Number of blocks.
    """
    d_model: int
    """
    Width of the residual stream.
    """
    n_heads: int
    """
    Number of query heads.
    """
    n_kv_heads: int
    """
    Number of key/value heads.
    """
    d_head: int
    """
    Width of a head.
    """
    d_mlp: int
    """
    Hidden width of an MLP.
    """
    d_vocab: int
    """
    Size of the vocabulary.
    """
    n_ctx: int
    """
    Longest input in tokens.
    """
    n_experts: int
    """
    Number of routed experts of a mixture-of-experts block; 0 if every MLP is dense.
    """
    top_k: int
    """
    Number of experts that compute each token; 0 if every MLP is dense.
    """
    bidirectional: bool
    """
    Whether each token also attends to later tokens, as in encoders; `positions` then default to the mean.
    """
    n_params: int
    """
    Number of parameters.
    """
    weights_dtype: str
    """
    Type of the checkpoint's weights.
    """
    compute_dtype: str
    """
    Type in which the forward pass computes.
    """
    device: str
    """
    Where it runs: `cpu`, `cuda:0`, or several devices, `cuda:0,cuda:1`, which compute different batches. The
    provenance of a cache names the one that computed it.
    """
    bos: BosDefault
    """
    What the tokenizer does at the beginning of a text.
    """
    has_chat_template: bool
    """
    Whether `messages` can be posted.
    """
    warnings: list[Warning]
    """
    What is unusual about the checkpoint, although it could be loaded.
    """
    hooks: list[HookPoint] | None = None
    """
    Every hook point, in execution order.
    """


class NextTokens(BaseModel):
    """
    The most probable next tokens after the last captured position of a cache.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    position: int | None = None
    """
    The last captured position: the tokens are those that would follow it. Null if `logits` were not captured at
    single positions.
    """
    missing: Literal["logits_not_captured", "mean_of_positions", "not_finite"] | None = None
    """
    Why there are no tokens; null if there are.
    """
    tokens: list[NextToken]
    """
    The tokens, the most probable first; of equally probable ones the lower id first.
    """


class OpenAiChatToken(BaseModel):
    """
    A generated token.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    token: str
    """
    Its text; `bytes:\\xNN…` if its bytes are no whole characters.
    """
    logprob: float
    """
    Its log-probability, before temperature.
    """
    bytes: list[int]
    """
    Its bytes.
    """
    top_logprobs: list[OpenAiTopToken]
    """
    The most probable tokens in its place, most probable first.
    """


class OpenAiCompletionChoice(BaseModel):
    """
    One continuation.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    index: int
    """
    Its index.
    """
    text: str
    """
    Its text, after the prompt if `echo` is set.
    """
    logprobs: OpenAiTextLogprobs | None = None
    """
    Log-probabilities, if asked for.
    """
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
    """
    Why it ended: `stop`, `length` or `cancelled`; null before its last chunk.
    """


class OpenAiEmbedding(BaseModel):
    """
    The vector of one input.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    object: str
    """
    Always `embedding`.
    """
    index: int
    """
    The input, from 0.
    """
    embedding: list[float] | str
    """
    The numbers.
    """


class OpenAiEmbeddingOrigin(BaseModel):
    """
    What vectors are made of.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    pooling: Literal["mean", "last"]
    """
    How tokens became one vector.
    """
    hook: str
    """
    The hook whose activations they are.
    """
    normalized: bool
    """
    Whether they are scaled to length one.
    """


class OpenAiEmbeddingRequest(BaseModel):
    """
    Inputs to embed.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    input: str | list[str] | list[int] | list[list[int]]
    """
    A string, strings, token ids, or arrays of token ids; at most 2048 inputs.
    """
    encoding_format: Literal["float", "base64"] | None = None
    """
    How the vectors are written; the official Python client asks for `base64`.
    """
    dimensions: int | None = None
    """
    Must be the length of the model's vectors if given: they are not cut.
    """
    user: str | None = None
    """
    Accepted and not used.
    """
    pooling: Literal["mean", "last"] | None = None
    """
    How the tokens of an input become one vector; if left out, `mean` for encoders and `last` for decoders. An
    extension.
    """
    normalize: bool | None = None
    """
    Whether to scale the vectors to length one. An extension. Default: `true`.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token, as in `POST /v1/runs`. An extension.
    """
    truncate: Literal["error", "left", "right"] | None = None
    """
    What to do with inputs longer than the context. An extension.
    """


class OpenAiEmbeddings(BaseModel):
    """
    One vector for each input.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    object: str
    """
    Always `list`.
    """
    data: list[OpenAiEmbedding]
    """
    In the order of the inputs.
    """
    model: str
    """
    Name of the model.
    """
    usage: OpenAiEmbeddingUsage
    """
    Counts of tokens.
    """
    residuum: OpenAiEmbeddingOrigin
    """
    What the vectors are.
    """


class OpenAiError(BaseModel):
    """
    An error as OpenAI's API writes it.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    error: OpenAiErrorBody


class OpenAiMessage(BaseModel):
    """
    A message of a chat; the model's template may know further fields.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    role: str
    """
    `system`, `developer`, `user`, `assistant`, `tool`, …
    """
    content: str | list[OpenAiContentPart] | None = None
    """
    The text; may be null in a message that calls tools.
    """


class OpenAiRecorded(BaseModel):
    """
    Where a generation is stored.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    run: str
    """
    Id of the run.
    """
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    """
    Its status.
    """
    caches: list[str | None]
    """
    The cache of each choice, by its index; null for a choice without one.
    """
    error: str | None = None
    """
    Why an activation could not be captured, if so.
    """


class DirectionPage(BaseModel):
    """
    A page of a listing.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    items: list[Direction]
    """
    The items of this page.
    """
    next_cursor: str | None = None
    """
    Pass it as `cursor` to get the next page; null on the last page.
    """
    total: int | None = None
    """
    With `count`: the number of items on all pages, or a lower bound of it.
    """
    total_is_exact: bool | None = None
    """
    With `count`: whether `total` is exact. Counting stops at 5,000, or earlier if it would take long.
    """


class Patching(BaseModel):
    """
    The effect of each change.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of the model.
    """
    op: Literal["patch", "zero", "mean_ablate", "knockout"]
    """
    What each cell does.
    """
    hook: str
    """
    The hook, without its layer.
    """
    metric: Literal["logit_diff", "logit", "probability", "log_probability"]
    """
    The metric.
    """
    direction: Literal["denoise", "noise"] | None = None
    """
    Which run was patched; null for the other operations, which change the clean run.
    """
    answer: TokenWithId
    """
    The measured token.
    """
    against: TokenWithId | None = None
    """
    The token whose logit is subtracted.
    """
    position: int
    """
    Position of the logits.
    """
    clean_tokens: list[str]
    """
    Tokens of the clean input.
    """
    corrupt_tokens: list[str] | None = None
    """
    Tokens of the corrupt input, if there is one.
    """
    axes: list[str]
    """
    Axes of `values`: `layer`, then those of `pos`, `q_pos`, `k_pos` and `head` that are swept.
    """
    layers: list[int]
    """
    Layers, in the order of the axis.
    """
    positions: list[int] | None = None
    """
    Positions, if they are an axis.
    """
    to: list[int] | None = None
    """
    Queries of a knockout (`q_pos`), if they are an axis.
    """
    from_: Annotated[list[int] | None, Field(alias="from")] = None
    """
    Keys of a knockout (`k_pos`), if they are an axis.
    """
    heads: list[int] | None = None
    """
    Heads, if they are an axis.
    """
    clean: float | None = None
    """
    The metric of the clean run: the baseline of an ablation.
    """
    corrupt: float | None = None
    """
    The metric of the corrupt run, if there is one.
    """
    values: list[Any]
    """
    The metric of each changed run, nested as `axes`.
    """
    effect: list[Any]
    """
    The same values, less the metric of the run that is changed: `corrupt` if clean values are put into the corrupt
    run, else `clean`. 0 if the change had no effect.
    """
    normalized: list[Any] | None = None
    """
    Of a patch, `effect` as a fraction of the difference of the two runs: 0 if the patch had no effect, 1 if the metric
    reached that of the other run. Null if the two runs have the same metric, and for the other operations.
    """
    n_cells: int
    """
    Number of changed runs.
    """


class PatchingEvent1(BaseModel):
    """
    Cells are done, or the place in the queue has changed.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: PatchingProgress
    """
    Cells are done, or the place in the queue has changed.
    """
    event: Literal["progress"]


class PatchingEvent2(BaseModel):
    """
    The last event: the answer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: Patching
    """
    The last event: the answer.
    """
    event: Literal["result"]


class PatchingEvent3(BaseModel):
    """
    The last event: why there is no answer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: Problem
    """
    The last event: why there is no answer.
    """
    event: Literal["problem"]


class PatchingEvent(RootModel[PatchingEvent1 | PatchingEvent2 | PatchingEvent3]):
    root: PatchingEvent1 | PatchingEvent2 | PatchingEvent3
    """
    An event of a sweep.
    """


class PositionsByMessage(BaseModel):
    """
    The tokens that overlap the content of a message of a chat, without what the template puts around it. If the run
    generates, the reply is the last message of the chat, without the special tokens that end it.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    message: int
    """
    Index of the message; negative numbers count from the last. With `generate`, -1 is the reply; with
    `continue_final_message` as well, -1 is the last message together with its continuation.
    """
    which: Literal["first", "last", "all"] | None = None
    """
    Which of its tokens.
    """


class PositionsByText(BaseModel):
    """
    The tokens that overlap an occurrence of a text. It is searched for in the posted text, in the rendered chat, or in
    the joined texts of posted token ids.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    text: str
    """
    The text to find; it must match exactly.
    """
    occurrence: int | None = None
    """
    Which occurrence, from 0; negative numbers count from the last. Occurrences do not overlap. Default: `0`.
    """
    which: Literal["first", "last", "all"] | None = None
    """
    Which of its tokens.
    """


class Provenance(BaseModel):
    """
    What computed the numbers of a cache. Fields that an import does not give are null.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model_fingerprint: str | None = None
    """
    blake3 of weights, config and tokenizer.
    """
    architecture: str | None = None
    """
    `model_type` of the checkpoint.
    """
    weights_dtype: str | None = None
    """
    Type of the checkpoint's weights.
    """
    compute_dtype: str | None = None
    """
    Type in which the forward pass computed.
    """
    device: str | None = None
    """
    Device of the forward pass.
    """
    residuum_version: str | None = None
    """
    Version of the server.
    """
    numerics_version: int | None = None
    """
    Rises whenever the same forward pass may give other numbers.
    """
    interventions: list[dict[str, Any]]
    """
    Changes made during the forward pass, in order, with full hook names and numeric positions.
    """
    warnings: list[Warning]
    """
    What is unusual about the cache: truncated tokens, values that are not finite, an import without a fingerprint.
    """


class RunCompletion(Completion):
    """
    What was generated after one input.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """


class RunEvent2(BaseModel):
    """
    A token was chosen.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: TokenEvent
    """
    A token was chosen.
    """
    event: Literal["token"]


class RunEvent3(BaseModel):
    """
    A continuation has ended.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: CompletionEvent
    """
    A continuation has ended.
    """
    event: Literal["completion"]


class SaeDetails(BaseModel):
    """
    What the `cfg.json` of an autoencoder says.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    architecture: Literal["standard", "jumprelu", "topk", "gated"]
    """
    `standard`, `jumprelu`, `topk` or `gated`.
    """
    hook: str
    """
    The hook whose rows it encodes.
    """
    layer: int | None = None
    """
    Layer of the hook.
    """
    d_in: int
    """
    Width of its input.
    """
    d_sae: int
    """
    Number of features.
    """
    settings: SaeSettings
    """
    Settings in its `cfg.json`.
    """


class SearchAnswer(BaseModel):
    """
    The results of a search.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    The hook, by its full name.
    """
    metric: Literal["cosine", "dot", "euclidean"]
    """
    As requested.
    """
    over: Literal["caches", "positions"]
    """
    As requested.
    """
    k: int
    """
    As requested.
    """
    results: list[SearchResult]
    """
    One result for each query, in order.
    """
    scanned: Scanned
    """
    What was scanned.
    """


class Serving(BaseModel):
    """
    How a model or autoencoder is served.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    source: str | None = None
    """
    Where a request loaded it from; null for one of the server's flags, and for an upload.
    """
    at_run_time: bool
    """
    Whether a request loaded it, now or before a restart; false for one of the server's flags.
    """
    memory_bytes: int | None = None
    """
    Estimated bytes of memory that it takes; null if they are not known.
    """
    progress: LoadProgress | None = None
    """
    How far its load has come; null unless it is being loaded.
    """
    error: Problem | None = None
    """
    Why it could not be loaded; null unless it failed.
    """


class Statistics(BaseModel):
    """
    Statistics of stored activations, layer by layer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    The hook, without its layer.
    """
    n_caches: int
    """
    How many caches were read.
    """
    layers: list[LayerStatistics]
    """
    One entry for each hook, in order.
    """


class Tensor(BaseModel):
    """
    A tensor as JSON.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    Full hook name; the name without the layer for a stack of layers.
    """
    layer: int | None = None
    """
    The layer, for a single hook inside the blocks.
    """
    layers: list[int] | None = None
    """
    The layers that are stacked along the first axis.
    """
    caches: list[str] | None = None
    """
    The caches that are stacked or concatenated along the first axis, in the order of the inputs.
    """
    offsets: list[int] | None = None
    """
    If rows are concatenated because their numbers differ: index of the first row of each cache, and at the end the
    total.
    """
    shape: list[int]
    """
    Sizes of the axes.
    """
    dtype: Literal["float32", "float16", "bfloat16"]
    """
    Element type: `float32`, `float16` or `bfloat16`.
    """
    axes: list[str]
    """
    Names of the axes.
    """
    encoding: Literal["nested", "base64"] | None = None
    """
    `base64` if `values` is a base64 string.
    """
    values: str | list[Any]
    """
    Nested arrays like numpy's `tolist`, with null for NaN and infinities; or base64 of the little-endian elements.
    """
    n_nan: int
    """
    Number of values that are NaN.
    """
    n_inf: int
    """
    Number of values that are infinite.
    """


class Tokenized(RootModel[Tokenization | TokensOfInputs]):
    root: Tokenization | TokensOfInputs
    """
    The tokens of one input or, if several were posted as `input`, of each.
    """


class UnreadyModel(Serving):
    """
    A model that is being loaded or unloaded, or could not be loaded.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests.
    """
    status: Literal["failed", "loading", "unloading"]
    """
    `loading`, `unloading` (accepted work ends first) or `failed`.
    """


class UnreadySae(Serving):
    """
    A sparse autoencoder that is being loaded or unloaded, or could not be loaded.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name that clients use.
    """
    model: str
    """
    The model that it belongs to.
    """
    status: Literal["failed", "loading", "unloading"]
    """
    `loading`, `unloading` or `failed`.
    """
    warnings: list[Warning]
    """
    What is unusual, as far as its files were read.
    """


class CacheValues(BaseModel):
    """
    The tensors of one cache.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    tensors: list[Tensor]
    """
    Every hook it captured.
    """


class FeatureActivations(BaseModel):
    """
    The features that are active at each position, and how well they reconstruct the stored rows.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    sae: str
    """
    The autoencoder.
    """
    model: str
    """
    Name of its model on this server.
    """
    hook: str
    """
    The hook that was encoded.
    """
    d_sae: int
    """
    Number of features of the autoencoder.
    """
    features: list[int]
    """
    The chosen features, in the order of `chosen`.
    """
    positions: list[PositionFeatures]
    """
    The positions, in the order of the request.
    """
    summary: FeatureSummaries
    """
    Summary over the positions.
    """
    left_out: LeftOut
    """
    Stored positions left out because of their tokens.
    """
    warnings: list[Warning]
    """
    Why the features may not mean what they should.
    """


class FeatureTokens(BaseModel):
    """
    The tokens at which features are most active.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    sae: str
    """
    The autoencoder.
    """
    model: str
    """
    Its model.
    """
    hook: str
    """
    The hook whose rows were encoded.
    """
    k: int
    """
    As requested.
    """
    features: list[FeatureOfTokens]
    """
    The features, in the order of the request.
    """
    left_out: LeftOut
    """
    Positions left out because of their tokens, not counting those that `skip_first` leaves out.
    """
    scanned: FeatureTokensScanned
    """
    What was scanned.
    """


class Lens(BaseModel):
    """
    The distributions over the next token, computed from the residual stream.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    model: str
    """
    Name of its model on this server.
    """
    hook: str
    """
    The hook, without its layer.
    """
    layers: list[int]
    """
    Layers, in the order of `values`.
    """
    positions: list[int]
    """
    Positions, in the order of each layer's values.
    """
    position_tokens: list[str]
    """
    The tokens at these positions; each distribution is over the token that comes next.
    """
    tokens: list[TokenWithId]
    """
    The tokens to follow, in the order of the request.
    """
    final_from: str | None = None
    """
    The stored hook from which the final distribution was computed. If neither the last block's output nor `logits`
    is stored, it is null, and so is `kl`.
    """
    values: list[list[LensDistribution]]
    """
    `[layer][position]`.
    """


class OpenAiChatLogprobs(BaseModel):
    """
    Log-probabilities of an answer's tokens, with those of the end of the text or a stop text if there was one.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    content: list[OpenAiChatToken]
    """
    One for each generated token.
    """
    refusal: str | None = None
    """
    Always null.
    """


class OpenAiChunkChoice(BaseModel):
    """
    What is new of one answer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    index: int
    """
    Its index.
    """
    delta: OpenAiDelta
    """
    What to append to the message.
    """
    logprobs: OpenAiChatLogprobs | None = None
    """
    Log-probabilities of the new tokens, if asked for.
    """
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
    """
    Why it ended, in its last chunk.
    """


class OpenAiCompletion(BaseModel):
    """
    Continuations of prompts. In a stream, each chunk has this form: a choice has the text and the tokens since the chunk
    before.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    `cmpl-` and the id of the run, if it is stored.
    """
    object: str
    """
    Always `text_completion`.
    """
    created: int
    """
    When the generation began, in seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    system_fingerprint: str
    """
    `fp_` and the first digits of the model's fingerprint.
    """
    choices: list[OpenAiCompletionChoice]
    """
    Choice `i × n + s` is sample `s` of prompt `i`.
    """
    usage: OpenAiUsage | None = None
    """
    Counts of tokens. In a stream only with `include_usage`; null until the last chunk.
    """
    residuum: OpenAiRecorded | None = None
    """
    Where the generation is stored, if the request had `residuum`. In a stream in the last chunk, which has no choices.
    """


class ReadyModel(Serving, ModelDetails):
    """
    A model that is loaded and takes requests.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name to use in requests.
    """
    status: Literal["ready"]
    """
    `ready`.
    """


class ReadySae(Serving, SaeDetails):
    """
    A sparse autoencoder that is loaded.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    The name that clients use.
    """
    model: str
    """
    The model that it belongs to.
    """
    status: Literal["ready"]
    """
    `ready`.
    """
    fingerprint: str
    """
    blake3 of weights and settings.
    """
    centred: bool
    """
    Whether the mean of each row is subtracted first, which has the effect of centred writing weights.
    """
    warnings: list[Warning]
    """
    What is unusual: missing settings in `cfg.json`, and keys that were ignored.
    """


class Run(BaseModel):
    """
    A run.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    object: Literal["run"]
    """
    Always `run`. A problem has no `object`, and its `status` is a number: check this field before you poll
    `status`.
    """
    id: str
    """
    Id of the run.
    """
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    """
    `queued`, `running`, `completed`, `failed` or `cancelled`.
    """
    model: str
    """
    Name of the model.
    """
    priority: Literal["interactive", "normal", "bulk"]
    """
    `interactive`, `normal` or `bulk`.
    """
    n_items: int
    """
    Number of inputs.
    """
    n_done: int
    """
    Number of inputs that have a cache.
    """
    n_reused: int
    """
    Number of those that were answered from the store without a forward pass.
    """
    n_failed: int
    """
    Number of inputs that failed.
    """
    caches: list[str]
    """
    The first hundred caches, in the order of the inputs; `/v1/runs/{id}/caches` lists all.
    """
    error: Problem | None = None
    """
    Why it failed.
    """
    tags: list[str]
    """
    Tags of every cache.
    """
    metadata: dict[str, Any]
    """
    Metadata as posted.
    """
    imported: bool
    """
    Whether the run is an import: its only cache was computed elsewhere.
    """
    ttl_seconds: int | None = None
    """
    Seconds after which its caches expire.
    """
    created_at: AwareDatetime
    """
    When it was accepted.
    """
    started_at: AwareDatetime | None = None
    """
    When its first item was started.
    """
    finished_at: AwareDatetime | None = None
    """
    When it ended.
    """
    queue_position: int | None = None
    """
    Number of runs ahead of it in the queue; null if none of its inputs waits.
    """
    completions: list[RunCompletion] | None = None
    """
    What was generated, if the run continues its inputs and has ended: one entry for each cache of `caches`.
    """
    values: list[CacheValues] | None = None
    """
    With `include=values`: the tensors of each cache.
    """
    top_tokens: list[NextTokens] | None = None
    """
    With `include=top_tokens`: the most probable next tokens of each cache of `caches`.
    """


class RunSnapshot(Run):
    """
    Progress of a run: the data of an event named `run`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    tokens_per_second: float
    """
    Tokens per second of recent batches of this server.
    """
    eta_seconds: float | None = None
    """
    Estimated seconds until the run ends, from its speed so far; null before any input is done.
    """


class SaeEvent(BaseModel):
    """
    The autoencoder, now and after every change.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: Annotated[ReadySae | UnreadySae, Field(discriminator="status")]
    """
    The autoencoder, now and after every change.
    """
    event: Literal["sae"]


class Saes(BaseModel):
    """
    A list of sparse autoencoders.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    items: list[Annotated[ReadySae | UnreadySae, Field(discriminator="status")]]
    """
    The autoencoders, by name.
    """
    next_cursor: str | None = None
    """
    Always null: all fit on one page.
    """


class ModelEvent(BaseModel):
    """
    The model, now and after every change.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: Annotated[ReadyModel | UnreadyModel, Field(discriminator="status")]
    """
    The model, now and after every change.
    """
    event: Literal["model"]


class Models(BaseModel):
    """
    A list of models.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    items: list[Annotated[ReadyModel | UnreadyModel, Field(discriminator="status")]]
    """
    The models, by name.
    """
    next_cursor: str | None = None
    """
    Always null: all models fit on one page.
    """


class OpenAiChatChoice(BaseModel):
    """
    One answer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    index: int
    """
    Its index.
    """
    message: OpenAiAnswerMessage
    """
    The message.
    """
    logprobs: OpenAiChatLogprobs | None = None
    """
    Log-probabilities, if asked for.
    """
    finish_reason: Literal["stop", "length", "cancelled"]
    """
    Why it ended: `stop`, `length` or `cancelled`.
    """


class OpenAiChatChunk(BaseModel):
    """
    A part of answers to a chat.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    As in a whole answer, the same for all chunks.
    """
    object: str
    """
    Always `chat.completion.chunk`.
    """
    created: int
    """
    When the generation began, in seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    system_fingerprint: str
    """
    `fp_` and the first digits of the model's fingerprint.
    """
    choices: list[OpenAiChunkChoice]
    """
    One choice; none in the last chunk with counts or `residuum`.
    """
    usage: OpenAiUsage | None = None
    """
    Counts of tokens, only with `include_usage`; null until the last chunk.
    """
    residuum: OpenAiRecorded | None = None
    """
    Where the generation is stored, in the last chunk, if the request had `residuum`.
    """


class OpenAiChatCompletion(BaseModel):
    """
    Answers to a chat.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    `chatcmpl-` and the id of the run, if it is stored.
    """
    object: str
    """
    Always `chat.completion`.
    """
    created: int
    """
    When the generation began, in seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    system_fingerprint: str
    """
    `fp_` and the first digits of the model's fingerprint.
    """
    choices: list[OpenAiChatChoice]
    """
    The answers, by their index.
    """
    usage: OpenAiUsage
    """
    Counts of tokens.
    """
    residuum: OpenAiRecorded | None = None
    """
    Where the generation is stored, if the request had `residuum`.
    """


class RunPage(BaseModel):
    """
    A page of a listing.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    items: list[Run]
    """
    The items of this page.
    """
    next_cursor: str | None = None
    """
    Pass it as `cursor` to get the next page; null on the last page.
    """
    total: int | None = None
    """
    With `count`: the number of items on all pages, or a lower bound of it.
    """
    total_is_exact: bool | None = None
    """
    With `count`: whether `total` is exact. Counting stops at 5,000, or earlier if it would take long.
    """


class RunEvent1(BaseModel):
    """
    The run has changed.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    data: RunSnapshot
    """
    The run has changed.
    """
    event: Literal["run"]


class RunEvent(RootModel[RunEvent1 | RunEvent2 | RunEvent3]):
    root: RunEvent1 | RunEvent2 | RunEvent3
    """
    An event of a run.
    """


class AttributionRequest(BaseModel):
    """
    Which logit to attribute.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    token: int | str
    """
    The token: an id, or a text that is exactly one token.
    """
    against: int | str | None = None
    """
    A second token; if given, the difference of the two logits is attributed.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position; the last if left out. Its logit is for the token that comes next.
    """
    components: Literal["sublayers", "heads"] | None = None
    """
    Which parts to distinguish; if left out, the finest that the captured hooks allow.
    """


class Cache(BaseModel):
    """
    A stored cache.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    """
    Id of the cache.
    """
    run: str
    """
    The run that made it.
    """
    item_index: int
    """
    Index of its input in the run.
    """
    model: str
    """
    Name of the model.
    """
    label: str | None = None
    """
    Label.
    """
    tags: list[str]
    """
    Tags.
    """
    metadata: dict[str, Any]
    """
    Metadata.
    """
    text: str | None = None
    """
    The text as posted, or as rendered from a chat; null when token ids were posted.
    """
    token_ids: list[int]
    """
    Token ids of the input; empty for an import without them.
    """
    tokens: list[str]
    """
    The text of each token; empty strings for an import without them.
    """
    n_tokens: int
    """
    Number of tokens.
    """
    bos: Bos
    """
    Whether there is a beginning-of-sequence token, and why.
    """
    n_truncated: int
    """
    Number of tokens cut from the input to fit the context.
    """
    completion: Completion | None = None
    """
    What was generated, if the run continued the input; else null.
    """
    imported: ImportOrigin | None = None
    """
    The file it came from, if it was imported; else null.
    """
    n_layers: int
    """
    Number of blocks of the model.
    """
    d_model: int
    """
    Width of the residual stream.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange
    """
    Positions that were captured.
    """
    hooks: list[CacheHook]
    """
    The hooks that were captured.
    """
    provenance: Provenance
    """
    What computed the numbers.
    """
    reused: bool
    """
    Whether the numbers came from the store instead of a forward pass of this run.
    """
    n_nan: int
    """
    Number of stored values that are NaN.
    """
    n_inf: int
    """
    Number of stored values that are infinite.
    """
    content_hash: str
    """
    blake3 of the stored tensors.
    """
    n_bytes: int
    """
    Bytes its tensors take in the store.
    """
    created_at: AwareDatetime
    """
    When it was stored; no two caches have the same time.
    """
    expires_at: AwareDatetime | None = None
    """
    When it expires, unless it is pinned; null if never.
    """
    pinned: bool
    """
    Whether it is protected from expiry and eviction.
    """
    top_tokens: NextTokens | None = None
    """
    In the caches of a run, with `include=top_tokens`: the most probable next tokens.
    """


class CacheDirection(BaseModel):
    """
    A vector of a cache: at each layer the vector of that layer, or at all layers the vector of one.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str | None = None
    """
    Its name in the response.
    """
    cache: str
    """
    Id of the cache.
    """
    hook: str | None = None
    """
    The hook; by default the hook of the request.
    """
    layer: int | None = None
    """
    The layer whose vector to use at all layers; by default each layer uses its own.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position, or the mean over all; the last if left out.
    """


class Capture(BaseModel):
    """
    What to capture.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hooks: list[str] | None = None
    """
    Full names (`blocks.5.hook_resid_post`) or short ones (`resid_post`, `attn.out`, `logits`).
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers of the hooks with short names.
    """
    positions: (
        Literal["last", "mean", "all", "prompt", "generated"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None
    ) = None
    """
    Positions to keep.
    """
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """
    Type in which to store the values.
    """


class Comparison(BaseModel):
    """
    The answer to a comparison. It has `pairs` in mode `pairs`; `caches` and `values` in mode `matrix`; `a`, `b`,
    `layers_b` and `values` in mode `layers`; `groups` and `values` in mode `sets`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    mode: Literal["pairs", "matrix", "layers", "sets"]
    """
    As requested.
    """
    hook: str
    """
    The hook, without its layer.
    """
    position: Literal["last", "mean", "all", "stored"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    As requested; left out if every stored position is a row.
    """
    center: Literal["none", "mean"]
    """
    What was subtracted from the vectors first.
    """
    normalize: bool
    """
    Whether vectors were then scaled to unit length.
    """
    k: int | None = None
    """
    Number of dimensions in each set of `jaccard`.
    """
    layers: list[int]
    """
    Layers, in the order of the values; empty for a hook outside the blocks. In mode `layers` the layers of `a`.
    """
    layers_b: list[int] | None = None
    """
    In mode `layers`, the layers of `b`.
    """
    pairs: list[Pair] | None = None
    """
    The pairs, in order.
    """
    caches: list[str] | None = None
    """
    The caches of the matrix, in order.
    """
    a: list[str] | None = None
    """
    In mode `layers`, the caches on the left, in the order of their rows.
    """
    b: list[str] | None = None
    """
    In mode `layers`, the caches on the right.
    """
    groups: list[ComparisonGroup] | None = None
    """
    The groups, in the order of the values.
    """
    values: dict[str, list[Any]] | None = None
    """
    For each metric one matrix per layer, `[layer][i][j]`, or in mode `layers` one matrix `[layer of a][layer of
    b]`; null if undefined.
    """


class ComparisonRequest(BaseModel):
    """
    What to compare. Mode `pairs` takes `a` and `b`, `matrix` takes `caches`, `layers` takes `a` and optionally `b`,
    `sets` takes `groups`. Caches are selected by an array of ids, or by conditions.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    mode: Literal["pairs", "matrix", "layers", "sets"]
    """
    Which caches are compared with which.
    """
    a: list[str] | CacheConditions | None = None
    """
    Caches on the left. In mode `pairs`, if one side has one cache, it is compared with each cache of the other.
    """
    b: list[str] | CacheConditions | None = None
    """
    Caches on the right. In mode `layers`, if left out, the left side is compared with itself.
    """
    caches: list[str] | CacheConditions | None = None
    """
    Caches of a matrix.
    """
    groups: dict[str, list[str] | CacheConditions] | None = None
    """
    Groups of mode `sets`, at most 64; the response has them in the order of their names.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name.
    """
    position: Literal["last", "mean", "all", "stored"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position, or the mean over all.
    """
    rows: Literal["caches", "positions"] | None = None
    """
    Which rows a set has.
    """
    metrics: (
        list[
            Literal[
                "cosine",
                "dot",
                "euclidean",
                "mae",
                "pearson",
                "jaccard",
                "cka",
                "cka_debiased",
                "rsa",
                "procrustes",
                "mean_difference",
                "mean_cosine",
                "effect_size",
            ]
        ]
        | None
    ) = None
    """
    Metrics, each once. By default `cosine`, or `cka` in mode `sets`.
    """
    k: int | None = None
    """
    Number of dimensions in each set of `jaccard`; 10 if left out.
    """
    center: Literal["none", "mean"] | None = None
    """
    What is subtracted from the vectors first.
    """
    normalize: bool | None = None
    """
    Whether vectors are then scaled to unit length. A zero vector is not changed.
    """


class CreateRun(BaseModel):
    """
    A run to queue. Exactly one of `input`, `messages` and `items` holds the inputs.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    input: str | list[str] | list[int] | list[list[int]] | None = None
    """
    A string, strings, token ids, or arrays of token ids.
    """
    messages: list[Message] | None = None
    """
    One chat, rendered with the model's template.
    """
    add_generation_prompt: bool | None = None
    """
    Whether to add the tokens that start the assistant's turn; by default true unless the last message is the
    assistant's.
    """
    continue_final_message: bool | None = None
    """
    Whether to leave the last message open, so that the model continues it: what the template puts after it is left
    out. Default: `false`.
    """
    template_kwargs: dict[str, Any] | None = None
    """
    Further variables for the chat template.
    """
    chat_template: str | None = None
    """
    A chat template to use instead of the model's own, as Jinja source. If the model has several templates: also the
    name of one of them; by default `tool_use` if `template_kwargs` has `tools`.
    """
    items: list[Item] | None = None
    """
    Inputs, each with its own positions, metadata, tags and label.
    """
    generate: Generate | None = None
    """
    Continue every input before it is captured.
    """
    interventions: list[Intervention] | None = None
    """
    Changes to activations during the forward pass of every input, in order; also while the model generates.
    """
    capture: Capture | None = None
    """
    What to capture; the residual stream after every block at the final position if left out.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token (`[CLS]` for BERT): null leaves the decision to the tokenizer, true makes sure the
    input begins with one, false leaves out all special tokens that the tokenizer would add to text.
    """
    truncate: Literal["error", "left", "right"] | None = None
    """
    What to do with inputs longer than the context.
    """
    reuse: bool | None = None
    """
    Whether stored activations may be used instead of a forward pass; false forces the forward pass. Default: `true`.
    """
    priority: Literal["interactive", "normal", "bulk"] | None = None
    """
    How urgent the run is. `interactive` runs get most of the workers' time and `bulk` runs least, but every run
    gets some.
    """
    tags: list[str] | None = None
    """
    Tags for every cache of the run.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata for the run and each of its caches.
    """
    ttl_seconds: int | None = None
    """
    Seconds after which each cache of the run expires, counted from when it is stored; never if left out.
    """


class DirectionOfMeans(BaseModel):
    """
    Mean of the positive caches minus mean of the negative ones, layer by layer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name; by default those that all caches have.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position, or the mean over all.
    """
    positive: list[str] | CacheConditions | None = None
    """
    Positive caches. Give `positive` and `negative`, or `caches` and `target`.
    """
    negative: list[str] | CacheConditions | None = None
    """
    Negative caches.
    """
    caches: list[str] | CacheConditions | None = None
    """
    Caches of both classes; `target` says which are positive.
    """
    target: DirectionTarget | None = None
    """
    Which of `caches` are positive.
    """
    normalize: bool | None = None
    """
    Whether to scale each vector to length one. Default: `false`.
    """
    method: Literal["difference_of_means"]
    """
    How the direction is made; decides the form of the body.
    """


class DirectionOfProbe(BaseModel):
    """
    A logistic regression with an L2 penalty on standardised features, layer by layer. The vector is converted so that
    it applies to activations that are not standardised: `log(p / (1 - p)) = vector · x + intercept`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name; by default those that all caches have.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position, or the mean over all.
    """
    positive: list[str] | CacheConditions | None = None
    """
    Positive caches. Give `positive` and `negative`, or `caches` and `target`.
    """
    negative: list[str] | CacheConditions | None = None
    """
    Negative caches.
    """
    caches: list[str] | CacheConditions | None = None
    """
    Caches of both classes; `target` says which are positive.
    """
    target: DirectionTarget | None = None
    """
    Which of `caches` are positive.
    """
    c: float | None = None
    """
    Inverse strength of the penalty, like `C` in scikit-learn; 1e-6 to 1e6. Default: `1.0`.
    """
    folds: int | None = None
    """
    Number of folds of the cross-validation, 2 to 20; each class needs at least as many caches. Default: `5`.
    """
    seed: int | None = None
    """
    Seed of the folds and of the shuffled labels. Default: `0`.
    """
    shuffles: int | None = None
    """
    Number of cross-validations with shuffled labels that are averaged for the baseline, 1 to 20. Default: `1`.
    """
    method: Literal["probe"]
    """
    How the direction is made; decides the form of the body.
    """


class DirectionOfVariance(BaseModel):
    """
    Principal components of caches, layer by layer.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    name: str
    """
    A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name; by default those that all caches have.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    One position, or the mean over all.
    """
    caches: list[str] | CacheConditions
    """
    The caches.
    """
    k: int | None = None
    """
    Number of components per layer, the largest variance first. Signs are chosen so that the value of largest
    magnitude of each component is positive. Default: `1`.
    """
    center: bool | None = None
    """
    Whether to subtract the mean first. Default: `true`.
    """
    method: Literal["pca"]
    """
    How the direction is made; decides the form of the body.
    """


class DryRun(BaseModel):
    """
    What a run would store.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    object: Literal["dry_run"]
    """
    Always `dry_run`.
    """
    n_items: int
    """
    Number of inputs.
    """
    n_tokens: int
    """
    Number of tokens of all inputs.
    """
    n_bytes: int
    """
    Bytes that the captures would take.
    """
    items: list[DryRunItem]
    """
    The first hundred inputs, in order.
    """


class DryRunItem(BaseModel):
    """
    What a run would store for one input.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    token_ids: list[int]
    """
    Token ids that the model would get.
    """
    tokens: list[str]
    """
    The text of each token.
    """
    bos: Bos
    """
    Whether there is a beginning-of-sequence token, and why.
    """
    n_truncated: int
    """
    Number of tokens that would be cut.
    """
    n_bytes: int
    """
    Bytes that its capture would take.
    """
    interventions: list[dict[str, Any]]
    """
    Changes during the forward pass, as the provenance of the cache would show them.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange
    """
    Positions that would be kept, as the cache would show them.
    """
    hooks: list[DryRunHook]
    """
    Shape of each hook.
    """


class FeaturesRequest(BaseModel):
    """
    Which positions to encode, and with which autoencoder.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    sae: str
    """
    The autoencoder.
    """
    positions: (
        Literal["last", "mean", "all", "prompt", "generated"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None
    ) = None
    """
    Stored positions, by number, text or kind, but not by message; `{"special": false}` selects those whose tokens
    are not special. If left out: all that the cache has, except tokens on which the autoencoder was not trained
    (`exclude_special_tokens` of its settings); `left_out` in the response describes these.
    """
    top_k: int | None = None
    """
    Number of most active features to list at each position, at most 1000; 10 if left out.
    """
    features: list[int] | None = None
    """
    Features whose activations to return at each position, at most 1000.
    """
    allow_bos_mismatch: bool | None = None
    """
    true: encode even if the cache begins with a BOS token and the autoencoder was trained without one, or vice
    versa, and add a warning. By default such a request is refused. Default: `false`.
    """


class Intervention(BaseModel):
    """
    One change to a forward pass. The interventions of a run are applied in order, then those of the input. If a hook is
    captured, the values after all changes at it are stored. Each `op` takes these fields:

    | `op` | effect | fields |
    |---|---|---|
    | `add` | adds the vector × `strength` | `direction` or `vector`, `strength` |
    | `project_out` | removes the projection onto the direction, scaled to length one | `direction` or `vector` |
    | `set` | replaces the values | `value`, `direction` or `vector` |
    | `scale` | multiplies the values | `factor` |
    | `zero` | replaces the values by 0 | |
    | `mean_ablate` | replaces the values by the mean of all rows that the caches stored at the hook | `caches` |
    | `patch` | replaces the values by those of a stored cache | `source` |
    | `knockout` | masks attention edges before the softmax | `heads`, `from`, `to` |
    """

    model_config = ConfigDict(
        extra="allow",
    )
    op: Literal["add", "project_out", "set", "scale", "zero", "mean_ablate", "patch", "knockout"]
    """
    The operation.
    """
    hook: str | None = None
    """
    A full or short hook name; `resid_post` if left out. A knockout is always at `attn.hook_attn_scores`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name; all if left out.
    """
    positions: (
        Literal["all", "prompt", "generated", "last", "mean"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None
    ) = None
    """
    Which tokens to change; all if left out, including generated ones.
    """
    heads: list[int] | None = None
    """
    Change only these heads, if the hook has a head axis; negative numbers count from the last. Attention maps have
    query heads.
    """
    neurons: list[int] | None = None
    """
    Change only these neurons, if the hook is on the neurons of an MLP.
    """
    direction: VectorDirection | StoredDirection | CacheDirection | SaeDirection | None = None
    """
    A stored direction, a vector of a stored cache, a feature of an autoencoder, or numbers.
    """
    vector: list[float] | None = None
    """
    The values, the same at every layer: as many as a row of the hook has, or one head, or the chosen neurons.
    """
    strength: float | list[float] | None = None
    """
    Factor of the vector that is added; 1 if left out. A list makes one item of the run for each number, from every
    input. Lists of several interventions of one input must be equally long: the i-th item takes the i-th number of
    each.
    """
    value: float | list[float] | None = None
    """
    A number for all values, or a vector.
    """
    factor: float | None = None
    """
    Factor by which the values are multiplied.
    """
    caches: list[str] | CacheConditions | None = None
    """
    Caches to average.
    """
    source: PatchSource | None = None
    """
    Source of the values of a patch.
    """
    from_: Annotated[
        Literal["all", "prompt", "generated", "last", "mean"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None,
        Field(alias="from"),
    ] = None
    """
    Change only these keys, if the hook is an attention map; all if left out.
    """
    to: (
        Literal["all", "prompt", "generated", "last", "mean"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None
    ) = None
    """
    Change only these queries, if the hook is an attention map; all if left out.
    """


class Item(BaseModel):
    """
    One input with its own settings. Exactly one of `text`, `token_ids` and `messages`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    text: str | None = None
    """
    Text for the tokenizer.
    """
    token_ids: list[int] | None = None
    """
    Token ids.
    """
    messages: list[Message] | None = None
    """
    A chat.
    """
    positions: (
        Literal["last", "mean", "all", "prompt", "generated"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
        | None
    ) = None
    """
    Positions to keep, instead of the run's.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata, added to the run's; for equal keys this one applies.
    """
    tags: list[str] | None = None
    """
    Tags, added to the run's.
    """
    label: str | None = None
    """
    Label of the cache.
    """
    interventions: list[Intervention] | None = None
    """
    Changes to activations of this input, applied after the run's.
    """


class LensRequest(BaseModel):
    """
    Which rows of the residual stream to convert to logits.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str | None = None
    """
    Hook on the residual stream: `resid_pre`, `resid_mid` or `resid_post`; or the full name of one. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers; all that the cache has if left out.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    Positions; all that the cache has if left out.
    """
    top_k: int | None = None
    """
    Number of most probable tokens to list at each layer and position, at most 100; 5 if left out.
    """
    tokens: list[int | str] | None = None
    """
    Tokens to follow through the layers, at most 100: ids, or texts that are exactly one token.
    """


class MeanOfPositions(BaseModel):
    """
    The mean over positions, accumulated in float64; drops the position axis.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    mean: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange
    """
    The positions; not a mean themselves.
    """


class MeanOfPositionsRequest(BaseModel):
    """
    The mean over positions, accumulated in float64; drops the position axis.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    mean: (
        Literal["last", "mean", "all", "prompt", "generated"]
        | int
        | list[int]
        | PositionsByText
        | PositionsByMessage
        | PositionsByKind
        | MeanOfPositionsRequest
        | PositionRange
    )
    """
    The positions; not a mean themselves.
    """


class OpenAiChatRequest(BaseModel):
    """
    A chat to continue. Fields that are marked so are extensions to OpenAI's API.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    messages: list[OpenAiMessage]
    """
    The chat, rendered with the model's template. A content is a string, or parts of type `text`, which are joined.
    """
    max_completion_tokens: int | None = None
    """
    Maximum number of tokens to generate; what is left of the context if left out.
    """
    max_tokens: int | None = None
    """
    An older name of `max_completion_tokens`.
    """
    temperature: float | None = None
    """
    0 always takes the most probable token; 1 if left out.
    """
    top_p: Annotated[float | None, Field(gt=0.0)] = None
    """
    Samples from the smallest set of most probable tokens whose probabilities add up to at least this.
    """
    top_k: int | None = None
    """
    Samples from this many of the most probable tokens. An extension.
    """
    n: int | None = None
    """
    How many answers to generate.
    """
    stream: bool | None = None
    """
    Whether to send the answer in parts, as server-sent events. Default: `false`.
    """
    stream_options: OpenAiStreamOptions | None = None
    """
    Options of an answer in parts.
    """
    stop: str | list[str] | None = None
    """
    One text or several that end the answer; at most 16.
    """
    seed: int | None = None
    """
    Seed of sampling, to repeat it; random if left out.
    """
    logprobs: bool | None = None
    """
    Whether to answer the log-probability of each generated token. Default: `false`.
    """
    top_logprobs: int | None = None
    """
    How many of the most probable tokens to list beside each token; needs `logprobs`.
    """
    tools: list[dict[str, Any]] | None = None
    """
    Tools for the template, which decides how the model gets to know them. Answers are text: calls in it are not parsed.
    """
    tool_choice: Any | None = None
    """
    `auto`, or `none`: then the template gets no tools.
    """
    parallel_tool_calls: bool | None = None
    """
    Accepted: answers are text.
    """
    response_format: dict[str, Any] | None = None
    """
    Only `{"type": "text"}`.
    """
    presence_penalty: float | None = None
    """
    Only 0.
    """
    frequency_penalty: float | None = None
    """
    Only 0.
    """
    logit_bias: dict[str, Any] | None = None
    """
    Only empty.
    """
    user: str | None = None
    """
    Accepted and not used.
    """
    safety_identifier: str | None = None
    """
    Accepted and not used.
    """
    prompt_cache_key: str | None = None
    """
    Accepted and not used.
    """
    store: bool | None = None
    """
    Only false: `residuum` stores a generation.
    """
    metadata: dict[str, Any] | None = None
    """
    Only empty: metadata of what is stored is in `residuum`.
    """
    service_tier: str | None = None
    """
    Only `auto` or `default`.
    """
    reasoning_effort: str | None = None
    """
    Only `none`.
    """
    verbosity: str | None = None
    """
    Only `medium`.
    """
    modalities: list[str] | None = None
    """
    Only `["text"]`.
    """
    audio: dict[str, Any] | None = None
    """
    Only null.
    """
    prediction: dict[str, Any] | None = None
    """
    Only null.
    """
    web_search_options: dict[str, Any] | None = None
    """
    Only null.
    """
    chat_template: str | None = None
    """
    A chat template to use instead of the model's own, as in `POST /v1/runs`. An extension.
    """
    chat_template_kwargs: dict[str, Any] | None = None
    """
    Further variables for the template. An extension.
    """
    add_generation_prompt: bool | None = None
    """
    Whether to add the tokens that start the assistant's turn; by default true unless the last message is the
    assistant's. An extension.
    """
    continue_final_message: bool | None = None
    """
    Whether to leave the last message open, so that the model continues it. An extension. Default: `false`.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token, as in `POST /v1/runs`. An extension.
    """
    truncate: Literal["error", "left", "right"] | None = None
    """
    What to do with a chat longer than the context. An extension.
    """
    residuum: OpenAiRecording | None = None
    """
    What to store of the generation; nothing if left out. An extension.
    """


class OpenAiCompletionRequest(BaseModel):
    """
    Prompts to continue. Fields that are marked so are extensions to OpenAI's API.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    prompt: str | list[str] | list[int] | list[list[int]]
    """
    A string, strings, token ids, or arrays of token ids. Ids are used as they are.
    """
    max_tokens: int | None = None
    """
    Maximum number of tokens to generate; 16 if left out. 0 generates nothing: then the prompt is only scored.
    """
    temperature: float | None = None
    """
    0 always takes the most probable token; 1 if left out.
    """
    top_p: Annotated[float | None, Field(gt=0.0)] = None
    """
    Samples from the smallest set of most probable tokens whose probabilities add up to at least this.
    """
    top_k: int | None = None
    """
    Samples from this many of the most probable tokens. An extension.
    """
    n: int | None = None
    """
    How many continuations of each prompt.
    """
    stream: bool | None = None
    """
    Whether to send the answer in parts, as server-sent events. Default: `false`.
    """
    stream_options: OpenAiStreamOptions | None = None
    """
    Options of an answer in parts.
    """
    logprobs: int | None = None
    """
    How many of the most probable tokens to list beside each token. If given, also 0, log-probabilities are answered.
    """
    echo: bool | None = None
    """
    Whether the text, and the log-probabilities if asked for, begin with the prompt. Default: `false`.
    """
    stop: str | list[str] | None = None
    """
    One text or several that end a continuation; at most 16.
    """
    seed: int | None = None
    """
    Seed of sampling, to repeat it; random if left out.
    """
    best_of: int | None = None
    """
    Only as many as `n`: no continuation is left out.
    """
    suffix: str | None = None
    """
    Only empty.
    """
    presence_penalty: float | None = None
    """
    Only 0.
    """
    frequency_penalty: float | None = None
    """
    Only 0.
    """
    logit_bias: dict[str, Any] | None = None
    """
    Only empty.
    """
    user: str | None = None
    """
    Accepted and not used.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token, as in `POST /v1/runs`: if left out, the tokenizer's own rule for text, and none for ids.
    An extension.
    """
    truncate: Literal["error", "left", "right"] | None = None
    """
    What to do with prompts longer than the context. An extension.
    """
    residuum: OpenAiRecording | None = None
    """
    What to store of the generation; nothing if left out. An extension.
    """


class OpenAiRecording(BaseModel):
    """
    What to store of a generation, as a run. The fields mean what they mean in `POST /v1/runs`; all may be left out.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    capture: Capture | None = None
    """
    What to capture; the residual stream after every block at the final position if left out.
    """
    interventions: list[Intervention] | None = None
    """
    Changes to activations during the forward pass, also while the model generates.
    """
    tags: list[str] | None = None
    """
    Tags for every cache.
    """
    metadata: dict[str, Any] | None = None
    """
    Metadata for the run and each of its caches.
    """
    label: str | None = None
    """
    Label of every cache.
    """
    ttl_seconds: int | None = None
    """
    Seconds after which each cache expires; never if left out.
    """
    priority: Literal["interactive", "normal", "bulk"] | None = None
    """
    How urgent the run is; `interactive` if left out.
    """


class CachePage(BaseModel):
    """
    A page of a listing.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    items: list[Cache]
    """
    The items of this page.
    """
    next_cursor: str | None = None
    """
    Pass it as `cursor` to get the next page; null on the last page.
    """
    total: int | None = None
    """
    With `count`: the number of items on all pages, or a lower bound of it.
    """
    total_is_exact: bool | None = None
    """
    With `count`: whether `total` is exact. Counting stops at 5,000, or earlier if it would take long.
    """


class PatchSource(BaseModel):
    """
    Values of a stored cache.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str
    """
    The cache.
    """
    hook: str | None = None
    """
    Its hook; the patched hook if left out.
    """
    layer: int | None = None
    """
    The layer whose values to use at all layers; by default each layer uses its own.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    Positions whose values the patched tokens get, in the same order, or one position for all. If left out, the
    positions of the patched tokens.
    """


class PatchingRequest(BaseModel):
    """
    An input, or two with the same number of tokens; what is changed in the forward pass of one, cell by cell; and how the
    effect is measured.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    model: str
    """
    Name of a served model.
    """
    clean: str | list[int]
    """
    The input that leads to the answer: a text or token ids.
    """
    corrupt: str | list[int] | None = None
    """
    For the `op` `patch`, and only then: the input that leads to another answer, with the same number of tokens.
    """
    answer: int | str
    """
    The token to measure: its id, or a text that is exactly one token.
    """
    against: int | str | None = None
    """
    A token whose logit is subtracted. Required for `logit_diff`, not allowed for other metrics.
    """
    metric: Literal["logit_diff", "logit", "probability", "log_probability"] | None = None
    """
    By default `logit_diff` if `against` is given, otherwise `probability`.
    """
    sweep: SweepRequest
    """
    What is changed.
    """
    direction: Literal["denoise", "noise"] | None = None
    """
    For the `op` `patch`: `denoise`, the default, puts values of the clean run into the corrupt one; `noise` does the
    opposite.
    """
    position: int | None = None
    """
    Position of the logits; the last token if left out.
    """
    prepend_bos: bool | None = None
    """
    Beginning-of-sequence token, as in a run.
    """


class ProjectionRequest(BaseModel):
    """
    What to project, and onto what.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    caches: list[str] | CacheConditions
    """
    The caches.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    Positions; the last if left out.
    """
    directions: list[VectorDirection | StoredDirection | CacheDirection | SaeDirection]
    """
    Directions, at most 1000.
    """
    measures: list[Literal["dot", "cosine", "scalar"]] | None = None
    """
    Measures; all if left out.
    """


class Projections(BaseModel):
    """
    Projections of activations onto directions.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    hook: str
    """
    The hook, without its layer.
    """
    layers: list[int]
    """
    Layers, in the order of the values; empty for a hook outside the blocks.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange
    """
    As requested.
    """
    caches: list[str]
    """
    The caches, in the order of the values.
    """
    directions: list[ProjectionDirection]
    """
    The directions, in the order of the values.
    """
    values: list[dict[str, Any]]
    """
    For each cache and measure `[layer][direction]`, or `[layer][position][direction]` if the positions keep their
    axis; null if undefined.
    """


class Search(BaseModel):
    """
    What to search for and where.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    query: SearchSource
    """
    What to search for.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layer: int | None = None
    """
    Layer, if the hook is a short name. Negative numbers count from the last layer of the query's model or of the
    filter's.
    """
    metric: Literal["cosine", "dot", "euclidean"] | None = None
    """
    How similarity is measured.
    """
    k: int | None = None
    """
    Number of hits for each query. Default: `10`.
    """
    filter: CacheConditions | None = None
    """
    Search only caches that meet these conditions; all if left out.
    """
    over: Literal["caches", "positions"] | None = None
    """
    What is ranked.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    With `over: caches`: the position that represents each cache. If left out: its only row if it has one row, else
    the last token. Caches that did not store that position are skipped and counted.
    """
    exclude_self: bool | None = None
    """
    With `query.cache`: leave out that cache with all its positions. False if left out.
    """
    context: int | None = None
    """
    Number of tokens of context before and after a hit. Default: `5`.
    """


class SearchSource(BaseModel):
    """
    What to search for: exactly one of `cache`, `text`, `direction`, `sae`, `vector` and `vectors`.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    cache: str | None = None
    """
    A stored cache: its vector at the hook of the search.
    """
    text: str | None = None
    """
    A text, which is captured now at the hook of the search.
    """
    model: str | None = None
    """
    With `text`: the model to use.
    """
    position: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    With `cache` or `text`: one position, or the mean. By default, for a cache its only row or else the last token,
    and for a text the model's default.
    """
    direction: str | None = None
    """
    A stored direction, by id or name: its vector at the layer of the search.
    """
    component: int | None = None
    """
    With `direction`: which component; the first if left out.
    """
    sae: str | None = None
    """
    A sparse autoencoder: the vector of one of its features.
    """
    feature: int | None = None
    """
    With `sae`: index of the feature.
    """
    side: Literal["decoder", "encoder"] | None = None
    """
    With `sae`: which of the feature's vectors; `decoder` if left out.
    """
    vector: list[float] | None = None
    """
    A vector.
    """
    vectors: list[list[float]] | None = None
    """
    Several vectors of one width, each a separate query; at most 64.
    """


class StatisticsRequest(BaseModel):
    """
    Which activations to describe.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    caches: list[str] | CacheConditions
    """
    The caches.
    """
    hook: str | None = None
    """
    Hook, short or full. Default: `"resid_post"`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers, if the hook is a short name.
    """
    positions: Literal["last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    Positions; all that each cache has if left out. Every position is one vector.
    """
    top_k: int | None = None
    """
    Length of the lists of dimensions, at most 1000. Default: `10`.
    """
    sigma: float | None = None
    """
    A dimension is an outlier if it is more than this many standard deviations from the average dimension; above 0. Default: `3.0`.
    """


class SweepRequest(BaseModel):
    """
    The cells of a sweep over one hook: an axis of layers, and one of positions, queries, keys or heads where `positions`,
    `to`, `from` or `heads` is `each`. Each cell is a forward pass with one change, as a run with one intervention:

    | `op` | a cell | fields |
    |---|---|---|
    | `patch` | replaces the values by those of the other input | `hook`, `positions`, `heads` |
    | `zero` | replaces the values by 0 | `hook`, `positions`, `heads` |
    | `mean_ablate` | replaces the values by the mean of all rows that the caches stored at the hook | `hook`, `positions`, `heads`, `caches` |
    | `knockout` | masks attention edges before the softmax | `from` (keys), `to` (queries), `heads` |
    """

    model_config = ConfigDict(
        extra="allow",
    )
    op: Literal["patch", "zero", "mean_ablate", "knockout"] | None = None
    """
    What a cell does; `patch` if left out.
    """
    hook: str | None = None
    """
    A hook inside the blocks: `resid_pre` if left out; `attn.z` with `heads: each` for heads, `mlp_out` for MLPs. A
    knockout is always at `attn.hook_attn_scores`.
    """
    layers: Literal["all"] | int | list[int] | None = None
    """
    Layers; all that have the hook if left out.
    """
    positions: Literal["each", "last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    `each`: one cell per position. Otherwise the positions that are changed together; all if left out. In a knockout
    the same as `to`.
    """
    to: Literal["each", "last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None = None
    """
    Queries of a knockout. `each`: one cell per query. Otherwise those that are changed together; all if left out.
    """
    from_: Annotated[
        Literal["each", "last", "mean", "all"] | int | list[int] | MeanOfPositions | PositionRange | None,
        Field(alias="from"),
    ] = None
    """
    Keys of a knockout. `each`: one cell per key. Otherwise those that are hidden together; all if left out.
    """
    heads: Literal["each"] | list[int] | None = None
    """
    `each`: one cell per head. Otherwise the heads that are changed together; all if left out.
    """
    caches: list[str] | CacheConditions | None = None
    """
    For `mean_ablate`, and only then: the caches to average.
    """


class DirectionRequest(RootModel[DirectionUpload | DirectionOfMeans | DirectionOfVariance | DirectionOfProbe]):
    root: Annotated[
        DirectionUpload | DirectionOfMeans | DirectionOfVariance | DirectionOfProbe,
        Field(discriminator="method"),
    ]
    """
    A direction to make; `method` decides which fields the body has.
    """


class CreatedRun(RootModel[Run | DryRun]):
    root: Annotated[Run | DryRun, Field(discriminator="object")]
    """
    A run, or what it would store. Some generators of clients take the schema of status 200 for all answers, so it is
    one that they all fit.
    """


AttributionRequest.model_rebuild()
Cache.model_rebuild()
CacheDirection.model_rebuild()
Capture.model_rebuild()
Comparison.model_rebuild()
ComparisonRequest.model_rebuild()
CreateRun.model_rebuild()
DirectionOfMeans.model_rebuild()
DirectionOfProbe.model_rebuild()
DirectionOfVariance.model_rebuild()
DryRun.model_rebuild()
DryRunItem.model_rebuild()
FeaturesRequest.model_rebuild()
Intervention.model_rebuild()
Item.model_rebuild()
LensRequest.model_rebuild()
MeanOfPositions.model_rebuild()
MeanOfPositionsRequest.model_rebuild()
OpenAiChatRequest.model_rebuild()
OpenAiCompletionRequest.model_rebuild()
PatchingRequest.model_rebuild()
Search.model_rebuild()
