"""Taps transformers models at the hook points Residuum names.

Attention is computed here, from the queries, keys and mask that transformers hands to its attention functions, so that
scores and patterns can be seen; everything else comes from forward hooks on the model's modules.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

TAPS = {}  # hook name -> tensor of the forward pass that is running


def record(name, value):
    TAPS[name] = value.detach().float().squeeze(0).contiguous().clone()


def tapped_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, softcap=None, **kwargs):
    """Eager attention. query [1, heads, q, d_head], key and value [1, kv_heads, k, d_head], mask additive."""
    block = f"blocks.{module.layer_idx}.attn"
    record(f"{block}.hook_rot_q", query.transpose(1, 2))
    record(f"{block}.hook_rot_k", key.transpose(1, 2))
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        masked = attention_mask[..., : key.shape[2]] < -1e30
        scores = scores.masked_fill(masked, float("-inf"))
    record(f"{block}.hook_attn_scores", scores)
    pattern = torch.softmax(scores, -1)
    record(f"{block}.hook_pattern", pattern)
    z = (pattern @ value).transpose(1, 2).contiguous()
    record(f"{block}.hook_z", z)
    return z, pattern


AttentionInterface.register("tapped", tapped_attention)
AttentionMaskInterface.register("tapped", eager_mask)


def tap_output(module, name, shape=None):
    def hook(_, __, output):
        value = output[0] if isinstance(output, tuple) else output
        record(name, value.unflatten(-1, shape) if shape else value)

    module.register_forward_hook(hook)


def tap_input(module, name):
    def hook(_, args, kwargs):
        record(name, args[0] if args else kwargs["hidden_states"])

    module.register_forward_pre_hook(hook, with_kwargs=True)


def tap_norm(module, name):
    """The denominator and the normalised input, for RMS and layer norms."""

    def hook(_, args):
        x = args[0].double()
        eps = next(getattr(module, k) for k in ("variance_epsilon", "eps") if hasattr(module, k))
        if isinstance(module, torch.nn.LayerNorm) or "LayerNorm" in type(module).__name__:
            x = x - x.mean(-1, keepdim=True)
        scale = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        record(f"{name}.hook_scale", scale)
        record(f"{name}.hook_normalized", x / scale)

    module.register_forward_pre_hook(hook)


def tap_results(o_proj, block, n_heads):
    """Each head's share of the output projection, without its bias: [pos, head, d_model]."""

    def hook(module, args):
        weight = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        z = args[0].unflatten(-1, (n_heads, -1))
        w = weight.unflatten(-1, (n_heads, -1))  # [d_model, head, d_head]
        record(f"{block}.attn.hook_result", torch.einsum("bphe,dhe->bphd", z, w))

    o_proj.register_forward_pre_hook(hook)


def tap_llama(model):
    """Llama and its relatives: pre-norm blocks with separate projections."""
    base = getattr(model, "model", model)
    heads, kv = model.config.num_attention_heads, model.config.num_key_value_heads
    tap_output(base.embed_tokens, "hook_embed")
    for l, layer in enumerate(base.layers):
        b, attn, mlp = f"blocks.{l}", layer.self_attn, layer.mlp
        tap_input(layer, f"{b}.hook_resid_pre")
        tap_norm(layer.input_layernorm, f"{b}.ln1")
        tap_input(attn, f"{b}.attn.hook_in")
        tap_output(attn.q_proj, f"{b}.attn.hook_q", (heads, -1))
        tap_output(attn.k_proj, f"{b}.attn.hook_k", (kv, -1))
        tap_output(attn.v_proj, f"{b}.attn.hook_v", (kv, -1))
        tap_results(attn.o_proj, b, heads)
        for name in ("attn.hook_out", "hook_attn_out"):
            tap_output(attn, f"{b}.{name}")
        tap_input(layer.post_attention_layernorm, f"{b}.hook_resid_mid")
        tap_norm(layer.post_attention_layernorm, f"{b}.ln2")
        tap_input(mlp, f"{b}.mlp.hook_in")
        tap_output(mlp.gate_proj, f"{b}.mlp.hook_pre")
        tap_output(mlp.up_proj, f"{b}.mlp.hook_pre_linear")
        tap_input(mlp.down_proj, f"{b}.mlp.hook_post")
        for name in ("mlp.hook_out", "hook_mlp_out"):
            tap_output(mlp, f"{b}.{name}")
        tap_output(layer, f"{b}.hook_resid_post")
    tap_norm(base.norm, "ln_final")
    tap_output(base.norm, "final_norm")


def run(model, ids):
    """All taps of one forward pass over a list of token ids."""
    TAPS.clear()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), use_cache=False)
    if hasattr(output, "logits"):
        record("logits", output.logits)
    return dict(TAPS)
