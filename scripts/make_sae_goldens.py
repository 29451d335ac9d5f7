"""Small seeded sparse autoencoders in SAELens's form, and what they make of seeded rows by plain PyTorch in float64.

    python scripts/make_sae_goldens.py [--sae-lens]

writes tests/goldens_analysis/sae/<case>/{cfg.json, sae_weights.safetensors, reference.safetensors}, and with --sae-lens first loads
every case with SAELens itself (6.54) in float64 and holds the formulas below against it. Needs torch and safetensors, and
sae-lens for the check.

reference.safetensors: `rows` as a cache stores them (float32), and in float64 `targets` (what is reconstructed),
`activations` and `reconstruction`.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens_analysis" / "sae"
D_SAE, ROWS = 40, 12
RESID = {"hook_name": "blocks.1.hook_resid_post", "model_name": "tiny"}

# The tiny llama of the goldens: d_model 32, 4 heads of 8, BOS added to text. `centred` stands beside the tiny GPT-2.
OLD = {
    "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu", "finetuning_scaling_factor": False, "context_size": 64,
    "activation_fn_str": "relu", "activation_fn_kwargs": {}, "apply_b_dec_to_input": True, "normalize_activations": "none",
    "prepend_bos": True, "dataset_path": "none", "dataset_trust_remote_code": True, "neuronpedia_id": None,
    "sae_lens_training_version": "3.18.2", "hook_head_index": None, "model_from_pretrained_kwargs": {},
}
NEW = {
    "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
    "reshape_activations": "none",
}


def new(metadata=None, **more):
    about = {
        "sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12", "prepend_bos": True, "context_size": 64,
        "hook_head_index": None, "seqpos_slice": [None], "model_from_pretrained_kwargs": {}, **RESID, **(metadata or {}),
    }
    return {**NEW, "d_in": 32, **more, "metadata": about}


def old(**more):
    return {**OLD, "architecture": "standard", "d_in": 32, "hook_layer": 1, **RESID, **more}


Z = {"hook_name": "blocks.1.attn.hook_z", "hook_layer": 1}
CASES = {
    "standard": old(),
    "no_b_dec": old(apply_b_dec_to_input=False, prepend_bos=False),
    "jumprelu": new(architecture="jumprelu"),
    "topk": new(architecture="topk", k=5, rescale_acts_by_decoder_norm=True),
    "topk_old": old(activation_fn_str="topk", activation_fn_kwargs={"k": 7}),
    "gated": new(architecture="gated", apply_b_dec_to_input=False),
    "layer_norm": new(architecture="standard", normalize_activations="layer_norm"),
    "constant_norm": old(architecture="jumprelu", normalize_activations="constant_norm_rescale"),
    "scaled": new(architecture="topk", k=6, normalize_activations="expected_average_only_in"),
    "finetuned": old(finetuning_scaling_factor=True),
    "bfloat16": new(architecture="standard", dtype="bfloat16"),
    "all_heads": old(**Z, reshape_activations="hook_z"),
    "one_head": old(**Z, hook_head_index=2, d_in=8, reshape_activations="none"),
    "centred": new({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, architecture="standard"),
}
SCALE = 0.375


def kind(cfg):
    return "topk" if cfg.get("activation_fn_str") == "topk" else cfg["architecture"]


def make_weights(cfg, seed):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g)
    d = cfg["d_in"]
    w = {"W_enc": rand(d, D_SAE) * 0.4, "W_dec": rand(D_SAE, d) * 0.3, "b_dec": rand(d) * 0.5}
    match kind(cfg):
        case "gated":
            w |= {"b_gate": rand(D_SAE), "r_mag": rand(D_SAE) * 0.3, "b_mag": rand(D_SAE) * 0.5}
        case "jumprelu":
            w |= {"b_enc": rand(D_SAE), "threshold": rand(D_SAE).abs()}
        case _:
            w |= {"b_enc": rand(D_SAE)}
    if cfg.get("finetuning_scaling_factor"):
        w["scaling_factor"] = 1 + rand(D_SAE) * 0.2
    return {name: t.to(torch.bfloat16) if cfg["dtype"] == "bfloat16" else t for name, t in w.items()}


def targets(name, cfg, rows):
    head = cfg.get("hook_head_index")
    x = rows[:, head] if head is not None else rows.flatten(1)
    return x - x.mean(-1, keepdim=True) if name == "centred" else x


def normalise(cfg, x):
    """What is encoded, and how it is undone."""
    match cfg["normalize_activations"]:
        case "none":
            return x, lambda y: y
        case "expected_average_only_in":
            return x * SCALE, lambda y: y / SCALE
        case "constant_norm_rescale":
            c = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
            return x * c, lambda y: y / c
        case "layer_norm":
            mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
            return (x - mean) / (std + 1e-5), lambda y: y * std + mean


def encode(cfg, w, x):
    """Activations and reconstruction, and how far each decision was from going the other way."""
    sae_in, undo = normalise(cfg, x)
    sae_in = sae_in - w["b_dec"] * cfg["apply_b_dec_to_input"]
    norms = torch.ones(D_SAE, dtype=torch.float64)
    pre = sae_in @ w["W_enc"]
    match kind(cfg):
        case "standard":
            pre = pre + w["b_enc"]
            acts, margin = pre.relu(), pre.abs().min()
        case "jumprelu":
            pre = pre + w["b_enc"]
            acts = pre.relu() * (pre > w["threshold"])
            margin = (pre - w["threshold"]).abs().min()
        case "gated":
            gate = pre + w["b_gate"]
            acts = (gate > 0) * (pre * w["r_mag"].exp() + w["b_mag"]).relu()
            margin = gate.abs().min()
        case "topk":
            k = cfg.get("k") or cfg["activation_fn_kwargs"]["k"]
            if cfg.get("rescale_acts_by_decoder_norm"):
                norms = w["W_dec"].norm(dim=-1)
            pre = (pre + w["b_enc"]) * norms
            best = pre.topk(k + 1)
            acts = torch.zeros_like(pre).scatter(-1, best.indices[:, :k], best.values[:, :k].relu())
            margin = (best.values[:, k - 1] - best.values[:, k]).min()
    factors = w.get("scaling_factor", 1) / norms
    return acts, undo((acts * factors) @ w["W_dec"] + w["b_dec"]), margin


def check_with_sae_lens(name, cfg, rows, acts, out):
    from sae_lens import SAE

    # SAELens 6 knows no finetuning factors any more; 3.18 multiplied the activations with them in `decode`.
    if name == "finetuned":
        return "not in SAELens 6"
    sae = SAE.load_from_disk(OUT / name, dtype="float64")
    x = targets(name, cfg, rows)
    if sae.cfg.reshape_activations == "hook_z":
        x = rows
    scale = SCALE if name == "scaled" else 1.0
    found = sae.encode(x * scale)
    back = sae.decode(found).flatten(1) / scale
    far = max((found - acts).abs().max().item(), (back - out).abs().max().item())
    assert far < 1e-12, f"{name}: {far}"
    return f"SAELens differs by {far:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae-lens", action="store_true", help="hold the formulas against SAELens")
    checks = parser.parse_args().sae_lens
    shutil.rmtree(OUT, ignore_errors=True)
    for seed, (name, cfg) in enumerate(CASES.items()):
        folder = OUT / name
        folder.mkdir(parents=True)
        (folder / "cfg.json").write_text(json.dumps(cfg, indent=1) + "\n")
        if name == "scaled":
            (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": SCALE, "has_whitening": False}) + "\n")
        save_file(make_weights(cfg, seed), folder / "sae_weights.safetensors")
        w = {key: t.double() for key, t in load_file(folder / "sae_weights.safetensors").items()}

        g = torch.Generator().manual_seed(1000 + seed)
        shape = (ROWS, 4, 8) if "hook_z" in (cfg.get("hook_name") or "") else (ROWS, 32)
        rows = torch.randn(*shape, generator=g) * torch.linspace(0.2, 3, ROWS).view(-1, *[1] * (len(shape) - 1)) + 0.3
        x = targets(name, cfg, rows.double())
        acts, out, margin = encode(cfg, w, x)
        assert margin > 1e-5, f"{name}: a decision is too close to call ({margin}); change the seed"
        assert (acts > 0).any(0).sum() > D_SAE // 3, f"{name}: few features are ever active"
        tensors = {"rows": rows, "targets": x, "activations": acts, "reconstruction": out}
        save_file({key: t.contiguous() for key, t in tensors.items()}, folder / "reference.safetensors")
        said = check_with_sae_lens(name, cfg, rows.double(), acts, out) if checks else "not held against SAELens"
        print(f"{name}: {(acts > 0).double().sum(-1).mean():.1f} active, margin {margin:.1e}, {said}")


main()
