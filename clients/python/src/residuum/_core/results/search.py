"""Nearest neighbours in the store, and tokens where a feature is strongest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from ..tensors import Array
from . import show


@dataclass(frozen=True)
class Hit:
    """A cache, or a position of one, that was found.

    Attributes:
        cache_id: The cache; `c.cache(hit.cache_id)` opens it.
        run_id: The run that made it.
        model: Its model.
        score: The similarity or distance; of a feature its activation.
        position: The position that was compared.
        token: The token there; None if the token ids are not known.
        special: Whether it is a special token.
        context: Tokens around it, if asked for.
        context_hit: Index of the token in `context`.
        label: Label of the cache.
        tags: Its tags.
        metadata: Its metadata.
    """

    cache_id: str
    run_id: str
    model: str
    score: float
    position: int | None = None
    token: str | None = None
    special: bool | None = None
    context: tuple[str, ...] = ()
    context_hit: int | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Hit:
        """From the API's JSON."""
        context = answer.get("context") or {}
        return cls(
            cache_id=answer["cache"],
            run_id=answer["run"],
            model=answer["model"],
            score=float(answer["score"]),
            position=answer.get("position"),
            token=answer.get("token"),
            special=answer.get("special"),
            context=tuple(context.get("tokens", ())),
            context_hit=context.get("hit"),
            label=answer.get("label"),
            tags=tuple(answer.get("tags", ())),
            metadata=dict(answer.get("metadata") or {}),
        )

    @property
    def text(self) -> str:
        """The token with its context, as text; the token between brackets."""
        if not self.context or self.context_hit is None:
            return self.token or ""
        parts = [f"[{t}]" if i == self.context_hit else t for i, t in enumerate(self.context)]
        return "".join(parts).replace("\n", "⏎")


class SearchResult(Sequence[Hit]):
    """Hits of one query, best first. A sequence of `Hit`.

    Attributes:
        hook: The hook that was compared.
        metric: How.
        scanned: What was looked at: numbers of caches, rows, bytes, and of rows left out.
    """

    def __init__(self, hits: Sequence[Mapping[str, Any]], hook: str, metric: str, scanned: Mapping[str, Any]) -> None:
        self._hits = [Hit.read(h) for h in hits]
        self.hook, self.metric, self.scanned = hook, metric, dict(scanned)

    @property
    def scores(self) -> Array:
        """`[hit]`."""
        return show.floats([h.score for h in self._hits])

    @property
    def cache_ids(self) -> list[str]:
        """The caches, best first; may be passed wherever caches are asked for."""
        return list(dict.fromkeys(h.cache_id for h in self._hits))

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def _rows(self) -> list[list[str]]:
        return [
            [
                show.number(h.score, 4),
                str(h.position),
                show.shorten(h.text),
                h.label or "",
                ", ".join(h.tags),
                h.cache_id,
            ]
            for h in self._hits
        ]

    def __repr__(self) -> str:
        columns = [self.metric, "position", "token", "label", "tags", "cache"]
        seen = f"{self.scanned.get('rows', 0)} rows of {self.scanned.get('caches', 0)} caches"
        return f"SearchResult({self.hook}, {len(self)} hits among {seen}):\n{show.text_table(columns, self._rows())}"

    def _repr_html_(self) -> str:
        rows = [(row[0], [(cell, None, "") for cell in row[1:]]) for row in self._rows()]
        columns = ["position", "token", "label", "tags", "cache"]
        return show.html_table(f"{self.metric} in {self.hook}", columns, rows, symmetric=False)


class FeatureHits(SearchResult):
    """Where one feature is strongest.

    Attributes:
        feature: The feature.
        n_active: Number of rows where it is active.
        density: The same as a fraction of the rows.
        mean: Mean activation where it is active.
    """

    def __init__(self, answer: Mapping[str, Any], hook: str, scanned: Mapping[str, Any]) -> None:
        super().__init__(answer["hits"], hook, "activation", scanned)
        self.feature: int = answer["feature"]
        self.n_active: int = answer["n_active"]
        self.density: float | None = answer.get("density")
        self.mean: float | None = answer.get("mean")

    def __repr__(self) -> str:
        active = f"feature {self.feature}, active at {self.n_active} rows"
        columns = ["activation", "position", "token", "label", "tags", "cache"]
        return f"FeatureHits({active}):\n{show.text_table(columns, self._rows())}"


