"""Numbers of the client beside those of transformers for the same prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import EIFFEL

import residuum as rs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def reference(model_file: Path) -> Any:
    where = {"gguf_file": model_file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_file.parent, **where)
    network = transformers.AutoModelForCausalLM.from_pretrained(
        model_file.parent, dtype=torch.float32, attn_implementation="eager", **where
    )
    ids = tokenizer(EIFFEL, return_tensors="pt").input_ids
    with torch.no_grad():
        return ids, network(ids, output_hidden_states=True, output_attentions=True)


def close(ours: np.ndarray, theirs: Any) -> None:
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.sqrt((theirs**2).mean())


def test_the_same_numbers(model: rs.Model, reference: Any) -> None:
    ids, output = reference
    logits, cache = model.run_with_cache(EIFFEL, hooks=["embed", "resid_post", "attn.pattern", "final_norm"])
    assert cache.token_ids.tolist() == ids[0].tolist()
    close(cache["embed"], output.hidden_states[0][0])
    close(cache.stack()[:-1], torch.stack(output.hidden_states[1:-1])[:, 0])
    close(cache["final_norm"], output.hidden_states[-1][0])
    close(logits.numpy(), output.logits[0])
    close(logits[-1], output.logits[0, -1])
    close(cache.stack("pattern"), torch.stack(output.attentions)[:, 0])
    assert torch.equal(cache.torch("resid_post", 5), torch.from_numpy(cache["resid_post", 5].copy()))


def test_a_capture_has_them_too(model: rs.Model, reference: Any) -> None:
    _, output = reference
    X, _ = model.capture([EIFFEL, "Something else"], layers="all").matrix("resid_post", layer=20)
    close(X[0], output.hidden_states[21][0, -1])


def test_neurons_are_those_of_float64(model: rs.Model, model_file: Path) -> None:
    """Neurons have values far above their RMS, for which float32 as the reference is too coarse."""
    network = transformers.AutoModelForCausalLM.from_pretrained(
        model_file.parent, gguf_file=model_file.name, dtype=torch.float32, attn_implementation="eager"
    ).double()
    neurons: list[Any] = []
    for block in network.model.layers:
        block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: neurons.append(inputs[0][0]))
    _, cache = model.run_with_cache(EIFFEL, hooks=["mlp.post"], logits=False)
    with torch.no_grad():
        network(torch.tensor([cache.token_ids.tolist()]))
    assert len(neurons) == cache.n_layers
    for layer, theirs in enumerate(neurons):
        close(cache["mlp.post", layer], theirs)
