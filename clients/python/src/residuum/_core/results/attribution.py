"""Direct logit attribution: what each part of the model adds to a logit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import Array
from . import plots, show

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Part:
    """What one part adds to the logit.

    Attributes:
        name: The hook whose value it is; for a bias TransformerLens's name of the weight.
        kind: `embedding`, `attention`, `head`, `attention_bias`, `mlp` or `bias`.
        layer: Its layer.
        head: Its head.
        value: Its contribution; NaN if that is not finite.
    """

    name: str
    kind: str
    layer: int | None
    head: int | None
    value: float

    def __str__(self) -> str:
        if self.kind == "head":
            return f"L{self.layer}H{self.head}"
        return {"mlp": f"MLP {self.layer}", "attention": f"attention {self.layer}"}.get(self.kind, self.name)


class Attribution:
    """A logit, or a difference of two, as a sum of parts.

    Attributes:
        cache_id: The cache.
        position: The position.
        token: The token, as `(id, text)`.
        against: The token whose logit is subtracted, or None.
        components: `heads` or `sublayers`.
        parts: All parts, in the order of the model.
        values: `[part]`.
        heads: `[layer, head]`; NaN where there is none. Empty with `sublayers`.
        attention: `[layer]`: each attention as a whole; with `heads` the sum of its heads and its bias.
        mlp: `[layer]`.
        logit: The logit as the model's own head computes it.
        sum: The sum of the parts.
        error: `sum − logit`.
        scale: The denominator of the final norm, which is held.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.cache_id: str = answer["cache"]
        self.position: int = answer["position"]
        self.token: tuple[int, str] = (answer["token"]["id"], answer["token"]["token"])
        against = answer.get("against")
        self.against: tuple[int, str] | None = (against["id"], against["token"]) if against else None
        self.components: str = answer["components"]
        self.parts = [_part(p) for p in answer["parts"]]
        self.values: Array = show.floats([p.value for p in self.parts])
        self.scale = _float(answer.get("scale"))
        self.sum = _float(answer.get("sum"))
        self.logit = _float(answer.get("logit"))
        self.error = _float(answer.get("error"))
        self.softcap: float | None = answer.get("softcap")
        self.logit_after_softcap: float | None = answer.get("logit_after_softcap")
        n_layers = 1 + max((p.layer for p in self.parts if p.layer is not None), default=-1)
        n_heads = 1 + max((p.head for p in self.parts if p.head is not None), default=-1)
        heads = np.full((n_layers, n_heads), np.nan)
        attention, mlp = np.zeros(n_layers), np.zeros(n_layers)
        for p in self.parts:
            if p.layer is None:
                continue
            if p.head is not None:
                heads[p.layer, p.head] = p.value
            (mlp if p.kind == "mlp" else attention)[p.layer] += p.value
        self.heads: Array = show.frozen(heads)
        self.attention: Array = show.frozen(attention)
        self.mlp: Array = show.frozen(mlp)

    def top(self, k: int = 10) -> list[Part]:
        """The `k` parts of largest magnitude, largest first."""
        return [self.parts[i] for (i,) in show.strongest(self.values, k)]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def _what(self) -> str:
        name = show.visible(self.token[1])
        return f"logit of {name}" + (f" less that of {show.visible(self.against[1])}" if self.against else "")

    def __repr__(self) -> str:
        rows = [[str(p), show.number(p.value)] for p in self.top(12)]
        head = f"Attribution({self._what}: {show.number(self.logit)}, {len(self.parts)} parts)"
        return f"{head}, the largest:\n{show.text_table(['part', 'adds'], rows)}"

    def _repr_html_(self) -> str:
        top = self.top(20)
        most = max((abs(p.value) for p in top), default=1.0) or 1.0
        rows = [(str(p), [(show.number(p.value), p.value / most, p.name)]) for p in top]
        title = f"The {self._what} is {show.number(self.logit)}; its largest parts of {len(self.parts)}:"
        return show.html_table(title, ["adds"], rows, symmetric=True)

    def plot(self, axs: Any = None) -> Any:
        """Heads as a heatmap and MLPs as bars beside it; with `sublayers` bars of both. Needs matplotlib.

        Args:
            axs: Two axes to draw on.

        Returns:
            The axes.
        """
        title = plots.literal(f"Parts of the {self._what} ({show.number(self.logit, 2)})")
        layers = [str(i) for i in range(len(self.mlp))]
        if axs is None:
            width = [max(2.4, 0.34 * self.heads.shape[1] + 0.6) if self.heads.size else 2.4, 2.0]
            figure, axs = plots.pyplot().subplots(
                1,
                2,
                figsize=(sum(width) + 1.4, min(12.0, max(2.6, 1.2 + 0.19 * len(layers)))),
                sharey=True,
                layout="constrained",
                width_ratios=width,
            )
            figure.suptitle(title, fontsize=10)
        left, right = axs
        if self.heads.size:
            plots.heatmap(
                self.heads,
                rows=layers,
                columns=[str(h) for h in range(self.heads.shape[1])],
                ylabel="layer",
                xlabel="head",
                label="head adds to the logit",
                diverging=True,
                ax=left,
                beside=[right],
            )
        else:
            plots.bars(left, self.attention, label="attention adds to the logit", color="#d64541")
            left.set_ylabel("layer")
        plots.bars(right, self.mlp, label="MLP adds to the logit")
        return axs


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _part(part: Mapping[str, Any]) -> Part:
    return Part(part["name"], part["kind"], part.get("layer"), part.get("head"), _float(part.get("value")))
