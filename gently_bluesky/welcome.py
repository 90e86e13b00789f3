"""What a session says when it begins: where the data go, and how the store is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gently_bluesky.labels import bytes_text
from gently_bluesky.wording import many

if TYPE_CHECKING:
    from gently_bluesky.store import Store

__all__ = ["welcome"]

LINES_SHOWN = 8
LOW_BYTES = 50e9
"""About a night of one camera at leisure: less than this is said to be little."""


def welcome(store: Store, session: str | None) -> str:
    """Return a few lines for a terminal: the folder, what it holds, its disk, and what opening it mended."""
    stats = store.stats()
    runs, free = dict(stats["runs"]), stats["free_bytes"]
    acquired = sum(runs.values()) - stats["derived"]
    odd = ", ".join(f"{count} {status}" for status, count in sorted(runs.items()) if status != "complete")
    lines = [
        f"Data go to {store.root}, session {session}.",
        f"  {many(acquired, 'run')}{f' ({odd})' if odd else ''}, {bytes_text(stats['nbytes'])} of pixels; "
        f"{bytes_text(free)} are free{': that is little' if free < LOW_BYTES else ''}",
    ]
    if store.overflow is not None:
        lines.append(f"  if the disk fails, runs go on in {store.overflow}")
    found = store.last_reconciliation
    if found is None or not (found.changes or found.needs_attention):
        return "\n".join([*lines, "  the store is well"])
    _, *said = str(found).splitlines()
    lines.append("  opening it found runs whose process had died, or other things out of step:")
    lines += [f"  {line}" for line in said[:LINES_SHOWN]]
    if len(said) > LINES_SHOWN:
        lines.append(
            f"    and {many(len(said) - LINES_SHOWN, 'line')} more: print(store.last_reconciliation)"
        )
    return "\n".join(lines)
