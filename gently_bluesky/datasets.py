"""Streams as the tables and datasets that people analyse: pandas and xarray, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import MissingExtra
from gently_bluesky.lazy import LazyArray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["StreamLike", "event_table", "stream_dataset"]


class StreamLike(Protocol):
    """What is needed of a stream: its events, what was announced beside them, and the array of each data key."""

    @property
    def name(self) -> str:
        """Of the stream."""
        ...

    @property
    def run_uid(self) -> str:
        """Of its run."""
        ...

    @property
    def start_s(self) -> float:
        """When its run began, in seconds since the epoch."""
        ...

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """One event document for each ``seq_num``."""
        ...

    @property
    def unnamed(self) -> Mapping[str, Mapping[int, str]]:
        """Of data keys that no event names, the uid of the stream_datum for each ``seq_num``."""
        ...

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, data_key: str, /) -> LazyArray: ...


def event_table(stream: StreamLike) -> pd.DataFrame:
    """Return one row for each event: ``time``, then a column for each data key, indexed by ``seq_num``.

    Where no event came, as of a flyer that announces arrays only, there is one for each ``seq_num`` of these.

    Raises
    ------
    MissingExtra
        pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("a table needs pandas: python -m pip install 'gently-bluesky[xarray]'") from error
    rows, unnamed = _rows(stream), stream.unnamed
    columns: dict[str, list[Any]] = {"time": [event["time"] for event in rows.values()]}
    for key in stream:
        uids = unnamed.get(key, {})
        columns[key] = [event["data"].get(key, uids.get(seq_num)) for seq_num, event in rows.items()]
    return pd.DataFrame(columns, index=pd.Index([*rows], name="seq_num"))


def stream_dataset(stream: StreamLike) -> xr.Dataset:
    """Return a dataset along ``t``, rows as `event_table`, with coordinates in seconds and micrometres.

    ``t`` is in seconds from the run's start, ``time`` the moment itself, in UTC; neither is known where no event
    came. ``z``, ``y`` and ``x`` are in micrometres from the first pixel, ``v`` or ``c`` the names of the views or
    channels, each where it is known. Two arrays whose axes of one name differ get axes of their own; a data key that
    is called like an axis or a coordinate, say a motor ``x``, has the stream's name in front of its own.

    Raises
    ------
    MissingExtra
        xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingExtra(
            "to_xarray() needs xarray: python -m pip install 'gently-bluesky[xarray]'"
        ) from error
    rows = _rows(stream)
    coords = _times(stream, np.array([event["time"] for event in rows.values()], dtype=float))
    coords["seq_num"] = ("t", np.array([*rows], dtype=np.int64))
    variables: dict[str, Any] = {}
    axes: dict[str, _Axis] = {}
    for key in stream:
        array = stream[key][: len(rows)]  # what is announced by stream_datum may be ahead of its event
        dims: list[str] = []
        for dim, length, scale, unit in zip(array.dims, array.shape, array.scale, array.units, strict=True):
            axis = _Axis(length, scale, unit, array.channels if dim in ("v", "c") else ())
            name = dim if axes.setdefault(dim, axis) == axis else f"{key}_{dim}"
            axes[name] = axis
            dims.append(name)
        data = array.to_dask() if array.dtype != object and array.uid else array.compute()
        variables[key] = (dims, data, {"uid": array.uid} if array.uid else {})
    for name, axis in axes.items():
        if axis.labels:
            coords[name] = (name, np.array(axis.labels))
        elif axis.unit is not None:
            coords[name] = (name, np.arange(axis.length) * axis.scale, {"units": axis.unit})
    taken = {*coords, *axes}
    named = {f"{stream.name}_{key}" if key in taken else key: variables[key] for key in variables}
    return xr.Dataset(named, coords=coords, attrs={"run": stream.run_uid, "stream": stream.name})


class _Axis(NamedTuple):
    """What arrays that share an axis agree on."""

    length: int
    scale: float
    unit: str | None
    labels: tuple[str, ...]


def _times(stream: StreamLike, times_s: NDArray[np.float64]) -> dict[str, Any]:
    """Return when the events were, by the clock and from the run's start."""
    known = np.isfinite(times_s)
    moments = np.full(len(times_s), np.datetime64("NaT"), "datetime64[ns]")
    # seconds since the epoch are known to a fraction of a microsecond in double precision, and no better
    moments[known] = np.round(times_s[known] * 1e6).astype("datetime64[us]")
    found: dict[str, Any] = {"time": ("t", moments, {"long_name": "time of the event, UTC"})}
    if known.all():
        said = {"units": "s", "long_name": "time from the run's start"}
        found["t"] = ("t", times_s - stream.start_s, said)
    return found


def _rows(stream: StreamLike) -> dict[int, Mapping[str, Any]]:
    """Return the events by ``seq_num``, and where there are none an empty one for each that was announced."""
    if stream.events:
        return {event["seq_num"]: event for event in stream.events}
    announced = {seq_num for uids in stream.unnamed.values() for seq_num in uids}
    return {seq_num: {"time": float("nan"), "data": {}} for seq_num in sorted(announced)}
