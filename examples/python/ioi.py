#!/usr/bin/env python3
"""Indirect object identification in SmolLM2: which parts of the model find the name that is missing.

    pip install './clients/python[plot]'
    python examples/python/ioi.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf --out plots

"When John and Mary went to the store, John gave a drink to" should go on with " Mary", the name that is there once (Wang et
al. 2022, "Interpretability in the Wild"). The script measures how much more the model favours " Mary" than " John":

1. the logit lens: after which layer the answer is there;
2. direct logit attribution: which heads and MLPs write it;
3. activation patching: at which token and layer the information is;
4. ablation of each head, and of each edge from the last token: which of them are needed.

It starts a server of its own (`RESIDUUM_BINARY`, the wheel `residuum-server`, or `residuum` on PATH), or uses `--url`.
"""

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import residuum as rs

CLEAN = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When John and Mary went to the store, Mary gave a drink to"
ANSWER, AGAINST = " Mary", " John"


def lens_and_attribution(model, out):
    _, cache = model.run_with_cache(CLEAN, hooks=["embed", "attn.z", "mlp_out", "resid_post"])
    lens = cache.logit_lens(tokens=[ANSWER, AGAINST], positions=-1, top_k=1)
    print(f"The answer is {lens.top_tokens[-1, 0, 0]!r}, with probability {lens.top_probability[-1, 0, 0]:.2f}.")
    # Not the probability but the difference of the logits, which the other measurements are about.
    difference = lens.logit[:, 0, 0] - lens.logit[:, 0, 1]
    steepest = lens.layers[int(np.argmax(np.diff(difference))) + 1]
    print(f"Its logit overtakes that of {AGAINST!r} most of all in layer {steepest}.")
    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    axes.plot(lens.layers, difference, marker="o", markersize=3)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="layer", ylabel=f"logit of {ANSWER!r} less that of {AGAINST!r}")
    axes.set_title("Logit lens at the last token", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    save(axes, out / "ioi_lens.png")

    parts = cache.logit_attribution(ANSWER, AGAINST)
    print(f"\nThe logit of {ANSWER!r} is {parts.logit:.2f} larger than that of {AGAINST!r}; what adds most to that:")
    for part in parts.top(6):
        print(f"  {part!s:8} {part.value:+.2f}")
    save(parts.plot()[0], out / "ioi_attribution.png")


def patching(model, out):
    found = model.patching(CLEAN, CORRUPT, answer=ANSWER, against=AGAINST)
    print(
        f"\nPatching: the difference is {found.clean:.2f} in the clean run and {found.corrupt:.2f} in the corrupt one."
    )
    at_name, at_end = found.normalized[:, 9], found.normalized[:, -1]
    leaves, arrives = int(np.argmax(at_name < 0.5)), int(np.argmax(at_end > 0.5))
    print(
        f"The information is at the second name before layer {leaves}, and at the last token from layer {arrives} on."
    )
    save(found.plot(), out / "ioi_patching.png")


def ablation(model, out):
    heads = model.patching(
        CLEAN, answer=ANSWER, against=AGAINST, sweep={"op": "zero", "hook": "attn.z", "heads": "each"}
    )
    print("\nHeads whose loss costs most:")
    for where, effect in heads.top(4):
        print(f"  layer {where['layer']} head {where['head']}: {effect:+.2f}")
    edges = model.patching(
        CLEAN, answer=ANSWER, against=AGAINST, sweep={"op": "knockout", "from": "each", "to": "last"}
    )
    (where, effect), *_ = edges.top(1)
    name = edges.clean_tokens[where["k_pos"]]
    print(
        f"What the last token must read: {name!r} (position {where['k_pos']}) in layer {where['layer']}: {effect:+.2f}"
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 6.4), layout="constrained")
    heads.plot(ax=left)
    edges.plot(ax=right)
    save(left, out / "ioi_ablation.png")


def save(axes, path):
    axes.figure.savefig(path, dpi=75)
    plt.close(axes.figure)


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
        lens_and_attribution(model, args.out)
        patching(model, args.out)
        ablation(model, args.out)
    print(f"\nPlots are in {args.out}.")


if __name__ == "__main__":
    main()
