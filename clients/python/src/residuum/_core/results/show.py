"""How results look: text for terminals, HTML for notebooks, colours."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..tensors import Array

# A cell of an HTML table: its text, the value that colours it (None: no colour), a text to show on hover.
Cell = tuple[str, "float | None", str]


def escape(text: str) -> str:
    """A text as HTML."""
    return html.escape(text)


def visible(token: str) -> str:
    """A token with its white space visible: ` Paris` is `·Paris`, a line break is `⏎`."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a missing one is `–`."""
    if value is None or math.isnan(value):
        return "–"
    if value != 0 and (abs(value) >= 10_000 or abs(value) < 10**-digits):
        return f"{value:.{max(0, digits - 1)}e}"
    return f"{value:.{digits}f}"


def fixed(value: float) -> str:
    """A number of a matrix, with two decimals."""
    return "–" if math.isnan(value) else f"{value:.2f}" if abs(value) < 10_000 else f"{value:.1e}"


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], limit: int = 20) -> str:
    """Columns of text: the first one to the left, the others to the right."""
    rows = list(rows)
    shown = [list(header), *map(list, rows[:limit])]
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    lines = []
    for row in shown:
        cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    if len(rows) > limit:
        lines.append(f"… and {len(rows) - limit} more")
    return "\n".join(lines)


def html_table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]], symmetric: bool) -> str:
    """A table of coloured cells. `symmetric`: -1 is blue and 1 is red; otherwise 0 is white and 1 is blue."""
    style = "border-collapse:collapse;font-size:12px;font-family:monospace"
    cell = "padding:2px 6px;text-align:right;white-space:pre"
    head = "".join(f'<th style="{cell}">{html.escape(c)}</th>' for c in ("", *columns))
    body = []
    for name, cells in rows:
        parts = [f'<th style="{cell}">{html.escape(name)}</th>']
        for text, value, hover in cells:
            colour = "" if value is None else f";background:{_colour(value, symmetric)}"
            title_of = f' title="{html.escape(hover, quote=True)}"' if hover else ""
            parts.append(f'<td style="{cell}{colour}"{title_of}>{html.escape(text)}</td>')
        body.append(f"<tr>{''.join(parts)}</tr>")
    return (
        f'<div><div style="font-size:12px;margin:2px 0">{html.escape(title)}</div><div style="overflow-x:auto">'
        f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div></div>'
    )


def _colour(value: float, symmetric: bool) -> str:
    """A translucent colour, so that text stays readable on light and on dark pages."""
    if math.isnan(value):
        return "transparent"
    strength = min(1.0, abs(value)) * 0.75
    rgb = "214,69,65" if symmetric and value > 0 else "52,120,200"
    return f"rgba({rgb},{strength:.3f})"


def floats(values: Any) -> Array:
    """Nested lists with None as a read-only float64 array with NaN."""
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def frozen(array: Array) -> Array:
    """The array, read-only."""
    array.flags.writeable = False
    return array


def strongest(values: Array, k: int) -> list[tuple[int, ...]]:
    """Indices of the `k` values of largest magnitude, NaN left out, largest first; equal ones in order."""
    flat = np.abs(values).reshape(-1)
    order = np.argsort(-np.nan_to_num(flat, nan=-1.0), kind="stable")[:k]
    return [tuple(int(i) for i in np.unravel_index(j, values.shape)) for j in order if not np.isnan(flat[j])]


def shorten(text: str, width: int = 60) -> str:
    """At most `width` characters, with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"
