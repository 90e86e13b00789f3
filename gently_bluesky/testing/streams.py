"""A Hypothesis strategy for whole streams of valid documents. Needs hypothesis; no other module here imports it.

What is drawn is what well-behaved devices and a RunEngine send; nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

__all__ = ["document_streams"]

Named = tuple[str, dict[str, Any]]
Drawn = TypeVar("Drawn")

NAMES = st.text(
    st.characters(exclude_characters="./", exclude_categories=["Cs"]), min_size=1, max_size=8
) | st.sampled_from(["camera", "Camera", "view_a", "a-b", "con", "Zürich 1", "=2d"])
NUMBERS = st.floats() | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda held: st.lists(held, max_size=3) | st.dictionaries(NAMES, held, max_size=3),
    max_leaves=4,
)
SMALL_DTYPES = ("?", "<u1", "<i2", "<i8", "<u8", "<f2", "<f4", "<f8", "<U3")
FRAME_DTYPES = ("?", "<u1", "<u2", ">u2", "<i4", "<i8", "<f2", "<f4", ">f8", "<c8", "<c16")
LAYOUTS: tuple[Callable[[NDArray[Any]], NDArray[Any]], ...] = (
    np.asarray,
    np.asfortranarray,
    lambda array: array[::-1, ::-1],
)
TRACE = np.arange(2100, dtype="<f8")
"""More than an event holds itself."""


class _Key(NamedTuple):
    """What a descriptor says of a data key, and what its events hold; None if others hold it elsewhere."""

    declared: Mapping[str, Any]
    values: st.SearchStrategy[Any] | None


@st.composite
def document_streams(draw: st.DrawFn, *, max_runs: int = 2, foreign: bool = True) -> list[Named]:
    """Draw a stream of valid documents: ``[(name, document), ...]``, in an order in which they may come.

    One run or several, interleaved, each with some streams, interleaved too; descriptors with configuration and
    hints, and further ones that change shapes; events, alone or in pages, of numbers, text, lists, small arrays
    and arrays of up to five axes, big-endian or laid out otherwise too; `seq_num` that a rewind repeats; documents that
    come twice; runs that are aborted, fail, or never stop. Descriptors are exact, and stops count what came.

    Uids are the same from one example to the next: give each example a store of its own.

    Parameters
    ----------
    max_runs
        Most runs.
    foreign
        Whether there may be assets that other writers made, with their resource, datum, stream_resource and
        stream_datum documents. Their files are not there.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> from event_model import DocumentRouter
    >>> @settings(max_examples=5)
    ... @given(document_streams())
    ... def test_router_takes_whatever_comes(documents):
    ...     router = DocumentRouter()
    ...     for name, doc in documents:
    ...         router(name, doc)
    >>> test_router_takes_whatever_comes()
    """
    count = draw(st.integers(1, max_runs))
    return _merged(draw, [_run(draw, f"run-{number}", foreign=foreign) for number in range(count)])


def _merged(draw: st.DrawFn, sequences: Sequence[list[Drawn]]) -> list[Drawn]:
    """Return the members of all sequences, those of each in their order."""
    turns = [number for number, sequence in enumerate(sequences) for _ in sequence]
    if len(sequences) > 1 and draw(st.booleans()):
        turns = draw(st.permutations(turns))
    rest = [iter(sequence) for sequence in sequences]
    return [next(rest[number]) for number in turns]


def _run(draw: st.DrawFn, uid: str, *, foreign: bool) -> list[Named]:
    known = {
        "plan_name": st.text(max_size=8),
        "sample": st.text(max_size=8) | st.dictionaries(NAMES, VALUES, max_size=2),
        "scan_id": st.integers(0, 2**40),
        "session": st.text(max_size=8),
        "hints": st.just({"dimensions": [[["motor"], "primary"]]}),
        "note": VALUES,
    }
    metadata = draw(st.fixed_dictionaries({}, optional=known))
    time_s = draw(st.floats(1e9, 2e9))
    start = {"uid": uid, "time": time_s, **metadata}
    names = draw(st.lists(NAMES, max_size=2, unique=True))
    streams = [_Stream(draw, uid, f"{uid}-{number}", name) for number, name in enumerate(names)]
    body: list[Named] = [
        ("start", start),
        *_merged(draw, [one.documents(foreign=foreign) for one in streams]),
    ]
    body = _with_repetitions(draw, body)
    if draw(st.integers(0, 4)) == 4:
        return body
    stop = {
        "uid": f"{uid}-stop",
        "run_start": uid,
        "time": time_s + 1,
        "exit_status": draw(st.sampled_from(["success", "abort", "fail"])),
        "reason": draw(st.text(max_size=8)),
        "num_events": {one.name: one.last for one in streams},
    }
    return [*body, *[("stop", stop)] * draw(st.sampled_from([1, 1, 1, 2]))]


def _with_repetitions(draw: st.DrawFn, documents: list[Named]) -> list[Named]:
    """Have a few documents come again, some time later."""
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        first = draw(st.integers(0, len(documents) - 1))
        documents.insert(draw(st.integers(first + 1, len(documents))), documents[first])
    return documents


class _Stream:
    """The documents of one stream of one run."""

    def __init__(self, draw: st.DrawFn, run_uid: str, uid: str, name: str) -> None:
        self.name = name
        self.last = 0
        self._draw = draw
        self._run_uid = run_uid
        self._uid = uid
        self._events = 0
        self._placed: dict[str, int] = {}
        """Frames of each foreign asset that were announced."""

    def documents(self, *, foreign: bool) -> list[Named]:
        documents: list[Named] = []
        names = self._draw(st.lists(NAMES, max_size=4, unique=True))
        kinds = [self._draw(st.sampled_from([*OWN, *(FOREIGN if foreign else ())])) for _ in names]
        for number in range(self._draw(st.sampled_from([1, 1, 1, 2]))):
            keys = {name: self._draw(kind()) for name, kind in zip(names, kinds, strict=True)}
            descriptor = self._descriptor(f"{self._uid}-descriptor-{number}", keys)
            documents.append(("descriptor", descriptor))
            for _ in range(self._draw(st.integers(0, 3))):
                count = self._draw(st.sampled_from([None, None, 1, 2]))
                documents += self._page(descriptor, keys, count)
        return documents

    def _descriptor(self, uid: str, keys: Mapping[str, _Key]) -> dict[str, Any]:
        said = self._draw(
            st.fixed_dictionaries({}, optional={"units": st.text(max_size=3), "precision": st.integers(0, 9)})
        )
        exposure = {"source": "test", "dtype": "number", "shape": []}
        configuration = {
            "data": {"exposure_s": self._draw(st.floats()), "pixel_size_um": 0.1625},
            "timestamps": {"exposure_s": 1.0, "pixel_size_um": 1.0},
            "data_keys": {"exposure_s": exposure, "pixel_size_um": exposure},
        }
        return {
            "uid": uid,
            "run_start": self._run_uid,
            "time": self._draw(st.floats(1e9, 2e9)),
            "name": self.name,
            "data_keys": {name: {"source": "test", **said, **key.declared} for name, key in keys.items()},
            "configuration": {"device": configuration} if self._draw(st.booleans()) else {},
            "hints": {"device": {"fields": [*keys][:1]}} if self._draw(st.booleans()) else {},
            "object_keys": {"device": [*keys]},
        }

    def _page(
        self, descriptor: Mapping[str, Any], keys: Mapping[str, _Key], count: int | None
    ) -> list[Named]:
        """Return one event, or a page of so many, behind what announces the foreign assets in it."""
        is_streamed = {name for name, key in keys.items() if key.declared.get("external") == "STREAM:"}
        before: list[Named] = []
        events: list[dict[str, Any]] = []
        for _ in range(count or 1):
            self.last = self._draw(st.sampled_from([self.last + 1, self.last + 1, max(1, self.last)]))
            for name in keys:
                if keys[name].values is None:
                    before += self._foreign(descriptor["uid"], name, is_streamed=name in is_streamed)
            events.append(self._event(descriptor["uid"], keys, is_streamed))
        if is_streamed and is_streamed == set(keys):
            return before  # no event has anything to say
        if count is None:
            return [*before, ("event", events[0])]
        return [*before, ("event_page", _page_of(events, keys.keys() - is_streamed))]

    def _event(self, descriptor_uid: str, keys: Mapping[str, _Key], is_streamed: set[str]) -> dict[str, Any]:
        self._events += 1
        data = {
            name: self._datum_id(name) if key.values is None else self._draw(key.values)
            for name, key in keys.items()
            if name not in is_streamed
        }
        return {
            "uid": f"{self._uid}-event-{self._events}",
            "descriptor": descriptor_uid,
            "time": self._draw(st.floats(1e9, 2e9)),
            "seq_num": self.last,
            "data": data,
            "timestamps": {name: self._draw(st.floats(1e9, 2e9)) for name in data},
            "filled": {name: False for name in data if keys[name].values is None},
        }

    def _asset(self, name: str) -> str:
        return f"{self._uid}-asset-{name}"

    def _datum_id(self, name: str) -> str:
        return f"{self._asset(name)}/{self._placed[name] - 1}"

    def _foreign(self, descriptor_uid: str, name: str, *, is_streamed: bool) -> list[Named]:
        """Announce the next frame of another writer's asset, and the asset before its first one."""
        uid, place = self._asset(name), self._placed.get(name, 0)
        self._placed[name] = place + 1
        if is_streamed:
            resource = {
                "data_key": name,
                "mimetype": "application/x-other",
                "uri": "file://localhost/elsewhere/x",
                "parameters": {},
            }
            datum = {
                "uid": self._datum_id(name),
                "stream_resource": uid,
                "descriptor": descriptor_uid,
                "indices": {"start": place, "stop": place + 1},
                "seq_nums": {"start": self.last, "stop": self.last + 1},
            }
            names = "stream_resource", "stream_datum"
        else:
            resource = {
                "spec": "OTHER",
                "root": "/elsewhere",
                "resource_path": "x",
                "resource_kwargs": {},
                "path_semantics": "posix",
            }
            datum = {"datum_id": self._datum_id(name), "resource": uid, "datum_kwargs": {"frame": place}}
            names = "resource", "datum"
            if self._draw(st.booleans()):
                datum = {"datum_id": [datum["datum_id"]], "resource": uid, "datum_kwargs": {"frame": [place]}}
                names = "resource", "datum_page"
        announced = [] if place else [(names[0], {"uid": uid, "run_start": self._run_uid, **resource})]
        return [*announced, (names[1], datum)]


