"""A plan for flyers whose events are announced while they fly; ``bp.fly`` is the one for those that name datums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import Stoppable
from bluesky.utils import MsgGenerator, short_uid

from gently_bluesky.errors import InputError

__all__ = ["fly_and_collect"]


def fly_and_collect(
    *flyers: Any, stream: str = "primary", period_s: float = 1.0, md: Mapping[str, Any] | None = None
) -> MsgGenerator[str]:
    """Fly, and announce what is stored meanwhile: one run.

    A pause lets the event under way be taken, and the flight goes on from there. Where the plan is aborted or
    fails, the flight ends, and what it stored is announced.

    Parameters
    ----------
    *flyers
        Whose `complete` may be called again, as that of `FliesWithStreams`; several are announced in step.
    stream
        Where their events go.
    period_s
        Seconds between announcements.
    md
        Metadata for the start document.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    InputError
        There are no flyers.
    """
    if not flyers:
        raise InputError("expected one flyer or more, got none; nothing was started")

    @bpp.run_decorator(md={"plan_name": "fly_and_collect", "flyers": [f.name for f in flyers], **(md or {})})
    def flight() -> MsgGenerator[None]:
        yield from bps.declare_stream(*flyers, name=stream, collect=True)
        yield from bpp.contingency_wrapper(until_complete(), except_plan=lambda _: landing())

    def until_complete() -> MsgGenerator[None]:
        yield from bps.kickoff_all(*flyers, wait=True)
        group, statuses = yield from completing()
        while not all(status.done for status in statuses):
            # What stands behind a checkpoint is done again after a pause; each range is announced once.
            yield from bps.checkpoint()
            is_forgotten = yield from bps.wait(group=group, timeout=period_s, error_on_timeout=False)
            yield from bps.collect(*flyers, name=stream)
            if is_forgotten and not all(status.done for status in statuses):
                group, statuses = yield from completing()  # a pause makes the RunEngine forget a group
        yield from bps.checkpoint()
        yield from bps.complete_all(*flyers, wait=True)  # raises what a forgotten group did not
        yield from bps.collect(*flyers, name=stream)

    def completing() -> MsgGenerator[tuple[str, Sequence[Any]]]:
        group = short_uid("complete")
        return group, (yield from bps.complete_all(*flyers, group=group, wait=False))

    def landing() -> MsgGenerator[None]:
        for flyer in flyers:
            if isinstance(flyer, Stoppable):
                yield from bps.stop(flyer)
        yield from bps.collect(*flyers, name=stream)

    return cast("str", (yield from flight()))
