"""Turns the lines of a journal into rows: a pure function of the lines, however they are cut into batches.

What has to be remembered from one batch to the next is a `JournalState`. This module writes nothing: it fills
a `Batch`, which ``keeping.py`` stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, Final

from gently_bluesky.errors import InvalidDocument, UnknownReference
from gently_bluesky.index.fields import (
    LARGEST,
    below_a_root,
    integer,
    itemsize,
    json_text,
    parents_named,
    path_of_uri,
    seconds,
    sequence,
    text,
    text_or_none,
    whole_asset,
)
from gently_bluesky.index.states import DescriptorState, ExtentKey, JournalState, Row
from gently_bluesky.index.values import leaves
from gently_bluesky.jsontext import decode
from gently_bluesky.model import JournalLine, is_derived

__all__ = ["Batch", "datum_parameters", "point_number"]

STATUS_OF_EXIT: Final = {"success": "complete", "abort": "aborted", "fail": "failed"}
NOT_INDEXED: Final = "nothing of this call was indexed; the journal was not changed"
NUMBERS: Final = ("point_number", "indices", "frame", "index")
"""What ``datum_kwargs`` call the place of an array in its asset."""
ENDED: Final = ("complete", "failed", "aborted", "incomplete")


class Batch:
    """The rows that a batch of lines makes, and those that it changes."""

    def __init__(self, state: JournalState, find_datum: Callable[[str], Row | None]) -> None:
        self.state = state
        self.runs: dict[str, Row] = {}
        self.stops: dict[str, Row] = {}
        self.assets: dict[str, Row] = {}
        self.changed_assets: dict[str, Row] = {}
        self.datums: dict[str, Row] = {}
        self.named_datums: list[Row] = []
        self.descriptors: list[Row] = []
        self.stream_keys: set[tuple[str, str, str]] = set()
        self.points: list[Row] = []
        self.extents: dict[ExtentKey, Row] = {}
        self.changed_extents: dict[ExtentKey, Row] = {}
        self.metadata: list[Row] = []
        self.edges: list[Row] = []
        self._find_datum = find_datum
        self._takers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "start": self._start,
            "descriptor": self._descriptor,
            "resource": self._resource,
            "datum": self._datum,
            "event": self._event,
            "stream_resource": self._stream_resource,
            "stream_datum": self._stream_datum,
        }

    def take(self, lines: Iterable[JournalLine]) -> None:
        """Take the lines in, in order.

        Raises
        ------
        InvalidDocument
            When a document lacks what the index needs of it.
        UnknownReference
            When a document names a run or descriptor that did not come before it in this journal.
        """
        for line in lines:
            try:
                if line.name == "stop":
                    self._stop(line.doc, line.outcome or {})
                else:
                    self._takers[line.name](line.doc)
            except (KeyError, TypeError, AttributeError) as error:
                raise InvalidDocument(
                    f"{self._here()}: expected a whole document of event-model, got a {line.name!r} without "
                    f"a usable {error}; {NOT_INDEXED}"
                ) from error
            self.state.lines += 1

    def _here(self) -> str:
        return f"{self.state.journal} line {self.state.lines + 1}"

    # -- the run ---------------------------------------------------------------------------------------------

    def _start(self, doc: Mapping[str, Any]) -> None:
        uid = text(doc["uid"])
        lineage = doc.get("lineage")
        self.state.time = self.state.runs[uid] = seconds(doc["time"])
        self.runs[uid] = {
            "uid": uid,
            "kind": "run",
            "run_uid": uid,
            "time": self.state.time,
            "document": json_text(doc),
            "data_type": text_or_none(doc.get("data_type")),
            "session": text_or_none(doc.get("session")),
            "status": "running",
            "derived": is_derived(doc),
            "operation": text_or_none(lineage.get("operation")) if isinstance(lineage, Mapping) else None,
            "received": None,
            "stored": None,
            "lost": None,
            "path": self.state.journal,
        }
        self.metadata += ({"run_uid": uid, "key": key, "value": value} for key, value in leaves(doc))
        self.edges += (
            {"child": uid, "position": i, "parent": parent}
            for i, parent in enumerate(dict.fromkeys(parents_named(lineage)))
        )

    def _stop(self, doc: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        uid = text(doc["run_start"])
        if uid not in self.state.runs:
            return  # the first stop stands
        status = outcome.get("status")
        if status not in ENDED:
            status = STATUS_OF_EXIT.get(str(doc.get("exit_status")), "incomplete")
        ended: Row = {"status": status} | {
            name: integer(outcome.get(name)) for name in ("received", "stored", "lost")
        }
        if uid in self.runs:
            self.runs[uid].update(ended)
        else:
            self.stops[uid] = {"uid": uid} | ended
        self.state.drop_run(uid)

    def _open_run(self, doc: Mapping[str, Any]) -> str:
        """Return the run a document belongs to: the one it names, else the one that was opened last."""
        run_uid = doc.get("run_start") or next(reversed(self.state.runs), None)
        if run_uid not in self.state.runs:
            raise UnknownReference(
                f"{self._here()}: expected a document of a run that is open, got one of run {run_uid!r}; "
                f"{NOT_INDEXED}"
            )
        return str(run_uid)

    def _descriptor(self, doc: Mapping[str, Any]) -> None:
        uid, run_uid, stream = text(doc["uid"]), self._open_run(doc), text(doc.get("name", "primary"))
        about = {
            key: {name: value[name] for name in ("shape", "dtype_numpy", "external", "dims") if name in value}
            for key, value in doc["data_keys"].items()
        }
        there = self.state.descriptors.values()
        of_stream = [of for of in there if (of.run_uid, of.stream) == (run_uid, stream)]
        known = {key for of in of_stream for key in (*of.data_keys, "")}
        self.state.descriptors[uid] = DescriptorState(run_uid, stream, about)
        self.descriptors.append(
            {
                "uid": uid,
                "run_uid": run_uid,
                "position": self.state.lines,
                "stream": stream,
                "data_keys": json_text(about),
            }
        )
        self.stream_keys |= {(run_uid, stream, key) for key in (*about, "") if key not in known}

    # -- assets ----------------------------------------------------------------------------------------------

    def _resource(self, doc: Mapping[str, Any]) -> None:
        root, path = str(doc.get("root", "")), str(doc["resource_path"])
        spec = text_or_none(doc.get("spec"))
        ours = (spec or "").startswith("GENTLY_") and not path.startswith("/")
        place = self._inside(f"{root}/{path}") or (path if ours else "")
        self._asset(doc, spec, place, doc.get("resource_kwargs"))

    def _stream_resource(self, doc: Mapping[str, Any]) -> None:
        parameters = doc.get("parameters")
        spec = parameters.get("spec") if isinstance(parameters, Mapping) else None
        path = whole_asset(path_of_uri(doc.get("uri")) or "", parameters)
        place = self._inside(path) or (below_a_root(path) if isinstance(spec, str) else "")
        row = self._asset(doc, text_or_none(spec) or text_or_none(doc.get("mimetype")), place, parameters)
        row["data_key"] = text(doc["data_key"])

    def _asset(self, doc: Mapping[str, Any], form: str | None, path: str, opening: object) -> Row:
        uid, run_uid = text(doc["uid"]), self._open_run(doc)
        dims = opening.get("dims") if isinstance(opening, Mapping) else None
        row: Row = {
            "uid": uid,
            "kind": "asset",
            "run_uid": run_uid,
            "asset_uid": uid,
            "time": self.state.runs[run_uid],
            "stream": None,
            "data_key": None,
            "document": json_text(doc),
            "path": "" if ".." in path.split("/") else path,
            "format": form,
            "count": 0,
            "shape": None,
            "dtype": None,
            "dims": json_text([dim for dim in sequence(dims) if isinstance(dim, str)]),
            "nbytes": 0,
        }
        self.assets[uid] = self.state.assets[uid] = row
        return row

    def _inside(self, path: str) -> str:
        """Return the path from the store's root on, of a file that lies in the journal's own folder."""
        folder = self.state.journal.rpartition("/")[0]
        _, found, rest = path.replace("\\", "/").rpartition(f"/{folder}/")
        return f"{folder}/{rest}" if folder and found else ""

    def _learn(self, row: Row, key: str, of: DescriptorState, time: float) -> None:
        """Keep what the first event that names one of an asset's datums tells about the asset."""
        about = of.data_keys.get(key, {})
        shape = [
            size for size in map(integer, sequence(about.get("shape"))) if size is not None and size >= 0
        ]
        dtype = about.get("dtype_numpy")
        row["stream"], row["data_key"], row["time"] = of.stream, key, time
        row["shape"] = json_text(shape)
        row["dtype"] = dtype if isinstance(dtype, str) or dtype is None else json_text(dtype)
        if row["dims"] == "[]":
            row["dims"] = json_text([dim for dim in sequence(about.get("dims")) if isinstance(dim, str)])
        self._count(row, row["count"])

    def _count(self, row: Row, count: int) -> None:
        """Set how many arrays an asset holds."""
        row["count"] = count
        if row["shape"] is not None:
            pixels = count * prod(decode(row["shape"]))
            row["nbytes"] = min(pixels * itemsize(row["dtype"]), LARGEST)
        if row["uid"] not in self.assets:
            self.changed_assets[row["uid"]] = row

    # -- datums ----------------------------------------------------------------------------------------------

    def _datum(self, doc: Mapping[str, Any]) -> None:
        uid, asset_uid = text(doc["datum_id"]), text(doc["resource"])
        asset = self.state.assets.get(asset_uid)
        run_uid = asset["run_uid"] if asset else self._open_run({})
        row = self._datum_row(uid, run_uid, asset_uid, doc)
        self.datums[uid] = self.state.waiting[uid] = row
        if asset:
            self._count(asset, asset["count"] + 1)

    def _datum_row(self, uid: str, run_uid: str, asset_uid: str, doc: Mapping[str, Any]) -> Row:
        return {
            "uid": uid,
            "kind": "datum",
            "run_uid": run_uid,
            "asset_uid": asset_uid,
            "time": self.state.runs[run_uid],
            "stream": None,
            "data_key": None,
            "seq_num": None,
            "document": json_text(doc),
        }

    def _event(self, doc: Mapping[str, Any]) -> None:
        of = self._described(doc)
        time = self.state.time = seconds(doc["time"])
        filled, data = doc.get("filled", {}), doc["data"]
        for key in dict.fromkeys((*of.external, *filled, *self._referring(data))):
            uid = data.get(key)
            if not isinstance(uid, str) or filled.get(key, False) is not False:
                continue
            row = self.state.waiting.pop(uid, None)
            if row is not None:
                self._name_datum(row, key, of, time, integer(doc["seq_num"]) or 0)
            row = row or self.datums.get(uid) or self._find_datum(uid)
            if row is not None and row["run_uid"] == of.run_uid:
                self._point(doc, of, key, uid, decode(row["document"]))

    def _referring(self, data: Mapping[str, Any]) -> list[str]:
        """Return keys whose values are datums that wait to be named, whatever the descriptor says of them."""
        waiting = self.state.waiting
        return (
            [key for key, value in data.items() if isinstance(value, str) and value in waiting]
            if waiting
            else []
        )

    def _name_datum(self, row: Row, key: str, of: DescriptorState, time: float, seq_num: int) -> None:
        row["stream"], row["data_key"], row["time"], row["seq_num"] = of.stream, key, time, seq_num
        if row["uid"] not in self.datums:
            self.named_datums.append(row)
        asset = self.state.assets.get(row["asset_uid"])
        if asset and asset["shape"] is None:
            self._learn(asset, key, of, time)

    def _point(
        self,
        event: Mapping[str, Any],
        of: DescriptorState,
        key: str,
        uid: str,
        datum: Mapping[str, Any],
        span: int = 1,
    ) -> None:
        point: Row = {
            "run_uid": of.run_uid,
            "stream": of.stream,
            "data_key": key,
            "position": self.state.lines,
            "asset_uid": datum["resource"],
            "datum_uid": uid,
            "number": point_number(datum.get("datum_kwargs")),
            "span": span,
            "event_uid": text(event["uid"]),
            "seq_num": integer(event["seq_num"]) or 0,
            "time": self.state.time,
            "descriptor_uid": event["descriptor"],
        }
        self.points.append(point)
        self._extend(point)

    def _extend(self, point: Row) -> None:
        """Sum up: how many events there are, and whether they stand one behind the other, none repeated."""
        key = (point["run_uid"], point["stream"], point["data_key"], point["asset_uid"])
        first, span = point["seq_num"], point["span"]
        row = self.state.extents.get(key)
        if row is None:
            row = {name: point[name] for name in ("run_uid", "stream", "data_key", "asset_uid", "position")}
            row.update(events=0, in_place=True, in_turn=True, last_seq_num=first - 1)
            self.extents[key] = self.state.extents[key] = row
        elif key not in self.extents:
            self.changed_extents[key] = row
        row["in_place"] = row["in_place"] and point["number"] == row["events"]
        row["in_turn"] = row["in_turn"] and first > row["last_seq_num"]
        row["last_seq_num"] = max(row["last_seq_num"], min(first + span - 1, LARGEST))
        row["last_position"] = point["position"]
        row["events"] = min(row["events"] + span, LARGEST)

    def _described(self, doc: Mapping[str, Any]) -> DescriptorState:
        try:
            return self.state.descriptors[doc["descriptor"]]
        except KeyError:
            raise UnknownReference(
                f"{self._here()}: expected a descriptor of a run that is open, got "
                f"{doc.get('descriptor')!r}; {NOT_INDEXED}"
            ) from None

    def _stream_datum(self, doc: Mapping[str, Any]) -> None:
        uid, asset_uid = text(doc["uid"]), text(doc["stream_resource"])
        asset = self.state.assets[asset_uid]
        of, key, time = self._described(doc), asset["data_key"], self.state.time
        start, stop = (integer(doc["indices"][name]) or 0 for name in ("start", "stop"))
        seq_num = integer(doc["seq_nums"]["start"]) or 0
        row = self._datum_row(uid, asset["run_uid"], asset_uid, doc)
        self.datums[uid] = row | {"stream": of.stream, "data_key": key, "time": time, "seq_num": seq_num}
        if asset["shape"] is None:
            self._learn(asset, key, of, time)
        self._count(asset, max(asset["count"], stop))
        if stop > start:
            event = {"uid": "", "seq_num": seq_num, "descriptor": doc["descriptor"]}
            datum = {"resource": asset_uid, "datum_kwargs": {"point_number": start}}
            self._point(event, of, key, uid, datum, stop - start)


def point_number(datum_kwargs: object) -> int | None:
    """Return where in its asset a datum's array lies, where its ``datum_kwargs`` say so."""
    if not isinstance(datum_kwargs, Mapping):
        return None
    return next((integer(datum_kwargs[name]) for name in NUMBERS if name in datum_kwargs), None)


def datum_parameters(datum_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the ``datum_kwargs`` say beside `point_number`."""
    return {name: value for name, value in datum_kwargs.items() if name not in NUMBERS}
