"""Every Python block of the README runs, in order, in one program."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from pathlib import Path

import pytest
from question_texts import MODEL

import residuum as rs

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


HAS_TORCH = importlib.util.find_spec("torch") is not None


def runnable(block: str) -> str:
    """The lines of a block that run without what is not installed."""
    if HAS_TORCH:
        return block
    if "residuum.torch" in block:
        return ""
    return "".join(line if ".torch(" not in line else "\n" for line in block.splitlines(keepends=True))


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as the README expects it: with the model, and nothing else."""
    if not MODEL.exists():
        pytest.skip("scripts/fetch_demo_model.sh smollm2 fetches the model")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / MODEL.name).symlink_to(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")


def test_the_blocks_run(in_a_folder: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    blocks = list(BLOCK.finditer(README.read_text(encoding="utf-8")))
    assert len(blocks) >= 10
    names: dict[str, object] = {"__name__": "__readme__"}
    with contextlib.ExitStack() as stack:
        for block in blocks:
            line = README.read_text(encoding="utf-8")[: block.start(1)].count("\n")
            code = compile("\n" * line + runnable(block.group(1)), str(README), "exec")
            exec(code, names)
            if isinstance(names.get("c"), rs.LocalServer):
                stack.callback(names["c"].close)  # type: ignore[attr-defined]
        lens = names["cache"].logit_lens(layers=[10, 20, 28, 29], tokens=[" Paris"])  # type: ignore[attr-defined]
        shown = repr(lens).splitlines()
        text = README.read_text(encoding="utf-8")
        for row in shown[1:]:
            assert row in text
        assert names["X"].shape == (4, 576)  # type: ignore[attr-defined]
        assert list(names["y"]) == ["good", "good", "bad", "bad"]  # type: ignore[call-overload]
        assert os.path.getsize("reviews.safetensors") > 4 * 576 * 4
    assert "no server at http://127.0.0.1:9" in capsys.readouterr().out


def test_the_block_of_the_repository_runs(in_a_folder: None) -> None:
    """The block of the README in the root of the repository."""
    pytest.importorskip("matplotlib")
    (block,) = BLOCK.finditer((README.parents[2] / "README.md").read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__readme__"}
    try:
        exec(compile(block.group(1), "README.md", "exec"), names)
    finally:
        names["c"].close()  # type: ignore[attr-defined]
    assert names["X"].shape == (2, 576)  # type: ignore[attr-defined]
    assert list(names["y"]) == ["good", "bad"]  # type: ignore[call-overload]
