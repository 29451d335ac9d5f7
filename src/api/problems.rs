//! The problems that each operation can answer with, for the specification.

use std::{borrow::Cow, collections::BTreeMap};

use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, path::Operation},
};

use super::{
    error::ProblemDto,
    openai::openai_error::{self, OpenAiErrorDto},
};
use residuum_domain::{
    Code,
    Code::{
        ApiKeyInvalid, ApiKeyRequired, BlobDamaged, BodyTooLarge, BosMismatch, CacheNotFound, CannotGenerate,
        ChatTemplateFailed, ClientQueueFull, Conflict, DirectionNotFound, EmptyInput, FilterMissing, HeadersTooLarge,
        HookNotInCache, HookNotStored, HostNotAllowed, IdempotencyKeyReused, Internal, InvalidBody, InvalidCursor,
        InvalidField, InvalidHeader, InvalidJson, InvalidQuery, InvalidSafetensors, InvalidValue, LayerNotInCache,
        LayerOutOfRange, LoadFailed, LoadingOff, ModelNotFound, NoBosToken, NoChatTemplate, NotAcceptable,
        NotEnoughMemory, NotReadable, OriginNotAllowed, PositionOutOfRange, PreconditionFailed, QueueFull,
        RangeNotSatisfiable, RequestTimeout, ResultTooLarge, RunNotFound, SaeNotFound, ScopeMissing, ServerBusy,
        ShapeMismatch, StoreFull, TextNotFound, TimedOut, TokenOutOfVocabulary, TooManyItems, TooManyRunTokens,
        TooManyTokens, Unavailable, UnknownCache, UnknownDirection, UnknownHook, UnknownModel, UnknownSae,
        UnknownSource, UnsupportedMediaType, VectorNotInDirection, WorkerFailed,
    },
};

macro_rules! problems {
    ($shape:ident: $($(#[$doc:meta])* $name:ident = [$($code:ident),* $(,)?];)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    Shape::$shape.responses(&[$($code),*])
                }
            }
        )*
    };
}

