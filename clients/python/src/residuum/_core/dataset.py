"""What `capture` reads: any iterable, a pandas or polars column or table, a Hugging Face dataset, an Arrow table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

from .inputs import Item, parse_inputs

Label: TypeAlias = "str | Callable[[Any], Any] | Iterable[Any] | None"
Metadata: TypeAlias = "str | Sequence[str] | Callable[[Any], Mapping[str, Any]] | None"

MISSING = object()


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes:
        item: `text`, `token_ids` or `messages`; None if the row has none.
        label: Its label, as the user has it.
        metadata: Its metadata, as JSON.
        problem: Why `item` is None.
    """

    item: Item | None
    label: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def length(data: Any) -> int | None:
    """Number of inputs, if it is known beforehand."""
    if isinstance(data, Mapping):
        return min((n for n in map(length, data.values()) if n is not None), default=None)
    try:
        return len(data)
    except TypeError:
        return None


def rows(data: Any, text: str, label: Label, metadata: Metadata) -> Iterator[Row]:
    """The inputs of a data set, one after another; a data set that streams is never held as a whole.

    Args:
        data: The data set.
        text: The column of the input: text, token ids or a chat.
        label: A column, a function of the row, or the labels in the order of the inputs.
        metadata: Columns, or a function of the row that gives a mapping.

    Raises:
        TypeError: It is no data set.
        KeyError: A column does not exist.
        ValueError: There are more or fewer labels than inputs.
    """
    column = label if label is None or isinstance(label, str) or callable(label) else None
    labels = iter(label) if column is None and label is not None else None  # type: ignore[arg-type]
    wanted = [metadata] if isinstance(metadata, str) else metadata
    for number, record in enumerate(_records(data)):
        item, problem = _item(record, text, number)
        if labels is not None:
            value = next(labels, MISSING)
            if value is MISSING:
                raise ValueError(f"there are {number} labels and more inputs")
        else:
            value = None if column is None else _column(record, column, number)
        extra = _metadata(record, wanted, number)
        yield Row(item, plain(value), extra, problem)
    if labels is not None and next(labels, MISSING) is not MISSING:
        raise ValueError("there are more labels than inputs")


def _records(data: Any) -> Iterable[Any]:
    """Rows: mappings for tables, single values for columns."""
    kind = f"{type(data).__module__}.{type(data).__name__}"
    if isinstance(data, (str, bytes)):
        raise TypeError("capture takes many inputs: put the one text into a list")
    if kind.startswith("pandas.") and hasattr(data, "to_dict") and hasattr(data, "columns"):
        names = [str(c) for c in data.columns]
        return (dict(zip(names, values, strict=True)) for values in data.itertuples(index=False, name=None))
    if kind.startswith("polars.") and hasattr(data, "iter_rows"):
        return data.iter_rows(named=True)  # type: ignore[no-any-return]
    if kind.startswith("pyarrow.") and hasattr(data, "to_batches"):
        return (record for batch in data.to_batches() for record in batch.to_pylist())
    if kind.startswith("pyarrow.") and hasattr(data, "to_pylist"):
        return (value.as_py() for value in data)
    if kind.startswith("datasets.") and isinstance(data, Mapping):
        raise TypeError(f"this data set has splits, {list(data)}: choose one, as in data[{next(iter(data))!r}]")
    if isinstance(data, Mapping):
        names = [str(name) for name in data]
        return (dict(zip(names, values, strict=True)) for values in zip(*data.values(), strict=True))
    if isinstance(data, Iterable):
        return data
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[i] for i in range(len(data)))
    raise TypeError(f"capture takes an iterable of inputs, a column or a table, not {type(data).__name__}")


def _item(record: Any, text: str, number: int) -> tuple[Item | None, str]:
    value: Any = record
    extra: Item = {}
    if isinstance(record, Mapping) and "role" not in record:
        if text in record:
            value = record[text]
        elif {"token_ids", "messages"} & set(record):
            extra = {name: record[name] for name in ("positions", "interventions") if record.get(name) is not None}
            value = {name: record[name] for name in ("token_ids", "messages") if record.get(name) is not None}
        else:
            raise KeyError(f"row {number} has no column {text!r}; it has {list(record)}: say which with text=")
    if value is None or value is MISSING or (isinstance(value, float) and math.isnan(value)) or _is_na(value):
        return None, "the input is missing"
    try:
        given: Any = value
        inputs = parse_inputs(given)
    except (TypeError, ValueError) as e:
        return None, str(e)
    if not inputs.single:
        return None, "the input is a list of inputs"
    return {**inputs.items[0], **extra}, ""


def _is_na(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType")


def _column(record: Any, name: str | Callable[[Any], Any], number: int) -> Any:
    if callable(name):
        return name(record)
    if not isinstance(record, Mapping):
        raise TypeError(f"label={name!r} names a column, and the inputs have none; give the labels as a list instead")
    if name not in record:
        raise KeyError(f"row {number} has no column {name!r}; it has {list(record)}")
    return record[name]


def _metadata(record: Any, wanted: Any, number: int) -> dict[str, Any]:
    if not wanted:
        return {}
    if callable(wanted):
        chosen: Any = wanted(record)
        return {str(k): plain(v) for k, v in chosen.items()}
    return {name: plain(_column(record, name, number)) for name in wanted}


def plain(value: Any) -> Any:
    """A value as JSON has it: numpy numbers as numbers, missing ones as None, times as text."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if _is_na(value):
        return None
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return str(value)
