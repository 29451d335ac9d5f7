"""When a request is repeated, and after how long. Neither async nor sync: it only decides."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DELAY = 0.25
LONGEST_DELAY = 10.0
LONGEST_RETRY_AFTER = 120.0


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header: a number, or a date."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def backoff(attempt: int) -> float:
    """Seconds before repetition number `attempt` (from 0): doubling, with half of it left to chance."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0**attempt)
    return longest * (0.5 + 0.5 * random.random())


@dataclass
class Retries:
    """The repetitions of one request.

    A refused connection says nothing about the request, which was not sent: it is repeated if the server had been
    reached before. A connection that broke later is repeated only if the request may be sent twice.
    """

    idempotent: bool
    max_retries: int
    reconnect: float
    was_reached: bool
    attempt: int = 0
    away_attempt: int = 0
    away_since: float | None = None

    def after_status(self, status: int, code: str | None, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait before the next try; None: give up and report the answer."""
        self.away_since, self.away_attempt = None, 0
        if status not in (429, 503) or self.attempt >= self.max_retries:
            return None
        # The server had begun to work on it: only what may be done twice is sent again.
        if code == "timed_out" and not self.idempotent:
            return None
        asked = retry_after_seconds(headers)
        if asked is not None and asked > LONGEST_RETRY_AFTER:
            return None
        delay = backoff(self.attempt)
        self.attempt += 1
        return delay if asked is None else asked + 0.1 * delay

    def after_refused(self, now: float) -> float | None:
        """As `after_status`, where no connection could be made."""
        if not self.was_reached:
            return None
        return self._while_away(now)

    def after_broken(self, now: float) -> float | None:
        """As `after_status`, where the connection broke after the request was sent."""
        if not self.idempotent:
            return None
        return self._while_away(now)

    def _while_away(self, now: float) -> float | None:
        if self.away_since is None:
            self.away_since = now
        if now - self.away_since >= self.reconnect:
            return None
        delay = backoff(min(self.away_attempt, 4))
        self.away_attempt += 1
        return delay
