# Derived from `_async/selections.py` by `scripts/make_sync.py`: do not edit.
"""Which caches a question is about: what users pass, as the API takes it."""

from __future__ import annotations

from typing import Any

from .._core import arguments
from .capture import Capture
from .pages import Pages


def selection(value: Any) -> Any:
    """A selection of caches: ids or conditions. None stays None.

    A capture is waited for, and a list of the server is read to its end.
    """
    if value is None:
        return None
    if isinstance(value, Capture):
        value.wait()
        if len(value.runs) == 1:
            return {"run": value.runs[0].id}
        return [cache.id for cache in value.caches()]
    if isinstance(value, Pages):
        return [cache.id for cache in value]
    return arguments.caches(value)


def groups(value: Any) -> Any:
    """Selections by name."""
    return None if value is None else {name: selection(caches) for name, caches in value.items()}
