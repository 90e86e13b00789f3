"""Commands that list what is in a store: ``runs``, ``find`` and ``stats``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gently_bluesky.cli.places import IndexOption, JsonOption, OverflowOption, StoreOption, opened, place_of
from gently_bluesky.cli.tables import is_terminal, say_pairs, say_table
from gently_bluesky.cli.telling import NOTHING_FOUND, remark, say, say_json, say_json_list, told
from gently_bluesky.wording import many

if TYPE_CHECKING:
    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = ["FIND_EXAMPLES", "RUNS_EXAMPLES", "STATS_EXAMPLES", "find", "runs", "stats"]

UNDISTURBED = "nothing was changed"
NEWEST = 20
SESSIONS_SHOWN = 10
CHOICES = {"derived", "deleted"}
TEXTS = {"kind", "data_type", "session", "status", "stream", "data_key", "operation"}
"""What a query takes as text, whatever it looks like."""
TIMES = {"since", "until"}

RUNS_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky runs    (the newest 20)

    gently-bluesky runs --since 2026-11-21T18:00

    gently-bluesky runs --session 2026-11-21 --derived    (and what was made of them)

    gently-bluesky runs --all | grep failed

    gently-bluesky runs --last 1 --json | jq -r '.[0].uid'
"""


def runs(
    *,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=1, help="The newest so many; by default 20.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Those since then: 2026-11-21, or 2026-11-21T18:00.")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Those of a session.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    derived: Annotated[bool, typer.Option("--derived", help="Derived results too.")] = False,
    store: StoreOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of a store, the newest first. Changes nothing.

    A pipe gets whole uids, every column, and no colour.
    """
    with told(UNDISTURBED), opened(place_of(store, index, overflow)) as reader:
        found = reader.query(since=since, session=session, derived=None if derived else False)
        bound = NEWEST if last is None and not (every or since or session) else last
        shown = list(islice(found, bound))
        if as_json or shown:
            _say_runs(reader, shown, as_json=as_json)
        else:
            remark(f"no runs in {reader.root}{' answer to that' if since or session else ''}")
        if last is None and bound is not None and next(found, None) is not None and is_terminal():
            remark(f"these are the newest {bound}; --all lists all there are")


def _say_runs(store: Store, records: Sequence[Record], *, as_json: bool) -> None:
    from gently_bluesky.cli.lines import RUN_COLUMNS, run_json, run_row

    if as_json:
        say_json_list(run_json(store, record) for record in records)
    else:
        say_table(RUN_COLUMNS, [run_row(store, record) for record in records])


FIND_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky find embryo=e3 status=failed

    gently-bluesky find data_type=projection since=2026-11-21

    gently-bluesky find sample.age_h=3    (of what is nested)

    gently-bluesky find plate='"3"'    (a text, where 3 is a number)

    gently-bluesky find kind=asset data_key=view_a session=2026-11-21

[bold]Conditions[/bold]

kind (run, asset or datum), data_type, session, status, stream, data_key, operation, since, until, derived and deleted \
(true or false), and whatever start documents hold.

It ends with 0 if something was found, 1 if nothing was, or it could not be looked for.
"""


def find(
    conditions: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE", help="All of them have to hold.", show_default=False),
    ],
    *,
    last: Annotated[int | None, typer.Option("--last", "-n", min=1, help="The newest so many.")] = None,
    store: StoreOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find runs, derived results, arrays and events by what they are, the newest first. Changes nothing."""
    wanted = dict(map(_condition, conditions))
    with told(UNDISTURBED), opened(place_of(store, index, overflow)) as reader:
        found: Iterator[Record] = islice(reader.query(**wanted), last)
        first = next(found, None)
        if first is None:
            if as_json:
                say_json_list([])
            remark(f"nothing in {reader.root} answers to that{_of_numbers(wanted)}")
            raise typer.Exit(NOTHING_FOUND)
        _say_found(reader, first, found, as_json=as_json)


def _say_found(store: Store, first: Record, more: Iterator[Record], *, as_json: bool) -> None:
    from gently_bluesky.cli.lines import RECORD_COLUMNS, record_json, record_row

    if first.kind == "run" and not as_json:
        _say_runs(store, [first, *more], as_json=False)
    elif first.kind == "run":
        from gently_bluesky.cli.lines import run_json

        say_json_list(run_json(store, record) for one in ([first], more) for record in one)
    elif as_json:
        say_json_list(record_json(record) for one in ([first], more) for record in one)
    else:
        say_table(RECORD_COLUMNS, [record_row(record) for one in ([first], more) for record in one])


def _condition(said: str) -> tuple[str, Any]:
    name, equals, value = said.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected key=value, got {said!r}", param_hint="KEY=VALUE")
    if name in TEXTS:
        return name, value
    try:
        read: Any = json.loads(value)
    except ValueError:
        read = value
    if name in TIMES and not isinstance(read, int | float):
        read = value
    if name in CHOICES and not isinstance(read, bool):
        raise typer.BadParameter(
            f"expected {name}=true or {name}=false, got {said!r}", param_hint="KEY=VALUE"
        )
    return name, read


def _of_numbers(wanted: dict[str, Any]) -> str:
    others = TIMES | CHOICES
    numbers = [f"{name}={said}" for name, said in wanted.items() if name not in others and _is_number(said)]
    if not numbers:
        return ""
    name = numbers[0].partition("=")[0]
    return f"; {', '.join(numbers)} was read as a number: a text is {name}='\"...\"'"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


STATS_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky stats

    gently-bluesky stats --store ~/dispim --json | jq .free_bytes
"""


def stats(
    *,
    store: StoreOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how much is in a store, and how much room its disk has. Changes nothing."""
    with told(UNDISTURBED), opened(place_of(store, index, overflow)) as reader:
        known = reader.stats()
        if as_json:
            say_json(known)
        else:
            _say_stats(known)


def _say_stats(known: dict[str, Any]) -> None:
    from gently_bluesky.labels import bytes_text

    by_status = {status: number for status, number in known["runs"].items() if number}
    total = sum(by_status.values())
    listed = ", ".join(f"{number:,} {status}" for status, number in sorted(by_status.items()))
    sessions: list[str] = known["sessions"]
    newest = sessions[-SESSIONS_SHOWN:] if is_terminal() else sessions
    left_out = f" ... {', '.join(newest)}" if len(newest) < len(sessions) else f" {', '.join(newest)}"
    say(f"{known['root']}")
    say_pairs(
        [
            (
                "runs",
                f"{total - known['derived']:,} of the microscope, {many(known['derived'], 'derived result')}",
            ),
            ("status", listed or "none"),
            ("arrays", f"{known['assets']:,}, of {many(known['datums'], 'event')}"),
            ("pixels", f"{bytes_text(known['nbytes'])} uncompressed"),
            ("free", f"{bytes_text(known['free_bytes'])} on its disk"),
            ("sessions", f"{len(sessions):,}:{left_out}" if sessions else "none"),
            ("uid", known["uid"]),
        ]
    )
