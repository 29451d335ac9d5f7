"""Writes tests/goldens/config_sweep.json: what transformers computes when keys of a tiny checkpoint's config.json change.

    .venv/bin/pip install -r scripts/requirements-goldens.txt
    .venv/bin/python scripts/make_config_sweep.py [FAMILY/CASE ...]

Every key is left out, one at a time, and keys that belong together are left out together; keys that may be null are set to
null; rope parameters are spelled as in transformers 4; one checkpoint of each family gets keys that its file does not have. A row of the
file is [keys left out, keys set, what transformers computes]: "same" (the numbers of the unchanged checkpoint), "refused" (it
raises an error, or has to invent weights), or a few of the new numbers, at the last token: of the logits, or of the last hidden
state if there is no LM head. tests/it/model_configs.rs reads it.
"""

import copy
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(TRANSFORMERS_VERBOSITY="critical", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.filterwarnings("ignore")

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from golden_cases import CASES

logging.disable(logging.CRITICAL)
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

GOLDENS = Path(__file__).resolve().parent.parent / "tests" / "goldens"
TARGET = GOLDENS / "config_sweep.json"
IDS = [40, 7, 99, 131, 12, 200, 63, 5, 77, 151, 18, 240]
SHOWN = [0, 3, 7, 11, 17, 23, 29, 31]
MOST_PARAMETERS = 3_000_000
# Keys that choose what is loaded, not how it is computed.
KEPT = {"model_type", "transformers_version", "dtype"}
TOGETHER = [
    ("sliding_window", "layer_types"),
    ("sliding_window", "use_sliding_window"),
    ("use_sliding_window", "layer_types"),
    ("max_window_layers", "layer_types"),
    ("no_rope_layers", "layer_types"),
    ("rope_parameters", "layer_types"),
    ("rope_theta", "rope_scaling"),
    ("num_key_value_heads", "head_dim"),
    ("num_kv_heads", "new_decoder_architecture"),
    ("attention_types", "attention_layers"),
    ("bos_token_id", "eos_token_id", "pad_token_id"),
]
ADDED = [
    {"unheard_of": 1},
    {"head_dim": 16},
    {"sliding_window": 3},
    {"sliding_window": 3, "use_sliding_window": True},
    {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1},
    {"sliding_window_pattern": 2},
    {"_sliding_window_pattern": 2},
    {"layer_types": "alternating"},
    {"is_causal": False},
    {"attention_chunk_size": 3},
    {"partial_rotary_factor": 0.5},
    {"rope_theta": 500.0},
    {"rope_scaling": {}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "attn_factor": 0.5, "finetuned": True}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0}},
    {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 700.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}},
    {"original_max_position_embeddings": 8},
    {"original_max_position_embeddings": 8, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"rotary_pct": 0.5},
    {"rotary_emb_base": 500},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"qk_layernorm": True},
    {"lm_head_bias": True},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"num_attention_heads": 2},
    {"hidden_act": "relu"},
    {"hidden_activation": "relu"},
    {"activation_function": "relu"},
    {"layer_norm_epsilon": 0.5},
    {"layer_norm_eps": 0.5},
    {"rms_norm_eps": 0.5},
    {"norm_eps": 0.5},
    {"query_pre_attn_scalar": 4},
    {"final_logit_softcapping": 1.0},
    {"attn_logit_softcapping": 1.0},
    {"logit_scale": 0.5},
    {"scale_attn_weights": False},
    {"per_layer_config": {"0": {"sliding_window": 3}}},
    {"chunk_size_feed_forward": 2},
    {"position_embedding_type": "relative_key"},
    {"norm_topk_prob": True},
    {"original_max_position_embeddings": 8, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    {"rope_parameters": None, "rope_theta": 500.0},
    {"rope_parameters": None, "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    {"rope_parameters": None, "rope_theta": 500.0, "rope_local_base_freq": 77.0},
    {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_parameters": None, "global_rope_theta": 500.0, "local_rope_theta": 77.0},
    {"rope_parameters": None, "rotary_emb_base": 500, "rotary_pct": 0.5},
    {"local_attention": 6},
    {"global_attn_every_n_layers": 2, "layer_types": None},
    {"sliding_window_pattern": 2, "layer_types": None},
    {"_sliding_window_pattern": 2, "layer_types": None},
    {"no_rope_layer_interval": 2, "no_rope_layers": None, "layer_types": None},
    {"use_bidirectional_attention": True},
    {"is_decoder": True},
    {"num_key_value_heads": 1},
    {"clip_qkv": 0.5},
    {"logits_scaling": 2.0},
    {"embedding_multiplier": 2.0},
    {"residual_multiplier": 0.5},
    {"attention_multiplier": 0.5},
]


def changes(config, with_added):
    """Changes of a configuration, each with the keys to leave out and those to set."""
    for key in config:
        if key in KEPT:
            continue
        yield [key], {}
        if config[key] is not None:
            yield [], {key: None}
    for keys in TOGETHER:
        present = [k for k in keys if k in config]
        if len(present) > 1:
            yield present, {}
    rope = config.get("rope_parameters")
    if rope and "rope_type" in rope:
        for key in rope:
            yield [], {"rope_parameters": {k: v for k, v in rope.items() if k != key}}
        old = {k: v for k, v in rope.items() if k != "rope_theta"}
        yield ["rope_parameters"], {"rope_theta": rope["rope_theta"], "rope_scaling": old}
        yield ["rope_parameters"], {"rope_scaling": rope}
        named = {k if k != "rope_type" else "type": v for k, v in rope.items()}
        yield [], {"rope_parameters": named}
    elif rope:
        for kind in rope:
            yield [], {"rope_parameters": {k: v for k, v in rope.items() if k != kind}}
            inner = {k: v for k, v in rope[kind].items() if k != "rope_theta"}
            yield [], {"rope_parameters": {**rope, kind: inner}}
    for added in ADDED if with_added else ():
        added = copy.deepcopy(added)
        if added.get("layer_types") == "alternating":
            n = next((config[k] for k in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if k in config), 0)
            added["layer_types"] = ["sliding_attention" if l % 2 else "full_attention" for l in range(n)]
        if any(config.get(k) != v for k, v in added.items()):
            yield [], added


def compute(folder, auto):
    """The numbers that are compared, or None if transformers refuses or invents weights."""
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            size = sum(p.numel() for p in auto.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            return None
        # Falcon's eager attention adds linear biases twice.
        attention = "sdpa" if getattr(config, "alibi", False) else "eager"
        model, info = auto.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
        if info["missing_keys"] or info["mismatched_keys"]:
            return None
        model.eval()
        with torch.no_grad():
            out = model(torch.tensor([IDS]))
        rows = out.logits if "logits" in out else out.last_hidden_state
        return rows[0, -1].double()
    except Exception:
        return None


def nested(config):
    """The part of a configuration that is swept: the text part of a multimodal one too."""
    yield None, config
    if isinstance(config.get("text_config"), dict):
        yield "text_config", config["text_config"]


def sweep(case, auto, source, with_added):
    found = []
    original = json.loads((source / "config.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for file in source.iterdir():
            if file.name.startswith("model") and file.suffix in (".safetensors", ".json"):
                shutil.copy(file, folder)
        write = lambda config: (folder / "config.json").write_text(json.dumps(config))
        write(original)
        base = compute(folder, auto)
        if base is None:
            print(case, "is not read by transformers 5 as it is", flush=True)
            return []
        rms = base.pow(2).mean().sqrt()
        for inside, part in nested(original):
            for drop, put in changes(part, with_added):
                config = copy.deepcopy(original)
                target = config[inside] if inside else config
                for key in drop:
                    target.pop(key)
                target.update(put)
                write(config)
                got = compute(folder, auto)
                if got is None or not got.isfinite().all():
                    if not drop and None in put.values() and len(put) == 1:
                        continue  # a null that the class does not allow
                    expected = "refused"
                elif got.shape == base.shape and (got - base).abs().max() < 1e-6 * rms:
                    expected = "same"
                else:
                    expected = [float(f"{got[i % len(got)]:.7g}") for i in SHOWN]
                found.append([drop, put, expected] if not inside else [drop, put, expected, inside])
    print(case, len(found), "changes", flush=True)
    return found


def main(wanted):
    swept = {}
    for family, cases in CASES.items():
        # The first with an LM head, else the first.
        heads = [n for n, c in cases.items() if c.get("auto", AutoModelForCausalLM) is not AutoModel] or list(cases)
        for name, case in cases.items():
            path = f"{family}/{name}"
            if not wanted or path in wanted:
                rows = sweep(path, case.get("auto", AutoModelForCausalLM), GOLDENS / path, name == heads[0])
                if rows:
                    swept[path] = rows
    if wanted:
        for rows in swept.values():
            print(*map(json.dumps, rows), sep="\n")
        return
    compact = lambda value: json.dumps(value, separators=(",", ":"))
    cases = [f"{compact(case)}: [\n" + ",\n".join(map(compact, rows)) + "\n]" for case, rows in swept.items()]
    header = json.dumps({"transformers": transformers.__version__, "ids": IDS, "shown": SHOWN})
    TARGET.write_text(header[:-1] + ', "cases": {\n' + ",\n".join(cases) + "\n}}\n")
    print(sum(map(len, swept.values())), "changes,", TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
