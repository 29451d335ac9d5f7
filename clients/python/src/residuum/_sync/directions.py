# Derived from `_async/directions.py` by `scripts/make_sync.py`: do not edit.
"""Directions: named vectors in the store, fitted to caches or uploaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import arguments
from .._core.arguments import Caches, Layers
from .._core.results import show
from .._core.tensors import Array, read_npy
from .._core.wire import compact, path
from .pages import Pages
from .selections import selection

if TYPE_CHECKING:
    from .client import Client


class Direction:
    """A stored direction: one vector for each of its layers, or several (`components`)."""

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        self._client = client
        self._data = data

    @property
    def id(self) -> str:
        """Its id."""
        return str(self._data["id"])

    @property
    def name(self) -> str:
        """Its name, which is unique."""
        return str(self._data["name"])

    @property
    def method(self) -> str:
        """How it was made: `difference_of_means`, `pca`, `probe` or `upload`."""
        return str(self._data["method"])

    @property
    def model_id(self) -> str | None:
        """The model of its caches; None if an upload did not say."""
        model: str | None = self._data.get("model")
        return model

    @property
    def hook(self) -> str:
        """The hook in whose space it is."""
        return str(self._data["hook"])

    @property
    def layers(self) -> list[int]:
        """Its layers, in order; empty for a hook outside the blocks."""
        return list(self._data["layers"])

    @property
    def n_components(self) -> int:
        """Vectors at each layer."""
        return int(self._data["n_components"])

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._data["width"])

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata; `update` changes it."""
        return dict(self._data["metadata"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What made it: numbers of caches, parameters, and a hash of the caches."""
        return dict(self._data["provenance"])

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return datetime.fromisoformat(str(self._data["created_at"]).replace("Z", "+00:00"))

    @property
    def direction_ref(self) -> dict[str, Any]:
        """How a request names it."""
        return {"direction": self.name}

    def component(self, number: int) -> dict[str, Any]:
        """One of its components, for wherever a direction is asked for."""
        return {**self.direction_ref, "component": number}

    @property
    def metrics(self) -> dict[str, Array]:
        """What was measured, such as `accuracy` of a probe: `[layer]`, or `[layer, component]` with several.

        NaN where a metric is undefined. `docs/ANALYSIS.md` says what each means.
        """
        vectors = self._data.get("vectors") or []
        names = dict.fromkeys(name for v in vectors for name in v["metrics"])
        rows = max(1, len(self.layers))
        found = {}
        for name in names:
            numbers = [v["metrics"].get(name) for v in vectors]
            if all(n is None or isinstance(n, (int, float)) for n in numbers):
                array = show.floats(numbers).reshape(rows, -1)
                found[name] = array[:, 0] if array.shape[1] == 1 else array
        return found

    @property
    def best_layer(self) -> int:
        """The layer with the highest AUROC, or accuracy; the first of equal ones.

        Raises:
            ValueError: The direction was not fitted to two classes.
        """
        metrics = self.metrics
        name = next((n for n in ("auroc", "accuracy") if n in metrics), None)
        if name is None or metrics[name].ndim != 1 or np.isnan(metrics[name]).all():
            raise ValueError(f"{self.name!r} ({self.method}) has neither auroc nor accuracy to compare layers by")
        return self.layers[int(np.nanargmax(metrics[name]))]

    def vector(self, layer: int | None = None, component: int = 0) -> Array:
        """Its numbers: float32 `[d]` of one layer, or `[layer, d]` of all.

        Args:
            layer: A layer; negative ones do not exist here.
            component: Which, if there are several.
        """
        return self._client.directions.vector(self.name, layer=layer, component=component)

    def update(self, metadata: Mapping[str, Any]) -> Direction:
        """Merges into the metadata; None as a value removes a key."""
        body = {"metadata": dict(metadata)}
        found = self._client.transport.json("PATCH", path("directions", self.name), json=body, idempotent=True)
        self._data = {**self._data, **{k: v for k, v in found.items() if k != "vectors" or v}}
        return self

    def delete(self) -> None:
        """Deletes it."""
        self._client.directions.delete(self.name)

    def __repr__(self) -> str:
        where = f"layers {self.layers}" if len(self.layers) > 6 else ", ".join(f"layer {i}" for i in self.layers)
        where = f"layers {self.layers[0]}-{self.layers[-1]}" if len(self.layers) > 6 else where
        best = ""
        for name in ("accuracy", "auroc"):
            values = self.metrics.get(name)
            if values is not None and not np.isnan(values).all():
                best += f", {name} up to {np.nanmax(values):.3f}"
        return f"Direction({self.name!r}, {self.method}, {self.hook} {where}, width {self.width}{best})"


class Directions:
    """The directions of a server: `c.directions`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def fit(
        self,
        name: str,
        method: str = "difference_of_means",
        *,
        positive: Caches | None = None,
        negative: Caches | None = None,
        caches: Caches | None = None,
        target: Mapping[str, Any] | None = None,
        hook: str | None = None,
        layers: Layers = None,
        position: Any = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = False,
        **parameters: Any,
    ) -> Direction:
        """Fits a direction to stored caches, at all layers in one request.

        Args:
            name: Its name.
            method: `difference_of_means`, `probe` (a logistic regression) or `pca`.
            positive: One class: caches, a run, a capture, or conditions such as `{"tags": ["happy"]}`.
            negative: The other.
            caches: Instead of two classes, all caches, with a `target`; of `pca` simply the caches.
            target: What tells the classes apart: `{"metadata": "key"}`, `{"metadata": "key", "value": …}`,
                `{"tag": "x"}` or `{"label": "x"}`.
            hook: `resid_post` by default.
            layers: Those that all caches have by default.
            position: `"last"` (default), `"mean"` or a number.
            metadata: Kept with it.
            replace: Whether a direction of this name is replaced; otherwise it is an error.
            parameters: Of the method: `normalize`; `c`, `folds`, `seed`, `shuffles`; `k`, `center`.

        Raises:
            Conflict: The name is taken.
        """
        body = compact(
            {
                "name": name,
                "method": method,
                "positive": selection(positive),
                "negative": selection(negative),
                "caches": selection(caches),
                "target": target,
                "hook": hook,
                "layers": arguments.layers(layers),
                "position": arguments.positions(position),
                "metadata": metadata,
                **parameters,
            }
        )
        return self._create(body, replace)

    def upload(
        self,
        name: str,
        vectors: Any,
        *,
        layers: Layers = None,
        hook: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Direction:
        """Stores vectors that were made elsewhere.

        Args:
            name: Its name.
            vectors: `[d]` for one layer, or `[layer, d]`, as numpy or torch; kept as float32.
            layers: The layer of each.
            hook: The hook in whose space they are; `resid_post` by default.
            model: The model they belong to.
            metadata: Kept with it.
            replace: Whether a direction of this name is replaced.

        Raises:
            ValueError: The numbers of layers and vectors differ.
        """
        rows = np.atleast_2d(arguments.matrix(vectors))
        numbers = arguments.layers(layers)
        places: list[Any] = list(numbers) if isinstance(numbers, list) else [numbers]
        if len(places) != len(rows):
            raise ValueError(f"{len(rows)} vectors need as many layers, not {len(places)}")
        entries = [compact({"layer": layer, "values": row.tolist()}) for layer, row in zip(places, rows, strict=True)]
        body = {
            "name": name,
            "method": "upload",
            "vectors": entries,
            "hook": hook,
            "model": model,
            "metadata": metadata,
        }
        return self._create(compact(body), replace)

    def _create(self, body: dict[str, Any], replace: bool) -> Direction:
        from ..errors import Conflict

        while True:
            try:
                return Direction(self._client, self._client.transport.json("POST", path("directions"), json=body))
            except Conflict:
                if not replace or not self.exists(body["name"]):
                    raise
            self.delete(body["name"])

    def get(self, name: str) -> Direction:
        """The direction of a name or an id.

        Raises:
            DirectionNotFound: There is none.
        """
        return Direction(self._client, self._client.transport.json("GET", path("directions", name)))

    def exists(self, name: str) -> bool:
        """Whether there is one of this name or id."""
        from ..errors import DirectionNotFound

        try:
            self.get(name)
        except DirectionNotFound:
            return False
        return True

    def list(self, limit: int | None = None) -> Pages[Direction]:
        """All directions, newest first, without their metrics."""
        return Pages(self._client.transport, path("directions"), {}, lambda d: Direction(self._client, d), limit)

    def vector(self, name: Any, *, layer: int | None = None, component: int = 0) -> Array:
        """The numbers of a direction: float32 `[d]` of one layer, or `[layer, d]` of all."""
        params = {"layer": layer, "component": component, "format": "npy"}
        name = name if isinstance(name, str) else name.name
        return read_npy(
            (self._client.transport.request("GET", path("directions", name, "vector"), params=params)).content
        )

    def delete(self, name: Any) -> None:
        """Deletes one, by name, id or itself."""
        self._client.transport.request("DELETE", path("directions", name if isinstance(name, str) else name.id))


def references(directions: Any) -> list[dict[str, Any]]:
    """One or several directions, as a request takes them; a mapping gives them names."""
    if isinstance(directions, Mapping) and not {"direction", "vector", "cache", "sae"} & set(directions):
        return [{"name": name, **arguments.direction(d)} for name, d in directions.items()]
    if (
        isinstance(directions, (str, Mapping))
        or not isinstance(directions, Iterable)
        or hasattr(directions, "direction_ref")
    ):
        return [arguments.direction(directions)]
    if hasattr(directions, "token_ids") or getattr(directions, "ndim", None) == 1:
        return [arguments.direction(directions)]
    return [arguments.direction(d) for d in directions]
