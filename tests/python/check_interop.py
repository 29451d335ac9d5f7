#!/usr/bin/env python3
"""Checks that numpy, safetensors, pyarrow and PyTorch read what a server sends, and compares its metrics with scipy's.

    python3 tests/python/check_interop.py --base-url http://127.0.0.1:8080

Works with any model served; captures what it needs. The last line is `N passed, N failed`, and the exit status is 0
only if nothing failed. Checks that need PyTorch are skipped, with a notice, if it cannot be imported.
"""

import argparse
import io
import json
import re
import sys
import tarfile
import traceback
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow.ipc
import safetensors.numpy
from scipy.spatial import distance

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from formats import (  # noqa: E402  (the path is set above)
    from_json,
    from_npy,
    from_raw,
    from_safetensors,
    from_torch,
    rounded,
    safetensors_header,
    same,
    torch,
)
from harness import Client  # noqa: E402

TEXTS = [
    "The Eiffel Tower is in the city of",
    "The Colosseum is in the city of",
    "for (int i = 0; i < n; i++) {",
    "Liberté, égalité, fraternité — 42 naïve emoji: 🦀",
]
METRICS = ["cosine", "dot", "euclidean"]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


# --- shared by the checks


class Subject:
    """The server under test, and the runs that several checks read."""

    def __init__(self, client, model):
        self.client, self.model = client, model
        self.info = client.get(f"/v1/models/{model}")
        self.n_layers, self.d_model = self.info["n_layers"], self.info["d_model"]

    def post(self, texts, **capture):
        capture = {"hooks": ["resid_post"], "layers": "all", "positions": "last", **capture}
        run = self.client.run({"model": self.model, "input": texts, "capture": capture, "tags": ["interop"]})
        assert run["n_done"] == run["n_items"] == len(run["caches"]), run
        return run

    @cached_property
    def last(self):
        """Every layer of every text at the final token."""
        return self.post(TEXTS)

    @cached_property
    def everywhere(self):
        """Every position of the first text: some residual streams and one attention pattern."""
        return self.post(TEXTS[:1], hooks=["resid_post", "attn.pattern"], layers=[0, -1], positions="all")

    def tensor(self, path, **query):
        """The tensor behind `path` as JSON, with the array it holds."""
        answer = self.client.get(path, **query)
        return answer, from_json(answer)

    def fetch(self, path, query, **headers):
        return self.client.call("GET", f"{path}?{query}", headers=headers)

    def layers_of(self, cache):
        """All layers of one cache as float64 `[n_layers, d_model]`, for reference metrics."""
        return from_npy(self.fetch(f"/v1/caches/{cache}/layers", "format=npy").body).astype(np.float64)


def in_every_format(s, path, query=""):
    """One tensor route answers with the same numbers in every format and dtype."""
    join = f"{query}&" if query else ""
    full = from_json(s.fetch(path, f"{join}dtype=float32").json())
    for dtype in ["float32", "float16", "bfloat16"]:
        expected = rounded(full, dtype)
        what = f"{path}?{join}dtype={dtype}"
        same(from_npy(s.fetch(path, f"{join}format=npy&dtype={dtype}").body), expected, f"{what} npy")
        raw_dtype, values = from_raw(s.fetch(path, f"{join}format=raw&dtype={dtype}"))
        assert raw_dtype == dtype, f"{what}: Residuum-Dtype is {raw_dtype}"
        same(values, expected, f"{what} raw")
        body = s.fetch(path, f"{join}format=safetensors&dtype={dtype}").body
        (entry,) = safetensors_header(body)[0].values()
        assert entry["dtype"] == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype], f"{what}: {entry}"
        (values,) = from_safetensors(body).values()
        same(values, expected, f"{what} safetensors")
        if torch is not None:
            (loaded,) = safetensors.torch.load(body).values()
            assert str(loaded.dtype) == f"torch.{dtype}", f"{what}: torch sees {loaded.dtype}"
            same(from_torch(loaded), expected, f"{what} safetensors.torch")
    return full


# --- the checks: tensors


