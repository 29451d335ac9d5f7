"""What differs between the async and the sync client. `_async/primitives.py` is its counterpart. Written by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import httpx

from .._core.config import Config


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def http_client(config: Config, headers: dict[str, str], transport: httpx.BaseTransport | None) -> httpx.Client:
    """The connection pool of a client."""
    timeout = httpx.Timeout(config.timeout, connect=config.connect_timeout)
    return httpx.Client(
        base_url=config.url, headers=headers, timeout=timeout, transport=transport, trust_env=not config.is_local
    )


def file_chunks(path: str | os.PathLike[str], size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a file, a part at a time."""
    with open(path, "rb") as file:
        while chunk := file.read(size):
            yield chunk
