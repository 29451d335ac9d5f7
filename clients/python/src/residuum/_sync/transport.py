# Derived from `_async/transport.py` by `scripts/make_sync.py`: do not edit.
"""Sends requests: retries, timeouts, keys, and errors as exceptions. Everything else goes through it."""

from __future__ import annotations

import json as jsonlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .._core.config import Config
from .._core.problem import (
    AnswerTimedOut,
    ApiError,
    ConnectionFailed,
    ResiduumError,
    ServerUnreachable,
    UnexpectedAnswer,
    api_error,
)
from .._core.retry import Retries, retry_after_seconds
from .._core.version import USER_AGENT
from .._core.wire import JSON_TYPE, Params, encode, query, unreachable
from . import primitives

REFUSED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
BROKEN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)

Content = Callable[[], Iterator[bytes]]


class Transport:
    """The connection of one client to its server."""

    def __init__(self, config: Config, transport: httpx.BaseTransport | None = None) -> None:
        self.config = config
        headers = {"User-Agent": USER_AGENT, **config.headers}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        self._headers, self._custom = headers, transport
        self._http = primitives.http_client(config, headers, transport)
        self._process = os.getpid()
        self._was_reached = False

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer; None for an answer without a body. Options are those of `request`."""
        response = self.request(method, path, **options)
        if not response.content:
            return None
        try:
            return jsonlib.loads(response.content)
        except ValueError:
            raise UnexpectedAnswer(f"{method} {path}: the answer is not JSON: {response.text[:200]!r}") from None

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A whole answer. Options are those of `stream`.

        Raises:
            ApiError: The server answered with an error; the class is that of its code.
            ServerUnreachable: Nobody answers at the URL.
            ConnectionFailed: The connection broke, and the request may not be repeated.
        """
        retries = self._retries(method, options)
        while True:
            try:
                with self._open(method, path, retries, **options) as response:
                    response.read()
                    return response
            except BROKEN as e:  # in the middle of the body
                self._pause(retries.after_broken(time.monotonic()), self._broken(e))
            except httpx.TimeoutException as e:
                raise self._timed_out(e) from e

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        content: Content | bytes | None = None,
        headers: dict[str, str] | None = None,
        idempotent: bool | None = None,
        timeout: float | None = None,
        reconnect: float | None = None,
        patient: bool = True,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read by the caller, for downloads and events.

        Args:
            method: The HTTP method.
            path: The path, from `wire.path`.
            params: Query parameters; None is left out and a list repeats its parameter.
            json: A body that is sent as JSON.
            content: Another body: bytes, or a function that gives its parts anew for every try.
            headers: Further headers.
            idempotent: Whether sending it twice is harmless; by default for GET, HEAD, PUT and DELETE, and for
                anything with an `Idempotency-Key`.
            timeout: Seconds to wait for the answer, instead of the client's.
            reconnect: Seconds for which the server may be away, instead of the client's.
            patient: False: it is tried once.
        """
        options = {
            "params": params,
            "json": json,
            "content": content,
            "headers": headers,
            "idempotent": idempotent,
            "timeout": timeout,
            "reconnect": reconnect,
            "patient": patient,
        }
        with self._open(method, path, self._retries(method, options), **options) as response:
            try:
                yield response
            except BROKEN as e:
                raise self._broken(e) from e
            except httpx.TimeoutException as e:
                raise self._timed_out(e) from e

    def _retries(self, method: str, options: dict[str, Any]) -> Retries:
        headers = {name.lower() for name in options.get("headers") or {}}
        idempotent = options.get("idempotent")
        if idempotent is None:
            idempotent = method in ("GET", "HEAD", "PUT", "DELETE") or "idempotency-key" in headers
        reconnect = options.get("reconnect")
        patient = options.get("patient", True)
        return Retries(
            idempotent=idempotent and patient,
            max_retries=self.config.max_retries if patient else 0,
            reconnect=self.config.reconnect if reconnect is None else reconnect,
            was_reached=self._was_reached and patient,
        )

    @contextmanager
    def _open(self, method: str, path: str, retries: Retries, **options: Any) -> Iterator[httpx.Response]:
        """Tries until there is an answer that is a success, or an error that is final."""
        while True:
            request = self._build(method, path, **options)
            try:
                response = self._pool().send(request, stream=True)
            except REFUSED as e:
                self._pause(retries.after_refused(time.monotonic()), self._refused(e))
                continue
            except BROKEN as e:
                self._pause(retries.after_broken(time.monotonic()), self._broken(e))
                continue
            except httpx.TimeoutException as e:
                raise self._timed_out(e) from e
            except httpx.HTTPError as e:
                raise ConnectionFailed(f"{method} {path}: {e}") from e
            self._was_reached = retries.was_reached = True
            if response.status_code < 400:
                break
            error = self._error(method, path, response)
            self._pause(retries.after_status(error.status, error.code, response.headers), error)
        try:
            yield response
        finally:
            response.close()

    def _build(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        content: Content | bytes | None = None,
        headers: dict[str, str] | None = None,
        idempotent: bool | None = None,
        timeout: float | None = None,
        reconnect: float | None = None,
        patient: bool = True,
    ) -> httpx.Request:
        headers = dict(headers or {})
        body: Any = content() if callable(content) else content
        if json is not None:
            body = json if isinstance(json, bytes) else encode(json)
            headers.setdefault("Content-Type", JSON_TYPE)
        limits: Any = httpx.USE_CLIENT_DEFAULT
        if timeout is not None:
            limits = httpx.Timeout(timeout, connect=self.config.connect_timeout)
        return self._pool().build_request(
            method, path, params=query(params) or None, content=body, headers=headers, timeout=limits
        )

    def _pool(self) -> httpx.Client:
        """The connections; new ones after a fork, because two processes cannot share one."""
        if self._process != os.getpid():
            self._http = primitives.http_client(self.config, self._headers, self._custom)
            self._process = os.getpid()
        return self._http

    def _pause(self, delay: float | None, error: ResiduumError) -> None:
        if delay is None:
            raise error
        primitives.sleep(delay)

    def _error(self, method: str, path: str, response: httpx.Response) -> ApiError:
        try:
            response.read()
            try:
                body = jsonlib.loads(response.content)
            except ValueError:
                body = response.text
        except httpx.HTTPError:
            body = ""
        finally:
            response.close()
        return api_error(
            body,
            response.status_code,
            retry_after=retry_after_seconds(response.headers),
            request_id=response.headers.get("x-request-id"),
            request=f"{method} {path}",
        )

    def _refused(self, e: Exception) -> ServerUnreachable:
        error = ServerUnreachable(unreachable(self.config, str(e) or type(e).__name__))
        error.__cause__ = e
        return error

    def _broken(self, e: Exception) -> ConnectionFailed:
        error = ConnectionFailed(f"the connection to {self.config.url} broke before the answer was complete: {e}")
        error.__cause__ = e
        return error

    def _timed_out(self, e: Exception) -> AnswerTimedOut:
        return AnswerTimedOut(
            f"{self.config.url} did not answer in time ({type(e).__name__}); a longer timeout= of the client helps "
            "if the answer is large or the server is busy"
        )
