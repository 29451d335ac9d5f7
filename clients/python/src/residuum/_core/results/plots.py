"""Pictures of results. They need matplotlib, which `pip install residuum[plot]` brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERGING = "RdBu_r"
SEQUENTIAL = "Blues"
# More labels than this on an axis cannot be read.
MOST_LABELS = 40


def pyplot() -> Any:
    """Matplotlib's pyplot.

    Raises:
        ImportError: It is not installed; the message says how to get it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'residuum[plot]'") from None
    return plt


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    """The given axes, or new ones on a figure of this size in inches."""
    if ax is not None:
        return ax
    _, new = pyplot().subplots(figsize=(width, height), layout="constrained")
    found: Axes = new
    return found


def heatmap(
    values: Array,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    ylabel: str,
    xlabel: str = "",
    label: str,
    title: str = "",
    diverging: bool = False,
    limits: tuple[float, float] | None = None,
    cells: Sequence[Sequence[str]] | None = None,
    ax: Axes | None = None,
    beside: Sequence[Axes] = (),
) -> Axes:
    """A matrix as a picture: the first row at the bottom, one tick for each row and column as far as they fit.

    Args:
        values: `[row, column]`; NaN stays empty.
        rows: Names of the rows.
        columns: Names of the columns.
        ylabel: What the rows are.
        xlabel: What the columns are.
        label: What the colour is.
        title: A title.
        diverging: White is zero, and the colours of positive and negative values differ.
        limits: The values at the ends of the colours, instead of the smallest and largest.
        cells: A text for each cell.
        ax: Axes to draw on.
        beside: Axes to its right, which the scale of colours goes behind.
    """
    n, m = values.shape
    per_column = 0.34 if cells is None else 0.82
    ax = axes_of(ax, min(16.0, max(4.0, 1.8 + per_column * m)), min(12.0, max(2.4, 1.6 + 0.2 * n)))
    low, high = limits or _limits(values, diverging)
    image = ax.imshow(
        values,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=DIVERGING if diverging else SEQUENTIAL,
        vmin=low,
        vmax=high,
    )
    _ticks(ax.xaxis, columns, rotate=max(map(len, columns), default=0) > 3)
    _ticks(ax.yaxis, rows)
    ax.set_ylabel(ylabel)
    ax.set_xlabel(xlabel)
    ax.set_title(title, fontsize=10)
    bar = ax.figure.colorbar(image, ax=[ax, *beside], label=label, fraction=0.05, pad=0.02, aspect=40)
    bar.outline.set_visible(False)  # type: ignore[operator,unused-ignore]
    if cells is not None:
        _write_cells(ax, values, cells, low, high, diverging)
    return ax


def _limits(values: Array, diverging: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return (-1.0, 1.0) if diverging else (0.0, 1.0)
    if diverging:
        most = float(np.abs(finite).max()) or 1.0
        return -most, most
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + 1.0)


def _ticks(axis: Any, names: Sequence[str], rotate: bool = False) -> None:
    step = max(1, -(-len(names) // MOST_LABELS))
    at = list(range(0, len(names), step))
    axis.set_ticks(at, [literal(names[i]) for i in at], fontsize=8, **({"rotation": 90} if rotate else {}))
    axis.set_tick_params(length=2)


def _write_cells(
    ax: Axes, values: Array, cells: Sequence[Sequence[str]], low: float, high: float, diverging: bool
) -> None:
    for i, row in enumerate(cells):
        for j, text in enumerate(row):
            share = (values[i, j] - low) / (high - low) if high > low else 0.0
            dark = abs(share - 0.5) > 0.35 if diverging else share > 0.55
            ax.text(
                j,
                i,
                literal(text),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
                clip_on=True,
            )


def bars(ax: Axes, values: Array, *, label: str, color: str = "#3478c8") -> None:
    """Horizontal bars, one for each layer, to stand beside a heatmap of the same layers."""
    ax.barh(np.arange(len(values)), np.nan_to_num(values), color=color, height=0.8)
    ax.axvline(0.0, color="black", linewidth=0.6)
    ax.set_xlabel(label)
    ax.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """A text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
