"""Which rows a batch has: a function of the rows there are, a seed and an epoch, and of nothing else.

Rows are numbered in the order of the caches. They are read in chunks, each a range of rows of one tensor of the server.
An epoch permutes the chunks, cuts the rows, in that order, into windows of several batches, and permutes the rows within
each window. Windows belong to lanes, and batches take turns among the lanes: batch `b` comes from lane `b mod LANES`. So the
sequence of batches is the same however many processes make it, and with 1, 2 or 4 of them each window is read by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANES = 4

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Range:
    """Rows of a tensor of the server.

    Attributes:
        source: Index of the tensor.
        start: Its first row.
        stop: The row after the last.
        row: Number of the first row among all rows.
    """

    source: int
    start: int
    stop: int
    row: int


@dataclass(frozen=True)
class Chunks:
    """All rows, cut into ranges that are read together."""

    source: Integers
    start: Integers
    count: Integers
    row: Integers

    @staticmethod
    def of(ranges: Sequence[Range], longest: int) -> Chunks:
        """Cuts ranges into chunks of at most `longest` rows, of about equal length within a range."""
        parts: list[tuple[int, int, int, int]] = []
        for r in ranges:
            pieces = -(-(r.stop - r.start) // longest)
            edges = np.linspace(r.start, r.stop, pieces + 1).astype(np.int64)
            parts.extend((r.source, int(a), int(b - a), r.row + int(a) - r.start) for a, b in itertools.pairwise(edges))
        columns = np.array(parts, dtype=np.int64).reshape(-1, 4).T
        return Chunks(*columns)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.count.sum())


class EpochPlan:
    """The batches of one epoch.

    Attributes:
        n_batches: Their number.
        whole: Whether one window has all rows.
    """

    def __init__(
        self,
        chunks: Chunks,
        *,
        batch_size: int,
        buffer_batches: int,
        seed: int | None,
        epoch: int,
        drop_last: bool,
    ) -> None:
        """Plans an epoch.

        Args:
            chunks: The rows.
            batch_size: Rows of a batch.
            buffer_batches: How many batches are mixed at a time, in all lanes together.
            seed: None keeps the order of the rows.
            epoch: Epochs of one seed differ.
            drop_last: Whether a last batch with fewer rows is left out.
        """
        self._chunks, self._size, self._seed, self._epoch = chunks, batch_size, seed, epoch
        rows = chunks.n_rows
        self.n_batches = rows // batch_size if drop_last else -(-rows // batch_size)
        self.whole = rows <= buffer_batches * batch_size
        self._lanes = 1 if self.whole else min(LANES, buffer_batches)
        self._depth = max(1, self.n_batches if self.whole else buffer_batches // self._lanes)
        self._order = np.arange(len(chunks.count))
        if seed is None:  # in order: a window is the next batch, whoever makes it
            self._lanes, self._depth = 1, max(1, self.n_batches if self.whole else 1)
        else:
            self._generator(0).shuffle(self._order)
        # Where each chunk begins in the permuted sequence of rows.
        self._ends = np.cumsum(chunks.count[self._order])
        self._windows = self._window_starts(rows)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed or 0, self._epoch, *key])))

    def _window_starts(self, rows: int) -> Integers:
        batches = np.arange(self.n_batches)
        sizes = np.minimum(self._size, rows - batches * self._size)
        lane, place = batches % self._lanes, batches // self._lanes
        window = (place // self._depth) * self._lanes + lane
        per_window = np.bincount(window, weights=sizes).astype(np.int64) if self.n_batches else np.zeros(0, np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(per_window)])

    def window_of(self, batch: int) -> int:
        """The window that has the rows of a batch."""
        return (batch // self._lanes // self._depth) * self._lanes + batch % self._lanes

    def ranges(self, window: int) -> list[Range]:
        """What to read for a window, in the order of its rows before they are permuted."""
        start, stop = int(self._windows[window]), int(self._windows[window + 1])
        found = []
        i = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            chunk = int(self._order[i])
            skip = start - int(self._ends[i] - self._chunks.count[chunk])
            take = min(stop, int(self._ends[i])) - start
            first = int(self._chunks.start[chunk]) + skip
            found.append(
                Range(int(self._chunks.source[chunk]), first, first + take, int(self._chunks.row[chunk]) + skip)
            )
            start, i = start + take, i + 1
        return found

    def permutation(self, window: int) -> Integers:
        """The order in which the rows of a window are given out."""
        n = int(self._windows[window + 1] - self._windows[window])
        return np.arange(n) if self._seed is None else self._generator(1, window).permutation(n)

    def place_of(self, batch: int) -> slice:
        """Where in its window's permutation a batch is."""
        window = self.window_of(batch)
        place = (batch // self._lanes) % self._depth * self._size
        return slice(place, min(place + self._size, int(self._windows[window + 1] - self._windows[window])))


def merged(ranges: Sequence[Range]) -> list[Range]:
    """The ranges, those put together that follow each other in one tensor."""
    out: list[Range] = []
    for r in ranges:
        if out and (last := out[-1]).source == r.source and last.stop == r.start:
            out[-1] = Range(last.source, last.start, r.stop, last.row)
        else:
            out.append(r)
    return out
