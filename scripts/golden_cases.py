"""The tiny checkpoints: each switches on what the others leave off."""

import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    ModernBertConfig,
    Olmo2Config,
    OlmoConfig,
    OlmoeConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

import golden_taps as taps

VOCAB = 272
SMALL = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def small(config, **options):
    return lambda: config(**{**SMALL, **options})


def llama(**options):
    return small(LlamaConfig, num_hidden_layers=3, **options)


def gpt2(**options):
    return lambda: GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4, **options)


def neox(**options):
    parameters = {**SMALL, "rope_parameters": dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)}
    del parameters["num_key_value_heads"]
    return lambda: GPTNeoXConfig(**{**parameters, **options})


def encoder(config, **options):
    parameters = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    return lambda: config(**{**parameters, **options})


def distilbert(**options):
    sizes = dict(dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=64)
    return lambda: DistilBertConfig(vocab_size=VOCAB, **sizes, **options)


def modernbert(**options):
    return encoder(ModernBertConfig, num_hidden_layers=3, local_attention=4, pad_token_id=0, **options)


def modernbert_4(config):
    """As transformers 4 spelled it."""
    ropes = config.pop("rope_parameters")
    config["global_rope_theta"] = ropes["full_attention"]["rope_theta"]
    config["local_rope_theta"] = ropes["sliding_attention"]["rope_theta"]
    config["global_attn_every_n_layers"] = 2
    del config["layer_types"]


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
        "base_model": dict(config=llama(), tap=taps.tap_llama, auto=AutoModel),
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
    "gemma": {
        "wide_heads": dict(config=small(GemmaConfig, head_dim=16), tap=taps.tap_llama, full=True),
    },
    "gemma2": {
        "softcaps": dict(
            config=small(
                Gemma2Config,
                head_dim=12,
                sliding_window=4,
                query_pre_attn_scalar=9,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=3.0,
            ),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "gemma3_text": {
        "two_ropes": dict(
            config=small(
                Gemma3TextConfig,
                num_hidden_layers=3,
                head_dim=12,
                sliding_window=4,
                query_pre_attn_scalar=9,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                rope_parameters={
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                },
            ),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "olmo2": {
        "post_norm": dict(config=small(Olmo2Config), tap=taps.tap_llama, full=True),
    },
    "phi3": {
        "fused": dict(
            config=small(
                Phi3Config,
                sliding_window=5,
                original_max_position_embeddings=8,
                pad_token_id=0,
                rope_parameters=dict(
                    rope_type="longrope",
                    rope_theta=10000.0,
                    short_factor=[1.0, 1.1, 1.2, 1.3],
                    long_factor=[2.0, 2.5, 3.0, 4.0],
                ),
            ),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "gpt2": {
        "plain": dict(config=gpt2(), tap=taps.tap_gpt2, full=True),
        "untied_inner": dict(config=gpt2(n_inner=40, tie_word_embeddings=False), tap=taps.tap_gpt2),
    },
    "gpt_neox": {
        "parallel": dict(config=neox(), tap=taps.tap_gpt_neox, full=True),
        "sequential": dict(config=neox(use_parallel_residual=False, attention_bias=False), tap=taps.tap_gpt_neox),
    },
    "olmo": {
        "bare_norms": dict(config=small(OlmoConfig), tap=taps.tap_llama, full=True),
        "clipped": dict(config=small(OlmoConfig, clip_qkv=0.7), tap=taps.tap_llama),
    },
    "granite": {
        "multipliers": dict(
            config=small(
                GraniteConfig,
                embedding_multiplier=3.0,
                attention_multiplier=0.2,
                residual_multiplier=0.3,
                logits_scaling=7.0,
            ),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "smollm3": {
        "no_rope_layer": dict(
            config=small(
                SmolLM3Config,
                num_hidden_layers=3,
                no_rope_layers=[1, 0, 1],
                use_sliding_window=True,
                sliding_window=4,
                pad_token_id=0,
            ),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "starcoder2": {
        "biases": dict(config=small(Starcoder2Config, sliding_window=5), tap=taps.tap_llama, full=True),
    },
    "stablelm": {
        "sequential": dict(config=small(StableLmConfig, hidden_size=64, use_qkv_bias=True), tap=taps.tap_llama),
        "parallel": dict(
            config=small(StableLmConfig, use_parallel_residual=True, partial_rotary_factor=0.5),
            tap=taps.tap_llama,
            full=True,
        ),
    },
    "phi": {
        "parallel": dict(config=small(PhiConfig), tap=taps.tap_llama, full=True),
    },
    "bert": {
        "masked_lm": dict(
            config=encoder(BertConfig), tap=taps.tap_bert, auto=AutoModelForMaskedLM, full=True, tokenizer="wordpiece"
        ),
        "untied": dict(
            config=encoder(BertConfig, tie_word_embeddings=False, layer_norm_eps=1e-3, type_vocab_size=3),
            tap=taps.tap_bert,
            auto=AutoModelForMaskedLM,
        ),
        "base_model_old_names": dict(
            config=encoder(BertConfig, hidden_act="gelu_new"),
            tap=taps.tap_bert,
            auto=AutoModel,
            rename={"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
            tokenizer="vocab",
        ),
    },
    "roberta": {
        "masked_lm": dict(
            config=encoder(RobertaConfig, type_vocab_size=1, hidden_act="relu"),
            tap=taps.tap_bert,
            auto=AutoModelForMaskedLM,
            full=True,
            inside=1,  # padding between other tokens
        ),
        "base_model": dict(
            config=encoder(RobertaConfig, pad_token_id=5, layer_norm_eps=1e-5), tap=taps.tap_bert, auto=AutoModel
        ),
    },
    "distilbert": {
        "masked_lm": dict(
            config=distilbert(activation="relu"), tap=taps.tap_distilbert, auto=AutoModelForMaskedLM, full=True
        ),
        "base_model": dict(config=distilbert(sinusoidal_pos_embds=True), tap=taps.tap_distilbert, auto=AutoModel),
    },
    "modernbert": {
        "masked_lm": dict(config=modernbert(), tap=taps.tap_modernbert, auto=AutoModelForMaskedLM, full=True),
        "biases_old_spelling": dict(
            config=modernbert(
                layer_types=["full_attention", "sliding_attention", "full_attention"],
                rope_parameters={
                    "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                },
                norm_bias=True,
                attention_bias=True,
                mlp_bias=True,
                classifier_bias=True,
                classifier_activation="silu",
                hidden_activation="gelu_pytorch_tanh",
                decoder_bias=False,
                tie_word_embeddings=False,
                norm_eps=1e-3,
            ),
            tap=taps.tap_modernbert,
            auto=AutoModelForMaskedLM,
            old_spelling=modernbert_4,
        ),
        "base_model": dict(config=modernbert(), tap=taps.tap_modernbert, auto=AutoModel),
    },
}

# Mixtures of experts. `FUSED` writes the experts stacked in one tensor, as transformers 5 holds them in memory; published
# checkpoints have a tensor for each.
FUSED = dict(save_original_format=False)
QWEN = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20)

CASES |= {
    "mixtral": {
        "window": dict(
            config=small(MixtralConfig, num_local_experts=5, intermediate_size=24, sliding_window=4),
            tap=taps.tap_llama,
            full=True,
        ),
        "fused": dict(config=small(MixtralConfig, num_local_experts=6, intermediate_size=20, head_dim=12), tap=taps.tap_llama, save=FUSED),
    },
    "qwen2_moe": {
        "shared_expert": dict(
            config=small(Qwen2MoeConfig, shared_expert_intermediate_size=28, **QWEN), tap=taps.tap_llama, full=True
        ),
        "mixed_window": dict(
            config=small(
                Qwen2MoeConfig,
                num_hidden_layers=4,
                decoder_sparse_step=2,
                shared_expert_intermediate_size=12,
                norm_topk_prob=True,
                qkv_bias=False,
                use_sliding_window=True,
                sliding_window=4,
                max_window_layers=2,
                **QWEN,
            ),
            tap=taps.tap_llama,
            save=FUSED,
        ),
    },
    "qwen3_moe": {
        "mixed": dict(
            config=small(Qwen3MoeConfig, head_dim=12, norm_topk_prob=True, mlp_only_layers=[1], **QWEN),
            tap=taps.tap_llama,
            full=True,
        ),
        "window_biases": dict(
            config=small(
                Qwen3MoeConfig, head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=5, **QWEN
            ),
            tap=taps.tap_llama,
            save=FUSED,
        ),
    },
    "olmoe": {
        "clipped": dict(
            config=small(OlmoeConfig, num_experts=5, num_experts_per_tok=2, intermediate_size=24, clip_qkv=0.9),
            tap=taps.tap_llama,
            full=True,
        ),
        "renormalised": dict(
            config=small(
                OlmoeConfig, num_experts=4, num_experts_per_tok=3, intermediate_size=20, norm_topk_prob=True
            ),
            tap=taps.tap_llama,
            save=FUSED,
        ),
    },
}
