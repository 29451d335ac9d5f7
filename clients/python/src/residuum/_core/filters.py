"""Conditions on caches, as query parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .wire import compact

NAMES = (
    "model",
    "run",
    "tag",
    "label",
    "hook",
    "created_from",
    "created_to",
    "expires_from",
    "expires_to",
    "text",
    "pinned",
)


class DeletedCaches(NamedTuple):
    """What `delete_caches` did."""

    deleted: int
    kept_pinned: int


def cache_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Query parameters of conditions.

    Raises:
        TypeError: There is no such condition.
    """
    filters = dict(filters)
    if "tags" in filters:
        filters["tag"] = filters.pop("tags")
    metadata: Mapping[str, Any] = filters.pop("metadata", None) or {}
    unknown = [name for name in filters if name not in NAMES]
    if unknown:
        raise TypeError(f"there is no condition {unknown[0]!r}; there are {', '.join(NAMES)} and metadata")
    run = filters.get("run")
    if run is not None:
        filters["run"] = getattr(run, "id", run)
    if hasattr(filters.get("model"), "id"):
        filters["model"] = filters["model"].id
    return {**compact(filters), **{f"metadata.{key}": json.dumps(value) for key, value in metadata.items()}}
