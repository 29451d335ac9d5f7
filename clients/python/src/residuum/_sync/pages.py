# Derived from `_async/pages.py` by `scripts/make_sync.py`: do not edit.
"""Lists of the server, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from .transport import Transport

T = TypeVar("T")


class Pages(Generic[T]):
    """Everything a list has, fetched a page at a time while one iterates.

    Iterating again starts anew. `first()` gives one, `all()` a list.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        params: Mapping[str, Any],
        make: Callable[[dict[str, Any]], T],
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 0:
            raise ValueError("limit cannot be negative")
        self._transport, self._path, self._params, self._make = transport, path, dict(params), make
        self._limit = limit

    def __iter__(self) -> Iterator[T]:
        left = self._limit
        cursor: str | None = None
        while left is None or left > 0:
            size = 200 if left is None else min(left, 200)
            page = self._page(limit=size, cursor=cursor)
            for item in page["items"]:
                yield self._make(item)
            cursor = page.get("next_cursor")
            if left is not None:
                left -= len(page["items"])
            if cursor is None:
                return

    def first(self) -> T | None:
        """The first one; None if there is none."""
        for item in Pages(self._transport, self._path, self._params, self._make, 1):
            return item
        return None

    def all(self) -> list[T]:
        """All of them."""
        return [item for item in self]

    def frame(self) -> Any:
        """All of them as a pandas table, one row each, with the fields that the server describes them with."""
        import pandas as pd

        return pd.DataFrame([item.data for item in self])  # type: ignore[attr-defined]

    def count(self) -> int:
        """How many there are, whatever `limit` says. Only caches can be counted without listing them."""
        page = self._page(limit=1, count=True)
        return int(page["total"])

    def _page(self, **params: Any) -> dict[str, Any]:
        page: dict[str, Any] = self._transport.json("GET", self._path, params={**self._params, **params})
        return page
