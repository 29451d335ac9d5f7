"""Requests as they go over the wire: query parameters, JSON bodies, paths, and the messages of connection errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import httpx

from .config import Config

Params = Mapping[str, Any]

JSON_TYPE = "application/json"
SAFETENSORS_TYPE = "application/vnd.safetensors"


def path(*segments: object) -> str:
    """`/v1/…` with every segment escaped, so that an id with a slash stays one segment."""
    return "/v1/" + "/".join(quote(str(s), safe="") for s in segments)


def query(params: Params | None) -> httpx.QueryParams:
    """Query parameters: None is left out, a list repeats its parameter, times are RFC 3339 in UTC."""
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None:
            continue
        values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        pairs.extend((name, _text(v)) for v in values)
    return httpx.QueryParams(tuple(pairs))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return timestamp(value)
    return str(value)


def timestamp(value: datetime | str) -> str:
    """RFC 3339. A time without a zone is local time, as everywhere in Python."""
    return value if isinstance(value, str) else value.astimezone(timezone.utc).isoformat()


def compact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None: the server has its own defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def encode(body: Any) -> bytes:
    """A JSON body. Takes numpy and torch numbers and arrays, pydantic models, times and sets as well.

    Raises:
        ValueError: NaN and infinities are not JSON.
        TypeError: The value has no JSON form.
    """
    try:
        text = json.dumps(body, default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as e:
        if "JSON compliant" in str(e):
            raise ValueError("a request cannot contain NaN or infinity") from None
        raise
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, such as from os.fsdecode
        raise ValueError("a text contains a surrogate code point, which is not valid Unicode") from None


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return list(value)
    raise TypeError(f"a request cannot contain {value!r}: {type(value).__name__} has no JSON form")


def unreachable(config: Config, reason: object) -> str:
    """What to say where nobody answers."""
    return (
        f"no server at {config.url} ({reason}).\n"
        "  Start one with `residuum serve --model ID=PATH`, or from Python with\n"
        '  `residuum.serve({"ID": "PATH"})`. If it runs elsewhere, set RESIDUUM_URL or pass url= to the client.'
    )
