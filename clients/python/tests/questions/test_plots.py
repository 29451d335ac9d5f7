"""Plots: what they show can be read back from the axes."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from question_texts import CLEAN, CORRUPT, EIFFEL

import residuum as rs

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()  # whatever cannot be drawn fails here
    plt.close("all")


def image(ax: Any) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def names(axis: Any) -> list[str]:
    return [t.get_text() for t in axis.get_ticklabels()]


def test_lens(cache: rs.Cache) -> None:
    lens = cache.logit_lens(tokens=[" Paris"])
    ax = lens.plot()
    np.testing.assert_array_equal(image(ax), lens.top_probability[:, :, 0])
    assert names(ax.xaxis)[-1] == "·of"
    assert len(ax.texts) == 30 * 9
    assert ax.texts[-1].get_text() == "·Paris"
    one = lens.plot(" Paris")
    np.testing.assert_array_equal(image(one), lens.probability[:, :, 0])
    with pytest.raises(ValueError, match="not followed"):
        lens.plot(" London")
    line = cache.logit_lens(positions=-1, tokens=[" Paris", " Rome"]).plot()
    assert [entry.get_text() for entry in line.get_legend().get_texts()] == ["·Paris", "·Rome"]
    np.testing.assert_allclose(line.lines[0].get_ydata(), lens.probability[:, -1, 0])


def test_attribution(cache: rs.Cache) -> None:
    found = cache.logit_attribution(" Paris", " Rome")
    left, right = found.plot()
    np.testing.assert_array_equal(image(left), found.heads)
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], found.mlp)
    low, high = left.images[0].get_clim()
    assert low == -high
    left, _ = cache.logit_attribution(" Paris", components="sublayers").plot()
    assert len(left.patches) == 30


def test_patching(model: rs.Model) -> None:
    found = model.patching(
        CLEAN, CORRUPT, answer=" Mary", against=" John", sweep={"positions": "each", "layers": [0, 20, 29]}
    )
    ax = found.plot()
    np.testing.assert_array_equal(image(ax), found.normalized)
    assert names(ax.yaxis) == ["0", "20", "29"]
    assert names(ax.xaxis)[9] == "·John/·Mary"
    assert ax.images[0].get_clim() == (-1.0, 1.0) or max(ax.images[0].get_clim()) > 1
    _, mine = plt.subplots()
    assert found.plot("effect", ax=mine) is mine
    np.testing.assert_array_equal(image(mine), found.effect)
    with pytest.raises(ValueError, match="not values"):
        found.plot("nonsense")
    line = model.patching(CLEAN, answer=" Mary", sweep={"op": "zero", "hook": "mlp_out", "layers": [0, 1]}).plot()
    assert len(line.lines[0].get_xdata()) == 2


def test_comparison(client: rs.Client, moods: dict[bool, list[rs.Cache]]) -> None:
    happy, sad = moods[True], moods[False]
    ax = client.compare(happy, sad).plot()
    assert len(ax.lines) == 4
    matrix = client.compare(happy, layers=[3, 9])
    np.testing.assert_array_equal(image(matrix.plot(layer=3)), matrix.array[0])
    grid = client.compare(happy[0], sad[0], mode="layers", layers=[3, 9])
    np.testing.assert_array_equal(image(grid.plot()), grid.array)
    sets = client.compare(groups={"happy": happy, "sad": sad}, metrics="mean_cosine", layers=3)
    assert names(sets.plot().xaxis) == ["happy", "sad"]


def test_dollars_are_no_mathematics(model: rs.Model) -> None:
    _, cache = model.run_with_cache("costs $5 and $6")
    cache.logit_lens(layers=[29]).plot()


def test_without_matplotlib_the_error_says_what_to_install(model: rs.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache = model.run_with_cache(EIFFEL)
    lens = cache.logit_lens(layers=[29])
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"residuum\[plot\]"):
        lens.plot()
