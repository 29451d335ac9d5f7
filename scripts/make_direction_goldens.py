"""Writes tests/goldens_analysis/directions.json: directions that numpy and scikit-learn fit to small seeded data.

    python scripts/make_direction_goldens.py

Needs numpy and scikit-learn. The rule for folds is Residuum's own (crates/analysis/src/folds.rs), written here a second time.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MASK = (1 << 64) - 1


class SplitMix64:
    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = ((self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.next() % (i + 1)
            items[i], items[j] = items[j], items[i]


def stratified(labels, k, seed):
    random, folds, dealt = SplitMix64(seed), [0] * len(labels), 0
    for wanted in (True, False):
        members = [i for i, label in enumerate(labels) if label == wanted]
        random.shuffle(members)
        for i in members:
            folds[i] = dealt % k
            dealt += 1
    return np.array(folds)


def pipeline(c):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-12, max_iter=100_000, solver="lbfgs"))


def cross_validate(x, y, c, k, seed):
    folds, accuracy, auroc = stratified(y.tolist(), k, seed), [], []
    for fold in range(k):
        train, test = folds != fold, folds == fold
        model = pipeline(c).fit(x[train], y[train])
        accuracy.append(accuracy_score(y[test], model.predict(x[test])))
        auroc.append(roc_auc_score(y[test], model.decision_function(x[test])) if len(set(y[test])) == 2 else None)
    return accuracy, auroc


def probe(x, y, c, k, seed):
    model = pipeline(c).fit(x, y)
    scaler, regression = model[0], model[1]
    accuracy, auroc = cross_validate(x, y, c, k, seed)
    shuffled = y.tolist()
    SplitMix64(seed + 1).shuffle(shuffled)
    base_accuracy, base_auroc = cross_validate(x, np.array(shuffled), c, k, seed + 1)
    weights = regression.coef_[0] / scaler.scale_
    return {
        "c": c, "folds": k, "seed": seed, "weights": weights.tolist(),
        "intercept": float(regression.intercept_[0] - weights @ scaler.mean_),
        "probabilities": model.predict_proba(x)[:, 1].tolist(),
        "fold_accuracy": accuracy, "fold_auroc": auroc,
        "shuffled_accuracy": float(np.mean(base_accuracy)), "shuffled_auroc": float(np.mean(base_auroc)),
    }


def separation(x, y):
    direction = x[y].mean(0) - x[~y].mean(0)
    s = x @ direction
    n1, n0 = y.sum(), (~y).sum()
    pooled = np.sqrt(((n1 - 1) * s[y].var(ddof=1) + (n0 - 1) * s[~y].var(ddof=1)) / (n1 + n0 - 2))
    return {
        "direction": direction.tolist(), "cohens_d": float((s[y].mean() - s[~y].mean()) / pooled),
        "auroc": float(roc_auc_score(y, s)),
    }


def components(x, k):
    fitted = PCA(n_components=k, svd_solver="full").fit(x)
    return {
        "k": k, "components": fitted.components_.tolist(), "explained_variance": fitted.explained_variance_.tolist(),
        "explained_variance_ratio": fitted.explained_variance_ratio_.tolist(),
    }


def case(name, seed, n, d, signal, cs):
    random = np.random.default_rng(seed)
    # correlated features of very different sizes and means, as in a residual stream
    mixing = random.normal(size=(d, d)) / np.sqrt(d) * np.exp(random.normal(size=d))
    y = random.random(n) < 0.4
    x = (random.normal(size=(n, d)) @ mixing + 3 * random.normal(size=d) + signal * np.outer(y, random.normal(size=d)))
    x = np.round(x, 3).astype(np.float32)
    wide = x.astype(np.float64)
    return {
        "name": name, "vectors": [[float(f"{v:.3f}") for v in row] for row in x], "labels": y.tolist(),
        "difference_of_means": separation(wide, y), "pca": components(wide, 3),
        "probes": [probe(wide, y, c, k=4, seed=seed) for c in cs],
    }


def main():
    cases = [
        case("tall", 1, 60, 5, 0.7, [0.01, 1.0, 100.0]),
        case("wide", 2, 32, 48, 0.5, [0.01, 1.0, 100.0]),
        case("separable", 3, 40, 8, 5.0, [1.0, 10.0]),
        case("noise", 4, 120, 4, 0.0, [1.0]),
    ]
    path = Path(__file__).parent.parent / "tests/goldens_analysis/directions.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cases": cases}) + "\n")
    print(path, path.stat().st_size)


main()
