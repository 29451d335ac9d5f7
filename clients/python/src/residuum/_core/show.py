"""How caches, runs and models look in a terminal and in a notebook. Every text from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import hooks as hook_names

if TYPE_CHECKING:
    from .info import CacheInfo, HookInfo
    from .model_info import ModelInfo
    from .run_info import RunInfo

MAX_TOKENS = 60
STYLE = {
    "box": "font-family:system-ui,sans-serif;font-size:13px;line-height:1.5;border:1px solid #8884;"
    "border-radius:6px;padding:8px 10px;max-width:60em",
    "token": "display:inline-block;white-space:pre;border:1px solid #8886;border-radius:3px;padding:0 2px;margin:1px;"
    "font-family:ui-monospace,monospace",
    "dim": "opacity:.65",
    "cell": "text-align:left;padding:1px 12px 1px 0;font-family:ui-monospace,monospace",
    "head": "text-align:left;padding:1px 12px 1px 0;font-weight:600",
}


def escape(value: object) -> str:
    """Text for HTML."""
    return html.escape(str(value), quote=True)


def box(title: str, *parts: str) -> str:
    """A titled box. `title` and the parts are HTML already."""
    return f'<div style="{STYLE["box"]}"><div><b>{title}</b></div>{"".join(parts)}</div>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """`name value` pairs on a line; pairs without a value are left out."""
    shown = [
        f'<span style="{STYLE["dim"]}">{escape(n)}</span> {escape(v)}' for n, v in pairs if v not in (None, "", [])
    ]
    return f"<div>{' · '.join(shown)}</div>" if shown else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A small table."""
    top = "".join(f'<th style="{STYLE["head"]}">{escape(h)}</th>' for h in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{STYLE["cell"]}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f'<table style="border-collapse:collapse;margin-top:4px"><tr>{top}</tr>{body}</table>'


def visible(token: str) -> str:
    """A token with its line breaks and tabs made visible."""
    return token.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")


def token_strip(tokens: Sequence[str], ids: Sequence[int] | Any = ()) -> str:
    """The tokens side by side; the pointer shows position and id. The middle of a long input is left out."""
    numbers = list(range(len(tokens)))
    gap = len(numbers) > MAX_TOKENS
    shown = numbers[: MAX_TOKENS // 2] + numbers[-MAX_TOKENS // 2 :] if gap else numbers
    parts = []
    for i in shown:
        if gap and i == shown[MAX_TOKENS // 2]:
            parts.append(f'<span style="{STYLE["dim"]}"> … {len(numbers) - MAX_TOKENS} more … </span>')
        title = f"position {i}" + (f", id {int(ids[i])}" if len(ids) > i else "")
        parts.append(
            f'<span title="{escape(title)}" style="{STYLE["token"]}">{escape(visible(tokens[i])) or "∅"}</span>'
        )
    return f"<div>{''.join(parts)}</div>"


def shape_text(shape: Sequence[int | None]) -> str:
    """`[pos, 576]`-like text of a shape."""
    return "[" + ", ".join("·" if n is None else str(n) for n in shape) + "]"


def grouped(hooks: dict[str, HookInfo]) -> list[tuple[str, str, str, str, str]]:
    """One line for each hook without its layer: name, layers, shape, axes, dtype."""
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for name, hook in hooks.items():
        key = (hook_names.without_layer(name), shape_text(hook.shape), ", ".join(hook.axes), hook.dtype or "")
        layers = groups.setdefault(key, [])
        if hook.layer is not None:
            layers.append(hook.layer)
    return [(key[0], layers_text(layers), *key[1:]) for key, layers in groups.items()]


def layers_text(layers: Sequence[int]) -> str:
    """`0-29`, or the numbers."""
    if not layers:
        return ""
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}-{layers[-1]}"
    return ", ".join(map(str, layers[:10])) + (", …" if len(layers) > 10 else "")


def n_bytes_text(n: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def shortened(text: str, limit: int = 60) -> str:
    """The text on one line, cut where it is long."""
    text = visible(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cache_text(cache: CacheInfo) -> str:
    """The repr of a cache."""
    words = shortened(cache.text if cache.text is not None else "".join(cache.tokens))
    lines = [f"Cache {cache.id} of {cache.model_id}: {words!r}, {cache.n_tokens} tokens"]
    if cache.label or cache.tags:
        lines.append(f"  label {cache.label!r}, tags {cache.tags}")
    for name, layers, shape, axes, dtype in grouped(cache.hooks):
        where = f" layers {layers}" if layers else ""
        lines.append(f"  {name}{where}: {shape} ({axes}) {dtype}")
    return "\n".join(lines)


def cache_html(cache: CacheInfo) -> str:
    """A cache in a notebook."""
    return box(
        f"Cache <code>{escape(cache.id)}</code>",
        facts(
            [
                ("model", cache.model_id),
                ("tokens", cache.n_tokens),
                ("positions", cache.positions),
                ("stored", n_bytes_text(cache.n_bytes)),
                ("label", cache.label),
                ("tags", ", ".join(cache.tags)),
                ("generated", cache.completion),
                ("warnings", ", ".join(str(w.get("code")) for w in cache.warnings)),
            ]
        ),
        token_strip(cache.tokens, cache.token_ids),
        table(["hook", "layers", "shape", "axes", "dtype"], grouped(cache.hooks)),
    )


def run_text(run: RunInfo) -> str:
    """The repr of a run."""
    extra = f", {run.n_reused} reused" if run.n_reused else ""
    extra += f", {run.n_failed} failed" if run.n_failed else ""
    return f"Run {run.id} of {run.model_id}: {run.status}, {run.n_done} of {run.n_items} inputs done{extra}"


def progress_html(done: int, failed: int, total: int) -> str:
    """A bar."""
    share = 100 * (done + failed) / total if total else 0
    colour = "#d33" if failed else "#39c"
    return (
        f'<div style="background:#8883;border-radius:3px;height:8px;margin:4px 0;max-width:30em">'
        f'<div style="background:{colour};width:{share:.1f}%;height:8px;border-radius:3px"></div></div>'
    )


def run_html(run: RunInfo) -> str:
    """A run in a notebook."""
    error = run.data.get("error") or {}
    return box(
        f"Run <code>{escape(run.id)}</code>",
        facts(
            [
                ("model", run.model_id),
                ("status", run.status),
                ("done", f"{run.n_done} of {run.n_items}"),
                ("reused", run.n_reused or None),
                ("failed", run.n_failed or None),
                ("tags", ", ".join(run.tags)),
                ("error", error.get("detail")),
            ]
        ),
        progress_html(run.n_done, run.n_failed, run.n_items),
    )


def capture_text(capture: Any) -> str:
    """The repr of a capture."""
    total = "?" if capture.n_inputs is None else capture.n_inputs
    extra = f", {capture.n_reused} reused" if capture.n_reused else ""
    extra += f", {capture.n_failed} failed" if capture.n_failed else ""
    state = "ended" if capture.ended else "not ended: wait() goes on"
    return f"Capture in {len(capture.runs)} runs: {capture.n_done} of {total} inputs done{extra} ({state})"


def capture_html(capture: Any) -> str:
    """A capture in a notebook."""
    total = capture.n_inputs
    failed = [(f.index, f.code, f.detail) for f in capture.failed[:10]]
    return box(
        "Capture",
        facts(
            [
                ("runs", len(capture.runs)),
                ("done", f"{capture.n_done} of {'?' if total is None else total}"),
                ("reused", capture.n_reused or None),
                ("failed", capture.n_failed or None),
                ("state", "ended" if capture.ended else "not ended: wait() goes on"),
            ]
        ),
        progress_html(capture.n_done, capture.n_failed, total or 0),
        table(["input", "code", "why it failed"], failed) if failed else "",
    )


def model_text(model: ModelInfo) -> str:
    """The repr of a model."""
    if model.data.get("n_layers") is None:
        return f"Model {model.id}: {model.status}"
    d = model.data
    return (
        f"Model {model.id} ({d.get('architecture')}, {d.get('device')}): {d.get('n_layers')} layers, "
        f"d_model {d.get('d_model')}, {d.get('n_heads')} heads, d_mlp {d.get('d_mlp')}, d_vocab {d.get('d_vocab')}, "
        f"context {d.get('n_ctx')}" + ("" if model.status == "ready" else f", {model.status}")
    )


def model_html(model: ModelInfo) -> str:
    """A model in a notebook."""
    d = model.data
    names = ("architecture", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp", "d_vocab", "n_ctx")
    listed = grouped(model.hooks) if d.get("hooks") else []
    hooks = table(["hook", "layers", "shape", "axes"], [row[:4] for row in listed])
    folded = f"<details><summary>{len(model.hooks)} hook points</summary>{hooks}</details>" if listed else ""
    more = [("status", model.status), ("device", d.get("device")), ("weights", d.get("weights_dtype"))]
    return box(
        f"Model <code>{escape(model.id)}</code>",
        facts([(name, d.get(name)) for name in names]),
        facts([*more, ("warnings", ", ".join(str(w.get("code")) for w in model.warnings))]),
        folded,
    )