def _page_of(events: Sequence[Mapping[str, Any]], names: set[str]) -> dict[str, Any]:
    columns = {key: [event[key] for event in events] for key in ("uid", "time", "seq_num")}
    tables = {
        table: {name: [event[table][name] for event in events] for name in names if name in events[0][table]}
        for table in ("data", "timestamps", "filled")
    }
    return {"descriptor": events[0]["descriptor"], **columns, **tables}


# -- kinds of data keys -----------------------------------------------------------------------------------


def _scalar(dtype: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[_Key]:
    return st.just(_Key({"dtype": dtype, "shape": list[int]()}, values))


def _reading() -> st.SearchStrategy[_Key]:
    """Return a number of numpy's, alone or as an array without axes."""
    made = st.builds(
        lambda make, number: make(np.float32(number)),
        st.sampled_from([np.float32, np.asarray]),
        st.floats(width=32),
    )
    return st.just(_Key({"dtype": "number", "shape": list[int](), "dtype_numpy": "<f4"}, made))


@st.composite
def _array(draw: st.DrawFn, dtypes: Sequence[str], least_ndim: int, most_ndim: int) -> _Key:
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(npst.array_shapes(min_dims=least_ndim, max_dims=most_ndim, max_side=3))
    layout = draw(st.sampled_from(LAYOUTS)) if least_ndim > 1 else np.asarray
    declared = {"dtype": "array", "shape": [*shape], "dtype_numpy": dtype.newbyteorder("<").str}
    return _Key(declared, npst.arrays(dtype, shape).map(_plain_nan).map(layout))


def _plain_nan(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array whose NaN are all the one that JSON has."""
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array


@st.composite
def _list(draw: st.DrawFn) -> _Key:
    length = draw(st.integers(1, 3))
    values = st.lists(draw(st.sampled_from([NUMBERS, st.text(max_size=3)])), min_size=length, max_size=length)
    return _Key({"dtype": "array", "shape": [length]}, values)


def _ragged() -> st.SearchStrategy[_Key]:
    return st.just(
        _Key({"dtype": "array", "shape": [2]}, st.integers().map(lambda number: [[1, 2], [number]]))
    )


def _spelt() -> st.SearchStrategy[_Key]:
    """Return an array as a list of lists."""
    row = st.lists(st.integers(-128, 127), min_size=3, max_size=3)
    declared = {"dtype": "array", "shape": [2, 3], "dtype_numpy": "<i2"}
    return st.just(_Key(declared, st.lists(row, min_size=2, max_size=2)))


def _trace() -> st.SearchStrategy[_Key]:
    declared = {"dtype": "array", "shape": [TRACE.size], "dtype_numpy": "<f8"}
    return st.just(_Key(declared, st.integers(0, 99).map(lambda number: TRACE + number)))


def _empty() -> st.SearchStrategy[_Key]:
    declared = {"dtype": "array", "shape": [0, 3], "dtype_numpy": "<i4"}
    return st.just(_Key(declared, st.builds(lambda: np.empty((0, 3), "<i4"))))


OWN: tuple[Callable[[], st.SearchStrategy[_Key]], ...] = (
    lambda: _scalar("number", st.floats()),
    lambda: _scalar("integer", st.integers()),
    lambda: _scalar("string", st.text(max_size=8)),
    lambda: _scalar("boolean", st.booleans()),
    _reading,
    lambda: _array(SMALL_DTYPES, 1, 1),
    _list,
    _ragged,
    _empty,
    lambda: _array(FRAME_DTYPES, 2, 5),
    lambda: _array(FRAME_DTYPES, 2, 3),
    lambda: _array(("<c16",), 1, 1),
    _spelt,
    _trace,
)
FOREIGN: tuple[Callable[[], st.SearchStrategy[_Key]], ...] = (
    lambda: st.just(_Key({"dtype": "array", "shape": [2, 3], "external": "FILESTORE:"}, None)),
    lambda: st.just(_Key({"dtype": "array", "shape": [2, 3], "external": "STREAM:"}, None)),
)
