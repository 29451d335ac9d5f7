"""Events of a run, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .._core.events import Event, EventParser
from .._core.problem import ConnectionFailed
from .._core.retry import backoff
from .._core.wire import path
from . import primitives

if TYPE_CHECKING:
    from .transport import AsyncTransport

ENDED = ("completed", "failed", "cancelled")


async def read_events(
    transport: AsyncTransport, method: str, where: str, parser: EventParser, **options: Any
) -> AsyncIterator[Event]:
    """The events of one connection, until the server closes it."""
    headers = {"Accept": "text/event-stream", **options.pop("headers", {})}
    async with transport.stream(method, where, headers=headers, **options) as response:
        async for line in response.aiter_lines():
            event = parser.line(line.rstrip("\r"))
            if event is not None:
                yield event


async def run_events(transport: AsyncTransport, run: str, last_event_id: str | None = None) -> AsyncIterator[Event]:
    """The events of a run until it has ended. A connection that breaks is made again, and what was missed is asked for.

    Raises:
        ConnectionFailed: The server was away for longer than the client's `reconnect`.
    """
    parser = EventParser(last_id=last_event_id)
    away_since: float | None = None
    attempt = 0
    while True:
        headers = {} if parser.last_id is None else {"Last-Event-ID": parser.last_id}
        try:
            async for event in read_events(transport, "GET", path("runs", run, "events"), parser, headers=headers):
                away_since, attempt = None, 0
                yield event
                if event.name == "run" and event.data["status"] in ENDED:
                    return
        except ConnectionFailed:
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since >= transport.config.reconnect:
                raise
        await primitives.sleep(backoff(min(attempt, 4)))
        attempt += 1
        parser = EventParser(last_id=parser.last_id)
