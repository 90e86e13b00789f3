"""What people hand to `Store.put`, taken apart into values that an event can hold, and put together again.

Numbers, text and small arrays stand in the event itself, so that a thousand small results make no thousand
folders. What JSON does not say of them (dtypes, shapes, what a table was) stands in their data keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.assets import INLINE_NBYTES, array_to_store
from gently_bluesky.errors import InputError, InvalidDocument, MissingExtra
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import storable_dtype

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "Result", "put_together", "take_apart"]

KINDS = frozenset({"array", "mapping", "table", "frame", "value"})
"""What a result may be: a table is numpy's structured array, a frame pandas' DataFrame."""

MOST_INLINE = INLINE_NBYTES // 8
"""Elements of an array of several axes that stands in the event, as a list of numbers."""

EXTENDED_DTYPES = frozenset(
    (
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
        *("Float32", "Float64", "boolean", "str", "string"),
    )
)
"""pandas' own dtypes that are kept: their values are JSON's, or missing."""

LIST = "list"
"""The key under which a list stands that would be stored as an array if it stood in the event by itself."""

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Result:
    """A result taken apart.

    Attributes
    ----------
    kind
        One of `KINDS`.
    values
        By data key, as they are handed to the writer.
    declared
        Their data keys, with what it takes to put them together again: ``numpy``, one entry for each value of
        numpy's that stands in the event as a number or list; ``lifted``, where an array was inside of a
        mapping; ``wrapped``, a list that stands in a mapping; ``column``, what a column of a table was.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    declared: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def take(self, name: str, value: object, declared: dict[str, Any]) -> str:
        """Take in a value under a name that people chose; return its data key, without dots and slashes."""
        key = re.sub("[./]", "_", name) or "_"
        while key in self.values:
            key += "_"
        self.values[key] = value
        self.declared[key] = declared if key == name else {**declared, "name": name}
        return key

    @property
    def has_assets(self) -> bool:
        """Whether keeping it takes files of its own beside the journal."""
        return any(array_to_store(value) is not None for value in self.values.values())


def take_apart(data: object, name: str) -> Result:
    """Take apart what a person wants to keep; an array or a single value gets the data key ``name``.

    Raises
    ------
    InputError
        It is nothing that can be kept, or would not come back as it was; nothing was stored.
    """
    if isinstance(data, Mapping):
        result = Result("mapping")
        for key, value in data.items():
            _add(result, _checked_name(key, ()), value)
    elif all(hasattr(data, part) for part in ("columns", "dtypes", "index")):
        result = _frame(data)
    elif isinstance(data, np.void) or (isinstance(data, np.ndarray) and data.dtype.names):
        result = _structured(data)
    elif data is None or isinstance(data, bool | int | float | str | np.generic):
        result = Result("value")
        _add(result, name, data)
    elif hasattr(data, "__array__") or isinstance(data, list | tuple):
        result = Result("array")
        _add_array(result, name, _array(data, (name,)), as_asset=True)
    else:
        raise InputError(
            f"expected an array, a mapping, a table or a value, got {type(data).__name__}; nothing was stored"
        )
    return result


def _add(result: Result, name: str, value: object) -> str:
    """Take in one value of a mapping, or a single value; return its data key."""
    if _is_array(value):
        return _add_array(result, name, _array(value, (name,)))
    notes: list[dict[str, Any]] = []
    try:
        plain = _plain(result, notes, (name,), value)
    except RecursionError as error:
        raise InputError(f"{name!r:.80} is nested too deep, or in a circle; nothing was stored") from error
    # said exactly by the first event, but for mappings and None, for which event-model has no word
    declared: dict[str, Any] = {"dtype": "string", "shape": []}
    if isinstance(plain, list) and array_to_store(plain) is not None:
        plain = {LIST: plain}
        declared["wrapped"] = True
    if notes:
        declared["numpy"] = notes
    return result.take(name, plain, declared)


def _add_array(result: Result, name: str, array: NDArray[Any], *, as_asset: bool = False) -> str:
    """Take in an array: as one that will be an asset where that is wanted or it is large, else as a list."""
    if _is_asset(array, as_asset=as_asset):
        return result.take(name, array, {"dtype": "array", "shape": list(array.shape)})
    elements = array.reshape(-1).tolist()
    small = array.size <= MOST_INLINE or array.dtype.kind == "U"
    kinds = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "string"}
    declared = {
        "dtype": "array" if array.ndim else kinds[array.dtype.kind],
        "shape": list(array.shape),
        "dtype_numpy": array.dtype.str,
        "numpy": [_numpy_note((name,), array)],
    }
    # in C order, flat: nested lists would be taken for an array to store
    return result.take(name, elements[0] if not array.ndim else elements if small else array, declared)


