"""Writes crates/model/src/families/reference.json: what transformers' configuration class of each family declares.

    .venv/bin/pip install -r scripts/requirements-goldens.txt
    .venv/bin/python scripts/make_config_reference.py

For each `model_type` that is served: the fields of its class with their defaults, and its aliases (`attribute_map`). For all
of them: the fields of the base class, the generation parameters that the base class removes from a configuration before
anything reads them, and the names that transformers reads although no class declares them. The default `null` means None.
"""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedConfig

FAMILIES = """bert bloom distilbert falcon gemma gemma2 gemma3 gemma3_text gpt2 gpt_neo gpt_neox gptj granite llama mistral
mixtral modernbert olmo olmo2 olmoe opt phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe roberta smollm3 stablelm starcoder2""".split()
# Read with getattr if a configuration has them: by the attention functions, the masks, the caches and the loader.
READ_BY_NAME = [
    "attention_chunk_size",
    "head_dim",
    "is_causal",
    "layer_types",
    "per_layer_config",
    "quantization_config",
    "sliding_window",
]
TARGET = Path(__file__).resolve().parent.parent / "crates/model/src/families" / "reference.json"


def defaults(cls):
    """Fields of a configuration class with their defaults, except those that equal the base class's."""
    found = {}
    for field in dataclasses.fields(cls):
        value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        found[field.name] = value
    return found


def rope_keys(cls):
    """Keys of config.json that the class takes rope parameters from: those that its code removes from the keyword arguments."""
    code = inspect.getsource(cls.convert_rope_params_to_dict)
    return sorted({"rope_parameters", *re.findall(r'kwargs\.(?:pop|get)\(\s*"(\w+)"', code)} - {"partial_rotary_factor"})


def main():
    base = defaults(PreTrainedConfig)
    families = {}
    for name in FAMILIES:
        cls = CONFIG_MAPPING[name]
        own = {k: v for k, v in defaults(cls).items() if k not in base or base[k] != v}
        entry = {"class": cls.__name__, "fields": dict(sorted(own.items()))}
        if "rope_parameters" in own:
            entry["default_theta"] = cls.default_theta
            entry["rope_keys"] = rope_keys(cls)
            source = Path(inspect.getfile(cls).replace("configuration_", "modeling_")).read_text()
            entry["partial_rotary"] = "partial_rotary_factor" in source
        if cls.attribute_map:
            entry["aliases"] = dict(sorted(cls.attribute_map.items()))
        families[name] = entry
    reference = {
        "transformers": transformers.__version__,
        "base": sorted(base),
        "generation": sorted(GenerationConfig._get_default_generation_params()),
        "read_by_name": READ_BY_NAME,
        "families": families,
    }
    TARGET.write_text(json.dumps(reference, indent=1) + "\n")
    print(f"{TARGET.name}: {len(families)} families, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
