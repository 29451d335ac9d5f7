"""Access that Python makes with operators. `_async/access.py` is its counterpart. Written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._core.lazy import LazyArray
from .._core.tensors import Array

if TYPE_CHECKING:
    from .cache import Cache


class CacheAccess:
    """`cache[key]` fetches what is touched. With `keys()` it is enough for `dict(cache)`."""

    def __getitem__(self: Any, key: Any) -> Array:
        array: Array = self.get(key)
        return array

    def items(self: Any) -> Iterator[tuple[str, Array]]:
        """Full names and arrays; fetches everything in one request."""
        return iter(self.numpy().items())

    def values(self: Any) -> Iterator[Array]:
        """The arrays; fetches everything in one request."""
        return iter(self.numpy().values())


class Logits(LazyArray):
    """Logits that are computed when they are touched. Otherwise like a numpy array.

    Float32 `[pos, d_vocab]`, or `[d_vocab]` where one position was captured. `logits[-1]` fetches that position alone.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._one: dict[int, Array] = {}

    def _value(self) -> Array:
        if self._cache._logits_array is None:
            self._cache._logits_array = self._cache._read_logits()
        return self._cache._logits_array

    def at(self, position: int) -> Array:
        """Those of one captured row, float32 `[d_vocab]`, without fetching the others."""
        cache = self._cache
        if cache._logits_array is not None or cache._logits_rows() != cache.n_tokens:
            return self._value()[position]  # type: ignore[no-any-return]
        if not -cache.n_tokens <= position < cache.n_tokens:
            raise IndexError(f"position {position} is out of range: there are {cache.n_tokens}")
        position %= cache.n_tokens
        if position not in self._one:
            self._one[position] = cache._read_logits(position)
        return self._one[position]

    def __getitem__(self, key: Any) -> Any:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if isinstance(first, int) and self._cache._logits_rows() is not None:
            row = self.at(first)
            return row[rest] if rest else row
        return self._value()[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; learned from one row, without computing all."""
        rows = self._cache._logits_rows()
        if self._cache._logits_array is not None or rows is None or rows == 0:
            return self._value().shape
        return (rows, *self.at(-1).shape)

    def __repr__(self) -> str:
        if self._cache._logits_array is not None:
            return repr(self._cache._logits_array)
        return f"Logits of cache {self._cache.id}, computed when touched"
