"""Derived results as small Bluesky runs, and back: what `Store.put` writes and `Store.get` reads."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import orjson

from gently_bluesky.documents.assets import DEFAULT_DIMS
from gently_bluesky.errors import GentlyError, InvalidDocument, InvalidSetting, UnknownUid
from gently_bluesky.jsontext import plain
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record
from gently_bluesky.results import KINDS, Result, put_together
from gently_bluesky.run import Run
from gently_bluesky.sources import InlineSource
from gently_bluesky.streams import Stream

__all__ = ["Derivation", "parent_uids", "read_result", "record_run", "steps_um"]

OF_ONE_RUN = frozenset(
    (
        *(
            "uid",
            "time",
            "scan_id",
            "plan_name",
            "plan_type",
            "plan_args",
            "plan_pattern",
            "plan_pattern_args",
        ),
        *("plan_pattern_module", "num_points", "num_intervals", "detectors", "motors", "hints", "versions"),
        *("data_type", "lineage", "result"),
    )
)
"""Start-document keys that say something of one run only and are not taken over by what is made from it."""

OURS = frozenset({"uid", "time", "lineage", "result", "scan_id"})
"""Start-document keys that `Store.put` sets itself; and that by which an acquired run is told from a result."""

STREAM = "primary"
DEVICE = "put"

Named = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a result came to be: everything of its run but the data.

    Attributes
    ----------
    parents, runs
        Records of what it was made from, and of the runs those belong to.
    steps_um
        Step along each axis of space, by name, in micrometres.

    Raises
    ------
    InvalidSetting
        ``metadata`` sets what is set here, or ``dims`` are no names.
    """

    data_type: str
    parents: tuple[Record, ...]
    runs: tuple[Record, ...]
    operation: str | None
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    dims: tuple[str, ...] | None = None
    steps_um: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        taken = sorted(OURS & self.metadata.keys())
        if taken:
            raise InvalidSetting(
                f"expected metadata other than {', '.join(taken)}, which put() sets, or leaves to runs that were "
                "acquired; nothing was stored; give it another name"
            )
        if set(map(type, self.dims or ())) - {str}:
            raise InvalidSetting(f"expected dims as names, got {self.dims!r}; nothing was stored")

    def documents(self, result: Result) -> list[Named]:
        """Return the documents of a whole run that holds ``result``, arrays and all.

        Raises
        ------
        InvalidDocument
            The parameters, metadata or names hold what a document or the index cannot.
        """
        now_s = time.time()
        start = _indexable("start", self._start(result.kind, now_s))
        descriptor = _indexable("descriptor", self._descriptor(result, start["uid"], now_s))
        event = {
            "uid": str(uuid.uuid4()),
            "descriptor": descriptor["uid"],
            "time": now_s,
            "seq_num": 1,
            "data": result.values,
            "timestamps": dict.fromkeys(result.values, now_s),
            "filled": {},
        }
        stop = {
            "uid": str(uuid.uuid4()),
            "run_start": start["uid"],
            "time": now_s,
            "exit_status": "success",
            "num_events": {STREAM: 1},
        }
        return [("start", start), ("descriptor", descriptor), ("event", event), ("stop", stop)]

    def _start(self, kind: str, now_s: float) -> dict[str, Any]:
        lineage: dict[str, Any] = {
            "parents": [parent.uid for parent in self.parents],
            "operation": self.operation,
            "parameters": dict(self.parameters),
            "environment": dict(_environment()),
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

    def _descriptor(self, result: Result, run_uid: str, now_s: float) -> dict[str, Any]:
        steps: dict[str, Any] = {}
        if "y" in self.steps_um and "x" in self.steps_um:
            steps["pixel_size_um"] = [self.steps_um["y"], self.steps_um["x"]]
        if "z" in self.steps_um:
            steps["z_step_um"] = self.steps_um["z"]
        kinds: dict[str, tuple[str, list[int]]] = {
            "pixel_size_um": ("array", [2]),
            "z_step_um": ("number", []),
        }
        return {
            "uid": str(uuid.uuid4()),
            "run_start": run_uid,
            "time": now_s,
            "name": STREAM,
            "data_keys": {key: self._data_key(known) for key, known in result.declared.items()},
            "object_keys": {DEVICE: list(result.values)},
            "configuration": {
                DEVICE: {
                    "data": steps,
                    "timestamps": dict.fromkeys(steps, now_s),
                    "data_keys": {
                        name: {
                            "source": DEVICE,
                            "dtype": kinds[name][0],
                            "shape": kinds[name][1],
                            "units": "um",
                        }
                        for name in steps
                    },
                }
            },
            "hints": {DEVICE: {"fields": []}},
        }

    def _data_key(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        if declared["dtype"] != "array" or "dims" in declared:
            return {"source": DEVICE, **declared}
        ndim = len(declared["shape"])
        dims = self.dims if self.dims and len(self.dims) == ndim else DEFAULT_DIMS.get(ndim, ())
        return {"source": DEVICE, **declared, "dims": list(dims)}


@cache
def _environment() -> Mapping[str, str]:
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    return {**versions, "gently-bluesky": version("gently-bluesky")}


def _indexable(name: str, doc: dict[str, Any]) -> dict[str, Any]:
    """Return a document in JSON's types; what the index refuses would take its journal's others with it."""
    copy = plain(doc)
    try:
        orjson.dumps(copy)
    except TypeError as error:
        raise InvalidDocument(
            f"expected a {name} document of integers up to 64 bits and text in Unicode, got other ones: "
            f"{error}; it was not stored"
        ) from error
    return copy


def record_run(writer: Callable[[str, dict[str, Any]], None], documents: Sequence[Named]) -> None:
    """Send a whole run to a writer; where a document is refused, end the run and raise what was raised."""
    try:
        for name, doc in documents:
            writer(name, doc)
    except Exception:
        with suppress(GentlyError):  # the stop of a failed run raises the failure again
            writer(*documents[-1])
        raise


def parent_uids(parents: object) -> Iterator[str]:
    """Yield the uids of parents given as uids, records, runs or lazy arrays; one alone counts as one.

    Raises
    ------
    UnknownUid
        One of them is none of these.
    """
    alone = not isinstance(parents, Iterable) or isinstance(parents, str) or hasattr(parents, "uid")
    for parent in (parents,) if alone else cast("Iterable[object]", parents):
        uid = parent if isinstance(parent, str) else getattr(parent, "uid", None)
        if not isinstance(uid, str) or not uid:
            raise UnknownUid(
                f"expected parents by uid, or as records, runs or lazy arrays of a store, got "
                f"{parent!r:.100}; "
                "nothing was stored; an array in memory has no uid: give the uid of what it was computed from"
            )
        yield uid


def steps_um(dims: Iterable[str], scale: Iterable[float], units: Iterable[str | None]) -> dict[str, float]:
    """Return the step along each axis of an array that has one in micrometres, by the axis' name."""
    return {dim: step for dim, step, unit in zip(dims, scale, units, strict=True) if unit == "micrometer"}


def read_result(run: Run) -> Any:
    """Return what a derived run holds, as it was given; an acquired run is returned as it is.

    Raises
    ------
    InvalidDocument
        The run says that it holds a result and does not.
    """
    kind = run.start.get("result")
    if not isinstance(kind, str) or kind not in KINDS or "lineage" not in run.start:
        return run
    documents = list(run.documents())
    event = next((doc for name, doc in documents if name == "event"), None)
    declared = next((doc["data_keys"] for name, doc in documents if name == "descriptor"), None)
    if event is None or declared is None:
        raise InvalidDocument(f"run {run.uid} ({run.status}) should hold a {kind} and holds no event")
    stream = Stream(run, STREAM, list(declared))
    stored = {key for key, is_filled in event.get("filled", {}).items() if not is_filled}
    values = {key: stream[key][0] if key in stored else value for key, value in event["data"].items()}
    found = put_together(kind, values, declared)
    if kind == "array" and isinstance(found, np.ndarray):
        (data_key,) = declared
        dims = declared[data_key].get("dims") or [f"dim_{axis}" for axis in range(found.ndim)]
        return LazyArray(InlineSource(found), dims=tuple(dims), uid=run.uid, name=data_key)
    return found
