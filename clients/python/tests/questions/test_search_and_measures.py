"""Search, comparisons, projections, statistics: against numpy on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from question_texts import EIFFEL

import residuum as rs

Moods = dict[bool, list[rs.Cache]]
LAYER = 15


def rows(caches: list[rs.Cache], layer: int = LAYER) -> np.ndarray:
    return np.stack([c.layer(layer) for c in caches]).astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T) / np.linalg.norm(a, axis=-1)[..., None] / np.linalg.norm(b, axis=-1)


def test_search_by_cache(client: rs.Client, moods: Moods) -> None:
    every = moods[True] + moods[False]
    found = client.search(every[0], layer=LAYER, k=7, tags=["moods"], exclude_self=True)
    expected = cosines(rows(every[:1]), rows(every[1:]))[0]
    assert found.cache_ids == [every[1 + i].id for i in np.argsort(-expected)]
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1], rtol=1e-5)
    assert found[0].tags == ("moods", f"happy={found[0].cache_id in [c.id for c in moods[True]]}")
    assert len(found[:2]) == 2
    assert "cosine" in repr(found)


def test_search_by_vectors_and_direction(client: rs.Client, moods: Moods) -> None:
    every = moods[True] + moods[False]
    matrix = rows(every[:2])
    found = client.search(matrix, layer=LAYER, metric="dot", k=3, filter={"tags": ["moods"]})
    assert [len(r) for r in found] == [3, 3]
    expected = rows(every) @ matrix.T
    for result, scores in zip(found, expected.T, strict=True):
        np.testing.assert_allclose(result.scores, np.sort(scores)[::-1][:3], rtol=1e-5)
    one = client.search(matrix[0].astype(np.float32), layer=LAYER, metric="euclidean", k=1, tag="moods")
    assert one[0].score == pytest.approx(0, abs=1e-3)


def test_search_by_text_over_positions(client: rs.Client, model: rs.Model, cache: rs.Cache) -> None:
    found = client.search(EIFFEL, model=model, layer=20, over="positions", k=2, context=2, run=cache.run_id)
    assert found[0].position == 8
    assert found[0].score == pytest.approx(1, abs=1e-5)
    assert found[0].text.endswith("city[ of]")
    assert found.scanned["rows"] == 9
    with pytest.raises(TypeError, match="model="):
        client.search(EIFFEL, layer=20)


def test_compare(client: rs.Client, moods: Moods) -> None:
    happy, sad = moods[True], moods[False]
    pairs = client.compare(happy, sad, metrics=["cosine", "euclidean"], layers=[0, LAYER])
    assert pairs.axes == ("layer", "pair")
    assert pairs.layers == [0, LAYER]
    assert pairs.pairs == [(a.id, b.id) for a, b in zip(happy, sad, strict=True)]
    a, b = rows(happy), rows(sad)
    np.testing.assert_allclose(pairs["cosine"][1], np.diag(cosines(a, b)), rtol=1e-6)
    np.testing.assert_allclose(pairs["euclidean"][1], np.linalg.norm(a - b, axis=1), rtol=1e-6)
    with pytest.raises(KeyError, match="euclidean"):
        pairs["dot"]
    with pytest.raises(ValueError, match="choose one"):
        _ = pairs.array
    matrix = client.compare(happy + sad, metrics="cosine", layers=LAYER)
    assert matrix.mode == "matrix"
    np.testing.assert_allclose(matrix.array[0], cosines(np.vstack([a, b]), np.vstack([a, b])), rtol=1e-6)
    assert matrix.cache_ids == [c.id for c in happy + sad]
    grid = client.compare(happy[0], sad[0], mode="layers", layers=[3, 9])
    assert grid.array.shape == (2, 2)
    assert grid.layers_b == [3, 9]
    groups = {"happy": {"tags": ["happy=True"]}, "sad": {"tags": ["happy=False"]}}
    sets = client.compare(groups=groups, metrics=["mean_difference"], layers=LAYER)
    assert [g["name"] for g in sets.groups] == ["happy", "sad"]
    assert sets.array[0, 0, 1] == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)), rel=1e-6)
    assert "mean_difference" in repr(sets)
    with pytest.raises(TypeError, match="needs caches"):
        client.compare()


def test_undefined_is_nan(client: rs.Client, moods: Moods) -> None:
    sets = client.compare(groups={"a": [moods[True][0]], "b": [moods[False][0]]}, metrics="effect_size", layers=0)
    assert np.isnan(sets.array).all()


def test_project(client: rs.Client, model: rs.Model, moods: Moods) -> None:
    happy = moods[True]
    vector = np.random.default_rng(0).standard_normal(576)
    found = client.project(happy, {"random": vector, "first": happy[0]}, layers=[LAYER])
    assert found.directions == ["random", "first"]
    assert found.axes == ("cache", "layer", "direction")
    x = rows(happy)
    np.testing.assert_allclose(found["dot"][:, 0, 0], x @ vector.astype(np.float32).astype(np.float64), rtol=1e-6)
    np.testing.assert_allclose(found["scalar"][:, 0, 1], x @ x[0] / np.linalg.norm(x[0]), rtol=1e-6)
    assert found["cosine"][0, 0, 1] == pytest.approx(1)
    assert np.array_equal(found.of(happy[2], "cosine"), found["cosine"][2])
    assert found.offsets is None
    _, whole = model.run_with_cache(["one two three", "four"])
    several = client.project(whole, vector, measures="dot", layers=[1, 2], positions="all")
    assert several.array.shape == (sum(c.n_tokens for c in whole), 2, 1)
    assert several.offsets is not None
    expected = whole[1].stack(layers=[1, 2])[:, 0] @ vector
    np.testing.assert_allclose(several.of(whole[1])[0, :, 0], expected, rtol=1e-4)


def test_statistics(client: rs.Client, cache: rs.Cache) -> None:
    found = client.statistics(cache, layers=[3, 28], top_k=2)
    for i, layer in enumerate([3, 28]):
        x = cache.layer(layer).astype(np.float64)
        norms = np.linalg.norm(x, axis=1)
        assert found.norm["mean"][i] == pytest.approx(norms.mean())
        assert found.norm["std"][i] == pytest.approx(norms.std())
        assert found.mean_norm[i] == pytest.approx(np.linalg.norm(x.mean(0)))
        assert found.total_variance[i] == pytest.approx(x.var(0).sum())
        assert found.n[i] == 9
    assert {o["dimension"] for o in found.outliers[1]} >= {507}
    assert found.layers == [3, 28]
    assert "507" in repr(found)


def test_selections(client: rs.Client, moods: Moods) -> None:
    ids = [c.id for c in moods[True]]
    for caches in (ids, tuple(ids), moods[True], {"tags": ["happy=True"]}, iter(ids)):
        assert client.statistics(caches, layers=0).n_caches == 4
    assert client.statistics(ids[0], layers=0).n_caches == 1
    with pytest.raises(TypeError, match="a cache or its id"):
        client.statistics([3.5], layers=0)
    with pytest.raises(rs.UnknownCache):
        client.statistics("01a22ddd-52e3-77de-8806-f33f990023c5", layers=0)


def test_runs_and_captures_are_selections(client: rs.Client, model: rs.Model) -> None:
    texts = [f"text {i}" for i in range(5)]
    run = model.run(texts, layers=[0], positions="last").wait(progress=False)
    one = model.capture(texts, layers=[0], progress=False)
    several = model.capture(texts, layers=[0], chunk_size=2, progress=False)
    for caches in (run, one, several, client.caches(run=run), several.caches()):
        assert client.statistics(caches, layers=0).n_caches == 5
    assert len(several.runs) == 3
    assert client.compare(several, run, layers=0).array == pytest.approx(1)
