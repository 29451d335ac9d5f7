"""Which caches a question is about: what users pass, as the API takes it."""

from __future__ import annotations

from typing import Any

from .._core import arguments
from .capture import AsyncCapture
from .pages import AsyncPages


async def selection(value: Any) -> Any:
    """A selection of caches: ids or conditions. None stays None.

    A capture is waited for, and a list of the server is read to its end.
    """
    if value is None:
        return None
    if isinstance(value, AsyncCapture):
        await value.wait()
        if len(value.runs) == 1:
            return {"run": value.runs[0].id}
        return [cache.id async for cache in value.caches()]
    if isinstance(value, AsyncPages):
        return [cache.id async for cache in value]
    return arguments.caches(value)


async def groups(value: Any) -> Any:
    """Selections by name."""
    return None if value is None else {name: await selection(caches) for name, caches in value.items()}
