"""Names of hook points: the server's, and all the ways in which TransformerLens lets one write them.

`act_name` follows TransformerLens's `get_act_name`; the difference is that a name which is not understood is left to the
server, whose error lists what the model has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

HookKey: TypeAlias = "str | int | tuple[Any, ...]"
Hooks: TypeAlias = "str | tuple[Any, ...] | Callable[[str], bool] | Iterable[str | tuple[Any, ...]] | None"
Layers: TypeAlias = "str | int | Sequence[int] | None"

_FULL = re.compile(r"^blocks\.(\d+)\.(.+)$")
_COMPACT = re.compile(r"^([a-z_]+?)(\d+)([a-z]\w*)?$")

_ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "key": "k",
    "query": "q",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_mid": "mid",
    "mlp_post": "post",
}
_LAYER_TYPES = {
    "a": "attn",
    "attn": "attn",
    "attention": "attn",
    "m": "mlp",
    "mlp": "mlp",
    "b": "",
    "block": "",
    "blocks": "",
    "ln1": "ln1",
    "ln2": "ln2",
    "ln_final": "ln_final",
}
_IN_ATTN = {"k", "q", "v", "z", "result", "pattern", "attn_scores", "rot_q", "rot_k", "q_gate", "kv_latent", "q_latent"}
_IN_MLP = {"pre", "post", "mid", "pre_linear", "router_logits", "expert_weights", "expert_indices"}
_NORMS = {"scale", "normalized"}
_OUTSIDE = {"embed", "pos_embed", "type_embed", "tokens"}
_PLAIN = {"final_norm", "logits"}


def short_name(name: str, layer_type: str | None = None) -> str:
    """The name inside a block, as the server takes it with `layers`: `k` is `attn.k`, `post` is `mlp.post`."""
    name = _ALIASES.get(name, name)
    if layer_type is not None:
        kind = _LAYER_TYPES.get(layer_type, layer_type)
        return f"{kind}.{name}" if kind else name
    if name in _IN_ATTN:
        return f"attn.{name}"
    if name in _IN_MLP:
        return f"mlp.{name}"
    return name


def act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full name of a hook, as TransformerLens's `get_act_name` has it.

    >>> act_name("resid_post", 3), act_name("k6"), act_name("scale4ln1"), act_name("normalized", 27, "ln2")
    ('blocks.3.hook_resid_post', 'blocks.6.attn.hook_k', 'blocks.4.ln1.hook_scale', 'blocks.27.ln2.hook_normalized')
    """
    if layer is None and layer_type is None and ("." in name or name.startswith("hook_") or name in _PLAIN):
        return name
    compact = _COMPACT.match(name) if layer is None else None
    if compact:
        name, layer, layer_type = compact.group(1), compact.group(2), compact.group(3) or layer_type
    if layer is None and (name in _NORMS or layer_type == "ln_final"):
        return f"ln_final.hook_{name}"
    if layer is None:
        return f"hook_{name}" if name in _OUTSIDE else short_name(name, layer_type)
    if not str(layer).lstrip("-").isdigit():  # act_name("pattern", "attn") is a name with its layer type
        return short_name(name, str(layer))
    inner = short_name(name.removeprefix("hook_"), layer_type)
    owner, _, last = inner.rpartition(".")
    last = last.removeprefix("hook_")
    return f"blocks.{layer}.{owner}.hook_{last}" if owner else f"blocks.{layer}.hook_{last}"


def layer_of(name: str) -> int | None:
    """The layer of a full name; None outside the blocks."""
    match = _FULL.match(name)
    return int(match.group(1)) if match else None


def without_layer(name: str) -> str:
    """The short name of a full one: `blocks.3.attn.hook_k` is `attn.k`; outside the blocks the name itself."""
    match = _FULL.match(name)
    if not match:
        return name
    owner, _, last = match.group(2).rpartition(".")
    last = last.removeprefix("hook_")
    return f"{owner}.{last}" if owner else last


def requested(hooks: Hooks, available: Iterable[str] = (), n_layers: int = 0) -> list[str] | None:
    """What `capture.hooks` of a run has to be for what the user asked. None is left to the default.

    Args:
        hooks: One name, a list of names, a function that chooses among full names, or `"all"`.
        available: The model's hooks, for functions and `"all"`.
        n_layers: The model's layers, for negative ones in `("k", -1)`.

    Raises:
        ValueError: A function chooses no hook.
        TypeError: Something is no name.
    """
    if hooks is None:
        return None
    if callable(hooks):
        chosen = [name for name in available if hooks(name)]
        if not chosen:
            raise ValueError("the function chooses none of the model's hooks; model.hooks lists them")
        return chosen
    if isinstance(hooks, str):
        return list(available) if hooks == "all" else [_one(hooks, n_layers)]
    if isinstance(hooks, tuple) and is_key(hooks):
        return [_one(hooks, n_layers)]
    names: list[str] = []
    several: Any = hooks
    for hook in several:
        if callable(hook):
            chooses: Any = hook
            names += requested(chooses, available, n_layers) or []
        else:
            names.append(_one(hook, n_layers))
    return list(dict.fromkeys(names))


def is_key(value: tuple[Any, ...]) -> bool:
    """Whether a tuple is one hook, `("k", 3)` or `("scale", 3, "ln1")`, and not several names."""
    return len(value) in (2, 3) and isinstance(value[0], str) and isinstance(value[1], int)


def _one(hook: Any, n_layers: int) -> str:
    if isinstance(hook, str):
        return act_name(hook)
    if isinstance(hook, tuple) and hook and all(isinstance(part, (str, int)) for part in hook):
        parts = list(hook)
        if len(parts) > 1 and isinstance(parts[1], int) and parts[1] < 0:
            parts[1] += n_layers
        return act_name(*parts)
    raise TypeError(f"a hook is a name, or a tuple such as ('resid_post', 3), not {hook!r}")


def resolve(key: HookKey, available: Sequence[str], n_layers: int) -> str:
    """Which of the hooks of a cache a key means.

    A key is a full name, a name and a layer (`("k", 3)`, negative layers count from the last), a compact name (`"k3"`),
    a layer (its `resid_post`), or a short name of which only one layer is there.

    If none is meant, or several are, the answer is a name that the cache does not have.

    Raises:
        TypeError: It is not a key.
    """
    if isinstance(key, str) and key in available:
        return key
    name = _one(("resid_post", key) if isinstance(key, int) else key, n_layers)
    if name in available:
        return name
    same = [hook for hook in available if without_layer(hook) in (name, short_name(name))]
    return same[0] if len(same) == 1 else name


def describe(available: Sequence[str]) -> str:
    """The hooks in few words, for messages: `resid_post (layers 0-29), attn.pattern (layers 0, 5)`."""
    layers: dict[str, list[int]] = {}
    for hook in available:
        layers.setdefault(without_layer(hook), [])
        layer = layer_of(hook)
        if layer is not None:
            layers[without_layer(hook)].append(layer)
    parts = [f"{name} ({_ranges(numbers)})" if numbers else name for name, numbers in layers.items()]
    return ", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "") if parts else "none"


def _ranges(numbers: Sequence[int]) -> str:
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"layers {numbers[0]}-{numbers[-1]}"
    shown = ", ".join(map(str, numbers[:8]))
    return f"layers {shown}" + (", …" if len(numbers) > 8 else "")
