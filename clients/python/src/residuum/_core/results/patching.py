"""Sweeps of patching and ablation: how the answer changes with each part of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import Array
from . import plots, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Axes of the API, and the members that name their entries.
MEMBERS = {"layer": "layers", "pos": "positions", "q_pos": "to", "k_pos": "from", "head": "heads"}
AXIS_NAMES = {"layer": "layer", "pos": "token", "q_pos": "query", "k_pos": "key", "head": "head"}


class Patching:
    """The answer of a sweep, one value for each cell.

    Attributes:
        op: `patch`, `zero`, `mean_ablate` or `knockout`.
        hook: What was changed.
        metric: What was measured, such as `logit_diff`.
        direction: Of a patch, `denoise` or `noise`.
        axes: Names of the axes: `layer`, and those of `pos`, `q_pos`, `k_pos`, `head` that were swept.
        values: The metric of each changed run; shape as `axes` says.
        effect: `values` less the metric of the run that was changed.
        normalized: Of a patch, the effect as a fraction of the difference of the two runs: 0 nothing changed, 1 the
            metric is that of the other run. None otherwise.
        clean: The metric of the clean run.
        corrupt: The metric of the corrupt run; NaN without one.
        layers: Layers of the axis `layer`.
        index: For every axis, the layers, positions or heads it runs over.
        labels: For every axis, a name for each entry: tokens for positions.
        clean_tokens: Tokens of the clean input.
        corrupt_tokens: Tokens of the corrupt input, or None.
        answer: The token, as `(id, text)`.
        against: The other token, or None.
        position: Where the logits were read.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.model: str = answer["model"]
        self.op: str = answer["op"]
        self.hook: str = answer["hook"]
        self.metric: str = answer["metric"]
        self.direction: str | None = answer.get("direction")
        self.answer: tuple[int, str] = (answer["answer"]["id"], answer["answer"]["token"])
        other = answer.get("against")
        self.against: tuple[int, str] | None = (other["id"], other["token"]) if other else None
        self.position: int = answer["position"]
        self.clean_tokens: list[str] = list(answer["clean_tokens"])
        tokens = answer.get("corrupt_tokens")
        self.corrupt_tokens: list[str] | None = list(tokens) if tokens else None
        self.axes: tuple[str, ...] = tuple(answer["axes"])
        self.layers: list[int] = list(answer["layers"])
        self.values: Array = show.floats(answer["values"])
        self.effect: Array = show.floats(answer["effect"])
        normalized = answer.get("normalized")
        self.normalized: Array | None = None if normalized is None else show.floats(normalized)
        self.clean = float("nan") if answer.get("clean") is None else float(answer["clean"])
        self.corrupt = float("nan") if answer.get("corrupt") is None else float(answer["corrupt"])
        self.index: dict[str, list[int]] = {
            axis: list(answer.get(MEMBERS[axis]) or range(self.values.shape[i])) for i, axis in enumerate(self.axes)
        }
        self.labels: dict[str, list[str]] = {axis: self._labels(axis) for axis in self.axes}

    def _labels(self, axis: str) -> list[str]:
        entries = self.index[axis]
        if axis not in ("pos", "q_pos", "k_pos"):
            return [str(i) for i in entries]
        return [self._token(i) for i in entries]

    def _token(self, position: int) -> str:
        clean = show.visible(self.clean_tokens[position])
        if self.corrupt_tokens is None or position >= len(self.corrupt_tokens):
            return clean
        corrupt = show.visible(self.corrupt_tokens[position])
        return clean if clean == corrupt else f"{clean}/{corrupt}"

    def _place(self, axis: str, number: int) -> str:
        name = self.labels[axis][self.index[axis].index(number)]
        return f"{axis} {number}" if name == str(number) else f"{axis} {number} ({name})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrices."""
        return self.values.shape

    def top(self, k: int = 10) -> list[tuple[dict[str, int], float]]:
        """The `k` cells of largest effect in magnitude: where they are, by axis, and the effect."""
        cells = show.strongest(self.effect, k)
        places = [{a: self.index[a][i] for a, i in zip(self.axes, cell, strict=True)} for cell in cells]
        return [(place, float(self.effect[cell])) for place, cell in zip(places, cells, strict=True)]

    @property
    def _title(self) -> tuple[str, str]:
        """What was changed, and what was measured."""
        hook = self.hook.replace("hook_", "")
        what = {
            "patch": f"Patching {hook}",
            "zero": f"Zero ablation of {hook}",
            "mean_ablate": f"Mean ablation of {hook}",
        }
        answer = show.visible(self.answer[1]) + (f" − {show.visible(self.against[1])}" if self.against else "")
        return what.get(self.op, "Knocking out attention"), f"{self.metric.replace('_', ' ')} of {answer}"

    def __repr__(self) -> str:
        runs = f"clean {show.number(self.clean)}" + (
            "" if np.isnan(self.corrupt) else f", corrupt {show.number(self.corrupt)}"
        )
        size = " × ".join(f"{len(self.index[a])} {a}" for a in self.axes)
        rows = []
        for where, effect in self.top(8):
            rows.append([", ".join(self._place(axis, i) for axis, i in where.items()), show.number(effect)])
        head = f"Patching({': '.join(self._title)}; {runs}; {size})"
        return f"{head}, largest effects:\n{show.text_table(['cell', 'effect'], rows)}"

    def _repr_html_(self) -> str:
        matrix, rows, columns = self._matrix(self._shown()[0])
        if matrix.size > 20_000:
            return f"<pre>{show.escape(repr(self))}</pre>"
        most = float(np.nanmax(np.abs(matrix))) if np.isfinite(matrix).any() else 1.0
        body = [
            (name, [(show.fixed(v), float(v) / (most or 1.0), "") for v in row])
            for name, row in reversed(list(zip(rows, matrix, strict=True)))
        ]
        return show.html_table(f"{': '.join(self._title)} ({self._shown()[1]})", columns, body, symmetric=True)

    def _shown(self, what: str | None = None) -> tuple[Array, str]:
        what = what or ("effect" if self.normalized is None else "normalized")
        if what not in ("values", "effect", "normalized"):
            raise ValueError(f"{what!r} is not values, effect or normalized")
        array = getattr(self, what)
        if array is None:
            raise ValueError("an ablation has no second run to be normalized by; plot effect or values")
        labels = {"values": self.metric.replace("_", " "), "effect": "effect", "normalized": "fraction restored"}
        return array, labels[what]

    def _matrix(self, array: Array) -> tuple[Array, list[str], list[str]]:
        """Two axes: layers, and all others one after another."""
        if array.ndim == 1:
            return array[:, None], self.labels["layer"], ["all"]
        names = self.labels[self.axes[1]]
        for axis in self.axes[2:]:
            names = [f"{a} {b}" for a in names for b in self.labels[axis]]
        return array.reshape(len(array), -1), self.labels["layer"], names

    def plot(self, what: str | None = None, ax: Axes | None = None) -> Axes:
        """A heatmap of layers and the other axis; a line if there are only layers. Needs matplotlib.

        Args:
            what: `normalized` (default of patches), `effect` (default of ablations) or `values`.
            ax: Axes to draw on.
        """
        array, label = self._shown(what)
        if self.direction == "noise" and label == "fraction restored":
            label = "fraction lost"
        if array.ndim == 1:
            return self._plot_line(array, label, ax)
        matrix, rows, columns = self._matrix(array)
        limits = None
        if what in (None, "normalized") and self.normalized is not None:
            most = max(1.0, float(np.nanmax(np.abs(matrix))))
            limits = (-most, most)
        xlabel = " and ".join(AXIS_NAMES[a] for a in self.axes[1:])
        return plots.heatmap(
            matrix,
            rows=rows,
            columns=columns,
            ylabel="layer",
            xlabel=xlabel,
            label=label,
            title=plots.literal("\n".join(self._title)),
            diverging=True,
            limits=limits,
            ax=ax,
        )

    def _plot_line(self, array: Array, label: str, ax: Axes | None) -> Axes:
        ax = plots.axes_of(ax, 5.5, 3.2)
        ax.plot(self.layers, array, marker="o", markersize=3)
        ax.axhline(0.0, color="black", linewidth=0.6)
        ax.set_xlabel("layer")
        ax.set_ylabel(label)
        ax.set_title(plots.literal("\n".join(self._title)), fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        return ax


def sweep_body(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """`sweep` of a request: Python's ranges and slices for layers, positions and heads."""
    from .. import arguments

    found: dict[str, Any] = dict(value or {})
    for name in ("positions", "from", "to"):
        if name in found:
            found[name] = arguments.positions(found[name])
    if "layers" in found:
        found["layers"] = arguments.layers(found["layers"])
    if isinstance(found.get("heads"), (Sequence, range)) and not isinstance(found["heads"], str):
        found["heads"] = arguments.positions(list(found["heads"]))
    if "caches" in found:
        found["caches"] = arguments.caches(found["caches"])
    return found
