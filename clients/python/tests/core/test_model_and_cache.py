"""Models and the tensors of caches against the real server."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from places import EIFFEL, NAME

import residuum as rs
from residuum._sync.transport import Transport


class Counter:
    """Counts requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        original = Transport._build

        def build(transport: Transport, method: str, path: str, **options: object) -> object:
            self.paths.append(f"{method} {path}")
            return original(transport, method, path, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Transport, "_build", build)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def test_sizes_and_hooks(client: rs.Client, model: rs.Model) -> None:
    assert (model.n_layers, model.d_model, model.n_heads, model.n_kv_heads, model.d_head) == (30, 576, 9, 3, 64)
    assert (model.d_mlp, model.d_vocab, model.architecture, model.status) == (1536, 49152, "llama", "ready")
    assert model.hooks["blocks.3.attn.hook_k"].axes == ("pos", "kv_head", "d_head")
    assert model.hooks["blocks.3.attn.hook_k"].shape == (None, 3, 64)
    assert model.info.n_params == 134515008
    assert [m.id for m in client.models()] == [NAME]
    assert client.model() == model
    with pytest.raises(rs.ModelNotFound, match=NAME):
        client.model("gpt9")
    with pytest.raises(AttributeError):
        _ = model.no_such_thing  # type: ignore[attr-defined]


def test_tokenize(model: rs.Model) -> None:
    tokens = model.tokenize("The Eiffel Tower")
    assert tokens.tokens == ["The", " E", "iffel", " Tower"]
    assert tokens.token_ids.tolist() == [504, 414, 46682, 18669]
    assert tokens.offsets == [(0, 3), (3, 5), (5, 10), (10, 16)]
    assert len(tokens) == 4
    assert model.tokenize([504, 414]).tokens == ["The", " E"]
    assert model.tokenize("The", prepend_bos=True).token_ids.tolist() == [1, 504]
    chat = model.tokenize([{"role": "user", "content": "Hi"}], add_generation_prompt=False)
    assert chat.rendered is not None
    assert "Hi" in chat.rendered
    assert chat.messages is not None


def test_one_input_has_no_batch_axis(model: rs.Model) -> None:
    logits, cache = model.run_with_cache(EIFFEL, hooks=["resid_post", "attn.pattern"])
    assert cache.tokens == ["The", " E", "iffel", " Tower", " is", " in", " the", " city", " of"]
    assert cache.token_ids.tolist() == model.tokenize(EIFFEL).token_ids.tolist()
    assert cache.text == EIFFEL
    assert cache["resid_post", 12].shape == (9, 576)
    assert cache["pattern", 3].shape == (9, 9, 9)
    np.testing.assert_allclose(cache["pattern", 3].sum(-1), 1, atol=1e-5)
    assert logits.shape == (9, 49152)
    assert len(cache) == 60
    assert cache.info.d_model == 576


def test_several_inputs_are_a_list_without_padding(model: rs.Model) -> None:
    logits, caches = model.run_with_cache(["Hello", "Hello there, you"])
    assert [c.n_tokens for c in caches] == [1, 4]
    assert [c["resid_post", 0].shape for c in caches] == [(1, 576), (4, 576)]
    assert [len(x) for x in logits] == [1, 4]
    single = model.run_with_cache("Hello")[1]
    np.testing.assert_array_equal(caches[0]["resid_post", 29], single["resid_post", 29])
    assert len(model.run_with_cache(["Hello"])[1]) == 1


def test_forms_of_input(model: rs.Model) -> None:
    ids = model.tokenize(EIFFEL).token_ids
    text = model.run_with_cache(EIFFEL, layers=5)[1]
    for form in (ids, ids.tolist(), tuple(ids.tolist()), {"token_ids": ids}):
        cache = model.run_with_cache(form, layers=5)[1]
        np.testing.assert_array_equal(cache["resid_post", 5], text["resid_post", 5])
    batch = model.run_with_cache(np.stack([ids, ids]), layers=5)[1]
    assert len(batch) == 2
    chat = [{"role": "user", "content": "Where is the Louvre?"}]
    one = model.run_with_cache(chat, layers=5)[1]
    two = model.run_with_cache([chat, chat], layers=5)[1]
    assert one.token_ids.tolist() == model.tokenize(chat).token_ids.tolist() == two[1].token_ids.tolist()
    open_turn = model.run_with_cache(chat, layers=5, add_generation_prompt=False)[1]
    assert open_turn.n_tokens < one.n_tokens
    if importlib.util.find_spec("torch"):
        import torch

        assert model.run_with_cache(torch.tensor(ids), layers=5)[1].token_ids.tolist() == ids.tolist()
        assert len(model.run_with_cache(torch.tensor(np.stack([ids, ids])), layers=5)[1]) == 2
    mixed = model.run_with_cache([{"text": "Hi", "label": "greeting", "metadata": {"n": 1}}, "Bye", [504]], layers=5)[1]
    assert (mixed[0].label, mixed[0].metadata, mixed[2].tokens) == ("greeting", {"n": 1}, ["The"])


