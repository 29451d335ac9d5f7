"""Directions: fitted, uploaded, read back."""

from __future__ import annotations

import numpy as np
import pytest

import residuum as rs

Moods = dict[bool, list[rs.Cache]]


def test_difference_of_means(client: rs.Client, moods: Moods) -> None:
    found = client.directions.fit(
        "joy", positive=moods[True], negative={"tags": ["happy=False"]}, layers=[14, 15], metadata={"by": "test"}
    )
    assert found.name == "joy"
    assert found.layers == [14, 15]
    assert found.method == "difference_of_means"
    assert found.metadata == {"by": "test"}
    assert found.provenance["n_positive"] == 4
    expected = [
        np.mean([c.layer(layer) for c in moods[True]], axis=0, dtype=np.float64)
        - np.mean([c.layer(layer) for c in moods[False]], axis=0, dtype=np.float64)
        for layer in (14, 15)
    ]
    np.testing.assert_allclose(found.vector(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.vector(15), client.directions.vector("joy")[1])
    assert found.vector(15).dtype == np.float32
    np.testing.assert_allclose(found.metrics["norm"], np.linalg.norm(expected, axis=1), rtol=1e-5)
    assert found.best_layer in (14, 15)
    assert "auroc up to 1.000" in repr(found)
    with pytest.raises(rs.Conflict, match="joy"):
        client.directions.fit("joy", positive=moods[True], negative=moods[False], layers=14)
    again = client.directions.fit("joy", positive=moods[True], negative=moods[False], layers=14, replace=True)
    assert again.layers == [14]
    assert again.id != found.id
    again.update({"note": 1, "by": None})
    assert client.directions.get("joy").metadata == {"note": 1}
    assert "joy" in [d.name for d in client.directions.list()]
    again.delete()
    assert not client.directions.exists("joy")
    with pytest.raises(rs.DirectionNotFound):
        client.directions.get("joy")


def test_probe_and_pca(client: rs.Client, moods: Moods) -> None:
    probe = client.directions.fit(
        "p", "probe", positive=moods[True], negative=moods[False], layers=15, folds=2, shuffles=1
    )
    assert probe.metrics["accuracy"].shape == (1,)
    assert {"auroc", "shuffled_accuracy"} <= set(probe.metrics)
    pca = client.directions.fit("c", "pca", caches=moods[True] + moods[False], layers=[15], k=2)
    assert pca.n_components == 2
    assert pca.metrics["explained_variance"].shape == (1, 2)
    x = np.stack([c.layer(15) for c in moods[True] + moods[False]]).astype(np.float64)
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(pca.metrics["explained_variance"][0], s[:2] ** 2 / 7, rtol=1e-5)
    assert abs(pca.vector(15, component=1) @ vt[1]) == pytest.approx(1, abs=1e-5)
    along = client.project(moods[True], pca.component(1), measures="dot", layers=15).array[:, 0, 0]
    np.testing.assert_allclose(along, x[:4] @ pca.vector(15, component=1), rtol=1e-4)
    with pytest.raises(ValueError, match="neither auroc nor accuracy"):
        _ = pca.best_layer


def test_upload(client: rs.Client) -> None:
    vectors = np.arange(1152, dtype=np.float64).reshape(2, 576) / 7
    found = client.directions.upload("mine", vectors, layers=[3, 4], model="smollm2")
    np.testing.assert_array_equal(found.vector(), vectors.astype(np.float32))
    assert found.model_id == "smollm2"
    one = client.directions.upload("one", vectors[0], layers=5)
    np.testing.assert_array_equal(one.vector(5), vectors[0].astype(np.float32))
    with pytest.raises(ValueError, match="as many layers"):
        client.directions.upload("x", vectors, layers=[3])
    with pytest.raises(ValueError, match="NaN"):
        client.directions.upload("x", [np.nan] * 576, layers=3)
