"""How documents look in a terminal: a line each, or a table of each run's numbers. Callbacks; they read nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gently_bluesky.cli.telling import say, say_bytes
from gently_bluesky.jsontext import encode
from gently_bluesky.wording import clock, many, printable

__all__ = ["as_json_lines", "lines", "tables"]

Callback = Callable[[str, dict[str, Any]], object]
TOLD_OF_START = ("plan_name", "session", "data_type", "operation", "sample", "embryo", "scan_id")
COLOURS = {"start": "bold green", "stop": "bold", "descriptor": "cyan", "event": "", "event_page": ""}
LONGEST_LIST = 4
NUMERIC = ("number", "integer", "boolean", "string")


def lines() -> Callback:
    """Return a callback that prints a line for each document, cut off where the terminal ends."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    runs = _Runs()

    def take(name: str, doc: dict[str, Any]) -> None:
        when, run, what = runs.take(name, doc)
        line = printable(f"{when:12}  {run:8}  {name:10}  {what}")
        if not console.is_terminal:
            say(line.rstrip())
            return
        text = Text(line, style=COLOURS.get(name, "dim"))
        text.stylize("dim", 0, 12)
        console.print(text, no_wrap=True, overflow="ellipsis")

    return take


def as_json_lines(name: str, doc: dict[str, Any]) -> None:
    """Print a document as a line of JSON, as `replay` reads it again."""
    say_bytes(encode({"name": name, "doc": doc}) + b"\n")


def tables() -> Callback:
    """Return a callback that prints bluesky's LiveTable of the primary stream of each run that has numbers."""
    from bluesky.callbacks import LiveTable

    starts: dict[str, dict[str, Any]] = {}
    shown: dict[str, Any] = {}
    runs: dict[str, str] = {}
    gone: list[BrokenPipeError] = []

    def out(text: str) -> None:
        try:
            say("\n".join(map(printable, text.split("\n"))))
        except BrokenPipeError as error:  # bluesky would log it, and go on
            gone.append(error)

    def take(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            # LiveTable's last line names these, which not every run has
            starts[doc["uid"]] = {"plan_type": "run", "plan_name": "", "scan_id": "-", **doc}
        elif name == "descriptor" and doc.get("name") == "primary":
            run = runs[doc["uid"]] = doc["run_start"]
            fields = _fields(doc)
            if fields and run not in shown:
                shown[run] = LiveTable(fields, min_width=10, out=out)
                shown[run]("start", starts[run])
            if run in shown:
                shown[run](name, doc)
        elif name == "event" and runs.get(doc["descriptor"]) in shown:
            shown[runs[doc["descriptor"]]](name, doc)
        elif name == "stop":
            starts.pop(doc["run_start"], None)
            table = shown.pop(doc["run_start"], None)
            if table is not None:
                table(name, doc)
        if gone:
            raise gone[0]

    return take


def _fields(descriptor: Mapping[str, Any]) -> list[str]:
    """Return the data keys worth a column: those that devices hint at, or all; what is no array."""
    declared = {key: known for key, known in descriptor["data_keys"].items() if isinstance(known, Mapping)}
    hints = descriptor.get("hints")
    fields = [hint.get("fields") for hint in hints.values()] if isinstance(hints, Mapping) else []
    hinted = [field for held in fields if isinstance(held, list) for field in held if field in declared]
    return [
        key
        for key in dict.fromkeys(hinted or declared)
        if declared[key].get("dtype") in NUMERIC and not declared[key].get("external")
    ]


class _Runs:
    """Knows which run, and which stream, a document is of."""

    def __init__(self) -> None:
        self._streams: dict[str, tuple[str, str]] = {}
        self._resources: dict[str, str] = {}

    def take(self, name: str, doc: Mapping[str, Any]) -> tuple[str, str, str]:
        """Return a document's time, the beginning of its run's uid, and what it says."""
        made = doc.get("time")
        made = made[-1] if isinstance(made, list) and made else made
        when = _clock(made, "%H:%M:%S.%f")[: len("23:59:59.999")]
        run = str(doc.get("run_start") or (doc["uid"] if name == "start" else ""))
        stream = ""
        if name == "descriptor":
            stream = str(doc.get("name", ""))
            self._streams[doc["uid"]] = run, stream
        elif doc.get("descriptor"):
            run, stream = self._streams.get(doc["descriptor"], (run, ""))
        elif name in {"resource", "stream_resource"}:
            self._resources[doc["uid"]] = run
        elif "resource" in doc:
            run = self._resources.get(doc["resource"], run)
        return when, run[:8], _said(name, doc, stream)


def _said(name: str, doc: Mapping[str, Any], stream: str) -> str:
    says = _SAYS.get(name)
    try:
        return says(doc, stream) if says else ""
    except (KeyError, TypeError, AttributeError, ValueError):
        return f"(no valid {name} document)"


def _clock(made: object, form: str) -> str:
    return clock(made, form) if isinstance(made, int | float) else ""


def _start(doc: Mapping[str, Any], _: str) -> str:
    when = _clock(doc.get("time"), "%Y-%m-%d")
    told = [f"{key}={doc[key]}" for key in TOLD_OF_START if doc.get(key) not in (None, "")]
    return "  ".join([when, *told])


def _descriptor(doc: Mapping[str, Any], stream: str) -> str:
    keys = doc.get("data_keys", {})
    shapes = {key: tuple(known.get("shape") or ()) for key, known in keys.items()}
    return f"{stream}: " + ", ".join(f"{key} {shape}" if shape else key for key, shape in shapes.items())


def _event(doc: Mapping[str, Any], stream: str) -> str:
    flags = doc.get("filled", {})
    told = [f"{key} {_value(value, is_filled=flags.get(key, True))}" for key, value in doc["data"].items()]
    return f"{stream} {doc.get('seq_num', '')}: " + ", ".join(told)


def _value(value: Any, *, is_filled: Any = True) -> str:
    if not is_filled and isinstance(value, str):
        return f"-> {_datum(value)}"
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if hasattr(value, "shape"):
        return f"{value.shape} {value.dtype}"
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"[{len(value)} values]"
    return str(value)


def _datum(said: str) -> str:
    uid, _, number = said.partition("/")
    return f"{uid[:8]}/{number}" if number else uid[:8]


def _event_page(doc: Mapping[str, Any], stream: str) -> str:
    numbers = doc.get("seq_num", [])
    return f"{stream} {numbers[0]} to {numbers[-1]}" if numbers else stream


def _stop(doc: Mapping[str, Any], _: str) -> str:
    counts = ", ".join(
        f"{stream}: {many(count, 'event')}" for stream, count in doc.get("num_events", {}).items()
    )
    told = (doc.get("exit_status", ""), counts, doc.get("reason", ""))
    return "  ".join(str(one) for one in told if one)


_SAYS: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "start": _start,
    "descriptor": _descriptor,
    "event": _event,
    "event_page": _event_page,
    "stop": _stop,
    "resource": lambda doc, _: f"{doc.get('spec', '')} {doc.get('resource_path', '')}",
    "stream_resource": lambda doc, _: f"{doc.get('data_key', '')} {doc.get('uri', '')}",
    "datum": lambda doc, _: _datum(str(doc.get("datum_id", ""))),
    "datum_page": lambda doc, _: many(len(doc.get("datum_id", ())), "datum"),
    "stream_datum": lambda doc, stream: f"{stream} {_range(doc.get('seq_nums'))}",
}


def _range(said: Any) -> str:
    return f"{said['start']} to {said['stop'] - 1}" if isinstance(said, dict) else ""
