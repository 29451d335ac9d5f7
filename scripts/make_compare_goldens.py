#!/usr/bin/env python3
"""Writes tests/goldens_analysis/compare.json: comparisons of seeded vectors and sets, by numpy and scipy.

    python3 scripts/make_compare_goldens.py

CKA is computed from Gram matrices as the papers write it (Kornblith et al. 2019; HSIC_1 of Song et al. 2012, eq. 5, in the
ratio of Nguyen et al. 2020), the Procrustes distance from the rotation that scipy finds (Ding et al. 2021).
"""

import json
from pathlib import Path

import numpy as np
from scipy import linalg, stats
from scipy.spatial import distance

OUT = Path(__file__).resolve().parents[1] / "tests" / "goldens_analysis" / "compare.json"


def prepared(rows, center, normalize):
    rows = rows - rows.mean(axis=0) if center else rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize else rows


def jaccard(a, b, k):
    top = lambda v: set(np.argsort(-np.abs(v), kind="stable")[:k])  # noqa: E731
    return len(top(a) & top(b)) / len(top(a) | top(b))


def vector_metrics(a, b):
    return {
        "cosine": 1 - distance.cosine(a, b),
        "dot": a @ b,
        "euclidean": distance.euclidean(a, b),
        "mae": np.abs(a - b).mean(),
        "pearson": stats.pearsonr(a, b).statistic,
        "jaccard": jaccard(a, b, 3),
    }


def gram_cka(x, y):
    n = len(x)
    h = np.eye(n) - 1 / n
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h
    return np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))


def hsic_1(k, l):
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def debiased_cka(x, y):
    k, l = x @ x.T, y @ y.T
    return hsic_1(k, l) / np.sqrt(hsic_1(k, k) * hsic_1(l, l))


def rsa(x, y):
    return stats.spearmanr(distance.pdist(x, "correlation"), distance.pdist(y, "correlation")).statistic


def procrustes(x, y):
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(m - m.mean(axis=0), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, _ = linalg.orthogonal_procrustes(x, y)
    return np.linalg.norm(x @ rotation - y) ** 2


def set_metrics(x, y):
    return {"cka": gram_cka(x, y), "cka_debiased": debiased_cka(x, y), "rsa": rsa(x, y), "procrustes": procrustes(x, y)}


def mean_metrics(x, y):
    difference = x.mean(axis=0) - y.mean(axis=0)
    norm = np.linalg.norm(difference)
    a, b = x @ difference / norm, y @ difference / norm
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return {
        "mean_difference": norm,
        "mean_cosine": 1 - distance.cosine(x.mean(axis=0), y.mean(axis=0)),
        "effect_size": (a.mean() - b.mean()) / np.sqrt(pooled),
    }


def main():
    rng = np.random.default_rng(6)
    base = rng.normal(size=(14, 4))

    def rows(n, width, offset):
        mixed = base[:n] @ rng.normal(size=(4, width)) + 0.7 * rng.normal(size=(n, width)) + offset
        return mixed.astype(np.float32).astype(np.float64)

    sets = {"narrow": rows(14, 5, 0.5), "other": rows(14, 6, -1.0), "wide": rows(14, 23, 2.0), "broad": rows(14, 17, 0.0)}
    cases = []
    for center, normalize in [(False, False), (True, False), (False, True), (True, True)]:
        ready = {name: prepared(x, center, normalize) for name, x in sets.items()}
        pairs = [("narrow", "other"), ("narrow", "wide"), ("wide", "broad")]
        values = [{"x": x, "y": y, "values": set_metrics(ready[x], ready[y])} for x, y in pairs]
        vectors = vector_metrics(ready["wide"][2], ready["wide"][9])
        cases.append({"center": center, "normalize": normalize, "sets": values, "vectors": vectors})
    left, right = sets["wide"][:9], sets["wide"][9:] * 1.5 + 0.25
    right = right.astype(np.float32).astype(np.float64)
    golden = {
        "sets": {name: x.tolist() for name, x in sets.items()},
        "cases": cases,
        "means": {"left": left.tolist(), "right": right.tolist(), "values": mean_metrics(left, right)},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
