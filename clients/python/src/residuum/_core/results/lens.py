"""The logit lens: what each layer's residual stream says about the next token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import Array
from . import plots, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LogitLens:
    """Distributions over the next token, at layers and positions.

    Attributes:
        cache_id: The cache.
        hook: The hook that was read, `resid_post` by default.
        layers: Layers of the first axis.
        positions: Positions of the second axis.
        position_tokens: The token at each position.
        tokens: The followed tokens, as `(id, text)`: the third axis of what has one.
        entropy: `[layer, pos]`, in nats.
        kl: `[layer, pos]`, KL(final ‖ lens) in nats; NaN where the final distribution is not stored.
        rank: `[layer, pos, token]`: how many tokens are more probable.
        probability: `[layer, pos, token]`.
        log_probability: `[layer, pos, token]`, natural logarithms.
        logit: `[layer, pos, token]`.
        top_ids: `[layer, pos, k]`: the most probable tokens.
        top_tokens: `[layer, pos, k]`: their texts.
        top_probability: `[layer, pos, k]`.
        top_logit: `[layer, pos, k]`.
        final_from: Where the final distribution came from; None if it is not known.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.cache_id: str = answer["cache"]
        self.hook: str = answer["hook"]
        self.layers: list[int] = list(answer["layers"])
        self.positions: list[int] = list(answer["positions"])
        self.position_tokens: list[str] = list(answer["position_tokens"])
        self.tokens: list[tuple[int, str]] = [(t["id"], t["token"]) for t in answer["tokens"]]
        self.final_from: str | None = answer.get("final_from")
        cells: list[list[dict[str, Any]]] = answer["values"]
        shape = (len(self.layers), len(self.positions))
        self.entropy: Array = show.floats([[c.get("entropy") for c in row] for row in cells]).reshape(shape)
        self.kl: Array = show.floats([[c.get("kl") for c in row] for row in cells]).reshape(shape)
        self.rank = self._member(cells, "tokens", "rank", np.int64)
        self.probability = self._member(cells, "tokens", "probability", np.float64)
        self.log_probability = self._member(cells, "tokens", "log_probability", np.float64)
        self.logit = self._member(cells, "tokens", "logit", np.float64)
        self.top_ids = self._member(cells, "top", "id", np.int64)
        self.top_tokens = self._member(cells, "top", "token", object)
        self.top_probability = self._member(cells, "top", "probability", np.float64)
        self.top_logit = self._member(cells, "top", "logit", np.float64)

    def _member(self, cells: list[list[dict[str, Any]]], inner: str, name: str, dtype: Any) -> Array:
        """`[layer, pos, …]`; entries that a distribution with NaN lacks stay empty (-1, NaN)."""
        most = max((len(c[inner]) for row in cells for c in row), default=0)
        fill: Any = {np.int64: -1, np.float64: np.nan}.get(dtype, "")
        array = np.full((len(self.layers), len(self.positions), most), fill, dtype=dtype)
        for i, row in enumerate(cells):
            for j, cell in enumerate(row):
                for k, entry in enumerate(cell[inner]):
                    array[i, j, k] = fill if entry[name] is None else entry[name]
        return show.frozen(array)

    def _followed(self, token: str | int | None) -> int:
        """The index of a followed token; by default the only one or the first."""
        if token is None:
            if not self.tokens:
                raise ValueError("no tokens were followed; pass tokens= to logit_lens")
            return 0
        for i, (number, text) in enumerate(self.tokens):
            if token in (number, text):
                return i
        raise ValueError(f"{token!r} was not followed; tokens: {[t for _, t in self.tokens]}")

    def __repr__(self) -> str:
        head = f"LogitLens({self.hook}, {len(self.layers)} layers × {len(self.positions)} positions)"
        columns = ["layer", "top", "p", "entropy", "kl"]
        columns += [f"{show.visible(t)} {what}" for _, t in self.tokens for what in ("rank", "p")]
        at = len(self.positions) - 1
        rows = []
        for i, layer in enumerate(self.layers):
            top = show.visible(str(self.top_tokens[i, at, 0])) if self.top_tokens.shape[2] else "–"
            p = self.top_probability[i, at, 0] if self.top_tokens.shape[2] else None
            row = [str(layer), top, show.number(p), show.number(self.entropy[i, at], 2), show.number(self.kl[i, at], 2)]
            for k in range(self.rank.shape[2]):
                row += [str(self.rank[i, at, k]), show.number(self.probability[i, at, k])]
            rows.append(row)
        where = f"at position {self.positions[at]} ({show.visible(self.position_tokens[at])})"
        return f"{head}, {where}:\n{show.text_table(columns, rows, limit=64)}"

    def _repr_html_(self) -> str:
        rows = []
        for i in reversed(range(len(self.layers))):
            cells: list[show.Cell] = []
            for j in range(len(self.positions)):
                pairs = zip(self.top_tokens[i, j], self.top_probability[i, j], strict=True)
                top = [f"{show.visible(str(t))} {p:.3f}" for t, p in pairs]
                text = show.visible(str(self.top_tokens[i, j, 0])) if top else "–"
                p = float(self.top_probability[i, j, 0]) if top else None
                cells.append((text, p, "\n".join([*top, f"entropy {self.entropy[i, j]:.2f} nats"])))
            rows.append((str(self.layers[i]), cells))
        title = f"Logit lens of {self.hook}: the most probable next token after each layer, coloured by its probability"
        return show.html_table(title, [show.visible(t) for t in self.position_tokens], rows, symmetric=False)

    def plot(self, token: str | int | None = None, ax: Axes | None = None) -> Axes:
        """A picture. Needs matplotlib.

        With one position: the probability of each followed token over the layers. With several: the most probable
        token in every cell, coloured by its probability, or with `token` the probability of that token alone.

        Args:
            token: A followed token, by id or text.
            ax: Axes to draw on.
        """
        if len(self.positions) == 1 and self.tokens:
            return self._plot_lines(token, ax)
        columns = [show.visible(t) for t in self.position_tokens]
        rows = [str(layer) for layer in self.layers]
        if token is not None or not self.top_tokens.shape[2]:
            k = self._followed(token)
            return plots.heatmap(
                self.probability[:, :, k],
                rows=rows,
                columns=columns,
                ylabel="layer",
                label="probability",
                title=f"Probability of {show.visible(self.tokens[k][1])}, by the logit lens",
                limits=(0.0, 1.0),
                ax=ax,
            )
        return plots.heatmap(
            self.top_probability[:, :, 0],
            rows=rows,
            columns=columns,
            ylabel="layer",
            label="probability",
            title="Most probable next token after each layer, by the logit lens",
            limits=(0.0, 1.0),
            cells=[[show.shorten(show.visible(str(t)), 10) for t in row] for row in self.top_tokens[:, :, 0]],
            ax=ax,
        )

    def _plot_lines(self, token: str | int | None, ax: Axes | None) -> Axes:
        ax = plots.axes_of(ax, 5.5, 3.2)
        chosen = range(len(self.tokens)) if token is None else [self._followed(token)]
        for k in chosen:
            name = plots.literal(show.visible(self.tokens[k][1]))
            ax.plot(self.layers, self.probability[:, 0, k], marker="o", markersize=3, label=name)
        ax.set_xlabel("layer")
        ax.set_ylabel("probability")
        ax.set_ylim(-0.02, 1.02)
        where = f"{show.visible(self.position_tokens[0])} at position {self.positions[0]}"
        ax.set_title(plots.literal(f"Logit lens after {where}"), fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return ax
