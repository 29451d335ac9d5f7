"""Every Python block of the README runs, in order, in one program."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from question_texts import MODEL

import residuum as rs

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


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
    pytest.importorskip("torch")
    blocks = list(BLOCK.finditer(README.read_text(encoding="utf-8")))
    assert len(blocks) >= 10
    names: dict[str, object] = {"__name__": "__readme__"}
    with contextlib.ExitStack() as stack:
        for block in blocks:
            line = README.read_text(encoding="utf-8")[: block.start(1)].count("\n")
            code = compile("\n" * line + block.group(1), str(README), "exec")
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
