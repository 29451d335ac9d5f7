#!/usr/bin/env python3
"""A probe on 2,000 sentences, and the direction it finds used to steer what the model writes.

    pip install './clients/python[plot]'
    python examples/python/sentiment.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf --out plots

1. 2,000 sentences from templates, half of them positive; always the same ones.
2. Capture the residual stream at the last token of each, after every block. Run the script again on the same server
   (`--url`) and nothing is computed again.
3. Train on 1,600, test on the other 400: a difference of means and a logistic regression, at every layer. The words that
   carry the sentiment differ between training and test, so the probe has to find the sentiment and not the words.
4. Add the direction while the model continues a neutral text, and watch the mood of what it writes.
"""

import argparse
import random
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import residuum as rs

POSITIVE = """wonderful delightful lovely excellent brilliant charming superb fantastic great amazing perfect enjoyable
    impressive beautiful""".split()
NEGATIVE = """terrible dreadful horrible awful boring disgusting disappointing tedious bad miserable poor annoying dull
    ugly""".split()
THINGS = "film book meal concert hotel lecture game trip painting play garden museum speech song novel show".split()
TEMPLATES = [
    "I thought the {thing} was {word}.",
    "The {thing} that we saw on {day} was {word}.",
    "Everybody told me that the {thing} would be {word}, and it was.",
    "It was a {word} {thing}, and I will not forget it.",
    "On {day} my {person} showed me a {word} {thing}.",
    "My {person} called the {thing} {word}, and I agree.",
]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PEOPLE = "brother sister neighbour teacher friend mother".split()
PROMPTS = [
    "When I opened the letter, I felt",
    "The food at the new restaurant is",
    "My opinion of the film is that it was",
]
STRENGTHS = [-3, -2, -1, 0, 1, 2, 3]
N, N_TEST_WORDS = 2000, 4


def sentences():
    """Text, whether it is positive, and whether it is for the test. Words of the test are in no text of the training."""
    rng = random.Random(0)
    rows = {}
    for test, count in ((False, N * 4 // 5), (True, N // 5)):
        for positive in (False, True):
            words = POSITIVE if positive else NEGATIVE
            words = words[:N_TEST_WORDS] if test else words[N_TEST_WORDS:]
            chosen = set()
            while len(chosen) < count // 2:
                blanks = {"thing": THINGS, "word": words, "day": DAYS, "person": PEOPLE}
                chosen.add(
                    rng.choice(TEMPLATES).format(**{name: rng.choice(values) for name, values in blanks.items()})
                )
            rows |= {text: (positive, test) for text in sorted(chosen)}
    texts = sorted(rows)
    rng.shuffle(texts)
    return [{"text": t, "positive": rows[t][0], "test": rows[t][1]} for t in texts]


def capture(model, rows):
    """All layers at the last token: `X[layer]` is `[2000, d_model]`."""
    run = model.capture(rows, label="positive", metadata=["positive", "test"], tags=["sentiment"])
    run.wait()
    print(f"{run.n_done} sentences captured, {run.n_reused} of them were stored already.")
    return run


def auroc(scores, positive):
    """Probability that a positive row is further along than a negative one; ties count a half."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    n, m = positive.sum(), (~positive).sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * m)


def logistic_regression(x, y, penalty=1.0, steps=60):
    """Weights and intercept, on standardised columns, by Newton's method."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    z = np.hstack([(x - mean) / std, np.ones((len(x), 1))])
    w, ridge = np.zeros(z.shape[1]), np.append(np.full(x.shape[1], penalty), 0)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(z @ w, -30, 30)))
        step = np.linalg.solve((z * (p * (1 - p))[:, None]).T @ z + np.diag(ridge + 1e-9), z.T @ (p - y) + ridge * w)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    weights = w[:-1] / std
    return weights, w[-1] - mean @ weights


