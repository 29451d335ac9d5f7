"""Records activations of transformers models at the hook points that Residuum names.

Attention is computed here, from the queries, keys and mask that transformers passes to its attention functions, so that
scores and patterns can be recorded; everything else comes from forward hooks on the model's modules.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

TAPS = {}  # hook name -> tensor of the forward pass that is running


def record(name, value):
    TAPS[name] = value.detach().float().squeeze(0).contiguous().clone()


INSIDE = []  # prefix and key/value heads of the running attention module, for families that compute attention themselves
SOFTMAX = torch.nn.functional.softmax
SDPA = torch.nn.functional.scaled_dot_product_attention


def tapped_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, softcap=None, **kwargs):
    """Eager attention. query [1, heads, q, d_head], key and value [1, kv_heads, k, d_head], mask additive."""
    block = f"blocks.{module.layer_idx}.attn"
    # OPT scales its queries beforehand.
    record(f"{block}.hook_rot_q", query.transpose(1, 2) / getattr(module, "scaled_before", 1.0))
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


def tapped_softmax(scores, *args, **kwargs):
    """In an attention module, the input of softmax is the scores."""
    pattern = SOFTMAX(scores, *args, **kwargs)
    if INSIDE:
        prefix, _ = INSIDE[-1]
        record(f"{prefix}.hook_attn_scores", scores.masked_fill(scores < -1e30, float("-inf")))
        record(f"{prefix}.hook_pattern", pattern)
    return pattern


def tapped_sdpa(query, key, value, attn_mask=None, **kwargs):
    if INSIDE and attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros(attn_mask.shape).masked_fill(~attn_mask, float("-inf"))
        prefix, kv = INSIDE[-1]
        record(f"{prefix}.hook_rot_q", query.transpose(1, 2))
        # Falcon repeats shared keys before it rotates them.
        record(f"{prefix}.hook_rot_k", key[:, :: key.shape[1] // kv].transpose(1, 2))
        tapped_softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + attn_mask, -1)
    return SDPA(query, key, value, attn_mask=attn_mask, **kwargs)


torch.nn.functional.softmax = tapped_softmax
torch.nn.functional.scaled_dot_product_attention = tapped_sdpa


def tap_own_attention(attn, block, o_proj, heads, kv):
    """Scores, patterns and z of an attention module that does not go through transformers' attention functions."""
    prefix = f"{block}.attn"
    attn.register_forward_pre_hook(lambda *_: INSIDE.append((prefix, kv)))
    attn.register_forward_hook(lambda *_: INSIDE.clear())
    o_proj.register_forward_pre_hook(lambda _, args: record(f"{prefix}.hook_z", args[0].unflatten(-1, (heads, -1))))


def tap_rotated(attn, block):
    """Queries and keys after the rotary positions of an attention module with a method `_attn(query, key, ..)`."""
    inner = attn._attn

    def tapped(query, key, *args):
        record(f"{block}.attn.hook_rot_q", query.transpose(1, 2))
        record(f"{block}.attn.hook_rot_k", key.transpose(1, 2))
        return inner(query, key, *args)

    attn._attn = tapped


def tap_output(module, name, shape=None, factor=1.0):
    def hook(_, __, output):
        value = output[0] if isinstance(output, tuple) else output
        record(name, value.unflatten(-1, shape) if shape else value * factor)

    module.register_forward_hook(hook)


def tap_input(module, name):
    def hook(_, args, kwargs):
        record(name, args[0] if args else kwargs["hidden_states"])

    module.register_forward_pre_hook(hook, with_kwargs=True)


def tap_norm(module, name):
    """The denominator and the normalised input, for RMS and layer norms."""

    def hook(_, args):
        x = args[0].double()
        eps = next((getattr(module, k) for k in ("variance_epsilon", "eps") if hasattr(module, k)), 1e-5)
        if isinstance(module, torch.nn.LayerNorm) or "LayerNorm" in type(module).__name__:
            x = x - x.mean(-1, keepdim=True)
        scale = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        record(f"{name}.hook_scale", scale)
        record(f"{name}.hook_normalized", x / scale)

    module.register_forward_pre_hook(hook)


