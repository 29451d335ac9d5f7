# Derived from `_async/capture.py` by `scripts/make_sync.py`: do not edit.
"""Capturing a data set: as many runs as it takes, some of them in flight at a time."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import show
from .._core.chunks import Chunk, Chunker, FailedInput
from .._core.codes import RunNotFound
from .._core.dataset import Row
from .._core.problem import (
    AnswerTimedOut,
    ApiError,
    ConnectionFailed,
    RateLimitError,
    TooLargeError,
    UnavailableError,
)
from .._core.progress import progress_bar
from .._core.rows import CaptureRows
from .._core.tensors import Array
from .._core.wire import path
from . import primitives
from .cache import Cache
from .capture_rows import read_capture_rows
from .run import LONG_POLL, Run

if TYPE_CHECKING:
    from .client import Client

MAX_ATTEMPTS = 20
MAX_WAITS = 60


class Capture:
    """The capture of a data set.

    Some runs are in flight at any time; `wait()` posts the others as these end. A capture continues where it stopped: each
    run has a key made of its content, so the same call with the same data finds the runs that are there, also from another
    process, and computes only what is missing. Interrupting `wait()` loses nothing: call it again.

    Attributes:
        failed: Inputs without a cache, with the reason, in the order in which they failed.
    """

    def __init__(
        self,
        client: Client,
        body: dict[str, Any],
        rows: Iterator[Row],
        *,
        total: int | None,
        chunk_size: int,
        max_in_flight: int,
        reconnect: float,
        progress: bool | None,
    ) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight is at least 1")
        self._client, self._body, self._total = client, body, total
        self._chunker = Chunker(rows, chunk_size)
        self._max_in_flight, self._reconnect, self._progress = max_in_flight, reconnect, progress
        self._pending: deque[Chunk] = deque()  # cut, but not accepted yet
        self._in_flight: deque[tuple[Chunk, Run]] = deque()
        self._ended: list[tuple[Chunk, Run]] = []
        self._cancelled = False
        self.failed: list[FailedInput] = []

    # Progress

    @property
    def ended(self) -> bool:
        """Whether every input has a cache or has failed, or the capture was cancelled."""
        return self._cancelled or (self._chunker.exhausted and not self._pending and not self._in_flight)

    @property
    def n_inputs(self) -> int | None:
        """Number of inputs; None if it is not known yet."""
        return self._chunker.n_read if self._chunker.exhausted else self._total

    @property
    def runs(self) -> list[Run]:
        """The runs posted so far, in the order of the inputs."""
        return [run for _, run in self._ordered(with_flying=True)]

    @property
    def n_done(self) -> int:
        """Number of inputs that have a cache."""
        return sum(run.n_done for _, run in self._in_flight) + sum(len(chunk.done) for chunk, _ in self._ended)

    @property
    def n_reused(self) -> int:
        """Number of inputs for which nothing was computed: their activations were stored, or their run was there."""
        return sum(len(chunk.done) if chunk.was_there else chunk.n_reused for chunk, _ in self._ended)

    @property
    def n_failed(self) -> int:
        """Number of inputs that have failed."""
        return len(self.failed)

    @property
    def index(self) -> NDArray[np.int64]:
        """The numbers of the inputs that have a cache, in order: one for each row of `matrix`, if inputs have one row."""
        numbers = [n for chunk, _ in self._ordered() for n in chunk.done]
        return np.array(numbers, dtype=np.int64)

    def _ordered(self, *, with_flying: bool = False) -> list[tuple[Chunk, Run]]:
        pairs = [*self._ended, *(self._in_flight if with_flying else ())]
        return sorted(pairs, key=lambda pair: pair[0].first)

    @property
    def labels(self) -> list[Any]:
        """The labels of all inputs read so far, failed ones too, as they were given."""
        return list(self._chunker.labels)

    # Working

    def start(self) -> Capture:
        """Posts the first runs. `capture` has done so already."""
        self._fill()
        return self

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Capture:
        """Posts what is left, and waits until all runs have ended.

        Args:
            timeout: Seconds to wait at most; for ever by default.
            progress: Whether a bar is shown; None: as the capture says, else on a terminal and in a notebook.

        Raises:
            AnswerTimedOut: It has not ended within `timeout`. Call it again to go on.
            ConnectionFailed: The server was away for longer than `reconnect` seconds. Call it again to go on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with progress_bar(self.n_inputs, f"capture {self._body['model']}", self._shown(progress), unit="input") as bar:
            reached = time.monotonic()
            while not self.ended:
                self._show(bar)
                if end is not None and time.monotonic() >= end:
                    raise AnswerTimedOut(f"the capture has not ended within {timeout} s; call wait() again to go on")
                step = LONG_POLL if bar.disable else 1.0
                try:
                    self._fill()
                    if self._in_flight:
                        self._advance(step if end is None else max(0.0, min(step, end - time.monotonic())))
                    reached = time.monotonic()
                except ConnectionFailed:
                    if time.monotonic() - reached > self._reconnect:
                        raise
                    primitives.sleep(1.0)
            self._show(bar)
        return self

    def _shown(self, progress: bool | None) -> bool | None:
        """Whether bars are shown: as the call says, else the capture, else the client."""
        return next((p for p in (progress, self._progress, self._client.config.progress) if p is not None), None)

    def _show(self, bar: Any) -> None:
        bar.total = self.n_inputs
        bar.update(self.n_done + self.n_failed - bar.n)
        if self.failed:
            bar.set_postfix(failed=self.n_failed, refresh=False)

    def _fill(self) -> None:
        """Posts runs until enough are in flight."""
        while len(self._in_flight) < self._max_in_flight and not self._cancelled:
            if not self._pending:
                if self._chunker.exhausted:
                    return
                chunk = self._chunker.next()
                self._take_failed()
                if chunk is None:
                    return
                self._pending.append(chunk)
            if not self._post(self._pending[0]):
                return

    def _take_failed(self) -> None:
        self.failed += self._chunker.failed
        self._chunker.failed = []

    def _post(self, chunk: Chunk) -> bool:
        """Posts the first pending chunk. False if the queue is full and runs are in flight, whose end makes room."""
        waits = 0
        while chunk.items:
            try:
                run = self._accepted(chunk)
            except (RateLimitError, UnavailableError) as e:
                waits += 1
                if self._in_flight:
                    return False
                if waits > MAX_WAITS:
                    raise
                primitives.sleep(min(30.0, e.retry_after or 5.0))
            except TooLargeError as e:
                self._pending.popleft()
                if len(chunk.items) == 1:
                    self.failed.append(FailedInput(chunk.numbers[0], e.code, e.detail))
                else:
                    self._pending.extendleft(reversed(chunk.halves()))
                return True
            except ApiError as e:
                bad = faults(e, len(chunk.items))
                if not bad:
                    raise
                self.failed += [FailedInput(chunk.numbers[i], e.code, detail) for i, detail in bad.items()]
                chunk.drop(bad)
            else:
                self._pending.popleft()
                self._in_flight.append((chunk, run))
                return True
        self._pending.popleft()
        return True

    def _accepted(self, chunk: Chunk) -> Run:
        """The run of a chunk: one that is there already, or a new one in place of one that failed or lost its caches."""
        body = {**self._body, "items": chunk.items}
        for attempt in range(MAX_ATTEMPTS):
            run = self._client.post_run(body, idempotency_key=chunk.key(body, attempt))
            chunk.was_there = run.ended
            if not run.ended or (run.status == "completed" and self._is_whole(run)):
                return run
        return self._client.post_run(body)  # enough of looking: what is stored is reused in any case

    def _is_whole(self, run: Run) -> bool:
        """Whether the caches of a run that ended earlier are still there. They can expire, or be deleted."""
        params = {"run": run.id, "count": True, "limit": 1}
        page = self._client.transport.json("GET", path("caches"), params=params)
        return int(page["total"]) >= run.n_items

    def _advance(self, seconds: float) -> None:
        """Waits for the oldest run, for at most so many seconds, and settles what has ended."""
        chunk, run = self._in_flight[0]
        try:
            run.refresh(wait=None if run.ended else seconds)
        except RunNotFound:  # deleted by somebody, or the server lost its data
            self._in_flight.popleft()
            self._pending.appendleft(chunk)
            return
        if run.ended:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        """Finds the inputs of the oldest run, which has ended, that have no cache."""
        chunk, run = self._in_flight[0]
        if run.n_done < len(chunk.items):
            there = {cache.item_index for cache in run.caches()}
            error = run.data.get("error") or {}
            code = str(error.get("code") or run.status)
            detail = str(error.get("detail") or f"its run {run.status} before it was computed")
            chunk.missing = set(range(len(chunk.items))) - there
            self.failed += [FailedInput(chunk.numbers[i], code, detail) for i in sorted(chunk.missing)]
        chunk.settled, chunk.n_reused, chunk.items = True, run.n_reused, []
        self._in_flight.popleft()
        self._ended.append((chunk, run))

    def cancel(self) -> Capture:
        """Cancels the runs in flight and posts no more. What is stored stays; the same call of `capture` goes on."""
        self._cancelled = True
        self._pending.clear()
        while self._in_flight:
            try:
                self._in_flight[0][1].cancel()
                self._settle_oldest()
            except RunNotFound:
                self._in_flight.popleft()
        return self

    def delete(self) -> None:
        """Deletes all its runs with their caches, after cancelling those in flight."""
        self.cancel()
        for run in self.runs:
            with contextlib.suppress(RunNotFound):
                run.delete()

    # Results

    def caches(self) -> Iterator[Cache]:
        """The caches, in the order of the inputs."""
        self.wait()
        for run in self.runs:
            for cache in run.caches():
                yield cache

    def rows(
        self,
        hook: str = "resid_post",
        layer: int | None = None,
        *,
        position: Any = None,
        dtype: str | None = None,
        progress: bool | None = None,
    ) -> CaptureRows:
        """One hook of all inputs as rows: `.X`, `.y`, and for each row its input, position and token.

        Arguments are those of `matrix`.
        """
        self.wait(progress=progress)
        return read_capture_rows(
            self._client.transport,
            self._ordered(),
            self._chunker.labels,
            hook,
            layer,
            position,
            dtype,
            self._shown(progress),
        )

    def matrix(
        self,
        hook: str = "resid_post",
        layer: int | None = None,
        *,
        position: Any = None,
        dtype: str | None = None,
        progress: bool | None = None,
    ) -> tuple[Array, Array | None]:
        """One hook of all inputs as a matrix, and the labels. Waits for the end of the capture first.

        Args:
            hook: A hook.
            layer: Its layer, if the name does not say.
            position: One row of each input (`"last"`, `"mean"`, `5`, `-1`) where several were captured; all by default.
            dtype: The type of the values; as stored by default.
            progress: Whether bars are shown; None: as the capture says, else on a terminal and in a notebook.

        Returns:
            `X`, `[rows, …]`, and `y`, `[rows]`: in the order of the inputs, failed ones left out of both. `y` has the labels
            as they were given; None if there are none. `index` has the number of the input of each row if inputs have one
            row, and `rows(…).index` always.
        """
        rows = self.rows(hook, layer, position=position, dtype=dtype, progress=progress)
        return rows.X, rows.y

    def __repr__(self) -> str:
        return show.capture_text(self)

    def _repr_html_(self) -> str:
        return show.capture_html(self)


def faults(error: ApiError, n_items: int) -> dict[int, str]:
    """The items that a refusal points to, with what is wrong with each."""
    found: dict[int, str] = {}
    for field in error.errors:
        parts = field.pointer.split("/")
        if len(parts) > 2 and parts[1] == "items" and parts[2].isdigit() and int(parts[2]) < n_items:
            found[int(parts[2])] = field.detail or error.detail
    return found
