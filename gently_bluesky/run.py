"""The read view of one run: its documents, its streams, and every data key as a lazily sliced array."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gently_bluesky.datasets import event_table, stream_dataset
from gently_bluesky.documents.adopting import settled_lines
from gently_bluesky.documents.assets import EXTERNAL
from gently_bluesky.documents.filling import filled_lines, rooted
from gently_bluesky.documents.journal import last_line_of, read_journal
from gently_bluesky.elsewhere import Places
from gently_bluesky.errors import AmbiguousArray, AssetMissing, FixedArray, JournalDamaged, LookupFailed
from gently_bluesky.files import read_plain, storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import Lineage, ancestors, children
from gently_bluesky.lazy import LazyArray
from gently_bluesky.looking import traced
from gently_bluesky.model import JournalLine, Record
from gently_bluesky.pages import lineage_text, page, run_page
from gently_bluesky.sources import InlineSource
from gently_bluesky.stored import KeyEvents, key_events, wait_for_events
from gently_bluesky.streams import Stream
from gently_bluesky.upkeep.journals import has_stop
from gently_bluesky.upkeep.sweeping import DOCUMENTS
from gently_bluesky.upkeep.trash import explained
from gently_bluesky.watching import RunWatch

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from gently_bluesky.plots import Drawing

__all__ = ["Run"]


MOST_KEYS_LISTED = 12
"""Data keys of a stream that a line of text names."""


class Run:
    """One run. Made by ``store[uid]``; a snapshot of what was announced when each part is first asked for.

    Any thread. Nothing of it changes the store.
    """

    def __init__(self, places: Places, index: Index, record: Record) -> None:
        self._root = places.root
        self._places = places
        self._record = record
        self._watch = RunWatch(places.journals, index, record.uid)

    @property
    def _index(self) -> Index:
        return self._watch.index

    @property
    def uid(self) -> str:
        """Of the start document."""
        return self._record.uid

    @property
    def record(self) -> Record:
        """What the index keeps about the run, as of now."""
        return self._index.record(self.uid)

    @property
    def start(self) -> Mapping[str, Any]:
        """The start document."""
        return self._record.metadata

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """The stop document, or None while the run goes on or where its process has died."""
        end = self._end()
        return None if end is None else end.doc

    @property
    def storing(self) -> Mapping[str, Any] | None:
        """What the run's frames took to be stored, as its stop says; None without frames, or before the end.

        ``frames``, ``bytes``, ``bytes_per_s``, ``waited_s`` for a full buffer, ``peak_pending_bytes``.
        """
        end = self._end()
        return None if end is None else end.storing

    @property
    def status(self) -> str:
        """How the run stands: running, complete, failed, aborted, or incomplete."""
        return self._watch.status()

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in the order in which they were declared."""
        return tuple(self._index.streams(self.uid))

    def __getitem__(self, name: str) -> Stream | LazyArray:
        """Return a stream, or the array of a data key that only one stream has.

        Raises
        ------
        LookupFailed
            There is none of this name; the message lists what there is.
        AmbiguousArray
            Several streams have this data key.
        """
        streams = self._index.streams(self.uid)
        if name in streams:
            return Stream(self, name, streams[name])
        having = [stream for stream, keys in streams.items() if name in keys]
        if len(having) == 1:
            return self._array(having[0], name)
        if having:
            raise AmbiguousArray(
                f"run {self.uid[:8]}: {name!r} is in the streams {', '.join(having)}; "
                f"ask for run[stream][{name!r}]"
            )
        raise LookupFailed(f"run {self.uid[:8]} has no stream or data key {name!r}; it has {self._listed()}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.streams)

    def wait(self, stream: str, data_key: str, n: int = 1, timeout_s: float | None = None) -> LazyArray:
        """Wait until a data key has ``n`` events; return its array, ``(t, ...)``, with all there are by then.

        The stream need not be there yet, so that a display can be started before the first frame:
        ``for frame in run.wait("primary", "view_a").follow(start=0): ...``. Any thread but the RunEngine's
        own, which may have to bring the events.

        Parameters
        ----------
        n
            Events, 1 or more; those that a rewind repeats count once.
        timeout_s
            Longest wait; 0 asks once, None waits until the run ends.

        Raises
        ------
        NotYetStored
            There are fewer events, and the run goes on; call again.
        RunEnded
            There are fewer events, and there will be no more: the run is over, or its process died.
        LookupFailed
            The stream is there and has no such data key.
        FixedArray
            The data key has no stored arrays: its values stand in the events.
        AmbiguousArray, AssetMissing, AssetDamaged, InvalidDocument
            As ``run[stream][data_key]``.
        """
        of = KeyEvents(self.uid, stream, data_key)
        events = max(operator.index(n), 1)
        return wait_for_events(
            self._places, self._watch, of, events, timeout_s, lambda: self._refuse_in_vain(of)
        )

    def documents(self, *, fill: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the run's documents as they were announced, as copies.

        Resource documents name the root where the store is now, so that a moved store opens, and what the run
        has adopted is named where it is now. With ``fill``
        events hold lazy arrays in the place of references to this store's assets, and the resource and datum
        documents of those are left out.

        Raises
        ------
        AssetMissing, AssetDamaged
            With ``fill``: an asset is gone, or not what was announced; as AssetDeleted, AssetPurged or
            AssetQuarantined where somebody put it away. Iterating raises it, and reading an array.
        """
        lines = settled_lines(iter(self._lines()), self._root, self._path.parent)
        if not fill:
            return rooted(((line.name, dict(line.doc)) for line in lines), self._root)
        lines = filled_lines(
            lines, self._root, self._places.journals.overflow, explain=partial(explained, self._root)
        )
        return ((line.name, dict(line.doc)) for line in lines)

    def table(self, stream: str = "primary") -> pd.DataFrame:
        """Return a stream's events as a table, one row for each ``seq_num``.

        Times are in seconds since the epoch; stored arrays stand in it by the uids of their datums or
        stream_datums, which ``store.array`` opens. Needs the extra ``xarray``, which brings pandas.
        """
        return event_table(self._stream(stream))

    def to_xarray(self, stream: str = "primary") -> xr.Dataset:
        """Return a stream as a Dataset along ``t``, its stored arrays read lazily.

        Coordinates are ``t`` in seconds from the run's start, ``time`` by the clock (UTC), ``seq_num``, the axes of
        space in micrometres, and the names of views or channels along ``v`` or ``c``, each where it is known.
        Needs the extras ``xarray`` and, for stored arrays, ``dask``.
        """
        return stream_dataset(self._stream(stream))

    def plot(self, path: str | PathLike[str] | None = None) -> Drawing:
        """Draw the run at a glance: its numbers over time, and its last stored arrays from three sides.

        Reads all events, and the last array of up to four data keys. A notebook shows what is returned, and so do
        windows after ``%matplotlib``; elsewhere give a ``path``, e.g. ``"run.png"``; what is there is replaced.

        Raises
        ------
        MissingExtra
            matplotlib is not installed: it comes with the extra ``profile``.
        InvalidSetting, StorageError
            The picture cannot be written at ``path``.
        """
        from gently_bluesky.overviews import run_figure

        return run_figure(self, path)

    def _refuse_in_vain(self, of: KeyEvents) -> None:
        """Refuse to wait for arrays that the streams there are will not bring."""
        declared = self._index.data_keys(self.uid).get(of.stream)
        if declared is None:
            return
        if of.data_key not in declared:
            raise LookupFailed(
                f"stream {of.stream!r} of run {self.uid[:8]} has no data key {of.data_key!r}; "
                f"it has {', '.join(declared)}"
            )
        if not declared[of.data_key].get("external") and self._values(of.stream, of.data_key):
            raise FixedArray(
                f"expected a data key with stored arrays, {of} has values that stand in the events; nothing "
                "was waited for; read them with run.table()"
            )

    # -- how arrays are found ---------------------------------------------------------------------------

    def _stream(self, name: str) -> Stream:
        return Stream(self, self._known(name), self._keys(name))

    def _known(self, stream: str) -> str:
        if stream not in self._index.streams(self.uid):
            raise LookupFailed(
                f"run {self.uid[:8]} has no stream {stream!r}; it has {', '.join(self.streams) or 'none'}"
            )
        return stream

    def _keys(self, stream: str) -> list[str]:
        return self._index.streams(self.uid).get(stream, [])

    def _lines(self) -> Sequence[JournalLine]:
        lines = self._lines_now()
        if not has_stop(lines) and self._index.record(self.uid).status != "running":
            lines = self._lines_now()  # it may have ended in between
            if not has_stop(lines):
                raise JournalDamaged(
                    f"{self._path}: the index knows the end of run {self.uid}, this has {len(lines)} lines of it and "
                    "no stop: the file was damaged after it was written; nothing was read; restore it from a copy"
                )
        return lines

    def _lines_now(self) -> Sequence[JournalLine]:
        lines: list[JournalLine] = []
        for line in self._journal():
            if line.name == "start" and lines:
                break
            if lines or (line.name == "start" and line.doc["uid"] == self.uid):
                lines.append(line)
        if not lines:
            raise AssetMissing(
                f"{self._path}: run {self.uid} is not in this journal any more; nothing was read"
            )
        return lines

    def _end(self) -> JournalLine | None:
        """Return the run's stop; of a journal of its own no more is read."""
        if self._path.name == DOCUMENTS:
            tail = self._places.journals.tail(self._record.path)
            last = self._read(lambda: read_journal(tail, last_line_of(tail)))
        else:
            last = self._lines()[-1:]
        return next((line for line in last if line.name == "stop"), None)

    @property
    def _path(self) -> Path:
        return self._root / self._record.path

    def _journal(self) -> Iterator[JournalLine]:
        """Yield the lines of the journal, from where the run may begin in it."""
        scan, journal = self._places.journals.scan, self._record.path
        return self._read(lambda: (line for line, _ in scan(journal, _place(self._path, self.uid))))

    def _read(self, lines: Callable[[], Iterator[JournalLine]]) -> Iterator[JournalLine]:
        try:
            yield from lines()
        except FileNotFoundError as error:
            raise AssetMissing(
                f"{self._path}: the journal of run {self.uid} is not there; nothing was read"
            ) from error
        except OSError as error:
            raise storage_error(
                error, f"{self._path}: the journal of run {self.uid} cannot be read"
            ) from error

    def _events(self, stream: str) -> list[Mapping[str, Any]]:
        """Return the last event of each ``seq_num``: what a rewind repeated stands in the journal alone."""
        streams: dict[str, str] = {}
        last: dict[int, Mapping[str, Any]] = {}
        for line in self._lines():
            if line.name == "descriptor":
                streams[line.doc["uid"]] = line.doc.get("name", "primary")
            elif line.name == "event" and streams[line.doc["descriptor"]] == stream:
                last[line.doc["seq_num"]] = line.doc
        return [last[number] for number in sorted(last)]

    def _unnamed(self, stream: str) -> dict[str, dict[int, str]]:
        return {
            key: {point.seq_num: point.datum_uid for point in self._index.points(self.uid, stream, key)}
            for key, said in self._declared(stream).items()
            if said.get("external") == EXTERNAL["stream"]
        }

    def _declared(self, stream: str) -> Mapping[str, Mapping[str, Any]]:
        return self._index.data_keys(self.uid).get(stream, {})

    def _array(self, stream: str, data_key: str) -> LazyArray:
        found = key_events(self._places, self._watch, KeyEvents(self.uid, stream, data_key))
        if found is None or not len(found):
            values = self._values(
                stream, data_key
            )  # also of a device that promised references and gives values
            if found is None or values:
                found = self._inline_array(stream, data_key, values)
        return traced(found, lambda uid: lineage_text(self._lineage(uid)))

    def _lineage(self, uid: str) -> Lineage:
        return ancestors(self._index, uid)

    def _values(self, stream: str, data_key: str) -> list[Any]:
        """Return what stands in the events themselves, one for each ``seq_num``; references are left out."""
        return [
            event["data"][data_key]
            for event in self._events(stream)
            if data_key in event["data"] and event.get("filled", {}).get(data_key) is not False
        ]

    def _inline_array(self, stream: str, data_key: str, values: list[Any]) -> LazyArray:
        declared = self._said(data_key, stream)
        dtype = declared.get("dtype_numpy") if declared.get("dtype") == "array" else None
        try:
            array = np.asarray(values, dtype=dtype if isinstance(dtype, str) else None)
        except (ValueError, TypeError, OverflowError):
            array = np.empty(len(values), dtype=object)
            array[:] = values
        dims = ("t", *(f"dim_{axis}" for axis in range(array.ndim - 1)))
        return LazyArray(InlineSource(array), dims=dims, name=data_key)

    def _said(self, data_key: str, stream: str) -> Mapping[str, Any]:
        for line in self._lines():
            if line.name == "descriptor" and line.doc.get("name", "primary") == stream:
                return line.doc["data_keys"].get(data_key, {})
        return {}

    def __repr__(self) -> str:
        return f"<Run {self.uid[:8]} {self.start.get('plan_name', '')} {self.status}: {self._listed()}>"

    def _listed(self) -> str:
        """Name the data keys of each stream, stored arrays first: they are looked for among many numbers."""
        told: list[str] = []
        for stream, declared in self._index.data_keys(self.uid).items():
            keys = sorted(declared, key=lambda key: "external" not in declared[key])
            told.append(f"{stream}: {_shortened(keys)}")
        return "; ".join(told) or "no streams"

    def _repr_html_(self) -> str:
        """Return a table for notebooks, with small pictures of what was stored last, as `gently_bluesky.pages` says."""
        caption = f"Run {self.uid[:8]}"
        made = partial(children, self._index, self.uid)
        return page(caption, lambda: run_page(caption, self, partial(self._lineage, self.uid), made))


def _place(journal: Path, run_uid: str) -> int:
    """Return where in a journal a run may begin: at the first line to name it."""
    if journal.name == DOCUMENTS:
        return 0
    text = read_plain(journal)
    return text.rfind(b"\n", 0, max(text.find(run_uid.encode()), 0)) + 1


def _shortened(keys: Sequence[str]) -> str:
    more = len(keys) - MOST_KEYS_LISTED
    return ", ".join(keys) if more <= 1 else f"{', '.join(keys[:MOST_KEYS_LISTED])} and {more} more"
