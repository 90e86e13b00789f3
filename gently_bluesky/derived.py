"""Derived results as small Bluesky runs, and back: what `Store.put` writes and `Store.get` reads."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from gently_bluesky.documents.assets import DEFAULT_DIMS, array_to_store
from gently_bluesky.errors import InputError, InvalidDocument
from gently_bluesky.model import Record
from gently_bluesky.run import Run

__all__ = ["Derivation", "read_result"]

OF_ONE_RUN = frozenset(
    "uid time scan_id plan_name plan_type plan_args plan_pattern plan_pattern_args plan_pattern_module num_points "
    "num_intervals detectors motors hints versions data_type lineage result".split()
)
"""Start-document keys that say something of one run only and are not taken over by what is derived from it."""

STREAM = "primary"
DEVICE = "put"


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a result came to be: everything of its run but the data.

    Attributes
    ----------
    parents, runs
        Records of what it was made from, and of the runs those belong to.
    steps_um
        Step along each axis of space, by name, in micrometres, as the first parent has it.
    """

    data_type: str
    parents: tuple[Record, ...]
    runs: tuple[Record, ...]
    operation: str | None
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    dims: tuple[str, ...] | None = None
    steps_um: Mapping[str, float] = field(default_factory=dict[str, float])

    def documents(self, data: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the documents of a whole run that holds ``data``, arrays and all.

        Raises
        ------
        InputError
            ``data`` is nothing that can be kept.
        """
        kind, values = _values(data, self.data_type)
        now_s = time.time()
        start = self._start(kind, now_s)
        descriptor = self._descriptor(values, start["uid"], now_s)
        event = {
            "uid": str(uuid.uuid4()),
            "descriptor": descriptor["uid"],
            "time": now_s,
            "seq_num": 1,
            "data": values,
            "timestamps": dict.fromkeys(values, now_s),
            "filled": {},
        }
        stop = {
            "uid": str(uuid.uuid4()),
            "run_start": start["uid"],
            "time": now_s,
            "exit_status": "success",
            "num_events": {STREAM: 1},
        }
        yield "start", start
        yield "descriptor", descriptor
        yield "event", event
        yield "stop", stop

    def _start(self, kind: str, now_s: float) -> dict[str, Any]:
        lineage: dict[str, Any] = {
            "parents": [parent.uid for parent in self.parents],
            "operation": self.operation,
            "parameters": dict(self.parameters),
            "environment": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "gently-bluesky": version("gently-bluesky"),
            },
        }
        own = {"uid": str(uuid.uuid4()), "time": now_s, "data_type": self.data_type, "result": kind}
        return {**self._agreed(), **self.metadata, **own, "lineage": lineage}

    def _agreed(self) -> dict[str, Any]:
        """Return what the start documents of all parents' runs agree on."""
        if not self.runs:
            return {}
        first, *others = (run.metadata for run in self.runs)
        return {
            key: value
            for key, value in first.items()
            if key not in OF_ONE_RUN and all(key in other and other[key] == value for other in others)
        }

    def _descriptor(self, values: Mapping[str, Any], run_uid: str, now_s: float) -> dict[str, Any]:
        steps: dict[str, Any] = {}
        if "y" in self.steps_um and "x" in self.steps_um:
            steps["pixel_size_um"] = [self.steps_um["y"], self.steps_um["x"]]
        if "z" in self.steps_um:
            steps["z_step_um"] = self.steps_um["z"]
        kinds = {"pixel_size_um": ("array", [2]), "z_step_um": ("number", [])}
        return {
            "uid": str(uuid.uuid4()),
            "run_start": run_uid,
            "time": now_s,
            "name": STREAM,
            "data_keys": {key: self._data_key(value) for key, value in values.items()},
            "object_keys": {DEVICE: list(values)},
            "configuration": {
                DEVICE: {
                    "data": steps,
                    "timestamps": dict.fromkeys(steps, now_s),
                    "data_keys": {
                        name: {"source": DEVICE, "dtype": kinds[name][0], "shape": kinds[name][1], "units": "um"}
                        for name in steps
                    },
                }
            },
            "hints": {DEVICE: {"fields": []}},
        }

    def _data_key(self, value: object) -> dict[str, Any]:
        array = array_to_store(value)
        if array is None:
            # said exactly by the first event, but for mappings and None, for which event-model has no word
            return {"source": DEVICE, "dtype": "string", "shape": []}
        dims = self.dims or DEFAULT_DIMS.get(array.ndim) or ()
        return {"source": DEVICE, "dtype": "array", "shape": list(array.shape), "dims": list(dims)}


def has_assets(data: object) -> bool:
    """Say whether keeping ``data`` takes files of its own beside the journal."""
    _, values = _values(data, "value")
    return any(array_to_store(value) is not None for value in values.values())


def _values(data: object, data_type: str) -> tuple[str, dict[str, Any]]:
    """Return what kind of result ``data`` is, and its parts by data key."""
    if isinstance(data, Mapping):
        if not data or not all(isinstance(key, str) for key in data):
            raise InputError(f"expected a mapping of names to values, got {data!r:.200}; nothing was stored")
        return "mapping", dict(data)
    if hasattr(data, "columns") and hasattr(data, "to_records"):
        data = data.to_records(index=False)  # pyright: ignore[reportAttributeAccessIssue] # a DataFrame
    if isinstance(data, np.ndarray) and data.dtype.names:
        return "table", {name: _column(data[name]) for name in data.dtype.names}
    if isinstance(data, int | float | str | np.generic):
        return "value", {data_type: data}
    if hasattr(data, "__array__") or isinstance(data, list | tuple):
        return "array", {data_type: np.asarray(data)}
    raise InputError(
        f"expected an array, a mapping, a table or a value, got {type(data).__name__}; nothing was stored"
    )


def _column(column: np.ndarray[Any, Any]) -> object:
    return column.tolist() if column.dtype.kind in "OU" else np.ascontiguousarray(column)


def read_result(run: Run) -> Any:
    """Return what a derived run holds, as it was given; an acquired run is returned as it is.

    Raises
    ------
    InvalidDocument
        The run says that it holds a result and does not.
    """
    kind = run.start.get("result")
    if kind not in {"array", "mapping", "table", "value"}:
        return run
    event = next((doc for name, doc in run.documents() if name == "event"), None)
    if event is None:
        raise InvalidDocument(f"run {run.uid} ({run.status}) should hold a {kind} and holds no event")
    stream = run[STREAM]
    stored = {key for key, filled in event.get("filled", {}).items() if not filled}
    declared = next(doc for name, doc in run.documents() if name == "descriptor")["data_keys"]
    values = {
        key: stream[key][0] if key in stored else _restored(value, declared[key])  # pyright: ignore[reportArgumentType] # "primary" is a stream
        for key, value in event["data"].items()
    }
    if kind in {"array", "value"}:
        return next(iter(values.values()))
    if kind == "mapping":
        return values
    columns = {name: np.asarray(column) for name, column in values.items()}
    table = np.empty(len(next(iter(columns.values()))), dtype=[(name, c.dtype) for name, c in columns.items()])
    for name, column in columns.items():
        table[name] = column
    return table


def _restored(value: object, declared: Mapping[str, Any]) -> object:
    """Return a value from an event as it was before JSON: an array where its data key says so."""
    if isinstance(value, list) and isinstance(declared.get("dtype_numpy"), str):
        return np.asarray(value, dtype=declared["dtype_numpy"]).reshape(declared["shape"])
    return value
