"""The tiny checkpoints: each switches on what the others leave off."""

import torch
from transformers import AutoModel, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

import golden_taps as taps

VOCAB = 272
SMALL = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def small(config, **options):
    return lambda: config(**{**SMALL, **options})


def llama(**options):
    return small(LlamaConfig, **options)


def rope(kind, **parameters):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **parameters))


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
LONG = rope(
    "longrope",
    factor=4.0,
    short_factor=[1.0, 1.1, 1.2, 1.3],
    long_factor=[2.0, 2.5, 3.0, 4.0],
    original_max_position_embeddings=8,
)

CASES = {
    "llama": {
        "gqa_tied": dict(config=llama(tie_word_embeddings=True), tap=taps.tap_llama, full=True),
        "biases_wide_heads": dict(
            config=llama(attention_bias=True, mlp_bias=True, num_key_value_heads=4, head_dim=12, rms_norm_eps=1e-3),
            tap=taps.tap_llama,
            full=True,
        ),
        "rope_llama3": dict(config=llama(**LLAMA3), tap=taps.tap_llama),
        "rope_llama3_old_spelling": dict(config=llama(**LLAMA3), tap=taps.tap_llama, old_spelling=True),
        "rope_linear_old_spelling": dict(
            config=llama(**rope("linear", factor=2.5)), tap=taps.tap_llama, old_spelling=True, rope_key="type"
        ),
        "rope_dynamic": dict(
            config=llama(**rope("dynamic", factor=4.0), max_position_embeddings=8),
            tap=taps.tap_llama,
            lengths=(8, 13, 5),  # transformers keeps the stretched frequencies for a later input of exactly 8
        ),
        "rope_yarn": dict(
            config=llama(**rope("yarn", factor=4.0, original_max_position_embeddings=16)), tap=taps.tap_llama
        ),
        "rope_longrope": dict(config=llama(**LONG), tap=taps.tap_llama),
        "float16": dict(config=llama(), tap=taps.tap_llama, dtype=torch.float16),
        "bfloat16_sharded": dict(config=llama(), tap=taps.tap_llama, dtype=torch.bfloat16, shard="20KB"),
        "base_model": dict(config=llama(), tap=taps.tap_llama, model=AutoModel.from_config),
    },
    "mistral": {
        "window": dict(config=small(MistralConfig, sliding_window=4), tap=taps.tap_llama, full=True),
        "no_window": dict(config=small(MistralConfig, sliding_window=None, head_dim=16), tap=taps.tap_llama),
    },
    "qwen2": {
        "biases": dict(config=small(Qwen2Config, tie_word_embeddings=True), tap=taps.tap_llama, full=True),
        "window_from_layer_1": dict(
            config=small(Qwen2Config, use_sliding_window=True, sliding_window=4, max_window_layers=1),
            tap=taps.tap_llama,
        ),
    },
    "qwen3": {
        "qk_norm": dict(config=small(Qwen3Config, head_dim=12), tap=taps.tap_llama, full=True),
        "biases_yarn": dict(
            config=small(
                Qwen3Config,
                head_dim=8,
                attention_bias=True,
                **rope("yarn", factor=2.0, original_max_position_embeddings=32),
            ),
            tap=taps.tap_llama,
        ),
    },
}