def tap_results(o_proj, block, n_heads):
    """Each head's contribution to the output projection, without its bias: [pos, head, d_model]."""

    def hook(module, args):
        weight = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        z = args[0].unflatten(-1, (n_heads, -1))
        w = weight.unflatten(-1, (n_heads, -1))  # [d_model, head, d_head]
        record(f"{block}.attn.hook_result", torch.einsum("bphe,dhe->bphd", z, w))

    o_proj.register_forward_pre_hook(hook)


def tap_parts(module, parts):
    """Taps of slices of a fused projection: {name: function of the output}."""

    def hook(_, __, output):
        for name, part in parts.items():
            record(name, part(output))

    module.register_forward_hook(hook)


def tap_sublayers(b, layer, attn, mlp, norms, multiplier=1.0, outputs=None):
    """What every block has. norms: the modules by their names ln1, ln1_post, ln2, ln2_post, as far as they exist. outputs: the
    modules whose outputs are those of attention and MLP, if these modules do not return them themselves."""
    attn_out, mlp_out = outputs or (attn, mlp)
    tap_input(layer, f"{b}.hook_resid_pre")
    for name, norm in norms.items():
        tap_norm(norm, f"{b}.{name}")
    tap_input(attn, f"{b}.attn.hook_in")
    tap_output(attn_out, f"{b}.attn.hook_out")
    tap_output(norms.get("ln1_post", attn_out), f"{b}.hook_attn_out", factor=multiplier)
    tap_input(mlp, f"{b}.mlp.hook_in")
    tap_output(mlp_out, f"{b}.mlp.hook_out")
    tap_output(norms.get("ln2_post", mlp_out), f"{b}.hook_mlp_out", factor=multiplier)
    tap_output(layer, f"{b}.hook_resid_post")


def tap_head(norm):
    tap_norm(norm, "ln_final")
    tap_output(norm, "final_norm")


def first(module, *names):
    return next(getattr(module, name) for name in names if hasattr(module, name))


def llama_norms(layer):
    """The norms of a block of Llama, Gemma 2 and 3, or OLMo 2, distinguished by which of them exist."""
    if hasattr(layer, "pre_feedforward_layernorm"):
        names = {"ln1": "input_layernorm", "ln1_post": "post_attention_layernorm"}
        names |= {"ln2": "pre_feedforward_layernorm", "ln2_post": "post_feedforward_layernorm"}
    elif hasattr(layer, "input_layernorm"):
        names = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
    else:
        names = {"ln1_post": "post_attention_layernorm", "ln2_post": "post_feedforward_layernorm"}
    return {name: norm for name, attribute in names.items() if (norm := getattr(layer, attribute, None)) is not None}


def tap_llama(model):
    """Llama and its relatives, also as the text part of a multimodal model."""
    base = getattr(model, "model", model)
    base = getattr(base, "language_model", base)
    heads, kv = base.config.num_attention_heads, base.config.num_key_value_heads
    tap_input(base.layers[0], "hook_embed")
    for l, layer in enumerate(base.layers):
        b, attn, mlp, norms = f"blocks.{l}", layer.self_attn, layer.mlp, llama_norms(layer)
        tap_sublayers(b, layer, attn, mlp, norms, getattr(base.config, "residual_multiplier", 1.0))
        if "ln2" in norms or "ln2_post" in norms:  # else parallel
            tap_input(norms.get("ln2", mlp), f"{b}.hook_resid_mid")
        tap_results(first(attn, "o_proj", "dense"), b, heads)
        sparse = hasattr(mlp, "experts")
        if sparse:
            tap_experts(model, mlp, b)
        else:
            tap_input(first(mlp, "down_proj", "c_proj", "fc2"), f"{b}.mlp.hook_post")
        if hasattr(attn, "qkv_proj"):
            tap_phi3(attn, mlp, b, heads, kv)
            continue
        tap_output(attn.q_proj, f"{b}.attn.hook_q", (heads, -1))
        tap_output(attn.k_proj, f"{b}.attn.hook_k", (kv, -1))
        tap_output(attn.v_proj, f"{b}.attn.hook_v", (kv, -1))
        if sparse:
            continue
        tap_output(first(mlp, "gate_proj", "c_fc", "fc1"), f"{b}.mlp.hook_pre")
        if hasattr(mlp, "up_proj"):
            tap_output(mlp.up_proj, f"{b}.mlp.hook_pre_linear")
    tap_head(first(base, "norm", "final_layernorm"))


