#!/usr/bin/env python3
"""Checks a server with OpenAI's own Python client, and its numbers against transformers.

    python3 tests/python/check_openai.py --base-url http://127.0.0.1:8080

The server must serve the demo model; tests/goldens/smollm2_completions.json has the references
(scripts/make_completion_goldens.py). The last line is `N passed, N failed`, and the exit status is 0 only if nothing failed.
"""

import argparse
import json
import struct
import sys
import traceback
from pathlib import Path

import numpy as np
import openai

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client  # noqa: E402  (the path is set above)

GOLDEN = json.loads((ROOT / "tests/goldens/smollm2_completions.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Subject:
    """The server under test: OpenAI's client, plain HTTP, and the name of the model."""

    def __init__(self, url):
        # a server without keys accepts any key
        self.openai = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="sk-anything", max_retries=0, timeout=300)
        self.http = Client(url)
        self.model = next(model.id for model in self.openai.models.list())

    def complete(self, **fields):
        return self.openai.completions.create(model=self.model, **({"temperature": 0} | fields))

    def chat(self, messages, **fields):
        return self.openai.chat.completions.create(model=self.model, messages=messages, **({"temperature": 0} | fields))


def worst(found, expected):
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@check
def models_are_listed_and_described(s):
    models = s.openai.models.list()
    assert models.object == "list" and all(model.object == "model" for model in models)
    assert s.openai.models.retrieve(s.model).id == s.model


@check
def greedy_text_is_that_of_transformers(s):
    for case in GOLDEN["prompts"]:
        answer = s.complete(prompt=case["prompt"], max_tokens=GOLDEN["n_new"])
        choice = answer.choices[0]
        assert choice.text == case["text"], (case["prompt"], choice.text, case["text"])
        assert choice.finish_reason == ("stop" if case["ended"] else "length")
        assert answer.usage.prompt_tokens == len(case["ids"])
        assert answer.usage.completion_tokens == len(case["new_ids"])
    texts = [case["prompt"] for case in GOLDEN["prompts"]]
    batch = s.complete(prompt=texts, max_tokens=GOLDEN["n_new"])
    assert [choice.text for choice in batch.choices] == [case["text"] for case in GOLDEN["prompts"]]
    lists = s.complete(prompt=[case["ids"] for case in GOLDEN["prompts"]], max_tokens=GOLDEN["n_new"])
    assert [choice.text for choice in lists.choices] == [case["text"] for case in GOLDEN["prompts"]]


@check
def log_probabilities_are_those_of_transformers(s):
    for case in GOLDEN["prompts"]:
        answer = s.complete(prompt=case["prompt"], max_tokens=GOLDEN["n_new"], echo=True, logprobs=2)
        choice = answer.choices[0]
        found = choice.logprobs.token_logprobs
        assert found[0] is None and choice.logprobs.top_logprobs[0] is None
        difference = worst(found[1:], case["logprobs"])
        assert difference < TOLERANCE, (case["prompt"], difference)
        assert choice.text.startswith(case["prompt"])
        rest = zip(choice.logprobs.tokens, found, choice.logprobs.top_logprobs, choice.logprobs.text_offset)
        for token, logprob, top, offset in list(rest)[1:]:
            assert top[token] == logprob and logprob <= max(top.values())
            if not token.startswith("bytes:") and offset < len(choice.text):
                assert choice.text[offset : offset + len(token)] == token, (token, offset)
        alone = s.complete(prompt=case["ids"], max_tokens=0, echo=True, logprobs=0).choices[0]
        assert worst(alone.logprobs.token_logprobs[1:], case["logprobs"][: len(case["ids"]) - 1]) < TOLERANCE


@check
def chats_are_those_of_transformers(s):
    for case in GOLDEN["chats"]:
        answer = s.chat(case["messages"], max_completion_tokens=GOLDEN["n_new"], logprobs=True, top_logprobs=1)
        choice = answer.choices[0]
        assert (choice.message.role, choice.message.content) == ("assistant", case["text"])
        assert choice.finish_reason == ("stop" if case["ended"] else "length")
        assert answer.usage.prompt_tokens == len(case["ids"])
        found = [token.logprob for token in choice.logprobs.content]
        assert worst(found, case["logprobs"][len(case["ids"]) - 1 :]) < TOLERANCE
        written = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
        assert written.decode().removesuffix("<|im_end|>") == case["text"]
        assert all(token.top_logprobs[0].logprob == token.logprob for token in choice.logprobs.content)


@check
def streams_are_the_whole_answer(s):
    case = GOLDEN["chats"][0]
    options = {"include_usage": True}
    chunks = list(s.chat(case["messages"], max_tokens=GOLDEN["n_new"], stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == case["text"] and len(chunks) > 5
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len(case["new_ids"])
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    case = GOLDEN["prompts"][0]
    text = "".join(chunk.choices[0].text for chunk in s.complete(prompt=case["prompt"], max_tokens=GOLDEN["n_new"], stream=True))
    assert text == case["text"]
    # a client that reads only the beginning
    with s.chat(case_messages(), stream=True) as stream:
        next(iter(stream))


def case_messages():
    return [{"role": "user", "content": "Count to a hundred."}]


@check
def samples_differ_and_seeds_repeat(s):
    first = s.complete(prompt="Once", n=3, max_tokens=8, temperature=1, seed=5)
    again = s.complete(prompt="Once", n=3, max_tokens=8, temperature=1, seed=5)
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices] and len(set(texts)) > 1
    assert [choice.index for choice in first.choices] == [0, 1, 2]


@check
def embeddings_are_read_by_the_client(s):
    texts = ["The cat sat.", "A dog ran."]
    # the client asks for base64 by default
    packed = s.openai.embeddings.create(model=s.model, input=texts)
    plain = s.openai.embeddings.create(model=s.model, input=texts, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert np.array_equal(np.float32(one.embedding), np.float32(other.embedding))
        assert abs(np.linalg.norm(one.embedding) - 1) < 1e-6
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0
    raw = s.openai.embeddings.create(model=s.model, input="The cat sat.", extra_body={"normalize": False})
    run = s.http.run({"model": s.model, "input": "The cat sat.", "capture": {"hooks": ["final_norm"]}})
    stored = s.http.call("GET", f"/v1/caches/{run['caches'][0]}/tensors/final_norm?format=raw").body
    assert struct.pack(f"<{len(raw.data[0].embedding)}f", *raw.data[0].embedding) == stored


@check
def errors_are_the_classes_of_the_client(s):
    error = raises(openai.NotFoundError, lambda: s.openai.completions.create(model="gpt-4o", prompt="a"))
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "not_found_error")
    raises(openai.NotFoundError, lambda: s.openai.models.retrieve("gpt-4o"))
    error = raises(openai.BadRequestError, lambda: s.complete(prompt="a", presence_penalty=1))
    assert (error.code, error.param) == ("invalid_value", "presence_penalty")
    error = raises(openai.BadRequestError, lambda: s.chat([{"role": "user", "content": None}]))
    assert error.param == "messages[0].content"
    error = raises(openai.BadRequestError, lambda: s.complete(prompt="a " * 20_000))
    assert error.code == "context_length_exceeded"
    raises(openai.BadRequestError, lambda: s.chat(case_messages(), response_format={"type": "json_object"}))


@check
def residuum_stores_a_generation(s):
    before = len(s.http.get("/v1/runs")["items"])
    s.chat(case_messages(), max_tokens=2)
    assert len(s.http.get("/v1/runs")["items"]) == before, "nothing is stored without it"
    capture = {"hooks": ["resid_post"], "layers": [12], "positions": "all"}
    answer = s.chat(case_messages(), max_tokens=4, extra_body={"residuum": {"capture": capture, "tags": ["chat"]}})
    [cache] = answer.residuum["caches"]
    stored = s.http.get(f"/v1/caches/{cache}")
    assert stored["completion"]["text"] == answer.choices[0].message.content
    assert stored["tags"] == ["chat"] and stored["hooks"][0]["shape"] == [stored["n_tokens"], 576]
    chunks = list(s.complete(prompt="Once", max_tokens=3, stream=True, extra_body={"residuum": {}}))
    assert s.http.get(f"/v1/runs/{chunks[-1].residuum['run']}")["status"] == "completed"


def main():
    parser = argparse.ArgumentParser(description="Check a server with OpenAI's Python client.")
    parser.add_argument("--base-url", required=True)
    args = parser.parse_args()
    subject, failed = Subject(args.base_url.rstrip("/")), 0
    for function in CHECKS:
        try:
            function(subject)
        except Exception:  # every check is reported, whatever went wrong in it
            failed += 1
            print(f"FAIL  {function.__name__.replace('_', ' ')}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok    {function.__name__.replace('_', ' ')}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
