"""Inputs of the tests of questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MODEL = Path(__file__).resolve().parents[4] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2"

CLEAN = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When John and Mary went to the store, Mary gave a drink to"
EIFFEL = "The Eiffel Tower is in the city of"

SAE_LAYER, D_SAE, SAE_K = 12, 64, 4

MOODS = {
    True: [
        "I am so happy today, everything is wonderful.",
        "What a delightful and joyful surprise.",
        "She laughed with delight and danced.",
        "I love this beautiful morning.",
    ],
    False: [
        "I am so sad today, everything is terrible.",
        "What a dreadful and painful loss.",
        "She wept with grief and trembled.",
        "I hate this miserable morning.",
    ],
}


def sae_weights() -> dict[str, np.ndarray]:
    """A TopK autoencoder, seeded."""
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((D_SAE, 576), dtype=np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    return {
        "W_dec": decoder,
        "W_enc": np.ascontiguousarray(decoder.T),
        "b_enc": rng.standard_normal(D_SAE, dtype=np.float32),
        "b_dec": rng.standard_normal(576, dtype=np.float32),
    }