def tap_experts(model, mlp, b):
    """Routing. With a near-tie the reference would depend on rounding: a program that computes the router's logits in another
    order may choose the other expert, and everything after it differs."""
    model.set_experts_implementation("eager")

    def hook(_, __, output):
        logits, weights, indices = output
        best = logits.sort(descending=True).values[..., : indices.shape[-1] + 1]
        gap = (best[..., :-1] - best[..., 1:]).min().item()
        assert gap > 1e-4, f"{b}: a near-tie, {gap:.1e}; choose other weights"
        record(f"{b}.mlp.hook_router_logits", logits)
        record(f"{b}.mlp.hook_expert_weights", weights)
        record(f"{b}.mlp.hook_expert_indices", indices)

    mlp.gate.register_forward_hook(hook)


def tap_phi3(attn, mlp, b, heads, kv):
    rows = torch.arange(heads + 2 * kv)
    q, k, v = rows[:heads], rows[heads : heads + kv], rows[heads + kv :]
    tap_parts(
        attn.qkv_proj,
        {
            f"{b}.attn.hook_{name}": lambda out, part=part: out.unflatten(-1, (len(rows), -1))[..., part, :]
            for name, part in {"q": q, "k": k, "v": v}.items()
        },
    )
    halves = {f"{b}.mlp.hook_pre": 0, f"{b}.mlp.hook_pre_linear": 1}
    tap_parts(mlp.gate_up_proj, {n: lambda out, i=i: out.chunk(2, -1)[i] for n, i in halves.items()})


def tap_gpt2(model):
    base = getattr(model, "transformer", model)
    heads = model.config.n_head
    tap_output(base.wte, "hook_embed")
    tap_output(base.wpe, "hook_pos_embed")
    for l, block in enumerate(base.h):
        b = f"blocks.{l}"
        tap_sublayers(b, block, block.attn, block.mlp, {"ln1": block.ln_1, "ln2": block.ln_2})
        tap_input(block.ln_2, f"{b}.hook_resid_mid")
        thirds = {f"{b}.attn.hook_{n}": i for i, n in enumerate("qkv")}
        parts = {n: lambda out, i=i: out.chunk(3, -1)[i].unflatten(-1, (heads, -1)) for n, i in thirds.items()}
        tap_parts(block.attn.c_attn, parts)
        tap_results(block.attn.c_proj, b, heads)
        tap_output(block.mlp.c_fc, f"{b}.mlp.hook_pre")
        tap_input(block.mlp.c_proj, f"{b}.mlp.hook_post")
    tap_head(base.ln_f)


def tap_gpt_neox(model):
    base = model.gpt_neox
    heads = model.config.num_attention_heads
    tap_output(base.embed_in, "hook_embed")
    for l, layer in enumerate(base.layers):
        b, attn, mlp = f"blocks.{l}", layer.attention, layer.mlp
        norms = {"ln1": layer.input_layernorm, "ln2": layer.post_attention_layernorm}
        tap_sublayers(b, layer, attn, mlp, norms)
        if not model.config.use_parallel_residual:
            tap_input(layer.post_attention_layernorm, f"{b}.hook_resid_mid")
        thirds = {f"{b}.attn.hook_{n}": i for i, n in enumerate("qkv")}
        parts = {n: lambda out, i=i: out.unflatten(-1, (heads, -1)).chunk(3, -1)[i] for n, i in thirds.items()}
        tap_parts(attn.query_key_value, parts)
        tap_results(attn.dense, b, heads)
        tap_output(mlp.dense_h_to_4h, f"{b}.mlp.hook_pre")
        tap_input(mlp.dense_4h_to_h, f"{b}.mlp.hook_post")
    tap_head(base.final_layer_norm)


