"""What plans say to storage, and storage to plans: lineage and session in start documents, a pause on failure.

Preprocessors in the sense of `bluesky.preprocessors`: each takes a plan and returns a plan, and has a decorator.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bluesky import RunEngine
from bluesky import preprocessors as bpp
from bluesky.run_engine import (
    TransitionError,  # pyright: ignore[reportPrivateImportUsage] # a part of request_pause, exported nowhere
)
from bluesky.utils import Msg, MsgGenerator, make_decorator

from gently_bluesky.derived import parent_uids
from gently_bluesky.errors import InvalidSetting, RunGoesOn
from gently_bluesky.jsontext import plain

__all__ = ["PauseOnFailure", "session", "session_decorator", "with_parents", "with_parents_decorator"]


def with_parents(
    plan: MsgGenerator[Any],
    parents: object,
    *,
    operation: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> MsgGenerator[Any]:
    """Put into the start documents of a plan's runs what those runs follow from.

    ``RE(with_parents(acquire_volume(scope), parents=[sweep.uid], operation="autofocus"))``: then
    ``store.lineage(uid)`` leads from the volume to the sweep that found its focus, and ``store.children`` back.
    Such runs are acquired ones all the same: ``store[-1]`` may be one.

    Parameters
    ----------
    plan
        Opens any number of runs. What a start document says in ``lineage`` by itself is kept instead.
    parents
        Uids, records, runs or lazy arrays, or one of them. They need not be in the store: their uids are kept.
    operation, parameters
        What was made of them, as in `Store.put`.

    Raises
    ------
    UnknownUid
        One of the parents has no uid; nothing moves.
    InvalidDocument
        The parameters hold what JSON cannot; nothing moves.
    """
    lineage = {
        "parents": list(parent_uids(parents)),
        "operation": operation,
        "parameters": plain(dict(parameters or {})),
    }
    return _with_defaults(plan, {"lineage": lineage})


def session(plan: MsgGenerator[Any], name: str) -> MsgGenerator[Any]:
    """Put the name of a session into the start documents of a plan's runs: ``RE(session(plan, "screen 3"))``.

    A start document that names one by itself keeps it. For all that a RunEngine runs: ``RE.md["session"] = name``.

    Raises
    ------
    InvalidSetting
        The name is no text, or empty; nothing moves.
    """
    if not isinstance(name, str) or not name.strip():  # pyright: ignore[reportUnnecessaryIsInstance] # typed in by people
        raise InvalidSetting(f"expected the name of a session, got {name!r}; nothing was run")
    return _with_defaults(plan, {"session": name})


def _with_defaults(plan: MsgGenerator[Any], metadata: Mapping[str, Any]) -> MsgGenerator[Any]:
    """Add to what runs are opened with; what they say themselves wins, as it is nearer to what is done."""

    def opened(message: Msg) -> Msg:
        if message.command != "open_run":
            return message
        return message._replace(kwargs={**metadata, **message.kwargs})

    return bpp.msg_mutator(plan, opened)


with_parents_decorator = make_decorator(with_parents)
"""`with_parents` for a function that makes a plan: ``@with_parents_decorator([sweep.uid])``."""
session_decorator = make_decorator(session)
"""`session` for a function that makes a plan: ``@session_decorator("screen 3")``."""


class PauseOnFailure:
    """Has a RunEngine pause as soon as storage fails, also in an hour's sleep: ``on_failure=PauseOnFailure(RE)``.

    The plan stands still, without what it does to end well, until somebody types ``RE.abort()``, which ends the
    run as failed, or ``RE.resume()``, whose next document raises the failure. Nothing happens where the run goes
    on in the store's overflow, or the RunEngine is idle or paused.
    """

    def __init__(self, run_engine: RunEngine) -> None:
        self._run_engine = run_engine

    def __call__(self, error: Exception) -> None:
        """Ask for the pause; called on a thread of the writer's own."""
        if isinstance(error, RunGoesOn) or self._run_engine.state != "running":
            return
        with suppress(TransitionError):  # it has ended meanwhile
            self._run_engine.request_pause()
