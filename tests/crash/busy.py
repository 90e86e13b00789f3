"""Processes that write all that a store takes, and processes that look at it meanwhile and believe nothing.

Everything follows from names: the frames of a run from its ``night`` and their numbers, a result from ``of`` and
``n`` in its start document.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import bluesky.preprocessors as bpp
import numpy as np
import tensorstore
import tifffile
import zarr
from recorders import DatumCamera, StreamCamera, numbered
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.errors import NotYetStored, RunEnded, UnknownUid
from gently_bluesky.testing.frames import check_frame, encoded_frame

__all__ = ["check_results", "look_around", "put_again_and_again", "work"]

SHAPE = (3, 64, 96)
KEY = "view_a"
WAYS = [("zarr", "datum"), ("zarr", "stream"), ("tiff", "datum"), ("tiff", "stream"), ("memory", "datum")]


# -- writing -------------------------------------------------------------------------------------------------


def put_again_and_again(channel: Channel, root: str, of: str) -> None:
    """Put tables and arrays, each made from the one before, and tell each that is stored."""
    with Store(root) as store:
        channel.tell({"ready": of})
        parents: list[Any] = []
        for n in count():
            parents = [put(channel, store, of, n, parents)]


def put(channel: Channel, store: Store, of: str, n: int, parents: list[Any]) -> Any:
    options = {"data_type": "test", "operation": "count", "parents": parents, "of": of, "n": n}
    if n % 3:
        options["format"] = ("zarr", "tiff")[n % 3 - 1]
    record = store.put(result(of, n), **options)
    channel.tell({"put": record.uid, "of": of, "n": n})
    return record


def result(of: str, n: int) -> Any:
    if n % 3 == 0:
        return {"of": of, "n": n, "points": [float(n)] * (n % 7)}
    return encoded_frame(SHAPE, "uint16", run=of, key="result", event=n)


def check_results(store: Store) -> dict[str, tuple[str, int]]:
    """Check every result that ended well; return whose each is, and its number."""
    found: dict[str, tuple[str, int]] = {}
    for record in store.query(data_type="test", status="complete"):
        of, n = record.metadata["of"], record.metadata["n"]
        value = store.get(record.uid)
        if n % 3 == 0:
            assert value == result(of, n)
        else:
            check_frame(np.asarray(value), run=of, key="result", event=n)
        found[record.uid] = of, n
    return found


def work(channel: Channel, root: str, name: str, rounds: int, events: int = 6) -> int:
    """Acquire runs of every kind, by writers and by devices, put results of each, and tell all that is announced."""
    from scenes import Camera, acquisition, run_engine

    def tell(document: str, doc: Any) -> None:
        channel.tell({"name": document, "doc": doc})

    dice, numbers = Random(name), count()
    with Store(root) as store, run_engine() as RE:
        for number in range(rounds):
            format, assets = dice.choice(WAYS)
            night = f"{name}-{number}"
            by_device = format != "memory" and dice.random() < 0.3
            writer = store.writer(
                **({} if by_device else {"format": format, "assets": assets}), min_free_bytes=0
            )
            writer.subscribe(tell)
            if by_device:
                recorder = store.recorder(format=format, min_free_bytes=0)
                camera = (DatumCamera if assets == "datum" else StreamCamera)(night, SHAPE, recorder=recorder)
                plan = numbered(camera, events)
                RE(bpp.stage_wrapper(bpp.run_wrapper(plan, md={"night": night}), [camera]), writer)
                recorder.close()
            else:
                RE(acquisition(Camera(night, SHAPE), events, lambda number: ()), writer)
            writer.close()
            for _ in range(dice.randrange(3)):
                put(channel, store, name, next(numbers), [store[-1]])
        return rounds


# -- looking -------------------------------------------------------------------------------------------------


def look_around(channel: Channel, root: str, how: str, seed: int) -> int:
    """Look at frames by chance until told that it is enough, and check each.

    Say when the first of a run that goes on was seen; return how many of these there were.

    ``"index"`` and ``"journals"`` open the store again and again, the latter where there is no index; ``"follow"``
    keeps it open and follows one run after the other; ``"plain"`` reads files with zarr, tensorstore and tifffile.
    """
    enough = threading.Event()
    threading.Thread(target=lambda: (channel.hear(), enough.set())).start()
    channel.tell({"looking": how})
    dice, looked = Random(seed), 0
    for seen in {"follow": _followed, "plain": _read_plainly}.get(how, _opened)(Path(root), how, dice):
        if seen and not looked:
            channel.tell({"saw": how})
        looked += seen
        if enough.wait(0.01):  # the processor is for those who write
            break
    return looked


def _opened(root: Path, how: str, dice: Random) -> Iterator[int]:
    index = f"sqlite:///{root / 'nowhere.sqlite'}" if how == "journals" else None
    while True:
        with Store(root, mode="r", index=index) as store:
            runs = [record.uid for record in store.query(derived=False) if "night" in record.metadata]
            with suppress(UnknownUid):
                runs.append(store[-1].uid)
            for uid in dice.sample(runs, min(len(runs), 4)):
                yield _check_run(store, uid, dice)
            yield 0


def _check_run(store: Store, uid: str, dice: Random) -> int:
    """Check a frame by chance and the last one, as the run shows them now."""
    run = store[uid]
    assert run.status in ("running", "complete", "incomplete")
    if "primary" not in run.streams:
        return 0
    array = run["primary"][KEY]
    numbers = [event["data"]["number"] for event in run["primary"].events]
    assert numbers == list(range(1, len(numbers) + 1))
    places = {dice.randrange(len(array)), len(array) - 1} if len(array) else set()
    for place in places:
        check_frame(array[place].compute(), run=run.start["night"], key=KEY, event=place + 1)
    return len(places) if run.status == "running" else 0


def _followed(root: Path, how: str, dice: Random) -> Iterator[int]:
    with Store(root, mode="r") as store:
        last = None
        while True:
            try:
                run = last = store.wait_for_run(last, timeout_s=0.1)
                early = run.wait("primary", KEY, timeout_s=60)
            except (NotYetStored, RunEnded):  # none has begun, or it was killed before its first event
                yield 0
                continue
            night, number = run.start["night"], 0
            for number, frame in enumerate(early.follow(start=0, timeout_s=60), start=1):
                check_frame(frame.compute(), run=night, key=KEY, event=number)
                yield run.status == "running"
            check_frame(early[0].compute(), run=night, key=KEY, event=1)
            # who recovers a dead run holds its lock, as who writes it did
            assert run.status in ("complete", "incomplete", "running")
            assert len(early.wait(number)) == number


def _read_plainly(root: Path, how: str, dice: Random) -> Iterator[int]:
    nights: dict[Path, str] = {}
    while True:
        yield 0
        for folder in root.glob("runs/*/*/*/*/"):
            if folder not in nights and (night := _night(folder)):
                nights[folder] = night
        for folder in dice.sample(sorted(nights), min(len(nights), 4)):
            for asset in sorted(folder.iterdir()):
                seen = 0
                if asset.name.endswith(".ome.zarr"):
                    seen = _read_zarr(asset, nights[folder], dice)
                elif asset.name == f"primary-{KEY}":
                    seen = _read_tiff(asset, nights[folder])
                yield seen if (folder / ".live").exists() else 0


def _night(folder: Path) -> str | None:
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):  # not yet, not a run, not whole
        with (folder / "documents.jsonl").open() as file:
            start = json.loads(file.readline())["doc"]
        return None if "lineage" in start else start.get("night")  # results take over what their parents say
    return None


def _read_zarr(path: Path, night: str, dice: Random) -> int:
    try:
        array = zarr.open_group(path, mode="r")["0"]
    except (FileNotFoundError, KeyError):
        return 0
    if array.shape[0] == 0:
        return 0
    place = dice.randrange(array.shape[0])
    check_frame(array[place], run=night, key=KEY, event=place + 1)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "0")}}
    other = tensorstore.open(spec, read=True).result()
    assert other.shape[0] >= array.shape[0]
    check_frame(other[other.shape[0] - 1].read().result(), run=night, key=KEY, event=other.shape[0])
    return 2


def _read_tiff(folder: Path, night: str) -> int:
    files = sorted(folder.glob("*.ome.tif"))
    assert [file.name for file in files] == [f"{place:06d}.ome.tif" for place in range(len(files))]
    for file in files[-1:]:
        check_frame(tifffile.imread(file), run=night, key=KEY, event=len(files))
    return len(files[-1:])
