"""Where a result came from and what was made of it: the graph over records, upward and downward.

A result names its parents in its start document: runs, assets or datums, several of them if need be. A run
contains its assets and an asset its datums, so that a datum's own origin is that of the run it belongs to.
Each question is one recursive statement. Nothing here recurses in Python, and cycles, which only journals
made by hand have, end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import CTE, ColumnElement, bindparam, select

from gently_bluesky.index.index import Index
from gently_bluesky.index.records import columns, joined, record_of
from gently_bluesky.index.schema import AnySelect, Uid, edges, records, tombstones
from gently_bluesky.markup import pre
from gently_bluesky.model import Record
from gently_bluesky.wording import clock, printable, short_uid

if TYPE_CHECKING:
    from gently_bluesky.plots import Drawing

__all__ = ["Child", "Lineage", "LineageNode", "ancestors", "children", "descendants", "needed"]


class LineageNode(NamedTuple):
    """One line of a lineage.

    Attributes
    ----------
    depth
        Steps from the record that was asked for.
    uid
        As the child names it.
    record
        None for a parent that is not in the store.
    repeated
        Whether its own parents are shown elsewhere in the lineage and not here.
    """

    depth: int
    uid: str
    record: Record | None
    repeated: bool = False


class Child(NamedTuple):
    """A result, in short: its uid, its data type, how its run ended, and whether it stands for what it was made of."""

    uid: str
    data_type: str | None
    status: str | None = "complete"
    suffices: bool = True


@dataclass(frozen=True, slots=True)
class Lineage:
    """A record and all it was made from: a value, printed as a tree, iterated as records, each of them once.

    Attributes
    ----------
    nodes
        Each node before its parents, in the order in which they are named; kept flat, however deep it is.
    """

    nodes: tuple[LineageNode, ...]

    @property
    def uid(self) -> str:
        """The uid this is the lineage of."""
        return self.nodes[0].uid

    @property
    def record(self) -> Record | None:
        """The record this is the lineage of; None for a parent that is not in the store."""
        return self.nodes[0].record

    @property
    def repeated(self) -> bool:
        """Whether the parents are shown elsewhere in the lineage that this is a part of."""
        return self.nodes[0].repeated

    @property
    def parents(self) -> tuple[Lineage, ...]:
        """The lineages of the parents, in the order in which the result names them."""
        top = self.nodes[0].depth
        begins = [i for i, node in enumerate(self.nodes) if node.depth == top + 1]
        return tuple(Lineage(self.nodes[i:j]) for i, j in pairwise([*begins, len(self.nodes)]))

    @property
    def depth(self) -> int:
        """Steps to the farthest ancestor; 0 for what was made from nothing."""
        return max(node.depth for node in self.nodes) - self.nodes[0].depth

    def __iter__(self) -> Iterator[Record]:
        seen: dict[str, Record] = {}
        for node in self.nodes:
            if node.record is not None:
                seen.setdefault(node.uid, node.record)
        return iter(seen.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __str__(self) -> str:
        return "\n".join(_tree(self.nodes))

    def __repr__(self) -> str:
        return f"<Lineage of {self.uid}: {len(self)} records, depth {self.depth}>"

    def _repr_html_(self) -> str:
        return pre(str(self))

    def plot(self, path: str | PathLike[str] | None = None) -> Drawing:
        """Draw it: what it was made from above it, an arrow for each step, each record once.

        A notebook shows what is returned, and so do windows after ``%matplotlib``; elsewhere give a ``path``, e.g.
        ``"lineage.png"``; what is there is replaced. Of a lineage of many records the first 60 are drawn.

        Raises
        ------
        MissingExtra
            matplotlib is not installed: it comes with the extra ``profile``.
        InvalidSetting, StorageError
            The picture cannot be written at ``path``.
        """
        from gently_bluesky.graphs import lineage_figure

        return lineage_figure(self, path)


def ancestors(index: Index, uid: str) -> Lineage:
    """Return what a run, asset or datum was made from, all the way up.

    An ancestor that several results share is shown in full once, and repeated by name.

    Raises
    ------
    UnknownUid, AmbiguousUid
        As ``Index.resolve``.
    """
    record = index.record(uid)
    found: dict[str, list[tuple[str, Record | None]]] = {}
    for child, parent, *values in index.rows(_UPWARD, run_uid=record.run_uid):
        found.setdefault(child, []).append((parent, None if values[0] is None else record_of(values)))
    return Lineage(tuple(_walk(record, found)))


def _walk(record: Record, found: dict[str, list[tuple[str, Record | None]]]) -> Iterator[LineageNode]:
    """Go through the graph depth first; the parents of a run are gone into once, which also ends cycles.

    ``found`` holds the parents of each run, the last one first.
    """
    entered: set[str] = set()
    todo: list[tuple[int, str, Record | None]] = [(0, record.uid, record)]
    while todo:
        depth, uid, here = todo.pop()
        parents = found.get(here.run_uid) if here else None
        repeated = here is not None and here.run_uid in entered
        yield LineageNode(depth, uid, here, repeated)
        if here and parents and not repeated:
            entered.add(here.run_uid)
            todo += [(depth + 1, *parent) for parent in parents]


def children(index: Index, uid: str) -> list[Record]:
    """Return the results made directly from a record or from anything it contains, newest last.

    Raises
    ------
    UnknownUid, AmbiguousUid
        As ``Index.resolve``.
    """
    return _results(index, uid, _CHILDREN)


def needed(index: Index) -> dict[str, list[Child]]:
    """Return the results made directly from each run, or from anything it contains, that were not deleted."""
    found: dict[str, list[Child]] = {}
    for run_uid, uid, data_type, status in index.rows(_NEEDED):
        found.setdefault(run_uid, []).append(Child(uid, data_type, status))
    return found


def descendants(index: Index, uid: str) -> list[Record]:
    """Return the results made from a record or from anything it contains, directly or not, newest last.

    Raises
    ------
    UnknownUid, AmbiguousUid
        As ``Index.resolve``.
    """
    return _results(index, uid, _DESCENDANTS)


def _results(index: Index, uid: str, statements: dict[str, AnySelect]) -> list[Record]:
    record = index.record(uid)
    return [
        record_of(row) for row in index.rows(statements[record.kind], uid=record.uid, run_uid=record.run_uid)
    ]


# -- the statements ------------------------------------------------------------------------------------------


def _upward() -> AnySelect:
    """Every edge above a run, the last one of each child first, with the parent's record where there is one."""
    walk = select(bindparam("run_uid", type_=Uid).label("run")).cte("walk", recursive=True)
    step = walk.join(edges, edges.c.child == walk.c.run).join(records, records.c.uid == edges.c.parent)
    walk = walk.union(select(records.c.run_uid).select_from(step))
    source = walk.join(edges, edges.c.child == walk.c.run).outerjoin(records, records.c.uid == edges.c.parent)
    statement = select(edges.c.child, edges.c.parent, *columns).select_from(joined(source))
    return statement.order_by(edges.c.position.desc())


