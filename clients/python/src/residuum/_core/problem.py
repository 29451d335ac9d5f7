"""The bases of all errors. Classes by code are in `codes.py`; `residuum.errors` has both.

ResiduumError
├── ConnectionFailed            no answer arrived
│   ├── ServerUnreachable       nobody listens at the URL
│   └── AnswerTimedOut          the server did not answer in time
├── RunFailed                   a run ended as failed or cancelled
├── NotLoaded, TensorError, ServeError, UnexpectedAnswer
└── ApiError                    the server answered with an error
    ├── BadRequestError         400   (also a ValueError)
    ├── AuthenticationError     401
    ├── PermissionDeniedError   403
    ├── NotFoundError           404   (also a LookupError)
    ├── ConflictError           409, 412
    ├── TooLargeError           413
    ├── UnprocessableError      422   (also a ValueError)
    ├── RateLimitError          429
    └── ServerError             5xx
        └── UnavailableError    503
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ResiduumError(Exception):
    """The base of every error of this package."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return str(self.args[0]) if self.args else self.__class__.__name__


class ConnectionFailed(ResiduumError, ConnectionError):
    """The connection broke before the answer was complete."""


class ServerUnreachable(ConnectionFailed):
    """No server answers at the URL. The message says how to start one."""


class AnswerTimedOut(ConnectionFailed, TimeoutError):
    """The server did not answer within the timeout of the client."""


class UnexpectedAnswer(ResiduumError):
    """What answered is not a Residuum server, or a proxy changed the answer."""


class TensorError(ResiduumError, ValueError):
    """A tensor could not be read from an answer or a file, or cannot be represented."""


class NotLoaded(ResiduumError, RuntimeError):
    """An array of an async cache was used before it was awaited."""


class ServeError(ResiduumError, RuntimeError):
    """A local server could not be started or did not become ready. The message ends with its log."""


@dataclass(frozen=True)
class FieldError:
    """One field at fault."""

    pointer: str
    """JSON pointer into the body (`/input/37`), or the name of a query parameter."""
    detail: str
    """What is wrong with it, and what would be right."""


class ApiError(ResiduumError):
    """The server answered with an error (RFC 9457).

    Attributes:
        code: The stable spelling of the error, such as `layer_out_of_range`.
        status: The HTTP status.
        title: A short title, the same for every occurrence.
        detail: What was wrong here, and what would be right.
        errors: The fields at fault, if any.
        retry_after: Seconds after which the server suggests to try again.
        request_id: The id of the request in the server's log.
        request: Method and path of the request.
    """

    code: str = "unknown"
    status: int = 0
    title: str = "The server answered with an error"
    _advice: ClassVar[str] = ""

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        status: int | None = None,
        title: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        request_id: str | None = None,
        request: str | None = None,
    ) -> None:
        self.detail = detail or self.title
        self.code = code or self.code
        self.status = status or self.status
        self.title = title or self.title
        self.errors = list(errors)
        self.retry_after = retry_after
        self.request_id = request_id
        self.request = request
        super().__init__(self._message())

    def _message(self) -> str:
        lines = [f"{self.detail} [{self.status} {self.code}]"]
        lines += [f"  {e.pointer}: {e.detail}" for e in self.errors if e.pointer and e.detail != self.detail]
        lines += [f"  at {e.pointer}" for e in self.errors if e.pointer and e.detail == self.detail]
        if self._advice:
            lines.append(f"  {self._advice}")
        return "\n".join(lines)

    @property
    def pointer(self) -> str | None:
        """The pointer of the first field at fault."""
        return self.errors[0].pointer if self.errors else None


class BadRequestError(ApiError, ValueError):
    """400: the request does not have the documented form."""

    status = 400


class AuthenticationError(ApiError):
    """401: no valid API key."""

    status = 401
    _advice = "Set RESIDUUM_API_KEY, or pass api_key= to the client."


class PermissionDeniedError(ApiError):
    """403: the key, or the server's settings, do not allow this."""

    status = 403


class NotFoundError(ApiError, LookupError):
    """404: there is no such thing."""

    status = 404


class ConflictError(ApiError):
    """409 or 412: the state of the resource does not allow this."""

    status = 409


class TooLargeError(ApiError):
    """413: the request or its result is larger than this server allows."""

    status = 413


class UnprocessableError(ApiError, ValueError):
    """422: understood, but not possible."""

    status = 422


class RateLimitError(ApiError):
    """429: the queue, or this client's part of it, is full."""

    status = 429


class ServerError(ApiError):
    """5xx: the server could not do it."""

    status = 500


class UnavailableError(ServerError):
    """503: the server cannot do it now."""

    status = 503


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: TooLargeError,
    422: UnprocessableError,
    429: RateLimitError,
    503: UnavailableError,
}


def class_for(code: str | None, status: int) -> type[ApiError]:
    """The class of a code; for a code this client does not know, the class of its status."""
    from .codes import BY_CODE

    known = BY_CODE.get(code or "")
    if known is not None:
        return known
    return _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)


def api_error(
    body: Any,
    status: int,
    *,
    retry_after: float | None = None,
    request_id: str | None = None,
    request: str | None = None,
) -> ApiError:
    """The error that an answer stands for. `body` is its JSON, or its text where it is not JSON."""
    problem: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    if isinstance(problem.get("error"), Mapping):  # OpenAI's shape
        problem = {"detail": problem["error"].get("message"), "code": problem["error"].get("code")}
    code = problem.get("code")
    code = code if isinstance(code, str) else None
    detail = problem.get("detail") or problem.get("title")
    if not detail:
        text = body.strip() if isinstance(body, str) else ""
        detail = f"the answer is not one of a Residuum server: {text[:200]}" if text else f"status {status}"
    raw = problem.get("errors")
    errors = [
        FieldError(str(e.get("pointer", "")), str(e.get("detail", "")))
        for e in (raw if isinstance(raw, list) else [])
        if isinstance(e, Mapping)
    ]
    title = problem.get("title")
    return class_for(code, status)(
        str(detail),
        code=code,
        status=status,
        title=title if isinstance(title, str) else None,
        errors=errors,
        retry_after=retry_after,
        request_id=request_id,
        request=request,
    )


class RunFailed(ResiduumError, RuntimeError):
    """A run ended as failed or cancelled.

    Attributes:
        run_id: The run.
        status: `failed` or `cancelled`.
        problem: Why, as the server says it; None for a cancelled run.
    """

    def __init__(self, run_id: str, status: str, problem: ApiError | None = None) -> None:
        self.run_id, self.status, self.problem = run_id, status, problem
        reason = f": {problem.detail} [{problem.code}]" if problem else ""
        super().__init__(f"run {run_id} {status if status == 'failed' else 'was ' + status}{reason}")
