"""What a user may pass as input, as the API takes it: text, token ids, a chat, or several of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Item: TypeAlias = "dict[str, Any]"
Input: TypeAlias = "str | Iterable[Any] | Mapping[str, Any]"


@dataclass
class Inputs:
    """Inputs of a run. `single` says that one was given, not a list with one in it."""

    items: list[Item]
    single: bool
    chat: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """`messages` or `items` of the request."""
        if self.single and set(self.items[0]) == {"messages"}:
            return {**self.items[0], **self.chat}
        return {"items": self.items, **self.chat}


def parse_inputs(value: Input) -> Inputs:
    """One input or several.

    A text, a list of token ids, a list of messages (a chat) and a mapping with `text`, `token_ids` or `messages` are one
    input. A list, array or tensor of these is several.

    Raises:
        TypeError: It is none of these.
        ValueError: It is empty.
    """
    one = _one(value)
    if one is not None:
        return Inputs([one], single=True)
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise TypeError(f"an input is text, token ids, a chat, or a list of them, not {type(value).__name__}")
    items = []
    for number, part in enumerate(value):
        item = _one(part)
        if item is None:
            raise TypeError(f"input {number} is neither text nor token ids nor a chat: {part!r:.80}")
        items.append(item)
    if not items:
        raise ValueError("there is no input: the list is empty")
    return Inputs(items, single=False)


def _one(value: Any) -> Item | None:
    """The item that a value is; None if it is several, or nothing that can be one."""
    if isinstance(value, str):
        return {"text": str(value)}
    if isinstance(value, Mapping):
        return _mapping(value)
    if hasattr(value, "model_dump"):
        dumped: Item = value.model_dump(mode="json", exclude_unset=True)
        return dumped
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        if value.ndim == 0:
            plain = value.item()
            return {"text": plain} if isinstance(plain, str) else None
        kind = str(getattr(value, "dtype", ""))
        return {"token_ids": [int(n) for n in value.tolist()]} if value.ndim == 1 and "int" in kind else None
    if isinstance(value, (list, tuple)) and value:
        if all(_is_id(v) for v in value):
            return {"token_ids": [int(v) for v in value]}
        if all(isinstance(v, Mapping) and "role" in v for v in value):
            return {"messages": [dict(v) for v in value]}
    return None


def _is_id(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (
        hasattr(value, "dtype") and "int" in str(value.dtype) and getattr(value, "ndim", 1) == 0
    )


def _mapping(value: Mapping[str, Any]) -> Item:
    item = dict(value)
    if "role" in item:
        raise TypeError("a message alone is no chat: put it into a list")
    if not {"text", "token_ids", "messages"} & set(item):
        raise TypeError(f"a mapping that is an input has `text`, `token_ids` or `messages`, not {sorted(item)}")
    if "token_ids" in item and hasattr(item["token_ids"], "tolist"):
        item["token_ids"] = item["token_ids"].tolist()
    return item


def several(inputs: Inputs) -> list[Any]:
    """Several inputs as one array, which has texts only, or lists of token ids only.

    Raises:
        TypeError: They are mixed, or chats.
    """
    for kind in ("text", "token_ids"):
        if all(set(item) == {kind} for item in inputs.items):
            return [item[kind] for item in inputs.items]
    raise TypeError("several inputs at once are texts only, or lists of token ids only; call it once for each chat")
