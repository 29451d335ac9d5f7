"""Every error of the client: the bases, and one class for each of the server's codes.

All of them are in `residuum` as well: `rs.LayerOutOfRange`, `rs.NotFoundError`, `rs.ServerUnreachable`.
"""

from ._core import codes
from ._core.codes import *  # noqa: F403
from ._core.codes import BY_CODE as BY_CODE
from ._core.problem import (
    AnswerTimedOut,
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ConnectionFailed,
    FieldError,
    NotFoundError,
    NotLoaded,
    PermissionDeniedError,
    RateLimitError,
    ResiduumError,
    RunFailed,
    ServeError,
    ServerError,
    ServerUnreachable,
    TensorError,
    TooLargeError,
    UnavailableError,
    UnexpectedAnswer,
    UnprocessableError,
)

__all__ = [
    "AnswerTimedOut",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "ConflictError",
    "ConnectionFailed",
    "FieldError",
    "NotFoundError",
    "NotLoaded",
    "PermissionDeniedError",
    "RateLimitError",
    "ResiduumError",
    "RunFailed",
    "ServeError",
    "ServerError",
    "ServerUnreachable",
    "TensorError",
    "TooLargeError",
    "UnavailableError",
    "UnexpectedAnswer",
    "UnprocessableError",
]
__all__ += codes.__all__
