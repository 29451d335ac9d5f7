"""Access that Python makes with operators, which cannot await. `_sync/access.py` is the hand-written counterpart."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from .._core.problem import NotLoaded
from .._core.tensors import Array

if TYPE_CHECKING:
    from .cache import AsyncCache


class CacheAccess:
    """`cache[key]` gives what was loaded before."""

    def __getitem__(self: Any, key: Any) -> Array:
        name = self.resolve(key)
        if name not in self._tensors:
            raise NotLoaded(f"{name} is not loaded yet: `await cache.get({key!r})`, or `await cache.load()` before")
        array: Array = self._tensors[name].numpy()
        return array


class AsyncLogits:
    """Logits that are computed when they are awaited: `await cache.logits`; one position: `await cache.logits.at(-1)`."""

    def __init__(self, cache: AsyncCache) -> None:
        self._cache = cache

    def __await__(self) -> Generator[Any, None, Array]:
        return self.get().__await__()

    async def get(self) -> Array:
        """All of them: float32 `[pos, d_vocab]`, or `[d_vocab]` where one position was captured."""
        cache = self._cache
        if cache._logits_array is None:
            cache._logits_array = await cache._read_logits()
        return cache._logits_array

    async def at(self, position: int) -> Array:
        """Those of one captured row, float32 `[d_vocab]`, without fetching the others."""
        cache = self._cache
        if cache._logits_array is not None or cache._logits_rows() != cache.n_tokens:
            return (await self.get())[position]  # type: ignore[no-any-return]
        if not -cache.n_tokens <= position < cache.n_tokens:
            raise IndexError(f"position {position} is out of range: there are {cache.n_tokens}")
        return await cache._read_logits(position)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        if self._cache._logits_array is None:
            raise NotLoaded("the logits are not computed yet: `await cache.logits`")
        return self._cache._logits_array if dtype is None else self._cache._logits_array.astype(dtype)

    def __repr__(self) -> str:
        return f"AsyncLogits of cache {self._cache.id}, computed when awaited"
