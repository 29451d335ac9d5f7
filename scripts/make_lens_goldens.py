"""References for the lens and for attribution: transformers in float64 on the tiny checkpoints.

    python scripts/make_lens_goldens.py

writes tests/goldens_analysis/lens_{family}.safetensors (the lens of every layer and position, its entropy and its KL
divergence) and tests/goldens_analysis/attribution.json (the parts of a difference of two logits).
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "goldens_analysis"
IDS = [1, 17, 203, 99, 5, 64, 250, 17]
TOKEN, AGAINST = 42, 7

# checkpoint: the final norm, the blocks, and where a block keeps its parts
CASES = {
    "llama": ("llama/gqa_tied", "model.norm", "model.layers", "self_attn", "o_proj", "mlp", None, None),
    "gpt2": ("gpt2/plain", "transformer.ln_f", "transformer.h", "attn", "c_proj", "mlp", None, None),
    "gemma2": (
        "gemma2/softcaps", "model.norm", "model.layers", "self_attn", "o_proj", "mlp",
        "post_attention_layernorm", "post_feedforward_layernorm",
    ),
    "granite": ("granite/multipliers", "model.norm", "model.layers", "self_attn", "o_proj", "mlp", None, None),
}  # fmt: skip


def load(checkpoint):
    folder = ROOT / "tests" / "goldens" / checkpoint
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def head(model, normed):
    """Logits that the model's own forward computes from the output of the final norm: uncapped, and capped."""
    logits = model.lm_head(normed) / getattr(model.config, "logits_scaling", 1.0)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits, logits if cap is None else cap * torch.tanh(logits / cap)


def lens(model, norm, blocks):
    """Every block's output, taken by hooks, through final norm and head."""
    outputs = []
    first = lambda out: out[0] if isinstance(out, tuple) else out
    hooks = [b.register_forward_hook(lambda m, i, out: outputs.append(first(out))) for b in blocks]
    logits = model(torch.tensor([IDS])).logits[0]
    for hook in hooks:
        hook.remove()
    read = torch.stack([head(model, norm(x[0]))[1] for x in outputs])
    assert torch.allclose(read[-1], logits, rtol=1e-6, atol=1e-6)
    log_probs = read.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    final = log_probs[-1]
    kl = (final.exp() * (final - log_probs)).sum(-1)
    save = lambda x: x.numpy().astype(np.float32)
    return {"logits": save(read), "log_probs": save(log_probs), "entropy": save(entropy), "kl": save(kl)}


def attribution(model, norm, blocks, names):
    """The parts of logit[TOKEN] - logit[AGAINST] at the last position, through norms with fixed denominators.

    Such a norm is affine: a part adds the function at the part minus the function at zero.
    """
    attention, projection, mlp, post_attention, post_mlp = names
    taken = {}

    def keep(key):
        return lambda m, i, out: taken.__setitem__(key, (out[0] if isinstance(out, tuple) else out)[0, -1])

    def keep_input(key):
        return lambda m, i: taken.__setitem__(key, i[0][0, -1])

    hooks = [blocks[0].register_forward_pre_hook(keep_input("embed")), norm.register_forward_pre_hook(keep_input("end"))]
    for l, block in enumerate(blocks):
        at = getattr(block, attention)
        hooks.append(getattr(at, projection).register_forward_pre_hook(keep_input(f"z{l}")))
        hooks.append(at.register_forward_hook(keep(f"attn{l}")))
        hooks.append((getattr(block, post_mlp) if post_mlp else getattr(block, mlp)).register_forward_hook(keep(f"mlp{l}")))
    model(torch.tensor([IDS]))
    for hook in hooks:
        hook.remove()

    difference = lambda normed: (lambda l: l[TOKEN] - l[AGAINST])(head(model, normed)[0])
    multiplier = getattr(model.config, "residual_multiplier", 1.0)
    zero = torch.zeros_like(taken["end"])
    final = frozen(norm, taken["end"])
    offset = difference(zero)
    linear = lambda x: difference(final(x) - final(zero)) - offset
    parts = {"embed": linear(taken["embed"])}
    for l, block in enumerate(blocks):
        at = getattr(block, attention)
        o, raw = getattr(at, projection), taken[f"attn{l}"]
        after = frozen(getattr(block, post_attention), raw) if post_attention else (lambda x: x)
        moved = lambda x: (after(x) - after(zero)) * multiplier
        weight = o.weight.T if type(o).__name__ == "Conv1D" else o.weight
        heads = model.config.num_attention_heads
        width = weight.shape[1] // heads
        bias = zero if o.bias is None else o.bias
        for h in range(heads):
            z = taken[f"z{l}"][h * width : (h + 1) * width]
            parts[f"{l}.head.{h}"] = linear(moved(weight[:, h * width : (h + 1) * width] @ z))
        if o.bias is not None:
            parts[f"{l}.attn_bias"] = linear(moved(bias) + after(zero) * multiplier)
        parts[f"{l}.attn"] = linear(after(raw) * multiplier)
        parts[f"{l}.mlp"] = linear(taken[f"mlp{l}"] * multiplier)
    parts["ln_final.b"] = difference(final(zero)) - offset
    logit = difference(norm(taken["end"]))
    whole = sum(v for k, v in parts.items() if not k.endswith(".attn"))
    # transformers computes RMS norms in float32, whatever the weights are
    assert abs(whole + offset - logit) < 1e-6 * abs(logit), (whole, logit)
    return {"parts": {k: v.item() for k, v in parts.items()}, "logit": logit.item()}


def frozen(norm, at):
    """The norm as an affine function of x, its denominator that of `at`."""
    centred = isinstance(norm, torch.nn.LayerNorm)
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
    centre = lambda x: x - x.mean() if centred else x
    scale = torch.sqrt(centre(at).pow(2).mean() + eps)
    gain = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
    bias = norm.bias if centred else 0.0
    result = lambda x: centre(x) / scale * gain + bias
    assert torch.allclose(result(at), norm(at), rtol=1e-6, atol=1e-6)
    return result


@torch.no_grad()
def main():
    OUT.mkdir(exist_ok=True)
    attributions = {"ids": IDS, "token": TOKEN, "against": AGAINST, "cases": {}}
    for family, (checkpoint, norm, blocks, *names) in CASES.items():
        model = load(checkpoint)
        norm, blocks = model.get_submodule(norm), list(model.get_submodule(blocks))
        save_file({"ids": np.array(IDS), **lens(model, norm, blocks)}, OUT / f"lens_{family}.safetensors")
        attributions["cases"][checkpoint] = attribution(model, norm, blocks, names)
    (OUT / "attribution.json").write_text(json.dumps(attributions, indent=1) + "\n")


main()