@check
def one_layer_in_every_format(s):
    cache = s.last["caches"][0]
    for layer in {0, s.n_layers // 2, s.n_layers - 1}:
        values = in_every_format(s, f"/v1/caches/{cache}/layers/{layer}")
        assert values.shape == (s.d_model,)


@check
def stacked_layers_in_every_format(s):
    path = f"/v1/caches/{s.last['caches'][0]}/layers"
    stacked = in_every_format(s, path)
    assert stacked.shape == (s.n_layers, s.d_model)
    assert s.client.get(path)["layers"] == list(range(s.n_layers))
    for layer in range(s.n_layers):
        same(stacked[layer], from_npy(s.fetch(f"{path}/{layer}", "format=npy").body), f"layer {layer} of the stack")


@check
def a_hook_by_its_full_name_in_every_format(s):
    cache = s.last["caches"][1]
    values = in_every_format(s, f"/v1/caches/{cache}/tensors/blocks.0.hook_resid_post")
    same(values, from_npy(s.fetch(f"/v1/caches/{cache}/layers/0", "format=npy").body), "the same tensor by layer")


@check
def tensors_of_a_run_stand_in_input_order(s):
    hook = f"blocks.{s.n_layers - 1}.hook_resid_post"
    values = in_every_format(s, f"/v1/runs/{s.last['id']}/tensors/{hook}")
    assert values.shape == (len(TEXTS), s.d_model)
    for row, cache in zip(values, s.last["caches"], strict=True):
        same(row, from_npy(s.fetch(f"/v1/caches/{cache}/tensors/{hook}", "format=npy").body), f"row of {cache}")


@check
def tensors_of_unequal_length_are_concatenated(s):
    run = s.post(TEXTS, layers=0, positions="all")
    path = f"/v1/runs/{run['id']}/tensors/blocks.0.hook_resid_post"
    answer, values = s.tensor(path)
    lengths = [len(s.client.get(f"/v1/caches/{cache}")["token_ids"]) for cache in run["caches"]]
    assert len(set(lengths)) > 1, "the texts must differ in length for this check"
    assert values.shape == (sum(lengths), s.d_model)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    assert answer["offsets"] in (offsets.tolist(), offsets[:-1].tolist()), f"offsets {answer['offsets']}"
    same(from_npy(s.fetch(path, "format=npy").body), values, "npy")
    for cache, begin, end in zip(run["caches"], offsets, offsets[1:], strict=False):
        own = from_npy(s.fetch(f"/v1/caches/{cache}/tensors/blocks.0.hook_resid_post", "format=npy").body)
        same(values[begin:end], own, f"rows of {cache}")


@check
def positions_select_rows(s):
    path = f"/v1/caches/{s.everywhere['caches'][0]}/layers/0"
    full = from_npy(s.fetch(path, "format=npy").body)
    assert full.ndim == 2 and full.shape[1] == s.d_model
    same(in_every_format(s, path, "position=-1"), full[-1], "position=-1")
    same(in_every_format(s, path, "positions=0,2"), full[[0, 2]], "positions=0,2")
    last = from_npy(s.fetch(f"/v1/caches/{s.last['caches'][0]}/layers/0", "format=npy").body)
    same(full[-1], last, "the final position of a capture of all, against a capture of the last")


@check
def an_attention_pattern_is_a_distribution(s):
    path = f"/v1/caches/{s.everywhere['caches'][0]}/tensors/blocks.0.attn.hook_pattern"
    pattern = in_every_format(s, path)
    n_tokens = len(s.client.get(f"/v1/caches/{s.everywhere['caches'][0]}")["token_ids"])
    assert pattern.shape == (s.info["n_heads"], n_tokens, n_tokens)
    np.testing.assert_allclose(pattern.sum(axis=-1, dtype=np.float64), 1.0, rtol=1e-5)


@check
def a_whole_cache_is_one_safetensors_file(s):
    cache = s.everywhere["caches"][0]
    described = s.client.get(f"/v1/caches/{cache}")
    hooks = {hook["hook"]: hook for hook in described["hooks"]}
    body = s.client.call("GET", f"/v1/caches/{cache}/safetensors").body
    tensors = safetensors.numpy.load(body)
    assert set(tensors) == {*hooks, "token_ids"}, f"keys {sorted(tensors)}"
    assert tensors["token_ids"].dtype == np.int64 and tensors["token_ids"].tolist() == described["token_ids"]
    for name, hook in hooks.items():
        assert list(tensors[name].shape) == hook["shape"] and hook["dtype"] == "float32", hook
        answer = s.tensor(f"/v1/caches/{cache}/tensors/{quote(name)}")[1]
        same(tensors[name], answer, name)
    if torch is not None:
        for name, tensor in safetensors.torch.load(body).items():
            same(from_torch(tensor), tensors[name], f"{name} through torch")
    _, metadata = safetensors_header(body)
    assert metadata and all(isinstance(value, str) for value in metadata.values()), "no provenance in __metadata__"


@check
def half_precision_captures_are_the_rounded_float32_ones(s):
    path = "/v1/caches/{}/layers"
    full = from_npy(s.fetch(path.format(s.last["caches"][2]), "format=npy").body)
    for dtype in ["float16", "bfloat16"]:
        (cache,) = s.post(TEXTS[2:3], dtype=dtype)["caches"]
        assert {hook["dtype"] for hook in s.client.get(f"/v1/caches/{cache}")["hooks"]} == {dtype}
        stored_dtype, stored = from_raw(s.fetch(path.format(cache), "format=raw"))
        assert stored_dtype == dtype, f"stored as {stored_dtype}"
        same(stored, rounded(full, dtype), f"a {dtype} capture")
        body = s.client.call("GET", f"/v1/caches/{cache}/safetensors").body
        tensors = from_safetensors(body)
        same(tensors["blocks.0.hook_resid_post"], stored[0], f"a {dtype} capture as safetensors")
        if torch is not None:
            loaded = safetensors.torch.load(body)["blocks.0.hook_resid_post"]
            assert str(loaded.dtype) == f"torch.{dtype}"
            same(from_torch(loaded), stored[0], f"a {dtype} capture through torch")


# --- the checks: HTTP


@check
def entity_tags_and_ranges(s):
    cache = s.last["caches"][0]
    path = f"/v1/caches/{cache}/layers?format=raw"
    whole = s.client.call("GET", path)
    tag = whole.headers["etag"]
    assert re.fullmatch(r'"[^"]+"', tag), f"not a strong ETag: {tag}"
    unchanged = s.client.request("GET", path, headers={"If-None-Match": tag})
    assert (unchanged.status, unchanged.body) == (304, b""), f"If-None-Match gave {unchanged.status}"
    assert unchanged.headers["etag"] == tag
    assert s.client.request("GET", path, headers={"If-None-Match": '"another"'}).status == 200
    total = len(whole.body)
    for spec, begin, end in [("4-19", 4, 20), (f"{total - 8}-", total - 8, total), ("-16", total - 16, total)]:
        part = s.client.request("GET", path, headers={"Range": f"bytes={spec}"})
        assert part.status == 206, f"bytes={spec} gave {part.status}"
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{total}", part.headers
        assert part.body == whole.body[begin:end], f"bytes={spec}: other bytes"
    outside = s.client.request("GET", path, headers={"Range": f"bytes={total}-"})
    assert outside.status == 416 and outside.headers["content-range"] == f"bytes */{total}", outside
    stale = s.client.request("GET", path, headers={"Range": "bytes=0-3", "If-Range": '"another"'})
    assert stale.status == 200 and stale.body == whole.body, "If-Range with another tag must give the whole"


@check
def entity_tags_name_the_representation(s):
    cache = s.last["caches"][0]
    queries = ["format=raw", "format=npy", "format=safetensors", "format=raw&dtype=float16"]
    paths = [f"/v1/caches/{cache}/layers/{layer}?{query}" for layer in [0, 1] for query in queries]
    tags = [s.client.call("GET", path).headers["etag"] for path in paths]
    assert len(set(tags)) == len(tags), f"two representations share a tag: {tags}"
    s.client.call("PATCH", f"/v1/caches/{cache}", {"label": "renamed", "tags": ["interop", "renamed"]})
    assert s.client.get(f"/v1/caches/{cache}")["label"] == "renamed"
    assert [s.client.call("GET", path).headers["etag"] for path in paths] == tags, "PATCH changed a tag"


@check
def head_answers_as_get_without_a_body(s):
    cache = s.last["caches"][0]
    for path in [f"layers/0?format={f}" for f in ["raw", "npy", "safetensors"]] + ["safetensors"]:
        path = f"/v1/caches/{cache}/{path}"
        get, head = s.client.call("GET", path), s.client.request("HEAD", path)
        assert (head.status, head.body) == (200, b""), f"HEAD {path}: {head.status}"
        for name in ["content-length", "content-type", "etag"]:
            assert head.headers[name] == get.headers[name], f"HEAD {path}: {name} differs"
        assert int(head.headers["content-length"]) == len(get.body)


@check
def the_format_parameter_beats_the_accept_header(s):
    path = f"/v1/caches/{s.last['caches'][0]}/layers/0"
    same(
        from_npy(s.fetch(path, "format=npy", Accept="application/json").body),
        from_json(s.fetch(path, "format=json", Accept="application/octet-stream").json()),
        "npy asked for by parameter, JSON by Accept",
    )


@check
def errors_are_problems(s):
    cache = s.last["caches"][0]
    missing = "00000000-0000-7000-8000-000000000000"
    comparison = {"mode": "pairs", "a": [cache] * 2, "b": [cache] * 3, "metrics": ["cosine"]}
    for method, path, body, status, code in [
        ("GET", f"/v1/caches/{cache}/layers/{s.n_layers}", None, 404, "layer_not_in_cache"),
        ("GET", f"/v1/caches/{cache}/tensors/blocks.0.hook_resid_mid", None, 404, "hook_not_in_cache"),
        ("GET", f"/v1/caches/{missing}", None, 404, "cache_not_found"),
        ("GET", f"/v1/runs/{missing}", None, 404, "run_not_found"),
        ("POST", "/v1/comparisons", comparison, 422, None),
        ("POST", "/v1/runs", {"model": "no-such-model", "input": "x"}, 422, "unknown_model"),
        ("POST", "/v1/runs", {"model": s.model, "input": "x", "no_such_field": 1}, 400, "invalid_body"),
    ]:
        answer = s.client.request(method, path, body)
        assert answer.status == status, f"{method} {path}: {answer.status}, expected {status}"
        assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
        problem = answer.json()
        assert problem["status"] == status and problem["title"] and problem["detail"], problem
        assert problem["code"] == code if code else problem["code"], problem


# --- the checks: comparisons


def reference(metric, a, b):
    """The metric between every row of `a` and every row of `b`, in float64."""
    if metric == "dot":
        return a @ b.T
    return 1.0 - distance.cdist(a, b, "cosine") if metric == "cosine" else distance.cdist(a, b, metric)


def close(actual, metric, a, b, what):
    """`actual` [i][j] is the metric of rows of `a` and `b`, within 1e-6 of the magnitude of the terms that cancel."""
    lengths = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    scale = {"cosine": 1.0, "dot": lengths.max(), "euclidean": np.sqrt(lengths.max())}[metric]
    expected = reference(metric, a, b)
    np.testing.assert_allclose(np.array(actual), expected, rtol=1e-6, atol=1e-8 * scale, err_msg=f"{what}: {metric}")


def ask(s, **body):
    body = {"hook": "resid_post", "layers": "all", "position": "last", "metrics": METRICS, **body}
    return s.client.call("POST", "/v1/comparisons", body).json()


@check
def pairs_agree_with_scipy(s):
    a, b = s.last["caches"][:2], s.last["caches"][2:4]
    answer = ask(s, mode="pairs", a=a, b=b)
    assert answer["layers"] == list(range(s.n_layers)) and answer["mode"] == "pairs"
    assert [(pair["a"], pair["b"]) for pair in answer["pairs"]] == list(zip(a, b, strict=True))
    for pair in answer["pairs"]:
        x, y = s.layers_of(pair["a"]), s.layers_of(pair["b"])
        for metric in METRICS:
            assert len(pair["values"][metric]) == s.n_layers
            for layer in range(s.n_layers):
                value = [[pair["values"][metric][layer]]]
                close(value, metric, x[layer : layer + 1], y[layer : layer + 1], f"layer {layer}")


@check
def one_against_many_broadcasts(s):
    first, others = s.last["caches"][:1], s.last["caches"][1:]
    answer = ask(s, mode="pairs", a=first, b=others, layers=[0, s.n_layers - 1], metrics=["cosine"])
    assert answer["layers"] == [0, s.n_layers - 1]
    assert [(pair["a"], pair["b"]) for pair in answer["pairs"]] == [(first[0], other) for other in others]
    x = s.layers_of(first[0])
    for pair in answer["pairs"]:
        y = s.layers_of(pair["b"])
        for layer, value in zip(answer["layers"], pair["values"]["cosine"], strict=True):
            close([[value]], "cosine", x[layer : layer + 1], y[layer : layer + 1], f"layer {layer}")


@check
def a_matrix_agrees_with_scipy(s):
    caches = s.last["caches"]
    answer = ask(s, mode="matrix", caches=caches)
    assert answer["caches"] == caches and answer["layers"] == list(range(s.n_layers))
    stacked = np.stack([s.layers_of(cache) for cache in caches])  # [cache, layer, d_model]
    for metric in METRICS:
        for layer in range(s.n_layers):
            rows = stacked[:, layer]
            close(answer["values"][metric][layer], metric, rows, rows, f"matrix, layer {layer}")


# --- the checks: import and export


def imported(s, body, **query):
    """Imports a safetensors file; returns the description of the cache."""
    headers = {"Content-Type": "application/vnd.safetensors"}
    answer = s.client.call("POST", f"/v1/caches?{urlencode(query)}", body, headers)
    assert answer.status == 201 and answer.headers["location"] == f"/v1/caches/{answer.json()['id']}"
    return answer.json()


@check
def numpy_arrays_are_imported_bit_for_bit(s):
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((3, 5, 16)).astype(np.float32)
    stack[0, 0, :4] = [np.nan, np.inf, -0.0, 1e-45]
    arrays = {"resid_post": stack, "token_ids": np.arange(5, dtype=np.int64)}
    body = safetensors.numpy.save(arrays, {"model": "numpy", "text": "made up"})
    cache = imported(s, body, layers="0,4,7", n_layers=8)
    assert (cache["n_nan"], cache["n_inf"], cache["text"], cache["model"]) == (1, 1, "made up", "numpy")
    path = f"/v1/caches/{cache['id']}"
    same(from_npy(s.fetch(f"{path}/layers", "format=npy").body), stack, "an imported stack")
    same(from_npy(s.fetch(f"{path}/layers/4", "format=npy&position=2").body), stack[1, 2], "a row of it")
    halves = {"blocks.2.attn.hook_pattern": rng.random((2, 5, 5)).astype(np.float16)}
    cache = imported(s, safetensors.numpy.save(halves), model="numpy", d_model=16)
    same(
        from_npy(s.fetch(f"/v1/caches/{cache['id']}/tensors/blocks.2.attn.hook_pattern", "format=npy").body),
        halves["blocks.2.attn.hook_pattern"],
        "an imported attention map",
    )


@check
def torch_tensors_are_imported_bit_for_bit(s):
    if torch is None:
        return
    hidden = torch.randn(2, 6, 8, dtype=torch.bfloat16)
    cache = imported(s, safetensors.torch.save({"resid_post": hidden}), model="torch")
    body = s.client.call("GET", f"/v1/caches/{cache['id']}/layers?format=safetensors").body
    (loaded,) = safetensors.torch.load(body).values()
    assert loaded.dtype == torch.bfloat16 and torch.equal(loaded.view(torch.int16), hidden.view(torch.int16))


@check
def a_cache_goes_out_and_comes_in_again(s):
    for cache in [s.everywhere["caches"][0], *s.post(TEXTS[3:], dtype="bfloat16")["caches"]]:
        body = s.client.call("GET", f"/v1/caches/{cache}/safetensors?annotations=true").body
        copy, original = imported(s, body), s.client.get(f"/v1/caches/{cache}")
        own = {"id", "run", "item_index", "created_at", "imported", "reused"}
        assert {k: v for k, v in copy.items() if k not in own} == {k: v for k, v in original.items() if k not in own}
        again = s.client.call("GET", f"/v1/caches/{copy['id']}/safetensors").body
        before, after = from_safetensors(body), from_safetensors(again)
        assert set(before) == set(after)
        for name, values in before.items():
            same(after[name], values, name)


def exported(s, run, query):
    return s.client.call("GET", f"/v1/runs/{run['id']}/export?{query}")


def rows_of(s, run, hook, query=""):
    """The rows of one hook of all caches of a run, fetched cache by cache."""
    tensors = [from_npy(s.fetch(f"/v1/caches/{c}/tensors/{hook}", f"format=npy{query}").body) for c in run["caches"]]
    return np.concatenate([t if t.ndim == 2 else t[None] for t in tensors])


@check
def an_export_opens_in_numpy_and_safetensors(s):
    run = s.post(TEXTS, layers=[0, -1], positions="all")
    described = [s.client.get(f"/v1/caches/{cache}") for cache in run["caches"]]
    lengths = [d["n_tokens"] for d in described]
    npz = np.load(io.BytesIO(exported(s, run, "format=npz").body), allow_pickle=False)
    tensors = safetensors.numpy.load(exported(s, run, "format=safetensors").body)
    for layer in [0, s.n_layers - 1]:
        expected = rows_of(s, run, f"blocks.{layer}.hook_resid_post")
        same(npz[f"X.{layer}"], expected, f"npz, layer {layer}")
        same(tensors[f"X.{layer}"], expected, f"safetensors, layer {layer}")
    assert npz["row_cache"].tolist() == np.repeat(np.arange(len(TEXTS)), lengths).tolist()
    assert npz["row_token_id"].tolist() == [token for d in described for token in d["token_ids"]]
    assert npz["row_position"].tolist() == [p for n in lengths for p in range(n)]
    assert npz["cache_id"].tolist() == run["caches"]
    for name in ["row_cache", "row_position", "row_token_id"]:
        same(tensors[name], npz[name], name)
    manifest = json.loads(npz["manifest.json"])
    assert [entry["text"] for entry in manifest["caches"]] == TEXTS and manifest["n_rows"] == sum(lengths)
    for dtype in ["float16", "bfloat16"]:
        expected = rounded(rows_of(s, run, "blocks.0.hook_resid_post", "&position=-1"), dtype)
        query = f"layers=0&position=last&dtype={dtype}"
        same(np.load(io.BytesIO(exported(s, run, f"format=npz&{query}").body))["X"], expected, f"npz, {dtype}")
        same(from_safetensors(exported(s, run, query).body)["X"], expected, f"safetensors, {dtype}")


@check
def an_export_opens_in_arrow(s):
    run = s.post(TEXTS, layers=[0, -1], positions="all")
    table = pyarrow.ipc.open_stream(exported(s, run, "format=arrow").body).read_all()
    table.validate(full=True)
    for layer in [0, s.n_layers - 1]:
        column = table[f"X.{layer}"].combine_chunks()
        assert column.type == pyarrow.list_(pyarrow.field("item", pyarrow.float32(), nullable=False), s.d_model)
        values = column.flatten().to_numpy().reshape(-1, s.d_model)
        same(values, rows_of(s, run, f"blocks.{layer}.hook_resid_post"), f"arrow, layer {layer}")
    described = {cache: s.client.get(f"/v1/caches/{cache}") for cache in run["caches"]}
    for row in table.select(["cache", "position", "token_id", "token", "label", "tags", "metadata"]).to_pylist():
        cache = described[row["cache"]]
        assert row["token_id"] == cache["token_ids"][row["position"]]
        assert row["token"] == cache["tokens"][row["position"]]
        assert (row["label"], row["tags"], json.loads(row["metadata"])) == (None, ["interop"], {})
    body = exported(s, run, "format=arrow&layers=0&position=last&dtype=float16").body
    column = pyarrow.ipc.open_stream(body).read_all()["X"].combine_chunks()
    values = column.flatten().to_numpy().reshape(-1, s.d_model)
    same(values, rounded(rows_of(s, run, "blocks.0.hook_resid_post", "&position=-1"), "float16"), "arrow, float16")


@check
def shards_are_files_of_their_own(s):
    run = s.post(TEXTS, positions="all")
    for form in ["npz", "safetensors"]:
        answer = exported(s, run, f"format={form}&shard_bytes=65536")
        assert answer.headers["content-type"] == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(answer.body), mode="r|") as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        manifest = json.loads(files.pop("manifest.json"))
        assert [shard["file"] for shard in manifest["shards"]] == list(files) and len(files) == len(TEXTS)
        opened = [dict(np.load(io.BytesIO(f))) if form == "npz" else safetensors.numpy.load(f) for f in files.values()]
        for layer in range(s.n_layers):
            rows = np.concatenate([shard[f"X.{layer}"] for shard in opened])
            same(rows, rows_of(s, run, f"blocks.{layer}.hook_resid_post"), f"{form} shards, layer {layer}")


# --- running them


def main():
    parser = argparse.ArgumentParser(description="Check a running server with numpy, scipy, safetensors and PyTorch.")
    parser.add_argument("--base-url", required=True, help="http://HOST:PORT")
    parser.add_argument("--model", help="default: the first one served")
    args = parser.parse_args()
    if torch is None:
        print("notice: PyTorch cannot be imported, so nothing is checked through safetensors.torch")
    client = Client(args.base_url)
    subject = Subject(client, args.model or client.get("/v1/models")["items"][0]["id"])
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(subject)
            print(f"ok    {name}")
        except Exception:  # one failed check must not hide the others
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
