"""The body of a run: what is captured, from arguments as users of TransformerLens write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .hooks import Hooks, Layers, requested
from .model_info import ModelInfo
from .wire import compact


def one_of(**names: Any) -> Any:
    """The one argument that was given, of several names for the same thing."""
    given = {name: value for name, value in names.items() if value is not None}
    if len(given) > 1:
        raise TypeError(f"{' and '.join(given)} mean the same: give one of them")
    return next(iter(given.values()), None)


def capture_spec(
    model: ModelInfo, hooks: Hooks, layers: Layers, positions: Any, dtype: str | None = None
) -> dict[str, Any]:
    """`capture` of a run. If hooks are not said it is the residual stream after every block; `[]` is nothing."""
    names = requested(hooks, model.hooks, model.n_layers)
    names = ["resid_post"] if names is None else names
    if layers is not None and not isinstance(layers, (str, int)):
        layers = [int(layer) for layer in layers]
    return compact({"hooks": names, "layers": layers, "positions": positions_body(positions), "dtype": dtype})


def positions_body(positions: Any) -> Any:
    """Positions as JSON: a range or a slice is `{start, end}`, arrays are lists."""
    if isinstance(positions, range) and positions.step == 1:
        return {"start": positions.start, "end": positions.stop}
    if isinstance(positions, slice):
        if positions.step not in (None, 1):
            raise ValueError("a slice of positions has no step")
        return compact({"start": positions.start, "end": positions.stop})
    if isinstance(positions, (list, tuple, range)):
        return [int(p) for p in positions]
    if hasattr(positions, "tolist"):
        return positions.tolist()
    return positions


# Hooks after the last block: what changes them is not in the residual stream that logits are computed from.
_AFTER = ("final_norm", "ln_final", "logits")


def with_logits(spec: dict[str, Any], n_layers: int, interventions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds what logits are computed from: the output of the last block, or logits themselves if they are changed."""
    touched = {str(change.get("hook") or "") for change in interventions if isinstance(change, Mapping)}
    needed = "logits" if any(t.startswith(_AFTER) for t in touched) else f"blocks.{n_layers - 1}.hook_resid_post"
    hooks = spec["hooks"]
    layers = spec.get("layers")
    has_last = layers in (None, "all") or bool(
        {n_layers - 1, -1} & set(layers if isinstance(layers, list) else [layers])
    )
    if needed in hooks or "logits" in hooks or ("resid_post" in hooks and has_last and needed != "logits"):
        return spec
    return {**spec, "hooks": [*hooks, needed]}


CHAT_OPTIONS = ("add_generation_prompt", "continue_final_message", "template_kwargs", "chat_template")


def chat_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a chat, without those that are None.

    Raises:
        TypeError: There is an argument of another name.
    """
    unknown = [name for name in options if name not in CHAT_OPTIONS]
    if unknown:
        raise TypeError(f"there is no argument {unknown[0]!r}")
    return compact(options)
