"""Keyword arguments of methods that are overloaded by their input, so that editors and type checkers know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
