"""Where the server is and how patient the client is. Neither async nor sync."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Config:
    """Settings of one client.

    Attributes:
        url: Address of the server, without a slash at the end.
        api_key: Sent as `Authorization: Bearer …`; None for a server without keys.
        timeout: Seconds to wait for the start of an answer, and for each next part of it.
        connect_timeout: Seconds to wait for a connection.
        max_retries: How often a request is repeated after a 429, a 503 or a dropped connection.
        reconnect: Seconds for which a server that was there before may be away (restarted) before a request fails.
        progress: Whether progress bars are shown where a call does not say; None: on a terminal and in a notebook.
        headers: Sent with every request.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    connect_timeout: float = 10.0
    max_retries: int = 6
    reconnect: float = 60.0
    progress: bool | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that a proxy of the environment is not asked."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")


def configure(
    url: str | None,
    api_key: str | None,
    *,
    timeout: float,
    max_retries: int,
    reconnect: float,
    progress: bool | None,
    headers: dict[str, str] | None,
) -> Config:
    """Settings from arguments, else from `RESIDUUM_URL` and `RESIDUUM_API_KEY`."""
    url = url or os.environ.get("RESIDUUM_URL") or DEFAULT_URL
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the address of a server starts with http:// or https://: {url!r}")
    key = api_key if api_key is not None else os.environ.get("RESIDUUM_API_KEY")
    return Config(
        url=url.rstrip("/"),
        api_key=key.strip() or None if key else None,
        timeout=timeout,
        max_retries=max_retries,
        reconnect=reconnect,
        progress=progress,
        headers=dict(headers or {}),
    )
