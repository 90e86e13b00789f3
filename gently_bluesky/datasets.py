"""Streams as the tables and datasets that people analyse: pandas and xarray, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

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
    """Return a dataset along ``t``, rows as `event_table`; two arrays whose axes of one name differ get axes of
    their own.

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
    coords: dict[str, Any] = {
        "time": ("t", np.array([event["time"] for event in rows.values()], dtype=float), {"units": "s"}),
        "seq_num": ("t", np.array([*rows], dtype=np.int64)),
    }
    variables: dict[str, Any] = {}
    axes: dict[str, tuple[int, float, str | None]] = {}
    for key in stream:
        array = stream[key][: len(rows)]  # what is announced by stream_datum may be ahead of its event
        dims: list[str] = []
        for dim, length, scale, unit in zip(array.dims, array.shape, array.scale, array.units, strict=True):
            kind = (length, scale, unit)
            name = dim if axes.setdefault(dim, kind) == kind else f"{key}_{dim}"
            axes[name] = kind
            dims.append(name)
        data = array.to_dask() if array.dtype != object and array.uid else array.compute()
        variables[key] = (dims, data)
    coords.update(
        (name, (name, np.arange(length) * scale, {"units": unit}))
        for name, (length, scale, unit) in axes.items()
        if unit is not None
    )
    return xr.Dataset(variables, coords=coords, attrs={"stream": stream.name})


def _rows(stream: StreamLike) -> dict[int, Mapping[str, Any]]:
    """Return the events by ``seq_num``, and where there are none an empty one for each that was announced."""
    if stream.events:
        return {event["seq_num"]: event for event in stream.events}
    announced = {seq_num for uids in stream.unnamed.values() for seq_num in uids}
    return {seq_num: {"time": float("nan"), "data": {}} for seq_num in sorted(announced)}
