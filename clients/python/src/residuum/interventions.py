"""What may be changed while a model runs: one function per operation, for `m.intervene([…])` and `m.steer(…)`.

    from residuum import interventions as iv

    with m.intervene([iv.knockout(keys=slice(1, 4), queries="last", layers=range(20, 30))]) as s:
        s.generate("The Eiffel Tower is in the city of", max_new_tokens=3).text

Each function returns the JSON object of one entry of `interventions` in `POST /v1/runs`, so one written by hand does as
well. Where it acts is said by the same arguments everywhere:

    hook        a full name, or a short one with `layers`; `resid_post` by default
    layers      one layer, several, or all (default)
    positions   which tokens: "all" (default, generated ones too), "prompt", "generated", or positions of the input: a
                number, a list, a slice or an object such as {"text": "Tower"}
    heads       of hooks with heads
    neurons     of `mlp.pre`, `mlp.pre_linear` and `mlp.post`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypedDict

from ._core import arguments
from ._core.arguments import Caches, DirectionLike, Layers, Positions

Intervention = TypedDict(
    "Intervention",
    {
        "op": str,
        "hook": str,
        "layers": Any,
        "positions": Any,
        "heads": list[int],
        "neurons": list[int],
        "direction": dict[str, Any],
        "vector": list[float],
        "strength": Any,
        "value": Any,
        "factor": float,
        "caches": Any,
        "source": dict[str, Any],
        "from": Any,
        "to": Any,
    },
    total=False,
)
"""One entry of `interventions`: what `docs/INTERVENTIONS.md` describes."""

__all__ = ["Intervention", "add", "knockout", "mean_ablate", "patch", "project_out", "scale", "set_to", "zero"]


def _entry(
    op: str,
    hook: str | None,
    layers: Layers,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    entry: Intervention = {"op": op}
    if hook is not None:
        entry["hook"] = hook
    if layers is not None:
        entry["layers"] = arguments.layers(layers)
    if positions is not None:
        entry["positions"] = arguments.positions(positions)
    if heads is not None:
        entry["heads"] = _several(heads)
    if neurons is not None:
        entry["neurons"] = _several(neurons)
    return entry


def _several(values: Iterable[int] | int) -> list[int]:
    given: Any = values
    listed: list[Any] = [given] if isinstance(given, Integral) else list(given)
    return list(arguments.positions(listed))


def _with_direction(entry: Intervention, direction: DirectionLike) -> Intervention:
    reference = arguments.direction(direction)
    if set(reference) == {"vector"}:
        entry["vector"] = reference["vector"]
    else:
        entry["direction"] = reference
    return entry


def add(
    direction: DirectionLike,
    *,
    strength: float | Sequence[float] = 1.0,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """`x + strength × vector`. The vector is not scaled to length one.

    Args:
        direction: The name of a stored direction, an array, a cache, a feature of an autoencoder.
        strength: A number; or several, and then every input is run once with each.
        layers: See the module.
        hook: See the module.
        positions: See the module.
        heads: See the module.
        neurons: See the module.
    """
    entry = _with_direction(_entry("add", hook, layers, positions, heads, neurons), direction)
    entry["strength"] = [float(s) for s in strength] if isinstance(strength, Iterable) else float(strength)
    return entry


def project_out(
    direction: DirectionLike,
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """`x − (x · u) u`, with `u` the direction scaled to length one: what the model can no longer say along it."""
    return _with_direction(_entry("project_out", hook, layers, positions, heads, neurons), direction)


def set_to(
    value: float | DirectionLike,
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """Replaces the values: by one number, or by a vector or direction."""
    entry = _entry("set", hook, layers, positions, heads, neurons)
    if isinstance(value, Real):
        entry["value"] = float(value)
        return entry
    return _with_direction(entry, value)


def scale(
    factor: float,
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """`factor × x`."""
    entry = _entry("scale", hook, layers, positions, heads, neurons)
    entry["factor"] = float(factor)
    return entry


def zero(
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """Replaces the values by 0."""
    return _entry("zero", hook, layers, positions, heads, neurons)


def mean_ablate(
    caches: Caches,
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
) -> Intervention:
    """Replaces the values by their mean over every position that the chosen caches stored at the hook.

    Args:
        caches: Caches, their ids, or conditions such as `{"tags": ["baseline"]}`.
        layers: See the module.
        hook: See the module.
        positions: See the module.
        heads: See the module.
        neurons: See the module.
    """
    entry = _entry("mean_ablate", hook, layers, positions, heads, neurons)
    entry["caches"] = arguments.caches(caches)
    return entry


def patch(
    source: Any,
    *,
    layers: Layers = None,
    hook: str | None = None,
    positions: Positions = None,
    heads: Iterable[int] | int | None = None,
    neurons: Iterable[int] | int | None = None,
    source_hook: str | None = None,
    source_layer: int | None = None,
    source_positions: Positions = None,
) -> Intervention:
    """Replaces the values by those of a stored cache.

    Args:
        source: The cache, or its id.
        layers: See the module.
        hook: See the module.
        positions: See the module. The i-th takes the value of the i-th position of the source.
        heads: See the module.
        neurons: See the module.
        source_hook: The hook of the source, if it is another.
        source_layer: The layer of the source, if it is another.
        source_positions: The positions of the source, if they are others; one serves for all.
    """
    entry = _entry("patch", hook, layers, positions, heads, neurons)
    where: dict[str, Any] = {"cache": arguments.cache_id(source)}
    if source_hook is not None:
        where["hook"] = source_hook
    if source_layer is not None:
        where["layer"] = int(source_layer)
    if source_positions is not None:
        where["positions"] = arguments.positions(source_positions)
    entry["source"] = where
    return entry


def knockout(
    *,
    keys: Positions = None,
    queries: Positions = None,
    layers: Layers = None,
    heads: Iterable[int] | int | None = None,
) -> Intervention:
    """Hides keys from queries: their attention scores become minus infinity, before the softmax.

    Args:
        keys: The tokens that are hidden (`from` in the API); all if left out.
        queries: The tokens that no longer see them (`to` in the API); all if left out.
        layers: See the module.
        heads: See the module.
    """
    entry = _entry("knockout", None, layers, None, heads)
    if keys is not None:
        entry["from"] = arguments.positions(keys)
    if queries is not None:
        entry["to"] = arguments.positions(queries)
    return entry
