"""Writes the tiny GGUF files that tests/it/model_gguf.rs loads, their reference activations and tokens.

    .venv/bin/pip install -r scripts/requirements-goldens.txt
    .venv/bin/python scripts/make_gguf_goldens.py [NAME ...]     tests/goldens/gguf/NAME
    .venv/bin/python scripts/make_gguf_goldens.py quants         one tensor of each type

The files follow llama.cpp's converter (`conversion/*.py`): its names, its order of rows, its keys. Everything is seeded; a second
run writes the same files.
"""

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import golden_taps as taps
import gguf_tokenizers
from gguf_cases import CASES, VOCAB
from make_goldens import GOLDENS, randomise

FOLDER = GOLDENS / "gguf"
F32 = gguf.GGMLQuantizationType.F32
F16 = gguf.GGMLQuantizationType.F16


def first(config, *names):
    return next((v for n in names if (v := getattr(config, n, None)) is not None), None)


def ordinary_keys(config):
    """Keys that the converter writes for every architecture, if the configuration has them."""
    rope = getattr(config, "rope_parameters", None) or {}
    return {
        "context_length": first(config, "max_position_embeddings", "n_positions"),
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": first(config, "intermediate_size", "n_inner") or 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None),
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "attention.layer_norm_epsilon": first(config, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        "attention.key_length": getattr(config, "head_dim", None),
        "attention.value_length": getattr(config, "head_dim", None),
        "rope.freq_base": rope.get("rope_theta"),
    }


def write_keys(writer, arch, config, case):
    for name, value in {**ordinary_keys(config), **case.get("keys", {})}.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        if value is not None:
            add[type(value)](f"{arch}.{name}", value)


def permuted(weight, heads):
    """Rows with interleaved rotary pairs, as in files of llama models."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def stored(name, tensor, config, case):
    """A weight as the converter stores it."""
    value = tensor.detach().float().numpy()
    model_type = config.model_type
    if model_type.startswith("gemma") and name.endswith("norm.weight"):
        value = value + 1
    if model_type == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        value = value.T
    if model_type == "gpt_neox" and "query_key_value" in name:
        parts = value.reshape(config.num_attention_heads, 3, -1, *value.shape[1:])
        value = parts.swapaxes(0, 1).reshape(value.shape)
    if case.get("permuted") and ".q_proj." in name:
        value = permuted(value, config.num_attention_heads)
    if case.get("permuted") and ".k_proj." in name:
        value = permuted(value, config.num_key_value_heads)
    return np.ascontiguousarray(value, dtype=np.float32)


def rope_freqs(config):
    """The factor by which llama 3's scaling slows each rotary pair."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2).float() / 8)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return (1 / plain / scaled).tolist()


def write(path, arch, model, case):
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny {arch}")
    write_keys(writer, arch, config, case)
    gguf_tokenizers.write(writer, case["pre"])
    arch_id = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    names = gguf.get_tensor_name_map(arch_id, config.num_hidden_layers)
    extra = dict(case.get("extra", {}))
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "llama3":
        extra["rope_freqs.weight"] = rope_freqs(config)
    for name, values in extra.items():
        writer.add_tensor(name, np.array(values, dtype=np.float32))
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, name
        value = stored(name, tensor, config, case)
        kind = F32
        if gguf_name in ("token_embd.weight", "output.weight"):
            kind = F16
        elif "quantised" in case and value.ndim == 2:
            kind = gguf.GGMLQuantizationType[case["quantised"]]
        data = value.astype(np.float16) if kind == F16 else value if kind == F32 else gguf.quants.quantize(value, kind)
        writer.add_tensor(gguf_name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_model(name, config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, sum(map(ord, name)))
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        embedding.weight.data = embedding.weight.data.half().float()  # stored as float16
    return model.eval()


def reload(model, **options):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def reference(model, tap):
    tap(model)
    generator = random.Random(7)
    tensors = {}
    for i, n in enumerate((1, 4, 11)):
        ids = [generator.randrange(VOCAB) for _ in range(n)]
        tensors[f"{i}/ids"] = torch.tensor(ids)
        for hook, value in taps.run(model, ids).items():
            if any(k in hook for k in ("resid_post", "rot_", "logits")):
                tensors[f"{i}/{hook}"] = value
    return tensors


def read_back(folder, tap):
    """Reference activations of the file as transformers reads it; None if it refuses the file."""
    options = dict(gguf_file="model.gguf", dtype=torch.float32, attn_implementation="tapped")
    try:
        return reference(AutoModelForCausalLM.from_pretrained(folder, **options).eval(), tap)
    except (ValueError, RuntimeError, AssertionError) as error:
        print(f"    {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")
        return None


def difference(a, b):
    return max(((a[k] - b[k]).abs().max() / b[k].pow(2).mean().sqrt()).item() for k in a if not k.endswith("/ids"))


def make(name, case):
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arch, tap = case.get("arch", name), case.get("tap", taps.tap_llama)
    model = make_model(name, case["config"])
    write(folder / "model.gguf", arch, model, case)
    tensors = reference(reload(model, attn_implementation="tapped"), tap)
    back = read_back(folder, tap)
    error = difference(back, tensors) if back else float("inf")
    if case.get("reads"):
        assert error < (0.1 if "quantised" in case else 1e-5), (name, error)
        tensors, note = back, "read by transformers"
    else:
        assert error > 1e-2, f"{name}: transformers reads it"
        note = case["why"]
    print(f"{name:<20} transformers' reading differs by {error:.1e}; {note}")
    save_file(tensors, folder / "reference.safetensors")
    cases = gguf_tokenizers.reference(folder / "model.gguf", case["pre"])
    (folder / "tokens.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")


def random_blocks(kind, rows, columns):
    """Random bytes of a type that the package can read but not write, with finite scales."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(int(kind)).integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind.name]
    for at in halves:
        scale = np.random.default_rng(at).uniform(-0.1, 0.1, len(data)).astype(np.float16)
        data[:, at : at + 2] = scale.view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, -1)


def quants():
    """A matrix of each type, and its numbers by the gguf package."""
    folder = FOLDER / "quants"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, columns = 3, 512
    values = np.random.default_rng(1).standard_normal((rows, columns)).astype(np.float32)
    values[0, :32] = 0
    writer = gguf.GGUFWriter(folder / "quants.gguf", "quants")
    expected = {}
    for name in "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split():
        kind = gguf.GGMLQuantizationType[name]
        data = random_blocks(kind, rows, columns) if name.endswith("_K") else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "expected.safetensors")
    print("quants", len(expected), "types")


def main():
    torch.set_num_threads(1)  # sums in one order, so that a second run writes the same files
    names = sys.argv[1:]
    if not names or "quants" in names:
        quants()
    for name, case in CASES.items():
        if not names or name in names:
            make(name, case)


if __name__ == "__main__":
    main()
