"""A bulk capture as runs: which inputs go into which run, and the key by which a run is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .dataset import Row
from .inputs import Item
from .problem import ResiduumError
from .wire import encode

MAX_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class FailedInput:
    """An input that has no cache.

    Attributes:
        index: Its number in the data set.
        code: The code of the error; `invalid_input` if the client refused it.
        detail: What is wrong with it.
    """

    index: int
    code: str
    detail: str


@dataclass
class Chunk:
    """The inputs of one run.

    Attributes:
        numbers: The number of each item in the data set.
        items: The items as they are posted; freed once the run has ended.
        first: The number of its first item, by which chunks are ordered.
        was_there: Whether the run had ended before it was posted.
        settled: Whether the run has ended and `missing` is known.
        missing: The places of the items that have no cache.
        n_reused: Number of items that were answered from the store.
    """

    numbers: list[int]
    items: list[Item] = field(repr=False)
    first: int = field(init=False)
    was_there: bool = False
    settled: bool = False
    missing: set[int] = field(default_factory=set)
    n_reused: int = 0

    def __post_init__(self) -> None:
        self.first = self.numbers[0]

    @property
    def done(self) -> list[int]:
        """The numbers of the inputs that have a cache."""
        return [n for place, n in enumerate(self.numbers) if place not in self.missing] if self.settled else []

    def drop(self, places: Mapping[int, Any]) -> None:
        """Takes items out, by their place in the chunk."""
        keep = [i for i in range(len(self.items)) if i not in places]
        self.numbers = [self.numbers[i] for i in keep]
        self.items = [self.items[i] for i in keep]

    def halves(self) -> list[Chunk]:
        """Two chunks in its place."""
        middle = len(self.items) // 2
        return [Chunk(self.numbers[:middle], self.items[:middle]), Chunk(self.numbers[middle:], self.items[middle:])]

    def key(self, body: Mapping[str, Any], attempt: int) -> str:
        """The idempotency key of its run: a hash of the request, so that the same content gives the same run."""
        digest = hashlib.sha256(encode(body)).hexdigest()[:40]
        return f"capture-{digest}" + (f"-{attempt}" if attempt else "")


def label_text(label: Any) -> str | None:
    """A label as the server stores it."""
    if label is None:
        return None
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


class Chunker:
    """Cuts rows into chunks, and keeps what is needed of each row: its label, or why it failed."""

    def __init__(self, rows: Iterator[Row], size: int) -> None:
        if size < 1:
            raise ValueError("chunk_size is at least 1")
        self._rows, self._size = rows, size
        self.labels: list[Any] = []
        self.failed: list[FailedInput] = []
        self.exhausted = False
        self._numbers: list[int] = []
        self._items: list[Item] = []
        self._bytes = 0
        self._interrupted = False

    @property
    def n_read(self) -> int:
        """Number of rows read so far."""
        return len(self.labels)

    def next(self) -> Chunk | None:
        """The next chunk; None at the end. After an interrupt it goes on with the rows it has read.

        Raises:
            ResiduumError: An interrupt hit the code that reads the data, which cannot go on then.
        """
        while len(self._items) < self._size and self._bytes < MAX_CHUNK_BYTES and not self.exhausted:
            if self._interrupted:
                raise ResiduumError(
                    "reading the data was interrupted. Call capture again with the same data: what is stored is found again"
                )
            self._interrupted = True
            row = next(self._rows, None)
            self._interrupted = False
            if row is None:
                self.exhausted = True
            else:
                self._add(row)
        if not self._items:
            return None
        chunk = Chunk(self._numbers, self._items)
        self._numbers, self._items, self._bytes = [], [], 0
        return chunk

    def _add(self, row: Row) -> None:
        number = len(self.labels)
        self.labels.append(row.label)
        if row.item is None:
            self.failed.append(FailedInput(number, "invalid_input", row.problem))
            return
        item = dict(row.item)
        label = label_text(row.label)
        if label is not None:
            item["label"] = label
        if row.metadata:
            item["metadata"] = row.metadata
        self._numbers.append(number)
        self._items.append(item)
        self._bytes += sum(len(v) if isinstance(v, str) else 8 * len(v) for v in item.values() if hasattr(v, "__len__"))
