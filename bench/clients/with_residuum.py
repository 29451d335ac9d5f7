"""The five jobs of `with_transformer_lens.py` with the Python client."""


def capture_and_fetch(client, model, texts, layer):
    """The residual stream after a block at the last token of each text: `[n, d_model]`."""
    return model.capture(texts, layers=layer).matrix(layer=layer)[0]


def probe(client, model, texts, labels, layer, folds=5):
    """Held-out accuracy of a logistic regression on the last token, by cross-validation."""
    run = model.capture({"text": texts, "positive": labels}, metadata="positive", layers=layer)
    target = {"metadata": "positive"}
    fitted = client.directions.fit("probe", "probe", caches=run, target=target, layers=layer, c=0.01, folds=folds)
    return float(fitted.metrics["accuracy"][0])


def lens_plot(client, model, text, token, path):
    """The probability of a token after every block, at every position, as a picture. Returns it: `[layer, pos]`."""
    _, cache = model.run_with_cache(text)
    lens = cache.logit_lens(tokens=token)
    lens.plot(token).figure.savefig(path)
    return lens.probability[:, :, 0]


def patching_sweep(client, model, clean, corrupt, answer, against, layers):
    """Clean `resid_pre` into the corrupt run, one layer and position at a time: `[layer, pos]`; 0: corrupt, 1: clean."""
    sweep = {"positions": "each", "layers": layers}
    return model.patching(clean, corrupt, answer=answer, against=against, sweep=sweep).normalized


def bulk_export(client, model, texts, layers, path):
    """Every token of every text at some layers, in one file: per layer `[rows, d_model]`, and where each text is."""
    model.capture(texts, layers=layers, positions="all", tags=["export"]).wait()
    client.export(path, layers=layers, tag="export")
