"""Client of Residuum, an activation server for language models.

    import residuum as rs

    with rs.serve({"smollm2": "models/SmolLM2-135M-Instruct.Q4_1.gguf"}) as c:
        m = c.model("smollm2")
        logits, cache = m.run_with_cache("The Eiffel Tower is in the city of")
        cache["resid_post", 12]

`Client` and everything it gives have an async counterpart: `AsyncClient`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import errors, interventions, results
from ._async.cache import AsyncCache
from ._async.capture import AsyncCapture
from ._async.client import AsyncClient
from ._async.model import AsyncModel
from ._async.run import AsyncRun
from ._core.chunks import FailedInput
from ._core.rows import CaptureRows, Rows
from ._core.tensors import Tensor
from ._core.tokens import Tokenized
from ._core.version import __version__
from ._sync.cache import Cache
from ._sync.capture import Capture
from ._sync.client import Client
from ._sync.model import Model
from ._sync.run import Run
from .errors import *  # noqa: F403
from .results import *  # noqa: F403
from .server import LocalServer, serve

if TYPE_CHECKING:
    from . import models as models
    from . import torch as torch
else:

    def __getattr__(name: str) -> Any:
        # Imported when they are used: `torch` needs PyTorch, and `models` takes a moment.
        if name in ("models", "torch"):
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AnswerTimedOut",
    "ApiError",
    "AsyncCache",
    "AsyncCapture",
    "AsyncClient",
    "AsyncDirection",
    "AsyncDirections",
    "AsyncGeneration",
    "AsyncModel",
    "AsyncRun",
    "AsyncSae",
    "AsyncSaes",
    "AsyncSteeredModel",
    "AsyncTokenStream",
    "Attribution",
    "AuthenticationError",
    "BadRequestError",
    "Cache",
    "Capture",
    "CaptureRows",
    "Client",
    "Comparison",
    "ConflictError",
    "ConnectionFailed",
    "Direction",
    "Directions",
    "FailedInput",
    "FeatureHits",
    "Features",
    "FieldError",
    "Generation",
    "Hit",
    "LocalServer",
    "LogitLens",
    "Measures",
    "Model",
    "NotFoundError",
    "NotLoaded",
    "Part",
    "Patching",
    "PermissionDeniedError",
    "Projections",
    "RateLimitError",
    "ResiduumError",
    "Rows",
    "Run",
    "RunFailed",
    "Sae",
    "Saes",
    "SearchResult",
    "ServeError",
    "ServerError",
    "ServerUnreachable",
    "Statistics",
    "SteeredModel",
    "Tensor",
    "TensorError",
    "TokenEvent",
    "TokenStream",
    "Tokenized",
    "TooLargeError",
    "UnavailableError",
    "UnexpectedAnswer",
    "UnprocessableError",
    "__version__",
    "errors",
    "interventions",
    "results",
    "serve",
]

# The classes by code, listed by `scripts/make_errors.py`:
__all__ += [
    "ApiKeyInvalid",
    "ApiKeyRequired",
    "BlobDamaged",
    "BodyTooLarge",
    "BosMismatch",
    "CacheNotFound",
    "CannotGenerate",
    "ChatTemplateFailed",
    "ClientQueueFull",
    "Conflict",
    "DirectionNotFound",
    "EmptyInput",
    "FilterMissing",
    "HeadersTooLarge",
    "HookNotInCache",
    "HookNotStored",
    "HostNotAllowed",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidBody",
    "InvalidCursor",
    "InvalidField",
    "InvalidHeader",
    "InvalidJson",
    "InvalidQuery",
    "InvalidSafetensors",
    "InvalidValue",
    "LayerNotInCache",
    "LayerOutOfRange",
    "LoadFailed",
    "LoadingOff",
    "MethodNotAllowed",
    "ModelNotFound",
    "NoBosToken",
    "NoChatTemplate",
    "NotAcceptable",
    "NotEnoughMemory",
    "NotReadable",
    "OriginNotAllowed",
    "PositionOutOfRange",
    "PreconditionFailed",
    "QueueFull",
    "RangeNotSatisfiable",
    "RequestTimeout",
    "ResultTooLarge",
    "RouteNotFound",
    "RunNotFound",
    "SaeNotFound",
    "ScopeMissing",
    "ServerBusy",
    "ShapeMismatch",
    "StoreFull",
    "TextNotFound",
    "TimedOut",
    "TokenOutOfVocabulary",
    "TooManyItems",
    "TooManyRunTokens",
    "TooManyTokens",
    "Unavailable",
    "UnknownCache",
    "UnknownDirection",
    "UnknownHook",
    "UnknownModel",
    "UnknownSae",
    "UnknownSource",
    "UnsupportedMediaType",
    "VectorNotInDirection",
    "WorkerFailed",
]
