"""The same work in TransformerLens and nnsight, with the model that `reference.py` loaded.

Both take one prompt at a time: padding several into a batch is left to their users.
"""

import nnsight
import numpy as np
import torch
from nnsight import LanguageModel
from transformer_lens.model_bridge import TransformerBridge

# TransformerLens takes the kind of model from this name, and the weights from the model it is given.
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


class TransformerLens:
    def __init__(self, causal, tokenizer):
        self.tokens = lambda text: tokenizer(text)["input_ids"]
        self.bridge = TransformerBridge.boot_transformers(
            NAME, hf_model=causal, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )
        self.names = [f"blocks.{layer}.hook_resid_post" for layer in range(self.bridge.cfg.n_layers)]

    @torch.inference_mode()
    def one_by_one(self, texts):
        """`[n_layers, d_model]` for each text."""
        return [self._states(torch.tensor([self.tokens(text)])) for text in texts]

    def _states(self, ids):
        _, cache = self.bridge.run_with_cache(ids, names_filter=self.names, return_type=None)
        return np.stack([cache[name][0, -1].numpy() for name in self.names])


class Nnsight:
    def __init__(self, causal, tokenizer):
        self.tokens = lambda text: tokenizer(text)["input_ids"]
        self.model = LanguageModel(causal, tokenizer=tokenizer)

    @torch.inference_mode()
    def one_by_one(self, texts):
        """`[n_layers, d_model]` for each text."""
        return [self._states(torch.tensor([self.tokens(text)])) for text in texts]

    def _states(self, ids):
        with self.model.trace(ids):
            states = nnsight.save([layer.output for layer in self.model.model.layers])
        return np.stack([(s[0] if isinstance(s, tuple) else s)[0, -1].numpy() for s in states])
