"""The forms of hook names."""

from __future__ import annotations

import pytest

from residuum._core.hooks import act_name, describe, layer_of, requested, resolve, without_layer

# As TransformerLens's get_act_name answers.
TRANSFORMER_LENS = [
    (("resid_post", 3), "blocks.3.hook_resid_post"),
    (("resid_pre", 0), "blocks.0.hook_resid_pre"),
    (("k6", None, "a"), "blocks.6.attn.hook_k"),
    (("pre", 2), "blocks.2.mlp.hook_pre"),
    (("embed",), "hook_embed"),
    (("normalized", 27, "ln2"), "blocks.27.ln2.hook_normalized"),
    (("k6",), "blocks.6.attn.hook_k"),
    (("scale4ln1",), "blocks.4.ln1.hook_scale"),
    (("pre5",), "blocks.5.mlp.hook_pre"),
    (("post3mlp",), "blocks.3.mlp.hook_post"),
    (("pattern", 5), "blocks.5.attn.hook_pattern"),
    (("attn", 5), "blocks.5.attn.hook_pattern"),
    (("attn_scores", 5), "blocks.5.attn.hook_attn_scores"),
    (("attn_logits", 5), "blocks.5.attn.hook_attn_scores"),
    (("key", 1), "blocks.1.attn.hook_k"),
    (("value", 1), "blocks.1.attn.hook_v"),
    (("query", 1), "blocks.1.attn.hook_q"),
    (("z", 1), "blocks.1.attn.hook_z"),
    (("result", 1), "blocks.1.attn.hook_result"),
    (("rot_q", 1), "blocks.1.attn.hook_rot_q"),
    (("mlp_out", 1), "blocks.1.hook_mlp_out"),
    (("attn_out", 1), "blocks.1.hook_attn_out"),
    (("mlp_post", 1), "blocks.1.mlp.hook_post"),
    (("normalized",), "ln_final.hook_normalized"),
    (("scale",), "ln_final.hook_scale"),
    (("pos_embed",), "hook_pos_embed"),
    (("blocks.3.hook_resid_mid",), "blocks.3.hook_resid_mid"),
    (("attn.hook_out", 2), "blocks.2.attn.hook_out"),
    (("attn.pattern", 2), "blocks.2.attn.hook_pattern"),
    (("out", 2, "mlp"), "blocks.2.mlp.hook_out"),
    (("logits",), "logits"),
    (("final_norm",), "final_norm"),
]


@pytest.mark.parametrize(("form", "name"), TRANSFORMER_LENS)
def test_forms(form: tuple[object, ...], name: str) -> None:
    assert act_name(*form) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("short", "sent"),
    [
        ("resid_post", "resid_post"),
        ("pattern", "attn.pattern"),
        ("k", "attn.k"),
        ("post", "mlp.post"),
        ("attn.out", "attn.out"),
        ("attn_out", "attn_out"),
        ("ln1.scale", "ln1.scale"),
    ],
)
def test_names_without_a_layer_go_with_layers(short: str, sent: str) -> None:
    assert requested(short) == [sent]


HOOKS = [
    "hook_embed",
    "blocks.0.hook_resid_post",
    "blocks.0.attn.hook_k",
    "blocks.1.hook_resid_post",
    "blocks.1.attn.hook_k",
    "logits",
]


def test_what_a_request_may_be() -> None:
    assert requested(None) is None
    assert requested("all", HOOKS) == HOOKS
    assert requested(lambda name: name.endswith("hook_k"), HOOKS) == ["blocks.0.attn.hook_k", "blocks.1.attn.hook_k"]
    assert requested(("k", -1), HOOKS, 2) == ["blocks.1.attn.hook_k"]
    assert requested(["k", ("resid_post", -2), "k"], HOOKS, 2) == ["attn.k", "blocks.0.hook_resid_post"]
    assert requested([lambda name: name == "logits", "k"], HOOKS) == ["logits", "attn.k"]
    with pytest.raises(ValueError, match="chooses none"):
        requested(lambda name: False, HOOKS)
    with pytest.raises(TypeError, match="a hook is a name"):
        requested([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (1, "blocks.1.hook_resid_post"),
        (-1, "blocks.1.hook_resid_post"),
        (("k", -2), "blocks.0.attn.hook_k"),
        ("k1", "blocks.1.attn.hook_k"),
        ("embed", "hook_embed"),
        ("hook_embed", "hook_embed"),
        ("logits", "logits"),
        (("attn.k", 0), "blocks.0.attn.hook_k"),
        ("blocks.0.attn.hook_k", "blocks.0.attn.hook_k"),
    ],
)
def test_keys_of_a_cache(key: object, name: str) -> None:
    assert resolve(key, HOOKS, 2) == name  # type: ignore[arg-type]


def test_a_short_name_is_enough_where_there_is_one_layer() -> None:
    assert resolve("k", ["blocks.7.attn.hook_k"], 8) == "blocks.7.attn.hook_k"
    assert resolve("k", HOOKS, 2) not in HOOKS


def test_parts_of_names() -> None:
    assert (layer_of("blocks.12.attn.hook_k"), layer_of("logits")) == (12, None)
    assert without_layer("blocks.12.attn.hook_k") == "attn.k"
    assert without_layer("blocks.12.hook_resid_post") == "resid_post"
    assert describe(HOOKS) == "hook_embed, resid_post (layers 0, 1), attn.k (layers 0, 1), logits"
