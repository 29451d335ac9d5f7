"""The same work in transformers: the residual stream after every layer at the last token, as numpy arrays."""

import os
from pathlib import Path

import numpy as np
import torch
import transformers

BATCH = 16


class Reference:
    """A GGUF checkpoint in transformers, float32, with every core this process may use."""

    def __init__(self, gguf):
        gguf = Path(gguf)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        self.causal = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        ).eval()
        # The bare model: captures need no logits, so none are computed.
        self.model = self.causal.model

    def tokens(self, text):
        return self.tokenizer(text)["input_ids"]

    @torch.inference_mode()
    def one_by_one(self, texts):
        """`[n_layers, d_model]` for each text, one forward pass each."""
        return [self._states(torch.tensor([self.tokens(text)]))[:, 0, -1].numpy().copy() for text in texts]

    @torch.inference_mode()
    def batched(self, texts):
        """The same in batches of sixteen, sorted by length to keep padding small.

        Padding is on the right, where a causal model's last token does not attend to it, so no mask is needed: the fastest
        way to do it by hand.
        """
        encoded = [self.tokens(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        results = [None] * len(texts)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            ids = torch.zeros(len(batch), max(len(encoded[i]) for i in batch), dtype=torch.long)
            for row, i in enumerate(batch):
                ids[row, : len(encoded[i])] = torch.tensor(encoded[i])
            last = torch.tensor([len(encoded[i]) - 1 for i in batch])
            rows = self._states(ids, last).numpy()
            for row, i in enumerate(batch):
                results[i] = rows[:, row].copy()
        return results

    def _states(self, ids, last=None):
        """Hidden states after every layer, `[n_layers, batch, 1 or pos, d_model]` at `last` positions if given.

        The last one is after the final norm, because transformers returns it so; the work is the same.
        """
        states = self.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[1:]
        if last is None:
            return torch.stack([state[:, -1:] for state in states])
        rows = torch.arange(len(last))
        return torch.stack([state[rows, last] for state in states])

    @torch.inference_mode()
    def bare_forward(self, ids):
        """A forward pass and nothing else."""
        self.model(input_ids=torch.tensor([ids]), use_cache=False)


def worst_difference(ours, theirs):
    """Largest difference of two lists of `[n_layers, d_model]`, in units of the layer's RMS.

    The last layer is left out: transformers' is after the final norm.
    """
    worst = 0.0
    for a, b in zip(ours, theirs):
        rms = np.sqrt((b[:-1].astype(np.float64) ** 2).mean(axis=1))
        worst = max(worst, float((np.abs(a[:-1] - b[:-1]).max(axis=1) / rms).max()))
    return worst
