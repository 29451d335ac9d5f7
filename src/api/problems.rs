//! Which problems each kind of operation can answer with, for the specification.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use super::error::ProblemDto;
use crate::domain::{
    Code,
    Code::{
        BlobDamaged, BodyTooLarge, CacheNotFound, CannotGenerate, ChatTemplateFailed, ClientQueueFull, Conflict,
        DirectionNotFound, EmptyInput, HookNotInCache, HookNotStored, IdempotencyKeyReused, Internal, InvalidBody,
        InvalidCursor, InvalidHeader, InvalidJson, InvalidQuery, InvalidValue, LayerNotInCache, LayerOutOfRange,
        ModelNotFound, NoBosToken, NoChatTemplate, NotAcceptable, NotReadable, PositionOutOfRange, QueueFull,
        RangeNotSatisfiable, ResultTooLarge, RunNotFound, ShapeMismatch, StoreFull, TextNotFound, TokenOutOfVocabulary,
        TooManyItems, TooManyTokens, Unavailable, UnknownCache, UnknownDirection, UnknownHook, UnknownModel,
        UnsupportedMediaType, VectorNotInDirection, WorkerFailed,
    },
};

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = [$($code:ident),* $(,)?];)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    responses(&[$($code),*])
                }
            }
        )*
    };
}

