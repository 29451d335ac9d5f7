# Derived from `_async/client_questions.py` by `scripts/make_sync.py`: do not edit.
"""Questions about many caches: search, comparison, projections, statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._core import arguments
from .._core.arguments import Caches, Layers, Positions
from .._core.results.measures import Comparison, Projections, Statistics
from .._core.results.search import SearchResult
from .._core.tensors import read_safetensors
from .._core.wire import compact, path
from .directions import Directions, references
from .saes import Saes
from .selections import groups as named_selections
from .selections import selection

if TYPE_CHECKING:
    from .transport import Transport


class ClientQuestions:
    """What a client asks about stored activations."""

    transport: Transport

    @property
    def directions(self) -> Directions:
        """The stored directions: `fit`, `upload`, `get`, `list`, `vector`, `delete`."""
        return Directions(self)  # type: ignore[arg-type]

    @property
    def saes(self) -> Saes:
        """The sparse autoencoders that the server has loaded."""
        return Saes(self)  # type: ignore[arg-type]

    def search(
        self,
        query: Any,
        *,
        model: Any = None,
        layer: int | None = None,
        hook: str | None = None,
        k: int | None = None,
        metric: str | None = None,
        over: str | None = None,
        position: Any = None,
        filter: Mapping[str, Any] | None = None,
        context: int | None = None,
        exclude_self: bool | None = None,
        wait: float | None = None,
        **conditions: Any,
    ) -> Any:
        """The stored caches, or token positions, that are nearest to a query. Exact: every row is compared.

        Args:
            query: A text (then `model` says which model reads it), a cache, a vector, a matrix of vectors (each a query
                of its own), a direction of `c.directions`, a feature of `sae.feature(…)`, or the API's own object.
            model: The model that reads a text. Otherwise a condition: only caches of this model.
            layer: The layer that is compared.
            hook: `resid_post` by default.
            k: Number of hits.
            metric: `cosine` (default), `dot` or `euclidean`.
            over: `caches` (default): one row of each; `positions`: every stored position.
            position: Which row of each cache; its only one or the last by default.
            filter: Conditions on caches.
            context: Tokens on either side of a hit.
            exclude_self: For a cache as query: leave it out.
            wait: For a text: seconds to wait for its forward pass.
            conditions: Further conditions, such as `tags=["x"]`, `run=…`, `label=…`.

        Returns:
            The hits, a sequence; for a matrix a list of these.
        """
        model_id = getattr(model, "id", model)
        source = _source(query, model_id)
        if "text" not in source and model_id is not None:
            conditions["model"] = model_id
        body = compact(
            {
                "query": source,
                "layer": layer,
                "hook": hook,
                "k": k,
                "metric": metric,
                "over": over,
                "position": arguments.positions(position),
                "filter": arguments.conditions(filter, **conditions),
                "context": context,
                "exclude_self": exclude_self,
            }
        )
        answer = self.transport.json("POST", path("search"), json=body, params={"wait": wait}, idempotent=True)
        found = [
            SearchResult(r["hits"], answer["hook"], answer["metric"], answer["scanned"]) for r in answer["results"]
        ]
        return found if "vectors" in source else found[0]

    def compare(
        self,
        a: Any = None,
        b: Any = None,
        *,
        metrics: str | Iterable[str] = ("cosine",),
        mode: str | None = None,
        groups: Mapping[str, Caches] | None = None,
        hook: str | None = None,
        layers: Layers = None,
        position: Any = None,
        rows: str | None = None,
        k: int | None = None,
        center: str | None = None,
        normalize: bool | None = None,
    ) -> Comparison:
        """Compares stored activations of one hook, layer by layer. `docs/ANALYSIS.md` defines the metrics.

        Args:
            a: Caches: one, several, a run, a capture, or conditions such as `{"tags": ["x"]}`.
            b: The others. With `b`, `pairs` is the default mode; without, `matrix`, each of `a` with each.
            metrics: `cosine`, `dot`, `euclidean`, `mae`, `pearson`, `jaccard`; of sets `cka`, `cka_debiased`, `rsa`,
                `procrustes`, `mean_difference`, `mean_cosine`, `effect_size`.
            mode: `pairs`, `matrix`, `layers` or `sets`.
            groups: Instead of `a` and `b`, sets by name, each compared with each; the mode is `sets`.
            hook: `resid_post` by default.
            layers: Those that all caches have by default.
            position: The last by default.
            rows: Of sets: `caches` (default) or `positions`.
            k: Of `jaccard`.
            center: `mean` subtracts the mean over the caches.
            normalize: Whether vectors are then scaled to length one.

        Returns:
            Arrays by metric, float64 with NaN where a metric is undefined: `result["cosine"]`.
        """
        if groups is None and a is None:
            raise TypeError("compare needs caches: a, or a and b, or groups")
        mode = mode or ("sets" if groups is not None else "matrix" if b is None else "pairs")
        first = "caches" if mode == "matrix" else "a"
        body = compact(
            {
                "mode": mode,
                first: selection(a),
                "b": selection(b),
                "groups": named_selections(groups),
                "metrics": [metrics] if isinstance(metrics, str) else list(metrics),
                "hook": hook,
                "layers": arguments.layers(layers),
                "position": arguments.positions(position),
                "rows": rows,
                "k": k,
                "center": center,
                "normalize": normalize,
            }
        )
        return Comparison(*self._arrays(path("comparisons"), body))

    def project(
        self,
        caches: Caches,
        directions: Any,
        *,
        measures: str | Iterable[str] | None = None,
        hook: str | None = None,
        layers: Layers = None,
        positions: Positions = None,
    ) -> Projections:
        """Measures stored activations along directions: `dot`, `cosine` and `scalar` (dot over the direction's length).

        Args:
            caches: Caches, ids, a run, a capture, or conditions.
            directions: One or several: names of stored directions, vectors, caches, features; or a dict with names.
            measures: All three by default.
            hook: `resid_post` by default.
            layers: Those that all caches have by default.
            positions: The last by default; several give rows.
        """
        body = compact(
            {
                "caches": selection(caches),
                "directions": references(directions),
                "measures": [measures] if isinstance(measures, str) else list(measures) if measures else None,
                "hook": hook,
                "layers": arguments.layers(layers),
                "positions": arguments.positions(positions),
            }
        )
        return Projections(*self._arrays(path("projections"), body))

    def statistics(
        self,
        caches: Caches,
        *,
        hook: str | None = None,
        layers: Layers = None,
        positions: Positions = None,
        top_k: int | None = None,
        sigma: float | None = None,
    ) -> Statistics:
        """Lengths, variances and outlier dimensions of stored vectors, layer by layer.

        Args:
            caches: Caches, ids, a run, a capture, or conditions.
            hook: `resid_post` by default.
            layers: Those that all caches have by default.
            positions: Every stored position by default.
            top_k: How many dimensions of largest mean and variance are listed.
            sigma: From how many standard deviations on a dimension is an outlier.
        """
        body = compact(
            {
                "caches": selection(caches),
                "hook": hook,
                "layers": arguments.layers(layers),
                "positions": arguments.positions(positions),
                "top_k": top_k,
                "sigma": sigma,
            }
        )
        return Statistics(self.transport.json("POST", path("statistics"), json=body, idempotent=True))

    def _arrays(self, where: str, body: dict[str, Any]) -> Any:
        params = {"format": "safetensors"}
        answer = self.transport.request("POST", where, params=params, json=body, idempotent=True)
        return read_safetensors(answer.content)


def _source(query: Any, model: str | None) -> dict[str, Any]:
    """`query` of a search."""
    if isinstance(query, str):
        if model is None:
            raise TypeError("a text needs the model that reads it: pass model=")
        return {"text": query, "model": model}
    if not isinstance(query, Mapping) and not hasattr(query, "id") and not hasattr(query, "direction_ref"):
        numbers = arguments.matrix(query)
        if numbers.ndim == 2:
            return {"vectors": numbers.tolist()}
    return arguments.direction(query)
