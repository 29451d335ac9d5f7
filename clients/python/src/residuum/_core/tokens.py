"""The tokens of an input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import show


class Tokenized:
    """Tokens as a run of the same input would have them.

    Attributes:
        data: The JSON as the server sent it.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.token_ids: NDArray[np.int64] = np.asarray(data["token_ids"], dtype=np.int64)
        self.token_ids.flags.writeable = False

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return list(self.data["tokens"])

    @property
    def special(self) -> list[bool]:
        """Which tokens are special."""
        return list(self.data["special"])

    @property
    def offsets(self) -> list[tuple[int, int] | None] | None:
        """The characters of the text that each token covers, `[start, end)`; None for posted ids."""
        offsets = self.data.get("offsets")
        return None if offsets is None else [None if o is None else (o[0], o[1]) for o in offsets]

    @property
    def bos(self) -> dict[str, Any]:
        """Whether there is a BOS token, and why."""
        return dict(self.data["bos"])

    @property
    def rendered(self) -> str | None:
        """The chat as the template rendered it."""
        rendered: str | None = self.data.get("rendered")
        return rendered

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The tokens of each message of a chat."""
        messages: list[dict[str, Any]] | None = self.data.get("messages")
        return messages

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        return f"Tokenized({self.tokens!r})"

    def _repr_html_(self) -> str:
        return show.box(f"{len(self)} tokens", show.token_strip(self.tokens, self.token_ids))