def tap_post_norm(b, heads, layer, attn, qkv, o_proj, ln1, up, down, ln2):
    """A block whose norms follow the sums; attn is the module that receives the residual stream."""
    tap_input(layer, f"{b}.hook_resid_pre")
    tap_input(attn, f"{b}.attn.hook_in")
    for name, projection in zip("qkv", qkv):
        tap_output(projection, f"{b}.attn.hook_{name}", (heads, -1))
    tap_results(o_proj, b, heads)
    tap_output(o_proj, f"{b}.attn.hook_out")
    tap_output(o_proj, f"{b}.hook_attn_out")
    tap_input(ln1, f"{b}.hook_resid_mid")
    tap_norm(ln1, f"{b}.ln1")
    tap_input(up, f"{b}.mlp.hook_in")
    tap_output(up, f"{b}.mlp.hook_pre")
    tap_input(down, f"{b}.mlp.hook_post")
    tap_output(down, f"{b}.mlp.hook_out")
    tap_output(down, f"{b}.hook_mlp_out")
    tap_norm(ln2, f"{b}.ln2")
    tap_output(layer, f"{b}.hook_resid_post")


def tap_embeddings(embeddings):
    """What BERT and its relatives put before the first block."""
    tap_output(embeddings.word_embeddings, "hook_embed")
    tap_output(embeddings.position_embeddings, "hook_pos_embed")
    if hasattr(embeddings, "token_type_embeddings"):
        tap_output(embeddings.token_type_embeddings, "hook_type_embed")
    tap_output(embeddings.LayerNorm, "embed_ln.hook_out")


def tap_bert(model):
    """BERT and RoBERTa."""
    base = model.base_model
    heads = model.config.num_attention_heads
    tap_embeddings(base.embeddings)
    for l, layer in enumerate(base.encoder.layer):
        attn, out = layer.attention.self, layer.attention.output
        qkv, mlp = (attn.query, attn.key, attn.value), (layer.intermediate.dense, layer.output.dense)
        tap_post_norm(f"blocks.{l}", heads, layer, attn, qkv, out.dense, out.LayerNorm, *mlp, layer.output.LayerNorm)


def tap_distilbert(model):
    base = model.base_model
    tap_embeddings(base.embeddings)
    for l, layer in enumerate(base.transformer.layer):
        attn, ffn = layer.attention, layer.ffn
        attn.layer_idx = l  # which tapped_attention asks for
        qkv = (attn.q_lin, attn.k_lin, attn.v_lin)
        norms = layer.sa_layer_norm, layer.output_layer_norm
        tap_post_norm(
            f"blocks.{l}", model.config.n_heads, layer, attn, qkv, attn.out_lin, norms[0], ffn.lin1, ffn.lin2, norms[1]
        )


def tap_modernbert(model):
    base = model.base_model
    heads = model.config.num_attention_heads
    tap_output(base.embeddings.tok_embeddings, "hook_embed")
    tap_output(base.embeddings.norm, "embed_ln.hook_out")
    for l, layer in enumerate(base.layers):
        b = f"blocks.{l}"
        norms = {"ln2": layer.mlp_norm} if l == 0 else {"ln1": layer.attn_norm, "ln2": layer.mlp_norm}
        tap_sublayers(b, layer, layer.attn, layer.mlp, norms)
        tap_input(layer.mlp_norm, f"{b}.hook_resid_mid")
        thirds = {f"{b}.attn.hook_{n}": i for i, n in enumerate("qkv")}
        parts = {n: lambda out, i=i: out.chunk(3, -1)[i].unflatten(-1, (heads, -1)) for n, i in thirds.items()}
        tap_parts(layer.attn.Wqkv, parts)
        tap_results(layer.attn.Wo, b, heads)
        halves = {f"{b}.mlp.hook_pre": 0, f"{b}.mlp.hook_pre_linear": 1}
        tap_parts(layer.mlp.Wi, {n: lambda out, i=i: out.chunk(2, -1)[i] for n, i in halves.items()})
        tap_input(layer.mlp.Wo, f"{b}.mlp.hook_post")
    tap_head(base.final_norm)


def tap_projections(attn, b, heads):
    for name in "qkv":
        tap_output(getattr(attn, f"{name}_proj"), f"{b}.attn.hook_{name}", (heads, -1))


