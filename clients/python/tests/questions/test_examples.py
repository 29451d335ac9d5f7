"""The scripts in `examples/python`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import residuum as rs

pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "python"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ioi(
    client: rs.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ioi.py", "--url", client.url, "--out", str(tmp_path)])
    load("ioi").main()
    plots = sorted(p.name for p in tmp_path.iterdir())
    assert plots == ["ioi_ablation.png", "ioi_attribution.png", "ioi_lens.png", "ioi_patching.png"]
    shown = capsys.readouterr().out.splitlines()
    documented = (EXAMPLES / "README.md").read_text(encoding="utf-8").split("```")[3].strip().splitlines()
    for line in documented:
        assert line in shown or not line.strip("… "), line


def test_sentences_are_always_the_same_and_share_no_word() -> None:
    example = load("sentiment")
    rows = example.sentences()
    assert rows == example.sentences()
    assert len(rows) == len({r["text"] for r in rows}) == 2000
    assert sum(r["positive"] for r in rows) == 1000
    assert sum(r["test"] for r in rows) == 400
    moods = set(example.POSITIVE + example.NEGATIVE)

    def words(test: bool) -> set[str]:
        return {
            w for r in rows if r["test"] == test for w in r["text"].replace(",", " ").replace(".", " ").split()
        } & moods

    assert not words(True) & words(False)
    assert len(words(True)) == 8


def test_a_small_probe(client: rs.Client, model: rs.Model, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("sentiment")
    rows = example.sentences()[:120]
    run = example.capture(model, rows)
    results = example.probe(run, rows, [16])
    assert results["logistic regression"][0] > 0.8
    direction = example.fit(client, model, 16)
    example.steer(model, direction)
    assert len(example.mood(model, direction)) == len(example.STRENGTHS)
    assert "120 sentences captured" in capsys.readouterr().out
