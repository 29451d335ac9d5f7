"""Bringing activations in, and taking matrices out: the part of a client that imports and exports."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.config import Config
from .._core.filters import cache_filters
from .._core.rows import Rows, export_params, positions_text
from .._core.tensors import Array, write_safetensors
from .._core.wire import SAFETENSORS_TYPE, compact, path
from . import primitives
from .cache import AsyncCache
from .download import download
from .exports import read_rows
from .transport import AsyncTransport, Content

if TYPE_CHECKING:
    import pyarrow

EXTENSIONS = {".npz": "npz", ".arrow": "arrow", ".arrows": "arrow", ".ipc": "arrow", ".safetensors": "safetensors"}


class AsyncTransfer:
    """Import and export."""

    config: Config
    transport: AsyncTransport

    async def import_cache(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        model: Any = None,
        text: str | None = None,
        tokens: Sequence[str] | None = None,
        n_tokens: int | None = None,
        positions: Any = None,
        layers: Sequence[int] | None = None,
        n_layers: int | None = None,
        d_model: int | None = None,
        dtype: str | None = None,
        label: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncCache:
        """Stores activations that were made elsewhere as a cache. One import has one input.

        Args:
            source: A safetensors file, or arrays by name: hooks (`blocks.5.hook_resid_post`, `[pos, …]`), stacks of layers
                (`resid_post`, `[layer, pos, …]`), and `token_ids`. numpy and torch, bfloat16 too.
            model: Name of the model, or a model; it need not be served. A file may say it itself.
            text: The input.
            tokens: The text of each token.
            n_tokens: Number of tokens, where the arrays do not say.
            positions: To which positions the rows belong: all by default.
            layers: The layers of a stack, in order; from 0 on by default.
            n_layers: Number of blocks of the model.
            d_model: Width of the residual stream.
            dtype: Type to store; as they are by default.
            label: Label of the cache.
            tags: Its tags.
            metadata: Its metadata.
            provenance: Of arrays: what computed them, such as `{"model_fingerprint": m.fingerprint}`, which makes the logit
                lens and attribution possible.
            idempotency_key: The same key with the same content gives the cache that was made first; random by default.

        Raises:
            InvalidSafetensors, InvalidValue, ShapeMismatch: The message says which tensor is at fault.
        """
        params = compact(
            {
                "model": getattr(model, "id", model),
                "text": text,
                "tokens": None if tokens is None else json.dumps(list(tokens)),
                "n_tokens": n_tokens,
                "positions": import_positions(positions),
                "layers": None if layers is None else ",".join(str(int(layer)) for layer in layers),
                "n_layers": n_layers,
                "d_model": d_model,
                "dtype": dtype,
                "label": label,
                "tag": ([tags] if isinstance(tags, str) else list(tags)) or None,
                "metadata": None if metadata is None else json.dumps(dict(metadata)),
            }
        )
        headers = {"Content-Type": SAFETENSORS_TYPE, "Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        content: bytes | Content
        if isinstance(source, Mapping):
            content = write_safetensors(source, provenance)
        else:
            if provenance:
                raise TypeError("provenance is written into a new file; this one exists already")
            file = Path(os.path.expanduser(source))
            headers["Content-Length"] = str(file.stat().st_size)
            content = lambda: primitives.file_chunks(file)  # noqa: E731
        answer = await self.transport.json("POST", path("caches"), params=params, content=content, headers=headers)
        return AsyncCache(self, answer)  # type: ignore[arg-type]

    async def export(
        self,
        file: str | os.PathLike[str],
        hook: str = "resid_post",
        *,
        layers: int | str | Sequence[int] | None = None,
        position: Any = None,
        positions: Any = None,
        dtype: str | None = None,
        format: str | None = None,
        shard_bytes: int | None = None,
        progress: bool | None = None,
        order: str | None = None,
        shuffle: int | None = None,
        **filters: Any,
    ) -> Path:
        """Writes one hook of all caches that meet the conditions into a file, which is never held in memory.

        Args:
            file: Where to write. `.safetensors`, `.npz` and `.arrow` choose the format.
            hook: A hook.
            layers: One layer, several, or `"all"` (those that every cache has).
            position: One row of each cache: `"last"`, `"mean"`, `5`, `-1`.
            positions: Several rows: `"all"`, a list, a range. Every stored row by default.
            dtype: Type of the values; as stored by default.
            format: `safetensors`, `npz` or `arrow`, where the name does not say.
            shard_bytes: Size from which the file is a tar of several; 1 GiB by default.
            progress: Whether a bar is shown; None: on a terminal and in a notebook.
            order: `asc`, by run, the oldest first, and within a run in the order of its inputs; or `desc`, the reverse.
            shuffle: A seed: shuffles the caches. The same caches and seed give the same order.
            filters: Conditions, as in `caches`.

        Returns:
            The path of the file.
        """
        target = Path(os.path.expanduser(file))
        kind = format or EXTENSIONS.get(target.suffix.lower())
        if kind is None:
            raise ValueError(
                f"the name {target.name} says no format: add .safetensors, .npz or .arrow, or pass format="
            )
        several = layers is not None and not isinstance(layers, (int, str))
        query = export_params(hook, None, position, dtype)
        query |= compact(
            {
                "layers": ",".join(map(str, layers)) if several else None if layers is None else str(layers),  # type: ignore[arg-type]
                "positions": None if positions is None else positions_text(positions),
            }
        )
        query |= {
            "format": kind,
            "shard_bytes": shard_bytes,
            "order": order,
            "shuffle": shuffle,
            **cache_filters(filters),
        }
        await download(self.transport, "GET", path("export"), target, params=query, progress=progress)
        return target

    async def rows(
        self,
        hook: str = "resid_post",
        layer: int | None = None,
        *,
        position: Any = None,
        dtype: str | None = None,
        order: str | None = None,
        shuffle: int | None = None,
        **filters: Any,
    ) -> Rows:
        """One hook of all caches that meet the conditions, as rows in memory: `.X`, and what each row belongs to.

        Arguments are those of `matrix`.
        """
        conditions = compact({"order": order, "shuffle": shuffle}) | cache_filters(filters)
        return await read_rows(self.transport, path("export"), hook, layer, position, dtype, conditions)

    async def matrix(
        self,
        hook: str = "resid_post",
        layer: int | None = None,
        *,
        position: Any = None,
        dtype: str | None = None,
        order: str | None = None,
        shuffle: int | None = None,
        **filters: Any,
    ) -> tuple[Array, Array]:
        """One hook of all caches that meet the conditions, as a matrix, and the label of each row.

        Args:
            hook: A hook.
            layer: Its layer, if the name does not say.
            position: One row of each cache (`"last"`, `"mean"`, `5`, `-1`); every stored row by default.
            dtype: Type of the values; as stored by default.
            order: `asc`, by run, the oldest first, and within a run in the order of its inputs; or `desc`, the reverse.
            shuffle: A seed: shuffles the caches. The same caches and seed give the same order.
            filters: Conditions, as in `caches`.

        Returns:
            `X`, `[rows, …]`, and `y`, the labels (None where a cache has none).
        """
        rows = await self.rows(hook, layer, position=position, dtype=dtype, order=order, shuffle=shuffle, **filters)
        return rows.X, rows.labels

    async def table(
        self,
        hook: str = "resid_post",
        *,
        layers: int | str | Sequence[int] | None = None,
        position: Any = None,
        dtype: str | None = None,
        **filters: Any,
    ) -> pyarrow.Table:
        """One hook of all caches that meet the conditions, as an Arrow table with tokens, labels, tags and metadata.

        Needs `residuum[arrow]`. Arguments are those of `export`.
        """
        import pyarrow.ipc

        chosen = layers if layers is None or isinstance(layers, (int, str)) else ",".join(map(str, layers))
        query = {**export_params(hook, None, position, dtype), **compact({"layers": chosen}), **cache_filters(filters)}
        query |= {"format": "arrow", "shard_bytes": None}
        answer = await self.transport.request("GET", path("export"), params=query)
        return pyarrow.ipc.open_stream(pyarrow.py_buffer(answer.content)).read_all()


def import_positions(positions: Any) -> str | None:
    """Positions of an import: `all`, `last`, `3`, `0,2,-1`, `2:5`, or the JSON of a capture."""
    if positions is None or isinstance(positions, str):
        return positions
    if isinstance(positions, int):
        return str(positions)
    if isinstance(positions, Mapping):
        return json.dumps(dict(positions))
    return positions_text(positions)
