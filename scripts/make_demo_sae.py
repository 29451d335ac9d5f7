"""A small seeded sparse autoencoder for SmolLM2, trained on what a running server captures, for the example in docs/ANALYSIS.md.

    python scripts/make_demo_sae.py --url http://127.0.0.1:8080 --out saes/smollm2-12

captures the residual stream after layer 12 over paragraphs of this repository's own documents, BOS in front, and trains a TopK
autoencoder of 1024 features, 16 of them active, in SAELens's form. A few thousand tokens are too few for interpretable
features, but enough for an autoencoder that reconstructs its inputs. Needs torch and safetensors.
"""

import argparse
import json
import re
import urllib.request
from pathlib import Path

import torch
from safetensors.torch import load, save_file

ROOT = Path(__file__).resolve().parent.parent
MODEL, LAYER, D_SAE, K, STEPS = "smollm2-135m", 12, 1024, 16, 300
HOOK = f"blocks.{LAYER}.hook_resid_post"


def request(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"}), timeout=600) as r:
        return r.read()


def paragraphs():
    texts = []
    for name in ["README.md", "docs/ARCHITECTURE.md", "docs/HOOKS.md", "docs/GGUF.md"]:
        for text in re.split(r"\n\s*\n", (ROOT / name).read_text()):
            text = " ".join(text.split())
            if 80 <= len(text) <= 600 and not text.startswith(("|", "```", "#", "<")):
                texts.append(text)
    return texts


def capture(url):
    """Rows `[tokens, d_model]` after the BOS token of each text."""
    run = json.loads(request(f"{url}/v1/runs?wait=600", {
        "model": MODEL, "input": paragraphs(), "prepend_bos": True, "tags": ["sae-training"],
        "capture": {"hooks": ["resid_post"], "layers": LAYER, "positions": {"start": 1}},
    }))
    assert run["status"] == "completed", run
    rows = load(request(f"{url}/v1/runs/{run['id']}/tensors/{HOOK}?format=safetensors"))[HOOK]
    return rows.reshape(-1, rows.shape[-1]).float()


def train(x):
    g = torch.Generator().manual_seed(0)
    d = x.shape[1]
    b_dec = x.mean(0).clone()
    W_dec = torch.nn.functional.normalize(x[torch.randint(len(x), (D_SAE,), generator=g)] - b_dec, dim=1)
    parameters = {"W_dec": W_dec, "W_enc": W_dec.T.clone().contiguous(), "b_enc": torch.zeros(D_SAE), "b_dec": b_dec}
    for p in parameters.values():
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-3)
    w, variance = parameters, (x - x.mean(0)).pow(2).sum(-1).mean()
    for step in range(STEPS):
        batch = x[torch.randint(len(x), (256,), generator=g)]
        best = ((batch - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).topk(K)
        acts = torch.zeros(len(batch), D_SAE).scatter(-1, best.indices, best.values.relu())
        loss = (acts @ w["W_dec"] + w["b_dec"] - batch).pow(2).sum(-1).mean() / variance
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            w["W_dec"].div_(w["W_dec"].norm(dim=1, keepdim=True))
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step}: {loss.item():.3f} of the variance unexplained")
    return {name: p.detach().contiguous() for name, p in parameters.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    x = capture(args.url)
    print(f"{len(x)} tokens")
    weights = train(x)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out / "sae_weights.safetensors")
    config = {
        "architecture": "topk", "d_in": x.shape[1], "d_sae": D_SAE, "k": K, "rescale_acts_by_decoder_norm": False,
        "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12", "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct", "hook_name": HOOK,
            "prepend_bos": True, "context_size": 256, "exclude_special_tokens": True, "model_from_pretrained_kwargs": {},
        },
    }
    (args.out / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
