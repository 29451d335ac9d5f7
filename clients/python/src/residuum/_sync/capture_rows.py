# Derived from `_async/capture_rows.py` by `scripts/make_sync.py`: do not edit.
"""The rows of a capture, read run by run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._core.chunks import Chunk
from .._core.progress import progress_bar
from .._core.rows import CaptureRows, RowsBuilder
from .._core.wire import path
from .exports import read_rows
from .run import Run
from .transport import Transport


def read_capture_rows(
    transport: Transport,
    pairs: Sequence[tuple[Chunk, Run]],
    labels: Sequence[Any],
    hook: Any,
    layer: int | None,
    position: Any,
    dtype: str | None,
    progress: bool | None,
) -> CaptureRows:
    """One hook of all runs, in the order of the inputs."""
    n_inputs = sum(len(chunk.done) for chunk, _ in pairs)
    builder = RowsBuilder(n_inputs)
    with progress_bar(n_inputs, "read", progress, unit="input") as bar:
        for chunk, run in pairs:
            if chunk.done:
                where = path("runs", run.id, "export")
                builder.add(read_rows(transport, where, hook, layer, position, dtype), chunk.numbers)
                bar.update(len(chunk.done))
    return builder.finish(labels)
