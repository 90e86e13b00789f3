"""A lineage as a drawing: what a result was made from above it, in layers, an arrow for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING

from gently_bluesky.model import is_derived
from gently_bluesky.plots import Drawing, Page, kept
from gently_bluesky.wording import TO_THE_SECOND, clock

if TYPE_CHECKING:
    from gently_bluesky.index.lineage import Lineage
    from gently_bluesky.model import Record

__all__ = ["lineage_figure"]

MOST = 60
"""Records that are drawn."""
BOX, HIGH, ACROSS, DOWN, MARGIN = 190, 52, 220, 104, 24
"""Pixels: of a box, from one to the next, around all."""
LETTERS = 27
"""Of a line in a box."""
FILLS = {"run": "#dfeaf7", "asset": "#e6f2e0", "datum": "#e6f2e0", "result": "#fbeed5", "missing": "#eeeeee"}


@dataclass(slots=True)
class _Box:
    """One record; or a bend, where an arrow passes a layer."""

    uid: str
    record: Record | None
    parents: list[str] = field(default_factory=list[str])
    layer: int = 0
    place: float = 0.0
    is_bend: bool = False


def lineage_figure(lineage: Lineage, path: str | PathLike[str] | None) -> Drawing:
    """Return the drawing of a lineage, and write it where that is asked for."""
    boxes = _boxes(lineage)
    left_out = len({node.uid for node in lineage.nodes}) - len(boxes)
    layers = _layers(boxes)
    deepest = max(layers)
    width = max(ACROSS * max(map(len, layers.values())), 360) + 2 * MARGIN
    height = DOWN * deepest + HIGH + 2 * MARGIN + (20 if left_out else 0)
    page = Page(f"lineage of {lineage.uid[:8]}", width, height, window=path is None)
    axes = page.axes(0, 0, width, height)
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    centres = {
        box.uid: (width / 2 + ACROSS * box.place, MARGIN + HIGH / 2 + DOWN * (deepest - box.layer))
        for box in boxes.values()
    }
    for box in boxes.values():
        for parent in (boxes[uid] for uid in box.parents if uid in boxes):
            x, y = centres[box.uid]
            from_x, from_y = centres[parent.uid]
            ends = (
                (x, y - (0 if box.is_bend else HIGH / 2)),
                (from_x, from_y + (0 if parent.is_bend else HIGH / 2)),
            )
            arrow = {
                "arrowstyle": "-" if box.is_bend else "-|>",
                "color": "#777777",
                "shrinkA": 0,
                "shrinkB": 0,
            }
            axes.annotate("", *ends, arrowprops=arrow)
    for box in (box for box in boxes.values() if not box.is_bend):
        _draw(page, box, centres[box.uid], is_asked_for=box.uid == lineage.uid)
    if left_out:
        page.text(MARGIN, height - 10, f"and {left_out} more: print(lineage) has all", fontsize=8.5)
    return kept(page.figure, path)


def _boxes(lineage: Lineage) -> dict[str, _Box]:
    """Return each record once, with its parents; what is shown elsewhere in the tree has those it has there."""
    boxes: dict[str, _Box] = {}
    of_run: dict[str, list[str]] = {}
    branch: list[_Box] = []
    top = lineage.nodes[0].depth
    for node in lineage.nodes:
        box = boxes.get(node.uid)
        if box is None and len(boxes) < MOST:
            box = boxes[node.uid] = _Box(node.uid, node.record)
            if node.record is not None:
                box.parents = of_run.setdefault(node.record.run_uid, [])
        del branch[node.depth - top :]
        if branch and node.uid not in branch[-1].parents:
            branch[-1].parents.append(node.uid)
        branch.append(box or _Box(node.uid, node.record))
    return boxes


def _layers(boxes: dict[str, _Box]) -> dict[int, list[_Box]]:
    """Put each box above all that was made from it, and beside the others near what was made from it."""
    for _ in range(len(boxes)):  # as long a way as there is; one with a cycle, made by hand, ends here too
        moved = False
        for box in boxes.values():
            for parent in (boxes[uid] for uid in box.parents if uid in boxes):
                if parent.layer <= box.layer < len(boxes):
                    parent.layer, moved = box.layer + 1, True
        if not moved:
            break
    _bend(boxes)
    layers: dict[int, list[_Box]] = {}
    for box in boxes.values():
        layers.setdefault(box.layer, []).append(box)
    for layer in (layers[number] for number in sorted(layers)):
        layer.sort(key=lambda box: _middle_of_children(box, boxes))
        for place, box in enumerate(layer):
            box.place = place - (len(layer) - 1) / 2
    return layers


def _bend(boxes: dict[str, _Box]) -> None:
    """Lead arrows that pass layers between the boxes of these."""
    for box in list(boxes.values()):
        parents = box.parents = [*box.parents]  # what a run was made from, all of its arrays were
        for place, uid in enumerate(parents):
            child, parent = box, boxes.get(uid)
            for layer in range(box.layer + 1, parent.layer if parent is not None else 0):
                bend = _Box(f"{box.uid} {uid} {layer}", None, [uid], layer, is_bend=True)
                boxes[bend.uid] = bend
                child.parents[place if child is box else 0] = bend.uid
                child = bend


def _middle_of_children(box: _Box, boxes: Mapping[str, _Box]) -> float:
    places = [
        child.place + child.parents.index(box.uid) / 100
        for child in boxes.values()
        if box.uid in child.parents and child.layer < box.layer
    ]
    return sum(places) / len(places) if places else 0.0


def _draw(page: Page, box: _Box, centre: tuple[float, float], *, is_asked_for: bool) -> None:
    x, y = centre
    record = box.record
    lines = _words(box)
    kind = "missing" if record is None else record.kind
    if record is not None and record.kind == "run" and is_derived(record.metadata):
        kind = "result"
    page.box(x, y, BOX, HIGH, FILLS[kind], strong=is_asked_for, dashed=record is None)
    for number, line in enumerate(lines):
        text = line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}\u2026"
        weight = "normal" if number else "bold"
        page.text(
            x, y + (number - (len(lines) - 1) / 2) * 15 + 4, text, ha="center", fontsize=8, fontweight=weight
        )


def _words(box: _Box) -> Sequence[str]:
    head, slash, tail = box.uid.partition("/")
    short, record = head[:8] + slash + tail, box.record
    if record is None:
        return "not in this store", short
    if record.kind == "run":
        kind = str(record.data_type or record.metadata.get("plan_name") or "run")
        by = f" {record.operation}" if record.operation else ""
        return f"{kind}{by}", f"{short}, {record.status}", clock(record.time, TO_THE_SECOND)
    of = f"{short} of {record.run_uid[:8]}"
    return f"{record.stream or '?'}/{record.data_key or '?'}", of, clock(record.time, TO_THE_SECOND)
