"""Files spoilt at random, and the judgement of what a store says of them.

Run in a child of the zygote: what hangs, crashes or takes all memory there is a failure, not the end of the tests.
"""

from __future__ import annotations

import os
import pickle
import random
import re
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from stores import STORES, Kept, Read, read_all
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.errors import GentlyError
from gently_bluesky.index.schema import IndexUnusable

MOST_MEMORY = 2**32
PATIENCE_S = 30
LEFT_ALONE = "a run was left alone: "

# -- how files are spoilt --------------------------------------------------------------------------------------


def cut(path: Path, dice: random.Random) -> None:
    os.truncate(path, dice.randrange(path.stat().st_size))


def empty(path: Path, dice: random.Random) -> None:
    os.truncate(path, 0)


def flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def scribble(path: Path, dice: random.Random) -> None:
    """Write noise over some bytes."""
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content))
    span = min(len(content) - start, 1 << dice.randrange(9))
    content[start : start + span] = dice.randbytes(span)
    path.write_bytes(content)


def blank(path: Path, dice: random.Random) -> None:
    """Put zeros in the place of some bytes."""
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content))
    span = min(len(content) - start, 1 << dice.randrange(13))
    content[start : start + span] = bytes(span)
    path.write_bytes(content)


def lengthen(path: Path, dice: random.Random) -> None:
    with path.open("ab") as file:
        file.write(dice.randbytes(1 << dice.randrange(10)))


def swap(path: Path, dice: random.Random) -> None:
    """Exchange a file with another one of its kind."""
    root = next(folder for folder in path.parents if (folder / "gently-store.json").exists())
    files = [other for other in sorted(root.rglob("*")) if other.is_file()]
    others = [other for other in files if other not in (path, root / "gently-store.json")]
    alike = [other for other in others if kind_of(other) == kind_of(path)]
    other = dice.choice(alike or others)
    beside = path.with_name("between")
    path.rename(beside)
    other.rename(path)
    beside.rename(other)


def remove(path: Path, dice: random.Random) -> None:
    path.unlink()


def replaced(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def replace(path: Path, dice: random.Random) -> None:
        path.unlink()
        make(path)

    return replace


SPOIL: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": cut,
    "emptied": empty,
    "a bit flipped": flip,
    "scribbled over": scribble,
    "zeros in it": blank,
    "longer": lengthen,
    "swapped with another": swap,
    "gone": remove,
    "a folder": replaced(lambda path: path.mkdir()),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to /dev/zero": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": replaced(os.mkfifo),
}
IN_PLACE = ("cut", "emptied", "a bit flipped", "scribbled over", "zeros in it", "longer")
"""Those that change bytes; a bit flipped is what disks do, and the likeliest to go unnoticed."""
SAME_LENGTH = ("a bit flipped", "scribbled over", "zeros in it")
IN_TURN = ("cut", "a bit flipped")
"""Those that each kind of file meets in each run of the tests."""


def kind_of(path: Path) -> str:
    """Say what a file of a store is."""
    name = path.name
    if name == "documents.jsonl" or name.startswith("derived-"):
        return "journal"
    if "c" in path.parts and ".ome.zarr" in str(path):
        return "shard"
    if name.startswith("index.sqlite"):
        return "index"
    return path.suffix or name


# -- what may come of it ---------------------------------------------------------------------------------------


