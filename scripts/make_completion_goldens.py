"""Writes tests/goldens/smollm2_completions.json: greedy continuations and log-probabilities of the demo model by transformers,
which tests/python/check_openai.py and check_lm_eval.py compare a server's answers with.

    .venv/bin/python scripts/make_completion_goldens.py models/SmolLM2-135M-Instruct.Q4_1.gguf

The environment is that of make_goldens.py. Computed in float64 with the eager attention: at the first position this model is an
attention sink, where float32 itself loses digits (docs/ARCHITECTURE.md). A second run writes the same file.
"""

import json
import sys

import torch

from make_goldens import GOLDENS, in_float64, open_gguf

PROMPTS = [
    "The Eiffel Tower is in the city of",
    "Once upon a time there was a small dog who",
    "def fibonacci(n):\n    if n <",
    "Q: What is the capital of Japan?\nA:",
    "Liberté, égalité, fraternité — 42 naïve emoji: 🦀",
]
CHATS = [
    [{"role": "user", "content": "Name three colours."}],
    [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "What is the opposite of hot?"},
    ],
]
N_NEW = 16
# Two tokens whose logits differ by less than this could be chosen differently by another order of sums.
MIN_MARGIN = 1e-3


def continued(model, ids, n_new):
    """Greedy continuation without a KV cache, with the log-probability of every token but the first."""
    ids, end = list(ids), model.generation_config.eos_token_id
    n_prompt = len(ids)
    for _ in range(n_new):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        best = logits[-1].topk(2)
        assert best.values[0] - best.values[1] > MIN_MARGIN, f"a near-tie after {len(ids)} tokens"
        ids.append(int(best.indices[0]))
        if ids[-1] == end:
            break
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    scores = logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return ids[n_prompt:], [round(float(score), 7) for score in scores], ids[-1] == end


def case(model, tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    new, logprobs, ended = continued(model, ids, N_NEW)
    print(repr(text[:40]), "->", repr(tokenizer.decode(new)))
    return {
        "prompt": text,
        "ids": ids,
        "new_ids": new,
        "text": tokenizer.decode(new, skip_special_tokens=True),
        "ended": ended,
        "logprobs": logprobs,  # of every token from the second on, prompt and continuation
    }


def main(path):
    model, tokenizer = open_gguf(path)
    model = in_float64(model)
    cases = [case(model, tokenizer, prompt) for prompt in PROMPTS]
    chats = []
    for messages in CHATS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        chats.append({"messages": messages, **case(model, tokenizer, text)})
    golden = {"n_new": N_NEW, "prompts": cases, "chats": chats}
    text = json.dumps(golden, ensure_ascii=False, indent=1)
    (GOLDENS / "smollm2_completions.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
