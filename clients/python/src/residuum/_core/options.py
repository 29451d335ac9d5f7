"""Keyword arguments of methods that are overloaded by their input, so that editors and type checkers know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from .hooks import Hooks, Layers


class ChatOptions(TypedDict, total=False):
    """How a chat is rendered."""

    add_generation_prompt: bool | None
    continue_final_message: bool | None
    template_kwargs: Mapping[str, Any] | None
    chat_template: str | None


class TokenizeOptions(ChatOptions, total=False):
    """Of `Model.tokenize`."""

    prepend_bos: bool | None


class RunOptions(TokenizeOptions, total=False):
    """Of `Model.run_with_cache`."""

    hooks: Hooks
    names: Hooks
    names_filter: Hooks
    layers: Layers
    positions: Any
    logits: bool
    interventions: Sequence[Any] | None
    dtype: str | None
    truncate: str | None
    reuse: bool | None
    priority: str | None
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    ttl: float | None
    timeout: float | None
    progress: bool | None


class GenerateOptions(TokenizeOptions, total=False):
    """Of `Model.generate`."""

    max_new_tokens: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    stop: str | Iterable[str] | None
    hooks: Hooks
    layers: Layers
    positions: Any
    dtype: str | None
    interventions: Sequence[Any] | None
    truncate: str | None
    priority: str | None
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    ttl: float | None
    timeout: float | None
    progress: bool | None
