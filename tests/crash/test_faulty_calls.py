"""A disk that refuses a single call, whoever makes it: the plan fails loudly, and the next one finds all well."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looking import answers, examine, snapshot
from shim import FOREVER, Act
from zygote import Zygote

ERRORS = {
    "WRITE": (errno.ENOSPC, errno.EIO),
    "SYNC": (errno.EIO, errno.ENOSPC),
    "RENAME": (errno.EIO, errno.EACCES),
    "CREATE": (errno.EMFILE, errno.EACCES, errno.ENOSPC),
    "OPEN": (errno.EMFILE, errno.EIO),
    "MKDIR": (errno.ENOSPC, errno.EACCES),
    "REMOVE": (errno.EACCES, errno.EIO),
}
"""What a call of each kind may be refused with."""

FAMILIES = pytest.mark.parametrize("assets", ["datum", "stream"])


def fault(kind: str, at: int, error: int = 0, *, lasts: bool = False) -> dict[str, Any]:
    """One call fails, or all from it on do; without an error it writes less than it should."""
    act = Act.FAIL if error else Act.SHORTEN
    return {"kind": kind, "at": at, "until": FOREVER if lasts else at, "act": act, "error": error}


def all_faults(calls: dict[str, int]) -> Iterator[dict[str, Any]]:
    for kind, errors in ERRORS.items():
        for at in range(1, calls[kind] + 1):
            for error in errors:
                yield fault(kind, at, error)
                yield fault(kind, at, error, lasts=True)
    for at in range(1, calls["WRITE"] + 1):
        yield fault("WRITE", at)


def some_faults(calls: dict[str, int], seed: str) -> list[dict[str, Any]]:
    """Return one fault of each kind, that lasts or does not, and short writes."""
    dice = random.Random(seed)
    some = [
        fault(kind, dice.randint(1, calls[kind]), dice.choice(errors), lasts=dice.random() < 0.5)
        for kind, errors in ERRORS.items()
    ]
    return [*some, fault("WRITE", dice.randint(1, calls["WRITE"])), fault("WRITE", 1, lasts=True)]


def assert_each_is_well_or_told(
    zygote: Zygote, root: Path, format: str, assets: str, faults: list[dict[str, Any]]
) -> None:
    said = zygote.call("meet_faults", root=str(root), format=format, assets=assets, faults=faults)
    before = examine(None, str(root), mode="r")
    after = examine(None, str(root), mode="a")
    for report, met in zip(said, [*faults, None], strict=True):
        run, announced = after.get(report["night"]), report["announced"]
        where = f"{met}: {report}"
        assert report["is_ours"] or report["error"] is None, where
        assert report["was_called"], where
        if met is not None:
            assert report["refused"] >= 1 or report["made"] < met["at"], f"nothing was refused: {where}"
        if met is None or met["act"] is Act.SHORTEN:
            assert report["error"] is None, where
        if announced:
            assert run is not None, where
            assert before[report["night"]]["events"][: len(announced)] == announced, where
        if run is None:
            assert report["error"], where
            continue
        assert run["events"][: len(announced)] == announced, where
        assert run["frames"] == len(run["events"]) == run["stored"], where
        assert run["lost"] == run["received"] - run["stored"], where
        if report["error"] is None or run["status"] == "complete":
            assert (run["status"], len(announced)) == ("complete", 2), where
        else:
            assert run["status"] in ("failed", "incomplete"), where
        assert not {".live", ".reserve"} & set(run["left"]), where
    files, answered = snapshot(root), answers(root, "a")
    assert snapshot(root) == files
    (root / "index.sqlite").unlink()
    assert answers(root, "a") == answered


@FAMILIES
def test_refused_call_fails_its_run_loudly_and_no_other(
    zygote: Zygote, root: Path, tmp_path: Path, format: str, assets: str
) -> None:
    calls = zygote.call("count_calls", root=str(tmp_path / "counted"), format=format, assets=assets)
    faults = some_faults(calls, f"{format}-{assets}")
    assert_each_is_well_or_told(zygote, root, format, assets, faults)


@pytest.mark.long
@FAMILIES
@pytest.mark.parametrize("first", range(8))
def test_each_call_refused_with_each_error_fails_its_run_loudly_and_no_other(
    zygote: Zygote, tmp_path: Path, format: str, assets: str, first: int
) -> None:
    calls = zygote.call("count_calls", root=str(tmp_path / "counted"), format=format, assets=assets)
    faults = list(all_faults(calls))[first::8]
    for begin in range(0, len(faults), 20):
        assert_each_is_well_or_told(
            zygote, tmp_path / f"store-{begin}", format, assets, faults[begin : begin + 20]
        )