problems! {
    /// Reading one run.
    RunProblems = [InvalidQuery, RunNotFound, Internal];
    /// Changing one run.
    RunChangeProblems = [InvalidQuery, RunNotFound, Internal, StoreFull];
    /// Listing things.
    ListProblems = [InvalidQuery, InvalidCursor, Internal];
    /// Listing the caches of a run.
    RunListProblems = [InvalidQuery, InvalidCursor, RunNotFound, Internal];
    /// Posting a run.
    CreateRunProblems = [
        InvalidJson, InvalidBody, InvalidQuery, InvalidHeader, BodyTooLarge, TooManyItems, ResultTooLarge, UnsupportedMediaType,
        UnknownModel, UnknownHook, LayerOutOfRange, PositionOutOfRange, TextNotFound, EmptyInput, TokenOutOfVocabulary, TooManyTokens,
        NoBosToken, NoChatTemplate, ChatTemplateFailed, CannotGenerate, InvalidValue, ShapeMismatch, UnknownDirection,
        UnknownCache, HookNotStored, IdempotencyKeyReused, Conflict, ClientQueueFull, QueueFull, Internal, BlobDamaged,
        Unavailable, StoreFull,
    ];
    /// A tensor over a run.
    RunTensorProblems = [
        InvalidQuery, RunNotFound, HookNotInCache, NotAcceptable, Conflict, ResultTooLarge, RangeNotSatisfiable,
        PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Reading a cache's description.
    CacheProblems = [InvalidQuery, CacheNotFound, Internal];
    /// Changing a cache.
    CachePatchProblems = [
        InvalidJson, InvalidBody, InvalidQuery, CacheNotFound, BodyTooLarge, UnsupportedMediaType, InvalidValue, Internal, StoreFull,
    ];
    /// Deleting a cache.
    CacheDeleteProblems = [InvalidQuery, CacheNotFound, Internal, StoreFull];
    /// A tensor of a cache.
    CacheTensorProblems = [
        InvalidQuery, CacheNotFound, HookNotInCache, LayerNotInCache, NotAcceptable, ResultTooLarge, RangeNotSatisfiable,
        PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// A cache as a file.
    CacheFileProblems = [InvalidQuery, CacheNotFound, RangeNotSatisfiable, Internal, BlobDamaged];
    /// Comparing caches.
    ComparisonProblems = [
        InvalidJson, InvalidBody, InvalidQuery, NotAcceptable, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, EmptyInput, ShapeMismatch, InvalidValue, Internal,
        BlobDamaged,
    ];
    /// Making a direction.
    CreateDirectionProblems = [
        InvalidJson, InvalidBody, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, Conflict, EmptyInput,
        UnknownCache, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch, InvalidValue,
        Internal, BlobDamaged, StoreFull,
    ];
    /// Reading a direction.
    DirectionProblems = [InvalidQuery, DirectionNotFound, Internal, BlobDamaged];
    /// Changing a direction.
    DirectionChangeProblems = [InvalidQuery, DirectionNotFound, Internal, StoreFull];
    /// Editing a direction.
    DirectionPatchProblems = [
        InvalidJson, InvalidBody, InvalidQuery, DirectionNotFound, BodyTooLarge, UnsupportedMediaType, InvalidValue,
        Internal, BlobDamaged, StoreFull,
    ];
    /// The vectors of a direction.
    DirectionTensorProblems = [
        InvalidQuery, DirectionNotFound, VectorNotInDirection, NotAcceptable, ResultTooLarge, RangeNotSatisfiable,
        Internal, BlobDamaged,
    ];
    /// Reading a cache as logits.
    LensProblems = [
        InvalidJson, InvalidBody, InvalidQuery, CacheNotFound, NotAcceptable, Conflict, BodyTooLarge, ResultTooLarge,
        UnsupportedMediaType, UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, NotReadable, EmptyInput,
        TokenOutOfVocabulary, TooManyTokens, InvalidValue, Internal, BlobDamaged, Unavailable,
    ];
    /// Taking a logit apart.
    AttributionProblems = [
        InvalidJson, InvalidBody, InvalidQuery, CacheNotFound, Conflict, BodyTooLarge, UnsupportedMediaType, HookNotStored,
        PositionOutOfRange, NotReadable, EmptyInput, TokenOutOfVocabulary, TooManyTokens, InvalidValue, Internal,
        BlobDamaged, Unavailable,
    ];
    /// Projecting caches onto directions.
    ProjectionProblems = [
        InvalidJson, InvalidBody, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache, UnknownDirection, EmptyInput,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Statistics of caches.
    StatisticsProblems = [
        InvalidJson, InvalidBody, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache, EmptyInput,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, ShapeMismatch, InvalidValue, Internal, BlobDamaged,
    ];
    /// Searching.
    SearchProblems = [
        InvalidJson, InvalidBody, InvalidQuery, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownCache, UnknownDirection, UnknownModel,
        UnknownHook, HookNotStored, LayerOutOfRange, PositionOutOfRange, EmptyInput, TooManyTokens, ShapeMismatch, InvalidValue,
        ClientQueueFull, QueueFull, Internal, BlobDamaged, WorkerFailed, Unavailable, StoreFull,
    ];
    /// Patching activations.
    PatchingProblems = [
        InvalidJson, InvalidBody, InvalidQuery, NotAcceptable, BodyTooLarge, ResultTooLarge, UnsupportedMediaType, UnknownModel,
        UnknownHook, LayerOutOfRange, PositionOutOfRange, NotReadable, EmptyInput, TokenOutOfVocabulary, TooManyTokens, NoBosToken,
        ShapeMismatch, InvalidValue, QueueFull, Internal, WorkerFailed, Unavailable,
    ];
    /// Reading a model.
    ModelProblems = [InvalidQuery, ModelNotFound];
    /// Anything with nothing but a query to refuse.
    QueryProblems = [InvalidQuery];
    /// Whether the server is ready.
    ReadyProblems = [InvalidQuery, Unavailable];
    /// Tokenising.
    TokenizeProblems = [
        InvalidJson, InvalidBody, InvalidQuery, BodyTooLarge, UnsupportedMediaType, UnknownModel, EmptyInput,
        TokenOutOfVocabulary, TooManyTokens, NoBosToken, NoChatTemplate, ChatTemplateFailed, InvalidValue, Internal, Unavailable,
    ];
}

fn responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    codes.iter().for_each(|c| by_status.entry(c.status()).or_default().push(*c));
    by_status
        .into_iter()
        .map(|(status, codes)| {
            let lines: Vec<String> = codes.iter().map(|c| format!("`{c}`: {}", c.title())).collect();
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemDto::name()))).build();
            let response =
                ResponseBuilder::new().description(lines.join("; ")).content("application/problem+json", content);
            (status.to_string(), RefOr::T(response.build()))
        })
        .collect()
}

/// The schema that every problem answer refers to, for the components.
pub fn schema() -> (String, utoipa::openapi::RefOr<utoipa::openapi::Schema>) {
    (ProblemDto::name().into_owned(), ProblemDto::schema())
}
