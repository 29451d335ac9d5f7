"""The tiny checkpoints: each uses options that the others do not."""

import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    ModernBertConfig,
    Olmo2Config,
    OlmoConfig,
    OlmoeConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    SiglipVisionConfig,
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
    return config


def bert_of_2018(name):
    """Norms had a gamma and a beta."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def gpt_neo(**options):
    sizes = dict(vocab_size=VOCAB, hidden_size=32, num_heads=4, intermediate_size=48, max_position_embeddings=64)
    return lambda: GPTNeoConfig(**{**sizes, **options})


def opt(**options):
    sizes = {**SMALL, "ffn_dim": 48}
    del sizes["intermediate_size"], sizes["num_key_value_heads"]
    return lambda: OPTConfig(**{**sizes, **options})


def falcon(**options):
    sizes = {**SMALL, "ffn_hidden_size": 48}
    del sizes["intermediate_size"], sizes["num_key_value_heads"]
    return dict(config=lambda: FalconConfig(**{**sizes, **options}), tap=taps.tap_bloom, attention="sdpa")


def bloom(**options):
    config = lambda: BloomConfig(**{**dict(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4), **options})
    return dict(config=config, tap=taps.tap_bloom, attention="eager")


def bloom_of_2022(config):
    """The spelling of the published checkpoints, and what their files say about training."""
    config["n_embed"] = config.pop("hidden_size")
    config["num_attention_heads"] = config.pop("n_head")
    return config | dict(
        attention_softmax_in_fp32=True, masked_softmax_fusion=True, offset_alibi=100, seq_length=64, n_inner=None
    )


def falcon_of_2023(config):
    config["n_head"], config["n_layer"] = config.pop("num_attention_heads"), config.pop("num_hidden_layers")
    config["n_head_kv"], config["n_embed"] = config.pop("num_kv_heads"), config.pop("hidden_size")
    del config["rope_parameters"], config["max_position_embeddings"]
    return config


GEMMA3_TEXT = dict(
    SMALL,
    num_hidden_layers=3,
    head_dim=12,
    sliding_window=4,
    query_pre_attn_scalar=9,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
)


def gemma3(tied=True, **options):
    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    )
    text = Gemma3TextConfig(**{**GEMMA3_TEXT, **options})
    return lambda: Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, tie_word_embeddings=tied)


def gemma3_of_2025(config):
    """As the published files are: no more of the text configuration than what differs from the defaults of its class."""
    text = config["text_config"]
    text["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
    text["sliding_window_pattern"] = 2
    defaults = ("num_attention_heads", "num_key_value_heads", "tie_word_embeddings", "rms_norm_eps", "hidden_activation")
    for key in ("layer_types", "rope_parameters", "_sliding_window_pattern", *defaults):
        text.pop(key, None)
    return config


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
            lengths=(8, 13, 5),  # transformers keeps the scaled frequencies for a later input of exactly 8
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
        "two_ropes": dict(config=small(Gemma3TextConfig, **GEMMA3_TEXT), tap=taps.tap_llama, full=True),
    },
    "gemma3": {
        "text_part": dict(config=gemma3(), tap=taps.tap_llama, full=True),
        # save_pretrained writes the names of transformers 4; the blocks of this one are called as its modules are.
        "sparse_config_untied": dict(
            config=gemma3(tied=False, num_attention_heads=8, num_key_value_heads=4),
            tap=taps.tap_llama,
            rewrite=gemma3_of_2025,
            rename=lambda name: name.replace("language_model.model.", "model.language_model."),
        ),
    },
    "gpt_neo": {
        "local": dict(
            config=gpt_neo(num_layers=3, attention_types=[[["global", "local"], 1], [["local"], 1]], window_size=4),
            tap=taps.tap_gpt_neo,
            attention="eager",
            full=True,
        ),
    },
    "gptj": {
        "shared_norm": dict(
            config=lambda: GPTJConfig(
                vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=48, rotary_dim=4
            ),
            tap=taps.tap_gpt_neo,
            attention="eager",
            full=True,
        ),
    },
    "opt": {
        "plain": dict(config=opt(), tap=taps.tap_opt, full=True),
        "projected": dict(config=opt(word_embed_proj_dim=20), tap=taps.tap_opt, full=True),
        "post_norm": dict(
            config=opt(word_embed_proj_dim=20, do_layer_norm_before=False), tap=taps.tap_opt, full=True
        ),
        "bare": dict(
            config=opt(
                enable_bias=False,
                layer_norm_elementwise_affine=False,
                _remove_final_layer_norm=True,
                word_embed_proj_dim=40,
                tie_word_embeddings=False,
            ),
            tap=taps.tap_opt,
        ),
    },
    "falcon": {
        "multi_query": dict(**falcon(), full=True),
        "multi_query_of_2023": dict(**falcon(num_hidden_layers=1), rewrite=falcon_of_2023),
        "grouped": dict(**falcon(new_decoder_architecture=True, num_kv_heads=2), full=True),
        "grouped_one_norm": dict(
            **falcon(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, bias=True)
        ),
        # Sixteen heads: the slopes of fewer are powers of two, and rounding them to bfloat16 does not show. Through
        # SDPA: eager attention of transformers 5 adds the biases twice, once with the mask.
        "alibi": dict(
            **falcon(alibi=True, multi_query=False, parallel_attn=False, bias=True, num_attention_heads=16), full=True
        ),
    },
    "bloom": {
        "six_heads": dict(**bloom(hidden_size=24, n_head=6), full=True),
        "published_spelling": dict(**bloom(n_layer=1), rewrite=bloom_of_2022),
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
            rename=bert_of_2018,
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
            rewrite=modernbert_4,
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