@pytest.mark.parametrize(
    "bad", [3, None, [], [[]], [1.5], b"bytes", {"x": 1}, {"role": "user", "content": "x"}, [True]]
)
def test_what_is_no_input_is_refused_here(model: rs.Model, bad: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        model.run_with_cache(bad)  # type: ignore[arg-type]


def test_hooks_as_users_of_transformer_lens_write_them(model: rs.Model) -> None:
    def names(**hooks: object) -> set[str]:
        return set(model.run_with_cache("Hi there", logits=False, **hooks)[1])

    assert names(hooks=("k", 3)) == {"blocks.3.attn.hook_k"}
    assert names(hooks=["post3mlp", "q", "attn_scores"], layers=[3, -1]) == {
        "blocks.3.mlp.hook_post",
        *(f"blocks.{layer}.attn.hook_{name}" for layer in (3, 29) for name in ("q", "attn_scores")),
    }
    assert names(names_filter=lambda name: name.endswith("hook_z") and ".1." in name) == {"blocks.1.attn.hook_z"}
    assert names(names="blocks.0.hook_resid_mid") == {"blocks.0.hook_resid_mid"}
    assert names(names_filter=["mlp_out", "embed"], layers=2) == {"blocks.2.hook_mlp_out", "hook_embed"}
    assert names(hooks=("resid_post", -1)) == {"blocks.29.hook_resid_post"}
    assert len(names(hooks="all")) == len(model.hooks)
    assert len(names()) == 30
    with pytest.raises(TypeError, match="mean the same"):
        names(hooks="k", names="q")
    with pytest.raises(rs.UnknownHook, match="resid_pots"):
        names(hooks="resid_pots")
    with pytest.raises(TypeError, match="there is no argument 'hook'"):
        names(hook="k")


def test_errors_of_a_run(model: rs.Model) -> None:
    with pytest.raises(rs.LayerOutOfRange) as caught:
        model.run_with_cache("x", layers=[30])
    assert caught.value.code == "layer_out_of_range"
    assert caught.value.pointer == "/capture/layers"
    with pytest.raises(rs.EmptyInput) as empty:
        model.run_with_cache(["a", ""])
    assert empty.value.pointer == "/items/1"
    with pytest.raises(rs.PositionOutOfRange):
        model.run_with_cache("a", positions=5)


@pytest.mark.parametrize(
    ("positions", "rows"),
    [
        ("last", None),
        (0, None),
        ("mean", None),
        ([0, -1], 2),
        (range(1, 4), 3),
        (slice(1, 3), 2),
        (np.array([0, 2]), 2),
        ("all", 9),
    ],
)
def test_positions(model: rs.Model, positions: object, rows: int | None) -> None:
    cache = model.run_with_cache(EIFFEL, layers=4, positions=positions)[1]
    assert cache["resid_post", 4].shape == ((576,) if rows is None else (rows, 576))


def test_arrays_are_fetched_once_read_only_and_kept(client: rs.Client, model: rs.Model, requests: Counter) -> None:
    cache = client.cache(model.run_with_cache(EIFFEL)[1].id)
    requests.paths.clear()
    first = cache["resid_post", 12]
    assert cache["blocks.12.hook_resid_post"] is first
    assert cache["resid_post12"] is first
    assert cache.layer(12) is cache[12] is cache.layer(-18)
    assert len(requests.paths) == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    stack = cache.stack("resid_post")
    assert stack.shape == (30, 9, 576)
    assert not stack.flags.writeable
    np.testing.assert_array_equal(stack[12], first)
    assert len(requests.paths) == 2
    np.testing.assert_array_equal(cache.stack("resid_post", layers=[3, 1])[1], stack[1])
    assert cache.stacked_layers() == list(range(30))
    assert len(requests.paths) == 2
    cache.unload()
    cache.load()
    everything = dict(cache)
    assert list(everything) == cache.keys()
    assert len(requests.paths) == 3
    np.testing.assert_array_equal(everything["blocks.12.hook_resid_post"], first)
    np.testing.assert_array_equal(dict(cache.items())["blocks.12.hook_resid_post"], first)


def test_layers_of_a_stack_that_came_at_once_are_in_order(client: rs.Client, model: rs.Model) -> None:
    cache = model.run_with_cache(EIFFEL, hooks=["attn.z", "resid_post"], layers=[20, 3, 11])[1]
    alone = client.cache(cache.id)
    stack = cache.stack("z")
    for place, layer in enumerate([3, 11, 20]):
        np.testing.assert_array_equal(stack[place], alone["z", layer])
        np.testing.assert_array_equal(cache["attn.hook_z", layer], alone["z", layer])


def test_what_a_cache_lacks_is_told(model: rs.Model) -> None:
    cache = model.run_with_cache("Hi", layers=[3, 4], logits=False)[1]
    assert ("resid_post", 3) in cache
    assert 3 in cache
    assert "resid_post3" in cache
    assert ("resid_post", 5) not in cache
    assert 1.5 not in cache
    with pytest.raises(KeyError, match=r"does not have blocks\.5\.hook_resid_post; it has resid_post \(layers 3, 4\)"):
        cache["resid_post", 5]
    with pytest.raises(rs.HookNotInCache):
        cache.stack("k")
    with pytest.raises(rs.HookNotInCache, match="neither logits nor"):
        cache.logits[0]


def test_logits_are_computed_when_touched(client: rs.Client, model: rs.Model, requests: Counter) -> None:
    logits, cache = model.run_with_cache(EIFFEL, hooks="attn.pattern", layers=0)
    assert "blocks.29.hook_resid_post" in cache
    assert "logits" not in cache
    stored = model.run_with_cache(EIFFEL, hooks="logits")[1]["logits"]
    requests.paths.clear()
    assert "computed when touched" in repr(logits)
    assert requests.paths == []
    np.testing.assert_array_equal(logits[-1], stored[-1])
    assert requests.paths == [f"POST /v1/caches/{cache.id}/lens"]
    assert logits[-1, 7042] == stored[-1, 7042]
    assert logits.shape == stored.shape
    assert len(requests.paths) == 1
    np.testing.assert_array_equal(np.asarray(logits), stored)
    assert len(requests.paths) == 2
    assert logits.argmax(-1)[-1] == 7042  # " Paris"
    np.testing.assert_array_equal((logits - stored), 0)
    np.testing.assert_array_equal(np.exp(logits[:2]), np.exp(stored[:2]))
    assert len(list(logits)) == len(logits) == 9
    assert logits.dtype == np.float32
    assert len(requests.paths) == 2
    assert cache.logits.max() == stored.max()
    assert len(requests.paths) == 2
    with pytest.raises(IndexError):
        client.cache(cache.id).logits[9]


def test_logits_of_one_position_have_no_axis(model: rs.Model) -> None:
    whole = model.run_with_cache(EIFFEL)[0]
    last = model.run_with_cache(EIFFEL, positions="last")[0]
    some = model.run_with_cache(EIFFEL, positions=[0, 8])[0]
    assert last.shape == (49152,)
    np.testing.assert_array_equal(last.numpy(), whole[8])
    np.testing.assert_array_equal(some[1], whole[8])
    assert some.shape == (2, 49152)


def test_logits_follow_an_intervention_after_the_last_block(model: rs.Model) -> None:
    change = {"op": "scale", "hook": "final_norm", "factor": 2.0}
    logits, cache = model.run_with_cache("Hello there", interventions=[change], layers=0)
    assert "logits" in cache
    plain = model.run_with_cache("Hello there", layers=0)[0]
    np.testing.assert_allclose(logits.numpy(), 2 * plain.numpy(), rtol=1e-5, atol=1e-4)


def test_an_intervention_in_a_block_shows_in_the_logits(model: rs.Model) -> None:
    change = {"op": "zero", "hook": "resid_post", "layers": [29]}
    logits, cache = model.run_with_cache("Hello there", interventions=[change])
    np.testing.assert_array_equal(cache[29], 0)
    np.testing.assert_array_equal(logits.numpy(), 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types(model: rs.Model, dtype: str) -> None:
    exact = model.run_with_cache(EIFFEL, layers=12)[1]["resid_post", 12]
    cache = model.run_with_cache(EIFFEL, layers=12, dtype=dtype)[1]
    array = cache["resid_post", 12]
    assert cache.hooks["blocks.12.hook_resid_post"].dtype == dtype
    assert array.dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_allclose(array, exact, rtol=2e-3 if dtype == "float16" else 1e-2, atol=2e-2)
    torch = pytest.importorskip("torch")
    tensor = cache.torch("resid_post", 12)
    assert tensor.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(tensor.float().numpy(), array.astype(np.float32))
    assert set(cache.torch()) == set(cache)
