"""What a model wrote, and the tokens while it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import arguments
from ..tensors import Array
from ..wire import compact
from . import show


@dataclass(frozen=True)
class TokenEvent:
    """One generated token.

    Attributes:
        token: Its text by itself.
        token_id: Its id.
        text: What is certain of the text with it: empty while a character is incomplete or a text of `stop` may have
            begun. The texts of all events of an item, one after another, are what was generated.
        position: Its position.
        logprob: Natural logarithm of its probability; None if it is not known.
        input: Index of the input.
        sample: Number of the sample of that input.
        item: `input × n + sample`.
    """

    token: str
    token_id: int
    text: str
    position: int
    logprob: float | None = None
    input: int = 0
    sample: int = 0
    item: int = 0

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> TokenEvent:
        """From the data of an event."""
        return cls(
            token=data["token"],
            token_id=data["token_id"],
            text=data["text"],
            position=data["position"],
            logprob=data.get("logprob"),
            input=data["index"],
            sample=data["sample"],
            item=data["item"],
        )

    def __str__(self) -> str:
        return self.text


class GenerationInfo:
    """A continuation. The clients add its cache.

    Attributes:
        prompt: The text that was continued; None where token ids were posted.
        text: What was generated.
        token_ids: The generated tokens.
        tokens: Their texts.
        logprobs: Their log-probabilities, `[token]`, before temperature, `top_k` and `top_p`; None if not known.
        finish_reason: `length`, `end_of_sequence`, `stop` or `cancelled`.
        first_position: Position of the first generated token.
        sample: Number of the sample.
        seed: Repeats the sampling.
        temperature: As it was used.
        strengths: Strengths of the interventions that apply to this item, in order: where a list of strengths was
            given, this says which one it is.
    """

    def __init__(self, cache: Any, completion: Mapping[str, Any]) -> None:
        self.prompt: str | None = cache.text
        self.text: str = completion["text"]
        self.token_ids: list[int] = list(completion["token_ids"])
        self.first_position: int = completion["first_position"]
        end = self.first_position + len(self.token_ids)
        self.tokens: list[str] = cache.tokens[self.first_position : end]
        logprobs = completion.get("logprobs")
        self.logprobs: Array | None = None if logprobs is None else show.floats(logprobs)
        self.finish_reason: str = completion["finish_reason"]
        self.sample: int = completion["sample"]
        self.seed: int = completion["seed"]
        self.temperature: float = completion["temperature"]
        applied = (cache.data.get("provenance") or {}).get("interventions") or []
        self.strengths: list[float] = [float(a["strength"]) for a in applied if a.get("strength") is not None]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        prompt = "" if self.prompt is None else show.shorten(self.prompt, 60)
        return f"{type(self).__name__}({prompt!r} + {self.text!r}, {len(self.token_ids)} tokens, {self.finish_reason})"

    def _repr_html_(self) -> str:
        tokens = []
        for i, token in enumerate(self.tokens):
            p = None if self.logprobs is None else float(2.718281828459045 ** self.logprobs[i])
            hover = f"position {self.first_position + i}" + ("" if p is None else f", probability {p:.3f}")
            colour = "" if p is None else f"background:rgba(52,120,200,{0.6 * p:.3f});"
            tokens.append(
                f'<span style="{colour}padding:1px 0" title="{hover}">{show.escape(show.visible(token))}</span>'
            )
        prompt = show.escape(self.prompt or "")
        return f'<div style="font-family:monospace;font-size:12px">{prompt}<b>|</b>{"".join(tokens)}</div>'


def settings(
    max_new_tokens: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: Any,
    n: int | None,
) -> dict[str, Any]:
    """`generate` of a request."""
    return compact(
        {
            "max_new_tokens": arguments.positions(max_new_tokens),
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": seed,
            "stop": stop if stop is None or isinstance(stop, str) else list(stop),
            "n": n,
        }
    )


def grouped(items: list[Any], n_inputs: int, single: bool) -> Any:
    """Items of a run as the caller asked: one, a list, or a list for each input where every input has several.

    Args:
        items: In the order of the run: all of the first input, then those of the second, ….
        n_inputs: Number of inputs.
        single: Whether one input was given by itself, not in a list.
    """
    each = len(items) // n_inputs
    groups = [items[i : i + each] for i in range(0, len(items), each)] if each > 1 else items
    return groups[0] if single else groups
