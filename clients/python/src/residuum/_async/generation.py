"""Continuations: one request, or tokens as they are chosen."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .._core.problem import RunFailed
from .._core.results.generation import GenerationInfo, TokenEvent, grouped
from .cache import AsyncCache
from .events import run_events

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .client import AsyncClient
    from .run import AsyncRun


class AsyncGeneration(GenerationInfo):
    """A continuation and its cache, which has the prompt and what was generated."""

    def __init__(self, cache: AsyncCache) -> None:
        super().__init__(cache, cache.data["completion"])
        self.cache = cache


async def generations(run: AsyncRun, n_inputs: int, single: bool) -> Any:
    """The continuations of a run that has ended, as the caller asked for them.

    Raises:
        RunFailed: It failed, or some of its inputs did.
    """
    caches = await run.caches().all()
    if len(caches) < run.n_items and run.status != "cancelled":
        raise RunFailed(run.id, f"completed with {run.n_failed} of {run.n_items} inputs failed", None)
    found = [AsyncGeneration(cache) for cache in caches]
    if len(found) < run.n_items:
        return found
    return grouped(found, n_inputs, single)


class AsyncTokenStream:
    """Tokens as the model chooses them: `async for token in stream`.

    A connection that breaks is made again, and nothing is lost or repeated. When the iteration is over, `result()`
    gives the continuations with their caches.

    Closing it before the end, also by leaving its `with` block, cancels the run: the model stops, and what was written
    until then stays as a cache. Leaving a plain loop by `break` closes nothing, and the run goes on.
    """

    def __init__(self, client: AsyncClient, run: AsyncRun, n_inputs: int, single: bool) -> None:
        self._client, self._n_inputs, self._single = client, n_inputs, single
        self.run = run
        self._texts: dict[int, str] = {}
        self._counts: dict[int, int] = {}
        self._events = self._follow()

    @property
    def text(self) -> str:
        """What has come so far, of the first item."""
        return self._texts.get(0, "")

    @property
    def texts(self) -> list[str]:
        """What has come so far, of each item."""
        return [self._texts.get(i, "") for i in range(max(self.run.n_items, len(self._texts)))]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        return await self._events.__anext__()

    async def _follow(self) -> AsyncIterator[TokenEvent]:
        async for event in run_events(self._client.transport, self.run.id):
            if event.name == "token":
                token = TokenEvent.read(event.data)
                self._note(token)
                yield token
            elif event.name == "completion" and event.data["text"]:
                # The rest, which was held back while a text of `stop` might have begun.
                self._texts[event.data["item"]] = self._texts.get(event.data["item"], "") + event.data["text"]
                yield TokenEvent(
                    "", -1, event.data["text"], -1, None, *(event.data[k] for k in ("index", "sample", "item"))
                )
        await self.run.refresh()
        async for token in self._missed():
            self._note(token)
            yield token
        self.run.check() if self.run.status == "failed" else None

    def _note(self, token: TokenEvent) -> None:
        self._texts[token.item] = self._texts.get(token.item, "") + token.text
        self._counts[token.item] = self._counts.get(token.item, 0) + 1

    async def _missed(self) -> AsyncIterator[TokenEvent]:
        """Tokens chosen while there was no connection, where the run ended before there was one again."""
        for cache in await self.run.caches().all():
            item = cache.item_index
            completion = cache.data.get("completion")
            if not completion or self._counts.get(item, 0) >= len(completion["token_ids"]):
                continue
            rest = completion["text"][len(self._texts.get(item, "")) :]
            logprobs = completion.get("logprobs") or [None] * len(completion["token_ids"])
            for i in range(self._counts.get(item, 0), len(completion["token_ids"])):
                at = completion["first_position"] + i
                number, text = completion["token_ids"][i], cache.tokens[at]
                yield TokenEvent(
                    text, number, rest, at, logprobs[i], item // completion["n"], completion["sample"], item
                )
                rest = ""

    async def result(self) -> Any:
        """The continuations, as `generate` returns them without `stream`. Waits for the end."""
        async for _ in self:
            pass
        return await generations(self.run, self._n_inputs, self._single)

    async def aclose(self) -> None:
        """Ends it. A run that has not ended is cancelled."""
        await self._events.aclose()  # type: ignore[attr-defined]
        if not self.run.ended:
            await self.run.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
            return
        with contextlib.suppress(Exception):  # the first error is the one to report
            await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(run {self.run.id}, {self.run.status})"
