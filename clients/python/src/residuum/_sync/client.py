# Derived from `_async/client.py` by `scripts/make_sync.py`: do not edit.
"""The client: where everything starts."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from .._core.codes import FilterMissing
from .._core.config import Config, configure
from .._core.filters import DeletedCaches, cache_filters
from .._core.wire import compact, path
from .cache import Cache
from .client_models import ClientModels
from .client_questions import ClientQuestions
from .pages import Pages
from .run import Run
from .transfer import Transfer
from .transport import Transport

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Client(ClientModels, Transfer, ClientQuestions):
    """A connection to a Residuum server.

    Use it as a context manager, or close it, to give its connections back. It may be shared by threads and tasks.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 120.0,
        max_retries: int = 6,
        reconnect: float = 60.0,
        progress: bool | None = None,
        headers: dict[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: Address of the server: `RESIDUUM_URL`, else `http://127.0.0.1:8080`.
            api_key: `RESIDUUM_API_KEY` by default; `""` for none.
            timeout: Seconds to wait for the start of an answer, and for each next part of it.
            max_retries: How often a request is repeated after a 429 or a 503. `Retry-After` is honoured.
            reconnect: Seconds for which a server that has answered before may be away, as while it is restarted.
            progress: Whether calls show progress bars; None: on a terminal and in a notebook.
            headers: Sent with every request.
            transport: Another way to send requests, such as `httpx.MockTransport`.
        """
        self.config: Config = configure(
            url,
            api_key,
            timeout=timeout,
            max_retries=max_retries,
            reconnect=reconnect,
            progress=progress,
            headers=headers,
        )
        self._custom = transport
        self.transport = Transport(self.config, transport)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.config.url

    def close(self) -> None:
        """Closes the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # For worker processes. Connections do not travel; the API key does.
        return restored, (Client, self.config)

    # Runs

    def post_run(
        self, body: Mapping[str, Any], *, wait: float | None = None, idempotency_key: str | None = None
    ) -> Run:
        """Queues a run with a body as the API takes it. It is repeated safely where the connection breaks.

        Args:
            body: The body of `POST /v1/runs`.
            wait: Seconds to wait for its end.
            idempotency_key: The same key with the same body gives the run that was made first; random by default.
        """
        answer = self.transport.json(
            "POST",
            path("runs"),
            params={"wait": wait},
            json=body,
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            timeout=None if wait is None else wait + self.config.timeout,
        )
        return Run(self, answer)

    def dry_run(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a run would store: tokens, shapes and bytes. Nothing is queued."""
        answer: dict[str, Any] = self.transport.json(
            "POST", path("runs"), params={"dry_run": True}, json=body, idempotent=True
        )
        return answer

    def compute(
        self, body: Mapping[str, Any], *, timeout: float | None = None, progress: bool | None = None
    ) -> list[Cache]:
        """Runs a body to its end and gives the caches, in the order of the inputs. An interrupt cancels the run.

        Raises:
            RunFailed: The run failed, or was cancelled.
            AnswerTimedOut: It has not ended within `timeout`; it is cancelled.
        """
        key = str(uuid.uuid4())
        try:
            run = self.post_run(body, idempotency_key=key)
        except BaseException as interrupt:
            # The server may have the run already. The same key gives the id that the interrupted answer would have given.
            if not isinstance(interrupt, Exception):
                with contextlib.suppress(Exception):
                    (self.post_run(body, idempotency_key=key)).cancel()
            raise
        run.wait(timeout, progress=progress, cancel_on_interrupt=True)
        run.check()
        return run.caches().all()

    def run(self, id: str) -> Run:
        """One run."""
        return Run(self, self.transport.json("GET", path("runs", id)))

    def runs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        tag: str | Sequence[str] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
        limit: int | None = None,
    ) -> Pages[Run]:
        """Runs, newest first."""
        params = compact(
            {
                "status": status,
                "model": model,
                "tag": tag,
                "created_from": created_from,
                "created_to": created_to,
            }
        )
        return Pages(self.transport, path("runs"), params, lambda data: Run(self, data), limit)

    # Caches

    def cache(self, id: str) -> Cache:
        """One cache."""
        return Cache(self, self.transport.json("GET", path("caches", id)))

    def caches(self, *, limit: int | None = None, order: str | None = None, **filters: Any) -> Pages[Cache]:
        """Caches that meet all conditions, fetched a page at a time.

        Args:
            limit: At most so many.
            order: `desc`, newest first, which is the default; `asc`, oldest first.
            filters: `model`, `run`, `tag` (one or several), `label`, `hook` (full names), `text` (words and quoted phrases),
                `metadata` (a dict; a dot leads into an object), `pinned`, `created_from`, `created_to`, `expires_from`,
                `expires_to`.
        """
        params = {"order": order, **cache_filters(filters)}
        return Pages(self.transport, path("caches"), params, lambda data: Cache(self, data), limit)

    def delete_caches(self, **filters: Any) -> DeletedCaches:
        """Deletes the caches that meet all conditions, those of `caches`. Pinned ones are kept, unless `pinned=True`.

        To see what would be deleted, ask `caches(…).count()` before.

        Returns:
            `(deleted, kept_pinned)`: how many.

        Raises:
            FilterMissing: There is no condition.
        """
        params = cache_filters(filters)
        if not params:
            raise FilterMissing("without a condition nothing is deleted: give at least one, such as tag=")
        answer = self.transport.json("DELETE", path("caches"), params=params)
        return DeletedCaches(int(answer["deleted"]), int(answer["kept_pinned"]))


def restored(kind: type[Client], config: Config) -> Client:
    """A client with these settings, in another process."""
    client = kind(config.url, config.api_key or "")
    client.config, client.transport = config, Transport(config)
    return client
