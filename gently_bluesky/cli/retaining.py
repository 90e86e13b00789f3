"""Commands about room: ``retain``, by a policy, and ``du``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gently_bluesky.cli.places import (
    AllowOption,
    IndexOption,
    JsonOption,
    OverflowOption,
    StoreOption,
    opened,
    place_of,
)
from gently_bluesky.cli.telling import NEEDS_A_PERSON, say, say_json, told

if TYPE_CHECKING:
    from gently_bluesky.upkeep.retention import Policy

__all__ = ["DU_EXAMPLES", "RETAIN_EXAMPLES", "du", "retain"]

RETAIN_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky retain    (by retention.toml in the store)

    gently-bluesky retain --policy trial.toml

    gently-bluesky retain --json | jq -r '.goes[].uid'

    gently-bluesky verify --quiet && gently-bluesky retain --apply

[bold]A policy[/bold]

is a small file of rules with max_age, max_size, min_free, keep_last or thin, and of what to keep: docs/retention.md \
shows one. Without one nothing goes. What is not verified stays.

It ends with 0 if all is well, 3 if --apply left something alone, 2 if the policy is none, 1 if it could not be done.
"""


def retain(
    *,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A policy; by default retention.toml in the store.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Do it: put what the plan says into the trash, and purge what is due."),
    ] = False,
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would go by a policy and why, and what stays and why; with --apply, do it.

    Pixels go to the trash, from where they can be restored until their time is over; documents stay.
    """
    with (
        told("what was done is on record; do it again for the rest"),
        opened(place_of(store, index, overflow, allow), writes=apply) as keeper,
    ):
        plan = keeper.retention.plan(None if policy is None else _policy(policy))
        if not as_json:
            say(str(plan))
        done = keeper.retention.apply(plan) if apply else None
        if as_json:
            say_json(plan.to_dict() if done is None else {"plan": plan.to_dict(), "applied": done.to_dict()})
        elif done is not None:
            say(f"\n{done}")
        if done is not None and done.left:
            raise typer.Exit(NEEDS_A_PERSON)


def _policy(path: Path) -> Policy:
    from gently_bluesky.upkeep.retention import Policy

    return Policy.from_toml(path)


DU_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky du    (by session)

    gently-bluesky du --by embryo

    gently-bluesky du --by data_type --store ~/dispim

    gently-bluesky du --by age --json | jq '.shares[] | select(.name == "older").nbytes'
"""


def du(
    *,
    by: Annotated[
        str, typer.Option(metavar="KEY", help="session, data_type, age, or any key of start documents.")
    ] = "session",
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the files of a store's pixels take on its disk. Changes nothing.

    Files are looked at, and not read; documents, and what others wrote elsewhere, are not counted.
    """
    with told("nothing was changed"), opened(place_of(store, index, overflow, allow)) as reader:
        usage = reader.retention.usage(by)
        if as_json:
            say_json(usage.to_dict())
        else:
            say(str(usage))
