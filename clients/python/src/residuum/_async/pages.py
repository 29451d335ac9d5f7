"""Lists of the server, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

from .transport import AsyncTransport

T = TypeVar("T")


class AsyncPages(Generic[T]):
    """Everything a list has, fetched a page at a time while one iterates.

    Iterating again starts anew. `first()` gives one, `all()` a list.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        path: str,
        params: Mapping[str, Any],
        make: Callable[[dict[str, Any]], T],
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 0:
            raise ValueError("limit cannot be negative")
        self._transport, self._path, self._params, self._make = transport, path, dict(params), make
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[T]:
        left = self._limit
        cursor: str | None = None
        while left is None or left > 0:
            size = 200 if left is None else min(left, 200)
            page = await self._page(limit=size, cursor=cursor)
            for item in page["items"]:
                yield self._make(item)
            cursor = page.get("next_cursor")
            if left is not None:
                left -= len(page["items"])
            if cursor is None:
                return

    async def first(self) -> T | None:
        """The first one; None if there is none."""
        async for item in AsyncPages(self._transport, self._path, self._params, self._make, 1):
            return item
        return None

    async def all(self) -> list[T]:
        """All of them."""
        return [item async for item in self]

    async def frame(self) -> Any:
        """All of them as a pandas table, one row each, with the fields that the server describes them with."""
        import pandas as pd

        return pd.DataFrame([item.data async for item in self])  # type: ignore[attr-defined]

    async def count(self) -> int:
        """How many there are, whatever `limit` says. Only caches can be counted without listing them."""
        page = await self._page(limit=1, count=True)
        return int(page["total"])

    async def _page(self, **params: Any) -> dict[str, Any]:
        page: dict[str, Any] = await self._transport.json("GET", self._path, params={**self._params, **params})
        return page