def _is_asset(array: NDArray[Any], *, as_asset: bool = False) -> bool:
    if array.dtype.kind == "U" or array_to_store(array) is None:
        return False
    return as_asset or array.size > MOST_INLINE or array.dtype.kind == "c"


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, np.generic)


def _array(value: object, path: Path) -> NDArray[Any]:
    """Read an array, once, and refuse what would not come back: masks, objects, bytes, moments."""
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{_dotted(path)}: expected an array without a mask, which would be lost; nothing was stored; "
            "fill it, or put the mask beside it"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{_dotted(path)}: expected an array, got {error}; nothing was stored") from error
    return array if array.dtype.kind == "U" else array.astype(storable_dtype(array.dtype), copy=False)


def _numpy_note(path: Path, array: NDArray[Any] | np.generic) -> dict[str, Any]:
    return {"path": list(path[1:]), "dtype": array.dtype.str, "shape": list(array.shape)}


def _plain(result: Result, notes: list[dict[str, Any]], path: Path, value: object) -> object:
    """Return a value in JSON's types, noting what it was where those do not say it. Tuples become lists."""
    if isinstance(value, np.generic):
        if value.dtype.kind not in "biufU" or (value.dtype.itemsize > 8 and value.dtype.kind == "f"):
            raise InputError(
                f"{_dotted(path)}: JSON has no {value.dtype}; nothing was stored; give a number or an array"
            )
        notes.append(_numpy_note(path, value))
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        names = [_checked_name(name, path) for name in value]
        return {name: _plain(result, notes, (*path, name), value[name]) for name in names}
    if isinstance(value, list | tuple):
        return [_plain(result, notes, (*path, number), inner) for number, inner in enumerate(value)]
    if _is_array(value):
        return _nested_array(result, notes, path, _array(value, path))
    raise InputError(
        f"{_dotted(path)}: expected numbers, text, None, arrays, or lists and mappings of them, got "
        f"{type(value).__name__}; nothing was stored"
    )


def _nested_array(result: Result, notes: list[dict[str, Any]], path: Path, array: NDArray[Any]) -> object:
    """Keep a small array where it is and give a large one a data key of its own."""
    if not _is_asset(array):
        notes.append(_numpy_note(path, array))
        return array.reshape(-1).tolist()
    key = _add_array(result, _dotted(path), array)
    result.declared[key]["lifted"] = list(path)
    return None


def _checked_name(name: object, path: Path) -> str:
    if not isinstance(name, str):
        where = f"{_dotted(path)}: " if path else ""
        raise InputError(f"{where}expected names that are text, got {name!r:.50}; nothing was stored")
    return name


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


# -- tables --------------------------------------------------------------------------------------------


def _structured(data: np.ndarray[Any, Any] | np.void) -> Result:
    if isinstance(data, np.ma.MaskedArray) or data.ndim != 1:
        raise InputError(
            f"expected a structured array of one axis and no mask, got shape {data.shape}; nothing was stored"
        )
    result = Result("table")
    for name in data.dtype.names or ():
        of = data.dtype[name]
        _add_column(result, name, data[name], {"dtype": of.base.str, "shape": list(of.shape)})
    return result


def _frame(frame: Any) -> Result:
    if frame.columns.nlevels > 1 or frame.index.nlevels > 1:
        raise InputError(
            "expected a table with one row of names and one index; nothing was stored; reset_index() first"
        )
    names = [_checked_name(name, ("columns",)) for name in frame.columns]
    if len(set(names)) < len(names):
        raise InputError(f"expected columns of different names, got {names}; nothing was stored")
    result = Result("frame")
    index = frame.index
    if index.name is not None or str(index.dtype) != "int64" or list(index) != list(range(len(index))):
        name = "index"
        while name in names:
            name += "'"
        note = {"index": _checked_name(index.name or "", ("index",))}
        _add_column(result, name, *_pandas_column(name, index.to_series(), note))
    for name in names:
        _add_column(result, name, *_pandas_column(name, frame[name], {}))
    return result


