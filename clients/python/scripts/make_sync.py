"""Derives the sync client, `src/residuum/_sync`, from the async one, `src/residuum/_async`.

    python scripts/make_sync.py           # write
    python scripts/make_sync.py --check   # fail if a committed file is not what would be written

`unasync` removes `async` and `await` and renames; this script does the same in comments and docstrings. Two files are
written by hand on both sides, because they are what differs: `primitives.py` and `access.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import tokenize_rt
import unasync

from generated import ROOT, settle

SOURCE = ROOT / "src" / "residuum" / "_async"
TARGET = ROOT / "src" / "residuum" / "_sync"
BY_HAND = {"primitives.py", "access.py"}

NAMES = {
    "aclose": "close",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "_async": "_sync",
    "Awaitable": "Any",
}
FIRST_LINE = "# Derived from `_async/{name}` by `scripts/make_sync.py`: do not edit.\n"


class Rule(unasync.Rule):
    """`AsyncThing` becomes `Thing`."""

    def _unasync_name(self, name: str) -> str:
        if name in self.token_replacements:
            return str(self.token_replacements[name])
        if re.fullmatch(r"_?Async[A-Z]\w*", name):
            return name.replace("Async", "", 1)
        return name


def prose(text: str) -> str:
    """A comment or docstring of the async client, for the sync one."""
    text = re.sub(r"\bawait ", "", text)
    text = re.sub(r"\basync (with|for|def)\b", r"\1", text)
    text = re.sub(r"\bAsync(?=[A-Z])", "", text)
    return text.replace("aclose()", "close()")


def derive(source: str, name: str) -> str:
    rule = Rule("_async", "_sync", NAMES)
    tokens = list(rule._unasync_tokens(tokenize_rt.src_to_tokens(source)))
    changed = [
        t._replace(src=prose(t.src)) if t.name == "COMMENT" or (t.name == "STRING" and t.src.startswith('"""')) else t
        for t in tokens
    ]
    return FIRST_LINE.format(name=name) + tokenize_rt.tokens_to_src(changed)


def main() -> int:
    files: dict[Path, str] = {}
    for path in sorted(SOURCE.glob("*.py")):
        if path.name not in BY_HAND:
            files[TARGET / path.name] = derive(path.read_text(encoding="utf-8"), path.name)
    extra = [p for p in TARGET.glob("*.py") if p not in files and p.name not in BY_HAND]
    for path in extra:
        print(f"{path.name} in _sync has no source in _async")
    return settle(files) or bool(extra)


if __name__ == "__main__":
    raise SystemExit(main())
