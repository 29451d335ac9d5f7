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
# The tasks of check_lm_eval.py: a context with choices, and a context to continue up to the end of a line.
QUESTIONS = [
    ("What is the capital of France?", ["London", "Paris", "Berlin", "Madrid"], 1),
    ("What do bees make?", ["milk", "silk", "honey", "wool"], 2),
    ("How many legs does a spider have?", ["eight", "six", "four"], 0),
    ("Which planet do we live on?", ["Mars", "Venus", "Jupiter", "Earth"], 3),
    ("What colour is grass?", ["green", "dark purple"], 0),
]
LINES = ["The first president of the United States was", "Water boils at a temperature of", "def add(a, b):\n    return"]
N_NEW = 16
# Two tokens whose logits differ by less than this could be chosen differently by another order of sums.
MIN_MARGIN = 1e-3


def continued(model, ids, n_new):
    """Greedy continuation, with the log-probability of every token but the first by one pass over the whole text."""
    ids, end = list(ids), model.generation_config.eos_token_id
    n_prompt, cache, rows = len(ids), None, torch.tensor([ids])
    for _ in range(n_new):
        with torch.no_grad():
            out = model(rows, past_key_values=cache, use_cache=True)
        cache, best = out.past_key_values, out.logits[0, -1].topk(2)
        assert best.values[0] - best.values[1] > MIN_MARGIN, f"a near-tie after {len(ids)} tokens"
        ids.append(int(best.indices[0]))
        rows = torch.tensor([ids[-1:]])
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


def choices(model, tokenizer, question, answers, right):
    """The log-probability of each answer after the question, as lm-eval splits it into tokens."""
    context, sums = f"Q: {question}\nA:", []
    for answer in answers:
        whole = tokenizer(f"{context} {answer}", add_special_tokens=False)["input_ids"]
        n = len(tokenizer(context, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logprobs = model(torch.tensor([whole]), use_cache=False).logits[0].log_softmax(-1)
        best = logprobs[n - 1 : -1].argmax(-1).tolist()
        own = [float(logprobs[i - 1, whole[i]]) for i in range(n, len(whole))]
        sums.append({"logprob": round(sum(own), 7), "n_tokens": len(own), "greedy": best == whole[n:]})
    print(repr(context), [s["logprob"] for s in sums])
    return {"question": question, "choices": answers, "answer": right, "scores": sums}


def line(model, tokenizer, text):
    found = case(model, tokenizer, text)
    return {"prompt": text, "text": found["text"].split("\n")[0]}


def main(path):
    model, tokenizer = open_gguf(path)
    model = in_float64(model)
    cases = [case(model, tokenizer, prompt) for prompt in PROMPTS]
    chats = []
    for messages in CHATS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        chats.append({"messages": messages, **case(model, tokenizer, text)})
    questions = [choices(model, tokenizer, *question) for question in QUESTIONS]
    lines = [line(model, tokenizer, text) for text in LINES]
    golden = {"n_new": N_NEW, "prompts": cases, "chats": chats, "questions": questions, "lines": lines}
    text = json.dumps(golden, ensure_ascii=False, indent=1)
    (GOLDENS / "smollm2_completions.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
