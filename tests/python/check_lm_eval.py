#!/usr/bin/env python3
"""Evaluates a server with lm-eval's `local-completions`, on two small tasks made here, and compares with transformers.

    python3 tests/python/check_lm_eval.py --base-url http://127.0.0.1:8080 --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf

The server must serve the demo model; tests/goldens/smollm2_completions.json has the references
(scripts/make_completion_goldens.py). Nothing is fetched from the network: the tokenizer comes from the GGUF file. The last line is
`N passed, N failed`, and the exit status is 0 only if nothing failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from gguf_tokenizer import write_tokenizer  # noqa: E402  (the path is set above)
from harness import Client  # noqa: E402

GOLDEN = json.loads((ROOT / "tests/goldens/smollm2_completions.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4  # of the log-probability of one token

QUESTIONS = """\
task: questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
LINES = """\
task: lines
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/lines.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: {n_new}, do_sample: false, temperature: 0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def write_tasks(folder):
    """Two tasks: choosing an answer by log-probabilities, and continuing a line greedily."""
    for name, template in [("questions", QUESTIONS), ("lines", LINES)]:
        (folder / f"{name}.yaml").write_text(template.format(folder=folder, n_new=GOLDEN["n_new"]))
        rows = [{key: value for key, value in row.items() if key != "scores"} for row in GOLDEN[name]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def evaluate(folder, url, model):
    """Runs lm-eval as a user does. Returns its results and, for each task, its samples in order."""
    arguments = f"model={model},base_url={url}/openai/v1/completions,tokenizer_backend=huggingface,tokenizer={folder}/tokenizer"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
    command += ["--include_path", str(folder), "--tasks", "questions,lines", "--batch_size", "4"]
    command += ["--output_path", str(folder / "out"), "--log_samples"]
    offline = {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")}
    settings = {"HF_HOME": str(folder / "hf"), "TOKENIZERS_PARALLELISM": "false", "OPENAI_API_KEY": "sk-anything"}
    done = subprocess.run(command, env=os.environ | offline | settings, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise SystemExit(f"lm-eval ended with status {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    [results] = (folder / "out").rglob("results_*.json")
    samples = {}
    for name in ("questions", "lines"):
        [file] = (folder / "out").rglob(f"samples_{name}_*.jsonl")
        rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
        samples[name] = sorted(rows, key=lambda row: row["doc_id"])
    return json.loads(results.read_text(encoding="utf-8"))["results"], samples


def tokenizers_agree(client, model, folder):
    """lm-eval counts the tokens of a context itself, so its tokenizer must be the server's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    texts = [case["prompt"] for case in GOLDEN["prompts"]] + ["In 1234 there were 5,678.", "<|im_start|>user\nHi<|im_end|>\n"]
    for text in texts:
        ours = client.call("POST", "/v1/tokenize", {"model": model, "text": text}).json()["token_ids"]
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ours != theirs:
            yield f"{text!r}: {ours} and {theirs}"


def log_probabilities_agree(results, samples):
    right = []
    for row, golden in zip(samples["questions"], GOLDEN["questions"], strict=True):
        found = [(float(answer[0][0]), str(answer[0][1]) == "True") for answer in row["resps"]]
        for (logprob, greedy), score in zip(found, golden["scores"], strict=True):
            if abs(logprob - score["logprob"]) > TOLERANCE * score["n_tokens"]:
                yield f"{golden['question']}: {logprob}, transformers {score['logprob']}"
            if greedy != score["greedy"]:
                yield f"{golden['question']}: greedy is {greedy}, transformers {score['greedy']}"
        best = max(range(len(found)), key=lambda i: golden["scores"][i]["logprob"])
        right.append(best == golden["answer"])
    accuracy = sum(right) / len(right)
    if abs(results["questions"]["acc,none"] - accuracy) > 1e-9:
        yield f"the accuracy is {results['questions']['acc,none']}, that of transformers {accuracy}"


def greedy_texts_agree(results, samples):
    for row, golden in zip(samples["lines"], GOLDEN["lines"], strict=True):
        found = row["resps"][0][0]
        if found != golden["text"]:
            yield f"{golden['prompt']!r}: {found!r}, transformers {golden['text']!r}"
    if results["lines"]["exact_match,none"] != 1.0:
        yield f"exact_match is {results['lines']['exact_match,none']}"


def main():
    parser = argparse.ArgumentParser(description="Evaluate a server with lm-eval.")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--gguf", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    args = parser.parse_args()
    client = Client(args.base_url)
    model = client.get("/openai/v1/models")["data"][0]["id"]
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder:
        folder = Path(folder)
        write_tokenizer(args.gguf, folder / "tokenizer")
        write_tasks(folder)
        checks = [("tokenizers agree", list(tokenizers_agree(client, model, folder)))]
        results, samples = evaluate(folder, args.base_url.rstrip("/"), model)
    checks.append(("log-probabilities agree", list(log_probabilities_agree(results, samples))))
    checks.append(("greedy texts agree", list(greedy_texts_agree(results, samples))))
    for name, faults in checks:
        print(f"{'FAIL' if faults else 'ok':<5} {name}")
        for fault in faults:
            print(f"        {fault}")
    failed = sum(1 for _, faults in checks if faults)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