class Features:
    """Features of an autoencoder at positions of a cache.

    Attributes:
        cache_id: The cache.
        sae: The autoencoder.
        hook: The hook it reads.
        d_sae: Its number of features.
        positions: Positions of the first axis.
        tokens: The token at each of them.
        special: Whether each is a special token; None if unknown.
        n_active: `[pos]`, the L0; -1 where the row is not finite.
        top_ids: `[pos, k]`: the strongest features; -1 beyond the active ones.
        top_activations: `[pos, k]`; NaN beyond the active ones.
        chosen: The features asked for by number.
        activations: `[pos, chosen]`.
        norm: `[pos]`, length of the row.
        norm_out: `[pos]`, length of the reconstruction.
        mse: `[pos]`, mean squared error over the dimensions.
        relative_error: `[pos]`.
        cosine: `[pos]`, of the row and its reconstruction.
        summary: Means over positions: `all`, and `ordinary` without special tokens.
        left_out: Which tokens were left out, and what said so.
        warnings: Whatever is unusual, as `{code, detail}`.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.cache_id: str = answer["cache"]
        self.sae: str = answer["sae"]
        self.hook: str = answer["hook"]
        self.d_sae: int = answer["d_sae"]
        self.chosen: list[int] = list(answer["features"])
        rows: list[dict[str, Any]] = list(answer["positions"])
        self.positions: list[int] = [r["position"] for r in rows]
        self.tokens: list[str] = [r["token"] for r in rows]
        self.special: list[bool | None] = [r.get("special") for r in rows]
        self.n_active: Array = show.frozen(
            np.array([-1 if r.get("n_active") is None else r["n_active"] for r in rows], dtype=np.int64)
        )
        most = max((len(r["top"]) for r in rows), default=0)
        ids, values = np.full((len(rows), most), -1, dtype=np.int64), np.full((len(rows), most), np.nan)
        for i, r in enumerate(rows):
            for k, top in enumerate(r["top"]):
                ids[i, k], values[i, k] = top["feature"], top["activation"]
        self.top_ids: Array = show.frozen(ids)
        self.top_activations: Array = show.frozen(values)
        chosen = [r["chosen"] or [None] * len(self.chosen) for r in rows]
        self.activations: Array = show.floats(chosen).reshape(len(rows), len(self.chosen))
        self.norm, self.norm_out, self.mse, self.relative_error, self.cosine = (
            show.floats([r.get(name) for r in rows]) for name in ("norm", "norm_out", "mse", "relative_error", "cosine")
        )
        self.summary: dict[str, Any] = dict(answer["summary"])
        self.left_out: dict[str, Any] = dict(answer["left_out"])
        self.warnings: list[dict[str, str]] = list(answer["warnings"])

    def top(self, position: int = -1) -> list[tuple[int, float]]:
        """The strongest features at the i-th of `positions`: `(feature, activation)`, strongest first."""
        pairs = zip(self.top_ids[position], self.top_activations[position], strict=True)
        return [(int(f), float(a)) for f, a in pairs if f >= 0]

    def _rows(self) -> list[list[str]]:
        rows = []
        for i, token in enumerate(self.tokens):
            top = ", ".join(f"{f} ({show.number(a, 1)})" for f, a in self.top(i)[:5])
            rows.append([show.visible(token), str(self.n_active[i]), show.number(self.relative_error[i]), top])
        return rows

    def __repr__(self) -> str:
        head = f"Features({self.sae}, {self.hook}, {len(self.positions)} positions, d_sae {self.d_sae})"
        columns = ["token", "active", "error", "strongest features"]
        warned = "".join(f"\nwarning {w['code']}: {w['detail']}" for w in self.warnings)
        return f"{head}:\n{show.text_table(columns, self._rows())}{warned}"

    def _repr_html_(self) -> str:
        rows = [(row[0], [(cell, None, "") for cell in row[1:]]) for row in self._rows()]
        title = f"Features of {self.sae} at {self.hook}"
        return show.html_table(title, ["active", "error", "strongest features"], rows, symmetric=False)
