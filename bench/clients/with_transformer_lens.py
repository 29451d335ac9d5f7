"""Five jobs in TransformerLens, written as its documentation writes them. `lines.py` counts the lines of each function."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression


def capture_and_fetch(model, texts, layer):
    """The residual stream after a block at the last token of each text: `[n, d_model]`."""
    name = f"blocks.{layer}.hook_resid_post"
    rows = []
    for text in texts:
        with torch.inference_mode():
            _, cache = model.run_with_cache(text, names_filter=name, prepend_bos=False)
        rows.append(cache[name][0, -1].numpy())
    return np.stack(rows)


def probe(model, texts, labels, layer, folds=5):
    """Held-out accuracy of a logistic regression on the last token, by cross-validation."""
    name = f"blocks.{layer}.hook_resid_post"
    rows = []
    for text in texts:
        with torch.inference_mode():
            _, cache = model.run_with_cache(text, names_filter=name, prepend_bos=False)
        rows.append(cache[name][0, -1].numpy())
    x, y = np.stack(rows), np.array(labels)
    fold = np.random.default_rng(0).permutation(len(y)) % folds
    scores = []
    for k in range(folds):
        mean, std = x[fold != k].mean(0), x[fold != k].std(0)
        fitted = LogisticRegression(C=0.01, max_iter=1000).fit((x[fold != k] - mean) / std, y[fold != k])
        scores.append(fitted.score((x[fold == k] - mean) / std, y[fold == k]))
    return float(np.mean(scores))


def lens_plot(model, text, token, path):
    """The probability of a token after every block, at every position, as a picture. Returns it: `[layer, pos]`."""
    import matplotlib.pyplot as plt

    with torch.inference_mode():
        _, cache = model.run_with_cache(
            text, names_filter=lambda name: name.endswith("hook_resid_post"), prepend_bos=False
        )
        stack = torch.stack([cache[f"blocks.{layer}.hook_resid_post"][0] for layer in range(model.cfg.n_layers)])
        logits = torch.stack([model.unembed(model.ln_final(layer[None]))[0] for layer in stack])
        probabilities = logits.softmax(-1)[..., model.to_single_token(token)].numpy()
    tokens = model.to_str_tokens(text, prepend_bos=False)
    figure, axes = plt.subplots()
    image = axes.imshow(probabilities, origin="lower", aspect="auto", vmin=0, vmax=1)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90)
    axes.set_ylabel("layer")
    figure.colorbar(image, label=f"probability of {token!r}")
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return probabilities


def patching_sweep(model, clean, corrupt, answer, against, layers):
    """Clean `resid_pre` into the corrupt run, one layer and position at a time: `[layer, pos]`; 0: corrupt, 1: clean."""
    answer, against = model.to_single_token(answer), model.to_single_token(against)
    clean_tokens, corrupt_tokens = (
        model.to_tokens(clean, prepend_bos=False),
        model.to_tokens(corrupt, prepend_bos=False),
    )

    def difference(logits):
        return (logits[0, -1, answer] - logits[0, -1, against]).item()

    with torch.inference_mode():
        clean_logits, cache = model.run_with_cache(
            clean_tokens, names_filter=lambda name: name.endswith("hook_resid_pre")
        )
        corrupt_logits = model(corrupt_tokens)
        result = np.zeros((len(layers), clean_tokens.shape[1]))
        for i, layer in enumerate(layers):
            name = f"blocks.{layer}.hook_resid_pre"
            for position in range(clean_tokens.shape[1]):

                def patch(value, hook, name=name, position=position):
                    value[:, position] = cache[name][:, position]
                    return value

                result[i, position] = difference(model.run_with_hooks(corrupt_tokens, fwd_hooks=[(name, patch)]))
    low, high = difference(corrupt_logits), difference(clean_logits)
    return (result - low) / (high - low)


def bulk_export(model, texts, layers, path):
    """Every token of every text at some layers, in one file: per layer `[rows, d_model]`, and where each text is."""
    from safetensors.numpy import save_file

    names = {layer: f"blocks.{layer}.hook_resid_post" for layer in layers}
    rows, offsets = {layer: [] for layer in layers}, [0]
    for text in texts:
        with torch.inference_mode():
            _, cache = model.run_with_cache(text, names_filter=list(names.values()), prepend_bos=False)
        for layer in layers:
            rows[layer].append(cache[names[layer]][0].numpy())
        offsets.append(offsets[-1] + len(rows[layers[0]][-1]))
    tensors = {names[layer]: np.concatenate(rows[layer]) for layer in layers}
    save_file(tensors | {"offsets": np.array(offsets)}, path)
