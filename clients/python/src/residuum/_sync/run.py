# Derived from `_async/run.py` by `scripts/make_sync.py`: do not edit.
"""A run: its status, waiting for it, cancelling it, and the caches it made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._core.events import Event
from .._core.problem import AnswerTimedOut, RunFailed, api_error
from .._core.progress import progress_bar
from .._core.run_info import RunInfo
from .._core.wire import path
from .cache import Cache
from .events import run_events
from .pages import Pages

if TYPE_CHECKING:
    from .._core.rows import Rows
    from .._core.tensors import Array
    from .client import Client

LONG_POLL = 20.0


class Run(RunInfo):
    """One request to compute."""

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        self._client = client
        self._data = data

    def refresh(self, wait: float | None = None) -> Run:
        """Asks for the current status; with `wait`, once it has ended or after so many seconds."""
        timeout = None if wait is None else wait + self._client.config.timeout
        self._data = self._client.transport.json("GET", path("runs", self.id), params={"wait": wait}, timeout=timeout)
        return self

    def wait(
        self, timeout: float | None = None, *, progress: bool | None = None, cancel_on_interrupt: bool = False
    ) -> Run:
        """Waits until the run has ended, however it ends: look at `status`, or call `check()`.

        Args:
            timeout: Seconds to wait at most; for ever by default.
            progress: Whether a bar is shown; None: for several inputs, on a terminal and in a notebook.
            cancel_on_interrupt: Whether Ctrl-C, or the cancellation of the task, cancels the run on the server.

        Raises:
            AnswerTimedOut: The run has not ended within `timeout`. It goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        progress = self._client.config.progress if progress is None else progress
        show = progress if progress is not None or self.n_items > 1 else False
        try:
            with progress_bar(self.n_items, self.model_id, show) as bar:
                while True:
                    bar.update(self.n_done + self.n_failed - bar.n)
                    if self.ended:
                        return self
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        raise AnswerTimedOut(f"run {self.id} has not ended within {timeout} s; it goes on")
                    step = LONG_POLL if bar.disable else 0.5
                    self.refresh(wait=step if left is None else min(step, left))
        except BaseException:
            if cancel_on_interrupt and not self.ended:
                with contextlib.suppress(Exception):
                    self.cancel()
            raise

    def check(self) -> Run:
        """Raises if the run has failed or was cancelled.

        Raises:
            RunFailed: With the problem that the server names.
        """
        if self.status in ("failed", "cancelled"):
            error = self._data.get("error")
            problem = api_error(error, int(error.get("status", 0))) if error else None
            raise RunFailed(self.id, self.status, problem)
        return self

    def events(self, last_event_id: str | None = None) -> Iterator[Event]:
        """The events of the run until it has ended: `run` for progress, `token` for generated tokens.

        A connection that breaks is made again, and nothing is missed. Each event has `name`, `data` and `id`.
        """
        return run_events(self._client.transport, self.id, last_event_id)

    def cancel(self) -> Run:
        """Cancels it: the computation stops. A run that has ended is not changed."""
        self._data = self._client.transport.json("POST", path("runs", self.id, "cancel"), idempotent=True)
        return self

    def delete(self) -> None:
        """Deletes it with its caches."""
        self._client.transport.request("DELETE", path("runs", self.id))

    def caches(self, limit: int | None = None) -> Pages[Cache]:
        """Its caches, in the order of the inputs; a failed input has none."""
        return Pages(
            self._client.transport, path("runs", self.id, "caches"), {}, lambda d: Cache(self._client, d), limit
        )

    def cache(self, number: int = 0) -> Cache:
        """The cache of one input, by its number in the run.

        Raises:
            IndexError: The run has no such input, or it failed.
        """
        wanted = number + self.n_items if number < 0 else number
        for cache in self.caches(wanted + 1):
            if cache.item_index == wanted:
                return cache
        raise IndexError(f"run {self.id} has no cache for input {number}: {self.n_done} of {self.n_items} have one")

    def top_tokens(self, k: int = 10) -> list[dict[str, Any]]:
        """The most probable next tokens of the first hundred caches, of a run that captured `logits`.

        Returns:
            For each cache `{cache, position, missing, tokens: [{id, token, probability, logit}]}`.
        """
        params = {"include": "top_tokens", "top_k": k}
        answer = self._client.transport.json("GET", path("runs", self.id), params=params)
        return list(answer["top_tokens"])

    def rows(
        self, hook: str = "resid_post", *, layer: int | None = None, position: Any = None, dtype: str | None = None
    ) -> Rows:
        """One hook of all caches as rows: `.X`, and what each row belongs to. See `matrix`."""
        from .exports import read_rows

        return read_rows(self._client.transport, path("runs", self.id, "export"), hook, layer, position, dtype)

    def matrix(
        self, hook: str = "resid_post", *, layer: int | None = None, position: Any = None, dtype: str | None = None
    ) -> tuple[Array, Array]:
        """One hook of all caches as a matrix, and the label of each row.

        Args:
            hook: A hook.
            layer: Its layer, if the name does not say.
            position: One row of each cache (`"last"`, `"mean"`, `5`, `-1`); every stored row by default.
            dtype: The type of the values; as stored by default.

        Returns:
            `X`, `[rows, …]` in the order of the inputs, and `y`, the labels (None where a cache has none).
        """
        rows = self.rows(hook, layer=layer, position=position, dtype=dtype)
        return rows.X, rows.labels
