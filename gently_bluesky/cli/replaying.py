"""The command ``replay``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from gently_bluesky.cli.places import JsonOption
from gently_bluesky.cli.telling import NEEDS_A_PERSON, remark, say, say_json, told
from gently_bluesky.wording import many

if TYPE_CHECKING:
    from gently_bluesky.documents.replay import BadDocument, ReplayProgress, Source
    from gently_bluesky.store import StoreWriter

__all__ = ["REPLAY_EXAMPLES", "replay"]

REPLAY_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky replay ~/dispim    (what was recorded, a line for each document)

    gently-bluesky replay tonight.jsonl.gz --table --speed original    (as it looked then)

    gently-bluesky replay ~/dispim --into ~/copy    (an equal store)

    gently-bluesky replay ~/dispim --into ~/for-fiji --format tiff    (the same, as OME-TIFF)

    gently-bluesky replay run.msgpack --json | jq .name    (any form of recording, as lines of JSON)

    gently-bluesky replay broken.jsonl --skip-bad --into ~/rescued

[bold]Exit codes[/bold]

    0    everything was replayed

    1    it was not; the message says how far it came

    3    bad documents were passed over
"""
NAMED = 20
Callback = Callable[[str, dict[str, Any]], object]


def _speed(said: str) -> float | None:
    names = {"max": None, "original": 1.0}
    if said in names:
        return names[said]
    try:
        return float(said.removesuffix("x"))
    except ValueError:
        raise typer.BadParameter(f"expected a number, 'original' or 'max', got {said!r}") from None


def _there(source: Path) -> Path:
    """Refuse what is not there before a store is made for it."""
    if str(source) != "-" and not source.expanduser().exists():
        raise typer.BadParameter(f"there is nothing at {source}")
    return source


def replay(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A recorded file, a run, a store, a folder of these; - for stdin.",
            callback=_there,
        ),
    ],
    *,
    into: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Write it into a store, made if it is missing.")
    ] = None,
    format: Annotated[
        Literal["zarr", "tiff"] | None,
        typer.Option(help="With --into: OME-Zarr, as by default, or OME-TIFF with one file per event."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the numbers of each run's events.")] = False,
    publish: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Send it to bluesky's 0MQ proxy, tcp://host:port.")
    ] = None,
    tiled: Annotated[
        str | None, typer.Option(metavar="URI", help="Register it with a Tiled server ($TILED_API_KEY).")
    ] = None,
    speed: Annotated[
        str, typer.Option(help="[bold]max[/bold], [bold]original[/bold], or how many times as fast.")
    ] = "max",
    longest_wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With a speed: no pause is longer.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Pass over bad documents, and say which.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send recorded documents to where they went once: to another store, a table, other programs.

    Recordings are journals of a store, JSON, JSON lines, suitcase-jsonl, suitcase-msgpack and RFC 7464, as they
    are or compressed with gzip. Without a target each document is printed, in a line.
    """
    from gently_bluesky.documents.pace import progress_bar
    from gently_bluesky.documents.replay import replay as replay_documents

    tempo = _speed(speed)
    bad: list[BadDocument] = []
    seen: list[ReplayProgress] = []
    if publish and tiled and not into:
        raise typer.BadParameter(
            "--publish sends arrays, and --tiled takes references: give one of them, or --into"
        )
    if format and not into:
        raise typer.BadParameter("--format says how --into stores: give that too")
    if table and as_json:
        raise typer.BadParameter("--table and --json are two ways of printing: give one of them")
    begun = time.monotonic()
    where = [str(one) for one in (into, publish, tiled) if one]
    with told("what was sent before is where it went"):
        if into and not skip_bad:
            _require_documents(source)
        with ExitStack() as stack:
            writer = (
                stack.enter_context(_storing(into, format or "zarr", skip_bad=skip_bad)) if into else None
            )
            callbacks = _targets(stack, writer, publish, tiled)
            if table or not where:
                callbacks.append(_printed(table=table, as_json=as_json))
            shown = stack.enter_context(progress_bar(bool(where) and not (table or as_json)))

            def note(now: ReplayProgress) -> None:
                seen[:] = [now]
                if shown is not None:
                    shown(now)

            runs = replay_documents(
                cast("Source", sys.stdin.buffer) if str(source) == "-" else source,
                *callbacks,
                fill=bool(into or publish),
                speed=tempo,
                longest_wait_s=longest_wait,
                progress=note,
                skip_bad=bad.append if skip_bad else False,
            )
        try:
            if where:
                took_s = time.monotonic() - begun
                _tell_done(runs, seen[0].documents, bad, where, took_s, as_json=as_json)
        finally:
            if bad:
                _tell_bad(bad)
                raise typer.Exit(NEEDS_A_PERSON)


def _require_documents(source: Path) -> None:
    """Raise what `replay` raises of a source that holds nothing, before a store is made for it."""
    from gently_bluesky.documents.replay import read_documents

    if str(source) == "-":
        return  # it can be read just once
    with closing(read_documents(source, fill=False)) as documents:
        next(documents, None)


def _tell_done(
    runs: tuple[str, ...],
    documents: int,
    bad: list[BadDocument],
    where: list[str],
    took_s: float,
    *,
    as_json: bool,
) -> None:
    if not as_json:
        to = ", ".join(where)
        say(f"{many(len(runs), 'run')}, {many(documents, 'document')} replayed to {to} in {took_s:.1f} s")
        return
    skipped = [{key: getattr(one, key) for key in ("source", "place", "name", "reason")} for one in bad]
    say_json({"runs": runs, "documents": documents, "skipped": skipped})


@contextmanager
def _storing(into: Path, format: str, *, skip_bad: bool) -> Generator[StoreWriter]:
    from gently_bluesky.documents.replay import REFUSALS
    from gently_bluesky.store import Store

    with Store(into.expanduser()) as store:
        yield store.writer(format=format)
        if skip_bad:
            with suppress(*REFUSALS):  # it was told already why a run failed that is ended here
                store.close()


def _targets(
    stack: ExitStack, writer: StoreWriter | None, publish: str | None, tiled: str | None
) -> list[Callback]:
    """Return what takes the documents; it is closed with the stack."""
    callbacks: list[Callback] = []
    server = _tiled_writer(stack, tiled) if tiled else None
    if writer is not None:
        if server is not None:
            writer.subscribe(server)
        callbacks.append(writer)
    elif server is not None:
        callbacks.append(server)
    if publish is not None:
        from gently_bluesky.cli.publishing import published

        callbacks.append(stack.enter_context(published(publish)))
    return callbacks


def _tiled_writer(stack: ExitStack, uri: str) -> Callback:
    from gently_bluesky.errors import MissingExtra

    try:
        from bluesky_tiled_plugins import TiledWriter
        from tiled.client import from_uri

        from gently_bluesky.tiled import register
    except ImportError as error:
        raise MissingExtra(
            "--tiled needs Tiled, which is not installed; nothing was sent; pip install 'gently-bluesky[tiled]'"
        ) from error
    register()
    client = from_uri(uri)
    stack.callback(client.context.http_client.close)
    return TiledWriter(client)


def _printed(*, table: bool, as_json: bool) -> Callback:
    from gently_bluesky.cli import document_lines

    if as_json:
        return document_lines.as_json_lines
    return document_lines.tables() if table else document_lines.lines()


def _tell_bad(bad: list[BadDocument]) -> None:
    for one in bad[:NAMED]:
        remark(f"passed over: {one}", colour="yellow")
    if len(bad) > NAMED:
        remark(f"and {len(bad) - NAMED:,} more", colour="yellow")
    remark(f"{many(len(bad), 'document')} passed over")
