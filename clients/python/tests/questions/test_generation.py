"""Generation, streams, steering and interventions."""

from __future__ import annotations

import numpy as np
import pytest
from question_texts import EIFFEL

import residuum as rs
from residuum import interventions as iv

Moods = dict[bool, list[rs.Cache]]


def test_greedy_is_the_argmax(model: rs.Model) -> None:
    found = model.generate(EIFFEL, max_new_tokens=6)
    cache = found.cache
    assert found.prompt == EIFFEL
    assert found.text == "".join(found.tokens)
    assert found.finish_reason == "length"
    assert cache.n_tokens == 9 + 6
    logits = np.asarray(cache.logits).astype(np.float64)
    assert found.first_position == 9
    assert found.token_ids == logits[8:14].argmax(1).tolist()
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found.logprobs is not None
    np.testing.assert_allclose(found.logprobs, expected[range(8, 14), found.token_ids], atol=1e-4)
    assert str(found) == found.text
    assert found.text in repr(found).encode().decode("unicode_escape")
    assert "position 9" in found._repr_html_()


def test_lists_and_samples(model: rs.Model) -> None:
    prompts = ["Hello", "The sun"]
    several = model.generate(prompts, max_new_tokens=3, hooks=[])
    assert [g.prompt for g in several] == prompts
    assert not several[0].cache.hooks
    sampled = model.generate(prompts, max_new_tokens=3, temperature=1.0, n=3, seed=5, hooks=[])
    assert [[g.sample for g in group] for group in sampled] == [[0, 1, 2]] * 2
    assert [[g.prompt for g in group] for group in sampled] == [["Hello"] * 3, ["The sun"] * 3]
    again = model.generate("Hello", max_new_tokens=3, temperature=1.0, n=3, seed=5, hooks=[])
    assert [g.text for g in again] == [g.text for g in sampled[0]]
    assert all(g.seed == 5 for g in again)


def test_chat_opens_the_turn_of_the_assistant(model: rs.Model) -> None:
    found = model.generate([{"role": "user", "content": "Say hello."}], max_new_tokens=4, hooks=[])
    assert found.cache.text.endswith("<|im_start|>assistant\n")


def test_positions_of_the_generated_part(model: rs.Model) -> None:
    cache = model.generate(EIFFEL, max_new_tokens=4, layers=[12], positions="generated").cache
    assert cache["resid_post", 12].shape == (4, 576)


def test_stop(model: rs.Model) -> None:
    found = model.generate(EIFFEL, max_new_tokens=10, stop=[".", "\n"], hooks=[])
    assert found.finish_reason == "stop"
    assert found.text == " Paris"


def test_stream_is_the_text(model: rs.Model) -> None:
    prompts = [EIFFEL, "Once upon a time"]
    stream = model.generate(prompts, max_new_tokens=8, stream=True, stop="\n\n", hooks=[])
    events = list(stream)
    result = stream.result()
    for i, found in enumerate(result):
        mine = [e for e in events if e.item == i]
        assert "".join(e.text for e in mine) == found.text == stream.texts[i]
        chosen = [e for e in mine if e.token]
        assert [e.token_id for e in chosen][: len(found.token_ids)] == found.token_ids
        assert [e.position for e in chosen] == list(range(found.first_position, found.first_position + len(chosen)))
    assert stream.text == result[0].text
    assert list(stream) == []


def test_leaving_a_stream_cancels_the_run(model: rs.Model) -> None:
    with model.generate("Once upon a time", max_new_tokens=400, stream=True) as stream:
        for number, token in enumerate(stream):
            assert token.token_id >= 0
            if number == 3:
                break
    assert stream.run.refresh().status == "cancelled"
    kept = stream.run.wait().cache().data["completion"]
    assert kept["finish_reason"] == "cancelled"
    assert kept["text"].startswith(stream.text)


def test_a_stream_that_ended_is_not_cancelled(model: rs.Model) -> None:
    with model.generate("Hello", max_new_tokens=2, stream=True, hooks=[]) as stream:
        result = stream.result()
    assert stream.run.status == "completed"
    assert result.text == stream.text


