"""Sparse autoencoders, against numpy with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from question_texts import D_SAE, EIFFEL, SAE_K, SAE_LAYER, sae_weights

import residuum as rs


def encode(x: np.ndarray) -> np.ndarray:
    """Activations of the TopK autoencoder: `[pos, d_sae]`."""
    w = {name: value.astype(np.float64) for name, value in sae_weights().items()}
    pre = np.maximum((x.astype(np.float64) - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    kept = np.zeros_like(pre)
    best = np.argsort(-pre, axis=1)[:, :SAE_K]
    np.put_along_axis(kept, best, np.take_along_axis(pre, best, 1), 1)
    return kept


def test_description(client: rs.Client) -> None:
    (sae,) = client.saes.list()
    assert (sae.id, sae.model_id, sae.architecture) == ("demo", "smollm2", "topk")
    assert (sae.hook, sae.layer) == (f"blocks.{SAE_LAYER}.hook_resid_post", SAE_LAYER)
    assert (sae.d_in, sae.d_sae) == (576, D_SAE)
    assert "576 → 64 features" in repr(sae)
    with pytest.raises(rs.SaeNotFound):
        client.saes.get("other")


def test_features(cache: rs.Cache, client: rs.Client) -> None:
    expected = encode(cache.layer(SAE_LAYER))
    found = cache.features("demo", top_k=SAE_K, features=[3, 8], positions="all")
    assert found.tokens[-1] == " of"
    np.testing.assert_array_equal(found.n_active, (expected > 0).sum(1))
    np.testing.assert_allclose(found.activations, expected[:, [3, 8]], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.top_ids[:, 0], expected.argmax(1))
    np.testing.assert_allclose(found.top_activations[:, 0], expected.max(1), rtol=1e-4)
    assert found.top(-1)[0][0] == expected[-1].argmax()
    whole = cache.feature_activations(client.saes.get("demo"), positions="all")
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-3)
    assert cache.feature_activations("demo", [3, 8], positions=-1).shape == (1, 2)
    assert "demo" in repr(found)
    assert "·of" in found._repr_html_()


def test_tokens_of_features(cache: rs.Cache, client: rs.Client) -> None:
    expected = encode(cache.layer(SAE_LAYER))
    feature = int(expected[-1].argmax())
    found = client.saes.get("demo").tokens(feature, k=3, context=1, run=cache.run_id)
    assert found.feature == feature
    assert found.n_active == (expected[:, feature] > 0).sum()
    np.testing.assert_allclose(found.scores, np.sort(expected[:, feature])[::-1][:3], rtol=1e-4)
    assert found[0].position == expected[:, feature].argmax()
    several = client.saes.get("demo").tokens([feature, 0], k=1, run=cache.run_id)
    assert [f.feature for f in several] == [feature, 0]


def test_project_and_search_by_feature(cache: rs.Cache, client: rs.Client) -> None:
    feature = client.saes.get("demo").feature(7)
    along = client.project(cache, feature, measures="dot", layers=SAE_LAYER).array.item()
    assert along == pytest.approx(float(cache.layer(SAE_LAYER)[-1] @ sae_weights()["W_dec"][7]), rel=1e-3)
    found = client.search(feature, layer=SAE_LAYER, metric="dot", over="positions", k=1, run=cache.run_id)
    assert found[0].position == (cache.layer(SAE_LAYER) @ sae_weights()["W_dec"][7]).argmax()


def test_bos_mismatch(model: rs.Model) -> None:
    _, cache = model.run_with_cache(EIFFEL, layers=SAE_LAYER, prepend_bos=True)
    with pytest.raises(rs.BosMismatch):
        cache.features("demo")
    found = cache.features("demo", allow_bos_mismatch=True)
    assert {w["code"] for w in found.warnings} == {"sae_bos_mismatch"}
    assert found.positions == list(range(1, 10))
