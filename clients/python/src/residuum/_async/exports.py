"""Exports: one hook of many caches, as rows in memory or as a file."""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from .._core.rows import Rows, export_params, join_rows, parse_rows
from .download import download
from .transport import AsyncTransport


async def read_rows(
    transport: AsyncTransport,
    path: str,
    hook: Any,
    layer: int | None,
    position: Any,
    dtype: str | None,
    params: dict[str, Any] | None = None,
) -> Rows:
    """The rows of an export, in the order of the server. An export that comes in shards is put together."""
    query = {**(params or {}), **export_params(hook, layer, position, dtype)}
    response = await transport.request("GET", path, params=query)
    if "tar" not in response.headers.get("content-type", ""):
        return parse_rows(response.content)
    del response  # a tar is read from a file instead, a shard at a time
    with tempfile.TemporaryDirectory(prefix="residuum-") as folder:
        file = Path(folder) / "export.tar"
        await download(transport, "GET", path, file, params=query)
        return read_shards(file)


def read_shards(file: Path) -> Rows:
    """The rows of an exported tar of safetensors files."""
    parts = []
    with tarfile.open(file) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                continue
            if member.name.endswith(".safetensors"):
                parts.append(parse_rows(content.read()))
            elif member.name.endswith("manifest.json"):
                expected = json.load(content)["n_rows"]
    rows = join_rows(parts)
    if len(rows) != expected:
        raise ValueError(f"the export has {len(rows)} rows, and its manifest says {expected}")
    return rows
