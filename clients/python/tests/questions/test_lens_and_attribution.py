"""The logit lens and attribution, against what numpy makes of the stored tensors."""

from __future__ import annotations

import numpy as np
import pytest

import residuum as rs
from residuum import LogitLens


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_last_layer_is_the_model(cache: rs.Cache) -> None:
    logits = np.asarray(cache.logits)
    assert np.array_equal(cache.lens_distributions(-1, values="logits")[0], logits)
    lens = cache.logit_lens(layers=[-1], tokens=[" Paris", 7268], top_k=5)
    expected = softmax(logits.astype(np.float64))
    ids = [i for i, _ in lens.tokens]
    assert lens.tokens == [(7042, " Paris"), (7268, " Rome")]
    np.testing.assert_allclose(lens.probability[0], expected[:, ids], rtol=1e-5)
    np.testing.assert_allclose(lens.log_probability[0], np.log(expected[:, ids]), rtol=1e-5)
    np.testing.assert_allclose(lens.logit[0], logits[:, ids], rtol=1e-6)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(lens.top_ids[0], order[:, :5])
    np.testing.assert_allclose(lens.top_probability[0], np.take_along_axis(expected, order[:, :5], 1), rtol=1e-5)
    assert np.array_equal(lens.rank[0], [[int(np.where(row == i)[0][0]) for i in ids] for row in order])
    np.testing.assert_allclose(lens.kl[0], 0, atol=1e-6)


def test_entropy_and_kl_of_other_layers(cache: rs.Cache) -> None:
    lens = cache.logit_lens(layers=[5, 20], positions=[-2, -1])
    log_p = cache.lens_distributions([5, 20], positions=[-2, -1]).astype(np.float64)
    final = cache.lens_distributions(29, positions=[-2, -1]).astype(np.float64)[0]
    np.testing.assert_allclose(lens.entropy, -(np.exp(log_p) * log_p).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(lens.kl, (np.exp(final) * (final - log_p)).sum(-1), rtol=1e-4)
    assert lens.positions == [7, 8]
    assert lens.position_tokens == [" city", " of"]
    assert lens.final_from == "blocks.29.hook_resid_post"
    assert lens.rank.shape == (2, 2, 0)


def test_arrays_are_read_only(cache: rs.Cache) -> None:
    lens = cache.logit_lens(layers=[29], tokens=" Paris")
    for array in (lens.entropy, lens.kl, lens.rank, lens.probability, lens.top_ids, lens.top_tokens):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_repr_names_layers_and_tokens(cache: rs.Cache) -> None:
    lens = cache.logit_lens(layers=[10, 29], tokens=[" Paris"])
    text = repr(lens)
    assert "·Paris rank" in text
    assert text.splitlines()[-1].split()[:2] == ["29", "·Paris"]
    html = lens._repr_html_()
    assert html.count("<tr>") == 1 + 2
    assert "·Paris" in html
    assert "<script" not in html


def test_tokens_are_escaped_in_html() -> None:
    cell = {
        "entropy": 1.0,
        "kl": None,
        "top": [{"id": 1, "token": "<b>", "probability": 0.5, "logit": 1.0}],
        "tokens": [],
    }
    answer = {
        "cache": "c",
        "hook": "resid_post",
        "layers": [0],
        "positions": [0],
        "position_tokens": ["<script>"],
        "tokens": [],
        "values": [[cell]],
    }
    html = LogitLens(answer)._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html


def test_errors_are_classes(cache: rs.Cache, model: rs.Model) -> None:
    with pytest.raises(rs.HookNotStored):
        cache.logit_lens(hook="resid_mid")
    with pytest.raises(rs.LayerOutOfRange):
        cache.logit_lens(layers=99)
    with pytest.raises(rs.PositionOutOfRange):
        cache.logit_lens(positions=[99])
    with pytest.raises(rs.InvalidValue, match="Paris"):
        cache.logit_lens(tokens=["Paris and Rome"])
    only_residual = model.run_with_cache("Hello", hooks=["resid_post"])[1]
    with pytest.raises(rs.HookNotStored):
        only_residual.logit_attribution(" Paris")
    with pytest.raises(TypeError, match="integer"):
        cache.logit_lens(layers=[True])
    with pytest.raises(TypeError, match="token id"):
        cache.logit_lens(tokens=[1.5])  # type: ignore[list-item]


def test_attribution_sums_to_the_logit(cache: rs.Cache) -> None:
    found = cache.logit_attribution(" Paris", " Rome")
    logits = np.asarray(cache.logits)[-1]
    assert found.logit == pytest.approx(float(logits[7042]) - float(logits[7268]), rel=1e-5)
    assert found.values.sum() == pytest.approx(found.logit, abs=1e-4)
    assert found.sum == pytest.approx(found.values.sum(), abs=1e-9)
    assert found.components == "heads"
    assert found.heads.shape == (30, 9)
    assert len(found) == len(found.parts) == 1 + 30 * 9 + 30
    embedding = found.parts[0]
    assert embedding.kind == "embedding"
    assert embedding.value + found.attention.sum() + found.mlp.sum() == pytest.approx(found.sum)
    np.testing.assert_allclose(found.heads.sum(1), found.attention, atol=1e-9)
    top = found.top(3)
    assert [abs(p.value) for p in top] == sorted((abs(p.value) for p in found), reverse=True)[:3]


def test_sublayers_are_sums_of_heads(cache: rs.Cache) -> None:
    heads = cache.logit_attribution(" Paris", position=-2)
    whole = cache.logit_attribution(" Paris", position=-2, components="sublayers")
    assert whole.heads.size == 0
    assert whole.position == heads.position == 7
    np.testing.assert_allclose(whole.attention, heads.attention, atol=2e-4)
    np.testing.assert_allclose(whole.mlp, heads.mlp, atol=1e-6)
    assert whole.against is None


def test_attribution_repr(cache: rs.Cache) -> None:
    found = cache.logit_attribution(" Paris", " Rome")
    assert str(found.top(1)[0]) in repr(found)
    assert "·Paris less that of ·Rome" in found._repr_html_()