def test_an_error_in_a_stream_cancels_and_is_raised(model: rs.Model) -> None:
    stream = model.generate("Once upon a time", max_new_tokens=400, stream=True)
    next(stream)
    with pytest.raises(KeyError), stream:
        raise KeyError("mine")
    assert stream.run.refresh().status == "cancelled"


def test_steering_adds_the_vector(client: rs.Client, model: rs.Model, moods: Moods) -> None:
    joy = client.directions.fit("joy2", positive=moods[True], negative=moods[False], layers=[14, 15], replace=True)
    text = "When I opened the letter, I felt"
    _, plain = model.run_with_cache(text, layers=[15, 16])
    with model.steer(joy, layers=15, strength=2.0) as steered:
        assert isinstance(steered, rs.SteeredModel)
        _, changed = steered.run_with_cache(text, layers=[15, 16])
        generated = steered.generate(text, max_new_tokens=8)
    expected = plain.layer(15) + np.float32(2) * joy.vector(15)
    np.testing.assert_allclose(changed.layer(15), expected, rtol=1e-5, atol=1e-4)
    assert not np.allclose(changed.layer(16), plain.layer(16), atol=1e-2)
    assert generated.text != model.generate(text, max_new_tokens=8).text
    for same in (
        model.steer("joy2", layers=[15], strength=2.0),
        model.steer(joy.vector(15), layers=15, strength=2.0),
        model.intervene([iv.add(joy, layers=[15], strength=2)]),
    ):
        assert same.generate(text, max_new_tokens=8, hooks=[]).text == generated.text
    assert model.interventions == ()


def test_a_matrix_has_a_vector_for_each_layer(client: rs.Client, model: rs.Model, moods: Moods) -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 576)).astype(np.float32)
    _, plain = model.run_with_cache("Hello there", hooks=["resid_post"])
    _, changed = model.steer(vectors, layers=[10, 29], strength=0.5).run_with_cache("Hello there", hooks=["resid_post"])
    np.testing.assert_allclose(changed.layer(10) - plain.layer(10), np.tile(vectors[0] / 2, (2, 1)), atol=2e-3)
    with pytest.raises(ValueError, match="needs 2 layers"):
        model.steer(vectors, layers=[1, 2, 3])


def test_a_curve_of_strengths(client: rs.Client, model: rs.Model, moods: Moods) -> None:
    client.directions.fit("joy3", positive=moods[True], negative=moods[False], layers=[15], replace=True)
    curve = model.steer("joy3", layers=15, strength=[-2, 0, 2]).generate("I felt", max_new_tokens=4, hooks=[])
    assert [g.strengths for g in curve] == [[-2.0], [0.0], [2.0]]
    assert curve[1].text == model.generate("I felt", max_new_tokens=4, hooks=[]).text


def test_several_strengths_make_several_caches(model: rs.Model) -> None:
    vector = np.ones(576)
    logits, caches = model.steer(vector, layers=5, strength=[0, 1]).run_with_cache("Hello", layers=5)
    assert len(logits) == len(caches) == 2
    np.testing.assert_allclose(caches[1].layer(5) - caches[0].layer(5), np.ones((1, 576)), atol=1e-3)
    _, four = model.steer(vector, layers=5, strength=[0, 1]).run_with_cache(["Hello", "there"], layers=5)
    assert [c.text for c in four] == ["Hello", "Hello", "there", "there"]


def test_interventions_add_up(model: rs.Model) -> None:
    both = model.intervene(iv.zero(hook="mlp_out", layers=3)).intervene([iv.zero(hook="mlp_out", layers=4)])
    assert [i["layers"] for i in both.interventions] == [3, 4]
    _, cache = both.run_with_cache("Hello", hooks=["mlp_out"], interventions=[iv.scale(0, hook="mlp_out", layers=5)])
    for layer in (3, 4, 5):
        assert not cache["mlp_out", layer].any()
    assert cache["mlp_out", 6].any()
    assert "zero of layers 3, zero of layers 4" in repr(both)


