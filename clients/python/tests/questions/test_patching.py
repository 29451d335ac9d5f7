"""Sweeps, against runs with one intervention each."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from question_texts import CLEAN, CORRUPT

import residuum as rs
from residuum import interventions as iv
from residuum._core.results.patching import Patching

MARY, JOHN = 5099, 2322


def difference(logits: object) -> float:
    last = np.asarray(logits)[-1]
    return float(last[MARY]) - float(last[JOHN])


def test_patching_equals_single_runs(model: rs.Model) -> None:
    found = model.patching(
        CLEAN,
        CORRUPT,
        answer=" Mary",
        against=" John",
        sweep={"hook": "resid_pre", "positions": "each", "layers": [5, 22]},
    )
    assert found.axes == ("layer", "pos")
    assert found.values.shape == found.effect.shape == (2, 14)
    logits, clean = model.run_with_cache(CLEAN, hooks=["resid_pre"])
    assert found.clean == pytest.approx(difference(logits), rel=1e-6)
    assert found.corrupt == pytest.approx(difference(model.run_with_cache(CORRUPT)[0]), rel=1e-6)
    for i, layer in enumerate([5, 22]):
        for position in (3, 9, 13):
            change = iv.patch(clean, hook="resid_pre", layers=layer, positions=position)
            patched, _ = model.run_with_cache(CORRUPT, interventions=[change])
            assert found.values[i, position] == pytest.approx(difference(patched), rel=1e-5)
    np.testing.assert_allclose(found.effect, found.values - found.corrupt, rtol=1e-6, atol=1e-6)
    assert found.normalized is not None
    np.testing.assert_allclose(found.normalized, found.effect / (found.clean - found.corrupt), rtol=1e-6, atol=1e-6)
    assert found.labels["pos"][9] == "·John/·Mary"
    assert found.labels["pos"][3] == "·Mary"
    assert found.labels["layer"] == ["5", "22"]


def test_heads_zeroed_equal_single_runs(model: rs.Model) -> None:
    found = model.patching(
        CLEAN,
        answer=" Mary",
        against=" John",
        sweep={"op": "zero", "hook": "attn.z", "heads": "each", "layers": range(22, 24)},
    )
    assert found.axes == ("layer", "head")
    assert found.normalized is None
    assert np.isnan(found.corrupt)
    where, effect = found.top(1)[0]
    assert where == {"layer": 23, "head": 3}
    assert effect == found.effect[1, 3]
    logits, _ = model.run_with_cache(CLEAN, interventions=[iv.zero(hook="attn.z", layers=23, heads=3)])
    assert found.values[1, 3] == pytest.approx(difference(logits), rel=1e-5)


def test_knockout_equals_a_single_run(model: rs.Model) -> None:
    sweep = {"op": "knockout", "from": "each", "to": "last", "layers": [23]}
    found = model.patching(CLEAN, answer=" Mary", against=" John", sweep=sweep)
    assert found.axes == ("layer", "k_pos")
    with model.intervene(iv.knockout(keys=3, queries="last", layers=23)) as changed:
        logits, _ = changed.run_with_cache(CLEAN)
    assert found.values[0, 3] == pytest.approx(difference(logits), rel=1e-5)


def test_only_layers_is_a_vector(model: rs.Model) -> None:
    found = model.patching(CLEAN, answer=" Mary", sweep={"op": "zero", "hook": "mlp_out", "layers": [0, 1]})
    assert found.axes == ("layer",)
    assert found.metric == "probability"
    assert found.against is None
    assert "layer 0" in repr(found)


def test_token_ids_and_default_sweep(model: rs.Model) -> None:
    clean, corrupt = model.tokenize("The sun"), model.tokenize("The moon")
    found = model.patching(clean.token_ids, list(corrupt.token_ids), answer=MARY, against=JOHN, direction="noise")
    assert found.values.shape == (30, 2)
    assert found.hook == "hook_resid_pre"
    assert found.direction == "noise"


def test_progress_is_shown_or_not(model: rs.Model, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = {"positions": "each", "layers": [20, 25]}
    model.patching(CLEAN, CORRUPT, answer=" Mary", against=" John", sweep=sweep, progress=True)
    shown = capsys.readouterr().err
    assert "28/28" in shown
    model.patching(CLEAN, CORRUPT, answer=" Mary", against=" John", sweep=sweep, progress=False)
    assert capsys.readouterr().err == ""


def test_problems_are_classes(model: rs.Model) -> None:
    with pytest.raises(rs.ApiError) as different:
        model.patching(CLEAN, "Too short", answer=" Mary", against=" John")
    assert different.value.code == "shape_mismatch" or different.value.status == 422
    with pytest.raises(rs.UnknownHook):
        model.patching(CLEAN, CORRUPT, answer=" Mary", sweep={"hook": "nonsense", "positions": "each"})
    with pytest.raises(ValueError, match="takes the model as it is"):
        model.intervene(iv.zero(layers=0)).patching(CLEAN, CORRUPT, answer=" Mary")


def test_a_stream_without_a_result_is_an_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"id": "m", "status": "ready", "n_layers": 2, "hooks": []})
        text = 'event: progress\ndata: {"queue_position": 3, "done": 0, "total": 4}\n\n'
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    with rs.Client("http://x", transport=httpx.MockTransport(answer)) as client, pytest.raises(rs.UnexpectedAnswer):
        client.model("m").patching("a", "b", answer=1)


def test_html_of_a_sweep(model: rs.Model) -> None:
    found = model.patching(CLEAN, CORRUPT, answer=" Mary", against=" John", sweep={"positions": "each", "layers": [20]})
    html = found._repr_html_()
    assert "·John/·Mary" in html
    assert html.count("<td") == 14
    assert isinstance(found, Patching)
