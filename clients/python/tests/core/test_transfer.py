"""Import and export."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from places import EIFFEL

import residuum as rs
from residuum._core.rows import positions_text

RNG = np.random.default_rng(1)


def test_importing_arrays(client: rs.Client) -> None:
    stack = RNG.normal(size=(4, 3, 8)).astype(np.float32)
    cache = client.import_cache(
        {
            "resid_post": stack,
            "blocks.1.attn.hook_pattern": np.ones((2, 3, 3), np.float32) / 3,
            "token_ids": np.array([5, 6, 7]),
        },
        model="made elsewhere",
        text="a b c",
        tokens=["a", " b", " c"],
        layers=[0, 2, 4, 6],
        n_layers=8,
        label="imported",
        tags=["import", "test"],
        metadata={"x": {"y": [1]}},
        positions="all",
    )
    assert (cache.model_id, cache.label, cache.text, cache.tokens) == (
        "made elsewhere",
        "imported",
        "a b c",
        ["a", " b", " c"],
    )
    assert (cache.n_layers, cache.d_model, cache.metadata, sorted(cache.tags)) == (
        8,
        8,
        {"x": {"y": [1]}},
        ["import", "test"],
    )
    np.testing.assert_array_equal(cache.stack(), stack)
    np.testing.assert_array_equal(cache["resid_post", 4], stack[2])
    assert cache["pattern", 1].shape == (2, 3, 3)
    assert cache.token_ids.tolist() == [5, 6, 7]
    some = client.import_cache({"resid_post": stack[:, :2]}, model="m", n_tokens=5, positions=[0, 4])
    assert some["resid_post", 0].shape == (2, 8)
    one = client.import_cache({"resid_post": stack[:, 0]}, model="m", n_tokens=5, positions=-1)
    assert one["resid_post", 0].shape == (8,)


def test_a_round_trip_through_a_file(client: rs.Client, model: rs.Model, tmp_path: Path) -> None:
    cache = model.run_with_cache(EIFFEL, hooks=["resid_post", "z"], layers=[3, 29], tags=["trip"], reuse=False)[1]
    cache.update(label="there and back", metadata={"a": 1})
    cache.save(tmp_path / "cache.safetensors")
    copy = client.import_cache(tmp_path / "cache.safetensors")
    assert copy != cache
    assert copy.content_hash == cache.content_hash
    assert (copy.label, copy.tags, copy.metadata, copy.text) == ("there and back", ["trip"], {"a": 1}, EIFFEL)
    np.testing.assert_array_equal(copy["z", 29], cache["z", 29])
    np.testing.assert_array_equal(copy.logits[-1], cache.logits[-1])
    cache.save(tmp_path / "bare.safetensors", annotations=False)
    assert client.import_cache(tmp_path / "bare.safetensors", label="other").tags == []


def test_bfloat16_and_torch_tensors(client: rs.Client, model: rs.Model) -> None:
    torch = pytest.importorskip("torch")
    rows = torch.randn(2, 576).to(torch.bfloat16)
    cache = client.import_cache(
        {("blocks.3.hook_resid_post"): rows, "token_ids": torch.tensor([504, 414])}, model=model, n_layers=30
    )
    assert cache.hooks["blocks.3.hook_resid_post"].dtype == "bfloat16"
    assert torch.equal(cache.torch("resid_post", 3), rows)


def test_imported_weights_can_be_named(client: rs.Client, model: rs.Model) -> None:
    real = model.run_with_cache(EIFFEL, layers=29)[1]
    arrays = {"blocks.29.hook_resid_post": real["resid_post", 29], "token_ids": real.token_ids}
    unknown = client.import_cache(arrays, model="somebody's", n_layers=30)
    with pytest.raises(rs.Conflict, match="weights"):
        unknown.logits.numpy()
    known = client.import_cache(arrays, model=model, n_layers=30, provenance={"model_fingerprint": model.fingerprint})
    np.testing.assert_array_equal(known.logits.numpy(), real.logits.numpy())


def test_refused_imports(client: rs.Client, tmp_path: Path) -> None:
    with pytest.raises(rs.BadRequestError):
        client.import_cache({"resid_post": np.ones((2, 3, 4), np.float32)})  # no model
    (tmp_path / "x.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(rs.InvalidSafetensors):
        client.import_cache(tmp_path / "x.safetensors", model="m")
    with pytest.raises(FileNotFoundError):
        client.import_cache(tmp_path / "none", model="m")
    with pytest.raises(TypeError, match="provenance"):
        client.import_cache(tmp_path / "x.safetensors", model="m", provenance={"a": "b"})


def test_the_same_key_imports_once(client: rs.Client) -> None:
    arrays = {"resid_post": np.ones((2, 3, 4), np.float32)}
    first = client.import_cache(arrays, model="m", idempotency_key="import-once")
    assert client.import_cache(arrays, model="m", idempotency_key="import-once") == first


@pytest.fixture(scope="module")
def caches(model: rs.Model) -> list[rs.Cache]:
    items = [
        {"text": text, "label": label} for text, label in [("One two", "a"), ("Three", "b"), ("Four five six", "a")]
    ]
    found: list[rs.Cache] = model.run_with_cache(items, layers=[2, 5], tags=["export"])[1]
    return found


def test_rows_and_matrix(client: rs.Client, caches: list[rs.Cache]) -> None:
    rows = client.rows(layer=5, tag="export")
    by_id = {c.id: c for c in caches}
    for i, row in enumerate(rows.X):
        cache = by_id[rows.caches[rows.cache[i]]["cache"]]
        np.testing.assert_array_equal(row, cache["resid_post", 5][rows.position[i]])
        assert rows.token_id[i] == cache.token_ids[rows.position[i]]
        assert rows.labels[i] == cache.label
    assert len(rows) == sum(c.n_tokens for c in caches)
    X, y = client.matrix(("resid_post", 5), position="last", tag="export", label="a")
    assert X.shape == (2, 576)
    assert y.tolist() == ["a", "a"]
    half = client.matrix(layer=2, position="last", dtype="bfloat16", tag="export")[0]
    assert half.dtype == np.float32
    run = caches[0].run()
    X, y = run.matrix(layer=2, position=0)
    np.testing.assert_array_equal(X, np.stack([c["resid_post", 2][0] for c in caches]))
    assert y.tolist() == ["a", "b", "a"]
    assert run.rows(layer=2).item_index.tolist() == [i for i, c in enumerate(caches) for _ in range(c.n_tokens)]


def test_shards_are_put_together(client: rs.Client, model: rs.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.run_with_cache(["word " * 60, "other " * 60, "third " * 60], layers=1, tags=["shards"])
    whole = client.rows(layer=1, tag="shards")
    from residuum._core import rows as module

    original = module.export_params
    monkeypatch.setattr("residuum._sync.exports.export_params", lambda *a: {**original(*a), "shard_bytes": 65536})
    parts = client.rows(layer=1, tag="shards")
    np.testing.assert_array_equal(parts.X, whole.X)
    np.testing.assert_array_equal(parts.cache, whole.cache)
    np.testing.assert_array_equal(parts.position, whole.position)
    assert parts.caches == whole.caches or [c["cache"] for c in parts.caches] == [c["cache"] for c in whole.caches]


def test_exporting_to_files(client: rs.Client, caches: list[rs.Cache], tmp_path: Path) -> None:
    whole = client.rows(layer=5, tag="export")
    file = client.export(tmp_path / "x.npz", layers=5, tag="export")
    np.testing.assert_array_equal(np.load(file)["X"], whole.X)
    two = client.export(tmp_path / "x.safetensors", layers=[2, 5], position="last", tag="export")
    assert set(safetensors.numpy.load_file(two)) >= {"X.2", "X.5"}
    some = client.export(tmp_path / "s.safetensors", layers="all", positions=range(1), tag="export")
    assert len(safetensors.numpy.load_file(some)["X.5"]) == 3
    tar = client.export(tmp_path / "x.tar", format="npz", layers=5, tag="export", shard_bytes=65536)
    assert tar.stat().st_size > 0
    with pytest.raises(ValueError, match="says no format"):
        client.export(tmp_path / "x.bin", layers=5)
    with pytest.raises(TypeError, match="no condition"):
        client.export(tmp_path / "x.npz", colour="red")
    with pytest.raises(rs.ApiError):
        client.export(tmp_path / "y.npz", hook="nonsense")
    assert not (tmp_path / "y.npz").exists()
    assert not [f for f in tmp_path.iterdir() if f.name.endswith(".part")]


def test_arrow(client: rs.Client, caches: list[rs.Cache], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = client.table(layers=5, position="last", tag="export")
    assert table.num_rows == 3
    assert set(table.column("label").to_pylist()) == {"a", "b"}
    file = client.export(tmp_path / "x.arrow", layers=5, position="last", tag="export")
    assert pa.ipc.open_stream(io.BytesIO(file.read_bytes())).read_all().equals(table)


def test_positions_as_the_query_has_them() -> None:
    assert positions_text([0, 2, -1]) == "0,2,-1"
    assert positions_text(range(1, 4)) == "1:4"
    assert positions_text(slice(None, 3)) == ":3"
    assert positions_text("all") == "all"
