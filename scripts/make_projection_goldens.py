"""References for projections and statistics: numpy in float64 on seeded float32 rows.

    python scripts/make_projection_goldens.py

writes tests/goldens_analysis/projection.json.
"""

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens_analysis" / "projection.json"
ROWS, D, SIGMA = 40, 24, 3.0


def main():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(ROWS, D)).astype(np.float32)
    x[:, 5] += 30.0  # a dimension whose mean stands out
    x[:, 11] *= 25.0  # one whose spread does
    x[::4, 2] = 0.0
    directions = rng.normal(size=(3, D)).astype(np.float32)
    directions[1] = 0.0
    x64, d64 = x.astype(np.float64), directions.astype(np.float64)
    dot, norms, lengths = x64 @ d64.T, np.linalg.norm(x64, axis=1), np.linalg.norm(d64, axis=1)
    with np.errstate(invalid="ignore"):
        scalar, cosine = dot / lengths, dot / lengths / norms[:, None]
    none = lambda a: [[None if np.isnan(v) else v for v in row] for row in a.tolist()]
    mean, std = x64.mean(0), x64.std(0)
    far = lambda v: np.flatnonzero(np.abs(v - v.mean()) > SIGMA * v.std()).tolist()
    golden = {
        "rows": [[float(v) for v in row] for row in x],
        "directions": [[float(v) for v in row] for row in directions],
        "dot": none(dot),
        "cosine": none(cosine),
        "scalar": none(scalar),
        "sigma": SIGMA,
        "mean": mean.tolist(),
        "variance": x64.var(0).tolist(),
        "norm": [norms.mean(), norms.std(), norms.min(), norms.max()],
        "zeros": float((x == 0).mean()),
        "outliers_by_mean": far(mean),
        "outliers_by_std": far(std),
        "top_mean": np.argsort(-np.abs(mean))[:5].tolist(),
        "top_variance": np.argsort(-std)[:5].tolist(),
    }
    assert golden["outliers_by_mean"] == [5] and golden["outliers_by_std"] == [11]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden) + "\n")


main()