def tap_gpt_neo(model):
    """GPT-Neo and GPT-J."""
    base = model.transformer
    heads = model.config.num_attention_heads
    tap_output(base.wte, "hook_embed")
    if hasattr(base, "wpe"):
        tap_output(base.wpe, "hook_pos_embed")
    for l, block in enumerate(base.h):
        b, attn, mlp = f"blocks.{l}", getattr(block.attn, "attention", block.attn), block.mlp
        norms = {"ln1": block.ln_1} | ({"ln2": block.ln_2} if hasattr(block, "ln_2") else {})
        tap_sublayers(b, block, block.attn, mlp, norms)
        if "ln2" in norms:  # else parallel
            tap_input(block.ln_2, f"{b}.hook_resid_mid")
        tap_projections(attn, b, heads)
        tap_rotated(attn, b)
        tap_own_attention(attn, b, attn.out_proj, heads, heads)
        tap_results(attn.out_proj, b, heads)
        tap_output(first(mlp, "c_fc", "fc_in"), f"{b}.mlp.hook_pre")
        tap_input(first(mlp, "c_proj", "fc_out"), f"{b}.mlp.hook_post")
    tap_head(base.ln_f)


def tap_opt(model):
    base = model.model.decoder
    heads = model.config.num_attention_heads
    tap_output(base.project_in or base.embed_tokens, "hook_embed")
    tap_output(base.embed_positions, "hook_pos_embed")
    for l, layer in enumerate(base.layers):
        b, attn = f"blocks.{l}", layer.self_attn
        attn.scaled_before = attn.scaling
        norms = {"ln1": layer.self_attn_layer_norm, "ln2": layer.final_layer_norm}
        tap_sublayers(b, layer, attn, layer.fc1, norms, outputs=(attn, layer.fc2))
        tap_input(norms["ln2" if layer.do_layer_norm_before else "ln1"], f"{b}.hook_resid_mid")
        tap_projections(attn, b, heads)
        tap_results(attn.out_proj, b, heads)
        tap_output(layer.fc1, f"{b}.mlp.hook_pre")
        tap_input(layer.fc2, f"{b}.mlp.hook_post")
    if base.final_layer_norm is not None:
        tap_head(base.final_layer_norm)


def tap_fused(attn, b, heads, kv, rotated):
    """Query, key and value of a fused projection: for each key/value head its queries, the key, the value. If nothing
    else records rotated ones, there are no rotary positions, and both are the same."""
    group = heads // kv
    places = {"q": slice(0, group), "k": slice(group, group + 1), "v": slice(group + 1, None)}
    names = {f"hook_{n}": place for n, place in places.items()}
    if not rotated:
        names |= {f"hook_rot_{n}": places[n] for n in "qk"}
    part = lambda out, place: out.unflatten(-1, (kv, group + 2, -1))[..., place, :].flatten(-3, -2)
    parts = {f"{b}.attn.{n}": lambda out, place=place: part(out, place) for n, place in names.items()}
    tap_parts(attn.query_key_value, parts)


def tap_bloom(model):
    """Bloom and Falcon. Bloom's attention and MLP modules add the residual stream to their result; what is added to it is the
    output of the last projection of each."""
    base, config = model.transformer, model.config
    falcon = config.model_type == "falcon"
    heads = config.num_attention_heads
    tap_output(base.word_embeddings, "hook_embed")
    if not falcon:
        tap_output(base.word_embeddings_layernorm, "embed_ln.hook_out")
    for l, layer in enumerate(base.h):
        b, attn, mlp = f"blocks.{l}", layer.self_attention, layer.mlp
        names = {"ln1": ("input_layernorm", "ln_attn"), "ln2": ("post_attention_layernorm", "ln_mlp")}
        norms = {n: first(layer, *of) for n, of in names.items() if any(hasattr(layer, name) for name in of)}
        tap_sublayers(b, layer, attn, mlp, norms, outputs=(attn.dense, mlp.dense_4h_to_h))
        if hasattr(layer, "post_attention_layernorm"):  # else parallel
            tap_input(layer.post_attention_layernorm, f"{b}.hook_resid_mid")
        kv = attn.num_kv_heads if falcon else heads
        tap_fused(attn, b, heads, kv, rotated=falcon)
        tap_own_attention(attn, b, attn.dense, heads, kv)
        tap_results(attn.dense, b, heads)
        tap_output(mlp.dense_h_to_4h, f"{b}.mlp.hook_pre")
        tap_input(mlp.dense_4h_to_h, f"{b}.mlp.hook_post")
    tap_head(base.ln_f)


def run(model, ids):
    """All taps of one forward pass over a list of token ids."""
    TAPS.clear()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), use_cache=False)
    if hasattr(output, "logits"):
        record("logits", output.logits)
    return dict(TAPS)
