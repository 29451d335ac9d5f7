"""Progress bars: tqdm on a terminal and in a notebook, nothing where the output goes into a file or a pipe."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tqdm warns in a notebook without ipywidgets, where it shows text instead
    from tqdm.auto import tqdm


def progress_bar(total: int | None, text: str, progress: bool | None, unit: str = "it") -> Any:
    """A bar.

    Args:
        total: What 100 % is, if it is known.
        text: What stands before the bar.
        progress: True: always; False: never; None: on a terminal and in a notebook.
        unit: What is counted; `B` for bytes.
    """
    disable = None if progress is None else not progress
    # What ends at once shows no bar, unless one was asked for.
    delay = 0 if progress else 0.5
    scaled = unit == "B"
    return tqdm(total=total, desc=text, disable=disable, unit=unit, unit_scale=scaled, dynamic_ncols=True, delay=delay)
