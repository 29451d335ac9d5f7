"""`ActivationDataset`: every row once, the same batches however many processes make them."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest

import residuum as rs
from residuum._core.row_plan import Chunks, EpochPlan, Range, merged

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from residuum.torch import ActivationDataset, StoreChanged  # noqa: E402

LAYER = 3


@pytest.fixture(scope="session")
def stored(client: rs.Client, model: rs.Model) -> dict[str, np.ndarray]:
    """Rows of two runs: texts of different lengths with all positions, and many texts with one position each."""
    texts = [" ".join(["word"] * (20 + i % 7)) + f" {i}" for i in range(24)]
    _, long = model.run_with_cache(texts, layers=[LAYER], positions="all", tags=["data", "long"], logits=False)
    many = [f"number {i}" for i in range(60)]
    _, short = model.run_with_cache(many, layers=[LAYER], positions="last", tags=["data", "short"], logits=False)
    return {
        "long": np.concatenate([c.layer(LAYER) for c in long]),
        "short": np.stack([c.layer(LAYER) for c in short]),
    }


def dataset(client: rs.Client, **options: Any) -> ActivationDataset:
    return ActivationDataset(
        client, **{"layer": LAYER, "tag": "data", "batch_size": 32, "buffer_batches": 8, "chunk_rows": 8, **options}
    )


def batches(data: ActivationDataset, workers: int = 0, **options: Any) -> list[Any]:
    return list(DataLoader(data, batch_size=None, num_workers=workers, **options))


def test_without_a_seed_rows_come_as_stored(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client)
    rows = np.concatenate([stored["long"], stored["short"]])
    assert data.n_rows == len(rows)
    assert data.row_shape == (576,)
    assert data.dtype == torch.float32
    found = list(data)
    assert [len(b) for b in found] == [32] * (len(rows) // 32) + [len(rows) % 32] * (len(rows) % 32 > 0)
    assert len(found) == len(data)
    np.testing.assert_array_equal(torch.cat(found).numpy(), rows)


def test_every_row_once_in_every_epoch(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client, shuffle_seed=0, return_index=True)
    rows = np.concatenate([stored["long"], stored["short"]])
    seen = []
    for epoch in range(2):
        data.set_epoch(epoch)
        found = list(data)
        x = np.concatenate([b.numpy() for b, _ in found])
        assert not np.array_equal(x, rows)
        np.testing.assert_array_equal(x[np.lexsort(x.T)], rows[np.lexsort(rows.T)])
        seen.append(x)
    assert not np.array_equal(seen[0], seen[1])
    index = np.concatenate([i.numpy() for _, i in found])
    assert np.bincount(index).tolist() == [c.n_tokens for c in map(client.cache, data.cache_ids[:24])] + [1] * 60
    position = int(np.flatnonzero(index >= 24)[0])
    np.testing.assert_array_equal(x[position], client.cache(data.cache_ids[index[position]]).layer(LAYER))


@pytest.mark.parametrize(("method", "counts"), [("fork", (1, 2, 3)), ("spawn", (2,))])
def test_the_same_batches_with_any_number_of_workers(
    client: rs.Client, stored: dict[str, np.ndarray], method: str, counts: tuple[int, ...]
) -> None:
    data = dataset(client, shuffle_seed=7)
    expected = list(data)  # this process has a connection when it forks
    for workers in counts:
        found = batches(data, workers, multiprocessing_context=method)
        assert len(found) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), workers


def test_epochs_reach_workers_that_persist(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client, shuffle_seed=7)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        found = list(loader)
        assert all(torch.equal(a, b) for a, b in zip(found, list(data), strict=True))


def test_training_goes_on_in_the_middle(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client, shuffle_seed=7)
    expected = list(data)
    data.set_epoch(0, first_batch=5)
    assert len(data) == len(expected) - 5
    assert all(torch.equal(a, b) for a, b in zip(batches(data, 2), expected[5:], strict=True))


def test_ranks_share_the_batches(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    expected = list(dataset(client, shuffle_seed=7))
    parts = [list(dataset(client, shuffle_seed=7, rank=r, world_size=2)) for r in range(2)]
    assert [len(p) for p in parts] == [len(expected[0::2]), len(expected[1::2])]
    for rank, part in enumerate(parts):
        assert all(torch.equal(a, b) for a, b in zip(part, expected[rank::2], strict=True))


def test_small_data_are_read_once_and_permuted(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client, tag="short", shuffle_seed=1)
    first = torch.cat(list(data))
    assert data._kept is not None
    data._sources = []  # nothing more can be read
    data.set_epoch(1)
    second = torch.cat(list(data))
    assert not torch.equal(first, second)
    np.testing.assert_array_equal(np.sort(first.numpy(), axis=0), np.sort(second.numpy(), axis=0))


def test_only_what_a_batch_needs_is_read(
    client: rs.Client, stored: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = ActivationDataset._read

    def counted(self: ActivationDataset, c: rs.Client, part: Range) -> Any:
        read.append(part.stop - part.start)
        return real(self, c, part)

    monkeypatch.setattr(ActivationDataset, "_read", counted)
    rows = iter(dataset(client, shuffle_seed=2))
    next(rows)
    assert sum(read) == 2 * 32  # one window: eight batches in four lanes
    list(rows)
    assert sum(read) == len(stored["long"]) + len(stored["short"])


def test_one_position_and_another_type(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    data = dataset(client, tag="long", position="last", dtype="bfloat16", batch_size=100)
    (found,) = list(data)
    assert found.dtype == torch.bfloat16
    ends = np.cumsum([c.n_tokens for c in map(client.cache, data.cache_ids)]) - 1
    assert torch.equal(found, torch.from_numpy(stored["long"][ends]).bfloat16())


def test_heads_keep_their_axes(client: rs.Client, model: rs.Model) -> None:
    model.run_with_cache(["one two", "three"], hooks=["attn.z"], layers=[0], tags=["heads"], logits=False)
    (found,) = list(ActivationDataset(client, "attn.z", 0, tag="heads"))
    assert found.shape == (3, 9, 64)
    model.run_with_cache(["one two", "three"], hooks=["attn.pattern"], layers=[0], tags=["maps"], logits=False)
    with pytest.raises(ValueError, match="attention maps"):
        ActivationDataset(client, "attn.pattern", 0, tag="maps")


def test_what_is_stored_later_is_not_seen_and_what_is_deleted_is_an_error(client: rs.Client, model: rs.Model) -> None:
    texts = [f"later {i}" for i in range(20)]
    _, caches = model.run_with_cache(texts, layers=[LAYER], positions="last", tags=["later"], logits=False)
    data = dataset(client, tag="later")
    chosen = dataset(client, tag=None, caches=caches[:3])
    assert chosen.cache_ids == [c.id for c in caches[:3]]
    model.run_with_cache("more", layers=[LAYER], positions="last", tags=["later"], logits=False)
    assert len(torch.cat(list(data))) == 20
    again = pickle.loads(pickle.dumps(data))  # a copy that has not read anything yet
    caches[4].delete()
    with pytest.raises(StoreChanged):
        list(again)
    assert len(torch.cat(list(data))) == 20  # read already, and kept
    assert len(torch.cat(list(chosen))) == 3


def test_wrong_arguments(client: rs.Client, stored: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no cache"):
        dataset(client, tag="nothing")
    with pytest.raises(ValueError, match="batch_size"):
        dataset(client, batch_size=0)
    with pytest.raises(ValueError, match="layer="):
        dataset(client, layer=None)
    with pytest.raises(ValueError, match="rank"):
        dataset(client, rank=2, world_size=2)
    with pytest.raises(ValueError, match="bfloat16"):
        dataset(client, dtype="int8")
    with pytest.raises(TypeError, match="condition"):
        dataset(client, nonsense=1)
    with pytest.raises(TypeError, match="not both"):
        dataset(client, caches=["x"])
    with pytest.raises(TypeError, match="AsyncClient"):
        dataset(rs.AsyncClient(client.url))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("rows", "batch", "buffer"), [(1, 4, 8), (97, 4, 8), (96, 4, 8), (31, 4, 1), (500, 7, 12)])
def test_a_plan_has_every_row_once(seed: int | None, drop_last: bool, rows: int, batch: int, buffer: int) -> None:
    edges = [0, *sorted({max(1, rows // 3), rows})]
    ranges = [Range(i, 0, b - a, a) for i, (a, b) in enumerate(itertools.pairwise(edges))]
    chunks = Chunks.of(ranges, 5)
    plan = EpochPlan(chunks, batch_size=batch, buffer_batches=buffer, seed=seed, epoch=2, drop_last=drop_last)
    out: list[int] = []
    for b in range(plan.n_batches):
        window = plan.window_of(b)
        numbers = np.concatenate([np.arange(r.row, r.row + r.stop - r.start) for r in plan.ranges(window)])
        assert sum(r.stop - r.start for r in merged(plan.ranges(window))) == len(numbers)
        chosen = numbers[plan.permutation(window)[plan.place_of(b)]]
        assert len(chosen) == min(batch, rows - b * batch)
        out.extend(chosen.tolist())
    assert len(set(out)) == len(out) == (rows // batch * batch if drop_last else rows)
    if seed is None:
        assert out == list(range(len(out)))