def test_capture_with_interventions(model: rs.Model) -> None:
    run = model.intervene(iv.zero(hook="mlp_out", layers=3)).capture(["a b", "c"], hooks=["mlp_out"], layers=[3, 4])
    run.wait(progress=False)
    x, _ = run.matrix("mlp_out", layer=3)
    assert x.shape == (2, 576)
    assert not x.any()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (iv.project_out(np.eye(576)[0], layers=7), lambda a, b: np.allclose(b[:, 0], 0, atol=1e-4)),
        (iv.set_to(1.5, layers=7, positions=-1), lambda a, b: (b[-1] == 1.5).all() and (b[0] == a[0]).all()),
        (iv.set_to(np.arange(576.0), layers=7), lambda a, b: (b == np.arange(576)).all()),
        (
            iv.scale(2.0, layers=7, positions=slice(0, 2)),
            lambda a, b: (b[:2] == 2 * a[:2]).all() and (b[2] == a[2]).all(),
        ),
        (iv.zero(layers=[7], positions={"text": "two"}), lambda a, b: not b[1].any() and b[0].any() and b[2].any()),
    ],
    ids=["project_out", "set_number", "set_vector", "scale", "zero"],
)
def test_operations(model: rs.Model, change: iv.Intervention, check: object) -> None:
    _, plain = model.run_with_cache("one two three", layers=7)
    _, changed = model.run_with_cache("one two three", layers=7, interventions=[change])
    assert check(plain.layer(7), changed.layer(7))  # type: ignore[operator]


def test_mean_ablation_and_patch(model: rs.Model, moods: Moods) -> None:
    _, sources = model.run_with_cache(["one two", "three"], layers=7)
    everything = np.concatenate([c.layer(7) for c in sources]).astype(np.float64)
    _, changed = model.run_with_cache("four five", layers=7, interventions=[iv.mean_ablate(sources, layers=7)])
    np.testing.assert_allclose(changed.layer(7), np.tile(everything.mean(0), (2, 1)), rtol=1e-4, atol=1e-4)
    change = iv.patch(sources[0], layers=7, positions=0, source_positions=1)
    _, patched = model.run_with_cache("four five", layers=7, interventions=[change])
    np.testing.assert_array_equal(patched.layer(7)[0], sources[0].layer(7)[1])


def test_features_and_caches_are_directions(client: rs.Client, model: rs.Model, moods: Moods) -> None:
    feature = client.saes.get("demo").feature(5)
    _, plain = model.run_with_cache("one two", layers=12)
    _, changed = model.steer(feature, layers=12, strength=3).run_with_cache("one two", layers=12)
    assert np.linalg.norm(changed.layer(12) - plain.layer(12), axis=1) == pytest.approx(3, rel=1e-3)
    assert iv.add(moods[True][0])["direction"] == {"cache": moods[True][0].id}


def test_numbers_of_numpy_are_numbers() -> None:
    assert iv.set_to(np.float32(1.5), layers=np.arange(2), heads=np.int64(3)) == {
        "op": "set",
        "layers": [0, 1],
        "heads": [3],
        "value": 1.5,
    }
    assert iv.add("x", strength=np.array([0.5, 1]), positions=np.int64(-1)) == {
        "op": "add",
        "positions": -1,
        "direction": {"direction": "x"},
        "strength": [0.5, 1.0],
    }


def test_what_cannot_be_is_refused(model: rs.Model) -> None:
    with pytest.raises(TypeError, match="vector of numbers"):
        iv.add(object())
    with pytest.raises(ValueError, match="one axis"):
        iv.add(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no step"):
        iv.zero(positions=slice(0, 4, 2))
    with pytest.raises(rs.InvalidField):
        model.generate("Hello", max_new_tokens=-1)
    with pytest.raises(TypeError, match="integer"):
        model.generate("Hello", max_new_tokens=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no argument"):
        model.generate("Hello", max_tokens=3)
