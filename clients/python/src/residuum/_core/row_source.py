"""Where stored rows are: tensors of the server of which ranges of rows can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .hooks import act_name, layer_of
from .info import HookInfo
from .problem import ConnectionFailed, ResiduumError
from .row_plan import Range
from .wire import path

if TYPE_CHECKING:
    from .._sync.cache import Cache
    from .._sync.client import Client

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Caches with fewer rows than this are read many at a time, from the tensor of their run.
FEW_ROWS = 16


class StoreChanged(ResiduumError):
    """Caches were deleted since a data set was made of them."""


@dataclass(frozen=True)
class RowSource:
    """One tensor whose rows lie one after another.

    Attributes:
        where: Its path.
        query: Query parameters that choose its rows and their type.
        row_bytes: Bytes of a row.
        etag: Its entity tag when it was found; None if its content cannot change.
    """

    where: str
    query: tuple[tuple[str, str], ...]
    row_bytes: int
    etag: str | None = None

    def read(self, client: Client, start: int, stop: int) -> bytes:
        """The bytes of the rows from `start` to before `stop`.

        Raises:
            StoreChanged: The tensor is another one than when it was found, or is gone.
        """
        from .codes import CacheNotFound, RunNotFound

        headers = {"Range": f"bytes={start * self.row_bytes}-{stop * self.row_bytes - 1}"}
        try:
            answer = client.transport.request("GET", self.where, params=dict(self.query), headers=headers)
        except (CacheNotFound, RunNotFound) as e:
            raise StoreChanged(f"{self.where} was deleted since the data set was made: make it again ({e})") from None
        if self.etag is not None and answer.headers.get("etag") != self.etag:
            raise StoreChanged(f"{self.where} has lost caches since the data set was made: make it again")
        body = answer.content
        if answer.status_code == 200:  # a proxy that does not know ranges
            body = body[start * self.row_bytes : stop * self.row_bytes]
        if len(body) != (stop - start) * self.row_bytes:
            raise ConnectionFailed(f"{self.where}: expected {(stop - start) * self.row_bytes} bytes, not {len(body)}")
        return body


@dataclass(frozen=True)
class FoundRows:
    """The rows of many caches, in order.

    Attributes:
        hook: Full name of the hook.
        row_shape: Shape of a row.
        dtype: Type of the values.
        cache_ids: The caches.
        starts: Number of the first row of each cache.
        sources: Tensors that have them.
        ranges: Where in these the rows are, in order.
    """

    hook: str
    row_shape: tuple[int, ...]
    dtype: str
    cache_ids: list[str]
    starts: NDArray[np.int64]
    sources: list[RowSource]
    ranges: list[Range]


def find_rows(
    client: Client,
    hook: str,
    layer: int | None,
    position: str | int | None,
    dtype: str | None,
    caches: Any,
    filters: Mapping[str, Any],
) -> FoundRows:
    """Finds the caches that have a hook, and where their rows are.

    Raises:
        ValueError: There are none, or their rows differ in shape.
    """
    name = act_name(hook, layer) if layer is not None else act_name(hook)
    if layer is None and layer_of(name) is None and name in ("resid_post", "resid_pre", "resid_mid"):
        raise ValueError(f"{hook} is a hook of each layer: pass layer=")
    found = _chosen(client, caches) if caches is not None else list(client.caches(hook=name, **filters))
    found = [c for c in found if name in c.hooks]
    if not found:
        raise ValueError(f"no cache that meets the conditions has {name}")
    found.sort(key=lambda c: (c.run_id, c.item_index, c.id))
    hooks = [c.hooks[name] for c in found]
    shapes = {_row_shape(h) for h in hooks}
    if len(shapes) > 1:
        raise ValueError(f"rows of {name} differ in shape: {', '.join(map(str, sorted(shapes)))}; choose one model")
    (row_shape,) = shapes
    kinds = {str(h.dtype) for h in hooks}
    kind = dtype or (kinds.pop() if len(kinds) == 1 else "float32")
    if kind not in BYTES:
        raise ValueError(f"dtype is float32, float16 or bfloat16, not {kind!r}")
    counts = [1 if position is not None or not h.has_positions else int(h.shape[0] or 0) for h in hooks]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    query = [("format", "raw"), ("dtype", kind)]
    if position is not None:
        query.append(("position", str(position)))
    finder = _Finder(client, name, tuple(query), int(np.prod(row_shape, dtype=np.int64)) * BYTES[kind], row_shape)
    first = 0
    for i in range(1, len(found) + 1):
        if i == len(found) or found[i].run_id != found[first].run_id:
            finder.add(found[first:i], counts[first:i], int(starts[first]))
            first = i
    ids = [c.id for c in found]
    return FoundRows(name, row_shape, kind, ids, starts[:-1], finder.sources, finder.ranges)


def _chosen(client: Client, caches: Any) -> list[Cache]:
    from .._sync.selections import selection

    selected = selection(caches)
    if isinstance(selected, Mapping):
        return list(client.caches(**selected))
    known = {c.id: c for c in caches if hasattr(c, "hooks")} if isinstance(caches, (list, tuple)) else {}
    return [known.get(i) or client.cache(i) for i in dict.fromkeys(selected)]


def _row_shape(hook: HookInfo) -> tuple[int, ...]:
    if "q_pos" in hook.axes or "k_pos" in hook.axes:
        raise ValueError(f"{hook.name} has no rows of one length: attention maps differ in width from input to input")
    shape = hook.shape[1:] if hook.axes[0] == "pos" else hook.shape
    return tuple(int(n or 0) for n in shape)


class _Finder:
    """Finds the tensor of a run, or those of its caches."""

    def __init__(
        self,
        client: Client,
        hook: str,
        query: tuple[tuple[str, str], ...],
        row_bytes: int,
        row_shape: tuple[int, ...],
    ) -> None:
        self._client, self._hook, self._query, self._row_bytes = client, hook, query, row_bytes
        self._row_size = int(np.prod(row_shape, dtype=np.int64))
        self.sources: list[RowSource] = []
        self.ranges: list[Range] = []

    def add(self, caches: Sequence[Cache], counts: Sequence[int], row: int) -> None:
        """Adds the caches of one run, in the order of its inputs."""
        total = sum(counts)
        if len(caches) > 1 and total < FEW_ROWS * len(caches):
            etag = self._run_tensor(caches[0].run_id, total)
            if etag is not None:
                self._append(path("runs", caches[0].run_id, "tensors", self._hook), total, row, etag)
                return
        for cache, count in zip(caches, counts, strict=True):
            self._append(path("caches", cache.id, "tensors", self._hook), count, row, None)
            row += count

    def _append(self, where: str, count: int, row: int, etag: str | None) -> None:
        self.ranges.append(Range(len(self.sources), 0, count, row))
        self.sources.append(RowSource(where, self._query, self._row_bytes, etag))

    def _run_tensor(self, run: str, rows: int) -> str | None:
        """The entity tag of the tensor of a run, if it has exactly these rows: then it is of all the run's caches."""
        try:
            answer = self._client.transport.request(
                "GET",
                path("runs", run, "tensors", self._hook),
                params=dict(self._query),
                headers={"Range": "bytes=0-0"},
            )
        except ResiduumError as e:
            if isinstance(e, ConnectionFailed):
                raise
            return None  # its caches differ in what they have, or it has not ended: each is read by itself
        shape = [int(n) for n in answer.headers.get("residuum-shape", "").split(",") if n]
        same = answer.status_code == 206 and int(np.prod(shape, dtype=np.int64)) == rows * self._row_size
        return answer.headers.get("etag") if same else None
