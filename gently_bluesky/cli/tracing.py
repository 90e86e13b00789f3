"""The command ``lineage``: what something was made from, or what was made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gently_bluesky.cli.places import IndexOption, JsonOption, OverflowOption, StoreOption, opened, place_of
from gently_bluesky.cli.telling import say, say_json, told
from gently_bluesky.cli.uids import UidArgument, record_of

if TYPE_CHECKING:
    from gently_bluesky.index.lineage import Lineage
    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = ["LINEAGE_EXAMPLES", "lineage"]

LINEAGE_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky lineage 9497f18d

    gently-bluesky lineage -1 --children    (what was made from the latest run)

    gently-bluesky lineage 9497f18d --dot | dot -Tsvg > lineage.svg    (with graphviz)
"""


def lineage(
    uid: UidArgument,
    *,
    children: Annotated[
        bool, typer.Option("--children", help="What was made from it, instead of what it was made from.")
    ] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print a graph for graphviz.")] = False,
    store: StoreOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what something was made from as a tree, all the way up. Changes nothing."""
    if dot and as_json:
        raise typer.BadParameter("--dot and --json are two ways of printing one thing: give one of them")
    with told("nothing was changed"), opened(place_of(store, index, overflow)) as reader:
        record = record_of(reader, uid)
        found = _downward(reader, record) if children else reader.lineage(record.uid)
        edges = [(below, above) if children else (above, below) for above, below in _edges(found)]
        if as_json:
            say_json(_as_json(found, edges))
        elif dot:
            say("\n".join(_dot(found, edges)))
        else:
            say(str(found))


def _downward(store: Store, record: Record) -> Lineage:
    """Return what was made from a record as a tree: the children of each result are shown once."""
    from gently_bluesky.index.lineage import Lineage, LineageNode

    nodes: list[LineageNode] = []
    entered: set[str] = set()
    todo: list[tuple[int, Record]] = [(0, record)]
    while todo:
        depth, here = todo.pop()
        made = store.children(here.uid)
        repeated = here.uid in entered
        nodes.append(LineageNode(depth, here.uid, here, repeated and bool(made)))
        if not repeated:
            entered.add(here.uid)
            todo += [(depth + 1, child) for child in reversed(made)]
    return Lineage(tuple(nodes))


def _edges(found: Lineage) -> Iterator[tuple[str, str]]:
    """Yield the uids of each node below another one, with that of the one above it, each pair once."""
    way: list[str] = []
    seen: set[tuple[str, str]] = set()
    for node in found.nodes:
        del way[node.depth :]
        if way and (node.uid, way[-1]) not in seen:
            seen.add((node.uid, way[-1]))
            yield node.uid, way[-1]
        way.append(node.uid)


def _as_json(found: Lineage, edges: list[tuple[str, str]]) -> dict[str, Any]:
    """Return records and edges side by side: a lineage may be deeper than JSON can be nested."""
    from gently_bluesky.cli.lines import record_json

    known = {node.uid: node.record for node in found.nodes}
    return {
        "uid": found.uid,
        "records": [
            {"uid": uid, "missing": True} if record is None else record_json(record)
            for uid, record in known.items()
        ],
        "edges": [{"parent": parent, "child": child} for parent, child in edges],
    }


def _dot(found: Lineage, edges: list[tuple[str, str]]) -> Iterator[str]:
    from gently_bluesky.index.lineage import Lineage

    yield "digraph lineage {"
    yield "  rankdir=BT;"
    yield "  node [shape=box, fontname=sans];"
    labels = {node.uid: str(Lineage((node._replace(depth=0, repeated=False),))) for node in found.nodes}
    for uid, label in labels.items():
        yield f"  {_quoted(uid)} [label={_quoted(label)}];"
    for parent, child in edges:
        yield f"  {_quoted(child)} -> {_quoted(parent)};"
    yield "}"


def _quoted(text: str) -> str:
    r"""Return a text as graphviz reads it, where ``\`` would begin an escape of its own.

    Examples
    --------
    >>> print(_quoted('a "b" \\n'))
    "a \"b\" \\n"
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
