"""Client of Residuum, an activation server for language models.

    import residuum as rs

    with rs.serve({"smollm2": "models/SmolLM2-135M-Instruct.Q4_1.gguf"}) as c:
        m = c.model("smollm2")
        logits, cache = m.run_with_cache("The Eiffel Tower is in the city of")
        cache["resid_post", 12]

`Client` and everything it gives have an async counterpart: `AsyncClient`.
"""

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

__all__ = [
    "AsyncCache",
    "AsyncCapture",
    "AsyncClient",
    "AsyncModel",
    "AsyncRun",
    "Cache",
    "Capture",
    "CaptureRows",
    "Client",
    "FailedInput",
    "LocalServer",
    "Model",
    "Rows",
    "Run",
    "Tensor",
    "Tokenized",
    "__version__",
    "interventions",
    "serve",
]
__all__ += errors.__all__
__all__ += results.__all__