def complaints(root: Path, kept: list[Kept], spoilt: Path, how: str) -> Iterator[str]:
    """Open a store of which one file is spoilt, to read and to write, and say what is not as it should be."""
    for mode in ("r", "a"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for read in read_all(root, mode, kept):
                    yield from (f"{mode}: {found}" for found in judge(root, read, spoilt, how))
            except GentlyError as error:
                is_marker = spoilt == root / "gently-store.json"
                if not is_marker and not (kind_of(spoilt) == "index" and how not in IN_PLACE):
                    yield f"{mode}: the store does not open: {error!r}"
            except Exception as error:
                yield f"{mode}: the store does not open: {error!r}"
        for warning in caught:
            if not str(warning.message).startswith(LEFT_ALONE):
                yield f"{mode}: {warning.message!r} {warning.filename}:{warning.lineno}"


def judge(root: Path, read: Read, spoilt: Path, how: str) -> Iterator[str]:
    of = read.of
    if read.error is not None:
        text = str(read.error)
        names = (str(root), of.uid[:8], of.uid)
        if isinstance(read.error, IndexUnusable) and kind_of(spoilt) == "index":
            return  # it says to delete it
        if not isinstance(read.error, GentlyError):
            yield f"{read.what}: an error that is not ours: {read.error!r}"
        elif not any(name in text for name in names) and not re.search(
            r"asset |[0-9a-f]{8}-[0-9a-f]{4}-", text
        ):
            yield f"{read.what}: an error that names nothing: {text}"
        return
    if read.want is None or _same(read.got, read.want):
        return
    if isinstance(read.want, np.ndarray) and isinstance(read.got, np.ndarray):
        if _is_beginning(read.got, read.want) and kind_of(spoilt) in ("journal", "index"):
            # what a crash would have left; of a journal that is as long as it was the index is
            # believed, and `verify` finds that its end is gone
            is_shorter = kind_of(spoilt) == "journal" and how not in SAME_LENGTH
            if is_shorter and len(read.got) < len(read.want) and _is_complete(root, of):
                yield f"{read.what}: {len(read.got)} of {len(read.want)} events, and the run is said to be complete"
            return
        if not of.is_ours and kind_of(spoilt) not in ("journal", "index"):
            return  # formats of others have the checks of others
        if kind_of(spoilt) in ("shard", ".tif") and _is_noticed(root, of, spoilt, how):
            return
    yield f"{read.what}: wrong: {read.got!r:.300}"


def _same(got: Any, want: Any) -> bool:
    if isinstance(want, np.ndarray):
        got = np.asarray(got)
        return got.dtype.kind == want.dtype.kind and np.array_equal(got, want)
    return bool(got == want)


def _is_beginning(got: np.ndarray, want: np.ndarray) -> bool:
    return got.shape[1:] == want.shape[1:] and np.array_equal(got, want[: len(got)])


def _is_complete(root: Path, of: Kept) -> bool:
    with Store(root, mode="r") as store:
        return bool(store[of.uid].status == "complete")


def _is_noticed(root: Path, of: Kept, spoilt: Path, how: str) -> bool:
    """Say whether the digests of a run's journal tell of pixels that are not those announced.

    Without checksums a changed pixel can be read; so can a whole file in the place of another one.
    """
    if kind_of(spoilt) == "shard" and how != "swapped with another":
        return False
    with Store(root, mode="r") as store:
        run = store[of.uid]
        lines = read_journal(root / store.record(of.uid).path)
        digests = [line.digest for line in lines if line.name == "event" and line.digest]
        if not digests:  # the device that wrote by itself has them
            return not store.verify(of.uid, progress=False).ok
        for key in of.arrays:
            for number, digest in enumerate(digests):
                try:
                    if (
                        key in digest
                        and digest_of_pixels(run["primary"][key][number].compute()) != digest[key]
                    ):
                        return True
                except GentlyError:
                    continue
    return False


# -- a child's jobs --------------------------------------------------------------------------------------------


def make_template(channel: Channel | None, name: str, template: str) -> None:
    """Make a store of a kind, to be copied, and note what is in it."""
    kept = STORES[name](Path(template))
    Path(f"{template}.kept").write_bytes(pickle.dumps(kept))


def spoil_and_read(
    channel: Channel, name: str, template: str, scratch: str, seeds: list[int] | None
) -> list[str]:
    """Spoil a copy of a store for each seed, or each kind of file in turn; return what was wrong afterwards."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    kept = pickle.loads(Path(f"{template}.kept").read_bytes())
    turns = list(product(kinds_in(Path(template)), IN_TURN)) if seeds is None else []
    wrong: list[str] = []
    for seed in range(len(turns) + 1) if seeds is None else seeds:
        root, dice = Path(scratch) / f"copy-{seed}", random.Random(f"{name}-{seed}")
        shutil.copytree(template, root)
        kind, how = turns[seed] if seed < len(turns) else by_chance(root, dice)
        wrong += [f"seed {seed}: {said}" for said in spoil(root, kept, dice, kind, how)]
        shutil.rmtree(root)
        channel.tell({"spoilt": seed})  # nobody has patience for all of them
    return wrong


def by_chance(root: Path, dice: random.Random) -> tuple[str, str]:
    """Draw a kind of file and a way of spoiling it."""
    return dice.choice(kinds_in(root)), dice.choice(sorted(SPOIL) if dice.random() < 0.5 else IN_PLACE)


def kinds_in(root: Path) -> list[str]:
    return sorted({kind_of(path) for path in files_in(root)})


def files_in(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def spoil(root: Path, kept: list[Kept], dice: random.Random, kind: str, how: str) -> list[str]:
    """Spoil one file of a kind in a store and judge what comes of it."""
    path = dice.choice([path for path in files_in(root) if kind_of(path) == kind])
    if how in IN_PLACE and not path.stat().st_size:
        how = "longer"
    SPOIL[how](path, dice)
    signal.alarm(PATIENCE_S)  # ends the process, and so the test fails: something waits for ever
    said = [f"{path.relative_to(root)} {how}: {found}" for found in complaints(root, kept, path, how)]
    signal.alarm(0)
    return said
