"""Looking at a store on a disk that is mounted read-only."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from looking import examine
from zygote import Channel, remount_read_only

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError


def look_where_nothing_can_be_written(channel: Channel, root: str, leave: list[str]) -> dict[str, Any]:
    """Leave only these files of the index, mount the disk read-only, and open the store in every way."""
    for path in Path(root).glob("index.sqlite*"):
        if path.name not in leave:
            path.unlink()
    remount_read_only(Path(root).parent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Store(root) as store:
            refused = _refusal(lambda: store.writer())
            planned = store.reconcile(dry_run=True)
            mode, runs = store.mode, len(list(store.query()))
    return {
        "mode": mode,
        "runs": runs,
        "warned": [str(warning.message) for warning in caught],
        "refused": refused,
        "not reconciled": _refusal(lambda: Store(root, mode="r").reconcile()),
        "ended": [ended.run for ended in planned.ended],
        "seen": examine(None, root),
    }


def _refusal(call: Any) -> str:
    try:
        call()
    except GentlyError as error:
        return f"{error.code}: {error}"
    return "none"
