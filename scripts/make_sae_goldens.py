"""Small seeded sparse autoencoders in SAELens's form, and their results for seeded rows, by plain PyTorch in float64.

    python scripts/make_sae_goldens.py [--sae-lens]

writes tests/goldens_analysis/sae/<case>/{cfg.json, sae_weights.safetensors, reference.safetensors}, and with --sae-lens first loads
every case with SAELens itself (6.54) in float64 and compares the formulas below with it. Needs torch and safetensors, and
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

# The tiny llama of the goldens: d_model 32, 4 heads of 8, BOS added to text. `centred` belongs to the tiny GPT-2.
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


def version_2(**more):
    """What `SparseAutoencoder.save_model` of SAELens 2.1 writes: the configuration of the whole training run."""
    return {
        "model_name": "tiny", "model_class_name": "HookedTransformer", "hook_point": "blocks.1.hook_resid_post",
        "hook_point_eval": "blocks.{layer}.attn.pattern", "hook_point_layer": 1, "hook_point_head_index": None, "dataset_path": "none",
        "streaming": True, "is_dataset_tokenized": True, "context_size": 64, "use_cached_activations": False,
        "cached_activations_path": None, "d_in": 32, "d_sae": D_SAE, "b_dec_init_method": "geometric_median", "expansion_factor": 1.25,
        "activation_fn": "relu", "normalize_sae_decoder": False, "noise_scale": 0.0, "from_pretrained_path": None,
        "apply_b_dec_to_input": True, "decoder_orthogonal_init": False, "decoder_heuristic_init": False,
        "init_encoder_as_decoder_transpose": True, "n_batches_in_buffer": 20, "training_tokens": 2_000_000, "finetuning_tokens": 0,
        "store_batch_size_prompts": 32, "train_batch_size_tokens": 4096, "normalize_activations": False, "device": "cpu", "seed": 42,
        "dtype": "torch.float32", "prepend_bos": True, "autocast": False, "compile_llm": False, "llm_compilation_mode": None,
        "compile_sae": False, "sae_compilation_mode": None, "adam_beta1": 0, "adam_beta2": 0.999, "mse_loss_normalization": None,
        "l1_coefficient": 0.001, "lp_norm": 1, "scale_sparsity_penalty_by_decoder_norm": False, "l1_warm_up_steps": 0, "lr": 0.0003,
        "lr_scheduler_name": "constant", "lr_warm_up_steps": 0, "lr_end": 3e-05, "lr_decay_steps": 0, "n_restart_cycles": 1,
        "finetuning_method": None, "use_ghost_grads": False, "feature_sampling_window": 2000, "dead_feature_window": 1000,
        "dead_feature_threshold": 1e-08, "n_eval_batches": 10, "eval_batch_size_prompts": None, "log_to_wandb": True,
        "log_activations_store_to_wandb": False, "log_optimizer_state_to_wandb": False, "wandb_project": "none", "wandb_id": None,
        "run_name": "40-L1-0.001", "wandb_entity": None, "wandb_log_frequency": 10, "eval_every_n_wandb_logs": 100, "resume": False,
        "n_checkpoints": 0, "checkpoint_path": "checkpoints/a1b2", "verbose": True, "model_kwargs": {}, "model_from_pretrained_kwargs": {},
        "sae_lens_version": "2.1.3", "sae_lens_training_version": "2.1.3", "tokens_per_buffer": 5_242_880, **more,
    }


def version_5_checkpoint(**more):
    """What a checkpoint of SAELens 5.11 holds: `LanguageModelSAERunnerConfig.to_dict`, written over the settings of the SAE."""
    old_names = {"hook_point", "hook_point_eval", "hook_point_layer", "hook_point_head_index"}
    return {key: value for key, value in version_2().items() if key not in old_names} | {
        "hook_name": "blocks.1.hook_resid_post", "hook_eval": "NOT_IN_USE", "hook_layer": 1, "hook_head_index": None,
        "dataset_trust_remote_code": True, "architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 6},
        "expansion_factor": None, "decoder_heuristic_init_norm": 0.1, "normalize_activations": "none", "seqpos_slice": [None],
        "act_store_device": "cpu", "jumprelu_init_threshold": 0.001, "jumprelu_bandwidth": 0.001, "autocast_lm": False,
        "model_from_pretrained_kwargs": {"center_writing_weights": False}, "sae_lens_version": "5.11.0",
        "sae_lens_training_version": "5.11.0", "exclude_special_tokens": [1, 2], **more,
    }


def version_3_0():
    """What `SAEConfig.to_dict` of SAELens 3.0 writes: no architecture, and a flag for the normalisation."""
    later = {"architecture", "activation_fn_kwargs", "dataset_trust_remote_code", "neuronpedia_id", "model_from_pretrained_kwargs"}
    written = old(normalize_activations=False, sae_lens_training_version="3.0.0")
    return {key: value for key, value in written.items() if key not in later}


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
    "saelens_2": version_2(),
    "saelens_2_finetuned": version_2(finetuning_method="scale"),
    "saelens_3_0": version_3_0(),
    "saelens_4_gated": old(architecture="gated", seqpos_slice=[None], sae_lens_training_version="4.4.5"),
    "saelens_5_checkpoint": version_5_checkpoint(),
}
SCALE = 0.375


def kind(cfg):
    by_rank = "topk" in (cfg.get("activation_fn_str"), cfg.get("activation_fn"))
    return "topk" if by_rank else cfg.get("architecture", "standard")


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
    if cfg.get("finetuning_scaling_factor") or cfg.get("finetuning_method"):
        w["scaling_factor"] = 1 + rand(D_SAE) * 0.2
    elif "hook_point" in cfg:
        w["scaling_factor"] = torch.ones(D_SAE)  # always present before version 3
    return {name: t.to(torch.bfloat16) if cfg["dtype"] == "bfloat16" else t for name, t in w.items()}


def targets(name, cfg, rows):
    head = cfg.get("hook_head_index")
    x = rows[:, head] if head is not None else rows.flatten(1)
    return x - x.mean(-1, keepdim=True) if name == "centred" else x


def normalise(cfg, x):
    """The rows that are encoded, and the inverse of their normalisation."""
    match cfg["normalize_activations"]:
        case "none" | False:
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
    """Activations and reconstruction, and the margin of each decision."""
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

    # SAELens 6 no longer has finetuning factors; 3.18 and 2.1 multiplied the activations with them in `decode`.
    if name in ("finetuned", "saelens_2_finetuned"):
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