def _pandas_column(name: str, column: Any, note: dict[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    dtype = str(column.dtype)
    note = {"dtype": dtype, **note}
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(), note
    if dtype not in EXTENDED_DTYPES:
        raise InputError(
            f"column {name!r}: expected numbers, text or moments without a zone, got {dtype}; nothing was "
            "stored; convert it with .astype() first"
        )
    values = np.empty(len(column), dtype=object)
    for row, (value, missing) in enumerate(zip(column, column.isna(), strict=True)):
        values[row] = None if missing else value.item() if isinstance(value, np.generic) else value
    return values, note


def _add_column(result: Result, name: str, column: NDArray[Any], note: dict[str, Any]) -> None:
    if column.dtype.kind in "mM":
        column = column.astype(column.dtype.newbyteorder("<"), copy=False).view(np.int64)
    key = _add(result, name, column.tolist() if column.dtype.kind == "O" else np.ascontiguousarray(column))
    result.declared[key]["column"] = note
    result.declared[key]["dims"] = ["row", *(f"dim_{axis}" for axis in range(1, column.ndim))]


# -- and back ------------------------------------------------------------------------------------------


def put_together(kind: str, values: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return what was taken apart; ``values`` as the event holds them, stored arrays as lazy ones.

    Raises
    ------
    InvalidDocument
        The values are not what the data keys say.
    MissingExtra
        It is a DataFrame, and pandas is not installed.
    """
    try:
        tree: dict[str, Any] = {}
        notes: dict[str, Any] = {}
        for key, data_key in declared.items():
            if "lifted" not in data_key:
                name = data_key.get("name", key)
                tree[name] = values[key][LIST] if data_key.get("wrapped") else values[key]
                notes[name] = data_key.get("column")
                for note in data_key.get("numpy", ()):
                    _change(tree, [name, *note["path"]], _numpy_maker(note))
        for key, data_key in declared.items():
            if "lifted" in data_key:
                _change(tree, data_key["lifted"], lambda _, array=values[key]: array)
        if kind in {"array", "value"}:
            (only,) = tree.values()
            return only
        if kind == "mapping":
            return tree
        columns = {name: _column(column, notes[name]) for name, column in tree.items()}
        return _as_table(columns, notes) if kind == "table" else _as_frame(columns, notes)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InvalidDocument(
            f"expected a {kind} as put() stores it, got an event that does not fit its descriptor ({error!r})"
        ) from error


def _numpy_maker(note: Mapping[str, Any]) -> Callable[[Any], Any]:
    dtype, shape = np.dtype(note["dtype"]), tuple(note["shape"])
    return lambda held: np.asarray(held, dtype).reshape(shape)[()]


def _change(tree: Any, path: Sequence[str | int], change: Callable[[Any], object]) -> None:
    *above, last = path
    for step in above:
        tree = tree[step]
    tree[last] = change(tree[last])


def _column(values: Any, note: Mapping[str, Any]) -> Any:
    if note["dtype"] in EXTENDED_DTYPES or np.dtype(note["dtype"]).kind == "O":
        column = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            column[row] = value
        return column
    array = values.compute() if isinstance(values, LazyArray) else np.asarray(values)
    dtype = np.dtype(note["dtype"])
    if dtype.kind in "mM":
        array = array.view(dtype.newbyteorder("<"))
    return array.astype(dtype, copy=False)


def _as_table(columns: Mapping[str, Any], notes: Mapping[str, Mapping[str, Any]]) -> NDArray[Any]:
    fields = [(name, note["dtype"], tuple(note["shape"])) for name, note in notes.items()]
    table = np.empty(len(next(iter(columns.values()))), dtype=fields)
    for name, column in columns.items():
        table[name] = column
    return table


def _as_frame(columns: Mapping[str, Any], notes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra(
            "a DataFrame needs pandas: python -m pip install 'gently-bluesky[xarray]'; nothing was read"
        ) from error
    series = {name: pd.Series(column, dtype=notes[name]["dtype"]) for name, column in columns.items()}
    of_index = next((name for name in notes if "index" in notes[name]), None)
    if of_index is None:
        return pd.DataFrame(series)
    index = pd.Index(series.pop(of_index), name=notes[of_index]["index"] or None)
    return pd.DataFrame({name: column.set_axis(index) for name, column in series.items()}, index=index)