problems! {
    Problem:
    /// Reading one run.
    RunProblems = [InvalidQuery, RunNotFound, Conflict, ResultTooLarge, Internal, BlobDamaged];
    /// Changing one run.
    RunChangeProblems = [InvalidQuery, RunNotFound, Internal, Unavailable, StoreFull];
    /// Listing things.
    ListProblems = [InvalidQuery, InvalidCursor, Internal];
    /// Listing the caches of a run.
    RunListProblems = [InvalidQuery, InvalidCursor, RunNotFound, Conflict, Internal, BlobDamaged];
    /// Posting a run.
    CreateRunProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, InvalidHeader, BodyTooLarge, TooManyItems, ResultTooLarge, UnsupportedMediaType, UnknownModel, UnknownHook, LayerOutOfRange, PositionOutOfRange, TextNotFound, EmptyInput, TokenOutOfVocabulary, TooManyTokens, NoBosToken, NoChatTemplate, ChatTemplateFailed, CannotGenerate, InvalidValue, ShapeMismatch, UnknownDirection, UnknownCache, HookNotStored, IdempotencyKeyReused, Conflict, QueueFull, Internal, BlobDamaged, TooManyRunTokens, ClientQueueFull,
        Unavailable, StoreFull,
    ];
    /// A tensor over a run.
    RunTensorProblems = [
        InvalidQuery, RunNotFound, HookNotInCache, NotAcceptable, Conflict, ResultTooLarge, PreconditionFailed, RangeNotSatisfiable,
        PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Importing a cache.
    ImportProblems = [
        InvalidBody, ServerBusy, InvalidQuery, InvalidHeader, InvalidSafetensors, Conflict, BodyTooLarge, UnsupportedMediaType, UnknownHook,
        LayerOutOfRange, PositionOutOfRange, EmptyInput, ShapeMismatch, InvalidValue, IdempotencyKeyReused, Internal, Unavailable,
        StoreFull,
    ];
    /// Exporting a run.
    RunExportProblems = [
        InvalidQuery, RunNotFound, Conflict, PreconditionFailed, RangeNotSatisfiable, EmptyInput, HookNotStored, LayerOutOfRange, PositionOutOfRange,
        ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Exporting caches.
    ExportProblems = [
        InvalidQuery, Conflict, PreconditionFailed, RangeNotSatisfiable, EmptyInput, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch,
        InvalidValue, Internal, BlobDamaged,
    ];
    /// Reading a cache's description.
    CacheProblems = [InvalidQuery, CacheNotFound, Internal];
    /// Changing a cache.
    CachePatchProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, CacheNotFound, BodyTooLarge, UnsupportedMediaType, InvalidValue, Internal,
        Unavailable, StoreFull,
    ];
    /// Deleting a cache.
    CacheDeleteProblems = [InvalidQuery, CacheNotFound, Internal, Unavailable, StoreFull];
    /// Deleting caches by conditions.
    CachesDeleteProblems = [InvalidQuery, FilterMissing, Internal, Unavailable, StoreFull];
    /// A tensor of a cache.
    CacheTensorProblems = [
        InvalidQuery, CacheNotFound, HookNotInCache, LayerNotInCache, NotAcceptable, ResultTooLarge, PreconditionFailed, RangeNotSatisfiable,
        PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// A cache as a file.
    CacheFileProblems = [InvalidQuery, CacheNotFound, PreconditionFailed, RangeNotSatisfiable, Internal, BlobDamaged];
    /// Comparing caches.
    ComparisonProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, NotAcceptable, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, EmptyInput, ShapeMismatch, InvalidValue, Internal,
        BlobDamaged,
    ];
    /// Making a direction.
    CreateDirectionProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, Conflict, EmptyInput,
        UnknownCache, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch, InvalidValue,
        Internal, BlobDamaged, Unavailable, StoreFull,
    ];
    /// Reading a direction.
    DirectionProblems = [InvalidQuery, DirectionNotFound, Internal, BlobDamaged];
    /// Changing a direction.
    DirectionChangeProblems = [InvalidQuery, DirectionNotFound, Internal, Unavailable, StoreFull];
    /// Editing a direction.
    DirectionPatchProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, DirectionNotFound, BodyTooLarge, UnsupportedMediaType, InvalidValue,
        Internal, BlobDamaged, Unavailable, StoreFull,
    ];
    /// The vectors of a direction.
    DirectionTensorProblems = [
        InvalidQuery, DirectionNotFound, VectorNotInDirection, NotAcceptable, ResultTooLarge, PreconditionFailed, RangeNotSatisfiable,
        Internal, BlobDamaged,
    ];
    /// Reading a cache as logits.
    LensProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, CacheNotFound, NotAcceptable, Conflict, BodyTooLarge, ResultTooLarge,
        UnsupportedMediaType, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, NotReadable, EmptyInput,
        TokenOutOfVocabulary, TooManyTokens, InvalidValue, Internal, BlobDamaged, Unavailable,
    ];
    /// Attributing a logit.
    AttributionProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, CacheNotFound, Conflict, BodyTooLarge, UnsupportedMediaType, HookNotStored,
        PositionOutOfRange, NotReadable, EmptyInput, TokenOutOfVocabulary, TooManyTokens, InvalidValue, Internal,
        BlobDamaged, Unavailable,
    ];
    /// Projecting caches onto directions.
    ProjectionProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, NotAcceptable, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache,
        UnknownDirection, UnknownSae, EmptyInput, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch,
        InvalidValue, Internal, BlobDamaged, Unavailable,
    ];
    /// Statistics of caches.
    StatisticsProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache, EmptyInput,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Searching.
    SearchProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache, UnknownDirection, UnknownModel,
        UnknownSae, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, EmptyInput, TooManyTokens, ShapeMismatch, InvalidValue, QueueFull, Internal, BlobDamaged, WorkerFailed, Unavailable, StoreFull, ClientQueueFull,
    ];
    /// Patching or ablating activations.
    PatchingProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, NotAcceptable, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownModel,
        UnknownHook, LayerOutOfRange, PositionOutOfRange, NotReadable, EmptyInput, TokenOutOfVocabulary, TooManyTokens, NoBosToken,
        ShapeMismatch, InvalidValue, UnknownCache, HookNotStored, QueueFull, ClientQueueFull, Internal, BlobDamaged, WorkerFailed,
        Unavailable,
    ];
    /// Reading a sparse autoencoder.
    SaeProblems = [InvalidQuery, SaeNotFound];
    /// Encoding a cache to features.
    FeaturesProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, CacheNotFound, NotAcceptable, Conflict, BodyTooLarge, ResultTooLarge,
        UnsupportedMediaType, UnknownSae, BosMismatch, HookNotStored, PositionOutOfRange, TextNotFound, InvalidValue, Internal,
        BlobDamaged, Unavailable,
    ];
    /// Finding the tokens on which features are most active.
    FeatureTokensProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, SaeNotFound, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownSae,
        ShapeMismatch, InvalidValue, Internal, BlobDamaged, Unavailable,
    ];
    /// Reading a model.
    ModelProblems = [InvalidQuery, ModelNotFound];
    /// Loading a model.
    LoadModelProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, UnsupportedMediaType, LoadingOff,
        UnknownSource, InvalidValue, Conflict, NotEnoughMemory, Internal, Unavailable,
    ];
    /// Unloading a model.
    UnloadModelProblems = [InvalidQuery, ModelNotFound, Conflict, Internal, Unavailable, StoreFull];
    /// Loading an autoencoder.
    LoadSaeProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, UnsupportedMediaType, LoadingOff,
        UnknownSource, LoadFailed, UnknownModel, InvalidValue, Conflict, NotEnoughMemory, Internal, Unavailable, StoreFull,
    ];
    /// Unloading an autoencoder.
    UnloadSaeProblems = [InvalidQuery, SaeNotFound, Conflict, Internal, Unavailable, StoreFull];
    /// Operations that can only refuse their query.
    QueryProblems = [InvalidQuery];
    /// Whether the server is ready.
    ReadyProblems = [InvalidQuery, Unavailable];
    /// Tokenising.
    TokenizeProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, TooManyItems, UnsupportedMediaType, UnknownModel, EmptyInput,
        TokenOutOfVocabulary, TooManyTokens, NoBosToken, NoChatTemplate, ChatTemplateFailed, InvalidValue, Internal, Unavailable,
    ];
}

