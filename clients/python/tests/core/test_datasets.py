"""What `capture` reads."""

from __future__ import annotations

import numpy as np
import pytest

from residuum._core.dataset import length, plain, rows


def read(data: object, **options: object) -> list[tuple[object, object, object]]:
    settings = {"text": "text", "label": None, "metadata": ()} | options
    return [(r.item and next(iter(r.item.values())), r.label, r.metadata) for r in rows(data, **settings)]  # type: ignore[arg-type]


def test_iterables() -> None:
    assert read(["a", "b"]) == [("a", None, {}), ("b", None, {})]
    assert read(iter(["a"])) == [("a", None, {})]
    assert read(np.array(["a", "b"]))[1] == ("b", None, {})
    assert read(["a", "b"], label=["x", 1]) == [("a", "x", {}), ("b", 1, {})]
    assert read(["a", "b"], label=np.array([1, 2]))[1] == ("b", 2, {})
    assert read(["a"], label=str.upper) == [("a", "A", {})]
    assert read([{"text": "a", "y": 1, "z": 2.5}], label="y", metadata=["z"]) == [("a", 1, {"z": 2.5})]
    assert read({"q": ["a", "b"], "y": [1, 2]}, text="q", label="y") == [("a", 1, {}), ("b", 2, {})]
    assert read([{"text": "a"}], metadata=lambda row: {"n": len(row["text"])}) == [("a", None, {"n": 1})]


class WithGetItem:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> str:
        return "ab"[i]


def test_torch_like_data_sets() -> None:
    assert [r[0] for r in read(WithGetItem())] == ["a", "b"]


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"text": ["a", None, "c"], "y": [1, 2, 3], "when": pd.to_datetime(["2026-01-01"] * 3), "z": [1.0, np.nan, 2.0]},
        index=[7, 3, 5],
    )
    assert read(frame["text"], label=frame["y"]) == [("a", 1, {}), (None, 2, {}), ("c", 3, {})]
    got = read(frame, label="y", metadata=["when", "z"])
    assert got[0] == ("a", 1, {"when": "2026-01-01T00:00:00", "z": 1.0})
    assert got[1] == (None, 2, {"when": "2026-01-01T00:00:00", "z": None})
    assert type(got[0][1]) is int
    assert length(frame) == 3
    ids = pd.DataFrame({"ids": [[1, 2], [3]]})
    assert read(ids, text="ids") == [([1, 2], None, {}), ([3], None, {})]


def test_arrow() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"text": ["a", None], "y": [1, 2]})
    assert read(table, label="y") == [("a", 1, {}), (None, 2, {})]
    assert read(table["text"]) == [("a", None, {}), (None, None, {})]


def test_hugging_face_like_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert read(data, label="label") == [("a", 0, {}), ("b", 1, {})]
    assert read(data["text"]) == [("a", None, {}), ("b", None, {})]
    assert read(data.to_iterable_dataset(), label="label") == [("a", 0, {}), ("b", 1, {})]
    with pytest.raises(TypeError, match="has splits"):
        read(datasets.DatasetDict({"train": data}))


def test_mistakes_are_told() -> None:
    with pytest.raises(KeyError, match=r"no column 'text'.*has .*'txt'"):
        read([{"txt": "a"}])
    with pytest.raises(KeyError, match="no column 'y'"):
        read([{"text": "a"}], label="y")
    with pytest.raises(TypeError, match="names a column"):
        read(["a"], label="y")
    with pytest.raises(ValueError, match="1 labels and more inputs"):
        read(["a", "b"], label=[1])
    with pytest.raises(ValueError, match="more labels"):
        read(["a"], label=[1, 2])
    with pytest.raises(TypeError, match="put the one text into a list"):
        read("text")
    with pytest.raises(TypeError, match="iterable"):
        read(3)


def test_plain_values() -> None:
    assert plain({1: np.float32(0.5), "b": (np.int64(1), {2})}) == {"1": 0.5, "b": [1, [2]]}
    assert plain(float("nan")) is None
    assert plain(object) == str(object)
