"""One server for all tests of this folder: SmolLM2 and a small autoencoder with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from question_texts import D_SAE, EIFFEL, MODEL, MOODS, NAME, SAE_K, SAE_LAYER, sae_weights
from safetensors.numpy import save

import residuum as rs


@pytest.fixture(scope="session")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae")
    (folder / "sae_weights.safetensors").write_bytes(save(sae_weights()))
    config = {
        "architecture": "topk",
        "d_in": 576,
        "d_sae": D_SAE,
        "k": SAE_K,
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "hook_name": f"blocks.{SAE_LAYER}.hook_resid_post",
            "prepend_bos": False,
            "context_size": 256,
            "exclude_special_tokens": True,
            "model_from_pretrained_kwargs": {},
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def client(sae_folder: Path) -> Iterator[rs.Client]:
    if not MODEL.exists():
        pytest.skip("scripts/fetch_demo_model.sh smollm2 fetches the model")
    with rs.serve({NAME: MODEL}, saes={"demo": f"{NAME}:{sae_folder}"}, progress=False) as c:
        yield c


@pytest.fixture(scope="session")
def model(client: rs.Client) -> rs.Model:
    return client.model(NAME)


@pytest.fixture(scope="session")
def cache(model: rs.Model) -> rs.Cache:
    """Everything that lens and attribution need, at all positions."""
    return model.run_with_cache(EIFFEL, hooks=["embed", "attn.z", "attn_out", "mlp_out", "resid_post"])[1]


@pytest.fixture(scope="session")
def moods(client: rs.Client, model: rs.Model) -> dict[bool, list[rs.Cache]]:
    """Four happy and four sad texts, residual stream at the last position."""
    return {
        happy: model.run_with_cache(texts, positions="last", tags=["moods", f"happy={happy}"])[1]
        for happy, texts in MOODS.items()
    }
