"""The tiny GGUF files: an architecture, its configuration, and the special keys of its files.

`keys` are metadata beside the ordinary ones. `reads`: transformers' own GGUF reader gives the model that was written. If it
does not, `why` says what it ignores, and the reference is the model whose weights were written.
"""

import math

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OlmoConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

import golden_taps as taps

VOCAB = 384
SMALL = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
)
GEMMA = dict(head_dim=12, sliding_window=4, final_logit_softcapping=3.0, query_pre_attn_scalar=12)
NEOX = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
LONG = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    partial_rotary_factor=0.75,
    short_factor=[1.0, 1.1, 1.2],
    long_factor=[2.0, 2.5, 3.0],
)
YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}

CASES = {
    "gemma": dict(
        config=GemmaConfig(**SMALL, head_dim=16), pre="spm-gemma", why="transformers' reader does not know gemma"
    ),
    "gemma2": dict(
        config=Gemma2Config(**SMALL, **GEMMA, attn_logit_softcapping=2.0),
        keys={
            "attention.sliding_window": 4,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        pre="spm-gemma",
        why="it overlooks the softcaps and knows no query_pre_attn_scalar",
    ),
    "gemma2_first_files": dict(
        arch="gemma2",
        config=Gemma2Config(**{**SMALL, "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 4096}),
        pre="spm-gemma",
        why="it knows no query_pre_attn_scalar",
    ),
    "gemma3": dict(
        config=Gemma3TextConfig(
            **{**SMALL, **GEMMA, "num_hidden_layers": 6},
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
        keys={
            "attention.sliding_window": 4,
            "final_logit_softcapping": 3.0,
            "rope.freq_base": 1000000.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        pre="spm-gemma",
        why="it overlooks the rope scaling and knows no query_pre_attn_scalar",
    ),
    "gpt2": dict(
        config=GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4),
        tap=taps.tap_gpt2,
        pre="gpt-2",
        why="its reader spells the context length n_ctx, and the positions are then 1,024",
    ),
    "gptneox": dict(
        config=GPTNeoXConfig(
            **NEOX, rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)
        ),
        tap=taps.tap_gpt_neox,
        keys={"use_parallel_residual": True, "rope.dimension_count": 4},
        pre="olmo",
        why="transformers' reader does not know gptneox",
    ),
    "granite": dict(
        config=GraniteConfig(
            **SMALL,
            embedding_multiplier=3.0,
            attention_multiplier=0.2,
            residual_multiplier=0.3,
            logits_scaling=7.0,
        ),
        keys={
            "attention.scale": 0.2,
            "embedding_scale": 3.0,
            "residual_scale": 0.3,
            "logit_scale": 7.0,
            "rope.dimension_count": 8,
        },
        permuted=True,
        pre="refact",
        why="transformers' reader does not know granite",
    ),
    "llama": dict(
        config=LlamaConfig(**SMALL), keys={"rope.dimension_count": 8}, permuted=True, pre="spm-llama", reads=True
    ),
    "llama_biases_llama3": dict(
        arch="llama",
        config=LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
        keys={"rope.dimension_count": 8},
        permuted=True,
        pre="llama-bpe",
        why="it overlooks the biases and the rope scaling",
    ),
    "llama_yarn": dict(
        arch="llama",
        config=LlamaConfig(**SMALL, rope_parameters=YARN, tie_word_embeddings=True),
        keys={"rope.dimension_count": 8, **YARN_KEYS},
        permuted=True,
        pre="smollm",
        why="it overlooks the rope scaling",
    ),
    "mistral": dict(
        arch="llama",
        config=MistralConfig(**SMALL, sliding_window=4, head_dim=16),
        keys={"rope.dimension_count": 16, "attention.sliding_window": 4},
        permuted=True,
        pre="tekken",
        why="it takes the file for a llama and overlooks the window",
    ),
    "olmo": dict(
        config=OlmoConfig(**SMALL),
        keys={"attention.layer_norm_epsilon": 1e-5},
        permuted=True,
        pre="olmo",
        why="transformers' reader does not know olmo",
    ),
    "olmo2": dict(config=Olmo2Config(**SMALL), pre="dbrx", why="transformers' reader does not know olmo2"),
    "phi2": dict(
        config=PhiConfig(**SMALL, rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
        keys={"rope.dimension_count": 4},
        pre="gpt-2",
        why="transformers' reader does not know phi2",
    ),
    "phi3": dict(
        config=Phi3Config(
            **SMALL, sliding_window=5, original_max_position_embeddings=8, rope_parameters=LONG
        ),
        keys={
            "attention.sliding_window": 5,
            "rope.dimension_count": 6,
            "rope.scaling.original_context_length": 8,
            "rope.scaling.attn_factor": math.sqrt(1 + math.log(64 / 8) / math.log(8)),
        },
        extra={"rope_factors_long.weight": LONG["long_factor"], "rope_factors_short.weight": LONG["short_factor"]},
        pre="gpt-4o",
        why="it keeps a padding token that is not in the vocabulary, and knows neither window nor rope scaling",
    ),
    "qwen2": dict(config=Qwen2Config(**SMALL), pre="qwen2", reads=True),
    "qwen2_quantised": dict(arch="qwen2", config=Qwen2Config(**SMALL), pre="qwen2", reads=True, quantised="Q8_0"),
    "qwen3": dict(
        config=Qwen3Config(**SMALL, head_dim=12),
        keys={"attention.key_length": 12, "attention.value_length": 12},
        pre="qwen2",
        why="it overlooks the width of a head",
    ),
    "smollm3": dict(
        config=SmolLM3Config(**{**SMALL, "num_hidden_layers": 4}, no_rope_layers=[1, 1, 1, 0]),
        keys={"rope.dimension_count": 8},
        permuted=True,
        pre="llama-bpe",
        why="transformers' reader does not know smollm3",
    ),
    "stablelm": dict(
        config=StableLmConfig(
            **SMALL,
            use_qkv_bias=True,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.25),
        ),
        keys={"rope.dimension_count": 2, "use_parallel_residual": True},
        pre="stablelm2",
        reads=True,
    ),
    "stablelm_parallel": dict(
        arch="stablelm",
        config=StableLmConfig(
            **SMALL,
            use_parallel_residual=True,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5),
        ),
        keys={"rope.dimension_count": 4, "use_parallel_residual": True},
        pre="stablelm2",
        why="it takes the quarter of a head that StableLM turns by default",
    ),
    "starcoder2": dict(config=Starcoder2Config(**SMALL, sliding_window=None), pre="starcoder", reads=True),
}
