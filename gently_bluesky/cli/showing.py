"""The command ``show``: all there is to say of a run, a result, an array or an event."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gently_bluesky.cli.places import IndexOption, JsonOption, OverflowOption, StoreOption, opened, place_of
from gently_bluesky.cli.tables import say_pairs
from gently_bluesky.cli.telling import say, say_json, told
from gently_bluesky.cli.uids import UidArgument, record_of

if TYPE_CHECKING:
    from gently_bluesky.cli.facts import Facts

__all__ = ["SHOW_EXAMPLES", "say_facts", "show"]

SHOW_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky show -1    (the latest run; -2 is the one before)

    gently-bluesky show 1b9d6bcd    (a run, a derived result or an array, by the beginning of its uid)

    gently-bluesky show 034012e8/17    (an event, as trees and arrays print it)

    gently-bluesky show -1 --json | jq .stop.reason
"""
HIDDEN = {"uid", "time", "plan_name", "lineage", "session"}
"""What start documents hold that stands elsewhere."""


def show(
    uid: UidArgument,
    *,
    store: StoreOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say all there is to say of a run, a derived result, an array or an event. Changes nothing, reads no pixels."""
    with told("nothing was changed"), opened(place_of(store, index, overflow)) as reader:
        from gently_bluesky.cli.facts import facts_of

        facts = facts_of(reader, record_of(reader, uid))
        if as_json:
            say_json(facts.to_dict())
        else:
            say_facts(facts)


def say_facts(facts: Facts) -> None:
    """Print all that is known."""
    if facts.record.kind == "run":
        _say_run(facts)
    else:
        _say_part(facts)


def _say_run(facts: Facts) -> None:
    from gently_bluesky.cli.lines import label
    from gently_bluesky.wording import clock, printable

    record = facts.record
    took = f", took {facts.took_s:.1f} s" if facts.took_s is not None else ""
    say(f"run {printable(record.uid)}")
    say(f"{printable(label(record))}, {facts.status}, {clock(record.time)}{took}\n")
    say_pairs(
        [
            *([("session", record.session)] if record.session else []),
            ("frames", _frames(facts)),
            *([("reason", facts.reason)] if facts.reason else []),
            *_deleted(facts),
            *([("pinned", f"{clock(facts.pin.time)}: {printable(facts.pin.reason)}")] if facts.pin else []),
            ("verified", facts.verified_text()),
            ("folder", f"{facts.folder}{_on_disk(facts)}")
            if facts.has_folder
            else ("journal", str(facts.journal)),
        ]
    )
    rest = {name: value for name, value in record.metadata.items() if name not in HIDDEN}
    if rest:
        say("\nstart document")
        say_pairs([(name, _value(value)) for name, value in rest.items()])
    for stream, events in facts.events.items():
        say(f"\nstream {printable(stream)}, {events:,} event{'s' * (events != 1)}")
        say_pairs([(key, _key_text(facts, stream, key, said)) for key, said in facts.keys[stream].items()])
    _say_relatives(facts)


def _say_part(facts: Facts) -> None:
    from gently_bluesky.cli.lines import dtype_text, nbytes_of
    from gently_bluesky.labels import bytes_text
    from gently_bluesky.wording import clock, printable

    record = facts.record
    what = "array" if record.kind == "asset" else f"event {record.seq_num}"
    say(f"{what} {printable(record.uid)}")
    say(f"{printable(record.stream or '?')}/{printable(record.data_key or '?')}, {clock(record.time)}\n")
    axes = ", ".join(f"{dim}: {n}" for dim, n in zip(record.dims, record.shape or (), strict=False))
    asset = facts.assets[0]
    known = asset.metadata
    steps = [
        f"{dim} {step:g} {unit}"
        for dim, step, unit in zip(
            known.get("dims", ()), known.get("scale", ()), known.get("units", ()), strict=False
        )
        if unit
    ]
    packing = known.get("packing")
    say_pairs(
        [
            ("of run", f"{record.run_uid} ({facts.status})"),
            *([("of array", asset.uid)] if record.kind == "datum" else []),
            ("shape", f"({axes})" if axes else str(record.shape)),
            ("dtype", dtype_text(record)),
            ("size", f"{bytes_text(nbytes_of(record))} of pixels"),
            *([("steps", ", ".join(steps))] if steps else []),
            ("format", asset.format or "?"),
            *([("chunks", _value(packing["chunks"]))] if isinstance(packing, Mapping) else []),
            *(_deleted(facts) or [("files", f"{facts.where.get(asset.uid, '?')}{_on_disk(facts)}")]),
            ("verified", facts.verified_text()),
        ]
    )
    _say_relatives(facts)


def _say_relatives(facts: Facts) -> None:
    for heading, lines in (("made from", facts.parents), ("made from it", facts.children)):
        if lines:
            say(f"\n{heading}")
            say("\n".join(f"  {line}" for line in lines))


def _frames(facts: Facts) -> str:
    counts = facts.frames
    if facts.record.status == "running" or all(count is None for count in counts.values()):
        return (
            "not counted yet"
            if facts.status == "running"
            else "not known: gently-bluesky reconcile counts them"
        )
    return ", ".join(f"{'?' if count is None else f'{count:,}'} {name}" for name, count in counts.items())


def _key_text(facts: Facts, stream: str, key: str, said: Mapping[str, Any]) -> str:
    from gently_bluesky.cli.lines import dtype_text, nbytes_of, shown_uid
    from gently_bluesky.labels import bytes_text

    arrays = [asset for asset in facts.assets if (asset.stream, asset.data_key) == (stream, key)]
    texts: list[str] = []
    for asset in arrays:
        axes = ", ".join(f"{dim}: {n}" for dim, n in zip(asset.dims, asset.shape or (), strict=False))
        is_gone = asset.deleted is not None
        place = "deleted" if is_gone else facts.where.get(asset.uid, "?").rpartition("/")[2]
        texts.append(
            f"({axes}) {dtype_text(asset)} {bytes_text(nbytes_of(asset))} {shown_uid(asset.uid)} {place}"
        )
    if texts:
        return "; ".join(texts)
    units = said.get("units")
    shape = said.get("shape") or []
    of = f" {'x'.join(map(str, shape))}" if isinstance(shape, Sequence) and shape else ""
    return f"{said.get('dtype', '?')}{of}{f' in {units}' if units else ''}"


def _deleted(facts: Facts) -> list[tuple[str, str]]:
    if facts.tombstone is None:
        return []
    return [("deleted", str(facts.tombstone).partition(" deleted ")[2])]


def _on_disk(facts: Facts) -> str:
    from gently_bluesky.labels import bytes_text

    return "" if facts.file_nbytes is None else f" ({bytes_text(facts.file_nbytes)} on disk)"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
