"""Against transformers with the same checkpoint: tensors, lens, attribution, patching, steering.

Needs torch, transformers, accelerate and gguf; skipped without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from question_texts import CLEAN, CORRUPT, EIFFEL, MODEL

import residuum as rs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("accelerate")


MARY, JOHN = 5099, 2322
# In units of the root mean square of what is compared.
TOLERANCE = 1e-4


class Reference:
    """The model in transformers, float32, with hooks."""

    def __init__(self) -> None:
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(1)
        place = {"gguf_file": MODEL.name}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL.parent, **place)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            MODEL.parent, dtype=torch.float32, attn_implementation="eager", **place
        ).eval()
        self.layers = self.model.model.layers

    def ids(self, text: str) -> Any:
        return torch.tensor([self.tokenizer(text)["input_ids"]])

    @torch.no_grad()
    def __call__(self, text: str, **options: Any) -> Any:
        return self.model(self.ids(text), **options)

    @contextlib.contextmanager
    def changed(self, layer: int, change: Callable[[Any], Any]) -> Iterator[None]:
        """Changes the output of a block, `[1, pos, d_model]`."""

        def hook(_module: Any, _args: Any, output: Any) -> Any:
            return change(output) if torch.is_tensor(output) else (change(output[0]), *output[1:])

        handle = self.layers[layer].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def close(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.sqrt((theirs**2).mean())


def test_tensors(reference: Reference, model: rs.Model) -> None:
    logits, cache = model.run_with_cache(EIFFEL, hooks=["embed", "resid_post", "attn.pattern", "final_norm"])
    theirs = reference(EIFFEL, output_hidden_states=True, output_attentions=True)
    assert cache.token_ids.tolist() == reference.ids(EIFFEL)[0].tolist()
    close(cache["hook_embed"], theirs.hidden_states[0][0])
    for layer in range(29):
        close(cache["resid_post", layer], theirs.hidden_states[layer + 1][0])
    close(cache["final_norm"], theirs.hidden_states[30][0])
    for layer in (0, 29):
        close(cache["pattern", layer], theirs.attentions[layer][0])
    close(np.asarray(logits), theirs.logits[0])


def test_lens(reference: Reference, cache: rs.Cache) -> None:
    states = reference(EIFFEL, output_hidden_states=True).hidden_states
    with torch.no_grad():
        log_p = [
            reference.model.lm_head(reference.model.model.norm(states[i + 1][0])).log_softmax(-1) for i in (5, 20, 28)
        ]
    close(cache.lens_distributions([5, 20, 28]), torch.stack(log_p))


def test_attribution(reference: Reference, cache: rs.Cache) -> None:
    outputs: dict[tuple[str, int], Any] = {}
    handles = []
    for i, block in enumerate(reference.layers):
        o, mlp = block.self_attn.o_proj, block.mlp
        handles.append(o.register_forward_hook(lambda _m, args, _o, i=i: outputs.update({("z", i): args[0]})))
        handles.append(mlp.register_forward_hook(lambda _m, _a, output, i=i: outputs.update({("mlp", i): output})))
    final: list[Any] = []
    handles.append(reference.model.model.norm.register_forward_hook(lambda _m, args, _o: final.append(args[0])))
    reference(EIFFEL)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        head = reference.model.lm_head.weight
        norm = reference.model.model.norm
        scale = (final[0][0, -1].pow(2).mean() + norm.variance_epsilon).rsqrt()
        direction = (head[7042] - head[7268]) * norm.weight * scale
        mlp = torch.stack([outputs["mlp", i][0, -1] @ direction for i in range(30)])
        heads = torch.stack(
            [
                torch.stack(
                    [
                        block.self_attn.o_proj.weight[:, 64 * h : 64 * h + 64]
                        @ outputs["z", i][0, -1, 64 * h : 64 * h + 64]
                        for h in range(9)
                    ]
                )
                @ direction
                for i, block in enumerate(reference.layers)
            ]
        )
    found = cache.logit_attribution(" Paris", " Rome")
    close(found.mlp, mlp)
    close(found.heads, heads)
    assert found.scale == pytest.approx(1 / scale.item(), rel=1e-5)


def test_patching(reference: Reference, model: rs.Model) -> None:
    found = model.patching(
        CLEAN,
        CORRUPT,
        answer=" Mary",
        against=" John",
        sweep={"hook": "resid_post", "positions": "each", "layers": [19, 22]},
    )
    clean = reference(CLEAN, output_hidden_states=True).hidden_states

    def difference(logits: Any) -> float:
        return float(logits[0, -1, MARY] - logits[0, -1, JOHN])

    assert found.clean == pytest.approx(difference(reference(CLEAN).logits), abs=1e-3)
    assert found.corrupt == pytest.approx(difference(reference(CORRUPT).logits), abs=1e-3)
    for i, layer in enumerate([19, 22]):
        for position in (9, 11, 13):

            def change(x: Any, layer: int = layer, position: int = position) -> Any:
                x = x.clone()
                x[:, position] = clean[layer + 1][:, position]
                return x

            with reference.changed(layer, change):
                assert found.values[i, position] == pytest.approx(difference(reference(CORRUPT).logits), abs=1e-3)


def test_steered_generation(reference: Reference, client: rs.Client, model: rs.Model, moods: Any) -> None:
    joy = client.directions.fit("joy-hf", positive=moods[True], negative=moods[False], layers=[15], replace=True)
    text = "When I opened the letter, I felt"
    vector = torch.from_numpy(joy.vector(15).copy())
    for strength in (0.0, 2.0):
        ours = model.steer(joy, layers=15, strength=strength).generate(text, max_new_tokens=12, hooks=[])
        with reference.changed(15, lambda x, s=strength: x + s * vector), torch.no_grad():
            theirs = reference.model.generate(
                reference.ids(text), max_new_tokens=12, do_sample=False, pad_token_id=0, repetition_penalty=1.0
            )
        assert ours.token_ids == theirs[0, reference.ids(text).shape[1] :].tolist()


def test_probe_of_numpy_rows_equals_hidden_states(reference: Reference, client: rs.Client, moods: Any) -> None:
    happy = moods[True]
    theirs = [reference(c.text, output_hidden_states=True).hidden_states[16][0, -1].numpy() for c in happy]
    close(np.stack([c.layer(15) for c in happy]), np.stack(theirs))
    difference = np.mean(theirs, axis=0) - np.mean(
        [reference(c.text, output_hidden_states=True).hidden_states[16][0, -1].numpy() for c in moods[False]], axis=0
    )
    found = client.directions.fit("joy-hf2", positive=happy, negative=moods[False], layers=15, replace=True)
    close(found.vector(15), difference)
