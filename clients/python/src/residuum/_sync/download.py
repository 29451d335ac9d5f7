# Derived from `_async/download.py` by `scripts/make_sync.py`: do not edit.
"""Downloads into a file: written beside it, and moved into place once complete."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from .._core.problem import ConnectionFailed
from .._core.progress import progress_bar
from .transport import Transport


def download(
    transport: Transport,
    method: str,
    path: str,
    file: str | os.PathLike[str],
    *,
    params: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> int:
    """Writes the body of an answer into `file`. Returns the number of bytes.

    A download that breaks off leaves nothing behind, and is tried again from the start once. A bar is shown if it takes
    longer than a moment and `progress` does not say otherwise.
    """
    target = Path(file)
    progress = transport.config.progress if progress is None else progress
    for last in (False, True):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent or ".")
        try:
            with os.fdopen(handle, "wb") as out:
                written = 0
                with transport.stream(method, path, params=params) as response:
                    total = response.headers.get("content-length")
                    with progress_bar(int(total) if total else None, target.name, progress, unit="B") as bar:
                        for chunk in response.iter_bytes(1 << 20):
                            out.write(chunk)
                            written += len(chunk)
                            bar.update(len(chunk))
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
            return written
        except ConnectionFailed:
            if last:
                raise
        finally:
            if os.path.exists(name):
                os.unlink(name)
    raise AssertionError("unreachable")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
