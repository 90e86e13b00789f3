"""Journals of many runs, made after one that was really written: the same lines under uids of their own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from crc32c import crc32c

from benchmarks.frames import BankCamera, acquire
from benchmarks.worker import Place

__all__ = ["RunPattern", "derived_chain", "write_pattern"]

CHECKSUM = ',"crc32c":"'
UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")


@dataclass(frozen=True)
class RunPattern:
    """The journal of a run, in pieces between its uids.

    Attributes
    ----------
    pieces
        Text, and between them the number of the uid that stands there.
    """

    pieces: Sequence[str | int]
    folder: str
    uids: int
    events: int

    def copy(self) -> tuple[str, str, str]:
        """Return another run like it: its uid, the path of its journal in a store, and the journal."""
        fresh = [str(uuid.uuid4()) for _ in range(self.uids)]
        text = "".join(piece if isinstance(piece, str) else fresh[piece] for piece in self.pieces)
        folder = f"{self.folder.rpartition('_')[0]}_{fresh[0][:8]}-{fresh[0][9:13]}"
        text = text.replace(self.folder, folder)
        return fresh[0], f"{folder}/documents.jsonl", "".join(map(_checked, text.splitlines()))

    @property
    def records(self) -> int:
        """Records that the index makes of it: the run, its asset, and a datum an event."""
        return 2 + self.events


def _checked(line: str) -> str:
    """Return a line with the checksum of what it says now; blanks in front of it are not part of that."""
    said = line[: line.rindex(CHECKSUM)]
    return f'{said}{CHECKSUM}{crc32c(said.lstrip().encode()):08x}"}}\n'


def write_pattern(place: Place, events: int) -> RunPattern:
    """Store a run of so many small frames, and take its journal apart."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = np.arange(4 * 16 * 16, dtype=np.uint16).reshape(4, 16, 16)
    with Store(place.scratch / "pattern") as store:
        (uid,) = RunEngine({})(acquire([BankCamera(bank)], events), store.writer())
        journal = store.record(uid).path
        text = (store.root / journal).read_text("utf-8")
    numbers = {uid: 0}
    pieces: list[str | int] = []
    end = 0
    for found in UUID.finditer(text):
        pieces += [text[end : found.start()], numbers.setdefault(found[0], len(numbers))]
        end = found.end()
    return RunPattern([*pieces, text[end:]], journal.rpartition("/")[0], len(numbers), events)


def derived_chain(depth: int) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield runs without events, each made from the one before it: uid, journal's path, lines."""
    parents: list[str] = []
    for number in range(depth + 1):
        uid = str(uuid.uuid4())
        made = {"lineage": {"parents": parents, "operation": "next"}} if parents else {}
        start = {"uid": uid, "time": 1.7e9 + number, **made}
        stop = {"uid": str(uuid.uuid4()), "run_start": uid, "time": start["time"], "exit_status": "success"}
        yield (
            uid,
            f"runs/chain/{uid}/documents.jsonl",
            [{"name": "start", "doc": start}, {"name": "stop", "doc": stop}],
        )
        parents = [uid]