problems! {
    OpenAi:
    /// Completions.
    OpenAiCompletionProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, TooManyItems, ResultTooLarge, UnsupportedMediaType, UnknownModel, UnknownHook, LayerOutOfRange, PositionOutOfRange, TextNotFound, EmptyInput, TokenOutOfVocabulary, TooManyTokens, NoBosToken, NoChatTemplate, ChatTemplateFailed, CannotGenerate, InvalidValue, ShapeMismatch, UnknownDirection, UnknownCache, HookNotStored, Conflict, QueueFull, Internal, BlobDamaged, TooManyRunTokens, ClientQueueFull,
        WorkerFailed, Unavailable, StoreFull,
    ];
    /// Embeddings.
    OpenAiEmbeddingProblems = [
        InvalidJson, InvalidField, InvalidBody, ServerBusy, InvalidQuery, BodyTooLarge, TooManyItems, UnsupportedMediaType, UnknownModel,
        EmptyInput, TokenOutOfVocabulary, TooManyTokens, TooManyRunTokens, NoBosToken, InvalidValue, ResultTooLarge, QueueFull, Internal,
        WorkerFailed, Unavailable,
    ];
    /// Listing models.
    OpenAiListProblems = [InvalidQuery];
    /// Reading a model.
    OpenAiModelProblems = [InvalidQuery, UnknownModel, Unavailable];
}

/// How errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As RFC 9457 problems.
    Problem,
    /// As OpenAI's API does.
    OpenAi,
}

impl Shape {
    fn of(path: &str) -> Self {
        if path.starts_with(openai_error::PREFIX) { Self::OpenAi } else { Self::Problem }
    }

    fn status(self, code: Code) -> u16 {
        match self {
            Self::Problem => code.status(),
            Self::OpenAi => openai_error::status(code),
        }
    }