def _contained(kind: str) -> ColumnElement[bool]:
    """Say which records ``:uid`` of this kind is or contains."""
    if kind == "run":
        return records.c.run_uid == bindparam("uid")
    if kind == "asset":
        # its datums are among the records of its run, of which there is an index
        return (records.c.run_uid == bindparam("run_uid")) & (records.c.asset_uid == bindparam("uid"))
    return records.c.uid == bindparam("uid")


def _made_from(kind: str) -> AnySelect:
    return (
        select(edges.c.child)
        .select_from(records.join(edges, edges.c.parent == records.c.uid))
        .where(_contained(kind), edges.c.child != bindparam("run_uid"))
    )


def _downward(kind: str) -> CTE:
    walk = _made_from(kind).cte("walk", recursive=True)
    step = select(edges.c.child).select_from(
        walk.join(records, records.c.run_uid == walk.c.child).join(edges, edges.c.parent == records.c.uid)
    )
    return walk.union(step.where(edges.c.child != bindparam("run_uid")))


def _select_results(uids: AnySelect) -> AnySelect:
    statement = select(*columns).select_from(joined(records)).where(records.c.uid.in_(uids))
    return statement.order_by(records.c.time, records.c.uid)


def _needed() -> AnySelect:
    child = records.alias("child")
    source = edges.join(records, records.c.uid == edges.c.parent).join(child, child.c.uid == edges.c.child)
    source = source.outerjoin(tombstones, tombstones.c.uid == edges.c.child)
    statement = select(records.c.run_uid, edges.c.child, child.c.data_type, child.c.status).select_from(
        source
    )
    statement = statement.where(tombstones.c.uid.is_(None), edges.c.child != records.c.run_uid).distinct()
    return statement.order_by(records.c.run_uid, edges.c.child)


_NEEDED: Final = _needed()
_KINDS: Final = ("run", "asset", "datum")
_UPWARD: Final = _upward()
_CHILDREN: Final = {kind: _select_results(_made_from(kind)) for kind in _KINDS}
_DESCENDANTS: Final = {kind: _select_results(select(_downward(kind).c.child)) for kind in _KINDS}


# -- the tree in print ---------------------------------------------------------------------------------------


def _tree(nodes: tuple[LineageNode, ...]) -> Iterator[str]:
    """Return a line per node, drawn from the last to the first: what follows tells which bar goes on."""
    goes_on: list[bool] = []
    lines: list[str] = []
    top = nodes[0].depth
    for node in reversed(nodes):
        depth = node.depth - top
        has_next = len(goes_on) > depth and goes_on[depth]
        del goes_on[depth + 1 :]
        goes_on += [False] * (depth + 1 - len(goes_on))
        goes_on[depth] = True
        bars = "".join("│  " if bar else "   " for bar in goes_on[1:depth])
        branch = ("├─ " if has_next else "└─ ") if depth else ""
        lines.append(bars + branch + _label(node))
    return reversed(lines)


def _label(node: LineageNode) -> str:
    short = short_uid(node.uid)
    record = node.record
    if record is None:
        return f"{short} (not in this store)"
    when = clock(record.time)
    if record.kind == "run":
        kind = record.data_type or record.metadata.get("plan_name") or "run"
        words = [str(kind), short, *([record.operation] if record.operation else [])]
        state = record.status if record.deleted is None else f"{record.status}, deleted"
        label = f"{' '.join(words)} ({state}, {when})"
    else:
        of = f" of {short_uid(record.run_uid)}"
        label = f"{record.stream or '?'}/{record.data_key or '?'} {short}{of} ({record.status}, {when})"
    return printable(label) + (" ^ shown elsewhere" if node.repeated else "")
