"""Stored activations as training data for PyTorch.

from residuum.torch import ActivationDataset
from torch.utils.data import DataLoader

data = ActivationDataset(c, hook="resid_post", layer=12, tag="pile", batch_size=4096, shuffle_seed=0)
for epoch in range(3):
    data.set_epoch(epoch)
    for x in DataLoader(data, batch_size=None, num_workers=2):     # x: [4096, d_model]
        ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as e:
    raise ImportError(f"residuum.torch needs PyTorch, pip install 'residuum[torch]' ({e})") from None

from ._core.config import Config
from ._core.row_plan import Chunks, EpochPlan, Range, merged
from ._core.row_source import RowSource, StoreChanged, find_rows
from ._sync.client import Client

__all__ = ["ActivationDataset", "StoreChanged"]

_NUMPY: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
# Requests that one process has under way.
_AT_ONCE = 4


class ActivationDataset(IterableDataset[Any]):  # type: ignore[misc,unused-ignore]
    """Rows of one hook of many stored caches, in batches.

    Which caches take part is decided once, when it is made; what is stored later is not seen, and a cache that is
    deleted meanwhile is an error, never a silent gap. Rows are read from the server as they are needed.

    * **Shuffle.** Every epoch has every row once. Chunks of rows are drawn in random order, and the rows of
      `buffer_batches` batches are mixed at a time. If all rows fit into that, the order is a uniform permutation, and
      they are read once and kept. Without a seed rows come in the order in which they were stored.
    * **Deterministic.** The sequence of batches depends on the stored rows, `batch_size`, `buffer_batches`,
      `chunk_rows`, the seed and the epoch: not on the number of workers, nor on how they are started.
    * **Workers.** Pass it to a `DataLoader` with `batch_size=None`. Each worker has a connection of its own; forking and
      spawning both work. With 1, 2 or 4 workers each row is read once; with other numbers some are read by several.
    * **Epochs.** `set_epoch(n)` before each; it reaches workers that persist. Without it all epochs are the same.

    Attributes:
        cache_ids: The caches, by run, oldest first, and in the order of the inputs.
        n_rows: Number of rows.
        row_shape: Shape of a row, such as `(576,)`, or `(9, 64)` for a hook with heads.
        dtype: Type of the batches.
    """

    def __init__(
        self,
        client: Client,
        hook: str = "resid_post",
        layer: int | None = None,
        *,
        tag: str | list[str] | None = None,
        batch_size: int = 4096,
        shuffle_seed: int | None = None,
        caches: Any = None,
        position: str | int | None = None,
        dtype: str | None = None,
        drop_last: bool = False,
        buffer_batches: int = 32,
        chunk_rows: int = 512,
        return_index: bool = False,
        rank: int = 0,
        world_size: int = 1,
        **filters: Any,
    ) -> None:
        """Finds the caches that take part.

        Args:
            client: The client; its address and key are used, not its connections.
            hook: The hook, by a full name or a short one with `layer`.
            layer: The layer.
            tag: Caches with this tag, or all of these tags.
            batch_size: Rows of a batch; the last one may have fewer.
            shuffle_seed: A seed; None keeps the stored order.
            caches: Instead of conditions: caches, ids, or a capture.
            position: One row of each cache: `"last"`, `"mean"` or a position. Every stored row by default.
            dtype: Type of the values; as stored by default, float32 if the caches differ.
            drop_last: Whether a last batch with fewer rows is left out.
            buffer_batches: Batches that are mixed at a time, and the size of the buffer of all workers together.
            chunk_rows: Rows that are read together, at most: fewer mix better, more are faster.
            return_index: Whether batches are `(rows, index)`: for every row the index of its cache in `cache_ids`.
            rank: For training in several processes: which of them this is. Each has its share of the batches.
            world_size: For training in several processes: how many they are.
            filters: Further conditions, as of `client.caches`: `model`, `run`, `label`, `text`, `metadata`, ….

        Raises:
            ValueError: No cache meets the conditions, the shapes of rows differ, or an argument makes no sense.
        """
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("buffer_batches", buffer_batches, 1),
            ("chunk_rows", chunk_rows, 1),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        if not isinstance(client, Client):
            raise TypeError(f"an ActivationDataset needs a residuum.Client, not {type(client).__name__}")
        if caches is not None and (tag is not None or filters):
            raise TypeError("give caches or conditions, not both")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is from 0 to {world_size - 1}, not {rank}")
        found = find_rows(client, hook, layer, position, dtype, caches, {"tag": tag, **filters})
        self._config: Config = client.config
        self._sources: list[RowSource] = found.sources
        self.cache_ids: list[str] = found.cache_ids
        self._starts = found.starts
        self._chunks = Chunks.of(found.ranges, chunk_rows)
        self.hook: str = found.hook
        self.n_rows: int = self._chunks.n_rows
        self.row_shape: tuple[int, ...] = found.row_shape
        self._kind: str = found.dtype
        self.dtype: torch.dtype = getattr(torch, found.dtype)
        self.batch_size, self.shuffle_seed, self.drop_last = batch_size, shuffle_seed, drop_last
        self.buffer_batches, self.return_index = buffer_batches, return_index
        self.rank, self.world_size = rank, world_size
        # Shared with workers that persist: epoch, first batch.
        self._progress = torch.zeros(2, dtype=torch.int64)
        self._progress.share_memory_()  # type: ignore[no-untyped-call,unused-ignore]
        self._forget()

    def _forget(self) -> None:
        """What belongs to one process alone."""
        self._client: Client | None = None
        self._pid = 0
        self._kept: np.ndarray[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_pid": 0, "_kept": None}

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Chooses the epoch that the next iteration gives.

        Args:
            epoch: Its number.
            first_batch: Batches to leave out at its beginning, to go on where a training stopped.
        """
        if epoch < 0 or first_batch < 0:
            raise ValueError("epoch and first_batch are not negative")
        self._progress[0], self._progress[1] = epoch, first_batch

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration gives."""
        return int(self._progress[0])

    def _plan(self) -> EpochPlan:
        return EpochPlan(
            self._chunks,
            batch_size=self.batch_size,
            buffer_batches=self.buffer_batches,
            seed=self.shuffle_seed,
            epoch=self.epoch,
            drop_last=self.drop_last,
        )

    def __len__(self) -> int:
        """Number of batches that are left of the epoch, of this rank."""
        rows = self.n_rows
        total = rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)
        return len(range(int(self._progress[1]) + self.rank, total, self.world_size))

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        plan = self._plan()
        first = int(self._progress[1]) + self.rank + self.world_size * number
        batches = range(first, plan.n_batches, self.world_size * workers)
        last_use = {plan.window_of(b): b for b in batches}
        loaded: dict[int, _Window] = {}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for b in batches:
                window = plan.window_of(b)
                if window not in loaded:
                    loaded[window] = self._load(plan, window, pool)
                yield self._batch(loaded[window], plan.place_of(b))
                if last_use[window] == b:
                    del loaded[window]

    def _batch(self, window: _Window, place: slice) -> Any:
        chosen = window.permutation[place]
        # numpy copies what is indexed by an array, so the batch is the caller's own.
        rows = window.rows[chosen]
        x = (
            torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
            if self._kind == "bfloat16"
            else torch.from_numpy(rows)
        )
        x = x.view(len(chosen), *self.row_shape)
        return (x, torch.from_numpy(window.cache_of[chosen])) if self.return_index else x

    def _load(self, plan: EpochPlan, window: int, pool: ThreadPoolExecutor) -> _Window:
        ranges = plan.ranges(window)
        numbers = np.concatenate([np.arange(r.row, r.row + r.stop - r.start) for r in ranges])
        if self._kept is not None:
            rows = self._kept[numbers]
        else:
            client = self._connection()
            parts = pool.map(lambda r: self._read(client, r), merged(ranges))
            rows = np.concatenate(list(parts))
            if plan.whole and not self.drop_last:
                self._kept = np.empty_like(rows)
                self._kept[numbers] = rows
        cache_of = np.searchsorted(self._starts, numbers, side="right") - 1 if self.return_index else numbers
        return _Window(rows, plan.permutation(window), cache_of)

    def _read(self, client: Client, part: Range) -> np.ndarray[Any, Any]:
        data = self._sources[part.source].read(client, part.start, part.stop)
        rows: np.ndarray[Any, Any] = np.frombuffer(data, dtype=_NUMPY[self._kind])
        return rows.reshape(part.stop - part.start, -1)

    def _connection(self) -> Client:
        """A client of this process: connections do not survive a fork."""
        if self._client is None or self._pid != os.getpid():
            config = self._config
            self._client = Client(
                config.url,
                config.api_key or "",
                timeout=config.timeout,
                max_retries=config.max_retries,
                reconnect=config.reconnect,
                headers=dict(config.headers),
            )
            self._pid = os.getpid()
        return self._client

    def __repr__(self) -> str:
        return (
            f"ActivationDataset({self.hook}, {self.n_rows} rows {list(self.row_shape)} of {len(self.cache_ids)} caches, "
            f"{self._kind}, batches of {self.batch_size})"
        )


class _Window:
    """Rows that are mixed with each other."""

    __slots__ = ("cache_of", "permutation", "rows")

    def __init__(self, rows: np.ndarray[Any, Any], permutation: Any, cache_of: Any) -> None:
        self.rows, self.permutation, self.cache_of = rows, permutation, cache_of