    fn code(self, code: Code) -> &'static str {
        match self {
            Self::Problem => code.name(),
            Self::OpenAi => openai_error::name(code),
        }
    }

    /// Media type and schema.
    fn content(self) -> (&'static str, Cow<'static, str>) {
        match self {
            Self::Problem => ("application/problem+json", ProblemDto::name()),
            Self::OpenAi => ("application/json", OpenAiErrorDto::name()),
        }
    }

    /// The name in the components of a response that operations have in common.
    fn shared_name(self, name: &str) -> String {
        match self {
            Self::Problem => name.to_owned(),
            Self::OpenAi => format!("OpenAi{name}"),
        }
    }

    fn responses(self, codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
        let response = |(status, codes): (u16, Vec<Code>)| (status.to_string(), RefOr::T(self.response(&codes)));
        self.by_status(codes).into_iter().map(response).collect()
    }

    fn by_status(self, codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        codes.iter().for_each(|c| by_status.entry(self.status(*c)).or_default().push(*c));
        by_status
    }

    fn response(self, codes: &[Code]) -> Response {
        let (media, schema) = self.content();
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        ResponseBuilder::new().description(self.lines(codes)).content(media, content).build()
    }

    fn lines(self, codes: &[Code]) -> String {
        let lines: Vec<String> = codes.iter().map(|c| format!("`{}`: {}", self.code(*c), c.title())).collect();
        lines.join("; ")
    }
}

/// Problems that middleware may answer with instead of the handler, each with its name in the components.
const COMMON: [(&str, &[Code]); 9] = [
    ("HostMissing", &[InvalidHeader]),
    ("Unauthorized", &[ApiKeyRequired, ApiKeyInvalid]),
    ("Forbidden", &[ScopeMissing, OriginNotAllowed]),
    ("ForeignOrigin", &[OriginNotAllowed]),
    ("Misdirected", &[HostNotAllowed]),
    ("RequestTimeout", &[RequestTimeout]),
    ("UnsupportedMediaType", &[UnsupportedMediaType]),
    ("HeadersTooLarge", &[HeadersTooLarge]),
    ("TimedOut", &[TimedOut]),
];

/// The responses that operations have in common, for the components.
pub fn common() -> impl Iterator<Item = (String, RefOr<Response>)> {
    let each = |shape: Shape| COMMON.into_iter().map(move |(name, codes)| (shape, name, codes));
    [Shape::Problem, Shape::OpenAi].into_iter().flat_map(each).map(|(shape, name, codes)| {
        let mut response = shape.response(codes);
        if matches!(name, "Unauthorized" | "Forbidden") {
            let challenge = HeaderBuilder::new()
                .description(Some("The challenge of RFC 6750, with the scope if the key lacks it"))
                .build();
            response.headers.insert("WWW-Authenticate".to_owned(), challenge.into());
        }
        (shape.shared_name(name), RefOr::T(response))
    })
}

/// Adds the common responses that can occur for an operation: some only if it needs a key, some only if it takes a JSON
/// body (`posts`).
pub fn add_common(path: &str, operation: &mut Operation, needs_key: bool, is_probe: bool, posts: bool) {
    let shape = Shape::of(path);
    let takes_body = operation.request_body.is_some();
    for (name, codes) in COMMON {
        let applies = match name {
            "Unauthorized" | "Forbidden" => needs_key,
            "ForeignOrigin" => !needs_key && !is_probe,
            "Misdirected" => !is_probe,
            "RequestTimeout" => takes_body,
            "UnsupportedMediaType" => posts,
            _ => true,
        };
        if !applies {
            continue;
        }
        for (status, codes) in shape.by_status(codes) {
            match operation.responses.responses.get_mut(&status.to_string()) {
                None => {
                    let shared = RefOr::Ref(Ref::from_response_name(shape.shared_name(name)));
                    operation.responses.responses.insert(status.to_string(), shared);
                }
                Some(RefOr::T(own)) if !own.description.contains(&shape.lines(&codes)) => {
                    own.description = format!("{}; {}", own.description, shape.lines(&codes));
                }
                Some(_) => {}
            }
        }
    }
}

/// The schemas of errors, for the components.
pub fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![
        (ProblemDto::name().into_owned(), ProblemDto::schema()),
        (OpenAiErrorDto::name().into_owned(), OpenAiErrorDto::schema()),
    ];
    ProblemDto::schemas(&mut schemas);
    OpenAiErrorDto::schemas(&mut schemas);
    schemas
}
