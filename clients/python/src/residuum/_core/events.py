"""Server-sent events: the lines of a stream, put together."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        name: Its name, such as `run`, `token`, `progress`.
        data: Its data, parsed.
        id: Its number, if it has one; a client that reconnects names the last one it has.
    """

    name: str
    data: Any
    id: str | None = None


@dataclass
class EventParser:
    """Makes events of lines: feed each line to `line`, which returns an event when one is complete."""

    name: str = "message"
    last_id: str | None = None
    _id: str | None = None
    _lines: list[str] = field(default_factory=list)

    def line(self, line: str) -> Event | None:
        """Takes the next line, without its end."""
        if not line:
            return self._complete()
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            self.name = value
        elif key == "data":
            self._lines.append(value)
        elif key == "id":
            self._id = value
        return None

    def _complete(self) -> Event | None:
        event = Event(self.name, json.loads("\n".join(self._lines)), self._id) if self._lines else None
        if event is not None and self._id is not None:
            self.last_id = self._id
        self.name, self._id, self._lines = "message", None, []
        return event
