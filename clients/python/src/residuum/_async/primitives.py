"""What differs between the async and the sync client. `_sync/primitives.py` is its hand-written counterpart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import httpx

from .._core.config import Config


async def sleep(seconds: float) -> None:
    """Waits without blocking the event loop."""
    await asyncio.sleep(seconds)


def http_client(
    config: Config, headers: dict[str, str], transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """The connection pool of a client."""
    timeout = httpx.Timeout(config.timeout, connect=config.connect_timeout)
    return httpx.AsyncClient(
        base_url=config.url, headers=headers, timeout=timeout, transport=transport, trust_env=not config.is_local
    )


async def file_chunks(path: str | os.PathLike[str], size: int = 1 << 20) -> AsyncIterator[bytes]:
    """The bytes of a file, a part at a time. Reads in a thread."""
    file = await asyncio.to_thread(open, path, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, size):
            yield chunk
    finally:
        file.close()
