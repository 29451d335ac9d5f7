# Derived from `_async/exports.py` by `scripts/make_sync.py`: do not edit.
"""Exports: one hook of many caches, as rows in memory or as a file."""

from __future__ import annotations

import json
import tarfile
import tempfile
from typing import IO, Any

from .._core.problem import ConnectionFailed, UnexpectedAnswer
from .._core.rows import Rows, export_params, join_rows, parse_rows
from .transport import Transport


def read_rows(
    transport: Transport,
    path: str,
    hook: Any,
    layer: int | None,
    position: Any,
    dtype: str | None,
    params: dict[str, Any] | None = None,
) -> Rows:
    """The rows of an export, in the order of the server. An export that comes in shards is put together."""
    query = {**(params or {}), **export_params(hook, layer, position, dtype)}
    for last in (False, True):
        try:
            with transport.stream("GET", path, params=query) as response:
                if "tar" not in response.headers.get("content-type", ""):
                    return parse_rows(response.read())
                return _sharded(response)
        except ConnectionFailed:
            if last:
                raise
    raise AssertionError("unreachable")


def _sharded(response: Any) -> Rows:
    """An export that comes as a tar: it goes into a file, and is read from there a shard at a time."""
    with tempfile.TemporaryFile(prefix="residuum-") as file:
        for part in response.iter_bytes(1 << 20):
            file.write(part)
        file.seek(0)
        return read_shards(file)


def read_shards(file: IO[bytes]) -> Rows:
    """The rows of an exported tar of safetensors files."""
    parts: list[Rows] = []
    expected = None
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                continue
            if member.name.endswith(".safetensors"):
                parts.append(parse_rows(content.read()))
            elif member.name.endswith("manifest.json"):
                expected = json.load(content)["n_rows"]
    n_rows = sum(map(len, parts))
    if expected is None or n_rows != expected:
        raise UnexpectedAnswer(f"the export has {n_rows} rows, and should have {expected}: it was cut short")
    return join_rows(parts)
