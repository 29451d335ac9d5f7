"""Comparisons, projections and statistics: arrays with names for their axes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import Array, Tensor
from . import plots, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Measures(Mapping[str, Array]):
    """Arrays by the name of their metric: `result["cosine"]`. With one metric, `.array` is its array.

    Attributes:
        axes: Names of the axes of every array.
        layers: Layers of the axis `layer` or `layer_a`.
        hook: The hook.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self._arrays = {name: t.numpy() for name, t in tensors.items() if name != "offsets"}
        self.axes: tuple[str, ...] = tuple(metadata.get("axes", "").split(","))
        self.layers: list[int] = self._json("layers") or []
        self.hook: str = metadata.get("hook", "")

    def _json(self, name: str) -> Any:
        text = self._metadata.get(name)
        return None if text is None else json.loads(text)

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"{name!r} was not asked for; there are {', '.join(self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _only(self) -> str:
        if len(self._arrays) != 1:
            raise ValueError(
                f"there are several: {', '.join(self._arrays)}; choose one as in result['{next(iter(self))}']"
            )
        return next(iter(self))

    @property
    def array(self) -> Array:
        """The array, if there is only one."""
        return self[self._only()]

    def __repr__(self) -> str:
        sizes = next(iter(self._arrays.values())).shape
        shape = " × ".join(f"{n} {axis}" for axis, n in zip(self.axes, sizes, strict=True))
        return f"{type(self).__name__}({self.hook}; {', '.join(self._arrays)}; {shape})"


class Comparison(Measures):
    """What `c.compare` answers.

    Attributes:
        mode: `pairs`, `matrix`, `layers` or `sets`. The axes are then `layer, pair`; `layer, i, j`; `layer_a, layer_b`;
            `layer, i, j`.
        layers_b: In mode `layers`, the layers of the second axis.
        pairs: In mode `pairs`, the two caches of each pair.
        cache_ids: In mode `matrix`, the caches.
        groups: In mode `sets`, the groups in the order of the axes, as `{name, n_rows, caches}`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        super().__init__(tensors, metadata)
        self.mode: str = metadata.get("mode", "")
        self.layers_b: list[int] = self._json("layers_b") or []
        self.pairs: list[tuple[str, str]] = [(a, b) for a, b in self._json("pairs") or []]
        self.cache_ids: list[str] = self._json("caches") or []
        self.groups: list[dict[str, Any]] = self._json("groups") or []

    def plot(self, metric: str | None = None, layer: int | None = None, ax: Axes | None = None) -> Axes:
        """Pairs as lines over the layers, all else as a heatmap. Needs matplotlib.

        Args:
            metric: Which; may be left out if there is one.
            layer: Of a matrix or of sets, the layer to show; by default the last.
            ax: Axes to draw on.
        """
        metric = metric or self._only()
        values = self[metric]
        if self.mode == "pairs":
            ax = plots.axes_of(ax, 5.5, 3.2)
            ax.plot(self.layers, values, marker="o", markersize=3)
            ax.set_xlabel("layer")
            ax.set_ylabel(metric)
            ax.spines[["top", "right"]].set_visible(False)
            return ax
        if self.mode == "layers":
            columns = [str(i) for i in self.layers_b]
            return plots.heatmap(
                values,
                rows=[str(i) for i in self.layers],
                columns=columns,
                ylabel="layer of a",
                xlabel="layer of b",
                label=metric,
                ax=ax,
            )
        at = -1 if layer is None else self.layers.index(layer)
        count = values.shape[1]
        names = [g["name"] for g in self.groups] or [str(i) for i in range(count)]
        title = f"{metric} after layer {self.layers[at]}"
        return plots.heatmap(values[at], rows=names, columns=names, ylabel="", label=metric, title=title, ax=ax)


class Projections(Measures):
    """What `c.project` answers: `[cache, layer, direction]`, or `[row, layer, direction]` with several positions.

    Attributes:
        cache_ids: The caches, in order.
        directions: Names of the directions.
        norms: `[direction][layer]`: their lengths.
        offsets: With rows, the row at which each cache begins, and at the end the total.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        super().__init__(tensors, metadata)
        self.cache_ids: list[str] = self._json("caches") or []
        self.directions: list[str] = self._json("directions") or []
        self.norms: list[list[float]] = self._json("norms") or []
        self.offsets: Array | None = tensors["offsets"].numpy() if "offsets" in tensors else None

    def of(self, cache: Any, measure: str | None = None) -> Array:
        """The values of one cache: `[layer, direction]`, or `[pos, layer, direction]`."""
        found = cache if isinstance(cache, str) else cache.id
        i, values = self.cache_ids.index(found), self[measure or self._only()]
        return values[i] if self.offsets is None else values[int(self.offsets[i]) : int(self.offsets[i + 1])]


class Statistics:
    """What `c.statistics` answers: the vectors of a hook, layer by layer.

    Attributes:
        hook: The hook.
        n_caches: Number of caches.
        layers: The layers; None for a hook outside the blocks.
        n: `[layer]`: number of vectors.
        n_non_finite: `[layer]`: vectors left out because of NaN or infinity.
        norm: `mean`, `std`, `min` and `max` of the vectors' lengths, each `[layer]`.
        mean_norm: `[layer]`: length of the mean vector.
        variance: `mean`, `std`, `min` and `max` of the dimensions' variances, each `[layer]`.
        total_variance: `[layer]`.
        outliers: For each layer, the dimensions that are outliers, as `{dimension, mean, std, by_mean, by_std}`.
        raw: The API's objects, one for each layer, with `top_mean` and `top_variance`.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.hook: str = answer["hook"]
        self.n_caches: int = answer["n_caches"]
        self.raw: list[dict[str, Any]] = list(answer["layers"])
        self.layers: list[int | None] = [layer.get("layer") for layer in self.raw]
        self.n: Array = show.frozen(np.array([layer["n"] for layer in self.raw], dtype=np.int64))
        self.n_non_finite: Array = show.frozen(np.array([layer["n_non_finite"] for layer in self.raw], dtype=np.int64))
        self.norm = self._spread("norm")
        self.variance = self._spread("variance")
        self.mean_norm: Array = show.floats([layer.get("mean_norm") for layer in self.raw])
        self.total_variance: Array = show.floats([layer.get("total_variance") for layer in self.raw])
        self.outliers: list[list[dict[str, Any]]] = [list(layer["outliers"]) for layer in self.raw]

    def _spread(self, name: str) -> dict[str, Array]:
        parts = [layer.get(name) or {} for layer in self.raw]
        return {what: show.floats([p.get(what) for p in parts]) for what in ("mean", "std", "min", "max")}

    def __repr__(self) -> str:
        columns = ["layer", "vectors", "norm", "± std", "norm of mean", "variance", "outlier dimensions"]
        rows = [
            [
                "–" if layer is None else str(layer),
                str(self.n[i]),
                show.number(self.norm["mean"][i], 1),
                show.number(self.norm["std"][i], 1),
                show.number(self.mean_norm[i], 1),
                show.number(self.total_variance[i], 1),
                ", ".join(str(o["dimension"]) for o in self.outliers[i][:4]),
            ]
            for i, layer in enumerate(self.layers)
        ]
        return f"Statistics({self.hook}, {self.n_caches} caches):\n{show.text_table(columns, rows, limit=64)}"