def probe(run, rows, layers):
    """Accuracy on the test sentences at each layer, of both methods, and the AUROC of the difference of means."""
    test = np.array([r["test"] for r in rows])
    results = {"difference of means": [], "logistic regression": [], "AUROC, difference of means": []}
    for layer in layers:
        x, y = run.matrix(layer=layer)
        x, y = x.astype(np.float64), y.astype(bool)
        train, held_out = ~test, test
        means = [x[train & (y == label)].mean(0) for label in (True, False)]
        direction = means[0] - means[1]
        threshold = (means[0] + means[1]) @ direction / 2
        results["difference of means"].append(((x[held_out] @ direction > threshold) == y[held_out]).mean())
        results["AUROC, difference of means"].append(auroc(x[held_out] @ direction, y[held_out]))
        weights, intercept = logistic_regression(x[train], y[train])
        results["logistic regression"].append(((x[held_out] @ weights + intercept > 0) == y[held_out]).mean())
    return {name: np.array(values) for name, values in results.items()}


def mood(model, direction):
    """How much likelier positive words become than negative ones as the next word, for each strength: `[strength]`."""
    ids = [[model.tokenize(" " + word).token_ids for word in words[:N_TEST_WORDS]] for words in (POSITIVE, NEGATIVE)]
    positive, negative = ([int(i[0]) for i in words] for words in ids)
    _, caches = model.steer(direction, strength=STRENGTHS).run_with_cache(PROMPTS[-1], layers=-1, positions="last")
    logits = np.array([cache.logits for cache in caches])
    return logits[:, positive].mean(1) - logits[:, negative].mean(1)


def plot(layers, results, moods, layer, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=[3, 2])
    for name, style in (
        ("logistic regression", "-o"),
        ("difference of means", "-o"),
        ("AUROC, difference of means", "--"),
    ):
        left.plot(layers, results[name], style, markersize=3, label=name)
    left.axhline(0.5, color="grey", linewidth=0.6)
    left.set(xlabel="layer", ylabel="on 400 held-out sentences", ylim=(0.4, 1.02))
    left.set_title("Sentiment at the last token, on words not seen in training", fontsize=10)
    left.legend(frameon=False, loc="lower right", fontsize=8)
    right.plot(STRENGTHS, moods, "-o", markersize=4)
    right.axhline(0, color="grey", linewidth=0.6)
    right.set(xlabel="strength", ylabel="positive less negative words, logits")
    right.set_title(f"Steering at layer {layer}: the next word", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=75)


def fit(client, model, layer):
    """The difference of means of the training sentences, made by the server."""
    train = {"tags": ["sentiment"], "model": model.id}
    return client.directions.fit(
        "sentiment",
        positive={**train, "metadata": {"positive": True, "test": False}},
        negative={**train, "metadata": {"positive": False, "test": False}},
        layers=layer,
        replace=True,
    )


def steer(model, direction):
    """Continuations with the direction added, for several strengths in one run."""
    print(f"\nSteering along {direction}:")
    curves = model.steer(direction, strength=[-2, 0, 2]).generate(PROMPTS, max_new_tokens=14, hooks=[])
    for prompt, curve in zip(PROMPTS, curves):
        print(f"  {prompt} …")
        for found in curve:
            print(f"    {found.strengths[0]:+.0f}  {' '.join(found.text.split())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf", help="a GGUF file or a folder")
    parser.add_argument("--url", help="a running server, instead of one of its own; it serves one model")
    parser.add_argument("--out", type=Path, default=Path("plots"))
    args = parser.parse_args()
    matplotlib.use("Agg")
    args.out.mkdir(parents=True, exist_ok=True)
    with rs.Client(args.url) if args.url else rs.serve({"smollm2": args.model}) as client:
        model = client.model()
        rows = sentences()
        run = capture(model, rows)
        layers = list(range(model.n_layers))
        results = probe(run, rows, layers)
        for layer in layers[::4] + layers[-1:]:
            print(f"  layer {layer:2}: " + ", ".join(f"{name} {values[layer]:.3f}" for name, values in results.items()))
        # In the middle third the direction is there already, and layers that act on it are still to come.
        middle = layers[len(layers) // 3 : 2 * len(layers) // 3]
        layer = max(middle, key=lambda layer: results["difference of means"][layer])
        direction = fit(client, model, layer)
        steer(model, direction)
        moods = mood(model, direction)
        print("\nPositive less negative words as the next one, in logits:")
        print("  " + ", ".join(f"{strength:+}: {value:+.2f}" for strength, value in zip(STRENGTHS, moods)))
        plot(layers, results, moods, layer, args.out / "sentiment.png")
    print(f"\nThe plot is in {args.out}.")


if __name__ == "__main__":
    main()
