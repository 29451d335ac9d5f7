"""Rows of activations of many caches, and what each row belongs to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hooks import act_name, layer_of, without_layer
from .problem import TensorError
from .tensors import Array, read_safetensors
from .wire import compact


@dataclass(frozen=True)
class Rows:
    """Rows of one hook.

    Attributes:
        X: `[rows, …]`, read-only.
        cache: For each row, the index of its cache in `caches`.
        position: For each row, its position in the input; -1 if it has none, as a mean.
        token_id: For each row, its token; -1 if it has none.
        caches: The caches: `{cache, run, item_index, model, label, tags, metadata, text, n_tokens, row_start, n_rows}`.
        dtype: The type as exported; bfloat16 is float32 in `X`.
    """

    X: Array
    cache: NDArray[np.int64]
    position: NDArray[np.int64]
    token_id: NDArray[np.int64]
    caches: list[dict[str, Any]]
    dtype: str

    def __len__(self) -> int:
        return len(self.X)

    @property
    def labels(self) -> Array:
        """The label of each row: strings, or None."""
        return np.array([c["label"] for c in self.caches], dtype=object)[self.cache]

    @property
    def item_index(self) -> NDArray[np.int64]:
        """For each row, the number of its input in its run."""
        return np.array([c["item_index"] for c in self.caches], dtype=np.int64)[self.cache]


def export_params(hook: Any, layer: int | None, position: Any, dtype: str | None) -> dict[str, Any]:
    """The query of an export of one hook and layer."""
    name = act_name(*hook) if isinstance(hook, tuple) else act_name(hook)
    inside = layer_of(name)
    if layer is not None and inside is not None and inside != layer:
        raise ValueError(f"{hook} names layer {inside}, and layer={layer} another")
    if isinstance(layer, (list, tuple)):
        raise TypeError("a matrix has one layer: call it once for each")
    if layer is None:
        layer = inside
    one = position is not None and not isinstance(position, (list, tuple, slice, range)) and position != "all"
    return compact(
        {
            "hook": without_layer(name),
            "layers": None if layer is None else str(int(layer)),
            "position": str(position) if one else None,
            "positions": None if one or position is None else positions_text(position),
            "dtype": dtype,
            "format": "safetensors",
            "shard_bytes": 68719476736,
        }
    )


def positions_text(position: Any) -> str:
    """`all`, `0,2,4` or `start:end`."""
    if isinstance(position, str):
        return position
    if isinstance(position, (range, slice)):
        return f"{'' if position.start is None else position.start}:{'' if position.stop is None else position.stop}"
    return ",".join(str(int(p)) for p in position)


def parse_rows(data: bytes) -> Rows:
    """The rows of one exported safetensors file.

    Raises:
        TensorError: The export has several layers, or is no such file.
    """
    tensors, metadata = read_safetensors(data)
    manifest = json.loads(metadata["manifest"])
    if "X" not in tensors:
        layers = [a["layer"] for a in manifest["arrays"]]
        raise TensorError(f"the caches have several layers, {layers}: say which with layer=")
    return Rows(
        X=tensors["X"].numpy(),
        cache=tensors["row_cache"].numpy(),
        position=tensors["row_position"].numpy(),
        token_id=tensors["row_token_id"].numpy(),
        caches=manifest["caches"],
        dtype=tensors["X"].dtype,
    )


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Rows of several exports, one after another."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(p.caches) for p in parts)])
    X = np.concatenate([p.X for p in parts])
    X.flags.writeable = False
    return Rows(
        X=X,
        cache=np.concatenate([p.cache + start for p, start in zip(parts, starts[:-1], strict=True)]),
        position=np.concatenate([p.position for p in parts]),
        token_id=np.concatenate([p.token_id for p in parts]),
        caches=[c for p in parts for c in p.caches],
        dtype=parts[0].dtype,
    )


@dataclass(frozen=True)
class CaptureRows:
    """Rows of one hook of a capture, in the order of its inputs.

    Attributes:
        X: `[rows, …]`, read-only.
        y: The label of each row, as it was given; None if there are no labels.
        index: The number of the input of each row.
        position: Its position in the input; -1 if it has none, as a mean.
        token_id: Its token; -1 if it has none.
    """

    X: Array
    y: Array | None
    index: NDArray[np.int64]
    position: NDArray[np.int64]
    token_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.X)


class RowsBuilder:
    """Puts the rows of several runs together. Where inputs have one row each, `X` is filled in place, without a second copy."""

    def __init__(self, n_inputs: int) -> None:
        self._n_inputs = n_inputs
        self._whole: Array | None = None
        self._filled = 0
        self._parts: list[Array] = []
        self._index: list[NDArray[np.int64]] = []
        self._position: list[NDArray[np.int64]] = []
        self._token_id: list[NDArray[np.int64]] = []

    def add(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Adds the rows of one run; `numbers` has the number of each of its items."""
        self._index.append(np.asarray(numbers, dtype=np.int64)[rows.item_index])
        self._position.append(rows.position)
        self._token_id.append(rows.token_id)
        if not self._index[1:] and len(rows) == len(rows.caches) and self._n_inputs > len(rows):
            self._whole = np.empty((self._n_inputs, *rows.X.shape[1:]), dtype=rows.X.dtype)
        whole = self._whole
        fits = whole is not None and self._filled + len(rows) <= len(whole) and rows.X.dtype == whole.dtype
        if whole is not None and fits:
            whole[self._filled : self._filled + len(rows)] = rows.X
            self._filled += len(rows)
            return
        if whole is not None:
            self._parts, self._whole = [whole[: self._filled]], None
        self._parts.append(rows.X)

    def finish(self, labels: Sequence[Any]) -> CaptureRows:
        """All rows, with the labels of the inputs by their number."""
        if not self._index:
            raise TensorError("there are no rows: no input has a cache")
        if self._whole is not None:
            X = self._whole[: self._filled]
        else:
            X = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        X.flags.writeable = False
        index = np.concatenate(self._index)
        return CaptureRows(
            X, labels_array(labels, index), index, np.concatenate(self._position), np.concatenate(self._token_id)
        )


def labels_array(labels: Sequence[Any], index: NDArray[np.int64]) -> Array | None:
    """The labels of rows: an array of numbers or strings, or of objects where they are mixed; None if all are None."""
    chosen = [labels[i] for i in index]
    if all(label is None for label in chosen):
        return None
    kinds = {type(label) for label in chosen}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return np.array(chosen)
    array = np.empty(len(chosen), dtype=object)
    array[:] = chosen
    return array
